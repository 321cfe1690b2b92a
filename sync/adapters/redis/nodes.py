"""Which server a command goes to: the one that there is, or the node of a Redis Cluster that holds a host's keys.

All keys of a host bear its name as hash tag, so they are on one node and may be changed together. Where that is, the
nodes tell themselves (MOVED); it is remembered until a node fails. Retries nothing but such a redirection: what fails
otherwise is the link's affair.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

CONNECT_SECONDS = 0.1  # and no longer for a free connection
CONNECTIONS = 16
HOPS = 3  # redirections of one command: one tells where the slot is, more mean that it is being moved

Answer = TypeVar("Answer")
Command = Callable[[Redis], Awaitable[Answer]]


class Nodes:
    """Clients for one server, or, with more than one URL, for a cluster of which these are some nodes."""

    def __init__(self, urls: Sequence[str], *, read_seconds: float) -> None:
        self._urls, self._read_seconds = list(urls), read_seconds
        self._clients: dict[str, Redis] = {}
        self._homes: dict[int, str] = {}  # slot → the URL of its node
        self.cluster = len(urls) > 1

    @property
    def url(self) -> str:
        """The node that is asked first, and listened to: hints reach every node."""
        return self._urls[0]

    async def run(self, command: Command[Answer], about: str) -> Answer:
        """The answer of the node with that host's keys. Raises what the driver raises."""
        slot = key_slot(f"{{{about}}}".encode())
        for _ in range(HOPS):
            url = self._homes.get(slot, self.url)
            try:
                return await command(self._client(url))
            except AskError as moved:  # a MovedError is one
                if not self.cluster or not isinstance(moved, MovedError):
                    raise
                self._homes[slot] = self._beside(url, moved.host, moved.port)
            except (RedisError, OSError, TimeoutError, asyncio.CancelledError):  # cancelled: it took too long
                self.passed_over(url)
                raise
        raise RedisError("a slot is on its way from one node to another")

    def passed_over(self, url: str) -> None:
        """A node failed: what it held may be elsewhere now, and another one is asked first."""
        if not self.cluster:
            return
        self._homes = {slot: home for slot, home in self._homes.items() if home != url}
        if url == self.url:
            self._urls = [*self._urls[1:], url]

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()
            await client.connection_pool.disconnect()

    def _client(self, url: str) -> Redis:
        if url not in self._clients:
            self._clients[url] = Redis(connection_pool=pool(url, read_seconds=self._read_seconds))
        return self._clients[url]

    def _beside(self, url: str, host: str, port: int) -> str:
        """The URL of another node: the same user, password and encryption. No host: the one that said so."""
        known = urlsplit(url)
        where = host or known.hostname or ""
        login, at, _ = known.netloc.rpartition("@")
        netloc = f"{login}{at}{f'[{where}]' if ':' in where else where}:{port}"
        found = urlunsplit((known.scheme, netloc, known.path, known.query, ""))
        if found not in self._urls:
            self._urls.append(found)
        return found


def pool(url: str, *, read_seconds: float | None) -> BlockingConnectionPool:
    """Connections that fail fast and never retry by themselves."""
    return BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=CONNECT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=read_seconds,
        socket_keepalive=not url.startswith("unix:"),
        retry=Retry(NoBackoff(), 0),
    )
