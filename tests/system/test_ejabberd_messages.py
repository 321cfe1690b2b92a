"""What mod_convsync_feed says of messages, sessions and accounts, under a real ejabberd (docs/feed.md §5)."""

from pathlib import Path

import pytest

from tests.system.ejabberd_server import Ejabberd, ejabberd_of_its_own
from tests.system.prosody_server import COMPONENT, DOMAIN
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import NS, FeedComponent, of, settled, states

pytest_plugins = ("tests.system.ejabberd_feed",)

CLIENT = "{jabber:client}"
JMI = "urn:xmpp:jingle-message:0"
MARKERS = "urn:xmpp:chat-markers:0"
MINUTE = 60_000_000  # microseconds


# ---- §5: which messages are events ---------------------------------------------------------------------------------


async def test_a_message_is_one_event_out_and_one_in(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client, laptop = await ejabberd.client(f"{one}/phone"), await ejabberd.client(f"{other}/laptop")
    client.chat(other, "to bare")
    client.chat(laptop.jid, "to full")
    client.chat(f"{other}/gone", "to a resource that is not there")
    await settled(feed, client, laptop)
    user, peer = one.partition("@")[0], other.partition("@")[0]
    expected = ["to bare", "to full", "to a resource that is not there"]
    assert of(feed, one) == [(user, "out", body) for body in expected]
    assert of(feed, other) == [(peer, "in", body) for body in expected]
    out, into = await feed.message("to full", "out"), await feed.message("to full")
    assert out.element.get("resource") == "phone"
    assert into.element.get("resource") == "laptop"
    assert (await feed.message("to bare")).element.get("resource") is None
    for event, account in ((out, one), (into, other)):  # each side names its own archive's id, and it is in the stanza
        named = [s.attrib for s in event.stanza.iterfind("{urn:xmpp:sid:0}stanza-id")]
        assert {"by": account, "id": event.element.get("archive-id")} in named
    assert out.element.get("archive-id") != into.element.get("archive-id")
    assert abs(int(into.element.get("at", "")) - int(out.element.get("at", ""))) < MINUTE
    await client.close()
    await laptop.close()


@pytest.mark.parametrize(
    ("inner", "archived"),
    [
        (f"<displayed xmlns='{MARKERS}' id='m1'/>", False),
        (f"<propose xmlns='{JMI}' id='c1'/>", False),
        (f"<propose xmlns='{JMI}' id='c1'/><store xmlns='urn:xmpp:hints'/>", True),
    ],
)
async def test_a_bodiless_message_has_an_archive_id_where_the_server_keeps_it(
    ejabberd: Ejabberd, feed: FeedComponent, inner: str, archived: bool
) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    sent = client.message(other, inner)
    for direction in ("out", "in"):
        event = await feed.event(
            lambda e, d=direction: (
                e.kind == "message" and e.stanza.get("id") == sent and e.element.get("direction") == d
            )
        )
        assert (event.element.get("archive-id") is not None) == archived
    await client.close()


async def test_what_the_archive_does_not_keep_comes_without_an_id(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    client.message(ejabberd.name(), "<body>ephemeral</body><no-store xmlns='urn:xmpp:hints'/>")
    assert (await feed.message("ephemeral")).element.get("archive-id") is None
    await client.close()


async def test_a_message_to_an_offline_account_comes_once_and_not_again_at_login(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    client.chat(other, "offline")
    assert states(await feed.message("offline")) == {}
    late = await ejabberd.client(f"{other}/late")
    await late.wait_for(lambda e: e.findtext(CLIENT + "body") == "offline", past=True)
    await settled(feed, late)
    assert len(of(feed, other)) == 1
    await client.close()
    await late.close()


async def test_carbons_and_further_resources_are_no_events(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a", carbons=True)
    also = await ejabberd.client(f"{one}/b", carbons=True)
    receivers = [await ejabberd.client(f"{other}/{r}", carbons=True) for r in ("x", "y")]
    client.chat(other, "copied")
    await also.wait_for(lambda e: e.find("{urn:xmpp:carbons:2}sent") is not None, past=True)
    for receiver in receivers:
        await receiver.wait_for(lambda e: e.findtext(CLIENT + "body") == "copied", past=True)
    await settled(feed, client, also, *receivers)
    assert (len(of(feed, one)), len(of(feed, other))) == (1, 1)
    for session in (client, also, *receivers):
        await session.close()


@pytest.mark.parametrize("how", ["nothing", "bare", "full"])
async def test_a_message_to_oneself_is_one_event(ejabberd: Ejabberd, feed: FeedComponent, how: str) -> None:
    one = ejabberd.name()
    client, other = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{one}/b")
    client.chat({"nothing": None, "bare": one, "full": other.jid}[how], f"self {how}")
    event = await feed.message(f"self {how}")
    await settled(feed, client)
    assert len(of(feed, one)) == 1
    assert event.element.get("to-self") == "true"
    assert event.stanza.get("to") == (other.jid if how == "full" else one)
    await client.close()
    await other.close()


async def test_a_bounce_of_this_server_is_an_event_of_the_sender(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    sent = client.message(f"nobody@{DOMAIN}", f"<propose xmlns='{JMI}' id='c9'/>")
    bounce = await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")
    assert (bounce.stanza.get("id"), bounce.element.get("account")) == (sent, one)
    await settled(feed, client)
    assert not of(feed, f"nobody@{DOMAIN}")  # an account that does not exist never has events
    assert len([e for e in feed.events if e.kind == "message" and e.stanza.get("type") == "error"]) == 1
    await client.close()


async def test_a_bounce_from_elsewhere_is_one_event(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    client.chat("friend@elsewhere.example", "far away")
    error = await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")
    assert error.stanza.get("from") == "friend@elsewhere.example"
    await settled(feed, client)
    assert [direction for _, direction, _ in of(feed, one)] == ["out", "in"]
    await client.close()


async def test_a_blocked_sender_makes_no_event_for_the_one_who_blocks(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client, blocker = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{other}/a")
    await blocker.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{one}'/></block>")
    sent = client.chat(other, "unwanted")
    await client.wait_for(lambda e: e.get("type") == "error" and e.get("id") == sent, past=True)
    await settled(feed, client)
    assert of(feed, other) == []
    assert [w[1] for w in of(feed, one)] == ["out", "in"]  # sent, and bounced
    blocker.chat(one, "refused")
    await settled(feed, blocker)
    assert of(feed, other) == []
    await client.close()
    await blocker.close()


async def test_groupchat_and_pep_notifications_are_no_events(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    room = f"room-{one.partition('@')[0]}@conference.{DOMAIN}"
    client.send(f"<presence to='{room}/nick'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    await client.wait_for(lambda e: e.get("from") == f"{room}/nick", past=True)
    client.message(room, "<body>all</body>", kind="groupchat")
    await client.wait_for(lambda e: e.findtext(CLIENT + "body") == "all", past=True)
    await client.iq(
        "set",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='http://jabber.org/protocol/nick'>"
        "<item><nick xmlns='http://jabber.org/protocol/nick'>n</nick></item></publish></pubsub>",
    )
    await settled(feed, client)
    assert of(feed, one) == []
    await client.close()


async def test_known_is_a_subscription_in_the_roster(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client, friend = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{other}/a")
    friend.chat(one, "stranger")
    assert (await feed.message("stranger")).element.get("known") is None
    client.send(f"<presence to='{other}' type='subscribe'/>")
    await friend.wait_for(lambda e: e.get("type") == "subscribe", past=True)
    friend.send(f"<presence to='{one}' type='subscribed'/>")
    await settled(feed, friend, client)
    friend.chat(one, "friend")
    assert (await feed.message("friend")).element.get("known") == "true"
    await client.close()
    await friend.close()


async def test_the_components_own_messages_are_no_events(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    feed.send(f"<message from='{COMPONENT}' to='{one}' id='own'><body>by the component</body></message>")
    inner = f"<body>in a name</body><convsync xmlns='{NS}'/>"
    marked = f"<message xmlns='jabber:client' from='{other}' to='{one}' id='mark'>{inner}</message>"
    feed.send(
        f"<message from='{COMPONENT}' to='{DOMAIN}'><privilege xmlns='urn:xmpp:privilege:1'>"
        f"<forwarded xmlns='urn:xmpp:forward:0'>{marked}</forwarded></privilege></message>"
    )
    for message_id in ("own", "mark"):
        await client.wait_for(lambda e, i=message_id: e.get("id") == i, past=True)
    await settled(feed, client)
    assert of(feed, one, other) == []
    client.message(other, f"<body>hidden?</body><convsync xmlns='{NS}'/>")  # a client's mark means nothing
    await feed.message("hidden?", "in")
    await feed.message("hidden?", "out")
    await client.close()


async def test_a_callback_that_fails_harms_neither_the_message_nor_the_feed(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.feed()
        one, other = ejabberd.name(), ejabberd.name()
        client, friend = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{other}/a")
        client.message(other, "<body>broken</body><broken xmlns='urn:convsync:test'/>")
        await friend.wait_for(lambda e: e.findtext(CLIENT + "body") == "broken", past=True)
        client.chat(other, "next")
        await feed.message("next")
        assert await ejabberd.logged("A callback failed")
        gap = await feed.event(lambda e: e.kind == "gap")  # the event is lost: the component is told
        assert (gap.n, gap.element.get("account")) == (1, DOMAIN)


# ---- §5: sessions and accounts -------------------------------------------------------------------------------------


async def test_the_life_of_a_session(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/phone", presence=False, sm=True)
    await client.available()
    await client.csi("inactive")
    await client.csi("active")
    await client.unavailable()
    await client.available()
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await ejabberd.client(f"{one}/phone", resume=client)
    await again.close()
    await feed.event(lambda e: e.element.get("state") == "unbound" and e.element.get("account") == one)
    lived = " ".join(e.element.get("state", "") for e in feed.events if e.element.get("account") == one)
    assert lived == "bound available inactive active unavailable available hibernated resumed unbound"


async def test_a_message_says_how_attentive_each_session_is(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    sessions = [await ejabberd.client(f"{one}/{r}", sm=True) for r in ("active", "inactive", "hibernated")]
    await sessions[1].csi("inactive")
    await sessions[2].cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    bound = await ejabberd.client(f"{one}/bound", presence=False)
    sender = await ejabberd.client(f"{ejabberd.name()}/a")
    sender.chat(one, "look")
    assert states(await feed.message("look")) == {name: name for name in ("active", "inactive", "hibernated", "bound")}
    for session in (*sessions[:2], bound, sender):
        await session.close()


async def test_resending_by_stream_management_is_no_event(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client, sender = await ejabberd.client(f"{one}/a", sm=True), await ejabberd.client(f"{ejabberd.name()}/a")
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    sender.chat(one, "slept")
    await feed.message("slept")
    again = await ejabberd.client(f"{one}/a", resume=client)
    await again.wait_for(lambda e: e.findtext(CLIENT + "body") == "slept", past=True)
    await settled(feed, again)
    assert len(of(feed, one)) == 1
    await again.close()
    await sender.close()


async def test_a_bounce_that_is_resent_is_no_second_event(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a", sm=True)
    client.forgetful = True
    client.chat(f"nobody@{DOMAIN}", "bounces")
    await client.wait_for(lambda e: e.get("type") == "error", past=True)
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await ejabberd.client(f"{one}/a", resume=client)
    await again.wait_for(lambda e: e.get("type") == "error", past=True)
    await settled(feed, again)
    assert [direction for _, direction, _ in of(feed, one)] == ["out", "in"]
    await again.close()


async def test_accounts_that_are_made_and_deleted(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    registering = XmppClient(f"newcomer@{DOMAIN}", "pw")
    await registering.open("127.0.0.1", ejabberd.c2s_port, registering._header())
    await registering.iq(
        "set", "<query xmlns='jabber:iq:register'><username>newcomer</username><password>pw</password></query>"
    )
    await feed.event(lambda e: e.what == ("newcomer", "", "created"))
    await registering.cut()
    newcomer = await XmppClient.connect(f"newcomer@{DOMAIN}/a", "pw", ejabberd.c2s_port)
    newcomer.send("<iq type='set' id='rm'><query xmlns='jabber:iq:register'><remove/></query></iq>")
    await feed.event(lambda e: e.what == ("newcomer", "", "deleted"))
    client.chat(f"newcomer@{DOMAIN}", "too late")
    await settled(feed, client)
    assert of(feed, f"newcomer@{DOMAIN}") == []
    await client.close()
