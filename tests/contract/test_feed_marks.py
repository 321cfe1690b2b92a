"""What every FeedMarks promises (sync/ports/store.py): the in-memory one, and Postgres."""

import asyncio

import asyncpg
import pytest

from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.model.books import LanePosition, LostHost
from sync.ports import StreamMark
from sync.rules.times import microseconds
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, BOB, EVE, NOW, account, after, conversation, owned, seeing, storing
from tests.contract.stores import Bench

HOST = "example.org"


def mark(committed: int, seen: int, stream: str = "s1", shard: str = "main") -> StreamMark:
    return StreamMark(stream=stream, shard=shard, committed=committed, seen=seen)


async def test_a_host_begins_without_streams(stores: Bench) -> None:
    assert list(await stores.marks.marks(HOST)) == []
    await stores.marks.mark(HOST, [])
    assert list(await stores.marks.marks(HOST)) == []


async def test_marks_are_remembered_by_host_stream_and_shard(stores: Bench) -> None:
    await stores.marks.mark(HOST, [mark(1, 2), mark(3, 4, "s2"), mark(5, 6, "s2", "other")])
    await stores.marks.mark("example.net", [mark(7, 8)])
    assert list(await stores.marks.marks(HOST)) == [mark(1, 2), mark(3, 4, "s2"), mark(5, 6, "s2", "other")]


@pytest.mark.parametrize(
    ("new", "kept"),
    [((6, 9), (6, 9)), ((4, 9), (5, 9)), ((6, 6), (6, 7)), ((0, 0), (5, 7)), ((9, 9), (9, 9))],
)
async def test_neither_goes_back(stores: Bench, new: tuple[int, int], kept: tuple[int, int]) -> None:
    await stores.marks.mark(HOST, [mark(5, 7)])
    await stores.marks.mark(HOST, [mark(*new)])
    assert list(await stores.marks.marks(HOST)) == [mark(*kept)]


async def test_forgotten_streams_lose_marks_and_positions(stores: Bench) -> None:
    lanes = [LanePosition(host, stream, "main", 1) for host, stream in ((HOST, "s1"), (HOST, "s2"), ("other", "s1"))]
    await stores.put(positions=dict.fromkeys(lanes, 9))
    await stores.marks.mark(HOST, [mark(1, 1), mark(2, 2, "s2")])
    await stores.marks.mark("other", [mark(3, 3)])
    await stores.marks.forget(HOST, ["s1", "unheard of"])
    assert list(await stores.marks.marks(HOST)) == [mark(2, 2, "s2")]
    assert list(await stores.marks.marks("other")) == [mark(3, 3)]
    books = await stores.store.transact(owned(positions=lanes), seeing())
    assert books.positions == {lanes[1]: 9, lanes[2]: 9}


async def test_every_account_of_the_host_starts_over(stores: Bench) -> None:
    foreign = "fay@sub.example.org"
    rows = [account(ANN, version=5), account(EVE, version=2**60, floor=3), account(foreign, version=7)]
    await stores.put(ANN, EVE, foreign, accounts=rows)
    assert await stores.marks.raise_epochs(HOST, NOW) == 2
    raised = [await stores.store.account(jid) for jid in (ANN, EVE, foreign)]
    assert [(a.epoch, a.version, a.floor) for a in raised if a] == [
        (2, microseconds(NOW), microseconds(NOW)),
        (2, 2**60 + 1, 2**60 + 1),
        (1, 7, 0),
    ]


async def test_a_host_without_accounts(stores: Bench) -> None:
    assert await stores.marks.raise_epochs("example.com", NOW) == 0


async def test_counts_survive(stores: Bench) -> None:
    stored = account(unread=2, unread_conversations=1, devices=1, wakes_open=True)
    await stores.put(accounts=[stored], conversations=[conversation(9, BOB, unread=2)])
    await stores.marks.raise_epochs(HOST, after(5))
    found = await stores.store.account(ANN)
    assert found is not None
    assert (found.unread, found.unread_conversations, found.devices, found.wakes_open) == (2, 1, 1, True)


async def test_starting_over_remembers_and_forgets_at_once(stores: Bench) -> None:
    await stores.put(ANN, positions={LanePosition(HOST, "torn", "main", 1): 9})
    await stores.marks.mark(HOST, [mark(1, 90), mark(9, 9, "torn")])
    await stores.marks.raise_epochs(HOST, NOW, marks=[mark(4, 6), mark(0, 0, "new")], forget=["torn"])
    assert set(await stores.marks.marks(HOST)) == {mark(4, 6), mark(0, 0, "new")}
    books = await stores.store.transact(owned(positions=[LanePosition(HOST, "torn", "main", 1)]), seeing())
    assert books.positions == {}


@pytest.mark.parametrize(("keep", "left"), [(None, {"s1", "s2"}), ("s2", {"s2"})])
async def test_a_lost_host_starts_over_with_the_event_that_says_so(
    stores: Bench, keep: str | None, left: set[str]
) -> None:
    await stores.put(ANN, accounts=[account(ANN, version=5)])
    await stores.marks.mark(HOST, [mark(1, 1), mark(1, 1, "s2")])
    await stores.put(lost_hosts=[LostHost(host=HOST, version=microseconds(NOW), keep=keep)])
    raised = await stores.store.account(ANN)
    assert raised is not None
    assert (raised.epoch, raised.floor) == (2, microseconds(NOW))
    assert {found.stream for found in await stores.marks.marks(HOST)} == left


@pytest.mark.parametrize("by_event", [False, True])
async def test_all_of_a_large_host_start_over_though_it_takes_longer_than_other_statements_may(
    postgres: Bench, emptied_database: str, *, by_event: bool
) -> None:
    """Else a host with many accounts would never be subscribed again."""
    await postgres.put(ANN, accounts=[account(ANN, version=5)])
    hasty = Pool(emptied_database, size=1, statement_seconds=1.0)
    await hasty.open()
    other = await asyncpg.connect(emptied_database)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM account WHERE jid = $1 FOR UPDATE", ANN)
            store = PostgresStore(hasty, SetClock(NOW), RecordingObserver())
            lost = storing(lost_hosts=[LostHost(host=HOST, version=microseconds(NOW))])
            work = store.transact(owned(BOB), lost) if by_event else PostgresFeedMarks(hasty).raise_epochs(HOST, NOW)
            raising = asyncio.ensure_future(work)
            await asyncio.wait([raising], timeout=1.5)
            assert not raising.done()
        await raising
    finally:
        await other.close()
        await hasty.close()
    raised = await postgres.store.account(ANN)
    assert raised is not None
    assert raised.epoch == 2


async def test_marks_survive_a_deadlock(postgres: Bench, emptied_database: str) -> None:
    """Whoever gives streams up locks them in any order."""
    await postgres.marks.mark(HOST, [mark(1, 1, "a"), mark(1, 1, "b")])
    other = await asyncpg.connect(emptied_database)
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    try:
        async with other.transaction():
            await other.execute("SELECT FROM feed_stream WHERE stream = 'b' FOR UPDATE")
            marking = asyncio.ensure_future(postgres.marks.mark(HOST, [mark(2, 2, "a"), mark(2, 2, "b")]))
            async with asyncio.timeout(60):
                while not await other.fetchval(blocked):
                    await other.execute("SELECT pg_stat_clear_snapshot()")
            await other.execute("SELECT FROM feed_stream WHERE stream = 'a' FOR UPDATE")
        await marking
    finally:
        await other.close()
    assert {found.committed for found in await postgres.marks.marks(HOST)} == {2}
