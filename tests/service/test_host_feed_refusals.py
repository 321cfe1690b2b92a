"""What the feed of a host does where the module refuses, answers nonsense, or is not there yet."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree.ElementTree import Element

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.errors import Refused
from sync.protocol.names import FEED
from sync.protocol.serialise import parse
from sync.service.feed import HostFeed
from tests.contract.samples import NOW
from tests.contract.stores import in_memory
from tests.service.feed_ends import COMPONENT, HOST, Joined, Lines, Still, Watching, stream


class Refusing(Lines):
    """Plays a host that does not let us subscribe, until it is told to."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(stream("a", 1, 0, 0))
        self.refusal: Refused | None = refusal

    async def request(self, iq: Element) -> Element:
        answer = await super().request(iq)
        if self.refusal is not None:
            raise self.refusal
        return answer


def refused(condition: str, more: str = "") -> Refused:
    return Refused(condition, parse(f"<iq type='error'><error type='cancel'>{more}</error></iq>"))


def speaking(versions: str) -> Refused:
    return refused("not-acceptable", f"<unsupported-version xmlns='{FEED}' versions='{versions}'/>")


@asynccontextmanager
async def refusing(lines: Refusing) -> AsyncIterator[Joined]:
    bench, observer = in_memory(), Watching()
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
    running = asyncio.ensure_future(feed.run())
    feed.connected()
    try:
        yield Joined(feed, lines, bench, observer)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (speaking("2 3"), "the module speaks version 2 3 of the feed, this program version 1: update Convsync"),
        (speaking("0"), "the module speaks version 0 of the feed, this program version 1: update the module"),
        (speaking(""), "the module speaks version none of the feed, this program version 1: update the module"),
        (refused("service-unavailable"), "no answer of the feed module: is it loaded on this host?"),
        (Refused("no-answer"), "no answer of the feed module: is it loaded on this host?"),
        (refused("forbidden"), "the feed module does not let this component in"),
        (refused("remote-server-not-found"), "the server does not know this host"),
        (refused("not-acceptable"), "not-acceptable"),
    ],
)
async def test_why_a_host_does_not_let_us_subscribe_is_said_once(
    refusal: Refused, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Refusing(refusal)
    with caplog.at_level(logging.WARNING):
        async with refusing(lines) as it:
            for _ in range(3):
                await turns()
                it.feed.resubscribe()
            await turns()
            assert it.feed.why.startswith(words)
            assert not it.feed.subscribed
            assert len(lines.asked) >= 3
    assert [record.__dict__["reason"] for record in caplog.records] == [it.feed.why]


@pytest.mark.parametrize(
    ("part", "instead", "words"),
    [
        (
            "version='1'",
            "version='2'",
            "the module's hello cannot be read: 'version' is not the one that was asked for.",
        ),
        ("<stream ", "<river ", "the module's hello cannot be read: There must be a current stream."),
        ("hello", "hallo", "the module's hello cannot be read: 'hello' is missing."),
        ("shard='0'", "shard='0' rooms='true'", "this is a host of rooms: it belongs in muc_hosts"),
    ],
)
async def test_nonsense_in_place_of_a_hello_is_no_subscription(part: str, instead: str, words: str) -> None:
    lines = Refusing(refused("wait"))
    lines.refusal, lines.hello = None, lines.hello.replace(part, instead)
    async with refusing(lines) as it:
        await turns()
        assert (it.feed.why, it.feed.subscribed) == (words, False)


async def test_a_module_that_begins_is_heard_while_we_wait() -> None:
    """It calls; what was refused before is asked again at once, though time stands still here."""
    lines = Refusing(refused("service-unavailable"))
    async with refusing(lines) as it:
        await turns()
        lines.refusal = None
        it.feed.resubscribe()
        await turns()
        assert (it.feed.subscribed, it.feed.why, len(lines.asked)) == (True, "", 2)


async def test_a_new_connection_is_a_new_chance() -> None:
    lines = Refusing(refused("forbidden"))
    async with refusing(lines) as it:
        await turns()
        it.feed.disconnected()
        assert it.feed.why == "not subscribed yet"
        lines.refusal = None
        it.feed.connected()
        await turns()
        assert it.feed.subscribed
