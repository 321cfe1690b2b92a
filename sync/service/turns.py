"""Whose turn it is to be told much. A list or a delta may be hundreds of kilobytes; all answers share one connection.

One account is told one thing at a time, few accounts at a time, and nobody before the server has taken most of what
was sent: so one client that asks faster than the server can take the answers fills neither our memory nor the way to
everybody else. What is set has its turn likewise: changes of one account wait for each other here and not in the
database, where each would hold a connection, and are made in the order in which they came.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from sync.ports import Wire

MAX_TURNS = 16  # answers that are being made at a time


class Turns:
    """The turns to be told much over a wire. `waiting`: the tasks whose turn has not come yet."""

    def __init__(self, wire: Wire) -> None:
        self.waiting: set[asyncio.Task[object] | None] = set()
        self._wire = wire
        self._few = asyncio.Semaphore(MAX_TURNS)
        self._accounts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, account: str) -> AsyncIterator[None]:
        """The account's turn: what is asked for inside is to be sent at its end, without waiting for anything."""
        alone, task = self._accounts.setdefault(account, asyncio.Lock()), asyncio.current_task()
        self.waiting.add(task)
        try:
            async with alone, self._few:
                await self._wire.room()
                self.waiting.discard(task)
                yield
        finally:
            self.waiting.discard(task)
