"""Whose turn it is to be told much. A list or a delta may be hundreds of kilobytes; all answers share one connection.

One account is told one thing at a time, few accounts at a time, and nobody before the server has taken most of what
was sent: so one client that asks faster than the server can take the answers fills neither our memory nor the way to
everybody else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from sync.model.errors import Overloaded
from sync.ports import Wire

MAX_TURNS = 16  # answers that are being made at a time
TURN_SECONDS = 10.0  # whose turn does not come by then is to ask again


class Turns:
    """The turns to be told much over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._few = asyncio.Semaphore(MAX_TURNS)
        self._accounts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, account: str) -> AsyncIterator[None]:
        """The account's turn: what is asked for inside is to be sent at its end, without waiting for anything. Raises
        Overloaded.
        """
        alone = self._accounts.setdefault(account, asyncio.Lock())
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await turn.enter_async_context(alone)
                    await turn.enter_async_context(self._few)
                    await self._wire.room()
            except TimeoutError:
                raise Overloaded from None
            yield
