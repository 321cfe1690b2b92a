"""Redis in bad weather: gone, slow, emptied, restored, written to by others. Slower, never wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
import pytest_asyncio
import redis.asyncio

from sync.adapters.redis import Link, RedisBus, RedisPresence
from sync.model.event import Session, SessionChange, SessionState
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.test_bus import Ear
from tests.contract.test_presence import ANN, BEN, HOST, PHONE, WEB, event
from tests.weather import Relay, relayed

MARKER = "convsync:1:vouched:{ex.org}"
SESSIONS = "convsync:1:sessions:{ann@ex.org}"


class Process:
    """One process's link and presence, and a clock that the test turns."""

    def __init__(self, url: str) -> None:
        self.observer, self.seconds = RecordingObserver(), 0.0
        self.link = Link(url, observer=self.observer, monotonic=lambda: self.seconds)
        self.presence = RedisPresence(self.link, observer=self.observer)

    def unknown(self) -> list[object]:
        return [told["why"] for told in self.observer.told("presence_unknown")]


@asynccontextmanager
async def process(url: str) -> AsyncIterator[Process]:
    one = Process(url)
    yield one
    await one.link.close()


@pytest_asyncio.fixture(loop_scope="session")
async def raw(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def weather(redis_url: str) -> AsyncIterator[tuple[Process, Relay]]:
    async with relayed(redis_url) as (url, relay), process(url) as one:
        yield one, relay


async def test_processes_share_what_the_writer_knows(redis_url: str) -> None:
    async with process(redis_url) as writer, process(redis_url) as reader:
        await writer.presence.reset(HOST, {ANN: [PHONE]})
        await writer.presence.apply([event(SessionChange.INACTIVE, "web")])
        assert await reader.presence.sessions(ANN) == (PHONE, WEB)
        assert await reader.presence.sessions(BEN) == ()


async def test_an_emptied_redis_knows_nothing_until_the_host_is_asked(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as writer:
        await writer.presence.reset(HOST, {ANN: [PHONE]})
        await raw.flushall()
        assert await writer.presence.sessions(BEN) is None
        await writer.presence.apply([event(SessionChange.AVAILABLE)])
        assert await writer.presence.sessions(ANN) is None
        assert not await writer.presence.complete(HOST)
        await writer.presence.reset(HOST, {BEN: [PHONE]})
        assert await writer.presence.sessions(ANN) == ()


async def test_a_restored_copy_is_noticed_by_the_next_write(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as writer, process(redis_url) as reader:
        await writer.presence.reset(HOST, {ANN: [PHONE]})
        copies = [(key, await raw.dump(key) or b"") for key in (MARKER, SESSIONS)]
        await writer.presence.apply([event(SessionChange.UNBOUND)])
        for key, copy in copies:
            await raw.restore(key, 10_000, copy, replace=True)
        assert not await writer.presence.complete(HOST)
        assert await writer.presence.sessions(ANN) is None
        assert await reader.presence.sessions(ANN) is None


async def test_an_older_generation_is_not_believed_by_the_writer(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as writer:
        await writer.presence.reset(HOST, {ANN: [PHONE]})
        await raw.set(MARKER, "0123456789abcdef:7")
        assert await writer.presence.sessions(ANN) is None


async def test_the_marker_expires_with_its_writer(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as writer:
        await writer.presence.reset(HOST, {})
        assert 0 < await raw.pttl(MARKER) <= 15_000
        await raw.pexpire(MARKER, 5_000)
        assert await writer.presence.complete(HOST)
        assert await raw.pttl(MARKER) > 10_000


async def test_a_lost_write_makes_the_host_unknown_until_a_reset(weather: tuple[Process, Relay]) -> None:
    one, relay = weather
    await one.presence.reset(HOST, {ANN: [PHONE]})
    await relay.cut()
    await one.presence.apply([event(SessionChange.UNBOUND)])
    await relay.mend()
    one.seconds += 10
    assert await one.presence.sessions(ANN) is None
    assert not await one.presence.complete(HOST)
    await one.presence.reset(HOST, {})
    assert await one.presence.sessions(ANN) == ()


async def test_a_process_does_not_believe_what_it_left_torn_but_believes_its_successor(
    weather: tuple[Process, Relay], redis_url: str
) -> None:
    one, relay = weather
    await one.presence.reset(HOST, {ANN: [PHONE]})
    await relay.cut()
    await one.presence.apply([event(SessionChange.UNBOUND)])
    await relay.mend()
    one.seconds += 10
    async with process(redis_url) as successor:
        await successor.presence.reset(HOST, {ANN: [WEB]})
        assert await one.presence.sessions(ANN) == (WEB,)


async def test_a_reset_that_fails_half_way_vouches_for_nothing(weather: tuple[Process, Relay], redis_url: str) -> None:
    one, relay = weather
    await one.presence.reset(HOST, {ANN: [PHONE]})
    await relay.cut()
    await one.presence.reset(HOST, {})
    await relay.mend()
    one.seconds += 10
    assert await one.presence.sessions(ANN) is None
    assert not await one.presence.complete(HOST)
    async with process(redis_url) as reader:
        assert await reader.presence.sessions(ANN) is None


async def test_a_dead_redis_is_asked_once_and_then_left_alone(weather: tuple[Process, Relay]) -> None:
    one, relay = weather
    await relay.cut()
    for _ in range(1000):
        assert await one.presence.sessions(ANN) is None
    assert one.unknown() == ["no-answer"] * 1000
    assert [told["up"] for told in one.observer.told("dependency")] == [False]


async def test_a_silent_redis_costs_its_limit_once(
    weather: tuple[Process, Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, relay = weather
    relay.hold()
    asked, pipeline = 0, redis.asyncio.Redis.pipeline

    def counted(*told: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        return pipeline(*told, **more)

    monkeypatch.setattr(redis.asyncio.Redis, "pipeline", counted)
    monkeypatch.setattr("sync.adapters.redis.presence.READ_SECONDS", 0.1)
    for _ in range(100):
        assert await one.presence.sessions(ANN) is None
    assert one.unknown() == ["no-answer"] * 100
    assert asked == 1


async def test_it_is_tried_again_by_one_and_used_again_by_all(weather: tuple[Process, Relay]) -> None:
    one, relay = weather
    await relay.cut()
    await one.presence.sessions(ANN)
    one.seconds += 0.9
    await relay.mend()
    await one.presence.sessions(ANN)
    assert relay.accepted == 0
    one.seconds += 0.2
    await one.presence.reset(HOST, {ANN: [PHONE]})
    assert await one.presence.sessions(ANN) == (PHONE,)
    assert [told["up"] for told in one.observer.told("dependency")][:2] == [False, True]


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"\xc1", b"x" * 100),
        *map(msgpack.packb, ([1], [2, "active"], [1, "dancing"], [3, "active", None], [1, "active", None])),
        *map(msgpack.packb, ([2, "hibernated", "late"], [2, "hibernated", 2**63 - 1], [2, "active", None, 1])),
    ],
)
async def test_what_others_wrote_is_unknown_not_wrong(redis_url: str, raw: redis.asyncio.Redis, value: bytes) -> None:
    async with process(redis_url) as one:
        await one.presence.reset(HOST, {ANN: [PHONE]})
        await raw.hset(SESSIONS, "phone", value)
        assert await one.presence.sessions(ANN) is None
        assert one.unknown() == ["malformed"]


async def test_what_the_former_version_wrote_is_read(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as one:
        await one.presence.reset(HOST, {})
        await raw.hset(SESSIONS, "phone", msgpack.packb([1, "active"]))
        assert await one.presence.sessions(ANN) == (PHONE,)


async def test_what_other_processes_read_is_as_documented(redis_url: str, raw: redis.asyncio.Redis) -> None:
    """docs/architecture.md: the keys are an interface."""
    async with process(redis_url) as one:
        asleep = Session("phone", SessionState.HIBERNATED, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
        await one.presence.reset(HOST, {ANN: [asleep, WEB]})
        assert await raw.exists(MARKER) == 1
        assert await raw.smembers("convsync:1:online:{ex.org}") == {b"ann@ex.org"}
        found = {name: msgpack.unpackb(value) for name, value in (await raw.hgetall(SESSIONS)).items()}
        assert found == {b"phone": [2, "hibernated", 1767323045000006], b"web": [2, "inactive", None]}


async def test_a_key_of_another_type_is_a_failure_like_any_other(redis_url: str, raw: redis.asyncio.Redis) -> None:
    async with process(redis_url) as one:
        await one.presence.reset(HOST, {})
        await raw.set(SESSIONS, "text")
        assert await one.presence.sessions(ANN) is None


# ---- the bus ---------------------------------------------------------------------------------------------------------


async def test_hints_reach_other_processes_and_oneself_once(redis_url: str) -> None:
    async with process(redis_url) as one, process(redis_url) as other:
        here, there, mine, theirs = RedisBus(one.link), RedisBus(other.link), Ear(), Ear()
        await here.subscribe("jobs", mine)
        await there.subscribe("jobs", theirs)
        await here.publish("jobs", {"n": 1})
        assert await theirs.heard() == {"n": 1}
        await there.publish("jobs", {"n": 2})
        assert await theirs.heard() == {"n": 2}
        assert [await mine.heard(), await mine.heard()] == [{"n": 1}, {"n": 2}]
        assert mine.silent
        await here.close()
        await there.close()


async def test_a_listener_comes_back_and_is_told_that_it_missed_something(
    weather: tuple[Process, Relay], redis_url: str
) -> None:
    one, relay = weather
    bus, ear = RedisBus(one.link), Ear()
    await bus.subscribe("jobs", ear)
    await relay.cut()
    await relay.mend()
    assert await ear.heard() == {}
    async with process(redis_url) as other:
        sender = RedisBus(other.link)
        await sender.publish("jobs", {"n": 1})
        assert await ear.heard() == {"n": 1}
    await bus.close()


async def test_without_redis_a_process_still_hears_itself(
    weather: tuple[Process, Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.adapters.redis.bus._STAND_SECONDS", 0.1)
    one, relay = weather
    await relay.cut()
    bus, ear = RedisBus(one.link), Ear()
    await bus.subscribe("jobs", ear)
    await bus.publish("jobs", {"n": 1})
    assert await ear.heard() == {"n": 1}
    await relay.mend()
    assert await ear.heard() == {}
    await bus.close()


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"[]", msgpack.packb([2, "x", {}]), msgpack.packb([1, "x", {"a": [1]}]), b"\x00" * 5000]
)
async def test_noise_on_a_channel_is_passed_over(redis_url: str, raw: redis.asyncio.Redis, value: bytes) -> None:
    async with process(redis_url) as one:
        bus, ear = RedisBus(one.link), Ear()
        await bus.subscribe("jobs", ear)
        await raw.publish("convsync:1:bus:jobs", value)
        await raw.publish("convsync:1:bus:jobs", msgpack.packb([1, "another", {"n": 1}]))
        assert await ear.heard() == {"n": 1}
        await bus.close()
