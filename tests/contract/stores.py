"""The stores that pass the contract: in memory, and on a real Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.rooms import PostgresRooms
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.postgres.watch import PostgresWatches
from sync.ports import FeedMarks, Rooms, Store, Watches
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_watch import MemoryWatches
from tests.contract.samples import NOW, owned, storing


@dataclass
class Bench:
    """A store, and rooms, marks and watches beside it, with the clock that all of them are shown."""

    store: Store
    marks: FeedMarks
    clock: SetClock
    rooms: Rooms
    watches: Watches
    pool: Pool | None = None

    async def put(self, *accounts: str, **rows: Any) -> None:
        """Store rows as they are."""
        await self.store.transact(owned(*accounts), storing(**rows))


def in_memory() -> Bench:
    clock = SetClock(NOW)
    store = MemoryStore(clock)
    return Bench(store, store, clock, store, MemoryWatches(store))


@asynccontextmanager
async def on_postgres(dsn: str, size: int = 4) -> AsyncIterator[Bench]:
    clock, pool = SetClock(NOW), Pool(dsn, size=size, connect_seconds=60, statement_seconds=60)
    await pool.open()
    try:
        store = PostgresStore(pool, clock, RecordingObserver())
        yield Bench(store, PostgresFeedMarks(pool), clock, PostgresRooms(pool), PostgresWatches(pool), pool)
    finally:
        await pool.close()
