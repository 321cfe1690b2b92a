"""Batches that come with the hello, before it has been compared with what is remembered (docs/feed.md §2)."""

import asyncio
from typing import Any
from xml.etree.ElementTree import Element

from sync.adapters.memory import MemoryPresence
from sync.model.event import FeedPosition, SessionChange, SessionEvent
from sync.service.feed import HostFeed
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, NOW
from tests.contract.stores import in_memory
from tests.service.feed_ends import COMPONENT, HOST, Joined, Lines, Still, known, stream


class Backlog(Lines):
    """The first hello is followed at once by events."""

    it: Joined
    at = 1

    def __init__(self, streams: str, first: int, last: int) -> None:
        super().__init__(streams)
        self._first, self._last = first, last

    async def request(self, iq: Element) -> Element:
        answer = await super().request(iq)
        if len(self.asked) == 1:
            self.it.take("a", self._first, self._last, at=self.at)
        return answer


async def subscribed(lines: Any, committed: int) -> tuple[Joined, asyncio.Future[None]]:
    bench, observer = in_memory(), RecordingObserver()
    await bench.marks.mark(HOST, [known("a", committed, committed)])
    feed = HostFeed(
        HOST,
        component=COMPONENT,
        wire=lines,
        marks=bench.marks,
        presence=MemoryPresence(),
        clock=Still(NOW),
        observer=observer,
        freshness_seconds=60,
    )
    lines.it = Joined(feed, lines, bench, observer)
    running = asyncio.ensure_future(feed.run())
    feed.connected()
    await asyncio.wait_for(feed_is_up(feed, running), 60)
    return lines.it, running


async def test_what_came_with_the_hello_counts() -> None:
    it, running = await subscribed(Backlog(stream("a", 6, 9, 5), 6, 9), committed=5)
    await it.feed.fresh()
    it.take("a", 10, 10)
    assert [event.position.n for event in it.bin.events] == [6, 7, 8, 9, 10]
    assert len(it.lines.asked) == 1
    running.cancel()


class Reloaded(Lines):
    """The module answers, is loaded anew and calls, all in one packet."""

    it: Joined

    async def request(self, iq: Element) -> Element:
        answer = await super().request(iq)
        if len(self.asked) == 1:
            self.it.feed.resubscribe()
        return answer


async def test_a_module_that_begins_anew_right_behind_its_hello_is_asked_again() -> None:
    """Nothing would come until somebody does."""
    lines = Reloaded(stream("a", 1, 0, 0))
    it, running = await subscribed(lines, committed=0)
    await asyncio.wait_for(lines.asked_again.wait(), 60)
    await it.feed.fresh()
    assert len(lines.asked) == 2
    running.cancel()


async def test_what_followed_an_ack_that_we_do_not_know_of_is_asked_for_again() -> None:
    lines = Backlog(stream("a", 101, 120, 100) + "<regressed stream='a'/>", 101, 120)
    it, running = await subscribed(lines, committed=50)
    lines.hello = lines.hello.replace("<regressed stream='a'/>", "")
    async with asyncio.timeout(60):
        while len(lines.asked) < 2:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
    it.take("a", 101, 120)
    assert [event.position.n for event in it.bin.events] == list(range(101, 121))
    running.cancel()


async def test_what_comes_with_the_hello_is_no_good_time_for_what_was_lost_before() -> None:
    """All accounts start over, which may take longer than the first ack of a new stream."""
    bench, observer, lines = in_memory(), RecordingObserver(), Backlog(stream("a", 1, 9, 0), 1, 9)
    await bench.marks.mark(HOST, [known("lost", 50, 51, good=1)])
    raise_epochs, good = bench.marks.raise_epochs, []

    async def slowly(*what: Any, **more: Any) -> int:
        lines.it.commit("a", *range(1, 10))
        await lines.acked.wait()
        good.append(await lines.it.good())
        return await raise_epochs(*what, **more)

    bench.marks.raise_epochs = slowly  # type: ignore[method-assign]
    feed = HostFeed(
        HOST,
        component=COMPONENT,
        wire=lines,
        marks=bench.marks,
        presence=MemoryPresence(),
        clock=Still(NOW),
        observer=observer,
        freshness_seconds=60,
    )
    lines.it, lines.at = Joined(feed, lines, bench, observer), 7
    running = asyncio.ensure_future(feed.run())
    feed.connected()
    await asyncio.wait_for(feed_is_up(feed, running), 60)
    assert good == [1]
    running.cancel()


async def test_who_goes_while_the_hello_is_compared_stays_gone() -> None:
    """All accounts start over, which takes a while; events are taken meanwhile."""
    bench, lines, presence = in_memory(), Lines(stream("a", 1, 0, 0)), MemoryPresence()
    await bench.marks.mark(HOST, [known("lost", 50, 51, good=1)])
    raise_epochs = bench.marks.raise_epochs
    gone = SessionEvent(
        position=FeedPosition(HOST, "a", "0", 1), account=ANN, at=NOW, resource="phone", change=SessionChange.UNBOUND
    )

    async def slowly(*what: Any, **more: Any) -> int:
        await presence.apply([gone])
        return await raise_epochs(*what, **more)

    bench.marks.raise_epochs = slowly  # type: ignore[method-assign]
    feed = HostFeed(
        HOST,
        component=COMPONENT,
        wire=lines,
        marks=bench.marks,
        presence=presence,
        clock=Still(NOW),
        observer=RecordingObserver(),
        freshness_seconds=60,
    )
    running = asyncio.ensure_future(feed.run())
    feed.connected()
    await asyncio.wait_for(feed_is_up(feed, running), 60)
    assert await presence.sessions(ANN) == ()
    running.cancel()


async def feed_is_up(feed: HostFeed, running: asyncio.Future[None]) -> None:
    while not feed.subscribed and not running.done():  # noqa: ASYNC110 - no event is told
        await asyncio.sleep(0)
    assert feed.subscribed, running
