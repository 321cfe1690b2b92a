"""What people do in rooms (XEP-0045), and what the feed says of a room in short words."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Protocol

from tests.system.prosody_server import ROOMS
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FEED, Event, FeedComponent

MUC = "http://jabber.org/protocol/muc"
_numbers = itertools.count(1)


async def enter(client: XmppClient, room: str, nick: str, *, history: int = 0) -> None:
    """Joins, or changes the nick. Returns when the room has let the client in; who was thrown out a moment ago may be
    told that only now, in a presence of the same nick.
    """
    asked = f"<x xmlns='{MUC}'><history maxstanzas='{history}'/></x>"
    client.send(f"<presence to='{room}/{nick}'>{asked}</presence>")
    await client.wait_for(lambda e: e.get("from") == f"{room}/{nick}" and is_own(e) and e.get("type") is None)


async def rename(client: XmppClient, room: str, nick: str) -> None:
    client.send(f"<presence to='{room}/{nick}'/>")
    await client.wait_for(lambda e: e.get("from") == f"{room}/{nick}" and is_own(e) and e.get("type") is None)


async def leave(client: XmppClient, room: str, nick: str) -> None:
    client.send(f"<presence to='{room}/{nick}' type='unavailable'/>")
    await client.wait_for(lambda e: e.get("from") == f"{room}/{nick}" and e.get("type") == "unavailable")


def is_own(presence: ET.Element) -> bool:
    """Status 110: the client's own presence in the room."""
    return any(s.get("code") == "110" for s in presence.iter(f"{{{MUC}#user}}status"))


async def configure(owner: XmppClient, room: str, *, members_only: bool = False, persistent: bool = True) -> None:
    """Settles the room's configuration; a new room is locked until then."""
    options = {"membersonly": members_only, "persistentroom": persistent}
    fields = "".join(f"<field var='muc#roomconfig_{k}'><value>{v:d}</value></field>" for k, v in options.items())
    form = f"<field var='FORM_TYPE'><value>{MUC}#roomconfig</value></field>{fields}"
    await owner.iq(
        "set", f"<query xmlns='{MUC}#owner'><x xmlns='jabber:x:data' type='submit'>{form}</x></query>", to=room
    )


async def affiliate(owner: XmppClient, room: str, account: str, affiliation: str, *, nick: str = "") -> None:
    reserved = f" nick='{nick}'" if nick else ""
    item = f"<item jid='{account}' affiliation='{affiliation}'{reserved}/>"
    await owner.iq("set", f"<query xmlns='{MUC}#admin'>{item}</query>", to=room)


async def kick(moderator: XmppClient, room: str, nick: str) -> None:
    await moderator.iq("set", f"<query xmlns='{MUC}#admin'><item nick='{nick}' role='none'/></query>", to=room)


async def destroy(owner: XmppClient, room: str) -> None:
    await owner.iq("set", f"<query xmlns='{MUC}#owner'><destroy/></query>", to=room)


def members(event: Event) -> dict[str, ET.Element]:
    return {m.get("jid", ""): m for m in event.element.iterfind(FEED + "m")}


def words(event: Event, names: dict[str, str]) -> str:
    """`listing: ann owner in as Ann` and the like; accounts by their names here, in alphabetical order."""
    get = event.element.get
    private = "private " if get("private") == "true" else ""
    if event.kind == "room-message":
        body = event.body or event.stanza[0].tag.rpartition("}")[2]
        return f"{private}message: {body} by {names.get(get('author', ''), get('author', 'nobody'))}"
    if event.kind != "room-members":
        return f"{event.kind} {get('state')}"
    described = []
    for account, m in members(event).items():
        presence = "in " if m.get("present") == "true" else ""
        nick = f"as {m.get('nick')} " if m.get("nick") else ""
        described.append(
            f"{names.get(account, account)} {m.get('affiliation')} {presence}{nick}{m.get('why', '')}".strip()
        )
    kind = {(True, True): "listing", (True, False): "listing begins", (False, True): "listing ends"}
    what = kind.get((get("begin") == "true", get("end") == "true"), "change")
    return f"{private}{what}: {', '.join(sorted(described))}".strip()


class RoomServer(Protocol):
    """What a server under test does for the people here. Its accounts are used by no other test."""

    told_of_rooms: dict[str, int]

    def name(self) -> str: ...
    async def client(self, jid: str) -> XmppClient: ...
    async def component(self, host: str = ...) -> FeedComponent: ...
    async def control(self, client: XmppClient, what: str, *, host: str = ..., **attributes: str) -> None: ...


class Cast:
    """Ann, who owns a room of her own, Bob, and Cid, who is not online. `feed` may be replaced."""

    def __init__(self, server: RoomServer, feed: FeedComponent) -> None:
        self.server, self.feed = server, feed
        self.room = f"room{next(_numbers)}@{ROOMS}"
        self.accounts = {name: server.name() for name in ("ann", "bob", "cid")}
        self.names = {account: name for name, account in self.accounts.items()}
        self._seen = 0
        self.ann: XmppClient
        self.bob: XmppClient

    async def arrive(self) -> None:
        self.ann = await self.server.client(f"{self.accounts['ann']}/phone")
        self.bob = await self.server.client(f"{self.accounts['bob']}/phone")

    async def open(self, *, members_only: bool = False, persistent: bool = True, members: Iterable[str] = ()) -> None:
        """Ann makes the room; what the feed says of that is passed over."""
        await enter(self.ann, self.room, "Ann")
        await configure(self.ann, self.room, members_only=members_only, persistent=persistent)
        for member in members:
            await affiliate(self.ann, self.room, self.accounts[member], "member")
        await self.said()

    async def depart(self) -> None:
        await self.ann.close()
        await self.bob.close()

    def say(self, client: XmppClient, text: str) -> None:
        client.message(self.room, f"<body>{text}</body>", kind="groupchat")

    async def events(self) -> list[Event]:
        """What the feed has said of the room since this was asked last."""
        for client in (self.ann, self.bob):
            await client.ping()
        await self.server.control(self.ann, "settle", room=self.room)
        await self.feed.caught_up()
        new = [e for e in self.feed.events[self._seen :] if e.element.get("account") == self.room]
        self._seen = len(self.feed.events)
        return new

    async def said(self) -> list[str]:
        return [words(event, self.names) for event in await self.events()]

    async def subscribed_again(self) -> None:
        self.feed, self._seen = await self.server.component(ROOMS), 0
        await self.feed.subscribe(self.server.told_of_rooms)
