"""What every Housekeeping promises: what goes and what stays, that counters stay true, and that tokens meet the
floor.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.call import CallState
from sync.model.conversation import Base, Conversation, ConversationKey, IndexedMessage, Pointer, Status
from sync.model.device import JobState
from sync.model.query import ListQuery, RewriteQuery
from sync.model.room import EntryKind
from sync.ports import Retention
from sync.rules.retention import next_turn
from tests.contract.fakes_tables import Tables, recount
from tests.contract.houses import DAY, KEEP, House, ago, in_house
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    IN_TEA,
    NOW,
    OF_TEA,
    TEA,
    WITH_BOB,
    account,
    call,
    change,
    conversation,
    entry,
    job,
    last,
    member,
    membership,
    message,
    room,
)
from tests.contract.stores import Bench

NEWEST = ago(0)


@pytest.fixture
def house(stores: Bench) -> House:
    return in_house(stores)


def chat(*messages: IndexedMessage, **fields: Any) -> dict[str, Any]:
    """Ann's conversation with Bob and its messages, counted as they have to be."""
    newest = max((m.rank for m in messages), default=None)
    values = {"version": NEWEST, "last": newest and last(newest)} | fields
    return counted([conversation(**values)], list(messages))


def counted(stored: list[Conversation], messages: list[IndexedMessage]) -> dict[str, Any]:
    """Rows with counters that are right, and owners that exist."""
    tables = Tables(conversations={c.key: c for c in stored}, messages={(m.conversation, m.rank): m for m in messages})
    right = []
    for key, found in tables.conversations.items():
        unread, mentions = recount(tables, key)
        right.append(replace(found, unread=unread, mentions=mentions))
    owners = {c.key.account for c in stored}
    return {"accounts": [account(jid, version=NEWEST) for jid in owners], "conversations": right, "messages": messages}


def said(*days: float, key: ConversationKey = WITH_BOB, **fields: Any) -> list[IndexedMessage]:
    return [message(ago(day), key, **fields) for day in days]


# ---- messages --------------------------------------------------------------------------------------------------------


async def test_the_newest_messages_stay(house: House) -> None:
    await house.put(**chat(*said(1, 2, 3, 4, 5, 6, 7)))
    assert (await house.tidy()).rows == {"message": 2}
    assert await house.ranks(WITH_BOB) == [1, 2, 3, 4, 5]


async def test_of_old_ones_only_a_few(house: House) -> None:
    await house.put(**chat(*said(1, 11, 12, 13)))
    assert (await house.tidy()).rows == {"message": 2}
    assert await house.ranks(WITH_BOB) == [1, 11]


async def test_nothing_goes_from_a_small_conversation(house: House) -> None:
    await house.put(**chat(*said(1, 2, 3, 4, 9)))
    before = await house.tables()
    assert (await house.tidy()).rows == {}
    assert await house.tables() == before


@pytest.mark.parametrize(
    "keep", [Retention(messages=0, messages_at_least=0), Retention(messages=1, messages_at_least=9)]
)
async def test_the_newest_message_stays_always(house: House, keep: Retention) -> None:
    await house.put(**chat(*said(200, 201, 202)))
    await house.tidy(keep=replace(keep, message_age=DAY))
    assert await house.ranks(WITH_BOB) == [200]


async def test_the_last_message_stays_and_what_counts_behind_it(house: House) -> None:
    reactions = said(1, 2, 3, 4, 5, 6, counted=False)
    await house.put(**chat(*reactions, *said(7, 20, 21), *said(8, counted=False), last=last(ago(20))))
    assert (await house.tidy()).rows == {"message": 3}
    assert await house.ranks(WITH_BOB) == [1, 2, 3, 4, 5, 7, 20]
    assert (await house.conversation(WITH_BOB)).unread == 3


async def test_what_was_unread_is_counted_on(house: House) -> None:
    await house.put(**chat(*said(1, 2, 3, 4, 5), *said(6, 7, mention=True), *said(8)))
    await house.tidy()
    found = await house.conversation(WITH_BOB)
    assert (found.unread, found.mentions, found.base) == (8, 2, Base(unread=3, mentions=2, rank=ago(6)))


async def test_what_was_read_own_or_retracted_is_not(house: House) -> None:
    messages = [*said(1, 2, 3, 4, 5, 10, 11), *said(8, retracted=9), *said(9, counted=False)]
    await house.put(**chat(*messages, read=Pointer(ago(10), "a")))
    assert (await house.tidy()).rows == {"message": 4}
    assert (await house.conversation(WITH_BOB)).base == Base()


async def test_a_base_grows_from_turn_to_turn(house: House) -> None:
    await house.put(**chat(*said(1, 2, 3, 4, 5, 6, 7)))
    await house.tidy()
    await house.tidy(keep=replace(KEEP, messages=3))
    found = await house.conversation(WITH_BOB)
    assert (found.unread, found.base) == (7, Base(unread=4, rank=ago(4)))


async def test_versions_stay_as_they_are(house: House) -> None:
    await house.put(**chat(*said(*range(1, 20))), changes=[change(ago(day)) for day in range(1, 9)])
    version, owner = (await house.conversation(WITH_BOB)).version, await house.account()
    await house.tidy()
    assert ((await house.conversation(WITH_BOB)).version, await house.account()) == (version, owner)


# ---- the change log --------------------------------------------------------------------------------------------------


async def test_changes_beyond_the_newest_go_and_the_log_says_so(house: House) -> None:
    await house.put(**chat(), changes=[change(ago(day)) for day in (1, 2, 3, 4, 5)])
    assert (await house.tidy()).rows == {"change": 2}
    assert (await house.conversation(WITH_BOB)).log_from == ago(4)
    assert (await house.bench.store.changes(WITH_BOB, ago(4.5), 9)).reset
    assert len((await house.bench.store.changes(WITH_BOB, ago(4), 9)).changes) == 3


async def test_old_changes_go_all(house: House) -> None:
    await house.put(**chat(), changes=[change(ago(day)) for day in (1, 11)])
    assert (await house.tidy()).rows == {"change": 1}
    assert (await house.conversation(WITH_BOB)).log_from == ago(11)


@pytest.mark.parametrize(("since", "limit", "told"), [(4.5, 9, 1), (4.5, 2, 1), (4, 9, 0)])
async def test_whoever_missed_dropped_corrections_loads_anew(house: House, since: float, limit: int, told: int) -> None:
    await house.put(**chat(rewritten=ago(1)), changes=[change(ago(day)) for day in (1, 2, 3, 4, 5)])
    await house.tidy()
    page = await house.bench.store.rewrites(ANN, RewriteQuery(since=ago(since), limit=limit))
    assert page.invalidated == ((WITH_BOB, ago(1)),) * told


# ---- tombstones, calls, pushes ---------------------------------------------------------------------------------------


def tombstone(days: float, **fields: Any) -> dict[str, Any]:
    rows = counted([conversation(ago(days), status=Status.DELETED, read=Pointer(ago(days)), **fields)], said(40, 41))
    return rows | {"changes": [change(ago(39))]}


async def test_old_tombstones_go_with_what_belongs_to_them(house: House) -> None:
    await house.put(**tombstone(31))
    assert (await house.tidy()).rows == {"conversation": 1, "message": 2, "change": 1}
    tables = await house.tables()
    assert [*tables.conversations, *tables.messages, *tables.changes] == []


async def test_a_token_older_than_a_dropped_tombstone_meets_the_floor(house: House) -> None:
    await house.put(**tombstone(31))
    page = await house.bench.store.page(ANN, ListQuery(since=ago(32)))
    assert (page.floor, len(page.items)) == (0, 1)
    await house.tidy()
    page = await house.bench.store.page(ANN, ListQuery(since=ago(32)))
    assert (page.floor, len(page.items)) == (ago(31), 0)


@pytest.mark.parametrize("fields", [{"ringing": 1}, {"days": 29}])
async def test_others_stay(house: House, fields: dict[str, Any]) -> None:
    await house.put(**tombstone(**({"days": 31} | fields)))
    await house.tidy(keep=replace(KEEP, message_age=99 * DAY, change_age=99 * DAY))
    tables = await house.tables()
    assert (len(tables.conversations), len(tables.messages), tables.accounts[ANN].floor) == (1, 2, 0)


async def test_a_members_tombstone_says_what_it_had_read(house: House) -> None:
    gone = membership(ago(31), status=Status.DELETED, read=Pointer(ago(31)), taken=ago(32))
    await house.put(**counted([gone], []), rooms=[room(version=ago(32), fanned=ago(32))], members=[member()])
    assert (await house.tidy()).rows == {}


@pytest.mark.parametrize("state", CallState)
async def test_calls_that_ended_long_ago_go(house: House, state: CallState) -> None:
    await house.put(
        **chat(), calls=[call("old", state=state, version=ago(31)), call("new", state=state, version=ago(29))]
    )
    await house.tidy()
    left = {key.sid for key in (await house.tables()).calls}
    assert left == ({"old", "new"} if state.is_open else {"new"})
    assert (await house.account()).floor == (0 if state.is_open else ago(31))


async def test_pushes_that_were_done_long_ago_go(house: House) -> None:
    old, new = (NOW - timedelta(days=days) for days in (31, 29))
    done = {"state": JobState.DONE, "outcome": "accepted", "created_at": old, "not_before": old}
    jobs = [job("old", **done, attempted_at=old), job("late", **done, attempted_at=new)]
    await house.put(
        **chat(),
        jobs=[*jobs, job("queued", created_at=old, not_before=old), job("new", **(done | {"not_before": new}))],
    )
    assert (await house.tidy()).rows == {"push_job": 1}
    assert (await house.account()).floor == 0


# ---- rooms -----------------------------------------------------------------------------------------------------------


def in_tea(owner: str, **fields: Any) -> Conversation:
    return membership(NEWEST, owner, **({"taken": ago(1), "last": last(ago(1))} | fields))


def tea(*members: Conversation, fanned: float = 1, **fields: Any) -> dict[str, Any]:
    """The room, with eight messages: Eve's of two days mention Ann, another all."""
    messages = [*said(1, 2, 3, 4, 5, key=OF_TEA, author=BOB), *said(6, key=OF_TEA, author=EVE, mentions=(ANN,))]
    messages += [*said(7, key=OF_TEA, author=ANN), *said(8, key=OF_TEA, author=BOB, mention=True)]
    values = {"members": [member(c.key.account) for c in members], "rooms": [room(version=ago(1), fanned=ago(fanned))]}
    return counted(list(members), messages) | values | fields


def of(owner: str) -> ConversationKey:
    return ConversationKey(owner, TEA, IN_TEA.kind)


async def test_a_rooms_index_is_trimmed_once_nobody_needs_it(house: House) -> None:
    await house.put(**tea(in_tea(ANN), in_tea(EVE, read=Pointer(ago(7))), in_tea(CAT, read=Pointer(ago(1)))))
    assert (await house.tidy(TEA)).rows == {"message": 3}
    assert await house.ranks(OF_TEA) == [1, 2, 3, 4, 5]
    assert (await house.conversation(IN_TEA)).base == Base(unread=2, mentions=2, rank=ago(6))
    assert (await house.conversation(of(EVE))).base == Base()
    assert (await house.conversation(of(CAT))).unread == 0


async def test_many_members_come_one_after_the_other(house: House) -> None:
    crowd = [f"user{n}@example.org" for n in range(250)]
    await house.put(**tea(*(in_tea(jid) for jid in crowd)))
    await house.tidy(TEA)
    found = [await house.conversation(of(jid)) for jid in crowd[::60]]
    assert {(c.unread, c.base.unread) for c in found} == {(8, 3)}


async def test_what_a_member_has_not_taken_does_not_count(house: House) -> None:
    await house.put(**tea(in_tea(ANN, taken=ago(8), last=last(ago(8)))))
    await house.tidy(TEA)
    assert (await house.conversation(IN_TEA)).base == Base(unread=1, mentions=1, rank=ago(8))


async def test_what_is_not_fanned_stays(house: House) -> None:
    await house.put(**tea(in_tea(ANN), fanned=7.5))
    assert (await house.tidy(TEA)).rows == {"message": 1}
    assert await house.ranks(OF_TEA) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_room_waits_for_what_is_on_its_way(house: House) -> None:
    retracted = entry(ago(0.5), kind=EntryKind.RETRACTED, target_rank=ago(6), target_id="a")
    await house.put(**tea(in_tea(ANN), rooms=[room(version=ago(0.5), fanned=ago(1))]), entries=[retracted])
    assert (await house.tidy(TEA)).rows == {}
    assert (await house.conversation(IN_TEA)).base == Base()
    await house.bench.rooms.fanned(TEA, ago(0.5))
    assert (await house.keeping.trim(NOW + timedelta(minutes=1), KEEP, 9)).rows["message"] == 3


async def test_but_not_for_what_stays(house: House) -> None:
    corrected = entry(ago(0.5), kind=EntryKind.CORRECTED, target_rank=ago(5), target_id="a")
    await house.put(**tea(in_tea(ANN)), entries=[corrected])
    assert (await house.tidy(TEA)).rows == {"message": 3}


async def test_a_quiet_room_keeps_its_last_message(house: House) -> None:
    reactions = said(1, 2, 3, 4, 5, 5.5, key=OF_TEA, counted=False)
    await house.put(
        **tea(in_tea(ANN, taken=ago(6), last=last(ago(6))))
        | {"messages": [*reactions, *said(6, 20, key=OF_TEA)], "conversations": [in_tea(ANN, taken=ago(6), unread=2)]}
    )
    assert (await house.tidy(TEA)).rows == {"message": 2}
    assert await house.ranks(OF_TEA) == [1, 2, 3, 4, 5, 6]
    assert (await house.conversation(IN_TEA)).base == Base(unread=1, rank=ago(20))


async def test_who_left_keeps_the_count(house: House) -> None:
    left = in_tea(ANN, read=Pointer(ago(7)), taken=ago(3), last=last(ago(4)))
    await house.put(**tea(left, in_tea(EVE), members=[member(EVE)]))
    await house.tidy(ANN)
    assert (await house.conversation(IN_TEA)).base == Base(unread=4, mentions=1, rank=ago(3))
    await house.tidy(TEA)
    assert (await house.conversation(IN_TEA)).unread == 4


async def test_and_so_does_who_is_about_to(house: House) -> None:
    await house.put(**tea(in_tea(ANN), members=[member(until=ago(3))]))
    await house.tidy(TEA)
    assert (await house.conversation(IN_TEA)).base == Base(unread=2, mentions=2, rank=ago(6))


# ---- turns -----------------------------------------------------------------------------------------------------------


async def test_only_those_have_a_turn_whose_turn_it_is(house: House) -> None:
    rows = counted([conversation(NEWEST), conversation(NEWEST, owner=EVE)], said(*range(1, 9)))
    await house.put(**rows)
    await house.turn_at(EVE, NOW + DAY)
    assert (await house.tidy(ANN)).turns == 1
    assert (await house.keeping.trim(NOW, KEEP, 10)).turns == 0
    assert (await house.keeping.trim(NOW + DAY, KEEP, 10)).turns == 2


async def test_no_more_than_were_asked_for_have_one(house: House) -> None:
    jids = [f"user{n}@example.org" for n in range(5)]
    await house.put(accounts=[account(jid) for jid in jids], rooms=[room()])
    assert [(await house.tidy(*jids, TEA, limit=4)).turns, (await house.keeping.trim(NOW, KEEP, 4)).turns] == [4, 2]


def test_turns_are_spread_and_come_back() -> None:
    jids = [f"user{n}@example.org" for n in range(1000)]
    first = {jid: next_turn(jid, NOW, DAY) for jid in jids}
    assert all(NOW < at <= NOW + DAY for at in first.values())
    assert 30 < sum(at <= NOW + DAY / 24 for at in first.values()) < 60
    assert all(timedelta(0) <= DAY - (next_turn(jid, at, DAY) - at) < timedelta(seconds=1) for jid, at in first.items())
