"""What every Store promises of a transaction (sync/ports/store.py): the in-memory one, and Postgres."""

from dataclasses import replace
from datetime import time

import pytest

from sync.model.books import Books, LanePosition, Quarantined, Ruling
from sync.model.call import CallState
from sync.model.conversation import Base, ChangeKind, ConversationKey, Direction, Kind, Notify, Pointer, Status
from sync.model.device import JobState, Lane
from sync.model.errors import ItemNotFound, Uncommittable
from sync.model.event import FeedPosition
from sync.model.push import Environment
from sync.model.query import ListQuery
from sync.model.quiet import Hours, Quiet
from sync.model.wishes import NO_WISHES, Wishes
from sync.rules.times import FOR_EVER, microseconds
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    NOW,
    TEA,
    WISHES,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    change,
    conversation,
    device,
    job,
    last,
    member,
    membership,
    message,
    owned,
    seeing,
)
from tests.contract.stores import Bench

LANE = "example.org", "stream", "main", 3
ALL = owned(create=False, conversations=[WITH_BOB])


# ---- transact -------------------------------------------------------------------------------------------------------


async def test_an_account_is_made_where_asked_for(stores: Bench) -> None:
    books = await stores.store.transact(owned(ANN, EVE), seeing())
    made = microseconds(NOW)  # tokens of an earlier account of that name are too old
    assert books.accounts == {jid: account(jid, version=made, floor=made) for jid in (ANN, EVE)}
    assert await stores.store.account(ANN) == account(ANN, version=made, floor=made)


async def test_and_not_otherwise(stores: Bench) -> None:
    books = await stores.store.transact(owned(create=False), seeing())
    assert books.accounts == {}
    assert await stores.store.account(ANN) is None


async def test_the_rule_sees_the_instant_of_its_transaction(stores: Bench) -> None:
    stores.clock.instant = after(7)
    assert await stores.store.transact(owned(), seeing(lambda books: books.now)) == after(7)


async def test_a_rule_that_raises_leaves_no_trace(stores: Bench) -> None:
    """But for rows that it wanted to lock, which may stay, with nothing in them."""
    before = await stores.store.transact(owned(), seeing(lambda books: books.accounts[ANN]))

    def refuses(_: Books) -> Ruling[None]:
        raise ItemNotFound

    with pytest.raises(ItemNotFound):
        await stores.store.transact(owned(), refuses)
    assert await stores.store.account(ANN) == before


async def test_an_account_comes_back_as_it_was_stored(stores: Bench) -> None:
    quiet = Quiet(until=after(60.5), hours=Hours(time(22), time(7, 30), "Europe/Berlin"), calls=True)
    stored = account(
        epoch=3, floor=7, unread=5, mentions=4, unread_conversations=2, devices=1, wakes_open=True, quiet=quiet
    )
    await stores.put(accounts=[stored])
    assert await stores.store.account(ANN) == stored


@pytest.mark.parametrize("muted_until", [None, after(60), FOR_EVER])
async def test_a_conversation_comes_back_as_it_was_stored(stores: Bench, muted_until: object) -> None:
    stored = conversation(9, status=Status.ARCHIVED, pinned=2**60, muted_until=muted_until, read=Pointer(3, "a3"))
    stored = replace(stored, displayed=Pointer(4, "a4"), delivered=Pointer(5, "a5"), last=last(5, retracted=True))
    stored = replace(stored, unread=5, mentions=4, base=Base(unread=3, mentions=2, rank=7), marked_unread=True)
    stored = replace(stored, ringing=1, rewritten=8, log_from=6, written=True, notify=Notify.ON_MENTION)
    stored = replace(stored, requests_presence=True, request_told_at=after(1), invited_by="cat@example.net")
    stored = replace(stored, private=False, nick="Ann", taken=4)
    await stores.put(conversations=[conversation(1)])
    await stores.put(conversations=[stored])
    assert (await stores.store.transact(ALL, seeing())).conversations == {WITH_BOB: stored}


@pytest.mark.parametrize("direction", Direction)
async def test_a_message_is_found_by_each_of_its_ids(stores: Bench, direction: Direction) -> None:
    keys = {"message_key": "m", "origin_key": "o", "archive_key": "a", "archive_id": "a"}
    stored = message(5, direction=direction, counted=False, **keys)
    await stores.put(messages=[stored, message(6, message_key="other")])
    for identifier in ("m", "o", "a"):
        books = await stores.store.transact(owned(ids=[(WITH_BOB, identifier)]), seeing())
        assert books.messages == {WITH_BOB: [stored]}


async def test_a_long_archive_id_is_kept_whole(stores: Bench) -> None:
    stored = message(5, archive_key="sha256:00", archive_id="x" * 3000)
    await stores.put(messages=[stored])
    books = await stores.store.transact(owned(ids=[(WITH_BOB, "sha256:00")]), seeing())
    assert books.messages == {WITH_BOB: [stored]}


async def test_a_message_comes_back_as_it_was_stored(stores: Bench) -> None:
    stored = message(5, message_key="m", mention=True, about=4, author="occupant", mentions=(ANN, EVE))
    await stores.put(messages=[stored, message(6, message_key="n", author=ANN)])
    books = await stores.store.transact(owned(ids=[(WITH_BOB, "m")]), seeing())
    assert books.messages == {WITH_BOB: [stored]}


@pytest.mark.parametrize("asked", ["ids", "archived"])
async def test_what_a_found_message_is_about_comes_along(stores: Bench, asked: str) -> None:
    correction = message(6, archive_key="a", archive_id="a", counted=False, about=5)
    elsewhere = message(5, ConversationKey(ANN, CAT))
    await stores.put(messages=[message(5), elsewhere, correction, message(7)])
    books = await stores.store.transact(owned(**{asked: [(WITH_BOB, "a")]}), seeing())
    assert {key: {found.rank for found in messages} for key, messages in books.messages.items()} == {WITH_BOB: {5, 6}}


async def test_archived_looks_at_archive_ids_only(stores: Bench) -> None:
    await stores.put(messages=[message(5, message_key="x"), message(6, archive_key="x", archive_id="x")])
    books = await stores.store.transact(owned(archived=[(WITH_BOB, "x")]), seeing())
    assert [found.rank for found in books.messages[WITH_BOB]] == [6]


async def test_an_id_is_looked_up_in_its_own_conversation(stores: Bench) -> None:
    elsewhere = [ConversationKey(ANN, CAT), ConversationKey(EVE, BOB), ConversationKey(ANN, BOB, Kind.GROUP)]
    keys = {"message_key": "x", "archive_key": "y", "archive_id": "y"}
    await stores.put(ANN, EVE, messages=[message(5, key, **keys) for key in elsewhere])
    lookups = [(WITH_BOB, "x"), (WITH_BOB, "y")]
    assert (await stores.store.transact(owned(ids=lookups, archived=lookups), seeing())).messages == {}


async def test_of_a_known_message_only_its_retraction_is_stored(stores: Bench) -> None:
    await stores.put(messages=[message(5, message_key="m")])
    await stores.put(messages=[message(5, message_key="m", counted=False, retracted=6)])
    books = await stores.store.transact(owned(ids=[(WITH_BOB, "m")]), seeing())
    assert books.messages[WITH_BOB] == [message(5, message_key="m", retracted=6)]


async def test_a_call_brings_its_conversation_along(stores: Bench) -> None:
    stored = call(
        media=("audio", "video"), answered_by="phone", continues="s0", archive_id="a", state=CallState.ANSWERED
    )
    others = [call("s2"), call(owner=EVE), call(peer=CAT, media=(), stanza=None, state=CallState.CLOSED)]
    await stores.put(ANN, EVE, calls=[stored, *others], conversations=[conversation(1), conversation(2, CAT)])
    books = await stores.store.transact(owned(calls=[(ANN, "s1")]), seeing())
    assert books.calls == {found.key: found for found in (stored, others[2])}
    assert {key.peer for key in books.conversations} == {BOB, CAT}


async def test_of_a_known_call_the_state_changes(stores: Bench) -> None:
    await stores.put(calls=[call()])
    await stores.put(calls=[call(state=CallState.ANSWERED, version=7, answered_by="web", continues="s0")])
    books = await stores.store.transact(owned(calls=[(ANN, "s1")]), seeing())
    assert list(books.calls.values()) == [call(state=CallState.ANSWERED, version=7, answered_by="web", continues="s0")]


async def test_a_call_into_a_room_comes_with_the_conversation_of_that_kind(stores: Bench) -> None:
    hail = call("a1", TEA, kind=Kind.GROUP)
    beside = [conversation(1, TEA), membership(2)]
    await stores.put(ANN, calls=[hail], conversations=beside)
    for keys in (owned(calls=[(ANN, "a1")]), owned(lines=[ConversationKey(ANN, TEA, Kind.GROUP)])):
        books = await stores.store.transact(keys, seeing())
        assert books.calls == {hail.key: hail}
        assert books.conversations == {beside[1].key: beside[1]}


@pytest.mark.parametrize("wishes", [NO_WISHES, WISHES, Wishes(rooms=()), Wishes(muted=frozenset({BOB}), away=True)])
async def test_the_wishes_of_a_device(stores: Bench, wishes: Wishes) -> None:
    await stores.put(accounts=[account(devices=1)], devices=[device(wishes=WISHES)])
    await stores.put(devices=[device(wishes=wishes)])
    books = await stores.store.transact(replace(owned(), devices=True), seeing())
    assert books.devices == {ANN: [device(wishes=wishes)]}


async def test_positions(stores: Bench) -> None:
    lane, other = LanePosition(*LANE), LanePosition("example.org", "stream", "main", 4)
    await stores.put(positions={lane: 5})
    await stores.put(positions={lane: 8})
    books = await stores.store.transact(owned(positions=[lane, other]), seeing())
    assert books.positions == {lane: 8}


async def test_a_quarantined_event_is_kept_once(stores: Bench) -> None:
    aside = Quarantined(position=FeedPosition("example.org", "s", "main", 1), account=ANN, why="x", event="<event/>")
    await stores.put(quarantined=[aside])
    await stores.put(quarantined=[aside])


# ---- what the schema refuses ----------------------------------------------------------------------------------------

REFUSED = {
    "account_counts": {"accounts": [account(unread=1, unread_conversations=2)]},
    "account_version_is_time": {"accounts": [account(version=5, floor=6)]},
    "conversation_counts": {"conversations": [conversation(unread=1, mentions=2)]},
    "conversation_base_is_behind": {
        "conversations": [conversation(unread=1, base=Base(unread=1, rank=3), read=Pointer(3, "a"))]
    },
    "conversation_rewritten_by_version": {"conversations": [conversation(1, rewritten=2)]},
    "conversation_by_version": {"conversations": [conversation(1), conversation(1, CAT)]},
    "message_mention_counts": {"messages": [message(counted=False, mentions=(ANN,))]},
    "message_own_is_not_unread": {"messages": [message(direction=Direction.OUT)]},
    "message_keys_are_short": {"messages": [message(message_key="x" * 129)]},
    "change_has_text": {"changes": [change(1, kind=ChangeKind.RETRACTED)]},
    "change_pkey": {"changes": [change(1), change(1, 2)]},
    "call_kind": {"calls": [call(kind=Kind.OMEMO_2)]},
    "call_ringing_has_propose": {"calls": [call(stanza=None)]},
    "call_rings_after_propose": {"calls": [call(rings_until=after(-1))]},
    "device_failures_have_begun": {"devices": [device(failures=2)]},
    "device_by_node": {"devices": [device(node="n"), device("tablet", node="n")]},
    "push_job_done_has_outcome": {"jobs": [job(state=JobState.DONE)]},
    "push_job_voip_is_call": {"jobs": [job(voip=True)]},
    "push_job_voip_once": {"jobs": [call_job("one"), call_job("two", version=9)]},
}


@pytest.mark.parametrize("constraint", REFUSED)
async def test_impossible_rows_are_refused_by_name(stores: Bench, constraint: str) -> None:
    before = await stores.store.transact(owned(), seeing(lambda books: books.accounts[ANN]))
    with pytest.raises(Uncommittable) as refused:
        await stores.put(**REFUSED[constraint])
    assert refused.value.name == constraint
    assert await stores.store.account(ANN) == before


async def test_what_no_column_can_hold_is_refused(postgres: Bench) -> None:
    with pytest.raises(Uncommittable):
        await postgres.put(conversations=[conversation(pinned=2**64)])


async def test_text_that_no_column_can_hold_is_refused(postgres: Bench) -> None:
    with pytest.raises(Uncommittable):
        await postgres.put(conversations=[conversation(last=last(stanza="\0"))])


async def test_an_account_with_a_resource_is_refused(stores: Bench) -> None:
    with pytest.raises(Uncommittable, match="account_is_bare"):
        await stores.store.transact(owned("ann@example.org/web"), seeing())


# ---- the end of an account ------------------------------------------------------------------------------------------


async def test_a_deleted_account_takes_everything_along(stores: Bench) -> None:
    rows = {"conversations": [conversation()], "messages": [message(message_key="m")], "changes": [change(1)]}
    rows |= {"calls": [call()], "devices": [device()], "jobs": [job()], "members": [member()]}
    await stores.put(accounts=[account(devices=1)], **rows)
    await stores.put(deleted_accounts=[ANN])
    assert await stores.store.account(ANN) is None
    seen = await stores.store.transact(
        replace(owned(conversations=[WITH_BOB], ids=[(WITH_BOB, "m")], calls=[(ANN, "s1")]), devices=True), seeing()
    )
    assert (seen.conversations, seen.messages, seen.calls, seen.devices, seen.jobs) == ({}, {}, {}, {}, {})
    assert await stores.store.due_jobs(NOW, [Lane.MESSAGES], 9) == []
    assert await stores.store.token_owners("chat", Environment.SANDBOX, [device().alert_token.digest]) == frozenset()
    assert list(await stores.rooms.memberships(ANN, [TEA])) == []


async def test_others_stay(stores: Bench) -> None:
    await stores.put(ANN, EVE, conversations=[conversation(owner=EVE)])
    await stores.put(ANN, EVE, deleted_accounts=[ANN])
    assert (await stores.store.page(EVE, ListQuery())).total == 1
