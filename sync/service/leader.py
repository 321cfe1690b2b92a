"""Holds the lease on the component's JID, so that only one process at a time connects under it (docs/feed.md §1)."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from sync.model.errors import StoreUnavailable
from sync.ports import Clock, Leases, Observer

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0
ASK_SECONDS = 0.25  # while somebody else holds it
TRUST = timedelta(seconds=3)  # without renewal; shorter than the lease, so that we stop before another may start


class Leader:
    """`on_held` when the lease is ours, `on_lost` when it is not any more. How long that is believed is counted by
    `monotonic`: a wall clock that is set must neither end nor prolong it.
    """

    def __init__(
        self,
        name: str,
        holder: str,
        *,
        leases: Leases,
        clock: Clock,
        observer: Observer,
        on_held: Callable[[], None],
        on_lost: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._holder = name, holder
        self._leases, self._clock, self._observer = leases, clock, observer
        self._on_held, self._on_lost, self._monotonic = on_held, on_lost, monotonic
        self.held = False

    async def run(self) -> None:
        """Take it, renew it, until cancelled."""
        renewed_at, trust = self._monotonic(), TRUST.total_seconds()
        told = False
        while True:
            left = renewed_at + trust - self._monotonic() if self.held else trust
            try:
                # Whoever holds it lets go before the lease runs out, however long the database takes to answer.
                async with asyncio.timeout(max(left, 0.01)):
                    ours: bool | None = await self._leases.acquire(self._name, self._holder)
            except (StoreUnavailable, TimeoutError):
                ours = None
            now = self._monotonic()
            if ours:
                renewed_at = now
                self._set(True)
            elif self.held and (ours is False or now - renewed_at >= trust):
                log.error("the lease is lost: another process speaks for the component now")
                self._set(False)
            elif ours is False and not told:
                told = True
                log.info("another process speaks for the component; waiting for its lease")
            await self._clock.sleep(RENEW_SECONDS if self.held else ASK_SECONDS)

    async def release(self) -> None:
        """Give it back."""
        if self.held:
            self._set(False)
            await self._leases.release(self._name, self._holder)

    def _set(self, held: bool) -> None:
        if held is self.held:
            return
        self.held = held
        self._observer.lease(held)
        (self._on_held if held else self._on_lost)()
