"""A real Redis Cluster of three masters: a host's keys are on one node, hosts are spread, and a node may go."""

from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from sync.adapters.redis import Link, RedisBus, RedisPresence
from sync.model.event import SessionChange
from tests.cluster import MASTERS, cluster
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.test_bus import Ear
from tests.contract.test_presence import PHONE, WEB, event
from tests.system.box import eventually

HOSTS = [f"host{n}.example.org" for n in range(12)]
SECONDS = 60.0


class Process:
    """One process's link and presence. What has to come within a moment there is tried again here, as the service does
    too: after a failure it leaves Redis alone for a while, so each time its clock is turned first.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._seconds = 0.0
        observer = RecordingObserver()
        self.link = Link(urls[0], cluster=urls[1:], observer=observer, monotonic=lambda: self._seconds)
        self.presence, self.bus = RedisPresence(self.link, observer=observer), RedisBus(self.link)

    async def tell(self, host: str) -> bool:
        """Ann of that host is there; did all of it come in?"""
        self._seconds += 10
        await self.presence.reset(host, {f"ann@{host}": [PHONE]})
        await self.presence.apply([event(SessionChange.INACTIVE, "web", f"ann@{host}")])
        return await self.presence.complete(host)

    async def known(self) -> set[str]:
        """The hosts of which it is known that Ann is there, which is what it should be, if it is anything."""
        found = set()
        for host in HOSTS:
            self._seconds += 10
            sessions = await self.presence.sessions(f"ann@{host}")
            assert sessions in (None, (PHONE, WEB))
            found |= {host} if sessions else set()
        return found

    async def hint(self) -> None:
        self._seconds += 10
        await self.bus.publish("jobs", {"lane": 1})


@asynccontextmanager
async def process(urls: Sequence[str]) -> AsyncIterator[Process]:
    one = Process(urls)
    yield one
    await one.bus.close()
    await one.link.close()


async def held(url: str) -> dict[str, set[str]]:
    """Host → the keys that a node holds of it, for the hosts of which it holds any."""
    client = Redis.from_url(url, decode_responses=True)
    found: dict[str, set[str]] = {}
    for key in await client.keys("*"):
        found.setdefault(key.split("{")[1].split("}")[0], set()).add(key)
    await client.aclose()
    return found


async def shared(writer: Process, reader: Process, lost: Set[str] = frozenset()) -> None:
    """Until what one of them tells of all hosts but these is what the other one knows."""

    async def look() -> bool:
        told = {host for host in HOSTS if await writer.tell(host)}
        known = await reader.known()
        assert told == known == set(HOSTS) - lost, (told, known)
        return True

    await eventually(look, SECONDS)


async def hears(ear: Ear, speaker: Process) -> None:
    """Until a hint comes through."""

    async def said() -> bool:
        await speaker.hint()
        while not ear.silent:
            if await ear.heard() == {"lane": 1}:
                return True
        return False

    await eventually(said, SECONDS)


async def test_hosts_are_spread_and_each_is_on_one_node(cluster_urls: list[str]) -> None:
    async with process(cluster_urls) as writer:

        async def look() -> bool:
            assert all([await writer.tell(host) for host in HOSTS])  # markers do not last for ever
            nodes = [await held(url) for url in cluster_urls]
            assert all(nodes)
            assert sorted(host for node in nodes for host in node) == sorted(HOSTS)
            for host, keys in (item for node in nodes for item in node.items()):
                assert keys == {
                    f"convsync:1:vouched:{{{host}}}",
                    f"convsync:1:online:{{{host}}}",
                    f"convsync:1:sessions:{{{host}}}:ann@{host}",
                }
            return True

        await eventually(look, SECONDS)


@pytest.mark.parametrize("first", range(MASTERS))
async def test_whichever_node_is_asked_first_all_hosts_are_found(cluster_urls: list[str], first: int) -> None:
    async with process(cluster_urls) as writer, process([*cluster_urls[first:], *cluster_urls[:first]]) as reader:
        await shared(writer, reader)


async def test_a_hint_reaches_who_listens_at_another_node(cluster_urls: list[str]) -> None:
    async with process(cluster_urls) as one, process(cluster_urls[::-1]) as other:
        ear = Ear()
        await other.bus.subscribe("jobs", ear)
        await hears(ear, one)


async def test_what_was_on_a_node_that_is_gone_is_unknown_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (there, nodes), process(there.urls) as one, process(there.urls) as other:
        await shared(one, other)
        ear = Ear()
        await other.bus.subscribe("jobs", ear)
        await hears(ear, one)
        lost = {host for host in HOSTS if host in await held(there.urls[0])}
        assert lost
        nodes[0].close()  # the one that everybody asks first, and listens to
        await shared(one, other, lost)
        async with process(there.urls) as reader:
            await shared(one, reader, lost)
        await hears(ear, one)
