"""What a client reads by a set of ours is said in the account's own storage too (XEP-0490), for its clients that look
nowhere else: the feed module publishes it (docs/feed.md §8.3).

It is said after the commit, and may get lost: the other clients then learn it from a query. A host is asked one thing
at a time, and then left alone for as long as its answer took: publishing may be the whole server's time. Of several
places that wait for one conversation the newest is said. A module that does not serve it is not asked again until its
host is subscribed anew. An item there names a peer, not a conversation: where there may be several with one peer, the
rule has chosen a place up to which all of them are read (`sync.rules.properties.read_by_all`).
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from time import perf_counter

from sync.model.conversation import Conversation, ConversationKey
from sync.model.errors import Refused
from sync.model.jid import domain
from sync.ports import Clock, Observer, Wire
from sync.protocol import envelope, feed
from sync.protocol.hello import Hello
from sync.service.feed import HostFeed

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # conversations of a host; what is read in others is not said
# Of an older module, of a host without such storage, of one where the operator does not want it.
NOT_SERVED = frozenset({"service-unavailable", "feature-not-implemented", "forbidden"})


class Bridge:
    """Says how far conversations are read."""

    def __init__(
        self, *, component: str, wire: Wire, feeds: Mapping[str, HostFeed], clock: Clock, observer: Observer
    ) -> None:
        self._component, self._wire, self._feeds = component, wire, feeds
        self._clock, self._observer = clock, observer
        self._waiting: dict[str, dict[ConversationKey, str]] = {host: {} for host in feeds}
        self._saying: dict[str, asyncio.Task[None]] = {}
        self._unserved: dict[str, Hello | None] = {}  # as the host said hello when it refused
        self._told: dict[str, str] = {}
        self._count = 0

    def publish(self, conversations: Iterable[Conversation]) -> None:
        """Say that these are read up to their pointers. Returns at once."""
        for conversation in conversations:
            key, place = conversation.key.plain, conversation.read.id
            host = domain(key.account)
            if place is None or not self._is_served(host):
                continue
            waiting = self._waiting[host]
            if key not in waiting and len(waiting) >= MAX_WAITING:
                self._observer.notice("displayed", "dropped")
                continue
            waiting[key] = place
            if host not in self._saying:
                self._saying[host] = asyncio.ensure_future(self._say(host, waiting))

    def _is_served(self, host: str) -> bool:
        feed = self._feeds.get(host)
        if feed is None or not feed.subscribed:
            return False
        return host not in self._unserved or self._unserved[host] is not feed.said

    async def _say(self, host: str, waiting: dict[ConversationKey, str]) -> None:
        """All that waits for a host, and what comes meanwhile."""
        try:
            while waiting:
                key = next(iter(waiting))
                place = waiting.pop(key)
                if not self._is_served(host):
                    continue  # it refused, or went away, while this one waited
                began = perf_counter()
                await self._ask(host, key, place)
                await self._clock.sleep(perf_counter() - began)
        finally:
            del self._saying[host]

    async def _ask(self, host: str, key: ConversationKey, place: str) -> None:
        self._count += 1
        request = envelope.iq(
            "set",
            sender=self._component,
            to=host,
            request_id=f"displayed-{self._count}",
            payload=feed.displayed(key, place),
        )
        try:
            await self._wire.request(request)
        except Refused as refused:
            self._refused(host, refused.condition)
        else:
            self._observer.notice("displayed", "sent")

    def _refused(self, host: str, reason: str) -> None:
        self._observer.notice("displayed", "refused")
        if reason not in NOT_SERVED:
            log.info("a displayed marker was not published", extra={"host": host, "reason": reason})
            return
        self._unserved[host] = self._feeds[host].said
        if self._told.get(host) != reason:
            self._told[host] = reason
            log.warning("the feed module publishes no displayed markers", extra={"host": host, "reason": reason})
