"""The feed of a host (docs/feed.md §2, §6): what is claimed, what is noticed when a side lost memory, what is fresh."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sync.adapters.memory import MemoryPresence
from sync.ports import StreamMark
from sync.protocol.names import FEED, clark
from sync.rules.times import microseconds
from sync.service.feed import BREATH_SECONDS, HostFeed
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, NOW
from tests.contract.stores import in_memory
from tests.service.feed_ends import COMPONENT, HOST, Joined, Lines, Still, Watching, known, stream


class Breathless(Still):
    """Nobody comes to breath before the test says so."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await (self.go.wait() if seconds == BREATH_SECONDS else super().sleep(seconds))


@asynccontextmanager
async def joined(streams: str, *known: StreamMark, clock: SetClock | None = None) -> AsyncIterator[Joined]:
    bench, lines, observer = in_memory(), Lines(streams), Watching()
    await bench.put(ANN)
    await bench.marks.mark(HOST, known)
    feed = HostFeed(
        HOST,
        component=COMPONENT,
        wire=lines,
        marks=bench.marks,
        presence=MemoryPresence(),
        clock=clock or Still(NOW),
        observer=observer,
        freshness_seconds=60,
    )
    running = asyncio.ensure_future(feed.run())
    feed.connected()
    await observer.up.wait()
    try:
        yield Joined(feed, lines, bench, observer)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_subscription_claims_what_is_committed() -> None:
    async with joined(stream("a", 6, 9, 5), known("a", 5, 9)) as it:
        (claim,) = it.lines.asked[0].findall(clark(FEED, "stream"))
        assert (claim.get("id"), claim.get("n")) == ("a", "5")
        assert await it.epoch() == 1


async def test_acks_are_persisted_first_and_have_no_gap() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.take("a", 1, 3)
        it.commit("a", 1, 3)
        await it.lines.acked.wait()
        assert [(ack.get("stream"), ack.get("n")) for ack in it.lines.sent] == [("a", "1")]
        assert await it.marks() == {"a": (1, 3)}


async def test_no_time_is_good_while_a_loss_is_not_committed() -> None:
    """What follows a gap in another stream must not be where the archives are read from."""
    async with joined(stream("a", 1, 0, 0) + stream("b", 1, 0, 0)) as it:
        it.take("a", 1, 1, kind="torn", at=5)
        it.take("b", 1, 1, at=9)
        it.commit("b", 1)
        await it.lines.acked.wait()
        assert (await it.marks())["b"] == (1, 1)
        assert await it.good() == 0
        it.lines.acked.clear()
        it.commit("a", 1)
        await it.lines.acked.wait()
        assert await it.good() == 5


async def test_no_time_is_good_that_has_not_come_yet() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.take("a", 1, 1, at=microseconds(NOW) + 86_400_000_000)
        it.commit("a", 1)
        await it.lines.acked.wait()
        assert await it.good() == microseconds(NOW)


async def test_what_came_before_is_not_taken_twice() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.take("a", 1, 3)
        it.take("a", 2, 4)
        assert [event.position.n for event in it.bin.events] == [1, 2, 3, 4]


async def test_skipped_events_are_asked_for_again() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.take("a", 2, 3)
        assert it.bin.events == []
        await it.lines.asked_again.wait()


async def test_a_module_that_is_never_understood_is_not_asked_at_every_turn() -> None:
    clock = Breathless()
    async with joined(stream("a", 1, 0, 0), clock=clock) as it:
        it.feed.resubscribe()
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(it.lines.asked) == 1
        clock.go.set()
        await it.lines.asked_again.wait()


async def test_a_restored_database_starts_over_behind_the_last_ack() -> None:
    regressed = "<regressed stream='a'/>"
    async with joined(stream("a", 101, 120, 100) + regressed, known("a", 50, 60)) as it:
        assert await it.epoch() == 2
        it.take("a", 101, 120)
        assert len(it.bin.events) == 20
        assert await it.marks() == {"a": (100, 120)}


async def test_a_torn_outbox_starts_over() -> None:
    async with joined(stream("a", 1, 30, 30) + stream("b", 1, 0, 0), known("a", 50, 60)) as it:
        assert await it.epoch() == 2
        assert it.observer.told("epoch_raised")
        assert set(await it.marks()) == {"b"}


@pytest.mark.parametrize(("seen", "epoch"), [(50, 1), (51, 2)])
async def test_a_stream_that_vanished_is_a_loss_if_something_of_it_was_left(seen: int, epoch: int) -> None:
    older, newer = known("a", 50, seen, good=1), known("b", 2, 2, good=2)
    async with joined(stream("b", 3, 2, 2), older, newer) as it:
        assert await it.epoch() == epoch
        assert set(await it.marks()) == {"b"}


async def test_the_newest_stream_with_an_ack_does_not_vanish_from_an_outbox_that_is_the_same() -> None:
    older, newer = known("a", 50, 50, good=1), known("b", 2, 2, good=2)
    async with joined(stream("a", 51, 50, 50) + stream("c", 1, 0, 0), older, newer) as it:
        assert await it.epoch() == 2
    async with joined(stream("c", 1, 0, 0), older) as it:
        assert await it.epoch() == 2


async def test_a_newer_stream_may_have_an_ack_before_its_time_is_known() -> None:
    async with joined(stream("b", 3, 9, 2), known("a", 50, 50, good=1), known("b", 2, 9)) as it:
        assert await it.epoch() == 1


async def test_a_stream_of_which_nothing_ever_came_may_vanish() -> None:
    async with joined(stream("b", 1, 0, 0), known("a", 0, 0)) as it:
        assert await it.epoch() == 1


async def test_a_full_outbox_gives_the_other_streams_up() -> None:
    async with joined(stream("a", 1, 9, 0)) as it:
        it.take("b", 1, 1, kind="full")
        await it.feed.fresh()
        it.commit("a", 1)
        it.commit("b", 1)
        await it.lines.acked.wait()
        assert [ack.get("stream") for ack in it.lines.sent] == ["b"]


@pytest.mark.parametrize("more", ["", "behind='7'"])
async def test_an_answer_waits_for_what_is_behind(more: str) -> None:
    async with joined(stream("a", 1, 3, 0)) as it:
        it.take("a", 1, 3 if more else 2, more=more)
        await it.behind()
        it.take("a", 4 if more else 3, 4, more="behind='0'")
        await it.feed.fresh()


async def test_nothing_is_fresh_without_a_connection() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        await it.feed.fresh()
        it.feed.disconnected()
        await it.behind()


async def test_what_a_power_cut_took_starts_over_once_and_is_not_waited_for() -> None:
    async with joined(stream("a", 91, 94, 90), known("a", 90, 100)) as it:
        assert await it.epoch() == 2
        it.take("a", 91, 94, more="behind='0'")
        await it.feed.fresh()
        assert await it.marks() == {"a": (90, 94)}


async def test_a_stream_that_was_given_up_is_not_waited_for() -> None:
    async with joined(stream("a", 1, 9, 0)) as it:
        it.take("a", 1, 3, more="behind='7'")
        it.take("b", 1, 1, kind="unreadable", more="behind='0'")
        await it.feed.fresh()


async def test_nothing_is_fresh_until_the_module_has_sent_again() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.feed.resubscribe()
        await it.feed.fresh()
        assert len(it.lines.asked) == 2


async def test_who_does_not_answer_a_subscription_any_more_is_not_subscribed() -> None:
    async with joined(stream("a", 1, 0, 0)) as it:
        it.lines.hello = f"<error xmlns='{FEED}'/>"
        it.feed.resubscribe()
        await it.lines.asked_again.wait()
        for _ in range(9):
            await asyncio.sleep(0)
        assert not it.feed.subscribed


async def test_since_when_it_is_missing_something_is_known_while_there_is_a_connection() -> None:
    async with joined(stream("a", 1, 1, 0)) as it:
        assert not it.feed.caught_up.is_set()
        asked = it.feed.missing_since
        it.take("a", 1, 1)
        assert it.feed.caught_up.is_set()
        it.feed.disconnected()
        assert not it.feed.caught_up.is_set()
        assert it.feed.missing_since == math.inf
        it.feed.connected()
        assert asked <= it.feed.missing_since < math.inf
