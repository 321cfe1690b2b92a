"""Live notices: tells a user's other connected clients what one of them changed (step 5 of the flow).

A notice may get lost, since the client's next query says the same; nobody waits for it, and a client that never
answers is not waited for either.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from xml.etree.ElementTree import Element

from sync.model.errors import Refused
from sync.model.event import SessionState
from sync.model.jid import domain
from sync.ports import Observer, Presence, Wire
from sync.protocol import envelope, feed

log = logging.getLogger(__name__)

AVAILABLE = frozenset({SessionState.ACTIVE, SessionState.INACTIVE})
MAX_PENDING = 1000  # notices without the module's answer; beyond that they are dropped and counted


class Live:
    """Hands stanzas to sessions through the feed module."""

    def __init__(self, *, component: str, wire: Wire, presence: Presence, observer: Observer) -> None:
        self._component, self._wire, self._presence, self._observer = component, wire, presence, observer
        self._pending: set[asyncio.Task[None]] = set()
        self._count = 0

    async def notices(self, account: str, stanzas: Sequence[Element], *, kind: str, beside: str | None) -> None:
        """Hand the stanzas to every available session but `beside`; to all sessions where presence is not known."""
        if not stanzas:
            return
        sessions = await self._presence.sessions(account)
        if sessions is None:
            told: list[str | None] = [None]
        else:
            told = [s.resource for s in sessions if s.resource != beside and s.state in AVAILABLE]
        for stanza in stanzas:
            for resource in told:
                self.hand(account, resource, stanza, kind=kind)

    def hand(self, account: str, resource: str | None, stanza: Element, *, kind: str) -> bool:
        """Hand a stanza to one session, or to all, without waiting; False when it was dropped. It is written at once:
        it arrives before whatever is sent to the server after it.
        """
        if len(self._pending) >= MAX_PENDING:
            self._observer.notice(kind, "dropped")
            return False
        self._count += 1
        payload = feed.deliver(stanza, account=account, resource=resource)
        request = envelope.iq(
            "set", sender=self._component, to=domain(account), request_id=f"deliver-{self._count}", payload=payload
        )
        task = asyncio.ensure_future(self._delivered(self._wire.request(request), kind))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return True

    async def _delivered(self, answer: Awaitable[Element], kind: str) -> None:
        try:
            await answer
        except Refused as refused:
            log.info("a notice was not delivered", extra={"reason": refused.condition})
            self._observer.notice(kind, "refused")
        else:
            self._observer.notice(kind, "sent")
