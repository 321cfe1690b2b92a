"""What every Store promises of deltas and of calls: the in-memory one, and Postgres."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.call import Call, CallState
from sync.model.conversation import Change, ConversationKey, Status, key_of
from sync.model.delta import (
    MAX_CALLS,
    MAX_CHANGES,
    MAX_STANZA_BYTES,
    CallQuery,
    DeltaItem,
    DeltaPage,
    DeltaQuery,
    Filters,
)
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    DAN,
    EVE,
    IN_TEA,
    OF_TEA,
    TEA,
    account,
    after,
    call,
    change,
    conversation,
    last,
    membership,
    message,
)
from tests.contract.stores import Bench

OLD = "old@example.net"


async def some(stores: Bench) -> None:
    """A conversation of each sort, and another account's."""
    await stores.put(
        ANN,
        EVE,
        accounts=[account(version=70, floor=5, unread=3, mentions=1, unread_conversations=2, epoch=3)],
        conversations=[
            conversation(10, BOB, unread=2),
            conversation(20, CAT, pinned=1),
            conversation(30, DAN, status=Status.ARCHIVED, marked_unread=True),
            membership(40, unread=1, mentions=1),
            conversation(50, TEA),
            conversation(60, OLD, status=Status.DELETED),
            conversation(65, BOB, owner=EVE),
        ],
    )


async def page_of(stores: Bench, limit: int = 9, **asked: Any) -> DeltaPage:
    page = await stores.store.delta(ANN, DeltaQuery(limit=limit, **asked))
    assert page is not None
    return page


def versions(page: DeltaPage) -> list[int]:
    return [item.conversation.version for item in page.items]


def outside(page: DeltaPage) -> list[int]:
    return [item.conversation.version for item in page.items if not item.matches]


# ---- which conversations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [50, 40, 30, 20, 10]),
        ({"limit": 2}, [50, 40]),
        ({"limit": 0}, []),
        ({"below": 40, "newest": 70}, [30, 20, 10]),
        ({"below": 40, "newest": 70, "limit": 1}, [30]),
        ({"since": 5}, [60, 50, 40, 30, 20, 10]),
        ({"since": 30}, [60, 50, 40]),
        ({"since": 30, "below": 50, "newest": 70}, [40]),
        ({"since": 70}, []),
    ],
)
async def test_newest_version_first(stores: Bench, asked: dict[str, Any], found: list[int]) -> None:
    await some(stores)
    assert versions(await page_of(stores, **asked)) == found


@pytest.mark.parametrize(("limit", "more"), [(0, True), (1, True), (4, True), (5, False), (6, False)])
async def test_it_is_said_whether_there_are_more(stores: Bench, limit: int, more: bool) -> None:
    await some(stores)
    assert (await page_of(stores, limit)).more is more
    assert (await page_of(stores, limit, since=70)).more is False


@pytest.mark.parametrize(
    ("filters", "whole", "new", "out"),
    [
        ({"kind": "chat"}, [50, 30, 20, 10], [60, 50, 30], []),
        ({"kind": "group"}, [40], [40], []),
        ({"peer": TEA}, [50, 40], [50, 40], []),
        ({"peer": TEA, "kind": "group"}, [40], [40], []),
        ({"peer": "nobody@example.net"}, [], [], []),
        ({"status": "active"}, [50, 40, 20, 10], [60, 50, 40, 30], [30]),
        ({"status": "archived"}, [30], [60, 50, 40, 30], [50, 40]),
        ({"unread": True}, [40, 30, 10], [60, 50, 40, 30], [50]),
        ({"unread": False}, [50, 20], [60, 50, 40, 30], [40, 30]),
        ({"pinned": True}, [20], [60, 50, 40, 30], [50, 40, 30]),
        ({"pinned": False}, [50, 40, 30, 10], [60, 50, 40, 30], []),
        ({"unread": True, "kind": "chat", "status": "archived", "pinned": False}, [30], [60, 50, 30], [50]),
    ],
)
async def test_filters(
    stores: Bench, filters: dict[str, Any], whole: list[int], new: list[int], out: list[int]
) -> None:
    """In a list what matches, in a delta also what may have ceased to, and tombstones."""
    await some(stores)
    chosen = Filters(**filters)
    assert versions(await page_of(stores, filters=chosen)) == whole
    delta = await page_of(stores, since=25, filters=chosen)
    assert (versions(delta), outside(delta)) == (new, out)


async def test_the_account_is_of_the_same_snapshot(stores: Bench) -> None:
    await some(stores)
    for asked in ({}, {"since": 70}, {"below": 20, "newest": 60}):
        page = await page_of(stores, **asked)
        assert page.owner == account(version=70, floor=5, unread=3, mentions=1, unread_conversations=2, epoch=3), asked
        assert page.version == asked.get("newest", 70)


async def test_an_unknown_account_has_no_page(stores: Bench) -> None:
    await some(stores)
    assert await stores.store.delta("new@example.org", DeltaQuery(limit=5, since=3)) is None


async def test_an_account_without_conversations_has_an_empty_one(stores: Bench) -> None:
    await stores.put(accounts=[account()], calls=[call()])
    for since in (0, 5):
        page = await page_of(stores, since=since)
        assert (page.items, page.more, len(page.ringing)) == ((), False, 1)


# ---- what is told of a conversation ----------------------------------------------------------------------------------


async def item_of(stores: Bench, **asked: Any) -> DeltaItem:
    [item] = (await page_of(stores, **asked)).items
    return item


@pytest.mark.parametrize("since", [0, 3])
@pytest.mark.parametrize(
    ("size", "asked", "what"),
    [
        (MAX_STANZA_BYTES, {}, "brought"),
        (MAX_STANZA_BYTES + 1, {}, "left out"),
        (MAX_STANZA_BYTES + 1, {"messages": False}, "nothing"),
        (20, {"messages": False}, "nothing"),
        (0, {}, "brought"),
    ],
)
async def test_last_messages(stores: Bench, since: int, size: int, asked: dict[str, Any], what: str) -> None:
    stored = conversation(5, last=last(4, stanza="é" * (size // 2) + "x" * (size % 2), retracted=not size))
    await stores.put(accounts=[account()], conversations=[stored])
    item = await item_of(stores, since=since, **asked)
    assert item.conversation == (stored if what == "brought" else replace(stored, last=None))
    assert item.left_out is (what == "left out")


@pytest.mark.parametrize(("fields", "matches"), [({"status": Status.DELETED}, True), ({}, False)])
async def test_nothing_is_told_of_what_is_gone_or_not_asked_for(
    stores: Bench, fields: dict[str, Any], matches: bool
) -> None:
    stored = conversation(9, last=last(4), unread=1, mentions=1, **fields)
    await stores.put(
        accounts=[account()],
        conversations=[stored],
        messages=[message(4, mention=True, archive_key="m")],
        changes=[change(8)],
    )
    item = await item_of(stores, since=2, filters=Filters(pinned=True))
    assert item == DeltaItem(conversation=replace(stored, last=None), matches=matches)


async def test_the_first_unread_mention(stores: Bench) -> None:
    stored = conversation(9, unread=2, mentions=2)
    index = [message(rank, mention=True, archive_key=f"a{rank}", archive_id=f"a{rank}") for rank in (4, 6)]
    await stores.put(accounts=[account()], conversations=[stored], messages=index)
    assert (await item_of(stores)).mention_id == (await item_of(stores, since=3)).mention_id == "a4"


async def test_the_first_unread_mention_in_a_room(stores: Bench) -> None:
    stored = membership(9, unread=1, mentions=1, taken=6)
    index = [
        message(rank, OF_TEA, archive_key=f"r{rank}", archive_id=f"r{rank}", mentions=(ANN,), author="x")
        for rank in (6, 7)
    ]
    await stores.put(accounts=[account()], conversations=[stored], messages=index)
    item = await item_of(stores, since=3)
    assert (item.conversation.key, item.mention_id) == (IN_TEA, "r6")


# ---- change logs -----------------------------------------------------------------------------------------------------


async def log_of(
    stores: Bench, *changes: Change, version: int = 500, log_from: int = 0, **asked: Any
) -> list[int] | None:
    others = [change(5, key=ConversationKey(ANN, CAT)), replace(change(6), conversation=ConversationKey(EVE, BOB))]
    await stores.put(
        ANN,
        EVE,
        accounts=[account()],
        conversations=[conversation(version, log_from=log_from)],
        changes=[*changes, *others],
    )
    item = await item_of(stores, since=2, **asked)
    return None if item.changes is None else [one.version for one in item.changes]


async def test_a_log_is_told_oldest_first_as_it_is(stores: Bench) -> None:
    log = [change(30, detail="x", author="y"), change(20), change(10)]
    assert await log_of(stores, *log, log=10) == [20, 30]
    assert (await item_of(stores, since=2, log=10)).changes == (log[1], log[0])
    assert (await item_of(stores, since=2, log=30)).changes == ()


async def test_a_log_is_not_told_where_it_is_not_wanted_or_everything_is(stores: Bench) -> None:
    assert await log_of(stores, change(20), log=10, changes=False, log_from=15) == []
    assert (await item_of(stores)).changes == ()


@pytest.mark.parametrize(("log_from", "told"), [(0, True), (10, True), (11, False)])
async def test_a_log_that_is_not_whole_any_more(stores: Bench, log_from: int, told: bool) -> None:
    assert await log_of(stores, change(20), log_from=log_from, log=10) == ([20] if told else None)


@pytest.mark.parametrize(("many", "told"), [(MAX_CHANGES, True), (MAX_CHANGES + 1, False), (MAX_CHANGES + 50, False)])
async def test_a_log_that_is_too_long(stores: Bench, many: int, told: bool) -> None:
    log = [change(10 + n, stanza=None) for n in range(many)]
    found = await log_of(stores, *log, log=9)
    assert found == ([one.version for one in log] if told else None)


@pytest.mark.parametrize(("size", "told"), [(MAX_STANZA_BYTES, True), (MAX_STANZA_BYTES + 2, False)])
async def test_a_log_that_is_too_large(stores: Bench, size: int, told: bool) -> None:
    log = [change(10 + n, stanza="é" * (size // 8)) for n in range(4)]
    log[0] = replace(log[0], stanza="é" * (size // 2 - 3 * (size // 8)))
    found = await log_of(stores, change(7, stanza="x" * 99_999), *log, change(20, stanza=None), log=9)
    assert found == ([10, 11, 12, 13, 20] if told else None)


# ---- calls -----------------------------------------------------------------------------------------------------------


async def calls_of(stores: Bench, *calls: Call, **asked: Any) -> tuple[list[str], list[str]]:
    await stores.put(ANN, EVE, accounts=[account()], calls=calls)
    page = await page_of(stores, **asked)
    return [one.session_id for one in page.ringing], [one.session_id for one in page.settled]


CALLS = [
    call("old", state=CallState.MISSED, version=10),
    call("first", version=20, proposed_at=after(1)),
    call("second", version=15, proposed_at=after(2), peer=CAT),
    call("hers", version=20, owner=EVE),
    call("ours", version=20, state=CallState.OUTGOING, caller=f"{ANN}/desk"),
    call("ours, over", version=21, state=CallState.UNDELIVERABLE, caller=f"{ANN}/a/b"),
    call("took", version=30, state=CallState.ANSWERED, answered_by="desk"),
    call("no", version=29, state=CallState.REJECTED, stanza=None),
    call("gone", version=31, state=CallState.CLOSED, peer=DAN, stanza=None),
    call("done", version=32, state=CallState.ENDED, peer=CAT),
]


@pytest.mark.parametrize(
    ("asked", "settled"),
    [
        ({}, []),
        ({"since": 10}, ["done", "gone", "took", "no"]),
        ({"since": 9}, ["done", "gone", "took", "no", "old"]),
        ({"since": 30}, ["done", "gone"]),
        ({"since": 32}, []),
        ({"since": 30, "filters": Filters(peer="nobody@example.net", pinned=True), "limit": 0}, ["done", "gone"]),
    ],
)
async def test_calls(stores: Bench, asked: dict[str, Any], settled: list[str]) -> None:
    """Whatever the filters; on the first page only."""
    assert await calls_of(stores, *CALLS, **asked) == (["second", "first"], settled)
    page = await page_of(stores, **asked | {"newest": 60, "below": 50})
    assert (page.ringing, page.settled) == ((), ())


async def test_calls_come_as_they_are_and_once(stores: Bench) -> None:
    await some(stores)
    ringing, over = call(version=20), call("took", version=30, state=CallState.ANSWERED, answered_by="desk")
    await stores.put(calls=[ringing, over])
    page = await page_of(stores, since=3)
    assert (page.ringing, page.settled, len(page.items)) == ((ringing,), (over,), 6)


async def test_there_are_not_more_calls_than_anybody_shows(stores: Bench) -> None:
    many = [call(f"r{n}", proposed_at=after(-n), version=n + 1) for n in range(MAX_CALLS + 5)]
    many += [call(f"m{n}", state=CallState.MISSED, version=200 - n) for n in range(MAX_CALLS + 5)]
    ringing, settled = await calls_of(stores, *many, since=1)
    assert ringing == [f"r{n}" for n in range(MAX_CALLS)]
    assert settled == [f"m{n}" for n in range(MAX_CALLS)]


LONG = "s" * 200
SAME = [
    call("s1", version=10),
    call("s1", CAT, version=30),
    call("s1", DAN, version=20),
    call("s1", owner=EVE, version=99),
]


@pytest.mark.parametrize(
    ("asked", "peer"), [({}, CAT), ({"peer": BOB}, BOB), ({"peer": DAN}, DAN), ({"peer": EVE}, None)]
)
async def test_a_call_by_its_id(stores: Bench, asked: dict[str, str], peer: str | None) -> None:
    await stores.put(ANN, EVE, calls=SAME)
    found = await stores.store.call(ANN, CallQuery(session_id="s1", **asked))
    assert found == next((one for one in SAME[:3] if one.key.peer == peer), None)


async def test_a_call_by_a_long_id(stores: Bench) -> None:
    stored = call(key_of(LONG))
    await stores.put(calls=[replace(stored, session_id=LONG)])
    found = await stores.store.call(ANN, CallQuery(session_id=LONG))
    assert found is not None
    assert found.session_id == LONG
    assert await stores.store.call(ANN, CallQuery(session_id=LONG + "s")) is None
