"""What people do in rooms (XEP-0045), and what the feed says of a room in short words."""

import xml.etree.ElementTree as ET

from xmpp_client import XmppClient
from xmpp_component import FEED, Event, FeedComponent

MUC = "http://jabber.org/protocol/muc"


async def enter(client: XmppClient, room: str, nick: str, *, history: int = 0) -> None:
    """Joins, or changes the nick. Returns when the room has let the client in."""
    asked = f"<x xmlns='{MUC}'><history maxstanzas='{history}'/></x>"
    client.send(f"<presence to='{room}/{nick}'>{asked}</presence>")
    await client.wait_for(lambda e: e.get("from") == f"{room}/{nick}" and is_own(e))


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


def said(feed: FeedComponent, room: str, names: dict[str, str]) -> list[str]:
    """All that the feed has said of the room."""
    return [words(event, names) for event in feed.events if event.element.get("account") == room]
