"""Stanzas for a user's connected clients: live notices, which tell the others what one of them changed (step 5 of the
flow), and what a client is sent before the answer to its request.

A notice may get lost, since the client's next query says the same; nobody waits for it, and a client that never
answers is not waited for either. What belongs to an answer is waited for: an answer without it would be a false one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from enum import StrEnum
from xml.etree.ElementTree import Element

from sync.model.errors import InternalServerError, Refused, Undelivered
from sync.model.event import SessionState
from sync.model.jid import domain
from sync.ports import Observer, Presence, Wire
from sync.protocol import envelope, feed

log = logging.getLogger(__name__)

AVAILABLE = frozenset({SessionState.ACTIVE, SessionState.INACTIVE})
MAX_PENDING = 1000  # notices without the module's answer; beyond that they are dropped and counted
MAX_AHEAD = 25  # stanzas of one answer without the module's; the next one waits


class Handed(StrEnum):
    """What became of a notice."""

    TAKEN = "sent"
    UNTAKEN = "untaken"  # the session hibernates, or is gone
    REFUSED = "refused"  # by the module, or it did not answer


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
        task = asyncio.ensure_future(self._delivered(self._deliver(account, resource, stanza), kind))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return True

    async def tell(self, account: str, resource: str, stanza: Element, *, kind: str) -> Handed:
        """Hand a notice to one session, and wait for the module's word of it."""
        try:
            answer = await self._deliver(account, resource, stanza)
        except Refused as refused:
            log.info("a notice was not delivered", extra={"reason": refused.condition})
            handed = Handed.REFUSED
        else:
            handed = Handed.TAKEN if feed.delivered(answer) else Handed.UNTAKEN
        self._observer.notice(kind, handed.value)
        return handed

    async def hand_all(self, account: str, resource: str, stanzas: Iterable[Element]) -> None:
        """Hand stanzas to one session, in order. Returns when the server has written the last one to it, so that an
        answer sent afterwards comes behind all of them, by whichever of the server's processes each of them goes.
        Raises Undelivered where the session does not take them, InternalServerError where the module does not.
        """
        ahead: deque[asyncio.Future[Element]] = deque()
        try:
            for stanza in stanzas:
                ahead.append(asyncio.ensure_future(self._deliver(account, resource, stanza)))
                if len(ahead) >= MAX_AHEAD:
                    taken(await ahead.popleft())
            while ahead:
                taken(await ahead.popleft())
        except Refused as refused:
            log.warning("the module did not deliver an answer", extra={"reason": refused.condition})
            raise InternalServerError from None
        finally:
            for delivery in ahead:
                delivery.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _deliver(self, account: str, resource: str | None, stanza: Element) -> Awaitable[Element]:
        """The request to the module, sent at once; what is awaited is its answer."""
        self._count += 1
        payload = feed.deliver(stanza, account=account, resource=resource)
        return self._wire.request(
            envelope.iq(
                "set", sender=self._component, to=domain(account), request_id=f"deliver-{self._count}", payload=payload
            )
        )

    async def _delivered(self, answer: Awaitable[Element], kind: str) -> None:
        try:
            await answer
        except Refused as refused:
            log.info("a notice was not delivered", extra={"reason": refused.condition})
            self._observer.notice(kind, "refused")
        else:
            self._observer.notice(kind, "sent")


def taken(answer: Element) -> None:
    """Raise Undelivered where no session took a stanza."""
    if not feed.delivered(answer):
        raise Undelivered
