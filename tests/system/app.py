"""An app on the client library: slixmpp with the plugin `convsync`, and a list of everything that it was told."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from slixmpp import ClientXMPP

from sync.client import Cache, CallEnded, CallRings, Conversation, Convsync, Event, Happened, dumps, loads
from sync.protocol.names import CONVSYNC
from sync.sandbox.demo.session import leave
from tests.system.box import Box, eventually
from tests.system.person import Person

LOGIN_SECONDS = 45
EVENTS = ("call", "call_ended", "reset", "conversation", "removed", "changes", "totals", "failed", "behind")


class App:
    """One session. `told`: every event, in order; `stored`: what was stored last, as text."""

    def __init__(self, client: Any, cache: Cache | None) -> None:
        self.client = client
        self.plugin: Convsync = client.plugin["convsync"]
        self.told: list[Any] = []
        self.stored = dumps(Cache())
        if cache is not None:
            self.plugin.cache = cache
        for name in EVENTS:
            client.add_event_handler(f"convsync_{name}", self.told.append)
        client.add_event_handler("convsync_cache", self._store)

    @classmethod
    async def open(
        cls, box: Box, account: str, resource: str = "app", *, stored: str | None = None, **config: Any
    ) -> Self:
        """Logged in; by default it asks nothing by itself."""
        plain = {"feature_mechanisms": {"unencrypted_scram": True, "unencrypted_plain": True}}
        password = next(a["password"] for a in box.ready["accounts"] if a["jid"] == account)
        client: Any = ClientXMPP(f"{account}/{resource}", password, plugin_config=plain)
        client.enable_starttls, client.enable_direct_tls, client.enable_plaintext = False, False, True
        client.register_plugin("convsync", {"auto": False, **config})
        self = cls(client, None if stored is None else loads(stored))
        client.connect("127.0.0.1", box.ready["c2s"]["port"])
        await client.wait_until("session_start", LOGIN_SECONDS)
        return self

    async def close(self) -> str:
        """Log out; what it had stored."""
        await leave(self.client)
        return self.stored

    def _store(self, cache: Cache) -> None:
        self.stored = dumps(cache)

    @property
    def cache(self) -> Cache:
        return self.plugin.cache

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def with_(self, jid: str, kind: str = "chat") -> Conversation:
        found = [one for one in self.cache.conversations.values() if (one.jid, one.kind) == (jid, kind)]
        assert found, jid
        return found[0]

    def kinds(self, jid: str) -> list[str]:
        """What happened in the conversations with a peer."""
        return [change.kind for event in self.of(Happened) if event.key.jid == jid for change in event.changes]

    async def until(self, there: Callable[[], object], seconds: float = 45) -> None:
        async def look() -> bool:
            assert there(), self.told[-5:]
            return True

        await eventually(look, seconds)

    def drop_notice(self) -> asyncio.Event:
        """Lose the next live notice on its way; set when it is lost."""
        lost = asyncio.Event()

        def sieve(stanza: Any) -> Any:
            if not lost.is_set() and stanza.xml.find(f"{{{CONVSYNC}}}live") is not None:
                lost.set()
                return None
            return stanza

        self.client.add_filter("in", sieve)
        return lost


def calls_first(events: list[Event]) -> bool:
    """In what one answer told."""
    ranks = [0 if isinstance(event, CallRings) else 1 if isinstance(event, CallEnded) else 2 for event in events]
    return ranks == sorted(ranks)


async def same(app: App, box: Box, seconds: float = 30) -> None:
    """What the app knows is what one is told that knew nothing; who follows live is told a moment later."""
    fresh = await App.open(box, app.client.boundjid.bare, "fresh")

    async def agrees() -> bool:
        await fresh.plugin.sync(live=False)
        agree(app.cache, fresh.cache)
        return True

    await eventually(agrees, seconds)
    await fresh.close()


def agree(known: Cache, truth: Cache) -> None:
    assert known.version == truth.version
    differences = [(one, known.conversations.get(key)) for key, one in truth.conversations.items()]
    differences = [(one, other) for one, other in differences if canonical(one) != canonical(other)]
    assert not differences, differences
    assert known.conversations.keys() == truth.conversations.keys()
    assert {call.key for call in known.ringing} == {call.key for call in truth.ringing}
    assert known.totals == truth.totals


def canonical(conversation: Conversation | None) -> Conversation | None:
    """Servers write the attributes of the same stanza in any order."""
    if conversation is None or conversation.last is None or conversation.last.stanza is None:
        return conversation
    last = replace(conversation.last, stanza=ET.canonicalize(conversation.last.stanza))
    return replace(conversation, last=last)


async def written(ann: Person, *others: Person, text: str = "hello") -> list[str]:
    """Everybody writes to Ann; the message ids. The server has taken them."""
    ids = [other.write(ann.account, text) for other in others]
    for other in others:
        await other.ping()
    return ids
