"""Ingest, feed to commit, beside the very rows that it wrote as bare bulk statements.

Every round runs each setting three times, one after the other: our path on decoded events, our path from the frames'
text, and the rows that the first of them wrote, sent again to a twin of its database: the same statements with the
same arrays, transactions and connections, but nothing locked first, nothing read, no rules. That is the ceiling. The
twins are made from one template; the rows of the runs from text are missing in the ceiling's, which favours it.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from xml.etree.ElementTree import fromstring

from bench.ceiling import Remembering, Twins, replay, statements
from bench.report import spread, table
from bench.stage import NoWire, database, make_ingest
from bench.traffic import Traffic, frames
from sync.adapters.memory import MemoryPresence
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app import spare_the_collector
from sync.app.drivers import SystemClock
from sync.model.event import Event
from sync.ports import Store
from sync.protocol.feed import FRAME, decode_feed
from sync.service.feed import HostFeed

HOST = "bench.example"
BATCHES, WORKERS = (1, 16, 64, 256, 512), (1, 2)
EVENTS = {1: 1_000, 16: 4_000, 64: 6_000, 256: 10_240, 512: 10_240}


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


async def timed(events: int, work: Callable[[], Awaitable[None]]) -> Took:
    """Run it. The inputs made beforehand are kept from the collector, which would go through them again and again."""
    gc.collect()
    gc.freeze()
    began, cpu = time.perf_counter(), time.process_time()
    await work()
    took = Took(events, time.perf_counter() - began, time.process_time() - cpu)
    gc.unfreeze()
    return took


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


def decode(texts: Sequence[str]) -> list[Event]:
    """The events of frames."""
    found: list[Event] = []
    for text in texts:
        frame = fromstring(text).find(FRAME)  # noqa: S314 - ours
        assert frame is not None
        found += decode_feed(frame, host=HOST).events
    return found


async def measure(size: Size, dsn: Callable[[str], str], say: Callable[[str], None]) -> dict[tuple[int, int], Results]:
    """All settings, round by round; the first round only warms up."""
    traffic = Traffic(host=HOST, accounts=size.accounts, contacts=size.contacts)
    twins = Twins(dsn)
    first = decode(frames(traffic.first(), host=HOST, stream="first"))
    await twins.make(lambda store: from_events(store, first, workers=1, batch=512))
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
                again = [await statements(writes) for writes in remembering.written.values()]
                ceiling = await timed(many, partial(replay, other, again))
                if number:
                    found.decoded.append(decoded)
                    found.text.append(text)
                    found.bare.append(ceiling)
    return results


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    size = QUICK if quick else FULL
    spare_the_collector()  # as the component does
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
