"""A user's device that survives its connection: it resumes its session (XEP-0198) and sends again what was not taken.

It keeps each stanza with the server's word on it, so that what is acknowledged is known whatever happens afterwards.
"""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Self
from xml.sax.saxutils import quoteattr

from tests.system.box import Box
from tests.system.person import MDS, PUBSUB, SID, Person, name
from tests.system.xmpp_client import SM, StreamClosed, XmlStream, XmppClient

GONE = (StreamClosed, TimeoutError, OSError)
MUC = "http://jabber.org/protocol/muc"
LOGIN_SECONDS = 30


class Forgotten(StreamClosed):
    """The server does not know the session any more."""


class Device(Person):
    """One session after another of one resource."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.stanzas: list[str] = []  # as `out`: what was sent since stream management began
        self.taken: set[str] = set()  # ids that the server has acknowledged

    @classmethod
    async def log_in(cls, box: Box, jid: str, resource: str, *, carbons: bool = False) -> Self:
        """A new session."""
        async with asyncio.timeout(LOGIN_SECONDS):
            password = next(one["password"] for one in box.ready["accounts"] if one["jid"] == jid)
            port = box.ready["c2s"]["port"]
            return await cls.connect(f"{jid}/{resource}", password, port, sm=True, carbons=carbons)

    async def again(self, box: Box) -> "Device":
        """The same session on a new connection; raises Forgotten where there is none to go on with."""
        if self.sm_id is None:
            raise Forgotten
        async with asyncio.timeout(LOGIN_SECONDS):
            port = box.ready["c2s"]["port"]
            return await type(self).connect(f"{self.account}/{self.resource}", self.password, port, resume=self)

    async def _resume(self, old: XmppClient) -> None:
        assert isinstance(old, Device)
        self.resource, self.sm_id, self.handled = old.resource, old.sm_id, old.handled
        answers = {f"{{{SM}}}resumed", f"{{{SM}}}failed"}
        waiting = asyncio.ensure_future(self.wait_for(lambda element: element.tag in answers))
        await asyncio.sleep(0)
        XmlStream.send(self, f"<resume xmlns='{SM}' previd={quoteattr(old.sm_id or '')} h='{old.handled}'/>")
        answer = await waiting
        if name(answer) == "failed":
            await self.cut()
            raise Forgotten
        taken = int(answer.get("h", ""))
        self.out, self.stanzas, self.taken, self._sm = old.out, old.stanzas, old.taken, True
        self.taken |= set(self.out[:taken]) - {""}
        for xml in self.stanzas[taken:]:
            XmlStream.send(self, xml)

    def send(self, xml: str) -> None:
        before = len(self.out)
        super().send(xml)
        if len(self.out) > before:
            self.stanzas.append(xml)

    async def acked(self) -> set[str]:
        self.taken |= await super().acked()
        return self.taken

    async def enter(self, room: str, nick: str) -> None:
        """Joins a room, without its history; returns when it is in."""
        self.send(f"<presence to='{room}/{nick}'><x xmlns='{MUC}'><history maxstanzas='0'/></x></presence>")
        await self.wait_for(lambda e: e.get("from") == f"{room}/{nick}" and entered(e), timeout=LOGIN_SECONDS)

    async def found(self, room: str, nick: str, members: Sequence[str], *, private: bool) -> None:
        """Makes a room that stays, and is in it; `members` belong to it."""
        await self.enter(room, nick)
        options = (("membersonly", private), ("persistentroom", True))
        fields = "".join(
            f"<field var='muc#roomconfig_{var}'><value>{value:d}</value></field>" for var, value in options
        )
        form = f"<field var='FORM_TYPE'><value>{MUC}#roomconfig</value></field>{fields}"
        submitted = f"<x xmlns='jabber:x:data' type='submit'>{form}</x>"
        await self.iq("set", f"<query xmlns='{MUC}#owner'>{submitted}</query>", to=room)
        for account in members:
            item = f"<item jid='{account}' affiliation='member'/>"
            await self.iq("set", f"<query xmlns='{MUC}#admin'>{item}</query>", to=room)

    async def read_up_to(self, peer: str, stanza_id: str, by: str) -> None:
        """XEP-0490: returns when the server has taken it. Like `read`, which waits longer."""
        place = f"<stanza-id xmlns='{SID}' by={quoteattr(by)} id={quoteattr(stanza_id)}/>"
        item = f"<item id={quoteattr(peer)}><displayed xmlns='{MDS}'>{place}</displayed></item>"
        async with asyncio.timeout(LOGIN_SECONDS):
            await self.iq("set", f"<pubsub xmlns='{PUBSUB}'><publish node='{MDS}'>{item}</publish></pubsub>")


def entered(presence: ET.Element) -> bool:
    """The own presence in a room, or why there is none."""
    own = any(status.get("code") == "110" for status in presence.iter(f"{{{MUC}#user}}status"))
    return own or presence.get("type") == "error"
