"""People at ordinary clients: slixmpp as it comes, with its plugins for corrections, retractions, calls and markers.

Nothing here knows of Convsync: whoever writes or calls needs no new client. The moment that a stanza leaves is the
beginning of what the demo measures.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from slixmpp import ClientXMPP

from sync.sandbox.demo.story import StepFailed

PLUGINS = ("xep_0199", "xep_0308", "xep_0333", "xep_0334", "xep_0353", "xep_0359", "xep_0424")
RTP = "urn:xmpp:jingle:apps:rtp:1"
LOGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What left: its id (of a call: the session's), and when, in epoch seconds."""

    id: str
    at: float


class Person:
    """One session of an account."""

    def __init__(self, client: Any) -> None:
        self._client = client  # slixmpp's stanzas are untyped

    @property
    def bare(self) -> str:
        return str(self._client.boundjid.bare)

    def says(self, to: str, text: str) -> Sent:
        return self._send(self._client.make_message(mto=to, mbody=text, mtype="chat"))

    def corrects(self, to: str, message: Sent, text: str) -> Sent:
        return self._send(
            self._client["xep_0308"].build_correction(id_to_replace=message.id, mto=to, mtype="chat", mbody=text)
        )

    def retracts(self, to: str, message: Sent) -> Sent:
        at = time.time()
        return Sent(id=self._client["xep_0424"].send_retraction(to, message.id)["id"], at=at)

    def has_read(self, peer: str, message: Sent) -> Sent:
        at = time.time()
        self._client["xep_0333"].send_marker(peer, message.id, "displayed", mtype="chat")
        return Sent(id=message.id, at=at)

    def calls(self, to: str) -> Sent:
        sid = str(uuid4())
        step = self._step(to, "propose", sid)
        step["jingle_propose"]["descriptions"] = [(RTP, "audio"), (RTP, "video")]
        return Sent(id=sid, at=self._send(step).at)

    def hangs_up(self, to: str, call: Sent) -> Sent:
        return Sent(id=call.id, at=self._send(self._step(to, "retract", call.id)).at)

    def answers(self, to: str, call: Sent) -> Sent:
        return Sent(id=call.id, at=self._send(self._step(to, "proceed", call.id)).at)

    async def waits(self) -> None:
        """Return when the server has taken everything that was sent."""
        await self._client["xep_0199"].send_ping(self._client.boundjid.domain, timeout=LOGIN_SECONDS)

    def _step(self, to: str, name: str, sid: str) -> Any:
        # XEP-0353 §3: every step is of type chat and has a hint to store it; slixmpp's own methods set neither.
        step = self._client.make_message(mto=to, mtype="chat")
        step[f"jingle_{name}"]["id"] = sid
        step.enable("store")
        return step

    def _send(self, message: Any) -> Sent:
        at = time.time()
        message.send()
        return Sent(id=str(message["id"]), at=at)


@asynccontextmanager
async def online(jid: str, password: str, *, host: str, port: int) -> AsyncIterator[Person]:
    """The person logged in and available, who accepts whoever asks to be a contact."""
    # Neither encryption nor a tunnel: the sandbox listens on loopback only.
    plain = {"feature_mechanisms": {"unencrypted_scram": True, "unencrypted_plain": True}}
    client: Any = ClientXMPP(jid, password, plugin_config=plain)
    client.enable_starttls, client.enable_direct_tls, client.enable_plaintext = False, False, True
    for plugin in PLUGINS:
        client.register_plugin(plugin)
    started = asyncio.get_running_loop().create_future()

    def over(outcome: str) -> None:
        if not started.done():
            started.set_result(outcome)

    client.add_event_handler("session_start", lambda _: over(""))
    client.add_event_handler("failed_all_auth", lambda _: over("The password was refused"))
    client.add_event_handler("disconnected", lambda _: over("The connection was closed"))
    client.connect(host, port)
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            if why := await started:
                raise StepFailed(f"{why} when {jid} logged in.")
            await client.get_roster()
        client.send_presence()
        yield Person(client)
    finally:
        queue = client._run_out_filters
        await client.disconnect(wait=1.0)
        if queue is not None:  # slixmpp leaves the task of its send queue waiting
            queue.cancel()
            await asyncio.wait([queue], timeout=1.0)
