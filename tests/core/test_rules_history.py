"""How far an archive was read, by hand: cursors and their edges, times of one second, what a page says of itself. What
a page does to conversations is in `tests/vectors/rules/history.toml` and `test_rules_room_history.py`.
"""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books, Writes
from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.model.conversation import Behind, ConversationKey, Direction, Kind, LastMessage, Pointer, key_of
from sync.model.event import (
    Body,
    Content,
    Correction,
    Displayed,
    FeedPosition,
    Mentions,
    MessageEvent,
    Nothing,
    RoomMessageEvent,
)
from sync.model.room import nick_key
from sync.rules import history
from sync.rules.fold import Policies
from sync.rules.history import SECOND
from sync.rules.times import instant, microseconds
from sync.rules.view import Conduct, Decision, View
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    NOW,
    OF_TEA,
    TEA,
    WITH_BOB,
    account,
    after,
    conversation,
    last,
    message,
    owned,
    storing,
)
from tests.core.rule_feed import stanza

WITH_CAT = ConversationKey(ANN, CAT)
ROW = Bootstrap(account=ANN, since=5000, due_at=NOW, start=100, after="a1", rank=150, seen=3, restored=9, attempts=2)


def item(content: Content, peer: str = BOB, kind: Kind = Kind.CHAT, at: int = 0, **fields: Any) -> MessageEvent:
    return MessageEvent(
        position=FeedPosition("example.org", "archive", "0", 1),
        account=ANN,
        at=instant(at),
        peer=peer,
        sender=peer,
        content=content,
        stanza=stanza("x"),
        kind=kind,
        **({"direction": Direction.IN} | fields),
    )


def said(archive_id: str, at: int, **fields: Any) -> RoomMessageEvent:
    values: dict[str, Any] = {
        "sender": f"{TEA}/Bob",
        "content": Body(mentions=Mentions()),
        "author": BOB,
        "message_id": archive_id,
    }
    return RoomMessageEvent(
        position=FeedPosition("rooms.example.org", "archive", "0", 1),
        account=TEA,
        at=instant(at),
        stanza=stanza("x"),
        archive_id=archive_id,
        **(values | fields),
    )


# ---- places ---------------------------------------------------------------------------------------------------------


def test_the_own_storage_says_how_far_chats_are_read() -> None:
    events = [
        item(Displayed("a1", ("a1",))),
        item(Displayed("a2", ("a2",)), CAT),
        item(Displayed("a3", ("a3",)), TEA, Kind.GROUP),
        item(Nothing("item")),
    ]
    assert history.marked(events) == {WITH_BOB: "a1", WITH_CAT: "a2"}


def test_floors_are_the_highest_places() -> None:
    events = [
        item(Body(), archive_id="a1", rank=5),
        item(Body(), archive_id="a2", rank=9),
        item(Body(), rank=7),
        item(Body(), CAT, archive_id="a3"),
    ]
    known = {(WITH_BOB, key_of("a1")): 30}
    assert history.highest(events, known) == {WITH_BOB: 30, WITH_CAT: 0}
    assert history.highest(events, {}) == {WITH_BOB: 9, WITH_CAT: 0}


def test_places_move_on_from_those_that_are_taken() -> None:
    events = [item(Body(), at=10), item(Body(), at=10), item(Body(), CAT, at=5), item(Body(), archive_id="a4", at=50)]
    known = {(WITH_BOB, key_of("a4")): 90}
    ranks = [one.rank for one in history.ranked(events, 7, known, {WITH_CAT: 40}, {(WITH_BOB, 10)}, step=3)]
    assert ranks == [13, 14, 41, 50]
    behind = history.ranked([*events, item(Body(), at=60)], 7, known, {}, step=3)
    assert [one.rank for one in behind] == [10, 11, 12, 50, 91]


def test_where_what_is_known_has_its_place() -> None:
    found = [message(1, archive_key="k1"), message(2), message(3, archive_key="k3")]
    ruling = history.known_places(Books(now=NOW, messages={WITH_BOB: found}))
    assert ruling.value == {(WITH_BOB, "k1"): 1, (WITH_BOB, "k3"): 3}


@pytest.mark.parametrize("several", [False, True])
def test_the_rows_that_say_what_is_known(several: bool) -> None:
    chats = set(WITH_BOB.alike) if several else {WITH_BOB}
    wanted = history.known_keys([item(Body(), archive_id="a1"), item(Body())], several=several)
    assert wanted.accounts == {ANN}
    assert wanted.archived == {(one, key_of("a1")) for one in chats}


@pytest.mark.parametrize("several", [False, True])
def test_the_rows_that_a_page_may_read_or_change(several: bool) -> None:
    chats, past = set(WITH_BOB.alike) if several else {WITH_BOB}, history.Past(since=7, marked={WITH_BOB: "a9"})
    page = [
        item(Body(sealed=Kind.OMEMO_2), archive_id="a1", message_id="m1", rank=11),
        item(Displayed("m5", ()), archive_id="a2", rank=12),
        item(Body(), archive_id="a3"),
    ]
    wanted = history.keys_of(page, past, ANN, several=several)
    assert wanted.accounts == {ANN}
    assert wanted.conversations == chats
    assert wanted.places == {(one, 11) for one in chats}
    sealed = {WITH_BOB, replace(WITH_BOB, kind=Kind.OMEMO_2)} if several else {WITH_BOB}
    assert wanted.marks == {(one, 7) for one in sealed}
    assert wanted.archived == {(one, key_of("a1")) for one in sealed} | {(WITH_BOB, key_of("a3"))}
    assert wanted.behind == chats
    assert wanted.ids == {(one, key_of(name)) for one in chats for name in ("a1", "m1", "a9", "a2", "m5", "a3")}


def test_places_begin_at_one_and_rooms_have_their_own() -> None:
    (first,) = history.ranked([item(Body())], 0, {}, {}, step=1)
    assert first.rank == 1
    assert history.key_of_event(item(Body(), TEA, Kind.GROUP)) == ConversationKey(ANN, TEA, Kind.GROUP)


@pytest.mark.parametrize("sending_reads", [False, True])
def test_own_markers_go_by_themselves(sending_reads: bool) -> None:
    marker, theirs = item(Displayed("m1", ()), direction=Direction.OUT), item(Displayed("m1", ()))
    sent = [item(Body(), direction=Direction.OUT, archive_id=name) for name in ("a1", "a2")]
    got, unnamed = item(Body(), archive_id="a3"), item(Body(), CAT, direction=Direction.OUT)
    rest, markers = history.own_markers([marker, theirs, *sent, got, unnamed], Conduct(sending_reads=sending_reads))
    assert rest == [theirs, *sent, got, unnamed]
    wrote = replace(sent[1], content=Displayed("a2", ("a2",)), archive_id=None)
    assert markers == ([marker, wrote] if sending_reads else [marker])


# ---- what an item does ----------------------------------------------------------------------------------------------


def view(**fields: Any) -> View:
    return View(account=account(), key=WITH_BOB, **fields)


@pytest.mark.parametrize(
    ("rank", "known", "buried"),
    [(7, False, False), (8, False, True), (9, False, True), (10, False, False), (8, True, False)],
)
def test_what_was_deleted_before_the_horizon_does_not_come_back(rank: int, known: bool, buried: bool) -> None:
    event, before = item(Body(), archive_id="a1", rank=rank), view(conversation=conversation() if known else None)
    done = history.recalled(before, event, history.Past(since=7, horizon=9), Conduct(), NOW)
    assert (done.ignored == "buried") is buried


@pytest.mark.parametrize(
    ("rank", "read", "unread", "behind", "told"),
    [
        (7, Pointer(5, "a5"), 0, None, "a1"),
        (8, Pointer(5, "a5"), 0, None, "a5"),  # behind the first contact
        (5, Pointer(5, "a5"), 0, None, "a5"),  # it is there already
        (6, Pointer(5, "a5"), 2, 2, "a1"),  # what is unread is behind
        (6, Pointer(5, "a5"), 3, 2, "a5"),  # one of them would be passed
        (6, Pointer(5, "a5"), 1, None, "a5"),
    ],
)
def test_what_was_archived_before_the_first_contact_is_read(
    rank: int, read: Pointer, unread: int, behind: int | None, told: str
) -> None:
    counts = {} if behind is None else {7: Behind(behind, 0, None)}
    before = view(conversation=conversation(read=read, unread=unread), behind=counts)
    found = history.read_along(before, item(Body(), archive_id="a1", rank=rank), history.Past(since=7), NOW)
    assert found is not None
    assert found.read.id == told


@pytest.mark.parametrize(
    ("fields", "rank", "behind"),
    [
        ({"conversation": conversation(read=Pointer(5, "a9"))}, 5, False),
        ({"conversation": conversation(read=Pointer(5, "a9"))}, 6, True),
        ({"found": (message(5, archive_key=key_of("a9")),)}, 5, False),
        ({"found": (message(5, archive_key=key_of("a9")),)}, 6, True),
        ({"beside": (message(5, archive_key=key_of("a9")),)}, 6, True),
        ({"found": (message(1, archive_key=key_of("a1")),)}, 6, False),
    ],
)
def test_what_the_own_storage_has_not_read(fields: dict[str, Any], rank: int, behind: bool) -> None:
    past = history.Past(since=7, marked={WITH_BOB: "a9"})
    assert history.is_behind_mark(view(**fields), past, rank) is behind
    assert not history.is_behind_mark(view(**fields), history.Past(since=7), rank)


@pytest.mark.parametrize(
    ("shown", "known", "taken"),
    [
        (last(5, stanza=stanza("old")), True, True),
        (last(5, stanza=stanza("x")), True, False),  # it is what is shown
        (last(5, stanza=stanza("old"), retracted=True), True, False),
        (last(6, stanza=stanza("old")), True, False),
        (None, True, False),
        (last(5, stanza=stanza("old")), False, False),
    ],
)
def test_a_correction_that_was_taken_live_is_shown_again(shown: LastMessage | None, known: bool, taken: bool) -> None:
    event = item(Correction("m1"), archive_id="a2", rank=9)
    found = (message(5, message_key=key_of("m1")),) if known else ()
    before = view(conversation=conversation(last=shown), found=found)
    done = history.shown_again(before, Correction("m1"), event, NOW)
    if not taken:
        assert done == Decision(ignored="duplicate")
        return
    assert done.after is not None
    assert done.after.conversation is not None
    assert done.after.conversation.last == replace(shown, stanza=stanza("x"))
    assert done.after.conversation.version == done.after.account.version > 1000


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_nothing_is_restored_for_who_is_gone() -> None:
    done = history.restore([], history.Past(since=7), None, Books(now=NOW), Policies())
    assert (done.writes, done.value.gone) == (Writes(), True)


def test_a_page_counts_what_it_found_and_later_places_are_higher() -> None:
    rank = microseconds(NOW) + 50
    known = message(3, archive_key=key_of("a3"))
    page = [item(Body(), archive_id=f"a{n}", rank=place) for n, place in ((1, 1), (3, 3), (4, rank))]
    books = Books(now=NOW, accounts={ANN: account()}, messages={WITH_BOB: [known]})
    done = history.restore(page, history.Past(since=2), ROW, books, Policies())
    assert (done.value.messages, dict(done.value.ignored), done.value.gone) == (2, {"duplicate": 1}, False)
    assert done.writes.bootstraps == [replace(ROW, restored=11)]
    assert [owner.version > rank for owner in done.writes.accounts] == [True]


# ---- cursors --------------------------------------------------------------------------------------------------------


def test_a_page_without_items_moves_nothing() -> None:
    assert history.moved(ROW, None, seen=5, until=1000, limit=1) is ROW


def test_a_page_moves_the_cursor_behind_its_last_item() -> None:
    moved = history.moved(ROW, ("a9", 300), seen=5, until=1000, limit=9)
    assert moved == replace(ROW, after="a9", rank=300, seen=8, attempts=0)


@pytest.mark.parametrize(("until", "start"), [(1000, 650), (304, 302), (303, 301), (300, 301), (0, 301)])
def test_an_archive_without_end_is_gone_on_with_in_the_middle_of_what_is_left(until: int, start: int) -> None:
    moved = history.moved(ROW, ("a9", 300), seen=5, until=until, limit=8)
    assert moved == replace(ROW, start=start, after=None, rank=300, seen=0, attempts=0)


@pytest.mark.parametrize("fields", [{"after": "a1"}, {"rank": 0}, {"rank": 400}, {"rank": 500}])
def test_what_was_no_step_has_nothing_nearer(fields: dict[str, Any]) -> None:
    assert history.nearer(replace(ROW, **({"after": None, "rank": 300, "start": 400} | fields)), "end") is None


def test_a_step_that_found_nothing_is_halved_and_ends_at_the_item() -> None:
    rank = 9 * SECOND
    row = replace(ROW, after=None, rank=rank, start=rank + SECOND + 2)
    assert history.nearer(row, "end") == replace(row, start=rank + SECOND // 2 + 1)
    row = replace(row, start=rank + SECOND)
    assert history.nearer(row, "end") == replace(row, start=8 * SECOND, after="end")
    row = replace(row, rank=1, start=2)
    assert history.nearer(row, "end") == replace(row, start=1, after="end")


def test_a_time_that_is_not_behind_an_item_of_whole_seconds() -> None:
    assert [history.before(rank) for rank in (1, SECOND + 1, SECOND + 2, 5 * SECOND)] == [1, 1, 2, 4 * SECOND]


@pytest.mark.parametrize("why", [None, "no-archive"])
def test_an_archive_that_was_read_says_why_it_ended(why: str | None) -> None:
    assert history.finished(ROW, why) == replace(ROW, state=BootstrapState.DONE, why=why, attempts=0)


# ---- rooms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (8 * SECOND, 8 * SECOND),
        (8 * SECOND + 1, 9 * SECOND + 1),
        (9 * SECOND, 9 * SECOND + 1),
        (9 * SECOND + 1, 9 * SECOND + 1),
    ],
)
def test_what_follows_in_the_same_second_came_after_it(time: int, told: int) -> None:
    (found,) = history.timed([said("a1", time)], 9 * SECOND, Books(now=NOW))
    assert microseconds(found.at) == told


def test_what_is_known_has_its_own_time() -> None:
    known = replace(message(1, archive_key=key_of("a1")), sent_at=instant(5 * SECOND))
    first, second = history.timed([said("a1", 3), said("a2", 4)], 0, Books(now=NOW, messages={OF_TEA: [known]}))
    assert (microseconds(first.at), microseconds(second.at)) == (5 * SECOND, 4)


def test_a_page_of_a_room_says_what_it_did() -> None:
    store, since = MemoryStore(SetClock(NOW)), microseconds(NOW)
    store.apply(owned(ANN, rooms={TEA}), storing())
    row = replace(store.tables.bootstraps[TEA], restored=4, since=since)
    page = [said("a1", since - 1), said("a2", since), said("a3", since + 1), said("a4", since + SECOND + 2)]
    page += page[2:]
    rule = lambda books: history.restore_room(page, row, 0, books, Policies())  # noqa: E731
    store.clock.instant = after(9)
    done = store.apply(history.keys_of_room(page, TEA), rule)
    assert (done.messages, set(done.rooms), dict(done.ignored)) == (4, {TEA}, {"duplicate": 2})
    assert done.reached == since + SECOND + 2
    assert store.tables.bootstraps[TEA].restored == 8
    counted = {one.archive_id: one.counted for one in store.tables.messages.values()}
    assert counted == {"a1": False, "a2": False, "a3": True, "a4": True}


def test_a_page_of_a_room_wants_whom_it_may_mean() -> None:
    meant = Mentions(jids=(CAT,), occupant_ids=("o1",), occupants=(f"{TEA}/Dan",))
    wanted = history.keys_of_room([said("a1", 1, content=Body(mentions=meant, text="hey Eve"))], TEA)
    assert wanted.rooms == {TEA}
    assert wanted.members == {(TEA, BOB), (TEA, CAT)}
    assert wanted.occupants == {(TEA, "o1")}
    assert {(TEA, nick_key(nick)) for nick in ("Dan", "Eve", "hey Eve")} <= wanted.nicks
    assert wanted.ids == {(OF_TEA, key_of("a1"))}
