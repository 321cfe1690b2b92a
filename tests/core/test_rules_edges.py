"""Edges of the rules: the very instant, the very rank, and what no single feed of a vector can show."""

from datetime import timedelta
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.conversation import (
    Base,
    Behind,
    Conversation,
    Pointer,
)
from sync.model.effect import ReadElsewhere
from sync.model.errors import Conflict, ItemNotFound
from sync.model.query import SetProperties
from sync.rules.markers import read_to
from sync.rules.mentions import MAX_WORDS, nick_keys
from sync.rules.properties import set_properties, until
from sync.rules.times import FOR_EVER
from sync.rules.view import View, cleared, read_up_to
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    NOW,
    WITH_BOB,
    account,
    after,
    conversation,
)
from tests.core.edges import AT, ran

DAY = 24 * 60 * 60
LEFT = Behind(1, 0)


# ---- how long an id names one message (docs/feed.md §7: 24 hours) ----------------------------------------------------


@pytest.mark.parametrize(("seconds", "taken"), [(DAY - 1, 1), (DAY, 2)])
@pytest.mark.parametrize("way", ["in m1", "in m1 room=far nick=Bob occ=o1", "said m1 by=bob"])
def test_an_id_names_one_message_for_a_day(way: str, seconds: int, taken: int) -> None:
    tables = ran("members ann=member bob=member", way, f"wait {seconds}", way).store.tables
    assert sum(found.counted for found in tables.messages.values()) == taken


@pytest.mark.parametrize(("seconds", "unread"), [(DAY - 1, 0), (DAY, 1)])
def test_a_note_waits_a_day_for_the_room_to_say_it(seconds: int, unread: int) -> None:
    world = ran("out m1 room=far", f"wait {seconds}", "in m1 room=far nick=Annie archive=a1")
    (found,) = world.store.tables.conversations.values()
    assert found.unread == unread


# ---- read pointers ---------------------------------------------------------------------------------------------------


def reading(pointer: Pointer, behind: Behind | None = LEFT, **fields: Any) -> Any:
    """What a marker at a place does to a conversation of which five messages are unread."""
    before = View(
        account=account(unread=5, unread_conversations=1),
        key=WITH_BOB,
        conversation=conversation(**({"unread": 5} | fields)),
        behind={} if behind is None else {pointer.rank: behind},
    )
    return read_to(before, pointer, "web", NOW)


def test_reading_tells_from_where() -> None:
    for first, told in ((3, 3), (None, 7)):
        (effect,) = reading(Pointer(7, "a7"), Behind(1, 0, first)).effects
        assert effect == ReadElsewhere(conversation=WITH_BOB, version=AT, first_rank=told, resource="web")


def test_reading_nothing_new_takes_nothing_back() -> None:
    decision = reading(Pointer(7, "a7"), Behind(5, 0))
    assert decision.after.conversation.read == Pointer(7, "a7")
    assert decision.effects == ()


def test_a_place_that_is_not_counted_is_unknown() -> None:
    assert reading(Pointer(7), None).ignored == "unknown-target"
    nobody = View(account=account(), key=WITH_BOB, behind={7: Behind(0, 0)})
    assert read_to(nobody, Pointer(7), None, NOW).ignored == "unknown-target"


@pytest.mark.parametrize(
    ("rank", "base", "ignored"),
    [
        (6, Base(unread=4, rank=7), "trimmed-target"),
        (7, Base(unread=4, rank=7), None),
        (6, Base(rank=7), None),
        (8, Base(unread=4, rank=7), None),
    ],
)
def test_what_is_counted_without_the_index_is_read_as_a_whole(rank: int, base: Base, ignored: str | None) -> None:
    decision = reading(Pointer(rank), base=base)
    assert decision.ignored == ignored
    if decision.after is not None:
        assert decision.after.conversation.base == Base()


@pytest.mark.parametrize(
    ("rank", "marked", "ignored"),
    [(6, True, "old-marker"), (7, False, "old-marker"), (7, True, None), (8, False, None)],
)
def test_the_same_place_again_only_takes_a_mark_away(rank: int, marked: bool, ignored: str | None) -> None:
    decision = reading(Pointer(rank), read=Pointer(7, "a7"), marked_unread=marked)
    assert decision.ignored == ignored
    if decision.after is not None:
        found = decision.after.conversation
        assert (found.read, found.marked_unread) == (Pointer(rank, "a7"), False)


def test_a_receipt_keeps_its_name_where_the_marker_has_none() -> None:
    world = ran("out m1 archive=a1", "out m2", "receipt m1", "receipt m2", "displayed m2 dir=in", "displayed m2 dir=in")
    (found,) = world.store.tables.conversations.values()
    assert (found.delivered.id, found.displayed.id) == ("a1", None)
    assert world.ignored == {"old-marker": 1}


def test_read_up_to_leaves_what_is_behind() -> None:
    was = conversation(unread=9, mentions=8, base=Base(unread=4, mentions=3, rank=2), marked_unread=True)
    assert read_up_to(was, Pointer(5, "a5"), Behind(2, 1, 3)) == conversation(
        unread=2, mentions=1, read=Pointer(5, "a5")
    )


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"taken": 5}, 5),
        ({"taken": 0}, 8),  # without entries of a room the conversation's own version is the end
        ({"taken": 5, "read": Pointer(6, "a6")}, 6),
        ({"taken": 5, "base": Base(unread=1, rank=7)}, 7),
    ],
)
def test_clearing_reads_to_the_end(fields: dict[str, Any], end: int) -> None:
    found = cleared(conversation(8, unread=3, mentions=2, **fields))
    assert (found.read.rank, found.unread, found.mentions, found.base) == (end, 0, 0, Base())
    assert found.read.id == fields.get("read", Pointer()).id


# ---- mentions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Al", {"al"}),
        ("a", set()),
        (
            "Ann Lee, the 3rd.",
            {"ann", "ann lee", "ann lee, the", "lee", "lee, the", "lee, the 3rd", "the", "the 3rd", "3rd"},
        ),
        ("J.R.", {"j.r.", "j.r"}),
        ("x- _x", {"x-", "x- _x", "_x"}),
        ("Xann annX", {"xann", "xann annx", "annx"}),
    ],
)
def test_the_nicknames_that_may_stand_in_a_text(text: str, keys: set[str]) -> None:
    found = nick_keys(text)
    dotted = {key for key in found if key.endswith(".") and key != "j.r."}
    assert found - dotted == keys


def test_only_so_many_words_are_looked_at() -> None:
    words = [f"w{n}" for n in range(MAX_WORDS + 1)]
    found = nick_keys(" ".join(words))
    assert words[MAX_WORDS - 1] in found
    assert words[MAX_WORDS] not in found


# ---- properties ------------------------------------------------------------------------------------------------------


def asked(peer: str, **fields: Any) -> SetProperties:
    return SetProperties(peer=peer, **fields)


def books(*found: Conversation) -> Books:
    return Books(now=NOW, accounts={ANN: account(version=5)}, conversations={one.key: one for one in found})


def test_what_is_as_it_was_does_not_keep_the_rest_from_changing() -> None:
    ruling = set_properties(
        ANN, [asked(BOB, pinned=0), asked(CAT, pinned=2)], books(conversation(), conversation(2, CAT))
    )
    assert [(one.key.peer, one.pinned, one.version) for one in ruling.value.changed] == [(CAT, 2, AT)]
    assert ruling.writes.conversations == list(ruling.value.changed)
    assert [one.version for one in ruling.writes.accounts] == [AT]


def test_nothing_changed_writes_nothing() -> None:
    ruling = set_properties(ANN, [asked(BOB, pinned=0)], books(conversation()))
    assert (ruling.value.changed, ruling.writes.accounts, ruling.writes.conversations) == ((), [], [])


def test_refusals_say_why() -> None:
    with pytest.raises(ItemNotFound, match=r"^There is no such conversation\.$"):
        set_properties(ANN, [asked(CAT)], books(conversation()))
    with pytest.raises(ItemNotFound):
        set_properties(EVE, [asked(BOB)], books(conversation()))
    with pytest.raises(ItemNotFound, match=r"^There is no such message in the conversation\.$"):
        set_properties(ANN, [asked(BOB, read="a9")], books(conversation()))
    with pytest.raises(Conflict, match=r"^The conversation has changed meanwhile\.$"):
        set_properties(ANN, [asked(BOB, if_version=2)], books(conversation(1)))


def test_each_version_is_compared_with_what_the_asker_saw() -> None:
    twice = [asked(BOB, pinned=1, if_version=1), asked(BOB, pinned=2, if_version=1)]
    assert [one.pinned for one in set_properties(ANN, twice, books(conversation(1))).value.changed] == [2]


def test_a_duration_ends_where_time_does() -> None:
    left = FOR_EVER - NOW
    assert until(NOW, timedelta(seconds=1)) == after(1)
    assert until(NOW, left - timedelta(seconds=1)) == FOR_EVER - timedelta(seconds=1)
    assert until(NOW, left) == until(NOW, timedelta.max) == FOR_EVER
