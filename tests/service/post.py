"""Watchers with what is around them, for tests: a store in memory, a module that delivers or does not, time that stands
still.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from sync.adapters.memory import MemoryPresence
from sync.model.delta import DeltaPage, DeltaQuery, DeltaToken
from sync.model.errors import Refused, StoreUnavailable
from sync.model.event import FeedPosition, Session, SessionChange, SessionEvent, SessionState
from sync.ports import Watcher
from sync.protocol.names import FEED, clark
from sync.service.attendance import Attendance
from sync.service.delta import Answer
from sync.service.live import Live
from sync.service.notices import Notices
from sync.service.watch import Watchers
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_watch import MemoryWatches
from tests.contract.samples import ANN, BOB, NOW, account, conversation, owned, storing

HOST, HUNG = "example.org", "hung.example"
TURNS = 500


class Halted(SetClock):
    """Who sleeps wakes up when the test says so."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.bell = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await self.bell.wait()

    async def ring(self) -> None:
        self.bell.set()
        await asyncio.sleep(0)
        self.bell.clear()


class Counting(MemoryStore):
    """Says how often it was read, and is away when it is told to."""

    def __init__(self, clock: SetClock) -> None:
        super().__init__(clock)
        self.accounts: list[str] = []
        self.deltas: list[DeltaQuery] = []
        self.away = False

    async def account(self, jid: str) -> object:  # type: ignore[override]
        self.accounts.append(jid)
        return await super().account(jid)

    async def delta(self, account: str, query: DeltaQuery) -> DeltaPage | None:
        self.deltas.append(query)
        if self.away:
            raise StoreUnavailable("away")
        return await super().delta(account, query)


class Rows(MemoryWatches):
    """Watches that may be away, or slow."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.away, self.gate = False, asyncio.Event()
        self.gate.set()

    async def put(self, watcher: Watcher) -> None:
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")
        await super().put(watcher)


class Slow(MemoryPresence):
    """What happened to sessions is known when the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        await self.gate.wait()
        await super().apply(events)


class Lines:
    """Plays `Wire`: a module that delivers, or does what the test says, to each session."""

    def __init__(self) -> None:
        self.handed: list[Element] = []
        self.gone: set[str] = set()  # sessions that take nothing
        self.refused: set[str] = set()
        self.silent: dict[str, asyncio.Event] = {}  # the module's answer waits for this
        self.late = asyncio.Event()  # and is on its way until that
        self.late.set()

    def request(self, iq: Element) -> "asyncio.Future[Element]":
        deliver = iq.find(clark(FEED, "deliver"))
        assert deliver is not None
        return asyncio.ensure_future(self._answered(f"{deliver.get('account')}/{deliver.get('resource')}", deliver[0]))

    async def _answered(self, session: str, stanza: Element) -> Element:
        await asyncio.sleep(0)
        if session in self.silent:
            await self.silent[session].wait()
        if session in self.refused:
            raise Refused("service-unavailable")
        answer = Element("iq")
        taken = session not in self.gone
        await self.late.wait()
        answer.append(Element(clark(FEED, "delivered"), {"sessions": str(int(taken))}))
        if taken:
            self.handed.append(stanza)
        return answer

    def send(self, stanza: Element) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def room(self) -> None: ...


def answer(token: DeltaToken, reached: int = 100) -> Answer:
    """To a `sync`, of the version that the token tells."""
    return Answer(element=Element("sync"), token=token, version=max(token.since, token.newest), reached=reached)


@dataclass
class Post:
    """Watchers over a store in memory."""

    clock: Halted = field(default_factory=Halted)
    lines: Lines = field(default_factory=Lines)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    presence: Slow = field(default_factory=Slow)

    def __post_init__(self) -> None:
        self.store = Counting(self.clock)
        self.rows = Rows(self.store)
        self.begin()

    def begin(self) -> None:
        """A process that takes over."""
        live = Live(component="sync.example.org", wire=self.lines, presence=self.presence, observer=self.observer)
        self.watchers = Watchers(
            {HOST, HUNG},
            watches=self.rows,
            notices=Notices(store=self.store, clock=self.clock),  # type: ignore[arg-type]
            presence=self.presence,
            live=live,
            clock=self.clock,
            observer=self.observer,
        )
        self.attendance = Attendance(self.presence, self.watchers)
        self.store.stored = self.watchers.committed

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.watchers.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def online(self, *sessions: str) -> None:
        found: dict[str, list[Session]] = {}
        for session in sessions:
            owner, _, resource = session.partition("/")
            found.setdefault(owner, []).append(Session(resource, SessionState.ACTIVE))
        await self.attendance.reset(HOST, found)

    async def happens(self, change_: SessionChange, owner: str = ANN, resource: str = "web") -> None:
        position = FeedPosition(HOST, "s", "0", 1)
        event = SessionEvent(position=position, account=owner, at=NOW, resource=resource, change=change_)
        await self.attendance.apply([event])

    def bump(self, version: int, peer: str = BOB, owner: str = ANN, **fields: object) -> None:
        """A conversation changes, and its account with it."""
        rows = {"accounts": [account(owner, version=version, floor=10)]}
        self.store.apply(owned(owner), storing(**rows, conversations=[conversation(version, peer, owner, **fields)]))

    async def follow(self, resource: str = "web", owner: str = ANN, version: int | None = None) -> None:
        """As `sync` with live='true' does."""
        reached = self.store.tables.accounts[owner].version
        version = version or reached
        token = DeltaToken(epoch=1, since=version, log=version)
        await self.watchers.answered(owner, resource, True, answer(token, reached))

    async def settled(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def notices(self, session: str = f"{ANN}/web") -> list[Element]:
        return [stanza[0] for stanza in self.lines.handed if stanza.get("to") == session]

    def chain(self, session: str = f"{ANN}/web") -> list[tuple[int, int]]:
        """(previous, version) of each notice."""
        return [(int(one.get("previous", "")), int(one.get("version", ""))) for one in self.notices(session)]

    def rows_of(self) -> list[tuple[str, int, int]]:
        return [(row.resource, row.told, row.log) for row in self.rows.rows.values()]
