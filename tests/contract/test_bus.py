"""The contract of `Bus`, on the one in memory, the one in Redis and the one in a Redis Cluster."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sync.adapters.memory import MemoryBus
from sync.adapters.redis import Link, RedisBus
from sync.ports import Bus, Hint
from tests.cluster import warm
from tests.contract.fakes_observer import RecordingObserver


class Ear:
    """A callback that a test can wait on."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Hint] = asyncio.Queue()

    def __call__(self, hint: Hint) -> None:
        self._heard.put_nowait(hint)

    async def heard(self) -> Hint:
        async with asyncio.timeout(60):
            return await self._heard.get()

    @property
    def silent(self) -> bool:
        return self._heard.empty()


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "redis", "cluster"])
async def bus(request: pytest.FixtureRequest, redis_url: str, cluster_urls: list[str]) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus()
        return
    urls = [redis_url] if request.param == "redis" else cluster_urls
    link = Link(urls[0], cluster=urls[1:], observer=RecordingObserver())
    await warm(link)
    player = RedisBus(link)
    yield player
    await player.close()
    await link.close()


def failing(hint: Hint) -> None:
    raise ValueError


async def test_who_listens_hears_a_hint_once(bus: Bus) -> None:
    ear = Ear()
    await bus.subscribe("jobs", ear)
    await bus.publish("jobs", {"lane": 1, "account": "ann@ex.org"})
    await bus.publish("jobs", {"last": 1})
    assert await ear.heard() == {"lane": 1, "account": "ann@ex.org"}
    assert await ear.heard() == {"last": 1}


async def test_topics_are_apart(bus: Bus) -> None:
    jobs, calls = Ear(), Ear()
    await bus.subscribe("jobs", jobs)
    await bus.subscribe("calls", calls)
    await bus.publish("jobs", {"n": 1})
    await bus.publish("calls", {"n": 2})
    assert await jobs.heard() == {"n": 1}
    assert await calls.heard() == {"n": 2}
    assert jobs.silent
    assert calls.silent


async def test_several_listeners_of_a_topic_all_hear(bus: Bus) -> None:
    ears = [Ear(), Ear()]
    for ear in ears:
        await bus.subscribe("jobs", ear)
    await bus.publish("jobs", {"n": 1})
    assert [await ear.heard() for ear in ears] == [{"n": 1}, {"n": 1}]


async def test_publishing_to_nobody_is_no_error(bus: Bus) -> None:
    await bus.publish("jobs", {"n": 1})


async def test_a_listener_that_fails_does_not_deafen_the_others(bus: Bus) -> None:
    ear, failures = Ear(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    await bus.subscribe("jobs", failing)
    await bus.subscribe("jobs", ear)
    await bus.publish("jobs", {"n": 1})
    await bus.publish("jobs", {"n": 2})
    assert [await ear.heard(), await ear.heard()] == [{"n": 1}, {"n": 2}]
    asyncio.get_running_loop().set_exception_handler(None)
    assert len(failures) == 2
