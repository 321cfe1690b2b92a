"""Rings, counts and lists; keeps what it knows in a file. python example.py JID PASSWORD [HOST PORT: without TLS]"""

import asyncio
import pathlib
import sys

from slixmpp import ClientXMPP

from sync.client import Cache, ConversationChanged, dumps, loads

STORE = pathlib.Path("cache.json")


def changed(event: ConversationChanged) -> None:
    one = event.conversation
    print(f"{one.jid}: {one.unread} unread, last {one.last and one.last.body!r}", flush=True)


def store(cache: Cache) -> None:
    STORE.with_suffix(".part").write_text(dumps(cache))
    STORE.with_suffix(".part").replace(STORE)


async def main(jid: str, password: str, *address: str) -> None:
    mechanisms = {"unencrypted_scram": True, "unencrypted_plain": True} if address else {}
    xmpp = ClientXMPP(jid, password, plugin_config={"feature_mechanisms": mechanisms})
    xmpp.enable_plaintext, xmpp.enable_starttls, xmpp.enable_direct_tls = bool(address), not address, not address
    xmpp.register_plugin("convsync")  # asks when a session begins, follows live, asks again after a hole
    if STORE.exists():
        xmpp.plugin["convsync"].cache = loads(STORE.read_text())
    xmpp.add_event_handler("convsync_call", lambda e: print(f"{e.call.jid} calls, {e.call.left} s left", flush=True))
    xmpp.add_event_handler("convsync_conversation", changed)
    xmpp.add_event_handler("convsync_changes", lambda e: print([(c.kind, c.body) for c in e.changes], flush=True))
    xmpp.add_event_handler("convsync_totals", lambda e: print(f"badge {e.totals.unread}", flush=True))
    xmpp.add_event_handler("convsync_cache", store)
    xmpp.connect(*address)
    await xmpp.disconnected


asyncio.run(main(*sys.argv[1:]))
