"""The feed of one host: subscribing, what both sides remember, acks, and how far behind we are (docs/feed.md).

Positions are the store's; this part keeps the low-water mark of each stream in memory, persists it, and only then
acknowledges. It notices when one side has lost memory and raises the epochs of the host's accounts.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from xml.etree.ElementTree import Element

from sync.model.errors import Behind, Refused, RequestError, StoreUnavailable
from sync.model.event import Event, FeedPosition, GapEvent, GapReason, Session
from sync.ports import Clock, FeedMarks, Observer, Presence, StreamMark, Wire
from sync.protocol import envelope, feed, hello
from sync.protocol.hello import HeldStream, Hello, PresentSession
from sync.rules.times import microseconds
from sync.service.ingest import Ingest

log = logging.getLogger(__name__)

NOT_YET = "not subscribed yet"
_WORDS = {
    "service-unavailable": "no answer of the feed module: is it loaded on this host?",
    "feature-not-implemented": "no answer of the feed module: is it loaded on this host?",
    "no-answer": "no answer of the feed module: is it loaded on this host?",
    "forbidden": "the feed module does not let this component in: is it named in the module's options?",
    "remote-server-not-found": "the server does not know this host",
    "item-not-found": "the server does not know this host",
    "not-allowed": "the server does not know this host",  # Prosody without connections to other servers
    "rooms-host": "this is a host of rooms: it belongs in muc_hosts",
    "no-rooms-host": "this is no host of rooms: it belongs in hosts",
    "no-hello": "the module's hello cannot be read: it is empty",
    "disconnected": "the connection was lost",
    "not-connected": "the connection was lost",
}

RETRY_SECONDS = 1.0  # while the database is away
ASK_SECONDS = (1.0, 2.0, 5.0)  # while a host does not let us subscribe; a module that begins calls by itself
VOUCH_SECONDS = 5.0
BREATH_SECONDS = 0.25  # between subscriptions
ACK_SECONDS = 0.02


class Progress:
    """How far one stream came in, and how far it is committed without a gap."""

    def __init__(self, shard: str, committed: int, head: int) -> None:
        self.shard, self.head = shard, head
        self.committed = self.received = self.acked = committed
        self.good = 0  # the server's time of the newest event below which nothing is missing, in microseconds
        self._ahead: set[int] = set()
        self._times: deque[tuple[int, int]] = deque()

    def held(self, acked: int, high: int) -> None:
        """The module holds what is behind `acked`, up to `high`; some of it may have come in already."""
        self.committed = max(self.committed, acked)
        self._close_up()
        self.received = max(self.received, self.committed)
        # Not what was seen before: what a power cut took from the module never comes.
        self.head = max(high, self.received)

    def came(self, events: Sequence[Event], now: int) -> None:
        """Events came in; how far they reach in time is known when they are committed. Clocks may be ahead of `now`."""
        times = [microseconds(at) for event in events if (at := getattr(event, "at", None)) is not None]
        if times:
            self._times.append((events[-1].position.n, min(max(times), now)))

    def done(self, n: int) -> None:
        """Event n is committed."""
        if n > self.committed:
            self._ahead.add(n)
        self._close_up()

    def _close_up(self) -> None:
        while self.committed + 1 in self._ahead:
            self.committed += 1
            self._ahead.remove(self.committed)
        while self._times and self._times[0][0] <= self.committed:
            self.good = max(self.good, self._times.popleft()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a host's stream may speak of: accounts, or `rooms` with accounts of `hosts`; `muc_hosts` have their own."""

    rooms: bool = False
    hosts: frozenset[str] = frozenset()
    muc_hosts: frozenset[str] = frozenset()


ACCOUNTS = Reach()


class HostFeed:
    """The feed of one host. `behind`: feeds of rooms that are fetched first, since what accounts have read there names
    what was said there; a host that does not answer is waited for no longer than a question waits.
    """

    def __init__(
        self,
        host: str,
        *,
        component: str,
        wire: Wire,
        marks: FeedMarks,
        presence: Presence,
        clock: Clock,
        observer: Observer,
        freshness_seconds: float,
        reach: Reach = ACCOUNTS,
        behind: Sequence["HostFeed"] = (),
    ) -> None:
        self.host, self._reach, self._rooms_first = host, reach, behind
        self._component, self._wire, self._marks, self._presence = component, wire, marks, presence
        self._clock, self._observer = clock, observer
        self._freshness = freshness_seconds
        self._streams: dict[str, Progress] = {}
        self._behind: int | None = 0  # events still to come, as the module said last; None: it does not say
        self._skipped, self._refusals = False, 0
        self._losses: set[FeedPosition | None] = set()  # not committed; None: the hello's. No time behind is good
        self._up = self._anew = False  # anew: the answer to the last request may be over already
        self.caught_up, self.missing_since = asyncio.Event(), math.inf  # by `monotonic`; infinite: not connected
        self._moved, self._wanted = asyncio.Event(), asyncio.Event()
        self._called = asyncio.Event()  # since the last attempt: somebody begins anew
        self.subscribed = False
        self.why = NOT_YET  # why it is not, in words for the operator
        self.said: Hello | None = None  # what the module said of itself when we subscribed

    @property
    def keeps_rooms(self) -> bool:
        """True for a host of rooms."""
        return self._reach.rooms

    # ---- subscribing -----------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The connection is up: subscribe."""
        self._up = True
        self.resubscribe()

    def resubscribe(self) -> None:
        """The module begins anew, or is not understood: nothing is fresh until it has sent what is not committed."""
        self._anew = True
        self._missed()

    def _missed(self) -> None:
        self.caught_up.clear()
        self.missing_since = monotonic()
        self._wanted.set()
        self._called.set()

    def disconnected(self) -> None:
        """The connection is gone. What was received and not committed comes again."""
        self._up, self.why, self._refusals, self.missing_since = False, NOT_YET, 0, math.inf
        self._wanted.clear()
        self.caught_up.clear()
        self._set_subscribed(False)

    async def run(self) -> None:
        """Subscribe whenever there is a connection, and acknowledge, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._subscribing(), name=f"subscribe-{self.host}")
            group.create_task(self._acknowledging(), name=f"ack-{self.host}")
            if not self._reach.rooms:
                group.create_task(self._vouching(), name=f"presence-{self.host}")

    async def _subscribing(self) -> None:
        while True:
            await self._wanted.wait()
            for rooms in self._rooms_first:
                with suppress(Behind):
                    await rooms.fresh()
            self._called.clear()
            try:
                await self._subscribe()
                await self._clock.sleep(BREATH_SECONDS)  # a module that is not understood will not be the next time
            except StoreUnavailable as error:
                log.warning("the feed was not subscribed", extra={"host": self.host, "reason": str(error)})
                await self._clock.sleep(RETRY_SECONDS)
                if self._up:
                    self._wanted.set()
            except (Refused, RequestError) as error:
                # Of a host of rooms that does not speak any more nobody's answer is made to wait.
                self._set_subscribed(False)
                await self._refused(worded(error))

    async def _refused(self, why: str) -> None:
        """Say why, once; ask again after a while, or as soon as the module or the connection begins anew."""
        if why != self.why:
            self.why, self._refusals = why, 0
            log.warning("the feed was not subscribed", extra={"host": self.host, "reason": why})
        seconds = ASK_SECONDS[min(self._refusals, len(ASK_SECONDS) - 1)]
        self._refusals += 1
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._called.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _vouching(self) -> None:
        """Keep presence known: what Redis has lost is asked for anew."""
        while True:
            await self._clock.sleep(VOUCH_SECONDS)
            try:
                if self.subscribed and not await self._presence.complete(self.host):
                    answer = await self._ask("get", "sessions", feed.sessions_request())
                    if len(answer):
                        found = hello.decode_sessions(answer[0], host=self.host)
                        await self._presence.reset(self.host, by_account(found))
            except (Refused, RequestError) as error:
                log.warning("the sessions of the host are not known", extra={"host": self.host, "reason": str(error)})

    async def _subscribe(self) -> None:
        known = {mark.stream: mark for mark in await self._marks.marks(self.host)}
        payload = feed.subscribe((mark.stream, mark.committed) for mark in known.values())
        # Batches follow the hello at once, on the same connection: what they belong to must be known before they come.
        self._streams = {name: Progress(mark.shard, mark.committed, mark.seen) for name, mark in known.items()}
        self._behind, self._skipped, self._anew = None, False, False
        self._losses.add(None)
        answer = await self._ask("set", "subscribe", payload)
        # What was on its way while we asked was missed in vain; from here on whoever misses something is heard.
        if not self._anew:
            self._wanted.clear()
        if not len(answer):
            raise Refused("no-hello")
        said = hello.decode_hello(answer[0], host=self.host)
        if not said.rooms and not self._reach.rooms:
            # At once: what sessions do from now on comes as events, and those are newer.
            await self._presence.reset(self.host, by_account(said.sessions))
        await self._compare(known, said)
        self._losses.discard(None)
        for stream in said.streams:
            # What the module counts as acknowledged never comes again, whatever is remembered here (docs/feed.md §6).
            self._progress(stream.id, said.shard).held(stream.acked, stream.high)
        if said.regressed and self._skipped:
            # What came with the hello was counted from where we had been, not from the module's ack.
            self._missed()
        if said.rooms is not self._reach.rooms:
            raise Refused("rooms-host" if said.rooms else "no-rooms-host")
        if not self._up:
            raise Refused("disconnected")
        self.said, self.why, self._refusals = said, "", 0
        self._set_subscribed(True)
        self._look()
        log.info(
            "the feed is subscribed", extra={"host": self.host, "server": said.server, "version": said.server_version}
        )

    def _ask(self, kind: str, name: str, what: Element) -> Awaitable[Element]:
        iq = envelope.iq(kind, sender=self._component, to=self.host, request_id=name, payload=what)
        return self._wire.request(iq)

    async def _compare(self, known: dict[str, StreamMark], said: Hello) -> None:
        """docs/feed.md §6: has either side lost memory?"""
        held = {stream.id: stream for stream in said.streams}
        torn = [name for name, mark in known.items() if name in held and mark.committed > held[name].high]
        cut = [name for name, mark in known.items() if name in held and mark.seen > held[name].high]
        vanished = [name for name in known if name not in held]
        # The newest stream with an ack is listed until a newer one has one: without either it is not the outbox it was.
        latest = max((m.good or math.inf for name, m in known.items() if m.committed and name in held), default=-1)
        lost = [n for n in vanished if (m := known[n]).seen > m.committed or (m.committed and m.good > latest)]
        marks = [mark_of(stream, said.shard, known.get(stream.id)) for stream in said.streams if stream.id not in torn]
        gone = [*vanished, *torn]
        if said.regressed or torn or cut or lost:
            why = "component" if said.regressed else "outbox"
            accounts = await self._marks.raise_epochs(self.host, self._clock.now(), marks=marks, forget=gone)
            self._observer.epoch_raised(why)
            log.error(
                "a side of the feed has lost memory; clients start over",
                extra={"host": self.host, "why": why, "accounts": accounts},
            )
        else:
            await self._marks.mark(self.host, marks)
            if gone:
                await self._marks.forget(self.host, gone)
        for name in gone:
            self._streams.pop(name, None)

    # ---- batches ---------------------------------------------------------------------------------------------------

    def take(self, frame: Element, ingest: Ingest) -> None:
        """A batch came in. Raises FrameError when the frame cannot be trusted."""
        reach = self._reach
        batch = feed.decode_feed(frame, host=self.host, rooms=reach.rooms, hosts=reach.hosts, muc_hosts=reach.muc_hosts)
        if any(isinstance(event, GapEvent) and event.reason is GapReason.FULL for event in batch.events):
            self._streams.clear()  # docs/feed.md §6: the other streams were given up
        progress = self._progress(batch.stream, batch.shard)
        first = batch.events[0].position.n
        if first > progress.received + 1:
            # Something between was lost on the way: start over from what is committed.
            log.error("the feed skipped events", extra={"host": self.host, "n": first})
            self._skipped = True
            self._missed()
            return
        progress.head = max(progress.head, batch.head)
        new = [event for event in batch.events if event.position.n > progress.received]
        progress.received = max(progress.received, batch.last)
        progress.came(new, microseconds(self._clock.now()))
        self._losses.update(event.position for event in new if isinstance(event, GapEvent))
        self._behind = batch.behind
        ingest.put(new)
        self._observer.feed_lag(self.host, progress.head - progress.committed)
        self._look()

    def committed(self, positions: Sequence[FeedPosition]) -> None:
        """These events are committed."""
        self._losses.difference_update(positions)
        for position in positions:
            progress = self._streams.get(position.stream)
            if progress is not None:
                progress.done(position.n)
        self._moved.set()

    async def fresh(self) -> None:
        """Wait until everything that the module has reported as its head has come in; `Behind` after the limit."""
        if self.caught_up.is_set():
            return
        try:
            async with asyncio.timeout(self._freshness):
                await self.caught_up.wait()
        except TimeoutError:
            raise Behind from None

    def _look(self) -> None:
        here = all(p.received >= p.head for p in self._streams.values()) if self._behind is None else not self._behind
        if self.subscribed and here and not self._wanted.is_set():
            self.caught_up.set()
        else:
            self.caught_up.clear()

    def _progress(self, stream: str, shard: str) -> Progress:
        return self._streams.setdefault(stream, Progress(shard, 0, 0))

    def _set_subscribed(self, value: bool) -> None:
        self.subscribed = value
        self._observer.connection(self.host, value)

    # ---- acks ------------------------------------------------------------------------------------------------------

    async def _acknowledging(self) -> None:
        """Persist the low-water marks, then send them; what moves meanwhile goes with the next round."""
        while True:
            await self._moved.wait()
            # An ack is urgent to nobody; what goes on at this moment may be a call's push.
            await self._clock.sleep(ACK_SECONDS)
            self._moved.clear()
            try:
                await self.acknowledge()
            except StoreUnavailable:
                log.warning("acks wait for the database", extra={"host": self.host})
                self._moved.set()
                await self._clock.sleep(RETRY_SECONDS)

    async def acknowledge(self) -> None:
        """One round of acks: those streams that moved."""
        moved = [(name, p, p.committed, p.good) for name, p in self._streams.items() if p.committed > p.acked]
        sure = not self._losses
        await self._marks.mark(
            self.host,
            [
                StreamMark(stream=name, shard=p.shard, committed=n, seen=max(p.head, n), good=good if sure else 0)
                for name, p, n, good in moved
            ],
        )
        for name, progress, n, _ in moved:
            progress.acked = n
            self._wire.send(envelope.message(sender=self._component, to=self.host, payload=feed.ack(name, n)))
            self._observer.feed_lag(self.host, progress.head - n)


def worded(error: Refused | RequestError) -> str:
    """Why a host does not let us subscribe, in words for the operator."""
    if isinstance(error, RequestError):
        return f"the module's hello cannot be read: {error.text}"
    if error.answer is not None and (versions := hello.versions_of(error.answer)) is not None:
        theirs, ours = " ".join(map(str, versions)) or "none", hello.VERSION
        update = "Convsync" if versions and min(versions) > ours else "the module"
        return f"the module speaks version {theirs} of the feed, this program version {ours}: update {update}"
    return _WORDS.get(error.condition, error.condition)


def by_account(sessions: Iterable[PresentSession]) -> dict[str, list[Session]]:
    """Sessions by account."""
    found: dict[str, list[Session]] = {}
    for present in sessions:
        found.setdefault(present.account, []).append(present.session)
    return found


def mark_of(stream: HeldStream, shard: str, known: StreamMark | None) -> StreamMark:
    """What is remembered of a stream that hello lists: not more than the module has."""
    committed = max(known.committed if known else 0, stream.acked)
    return StreamMark(stream=stream.id, shard=shard, committed=committed, seen=max(stream.high, committed))
