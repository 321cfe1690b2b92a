"""A module's archives, for tests of what reads them: plays `Wire`, stands in for the feed and for what commits it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from xml.etree.ElementTree import Element

from sync.model.errors import Behind, Refused
from sync.ports import Bootstraps, Store
from sync.protocol.hello import Hello, PresentSession
from sync.protocol.names import FEED
from sync.protocol.serialise import parse
from sync.rules.fold import Policies
from sync.rules.times import microseconds
from sync.service.archives import Pace
from sync.service.bootstrap import Bootstrapper
from sync.service.feed import HostFeed
from sync.service.ingest import Ingest
from sync.service.live import Live
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, BOB, NOW

HOST, ROOMS = "example.org", "rooms.example.org"
DAY = 86_400_000_000


class Passing(SetClock):
    """Time passes for whoever sleeps, and others have their turn."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)


@dataclass
class Server:
    """Archives by account: (id, µs, message); pages of `most`."""

    archives: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    storage: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    asked: list[Element] = field(default_factory=list)
    refuse: Callable[[Element], str | None] = lambda _: None
    answered: Callable[[Element], None] = lambda _: None
    most: int = 50

    def said(self, account: str, identifier: str, at: int, text: str = "hello", author: str = BOB) -> None:
        kind, sender = ("groupchat", author) if account.endswith(ROOMS) else ("chat", f"{author}/desk")
        xml = (
            f"<message xmlns='jabber:client' type='{kind}' from='{sender}' to='{account}' id='m-{identifier}'>"
            f"<body>{text}</body></message>"
        )
        self.archives.setdefault(account, []).append((identifier, at, xml))

    async def request(self, iq: Element) -> Element:
        await asyncio.sleep(0)
        asked = iq[0]
        self.asked.append(asked)
        if why := self.refuse(asked):
            raise Refused(why)
        answer = Element("iq")
        answer.append(parse(getattr(self, asked.tag.rpartition("}")[2])(asked)))
        self.answered(asked)
        return answer

    def accounts(self, asked: Element) -> str:
        behind = [name for name in sorted(self.names) if name > asked.get("after", "")]
        some = behind[: self.most]
        inner = "".join(f"<account jid='{name}'/>" for name in some)
        return f"<accounts xmlns='{FEED}'{last(len(some) == len(behind))}>{inner}</accounts>"

    def account(self, asked: Element) -> str:
        name = asked.get("account", "")
        return f"<account xmlns='{FEED}' jid='{name}'>{self.storage.get(name, '')}</account>"

    def archive(self, asked: Element) -> str:
        items = self.archives.get(asked.get("account", ""), [])
        if (after := asked.get("after")) is not None:
            ids = [identifier for identifier, _, _ in items]
            if after not in ids:
                raise Refused("item-not-found")
            items = items[ids.index(after) + 1 :]
        found = [item for item in items if int(asked.get("start", "0")) <= item[1] <= int(asked.get("end", "0"))]
        some = found[: min(self.most, int(asked.get("max", "50")))]
        inner = "".join(f"<item id='{identifier}' at='{at}'>{xml}</item>" for identifier, at, xml in some)
        return f"<archive xmlns='{FEED}'{last(len(some) == len(found))}>{inner}</archive>"

    def send(self, stanza: Element) -> None:
        raise AssertionError(stanza)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def room(self) -> None: ...


def last(yes: bool) -> str:
    return " last='true'" if yes else ""


@dataclass
class Feeding:
    """Stands in for a host's feed."""

    keeps_rooms: bool = False
    subscribed: bool = True
    said: Hello | None = None
    behind: int = 0  # how often it says so

    async def fresh(self) -> None:
        if self.behind:
            self.behind -= 1
            raise Behind

    def hello(self, *sessions: PresentSession) -> None:
        self.said = Hello(
            host=HOST,
            shard="0",
            server="",
            server_version="",
            module_version="",
            ordered_archive=False,
            streams=(),
            regressed=(),
            sessions=sessions,
        )


class Committing:
    """Stands in for the lanes: everything is committed."""

    async def barrier(self, account: str) -> None: ...


class Telling:
    """Stands in for live notices: (account, stamp, peer)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    async def notices(self, account: str, stanzas: Sequence[Element], *, kind: str, beside: str | None) -> None:
        assert (kind, beside) == ("synchronization", None)
        self.told += [(account, stanza[0].get("stamp", ""), stanza[0][0].get("jid", "")) for stanza in stanzas]


class House:
    """A bootstrapper with what is around it."""

    def __init__(self, *, policies: Policies | None = None, **pace: Any) -> None:
        self.policies = policies or Policies()
        self.clock, self.observer, self.server = Passing(NOW), RecordingObserver(), Server()
        self.store = MemoryStore(self.clock)
        self.feeds = {HOST: Feeding(), ROOMS: Feeding(keeps_rooms=True)}
        self.owed: set[str] = set()
        self.moved: list[str] = []
        self.live = Telling()
        self.leads = True
        self._pace = Pace(**pace)

    def owe(self, rooms: Collection[str]) -> None:
        self.owed |= set(rooms)

    async def until(self, there: Callable[[], object], *, turns: int = 20_000) -> None:
        """Read until it is there."""
        bootstrapper = Bootstrapper(
            component="sync.example.org",
            store=cast("Store", self.store),
            bootstraps=cast("Bootstraps", self.store),
            wire=self.server,
            feeds=cast("dict[str, HostFeed]", self.feeds),
            ingest=cast("Ingest", Committing()),
            live=cast("Live", self.live),
            clock=self.clock,
            observer=self.observer,
            policies=self.policies,
            pace=self._pace,
            leads=lambda: self.leads,
            owed=self.owe,
            moved=self.moved.append,
        )
        running: Awaitable[None] = asyncio.ensure_future(bootstrapper.run())
        try:
            for _ in range(turns):
                if there():
                    return
                await asyncio.sleep(0)
            raise AssertionError("not in time")
        finally:
            running.cancel()  # type: ignore[attr-defined]
            await asyncio.gather(running, return_exceptions=True)

    def row(self, name: str = ANN) -> Any:
        return self.store.tables.bootstraps.get(name)

    def done(self, name: str = ANN) -> bool:
        row = self.row(name)
        return row is not None and row.state == "done"

    def outcomes(self) -> list[object]:
        return [told["outcome"] for told in self.observer.told("archive_read")]

    def ago(self, days: float) -> int:
        return microseconds(NOW) - int(days * DAY)
