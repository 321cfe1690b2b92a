"""A bare XEP-0114 component that speaks the feed (docs/feed.md) and checks its arithmetic as it goes.

Every batch is checked on arrival: consecutive n, `last`, `head`. Nothing is acked unless the test says so.
"""

import asyncio
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.system.xmpp_client import XmlStream, XmppClient

FEED = "{urn:convsync:feed:0}"
NS = "urn:convsync:feed:0"


@dataclass(frozen=True, slots=True)
class Event:
    stream: str
    n: int
    element: ET.Element

    @property
    def kind(self) -> str:
        return self.element.get("kind", "")

    @property
    def stanza(self) -> ET.Element:
        message = self.element.find("{jabber:client}message")
        assert message is not None
        return message

    @property
    def body(self) -> str | None:
        return self.stanza.findtext("{jabber:client}body") if self.kind in ("message", "room-message") else None

    @property
    def what(self) -> tuple[str, str, str]:
        """For comparisons: account, direction, body; or account, resource, state."""
        get = self.element.get
        account = get("account", "").partition("@")[0]
        if self.kind == "message":
            return account, get("direction", ""), self.body or self.stanza[0].tag.rpartition("}")[2]
        return account, get("resource", ""), get("state", "")


class FeedComponent(XmlStream):
    """One connection of the component."""

    def __init__(self, jid: str, host: str) -> None:
        super().__init__()
        self.component, self.host = jid, host
        self.events: list[Event] = []
        self.batches: list[ET.Element] = []
        self.hello: ET.Element
        self._changed = asyncio.Event()

    @classmethod
    async def connect(cls, jid: str, secret: str, port: int, *, host: str) -> Self:
        self = cls(jid, host)
        await self.open(
            "127.0.0.1",
            port,
            f"<stream:stream to='{jid}' xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>",
        )
        await self._opened.wait()
        digest = hashlib.sha1(f"{self.stream_id}{secret}".encode()).hexdigest()  # noqa: S324 - XEP-0114
        done = asyncio.ensure_future(self.wait_for(lambda e: e.tag.endswith("}handshake")))
        await asyncio.sleep(0)
        self.send(f"<handshake>{digest}</handshake>")
        await done
        return self

    def _sender(self) -> str:
        return f" from='{self.component}'"

    async def subscribe(self, told: dict[str, int] | None = None) -> ET.Element:
        """Subscribes with what the component claims to have committed; returns the hello."""
        streams = "".join(f"<stream id='{stream}' n='{n}'/>" for stream, n in (told or {}).items())
        answer = await self.ask("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'>{streams}</subscribe>")
        self.hello = answer
        return answer

    async def ask(self, kind: str, payload: str) -> ET.Element:
        return (await self.iq(kind, payload, to=self.host))[0]

    @property
    def current(self) -> str:
        """The id of the current stream, as hello named it."""
        return next(s.get("id", "") for s in self.hello.iter(FEED + "stream") if s.get("current") == "true")

    def streams(self) -> list[tuple[str, int, int, int]]:
        """(id, low, high, acked) as hello listed them."""
        return [
            (s.get("id", ""), int(s.get("low", "")), int(s.get("high", "")), int(s.get("acked", "")))
            for s in self.hello.iter(FEED + "stream")
        ]

    def ack(self, stream: str, n: int | str) -> None:
        self.send(
            f"<message from='{self.component}' to='{self.host}'><ack xmlns='{NS}' stream='{stream}' n='{n}'/></message>"
        )

    def ack_all(self) -> dict[str, int]:
        """Acks everything that came and returns the positions."""
        told = {event.stream: event.n for event in self.events}
        for stream, n in told.items():
            self.ack(stream, n)
        return told

    async def deliver(self, account: str, stanza: str, resource: str | None = None) -> int:
        where = "" if resource is None else f" resource='{resource}'"
        answer = await self.ask("set", f"<deliver xmlns='{NS}' account='{account}'{where}>{stanza}</deliver>")
        return int(answer.get("sessions", ""))

    async def event(self, fits: Callable[[Event], bool]) -> Event:
        """The first event, past or future, that fits."""
        await self.until(lambda: any(fits(e) for e in self.events))
        return next(filter(fits, self.events))

    async def message(self, body: str, direction: str = "in") -> Event:
        return await self.event(lambda e: e.body == body and e.element.get("direction") == direction)

    async def until(self, done: Callable[[], bool]) -> None:
        """Returns when `done` holds; asked after every batch."""
        async with asyncio.timeout(60):
            while not done():
                if self.closed:
                    raise ConnectionError("the component's stream has ended")
                self._changed.clear()
                await self._changed.wait()

    async def caught_up(self) -> None:
        """Everything that the module had to send when this was called has come: answers keep the order."""
        await self.ask("get", f"<sessions xmlns='{NS}'/>")

    def on_element(self, element: ET.Element) -> None:
        feed = element.find(FEED + "feed")
        if feed is None:
            return
        stream, events = (
            feed.get("stream", ""),
            [Event(feed.get("stream", ""), int(e.get("n", "")), e) for e in feed.iter(FEED + "event")],
        )
        last, head = int(feed.get("last", "")), int(feed.get("head", ""))
        assert events[-1].n == last <= head
        assert [e.n for e in events] == list(range(events[0].n, last + 1))
        mine = [e.n for e in self.events if e.stream == stream]
        assert not mine or events[0].n == mine[-1] + 1, "a hole in the feed"
        assert len(events) <= 50
        self.batches.append(feed)
        self.events.extend(events)
        self._changed.set()


def states(event: Event) -> dict[str, str]:
    """The sessions that a message event lists."""
    return {s.get("r", ""): s.get("state", "") for s in event.element.iterfind(f"{FEED}sessions/{FEED}s")}


def of(feed: FeedComponent, *accounts: str) -> list[tuple[str, str, str]]:
    """The message events of these accounts."""
    return [e.what for e in feed.events if e.element.get("account") in accounts and e.kind == "message"]


async def settled(feed: FeedComponent, *clients: XmppClient) -> None:
    """What the clients have sent is processed, and its events are here."""
    for client in clients:
        await client.ping()
    await feed.caught_up()
