"""Accounts whose first event was told, or may be about to come, while nobody has a row of them yet.

An account's events and a room's are committed beside each other, so a room's entry may be at a member before the
member's account is. Who was told first is known here: what waits in the lanes, and whether a host still has to send
what it kept while nobody listened. Nobody is waited for without end.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from time import monotonic

from sync.model.jid import domain, lane
from sync.service.feed import HostFeed
from sync.service.ingest import Ingest

PATIENCE = 30.0  # seconds: with a lane, and with a host since it was asked for what it kept
LOOK_SECONDS = 1.0  # a connection that is lost or made meanwhile changes who is waited for


class Arrivals:
    """What `FanOut` knows of those whom it does not find. `ingest` is asked for at the first use."""

    def __init__(self, feeds: Mapping[str, HostFeed], ingest: Callable[[], Ingest]) -> None:
        self._feeds, self._ingest = feeds, ingest

    def expected(self, accounts: Collection[str]) -> frozenset[str]:
        """Of these accounts those of which something may have been told that is not committed."""
        owing = {host for host in set(map(domain, accounts)) if self._owes(host)}
        return self._ingest().coming(accounts) | {account for account in accounts if domain(account) in owing}

    async def met(self, accounts: Collection[str]) -> None:
        """Wait until everything told of these accounts so far is committed, or for as long as there is patience."""
        hosts = sorted(set(map(domain, accounts)))
        while owing := [host for host in hosts if self._owes(host)]:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._feeds[owing[0]].caught_up.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for account in {lane(account): account for account in accounts}.values():
                    await self._ingest().barrier(account)

    def _owes(self, host: str) -> bool:
        """True while a host may have kept something of before. Without a connection nothing comes of rooms either."""
        feed = self._feeds.get(host)
        return feed is not None and not feed.caught_up.is_set() and monotonic() < feed.missing_since + PATIENCE
