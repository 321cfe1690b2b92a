"""Inboxes (XEP-0430): a message for each conversation to the session that asks, and then the answer with the counts.

A page is one snapshot. Its messages are made one after the other and sent no faster than the server takes them; few
pages are under way at a time, and the others wait their turn, so what they hold in memory is bounded. A session's
requests are answered one after the other: an entry does not say to which of them it belongs. (On ejabberd the next
answer's entries may still overtake this one's last word, which goes by another process.) An inbox says nothing of
calls: having asked for one is no proof that a phone knows why it was woken.
"""

import asyncio
from dataclasses import replace
from weakref import WeakValueDictionary
from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest, ItemNotFound
from sync.ports import Store
from sync.protocol import inbox
from sync.service.live import Live

MAX_PAGES = 8  # under way at a time


class Inboxes:
    """The requests for inboxes, answered from the store. `merged`: there may be several conversations with one peer, of
    which an inbox makes one entry.
    """

    def __init__(self, *, store: Store, live: Live, merged: bool = False) -> None:
        self._store, self._live, self._merged = store, live, merged
        self._turns = asyncio.Semaphore(MAX_PAGES)
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(
        self, account: str, resource: str | None, payload: Element, *, kind: str, request_id: str
    ) -> Element:
        """The `<fin/>`, after everything before it is with the session that asked."""
        query = replace(inbox.decode_query(payload, account=account, kind=kind), merged=self._merged)
        if not resource:
            raise BadRequest("An inbox is sent to a session.")
        session = f"{account}/{resource}"
        alone = self._sessions.setdefault(session, asyncio.Lock())
        async with alone, self._turns:
            page = await self._store.inbox(account, query)
            if not page.stands:
                raise ItemNotFound("The page to continue from is not there any more.")
            messages = inbox.messages(page, to=session, query_id=request_id)
            await self._live.hand_all(account, resource, messages)
        return inbox.fin(page, account=account)
