"""A real Redis Cluster of three masters without replicas, on free ports of loopback.

Its nodes know each other by CLUSTER MEET, and each has a third of the slots. Where one is gone the others go on.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from sync.adapters.redis import Link
from sync.sandbox import valkey
from sync.sandbox.parts import Part
from tests.ports import free_port

MASTERS, SLOTS = 3, 16384
SETTINGS = """\
databases 1
masterauth {password}
cluster-enabled yes
cluster-port {bus}
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-require-full-coverage no
"""
SECONDS = 60.0


class Cluster:
    """Its nodes' URLs, and the parts that they are."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_urlsafe(24)
        self._ports = [(free_port(), free_port()) for _ in range(MASTERS)]
        self.parts = [self._part(folder / f"node{n}", *ports) for n, ports in enumerate(self._ports)]
        self.urls = [f"redis://:{self.password}@127.0.0.1:{port}" for port, _ in self._ports]

    def _part(self, folder: Path, port: int, bus: int) -> Part:
        part = valkey.valkey(folder, port=port, password=self.password)
        settings = folder / "valkey.conf"
        text = settings.read_text().replace("databases 64\n", "")
        settings.write_text(text + SETTINGS.format(password=self.password, bus=bus))
        return part

    async def join(self) -> None:
        """Until all nodes agree on who has what."""
        clients = [Redis.from_url(url) for url in self.urls]
        share = -(-SLOTS // MASTERS)
        for number, client in enumerate(clients):
            last = min(SLOTS, (number + 1) * share) - 1
            await client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for port, bus in self._ports[1:]:
            await clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        async with asyncio.timeout(SECONDS):
            for client in clients:
                while not await self._whole(client):  # noqa: ASYNC110 - a server's state has no event to wait for
                    await asyncio.sleep(0.05)
        for client in clients:
            await client.aclose()

    async def _whole(self, client: Redis) -> bool:
        said = await client.execute_command("CLUSTER INFO")
        text = said if isinstance(said, str) else said.decode() if isinstance(said, bytes) else repr(said)
        return all(
            word in text.replace("': '", ":")
            for word in ("cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_known_nodes:{MASTERS}")
        )

    async def empty(self) -> None:
        """Of all keys."""
        for url in self.urls:
            client = Redis.from_url(url)
            await client.flushall()
            await client.aclose()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Cluster, Sequence[ExitStack]]]:
    """The cluster, and what ends each of its nodes."""
    from tests.conftest import running, up  # noqa: PLC0415 - which has a fixture of it

    found = Cluster(folder)
    nodes = [ExitStack() for _ in found.parts]
    with ExitStack() as all_of_them:
        for node, part in zip(nodes, found.parts, strict=True):
            all_of_them.enter_context(node)
            node.enter_context(running(part))
        for part in found.parts:
            await up(part)
        await found.join()
        yield found, nodes


async def warm(link: Link, about: str = "") -> None:
    """Connected, and told where that host's keys are: what a busy machine may need more than a moment for."""
    async with asyncio.timeout(SECONDS):
        while await link.run(lambda redis: redis.exists(f"{{{about}}}"), SECONDS, about) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
