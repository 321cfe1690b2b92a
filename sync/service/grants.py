"""What the hosts have granted the component on this connection, and what is missing of it.

A server says so in messages after the handshake, ejabberd only after its questions on the delegation's nodes were
answered; it may change its mind without a word, so all of it is forgotten with the connection. What is missing is
said once for each connection, when a server has had time to tell. The service does without any of it: then the requests
of that namespace do not reach it. Privileges are remembered and shown, and none is needed: what this program asks of a
server it asks of the feed module. Answers to delegated requests stay in the version of the request.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element

from sync.ports import Clock, Observer
from sync.protocol.grants import Granted, learned
from sync.protocol.names import CONVSYNC, INBOX, PUSH, REWRITE, SYNC

log = logging.getLogger(__name__)

DIALECTS: Mapping[str, str] = {
    SYNC: "synchronization",
    REWRITE: "rewrite",
    INBOX: "inbox",
    CONVSYNC: "convsync",
    PUSH: "push",
}
SETTLE_SECONDS = 5.0  # a server tells within milliseconds; ejabberd asks first


class Grants:
    """The grants of the users' hosts: rooms' hosts delegate nothing."""

    def __init__(self, hosts: Iterable[str], *, clock: Clock, observer: Observer) -> None:
        self._clock, self._observer = clock, observer
        self._granted = {host: Granted() for host in hosts}
        self._settling: asyncio.Task[None] | None = None
        self._settled = False
        for host in self._granted:
            self._show(host)

    def of(self, host: str) -> Granted:
        """What a host has granted since the connection stands."""
        return self._granted.get(host, Granted())

    def missing(self, host: str) -> tuple[str, ...]:
        """The needed namespaces that a users' host has not delegated; () while it may still tell."""
        if not self._settled or host not in self._granted:
            return ()
        return tuple(sorted(DIALECTS.keys() - self._granted[host].delegated))

    def connected(self) -> None:
        """The connection is up: servers tell what they grant."""
        self._settling = asyncio.ensure_future(self._settle())

    def disconnected(self) -> None:
        """The connection is gone, and with it what was granted."""
        if self._settling is not None:
            self._settling.cancel()
        self._settled = False
        for host in self._granted:
            self._granted[host] = Granted()
            self._show(host)

    def heard(self, host: str, message: Element) -> None:
        """A message of `host` with an advertisement; of a stranger it is nobody's business."""
        if host not in self._granted:
            self._observer.ignored("foreign-grant")
            return
        self._granted[host] = learned(message, self._granted[host])
        self._show(host)

    async def _settle(self) -> None:
        await self._clock.sleep(SETTLE_SECONDS)
        self._settled = True
        for host in self._granted:
            if lacking := self.missing(host):
                log.warning(
                    "the host does not delegate everything", extra={"host": host, "namespaces": " ".join(lacking)}
                )

    def _show(self, host: str) -> None:
        delegated = self._granted[host].delegated
        for namespace, word in DIALECTS.items():
            self._observer.delegated(host, word, namespace in delegated)
