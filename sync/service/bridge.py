"""What a client reads by a set of ours is said in the account's own storage too (XEP-0490), for its clients that look
nowhere else: the feed module publishes it (docs/feed.md §8.3).

It is said after the commit, and may get lost: the other clients then learn it from a query. Of several places that
wait for one conversation the newest is said; few requests are under way at a time: each is work for the server.
A module that does not serve it is not asked again until its host is subscribed anew.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial

from sync.model.conversation import Conversation, ConversationKey
from sync.model.errors import Refused
from sync.model.jid import domain
from sync.ports import Observer, Wire
from sync.protocol import envelope, feed
from sync.protocol.hello import Hello
from sync.service.feed import HostFeed

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # conversations; what is read in others is not said
AT_ONCE = 4
# Of an older module, of a host without such storage, of one where the operator does not want it.
NOT_SERVED = frozenset({"service-unavailable", "feature-not-implemented", "forbidden"})


class Bridge:
    """Says how far conversations are read."""

    def __init__(self, *, component: str, wire: Wire, feeds: Mapping[str, HostFeed], observer: Observer) -> None:
        self._component, self._wire, self._feeds, self._observer = component, wire, feeds, observer
        self._waiting: dict[ConversationKey, str] = {}
        self._asking: dict[ConversationKey, asyncio.Task[None]] = {}
        self._unserved: dict[str, Hello | None] = {}  # as the host said hello when it refused
        self._told: dict[str, str] = {}
        self._count = 0

    def publish(self, conversations: Iterable[Conversation]) -> None:
        """Say that these are read up to their pointers. Returns at once."""
        for conversation in conversations:
            key, place = conversation.key, conversation.read.id
            if place is None or not self._is_served(domain(key.account)):
                continue
            if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
                self._observer.notice("displayed", "dropped")
                continue
            self._waiting[key] = place
        self._start()

    def _is_served(self, host: str) -> bool:
        feed = self._feeds.get(host)
        if feed is None or not feed.subscribed:
            return False
        return host not in self._unserved or self._unserved[host] is not feed.said

    def _start(self) -> None:
        free = (key for key in tuple(self._waiting) if key not in self._asking)
        for key in free:
            if len(self._asking) >= AT_ONCE:
                return
            task = asyncio.ensure_future(self._ask(key, self._waiting.pop(key)))
            self._asking[key] = task
            task.add_done_callback(partial(self._answered, key))

    def _answered(self, key: ConversationKey, _: asyncio.Task[None]) -> None:
        del self._asking[key]
        self._start()

    async def _ask(self, key: ConversationKey, place: str) -> None:
        host = domain(key.account)
        if not self._is_served(host):
            return  # it refused while this one waited
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
