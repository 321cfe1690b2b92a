"""Both ends of a host's feed, for its tests: a module that says what it is told to, and the feed that hears it."""

import asyncio
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.errors import Behind
from sync.model.event import Event, FeedPosition
from sync.ports import StreamMark
from sync.protocol.names import FEED
from sync.protocol.serialise import parse
from sync.service.feed import HostFeed
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN
from tests.contract.stores import Bench

HOST, COMPONENT = "example.org", "sync.example.org"


class Lines:
    """Plays `Wire`: answers a subscription with the given streams, keeps what is sent."""

    def __init__(self, streams: str) -> None:
        self.hello = (
            f"<hello xmlns='{FEED}' version='1' host='{HOST}' shard='0'>{streams}"
            f"<session jid='{ANN}/phone' state='active'/></hello>"
        )
        self.asked: list[Element] = []
        self.sent: list[Element] = []
        self.acked = asyncio.Event()
        self.asked_again = asyncio.Event()

    async def request(self, iq: Element) -> Element:
        self.asked.append(iq[0])
        if len(self.asked) > 1:
            self.asked_again.set()
        answer = Element("iq")
        answer.append(parse(self.hello))
        return answer

    def send(self, stanza: Element) -> None:
        self.sent.append(stanza[0])
        self.acked.set()

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def room(self) -> None: ...


class Watching(RecordingObserver):
    """Says when the subscription stands."""

    def __init__(self) -> None:
        super().__init__()
        self.up = asyncio.Event()

    def connection(self, host: str, up: bool) -> None:
        if up:
            self.up.set()


class Still(SetClock):
    """Time stands still, so that only what the test does happens; what is only put off for a moment happens at once."""

    async def sleep(self, seconds: float) -> None:
        if seconds >= 1:
            await asyncio.Event().wait()


class Bin:
    """Plays `Ingest` as far as the feed needs it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, events: Any) -> None:
        self.events += events


class Joined:
    """A feed with what is around it."""

    def __init__(self, feed: HostFeed, lines: Lines, bench: Bench, observer: RecordingObserver) -> None:
        self.feed, self.lines, self.bench, self.observer, self.bin = feed, lines, bench, observer, Bin()

    def take(self, stream: str, first: int, last: int, *, more: str = "", kind: str = "", at: int = 1) -> None:
        gap = f"kind='gap' account='{HOST}' reason='{kind}'"
        what = gap if kind else f"kind='account' account='{ANN}' state='created'"
        events = "".join(f"<event n='{n}' at='{at}' {what}/>" for n in range(first, last + 1))
        frame = parse(
            f"<feed xmlns='{FEED}' stream='{stream}' shard='0' last='{last}' head='{last}' {more}>{events}</feed>"
        )
        self.feed.take(frame, self.bin)  # type: ignore[arg-type]  # a stand-in

    def commit(self, stream: str, *numbers: int) -> None:
        self.feed.committed([FeedPosition(HOST, stream, "0", n) for n in numbers])

    async def marks(self) -> dict[str, tuple[int, int]]:
        return {mark.stream: (mark.committed, mark.seen) for mark in await self.bench.marks.marks(HOST)}

    async def behind(self) -> None:
        """Whoever asks now waits in vain."""
        patience, self.feed._freshness = self.feed._freshness, 0.01
        with pytest.raises(Behind):
            await self.feed.fresh()
        self.feed._freshness = patience

    async def good(self) -> int:
        return max(mark.good for mark in await self.bench.marks.marks(HOST))

    async def epoch(self) -> int:
        account = await self.bench.store.account(ANN)
        return account.epoch if account else 0


def stream(name: str, low: int, high: int, acked: int) -> str:
    return f"<stream id='{name}' low='{low}' high='{high}' acked='{acked}'/>"


def known(name: str, committed: int, seen: int, good: int = 0) -> StreamMark:
    return StreamMark(stream=name, shard="0", committed=committed, seen=seen, good=good)
