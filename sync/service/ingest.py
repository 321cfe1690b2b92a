"""Takes events from the feed and commits them in groups (DESIGN §4): steps (2) and (3) of the flow.

Never waits on purpose: a batch is whatever arrived while the previous commit was under way. Lanes are shared out
among a few workers; a lane's events stay in order. Steps of calls have a worker of their own, so that they wait for no
batch of messages but one that has their lane. What waits is bounded: beyond the high-water mark the connection
is not read. An event that cannot be committed is found by bisection and quarantined; a database that is away is
waited for.
"""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from time import perf_counter
from typing import NamedTuple

from sync.model.books import Books, Keys, Rule, Ruling
from sync.model.conversation import Kind
from sync.model.errors import StoreUnavailable, Uncommittable
from sync.model.event import (
    AccountEvent,
    AccountState,
    BlocklistEvent,
    CallMessage,
    Displayed,
    Event,
    FeedPosition,
    GapEvent,
    Malformed,
    MessageEvent,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
    SessionEvent,
)
from sync.model.jid import LANES, lane
from sync.ports import Clock, Observer, Presence, Store, Wire
from sync.rules.fold import Policies, Report, take
from sync.rules.wanted import keys

log = logging.getLogger(__name__)

KINDS = {
    MessageEvent: "message",
    SessionEvent: "session",
    RoomMessageEvent: "room-message",
    RoomMembersEvent: "room-members",
    RoomDestroyedEvent: "room",
    BlocklistEvent: "blocklist",
    AccountEvent: "account",
    GapEvent: "gap",
    Malformed: "malformed",
}
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # while the database is away; the last one repeats
SMALLER_AFTER = len(RETRY_SECONDS)  # attempts: what may take longer than a statement may is tried in halves


class Queued(NamedTuple):
    """An event that waits, until `target` events of a lane are committed (0: for nothing)."""

    event: Event
    lane: int
    target: int


class Ingest:
    """The lanes. `committed` is told of each event's position after its commit, `due` of batches with push jobs,
    `owed` of rooms with entries for their members. `commit` in place of the store's `transact`.
    """

    def __init__(
        self,
        *,
        store: Store,
        presence: Presence,
        wire: Wire,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        workers: int,
        batch: int,
        queue: int,
        committed: Callable[[Sequence[FeedPosition]], None],
        due: Callable[[Report], None],
        owed: Callable[[Collection[str]], None],
        commit: Callable[[Keys, Rule[Report]], Awaitable[Report]] | None = None,
    ) -> None:
        self._commit_rule = commit or store.transact
        self._presence, self._wire, self._clock, self._observer = presence, wire, clock, observer
        self._policies = policies
        self._batch = batch
        self._high, self._low = queue, queue // 4
        self._committed, self._due, self._owed = committed, due, owed
        self._workers = workers
        self._lanes: list[deque[Queued]] = [deque() for _ in range(LANES)]
        self._busy = [False] * LANES
        self._turn = 0
        self._work_to_do = asyncio.Event()
        self._calls: Counter[int] = Counter()  # by lane, how many steps of calls wait, those of none left out
        self._calls_to_take = asyncio.Event()
        self._idle_for_calls = False  # their worker has nothing under way
        self._idle = asyncio.Event()
        self._idle.set()
        self._taken = [0] * LANES  # events of each lane that came in, and that were committed
        self._done = [0] * LANES
        # By lane, how many had come in when the last event of a room did; of those lanes that are not so far yet.
        self._of_rooms: dict[int, int] = {}
        self._coming: Counter[str] = Counter()  # events that are not committed, by account
        self._barriers: list[list[tuple[int, asyncio.Future[None]]]] = [[] for _ in range(LANES)]
        self._waiting = 0
        self._paused = self._closing = False

    def put(self, events: Sequence[Event]) -> None:
        """Events of one stream, in order. Returns at once; over the high-water mark the connection pauses."""
        for event in events:
            where = lane(event.account)
            self._taken[where] += 1
            self._coming[event.account] += 1
            if isinstance(event, RoomMessageEvent | RoomMembersEvent | RoomDestroyedEvent):
                self._of_rooms[where] = self._taken[where]
            self._lanes[where].append(Queued(event, *self._behind(event)))
            if is_of_call(event):
                self._calls[where] += 1
        self._wake()
        self._waiting += len(events)
        if self._waiting:
            self._idle.clear()
        if self._waiting > self._high and not self._paused:
            self._paused = True
            self._observer.ingest_waiting(self._waiting)
            self._wire.pause()

    def _behind(self, event: Event) -> tuple[int, int]:
        """Own markers come in another stream than what they mark in a room of this server: they wait for what the room
        has said so far, else they name nothing that is known.
        """
        if not isinstance(event, MessageEvent) or event.kind is not Kind.GROUP:
            return 0, 0
        where = lane(event.peer)
        return (where, self._of_rooms.get(where, 0)) if isinstance(event.content, Displayed) else (0, 0)

    def coming(self, accounts: Iterable[str]) -> frozenset[str]:
        """Of these accounts those that events have come in of which are not committed."""
        return frozenset(account for account in accounts if account in self._coming)

    async def barrier(self, account: str) -> None:
        """Wait until everything of the account's lane that has come in so far is committed."""
        where = lane(account)
        await self._passed(where, self._taken[where])

    async def rooms_barrier(self) -> None:
        """Wait until everything of rooms that has come in so far is committed."""
        for where, target in list(self._of_rooms.items()):
            await self._passed(where, target)

    async def _passed(self, where: int, target: int) -> None:
        if self._done[where] < target:
            passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._barriers[where].append((target, passed))
            await passed

    async def drain(self) -> None:
        """Nothing more is read: wait until nothing is waiting."""
        self._closing = True
        self._wire.pause()
        await self._idle.wait()

    async def run(self) -> None:
        """Commit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for worker in range(self._workers):
                group.create_task(self._work(), name=f"ingest-{worker}")
            group.create_task(self._work_for_calls(), name="ingest-calls")

    async def _work(self) -> None:
        """A free worker takes what waits in all lanes that no other worker has: one transaction where one is enough."""
        while True:
            events = self._next()
            if not events:
                self._work_to_do.clear()
                await self._work_to_do.wait()
                continue
            await self._carry(events)

    async def _work_for_calls(self) -> None:
        """Takes what leads up to the calls that wait, and nothing behind them: a small transaction is a short one."""
        while True:
            events = self._next(calls=True)
            if not events:
                self._calls_to_take.clear()
                self._idle_for_calls = True
                await self._calls_to_take.wait()
                self._idle_for_calls = False
                continue
            await self._carry(events)

    async def _carry(self, events: Sequence[Event]) -> None:
        lanes = {lane(event.account) for event in events}
        self._set_busy(lanes, True)
        try:
            await self._commit(events)
        finally:
            self._set_busy(lanes, False)
        self._finished(events)

    def _next(self, *, calls: bool = False) -> list[Event]:
        """A batch: what is there, up to the limit, beginning at another lane each time. Lanes with calls are left to
        their worker where that one is idle.
        """
        events: list[Event] = []
        self._turn = (self._turn + 1) % LANES
        for step in range(LANES):
            where = (self._turn + step) % LANES
            wanted = where in self._calls if calls else not (self._idle_for_calls and where in self._calls)
            if wanted and not self._busy[where]:
                self._from_lane(where, events, calls=calls)
        return events

    def _from_lane(self, where: int, events: list[Event], *, calls: bool) -> None:
        """The deletion of an account ends the lane's part: what follows is another account. So does a marker that is
        ahead of its room, until the room's lane has come so far; with `calls` the last call of the lane.
        """
        waiting = self._lanes[where]
        while waiting and len(events) < self._batch and self._done[waiting[0].lane] >= waiting[0].target:
            event = waiting.popleft().event
            events.append(event)
            if is_of_call(event):
                self._calls[where] -= 1
                if not self._calls[where]:
                    del self._calls[where]
                    if calls:
                        break
            if isinstance(event, AccountEvent) and event.state is AccountState.DELETED:
                break

    def _set_busy(self, lanes: Iterable[int], busy: bool) -> None:
        for where in lanes:
            self._busy[where] = busy
        if not busy:
            self._wake()

    def _wake(self) -> None:
        if self._calls:
            self._calls_to_take.set()
        self._work_to_do.set()

    async def _commit(self, events: Sequence[Event], *, said: bool = False) -> None:
        """One transaction, tried until the database takes it, or says that it never will; several in the end, where it
        did not answer in time. `said`: that it is away is in the log.
        """
        for attempt in count():
            began = perf_counter()
            try:
                wanted = keys(events, several=self._policies.conduct.several)
                report = await self._commit_rule(wanted, partial(self._take, events))
            except StoreUnavailable as error:
                self._observer.transaction_retried("unavailable")
                if attempt == 0 and not said:
                    log.warning("the database is away, events wait", extra={"reason": str(error)})
                await self._clock.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                if attempt + 1 >= SMALLER_AFTER and len(events) > 1:
                    await self._commit(events[: len(events) // 2], said=True)
                    await self._commit(events[len(events) // 2 :], said=True)
                    return
            except Exception as error:  # noqa: BLE001 - a bug in a rule must stop one event, not the feed
                if not is_bare(events):
                    await self._isolate(events, error)
                    return
                # An empty note that an event was here is refused by no fault of the event.
                log.critical("the quarantine takes nothing", extra={"reason": type(error).__name__})
                await self._clock.sleep(RETRY_SECONDS[-1])
            else:
                await self._after(events, report, perf_counter() - began)
                return

    def _take(self, events: Sequence[Event], books: Books) -> Ruling[Report]:
        return take(events, books, self._policies)

    async def _isolate(self, events: Sequence[Event], error: Exception) -> None:
        """Bisect until one event stands alone, and set that one aside."""
        why = error.name if isinstance(error, Uncommittable) else type(error).__name__
        if len(events) > 1:
            middle = len(events) // 2
            await self._commit(events[:middle])
            await self._commit(events[middle:])
            return
        event = events[0]
        if isinstance(event, Malformed):
            event = replace(event, xml="")  # not even its text can be stored: keep its place
        else:
            log.error("an event cannot be committed", extra={"reason": why, "n": event.position.n})
            xml = event.stanza if isinstance(event, MessageEvent | RoomMessageEvent) else getattr(event, "xml", "")
            event = Malformed(
                position=event.position,
                account=event.account,
                why=f"uncommittable:{why}",
                xml=xml,
                room=isinstance(event, RoomMessageEvent | RoomMembersEvent | RoomDestroyedEvent),
            )
        await self._commit([event])

    async def _after(self, events: Sequence[Event], report: Report, seconds: float) -> None:
        """The commit stands: tell those who wait for it. Presence first, so that a claim sees it."""
        sessions = [event for event in events if isinstance(event, SessionEvent)]
        if sessions:
            await self._presence.apply(sessions)
        if report.jobs or report.farewells:
            self._due(report)
        if report.rooms:
            self._owed(report.rooms)
        self._observer.batch_committed(len(events), seconds)
        for kind, many in Counter(KINDS[type(event)] for event in events).items():
            self._observer.events_committed(kind, many)
        for tell, counted in (
            (self._observer.ignored, report.ignored),
            (self._observer.suppressed, report.suppressed),
            (self._observer.coalesced, report.coalesced),
        ):
            for word, many in counted.items():
                tell(word, many)
        for event in events:
            if isinstance(event, Malformed):
                self._observer.quarantined(event.why)
            elif isinstance(event, GapEvent):
                log.error(
                    "the module has lost events; clients start over", extra={"host": event.account, "why": event.reason}
                )
                self._observer.epoch_raised(event.reason)

    def _finished(self, events: Sequence[Event]) -> None:
        """Move the marks, open the barriers, read on."""
        self._committed([event.position for event in events])
        for event in events:
            self._done[lane(event.account)] += 1
            self._coming[event.account] -= 1
            if not self._coming[event.account]:
                del self._coming[event.account]
        for where in {lane(event.account) for event in events}:
            if self._of_rooms.get(where, math.inf) <= self._done[where]:
                del self._of_rooms[where]
            self._open_barriers(where)
        self._waiting -= len(events)
        self._observer.ingest_waiting(self._waiting)
        if self._waiting == 0:
            self._idle.set()
        if self._paused and self._waiting <= self._low and not self._closing:
            self._paused = False
            self._wire.resume()

    def _open_barriers(self, where: int) -> None:
        waiting = self._barriers[where]
        passed = [future for target, future in waiting if target <= self._done[where]]
        self._barriers[where] = [(target, future) for target, future in waiting if target > self._done[where]]
        for future in passed:
            if not future.done():
                future.set_result(None)


def is_of_call(event: Event) -> bool:
    """True for a step of a call: somebody's phone is to ring, or to cease."""
    return isinstance(event, MessageEvent | RoomMessageEvent) and isinstance(event.content, CallMessage)


def is_bare(events: Sequence[Event]) -> bool:
    """True for a single quarantined event of which nothing is left but its place."""
    return len(events) == 1 and isinstance(events[0], Malformed) and not events[0].xml
