"""Ingest, feed to commit, beside the very rows that it wrote as bare bulk statements.

Every round runs each setting three times, one after the other: our path on decoded events, our path from the frames'
text, and the rows that the first of them wrote, sent again to a twin of its database: the same statements with the
same arrays, transactions and connections, but nothing locked first, nothing read, no rules. That is the ceiling. The
twins are made from one template; the rows of the runs from text are missing in the ceiling's, which favours it.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from xml.etree.ElementTree import fromstring

import asyncpg

from bench.report import spread, table
from bench.stage import NoWire, database, make_ingest
from bench.traffic import Traffic, frames
from sync.adapters.memory import MemoryPresence
from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate, write
from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.books import Books, Keys, Rule, Ruling, Writes
from sync.model.event import Event
from sync.ports import Store
from sync.protocol.feed import FRAME, decode_feed
from sync.service.feed import HostFeed

T = TypeVar("T")
HOST = "bench.example"
BATCHES, WORKERS = (1, 16, 64, 256, 512), (1, 2)
EVENTS = {1: 1_000, 16: 4_000, 64: 6_000, 256: 10_240, 512: 10_240}
Statement = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    accounts: int
    contacts: int
    rounds: int
    share: int  # of EVENTS: one in so many


FULL, QUICK = Size(1_000, 20, 5, 1), Size(1_000, 4, 2, 5)


@dataclass(frozen=True, slots=True)
class Took:
    """One run: seconds, and the processor time of this process."""

    events: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of this process for each event."""
        return self.cpu / self.events * 1e6


@dataclass(slots=True)
class Results:
    """Of one setting, a value for each round."""

    decoded: list[Took] = field(default_factory=list)
    text: list[Took] = field(default_factory=list)
    bare: list[Took] = field(default_factory=list)


class Remembering:
    """A store that remembers what each of its users wrote. Keeping references costs nothing while it is measured."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.written: dict[str, list[Writes]] = {}

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        """`Store.transact`."""
        ruled: list[Writes] = []

        def noted(books: Books) -> Ruling[T]:
            ruling = rule(books)
            ruled[:] = [ruling.writes]  # of a transaction that was tried again, the last attempt
            return ruling

        value = await self._store.transact(keys, noted)
        task = asyncio.current_task()
        self.written.setdefault(task.get_name() if task else "", []).extend(ruled)
        return value


class Recorder:
    """A connection that keeps statements in place of running them."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    async def execute(self, statement: str, *arguments: object) -> None:
        """Keep it."""
        self.statements.append((statement, arguments))


async def statements(written: Sequence[Writes]) -> list[list[Statement]]:
    """The write statements of each transaction, with their arrays."""
    found = []
    for writes in written:
        recorder = Recorder()
        await write.writes(recorder, writes)
        found.append(recorder.statements)
    return found


async def timed(events: int, work: Callable[[], Awaitable[None]]) -> Took:
    """Run it."""
    began, cpu = time.perf_counter(), time.process_time()
    await work()
    return Took(events, time.perf_counter() - began, time.process_time() - cpu)


@asynccontextmanager
async def running(*parts: Awaitable[None]) -> AsyncIterator[None]:
    """Services that never end by themselves."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def from_events(store: Store, events: Sequence[Event], *, workers: int, batch: int) -> Took:
    """Our path, decoded already: everything waits, so that batches are full."""
    ingest = make_ingest(store, NoWire(), workers=workers, batch=batch)

    async def work() -> None:
        ingest.put(events)
        await ingest.drain()

    async with running(ingest.run()):
        return await timed(len(events), work)


async def from_text(
    store: PostgresStore, pool: Pool, texts: Sequence[str], events: int, *, workers: int, batch: int
) -> Took:
    """Our path from the text of the frames, positions and persisted acks included; batches are what has arrived."""
    wire, clock, metrics = NoWire(), SystemClock(), Metrics()
    feed = HostFeed(
        HOST,
        component=f"sync.{HOST}",
        wire=wire,
        marks=PostgresFeedMarks(pool),
        presence=MemoryPresence(),
        clock=clock,
        observer=metrics,
        freshness_seconds=2.0,
    )
    ingest = make_ingest(store, wire, workers=workers, batch=batch, committed=feed.committed)

    async def work() -> None:
        for text in texts:
            frame = fromstring(text).find(FRAME)  # noqa: S314 - ours
            assert frame is not None
            feed.take(frame, ingest)
            await asyncio.sleep(0)  # as between two reads of a socket
            await wire.flowing.wait()
        await ingest.drain()

    async with running(ingest.run(), feed.run()):
        return await timed(events, work)


async def bare(pool: Pool, written: Sequence[Sequence[Writes]], events: int) -> Took:
    """The rows again: each worker's transactions on a connection of its own."""
    prepared = [await statements(writes) for writes in written]

    async def one(transactions: Sequence[Sequence[Statement]]) -> None:
        async with pool.connection() as connection:
            for transaction in transactions:
                async with connection.transaction():
                    for statement, arguments in transaction:
                        await connection.execute(statement, *arguments)

    async def work() -> None:
        await asyncio.gather(*map(one, prepared))

    return await timed(events, work)


def decode(texts: Sequence[str]) -> list[Event]:
    """The events of frames."""
    found: list[Event] = []
    for text in texts:
        frame = fromstring(text).find(FRAME)  # noqa: S314 - ours
        assert frame is not None
        found += decode_feed(frame, host=HOST).events
    return found


class Twins:
    """Two equal databases: `ours` is written by our path, `bare` by what it wrote."""

    def __init__(self, dsn: Callable[[str], str]) -> None:
        self._dsn = dsn

    async def make(self, first: Sequence[Event]) -> None:
        """Install, fill, and copy."""
        await self._run("postgres", "CREATE DATABASE ours")
        await migrate.install(self._dsn("ours"))
        pool = Pool(self._dsn("ours"), size=2)
        await pool.open()
        await from_events(PostgresStore(pool, SystemClock(), Metrics()), first, workers=1, batch=512)
        await pool.close()
        await self._run("ours", "VACUUM ANALYZE")
        await self._run("postgres", "CREATE DATABASE bare TEMPLATE ours")

    async def _run(self, name: str, statement: str) -> None:
        connection = await asyncpg.connect(self._dsn(name))
        await connection.execute(statement)
        await connection.close()

    async def open(self, stack: AsyncExitStack) -> tuple[Pool, Pool]:
        """A pool on each."""
        pools = []
        for name in ("ours", "bare"):
            pool = Pool(self._dsn(name), size=4, statement_seconds=60)
            await pool.open()
            stack.push_async_callback(pool.close)
            pools.append(pool)
        return pools[0], pools[1]


async def measure(size: Size, dsn: Callable[[str], str], say: Callable[[str], None]) -> dict[tuple[int, int], Results]:
    """All settings, round by round; the first round only warms up."""
    traffic = Traffic(host=HOST, accounts=size.accounts, contacts=size.contacts)
    twins = Twins(dsn)
    await twins.make(decode(frames(traffic.first(), host=HOST, stream="first")))
    results = {(batch, workers): Results() for batch in BATCHES for workers in WORKERS}
    async with AsyncExitStack() as stack:
        ours, other = await twins.open(stack)
        store = PostgresStore(ours, SystemClock(), Metrics())
        for number in range(size.rounds + 1):
            say(f"ingest: round {number} of {size.rounds}")
            for (batch, workers), found in results.items():
                many, stream = EVENTS[batch] // size.share, f"{number}-{batch}-{workers}"
                events = decode(frames(traffic.events(many), host=HOST, stream=f"d{stream}"))
                texts = frames(traffic.events(many), host=HOST, stream=f"t{stream}")
                remembering = Remembering(store)
                decoded = await from_events(remembering, events, workers=workers, batch=batch)
                text = await from_text(store, ours, texts, many, workers=workers, batch=batch)
                ceiling = await bare(other, list(remembering.written.values()), many)
                if number:
                    found.decoded.append(decoded)
                    found.text.append(text)
                    found.bare.append(ceiling)
    return results


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    size = QUICK if quick else FULL
    async with database(shared_buffers="256MB", max_wal_size="4GB") as dsn:
        results = await measure(size, dsn, say)
    rates = table(
        ["batch", "workers", "ours, events/s", "ours from text", "bare statements", "ours ÷ bare", "from text ÷ bare"],
        (
            [
                batch,
                workers,
                *(spread([took.rate for took in runs]) for runs in (found.decoded, found.text, found.bare)),
                *(ratio(runs, found.bare) for runs in (found.decoded, found.text)),
            ]
            for (batch, workers), found in results.items()
        ),
    )
    costs = table(
        ["batch", "workers", "ours, CPU µs/event", "ours from text", "bare statements"],
        (
            [
                batch,
                workers,
                *(spread([t.cost for t in runs], ".0f") for runs in (found.decoded, found.text, found.bare)),
            ]
            for (batch, workers), found in results.items()
        ),
    )
    return (
        f"{size.accounts:,} accounts with {size.contacts} conversations each, all of them there before; messages with "
        f"two events each, 5 % markers, 1 % corrections. Median of {size.rounds} rounds (lowest–highest). "
        f"Ratio: median of the rounds' own; the target is ≥ 60 %.\n\n{rates}\n\n"
        f"Processor time of our process (the driver's share included, the database's not):\n\n{costs}"
    )


def ratio(ours: Sequence[Took], ceiling: Sequence[Took]) -> str:
    """Per cent of the ceiling, round by round."""
    return f"{statistics.median(a.rate / b.rate for a, b in zip(ours, ceiling, strict=True)):.0%}"
