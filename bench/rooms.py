"""A message in a room, from its event to the last absent member's conversation, by the number of members.

One message at a time, as people write: the event is committed in the room's lane, then fanned out; the time ends when
the room owes nobody anything. Beside it the same room under a burst, where one pass takes many entries to each member,
and what one-to-one traffic loses while a large room is served.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from bench.report import spread, table
from bench.stage import NoWire, database, make_ingest
from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.rooms import PostgresRooms
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.conversation import Direction
from sync.model.event import (
    AccountEvent,
    AccountState,
    Body,
    Event,
    FeedPosition,
    Membership,
    Mentions,
    MessageEvent,
    RoomMembersEvent,
    RoomMessageEvent,
)
from sync.model.room import Affiliation
from sync.rules.fold import Policies
from sync.service.fanout import FanOut
from sync.service.ingest import Ingest

HOST, ROOMS = "bench.example", "rooms.bench.example"
MEMBERS = (10, 100, 1_000, 10_000)
BURST = 16
PAGE = 200  # members in one event of a listing
STANZA = '<message xmlns="jabber:client" type="groupchat"><body>Shall we meet at the corner at seven?</body></message>'


@dataclass(frozen=True, slots=True)
class Size:
    """How many single messages and bursts each room gets, and how many chats are measured beside."""

    members: Sequence[int]
    singles: int
    bursts: int
    chats: int


FULL, QUICK = Size(MEMBERS, 10, 3, 300), Size((10, 100, 1_000), 2, 1, 50)


@dataclass(slots=True)
class Took:
    """Seconds of wall clock and of this process's processor, one for each message (of a burst: for each burst)."""

    single: list[float] = field(default_factory=list)
    single_cpu: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)


class Stand:
    """Ingest and fan-out on a database, fed by hand."""

    def __init__(self, pool: Pool) -> None:
        clock, metrics = SystemClock(), Metrics()
        store = PostgresStore(pool, clock, metrics)
        self.fanout = FanOut(
            store=store,
            rooms=PostgresRooms(pool),
            clock=clock,
            observer=metrics,
            policies=Policies(),
            due=lambda _: None,
        )
        self.fanout.lead()
        self.ingest: Ingest = make_ingest(store, NoWire(), workers=2, batch=512, owed=self.fanout.owe)
        self._n = 0

    def position(self, host: str) -> FeedPosition:
        """The next one."""
        self._n += 1
        return FeedPosition(host, "stream", "main", self._n)

    async def take(self, events: Sequence[Event]) -> None:
        """Commit, and pay what is owed."""
        self.ingest.put(events)
        for event in events:
            await self.ingest.barrier(event.account)
        await self.fanout.settled()

    async def people(self, many: int) -> None:
        """Accounts exist."""
        for first in range(0, many, 500):
            names = [person(n) for n in range(first, min(many, first + 500))]
            await self.take(
                [
                    AccountEvent(position=self.position(HOST), account=name, at=now(), state=AccountState.CREATED)
                    for name in names
                ]
            )

    async def room(self, jid: str, many: int) -> None:
        """A members-only room of so many who are not there."""
        members = [
            Membership(account=person(n), affiliation=Affiliation.MEMBER, present=False, nick=f"person {n}")
            for n in range(many)
        ]
        pages = [members[first : first + PAGE] for first in range(0, many, PAGE)]
        await self.take(
            [
                RoomMembersEvent(
                    position=self.position(ROOMS),
                    account=jid,
                    at=now(),
                    members=tuple(page),
                    private=True,
                    begin=number == 0,
                    end=number == len(pages) - 1,
                )
                for number, page in enumerate(pages)
            ]
        )

    def said(self, jid: str) -> RoomMessageEvent:
        """A message by the first member."""
        position = self.position(ROOMS)
        return RoomMessageEvent(
            position=position,
            account=jid,
            at=now(),
            sender=f"{jid}/person 0",
            content=Body(mentions=Mentions(), text="Shall we meet at the corner at seven?"),
            stanza=STANZA,
            private=True,
            author=person(0),
            archive_id=str(position.n),
            message_id=f"m{position.n}",
        )

    def chat(self, number: int) -> MessageEvent:
        """A one-to-one message."""
        position = self.position(HOST)
        return MessageEvent(
            position=position,
            account=person(number),
            at=now(),
            direction=Direction.IN,
            peer="friend@elsewhere.example",
            sender="friend@elsewhere.example/phone",
            content=Body(),
            stanza=STANZA,
            archive_id=f"c{position.n}",
            message_id=f"c{position.n}",
        )


def person(number: int) -> str:
    """An account."""
    return f"person{number}@{HOST}"


def now() -> datetime:
    """The server's time."""
    return datetime.now(UTC)


@asynccontextmanager
async def running(stand: Stand) -> AsyncIterator[None]:
    """Its parts at work."""
    tasks = [asyncio.ensure_future(stand.ingest.run()), asyncio.ensure_future(stand.fanout.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measured(stand: Stand, size: Size, say: Callable[[str], None]) -> dict[int, Took]:
    """Rooms of all sizes."""
    found: dict[int, Took] = {}
    for many in size.members:
        say(f"rooms: {many:,} members")
        jid, took = f"room{many}@{ROOMS}", found.setdefault(many, Took())
        await stand.room(jid, many)
        await stand.take([stand.said(jid)])  # every conversation exists
        for _ in range(size.singles):
            began, cpu = time.perf_counter(), time.process_time()
            await stand.take([stand.said(jid)])
            took.single.append(time.perf_counter() - began)
            took.single_cpu.append(time.process_time() - cpu)
        for _ in range(size.bursts):
            began = time.perf_counter()
            await stand.take([stand.said(jid) for _ in range(BURST)])
            took.burst.append(time.perf_counter() - began)
    return found


async def beside(stand: Stand, size: Size, *, busy: bool) -> list[float]:
    """Event to commit of one-to-one messages, one at a time, with the largest room being served or not."""
    jid = f"room{max(size.members)}@{ROOMS}"
    stop, times = asyncio.Event(), []

    async def crowd() -> None:
        while not stop.is_set():
            await stand.take([stand.said(jid)])

    task = asyncio.ensure_future(crowd()) if busy else None
    for number in range(size.chats):
        await asyncio.sleep(0.005)  # people, not a flood
        event, began = stand.chat(number % 100), time.perf_counter()
        stand.ingest.put([event])
        await stand.ingest.barrier(event.account)
        times.append(time.perf_counter() - began)
    stop.set()
    if task is not None:
        await task
    return times


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    size = QUICK if quick else FULL
    async with database(shared_buffers="256MB", max_wal_size="4GB") as dsn, AsyncExitStack() as stack:
        await migrate.install(dsn("postgres"))
        pool = Pool(dsn("postgres"), size=6, connect_seconds=5.0, statement_seconds=30.0, prepared=True)
        await pool.open()
        stack.push_async_callback(pool.close)
        stand = Stand(pool)
        async with running(stand):
            await stand.people(max(size.members))
            found = await measured(stand, size, say)
            bare = await rows_alone(dsn("postgres"), size)
            say("rooms: one-to-one traffic beside")
            alone, crowded = await beside(stand, size, busy=False), await beside(stand, size, busy=True)
    return report(found, bare, alone, crowded)


async def rows_alone(dsn: str, size: Size) -> dict[int, list[float]]:
    """The same rows of accounts and conversations written by one bare statement each: what the database takes."""
    connection = await asyncpg.connect(dsn)
    found: dict[int, list[float]] = {}
    try:
        for many in size.members:
            room = f"room{many}@{ROOMS}"
            times = found.setdefault(many, [])
            for _ in range(size.singles):
                began = time.perf_counter()
                async with connection.transaction():
                    await connection.execute(
                        "UPDATE account SET version = version + 1, unread = unread + 1 FROM room_member m "
                        "WHERE m.room = $1 AND m.account = account.jid",
                        room,
                    )
                    await connection.execute(
                        "UPDATE conversation c SET version = c.version + 1, unread = c.unread + 1, last_stanza = $2 "
                        "FROM room_member m WHERE m.room = $1 "
                        "AND (c.account, c.peer, c.kind) = (m.account, $1, 'group')",
                        room,
                        STANZA,
                    )
                times.append(time.perf_counter() - began)
    finally:
        await connection.close()
    return found


def report(
    found: dict[int, Took], bare: dict[int, list[float]], alone: Sequence[float], crowded: Sequence[float]
) -> str:
    """Tables."""
    rows = [
        [
            f"{many:,}",
            spread([seconds * 1000 for seconds in took.single], ",.1f"),
            f"{statistics.median(took.single) / many * 1e6:,.0f}",
            f"{statistics.median(took.single_cpu) / many * 1e6:,.0f}",
            f"{statistics.median(bare[many]) / many * 1e6:,.0f}",
            f"{statistics.median(took.burst) / many / BURST * 1e6:,.1f}",
        ]
        for many, took in found.items()
    ]
    head = [
        "absent members",
        "one message, ms",
        "µs a member",
        "of it our CPU",
        "bare statements, µs a member",
        f"burst of {BURST}, µs a member and message",
    ]
    largest = max(found)
    lines = [
        table(head, rows),
        "",
        f"One-to-one messages, event to commit, one every few milliseconds: alone p50 {ms(alone, 50)} / p99 "
        f"{ms(alone, 99)} ms; while a room of {largest:,} is written to without a pause p50 {ms(crowded, 50)} / p99 "
        f"{ms(crowded, 99)} ms.",
    ]
    return "\n".join(lines)


def ms(values: Sequence[float], percent: int) -> str:
    """A centile in milliseconds."""
    ranked = sorted(values)
    return f"{ranked[min(len(ranked) - 1, len(ranked) * percent // 100)] * 1000:.1f}"
