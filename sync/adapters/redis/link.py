"""One process's connections to Redis, and the breaker that makes a dead Redis cost nothing.

Decides how long a command may take and how long to leave Redis alone after a failure: everything in it may get lost,
so nobody waits for it and no error of it leaves this file; a command that failed is `None`. One log line when it goes
and one when it is back. Refuses to know what the commands mean.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sync.adapters.redis.nodes import Nodes
from sync.ports import Observer

READ_SECONDS = 0.1  # a query or a push decision waits for it
WRITE_SECONDS = 0.25  # nobody waits for it, and a lost write costs a resynchronisation
BULK_SECONDS = 2.0  # a chunk of a resynchronisation

_PAUSE_SECONDS = (1.0, 2.0, 5.0)  # after the first, second and any further failure in a row
FAILURES = (RedisError, OSError, TimeoutError)

Answer = TypeVar("Answer")
log = structlog.get_logger(__name__)


class Link:
    """Connections made when needed. `cluster`: further nodes of the Redis Cluster that `url` is one of. `monotonic` is
    the clock of the breaker.
    """

    def __init__(
        self,
        url: str,
        *,
        cluster: Sequence[str] = (),
        observer: Observer,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.nodes = Nodes((url, *cluster), read_seconds=BULK_SECONDS)
        self._observer, self._monotonic = observer, monotonic
        self._failures = 0
        self._closed_until = 0.0

    async def run(
        self, command: Callable[[Redis], Awaitable[Answer]], seconds: float, about: str = ""
    ) -> Answer | None:
        """The command's answer, or None: Redis failed, was too slow, or is being left alone. `about`: the host whose
        keys it names.
        """
        now = self._monotonic()
        if now < self._closed_until:
            return None
        if self._failures:  # one attempt at a time while it is down; the others go on without
            self._closed_until = now + self._pause()
        try:
            async with asyncio.timeout(seconds):
                answer = await self.nodes.run(command, about)
        except FAILURES as error:
            self._failed(type(error).__name__)
            return None
        self._worked()
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self.nodes.close()

    def _pause(self) -> float:
        return _PAUSE_SECONDS[min(self._failures, len(_PAUSE_SECONDS)) - 1]

    def _failed(self, error: str) -> None:
        if not self._failures:
            log.warning("redis_lost", error=error)
        self._failures += 1
        self._closed_until = self._monotonic() + self._pause()
        self._observer.dependency("redis", False)
        self._observer.breaker("redis", True)

    def _worked(self) -> None:
        if self._failures:
            log.info("redis_back")
        self._failures, self._closed_until = 0, 0.0
        self._observer.dependency("redis", True)
        self._observer.breaker("redis", False)
