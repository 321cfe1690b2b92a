"""People at ordinary clients: slixmpp as it comes, with its plugins for rooms, corrections, retractions, reactions,
calls and markers.

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

from slixmpp import JID

from sync.protocol.names import SID, clark
from sync.sandbox.demo.session import LOGIN_SECONDS, logged_in

PLUGINS = (
    *("xep_0045", "xep_0199", "xep_0308", "xep_0333", "xep_0334", "xep_0353", "xep_0359", "xep_0372", "xep_0424"),
    *("xep_0444", "xep_0490"),
)
HISTORY = 20  # messages of a room that one who enters is told
STANZA_ID = clark(SID, "stanza-id")
RTP = "urn:xmpp:jingle:apps:rtp:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What left: its id (of a call: the session's), and when, in epoch seconds."""

    id: str
    at: float


class Person:
    """One session of an account."""

    def __init__(self, client: Any) -> None:
        self._client = client  # slixmpp's stanzas are untyped
        self._named: dict[str, asyncio.Future[str]] = {}
        client.add_event_handler("groupchat_message", self._hears)

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

    def reacts(self, to: str, message: Sent, emoji: str) -> Sent:
        reaction = self._client.make_message(mto=to, mtype="chat")
        self._client["xep_0444"].set_reactions(reaction, message.id, [emoji])
        reaction.enable("store")
        return self._send(reaction)

    # ---- in rooms --------------------------------------------------------------------------------------------------

    async def makes_room(self, room: str, nick: str, *members: str) -> None:
        """A room for members only, which stays; the person is in it."""
        muc = self._client["xep_0045"]
        await self.enters(room, nick)
        form = self._client["xep_0004"].make_form(ftype="submit")
        form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/muc#roomconfig")
        for option in ("membersonly", "persistentroom"):
            form.add_field(var=f"muc#roomconfig_{option}", value="1")
        await muc.set_room_config(room, form, timeout=LOGIN_SECONDS)
        for member in members:
            await muc.set_affiliation(room, "member", jid=member, timeout=LOGIN_SECONDS)

    async def enters(self, room: str, nick: str) -> None:
        await self._client["xep_0045"].join_muc_wait(JID(room), nick, maxstanzas=HISTORY, timeout=LOGIN_SECONDS)

    def mentions(self, room: str, whom: str, text: str) -> Sent:
        """The text begins with the name of whom it mentions (XEP-0372)."""
        message = self._client.make_message(mto=room, mbody=text, mtype="groupchat")
        length = len(whom.partition("@")[0])
        for name, value in {"type": "mention", "uri": f"xmpp:{whom}", "begin": "0", "end": str(length)}.items():
            message["reference"][name] = value
        return self._send(message)

    async def name_of(self, message: Sent) -> str:
        """The room's id of a message, once the room has said it to this person, now or as history."""
        async with asyncio.timeout(LOGIN_SECONDS):
            return await self._named.setdefault(message.id, asyncio.Future())

    async def retracts_in(self, room: str, message: Sent) -> Sent:
        """XEP-0424 §4: in rooms the message is named by the room's id."""
        name, at = await self.name_of(message), time.time()
        return Sent(id=self._client["xep_0424"].send_retraction(room, name, mtype="groupchat")["id"], at=at)

    async def has_read_in(self, room: str, message: Sent) -> Sent:
        """Told to the person's own devices only (XEP-0490)."""
        name, at = await self.name_of(message), time.time()
        # slixmpp's flag_chat does not say who gave the id, as XEP-0359 demands.
        displayed = self._client["xep_0490"].stanza.Displayed()
        displayed["stanza_id"]["id"], displayed["stanza_id"]["by"] = name, room
        await self._client["xep_0223"].store(displayed, node=displayed.namespace, id=room, timeout=LOGIN_SECONDS)
        return Sent(id=message.id, at=at)

    def _hears(self, message: Any) -> None:
        room = str(message["from"].bare)
        for given in message.xml.iterfind(STANZA_ID):
            heard = self._named.setdefault(str(message["id"]), asyncio.Future())
            if given.get("by") == room and not heard.done():
                heard.set_result(given.get("id", ""))

    # ---- calls -----------------------------------------------------------------------------------------------------

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
    async with logged_in(jid, password, host=host, port=port, plugins=PLUGINS) as client:
        async with asyncio.timeout(LOGIN_SECONDS):
            await client.get_roster()
        client.send_presence()
        yield Person(client)
