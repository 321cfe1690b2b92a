"""Calls into rooms, beside their vectors: what the past does, which rows a chunk asks for, what is taken once."""

from dataclasses import replace

import pytest

from sync.model.books import Keys
from sync.model.call import Call, CallKey, CallState, CallStep
from sync.model.conversation import Direction, Kind
from sync.model.event import CallMessage, FeedPosition, RoomMessageEvent
from sync.model.room import EntryKind, RoomEntry
from sync.rules.fold import Policies, fan_out, take
from sync.rules.room_calls import seen, told
from sync.rules.view import CallPolicy, View
from sync.rules.wanted import keys
from sync.service.fanout import keys_of
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import (
    ANN,
    CAT,
    EVE,
    IN_TEA,
    NOW,
    TEA,
    account,
    call,
    conversation,
    entry,
    member,
    membership,
    owned,
    storing,
)
from tests.core.rule_feed import stanza
from tests.core.rule_vectors import at_once

INVITE = RoomMessageEvent(
    position=FeedPosition("rooms.example.org", "s", "0", 1),
    account=TEA,
    at=NOW,
    sender=f"{TEA}/Eve",
    content=CallMessage(CallStep.PROPOSE, "m1", ("audio",)),
    stanza=stanza(""),
    author=EVE,
    archive_id="r1",
    message_id="m1",
)
MEMBERS = [member(ANN), member(CAT)]


def tea(*events: RoomMessageEvent) -> tuple[MemoryStore, list[RoomEntry]]:
    """A store that has these, and what the room owes then."""
    store = MemoryStore(SetClock(NOW))
    store.apply(owned(ANN, EVE, rooms={TEA}), storing(members=[member(ANN), member(EVE)]))
    store.apply(keys(events), lambda books: take(events, books, Policies()))
    return store, list(at_once(store.entries(TEA, 0, 99)))


@pytest.mark.parametrize("step", list(CallStep))
def test_what_a_rooms_archive_says_of_calls_rings_nobody(step: CallStep) -> None:
    said = replace(INVITE, content=CallMessage(step, "r1"), past=True, archive_id="r2", message_id="m2")
    assert tea(said)[1] == []
    assert [one.step for one in tea(INVITE, replace(said, position=replace(said.position, n=2)))[1]] == [
        CallStep.PROPOSE
    ]


def test_an_invite_that_was_taken_is_not_taken_again_though_its_call_is_forgotten() -> None:
    store, owed = tea(INVITE)
    members = [member(ANN), member(EVE)]
    for expected in ({CallKey(ANN, TEA, "r1"), CallKey(EVE, TEA, "r1")}, set()):
        store.apply(keys_of(owed, members), lambda books: fan_out(owed, members, books, Policies()))
        assert set(store.tables.calls) == expected
        assert {found.archive_id for found in store.tables.calls.values()} <= {"r1"}
        assert store.tables.conversations[IN_TEA].taken == owed[0].rank
        store.tables.calls.clear()


def test_a_chunk_without_calls_asks_for_none() -> None:
    plain = [kind for kind in EntryKind if kind not in (EntryKind.CALL, EntryKind.LEFT)]
    asked = keys_of([entry(rank, kind=kind, target_id="a") for rank, kind in enumerate(plain, 1)], MEMBERS)
    assert (asked.calls, asked.lines) == (frozenset(), frozenset())


def test_a_chunk_asks_for_the_calls_that_it_may_change() -> None:
    called = entry(1, kind=EntryKind.CALL, step=CallStep.REJECT, target_id="r1")
    gone = entry(2, kind=EntryKind.GONE, only=ANN, step=CallStep.FINISH)
    assert keys_of([called], MEMBERS).calls == {(ANN, "r1"), (CAT, "r1")}
    assert keys_of([called], MEMBERS).lines == frozenset()
    assert {key.account for key in keys_of([gone], MEMBERS).lines} == {ANN}
    everybody = keys_of([replace(gone, only=None, kind=EntryKind.DESTROYED)], MEMBERS).lines
    assert {key.account for key in everybody} == {ANN, CAT}


def test_a_call_between_two_and_one_into_a_room_are_not_taken_for_each_other() -> None:
    store, owed = tea(INVITE)
    members = [member(ANN), member(EVE)]
    beside = call("r1", TEA)
    store.apply(
        Keys(accounts=frozenset({ANN})), storing(calls=[beside], conversations=[conversation(1, TEA, ringing=1)])
    )
    owed.append(replace(owed[0], rank=owed[0].rank + 1, step=CallStep.REJECT, author=ANN))
    report = store.apply(keys_of(owed, members), lambda books: fan_out(owed, members, books, Policies()))
    assert store.tables.calls[beside.key] == beside
    assert report.ignored == {"known-call": 1, "unknown-call": 1, "no-transition": 1}


CALLED = entry(
    7,
    kind=EntryKind.CALL,
    author=EVE,
    sender=f"{TEA}/Eve",
    step=CallStep.PROPOSE,
    target_id="r1",
    archive_id="r1",
    media=("video",),
    private=True,
)


def test_an_entry_is_what_a_session_of_the_member_would_have_received() -> None:
    event, content = seen(member(ANN), CALLED)
    assert content == event.content == CallMessage(CallStep.PROPOSE, "r1", ("video",))
    assert event.position == FeedPosition("rooms.example.org", "", "", 7)
    assert (event.direction, event.sender, event.author) == (Direction.IN, f"{TEA}/Eve", EVE)
    own, _ = seen(member(EVE), CALLED)
    assert (own.direction, own.sender, own.author) == (Direction.OUT, EVE, EVE)


def test_a_conversation_that_begins_with_a_call_has_read_what_was_before() -> None:
    before = View(account=account(), key=IN_TEA)
    done = told(before, member(ANN), CALLED, CallPolicy(), NOW)
    assert done.after is not None
    found = done.after.conversation
    assert found is not None
    assert (found.read.rank, found.taken, found.private) == (6, 7, True)
    again = told(replace(before, calls=(call("r1", TEA),)), member(ANN), CALLED, CallPolicy(), NOW)
    assert again.ignored == "known-call"


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ((), "unknown-call"),
        ((call("r1", TEA),), "unknown-call"),  # between two
        ((call("r1", TEA, kind=Kind.GROUP, state=CallState.ANSWERED),), "answered-elsewhere"),
    ],
)
def test_who_declines_what_is_no_ring(calls: tuple[Call, ...], why: str) -> None:
    before = View(account=account(), key=IN_TEA, conversation=membership(), calls=calls)
    done = told(before, member(ANN), replace(CALLED, step=CallStep.REJECT, author=ANN), CallPolicy(), NOW)
    assert done.ignored == why
