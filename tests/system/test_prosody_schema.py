"""What mod_convsync_feed sends under a real Prosody is what docs/feed.rng says; so is what a component asks."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.system.feed_schema import elements, faults
from tests.system.prosody_server import COMPONENT, DOMAIN, ROOMS, SECRET, prosody_of_its_own
from tests.system.room_client import affiliate, configure, destroy, enter, kick, leave
from tests.system.xmpp_client import StanzaError, XmppClient
from tests.system.xmpp_component import FEED, NS, FeedComponent

BLOCKING, BOOKMARKS = "urn:xmpp:blocking", "urn:xmpp:bookmarks:1"
KINDS = {"message", "session", "account", "pep", "subscription", "blocklist", "gap"}
ROOM_KINDS = {"room-message", "room-members", "room"}


class Recorder(FeedComponent):
    """Remembers what it sent."""

    def __init__(self, jid: str, host: str) -> None:
        super().__init__(jid, host)
        self.sent: list[ET.Element] = []

    def send(self, xml: str) -> None:
        super().send(xml)
        if not xml.startswith("<stream:"):
            self.sent.append(ET.fromstring(xml))  # noqa: S314 - our own


async def live(one: XmppClient, other: XmppClient) -> None:
    """A bit of everything that is an event."""
    for inner in ("<body>hi</body>", "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>"):
        one.message(other.account, inner)
    one.chat(None, "to myself")
    one.chat(f"nobody@{DOMAIN}", "bounces")
    one.send(f"<presence type='subscribe' to='{other.account}'/>")
    await other.wait_for(lambda e: e.get("type") == "subscribe", past=True)
    other.send(f"<presence type='subscribed' to='{one.account}'/>")
    for action in ("block", "unblock"):
        await one.iq("set", f"<{action} xmlns='{BLOCKING}'><item jid='spam.example'/></{action}>")
    item = f"<item id='tea@{ROOMS}'><conference xmlns='{BOOKMARKS}' name='Tea'/></item>"
    for action in (f"<publish node='{BOOKMARKS}'>{item}</publish>", f"<retract node='{BOOKMARKS}'>{item}</retract>"):
        await one.iq("set", f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{action}</pubsub>")
    room = f"tea@{ROOMS}"
    await enter(one, room, 'Ann "A"')
    await configure(one, room, members_only=True)
    await affiliate(one, room, other.account, "member")
    await enter(other, room, "Bob")
    other.message(room, "<body>in the room</body>", kind="groupchat")
    await kick(one, room, "Bob")
    await affiliate(one, room, other.account, "outcast")
    await enter(one, f"short@{ROOMS}", "Ann")
    await configure(one, f"short@{ROOMS}")
    await destroy(one, f"short@{ROOMS}")
    await leave(one, room, 'Ann "A"')


async def ask(feed: FeedComponent, account: str) -> None:
    """Every request, after whatever has happened."""
    for kind, payload in (
        ("get", f"<sessions xmlns='{NS}'/>"),
        ("get", f"<accounts xmlns='{NS}' max='3'/>"),
        ("get", f"<account xmlns='{NS}' account='{account}'/>"),
        ("get", f"<archive xmlns='{NS}' account='{account}' start='0' max='2'/>"),
    ):
        await feed.ask(kind, payload)
    await feed.deliver(account, f"<message xmlns='jabber:client' from='{COMPONENT}'><body>note</body></message>")
    with pytest.raises(StanzaError):
        await feed.ask("set", f"<subscribe xmlns='{NS}' versions='9' buckets='0-255'/>")


async def test_all_that_is_said_fits_the_schema(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        one, other = await prosody.client(f"{prosody.name()}/a", sm=True), await prosody.client(f"{prosody.name()}/b")
        await live(one, other)
        leaving = await prosody.client(f"{prosody.name()}/c")
        leaving.send("<iq type='set' id='rm'><query xmlns='jabber:iq:register'><remove/></query></iq>")
        await one.cut()
        feed = await Recorder.connect(COMPONENT, SECRET, prosody.component_port, host=DOMAIN)
        await feed.subscribe()
        other.chat(one.account, "while it sleeps")
        await feed.message("while it sleeps")
        await ask(feed, one.account)
        feed.ack_all()
        feed.host = ROOMS
        await feed.subscribe()
        await feed.caught_up()
        await feed.ask("get", f"<accounts xmlns='{NS}'/>")
        await feed.ask("get", f"<archive xmlns='{NS}' account='tea@{ROOMS}'/>")
        feed.host = DOMAIN
        for action in ("unload", "load"):
            await prosody.control(other, action)
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        feed.events.clear()
        await feed.subscribe()
        await feed.event(lambda e: e.kind == "gap")
        said = [*elements(feed.received), *elements(feed.sent)]
        assert [fault for element in said for fault in faults(element)] == []
        assert {e.get("kind") for element in said for e in element.iter(f"{FEED}event")} == KINDS | ROOM_KINDS
        names = {element.tag.removeprefix(FEED) for element in said}
        wanted = (
            "subscribe hello started feed ack deliver delivered sessions accounts account archive unsupported-version"
        )
        assert names == set(wanted.split())
        states = {
            s.get("state") for element in said for s in element.iter() if s.get("acked") and s.tag != f"{FEED}stream"
        }
        assert states == {"hibernated"}


@pytest.mark.parametrize(
    "element",
    [
        f"<feed xmlns='{NS}' stream='s' shard='0' last='1' head='1'/>",
        f"<feed xmlns='{NS}' stream='s' shard='0' last='1' head='1'>"
        "<event n='1' kind='news' account='a@b' at='1'/></feed>",
        f"<feed xmlns='{NS}' stream='s' shard='0' last='0' head='1'>"
        "<event n='0' kind='gap' account='b' at='1' reason='full'/></feed>",
        f"<ack xmlns='{NS}' stream='s' n='-1'/>",
        f"<sessions xmlns='{NS}'><session jid='a@b/c' state='active' acked='1'/></sessions>",
        f"<archive xmlns='{NS}' account='a@b' last='true'/>",
    ],
)
def test_the_schema_refuses_what_is_wrong(element: str) -> None:
    assert faults(ET.fromstring(element))  # noqa: S314 - written here
