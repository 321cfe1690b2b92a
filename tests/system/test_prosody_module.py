"""mod_convsync_feed under a real Prosody: every rule of docs/feed.md that the module keeps. Section numbers are its."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from prosody_server import COMPONENT, DOMAIN, ROOT, SECRET, Prosody
from xmpp_client import StanzaError, XmppClient
from xmpp_component import FEED, NS, Event, FeedComponent

from sync.sandbox.launch import LaunchError
from sync.sandbox.prosody import DELEGATED, find_prosody

CLIENT = "{jabber:client}"
SESSIONS = f"<sessions xmlns='{NS}'/>"
JMI = "urn:xmpp:jingle-message:0"
MARKERS = "urn:xmpp:chat-markers:0"


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prosody]:
    prosody = Prosody(tmp_path_factory.mktemp("prosody"))
    await prosody.start()
    yield prosody
    prosody.stop()


@pytest_asyncio.fixture
async def feed(server: Prosody) -> AsyncIterator[FeedComponent]:
    component = await server.feed()
    yield component
    if not component.closed:
        server.told |= component.ack_all()
        await component.caught_up()
        await component.cut()


@asynccontextmanager
async def prosody_of_its_own(folder: Path, **options: str | int) -> AsyncIterator[Prosody]:
    prosody = Prosody(folder, **options)
    await prosody.start()
    try:
        yield prosody
    finally:
        prosody.kill()


def states(event: Event) -> dict[str, str]:
    return {s.get("r", ""): s.get("state", "") for s in event.element.iterfind(f"{FEED}sessions/{FEED}s")}


def of(feed: FeedComponent, *accounts: str) -> list[tuple[str, str, str]]:
    return [e.what for e in feed.events if e.element.get("account") in accounts and e.kind == "message"]


async def settled(feed: FeedComponent, *clients: XmppClient) -> None:
    """What the clients have sent is processed, and its events are here."""
    for client in clients:
        await client.ping()
    await feed.caught_up()


# ---- §2 subscribe and hello ----------------------------------------------------------------------------------------


async def test_hello_names_the_server_its_streams_and_its_sessions(server: Prosody, feed: FeedComponent) -> None:
    phone = await server.client(f"{server.name()}/phone")
    hello = await feed.subscribe(server.told)
    assert (hello.get("version"), hello.get("server"), hello.get("host")) == ("1", "Prosody", DOMAIN)
    assert hello.get("server-version")
    assert (hello.get("shard"), hello.get("ordered-archive")) == ("0", "false")
    assert hello.findall(f"{FEED}stream")[-1].get("current") == "true"
    assert {"jid": phone.jid, "state": "active"} in [s.attrib for s in hello.iter(f"{FEED}session")]
    await phone.close()


@pytest.mark.parametrize(
    ("attributes", "children", "condition"),
    [
        ("versions='7 8' buckets='0-255'", "", "not-acceptable"),
        ("versions='1' buckets='0-127'", "", "feature-not-implemented"),
        ("buckets='0-255'", "", "bad-request"),
        ("versions='1'", "", "bad-request"),
        ("versions='1' buckets='0-255'", "<stream id='x' n='-1'/>", "bad-request"),
        ("versions='1' buckets='0-255'", "<stream n='1'/>", "bad-request"),
        ("versions='1' buckets='0-255'", "<stream id='x' n='1'/><stream id='x' n='1'/>", "bad-request"),
        ("versions='1' buckets='0-255'", "<stream id='x' n='99999999999999999999'/>", "bad-request"),
    ],
)
async def test_a_wrong_subscribe_is_refused(
    feed: FeedComponent, attributes: str, children: str, condition: str
) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.ask("set", f"<subscribe xmlns='{NS}' {attributes}>{children}</subscribe>")
    assert caught.value.condition == condition


async def test_an_unknown_version_is_told_what_is_spoken(feed: FeedComponent) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.ask("set", f"<subscribe xmlns='{NS}' versions='2' buckets='0-255'/>")
    told = caught.value.stanza.find(f"{{*}}error/{FEED}unsupported-version")
    assert told is not None
    assert told.get("versions") == "1"


@pytest.mark.parametrize("request_", [f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", SESSIONS])
async def test_nobody_but_the_component_may_ask(server: Prosody, feed: FeedComponent, request_: str) -> None:
    client = await server.client(f"{server.name()}/a")
    kind = "get" if request_ == SESSIONS else "set"
    with pytest.raises(StanzaError) as caught:
        await client.iq(kind, request_, to=DOMAIN)
    assert caught.value.condition == "forbidden"
    client.send(f"<message to='{DOMAIN}' id='ack'><ack xmlns='{NS}' stream='{feed.current}' n='1'/></message>")
    assert (await client.wait_for(lambda e: e.get("id") == "ack", past=True)).get("type") == "error"
    await client.close()


async def test_another_address_of_the_component_may_not_ask(feed: FeedComponent) -> None:
    feed.component = f"somebody@{COMPONENT}"
    with pytest.raises(StanzaError, match="forbidden"):
        await feed.ask("get", SESSIONS)
    feed.component = COMPONENT


# ---- §3 and §4: batches, window, acks ------------------------------------------------------------------------------


async def test_an_event_leaves_at_once_and_alone(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client = await server.client(f"{one}/a")
    client.chat(other, "first")
    await feed.message("first")
    batch = feed.batches[-1]
    assert (batch.get("last"), batch.get("behind"), len(batch)) == (batch.get("head"), "0", 1)
    await client.close()


async def test_a_backlog_comes_in_batches_in_order(server: Prosody) -> None:
    client = await server.client(f"{server.name()}/a")
    to = server.name()
    for i in range(200):
        client.chat(to, f"backlog {i}")
    await client.ping()  # nobody is subscribed: the outbox has it all
    feed = await server.component()
    await feed.subscribe(server.told)
    await feed.message("backlog 199")
    assert [e.body for e in feed.events if e.element.get("direction") == "in"] == [f"backlog {i}" for i in range(200)]
    assert max(len(b) for b in feed.batches) == 50
    assert int(feed.batches[0].get("behind", "")) == int(feed.batches[0].get("head", "")) - int(
        feed.batches[0].get("last", "")
    )
    server.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()
    await client.close()


async def test_a_batch_ends_at_64_kilobytes(server: Prosody) -> None:
    client = await server.client(f"{server.name()}/a")
    for i in range(8):
        client.chat(server.name(), f"{i}" + "x" * 20_000)
    await client.ping()
    feed = await server.component()
    await feed.subscribe(server.told)
    await feed.event(lambda e: (e.body or "").startswith("7x"))
    assert max(sum(e.get("kind") == "message" for e in batch) for batch in feed.batches) == 3
    assert max(len(ET.tostring(b)) for b in feed.batches) < 70_000  # serialised anew, a little longer than on the wire
    server.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()
    await client.close()


async def test_the_window_closes_at_2000_and_opens_with_an_ack(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        client = await server.client(f"{server.name()}/a")
        feed = await server.component()
        await feed.subscribe()
        to = server.name()
        for i in range(1100):  # two events each
            client.chat(to, f"{i}")
        await settled(feed, client)
        assert len(feed.events) == 2000
        feed.ack(feed.current, 10)
        await feed.caught_up()
        assert len(feed.events) == 2010
        feed.ack(feed.current, 2010)
        await feed.message("1099")
        assert [e.n for e in feed.events] == list(range(1, feed.events[-1].n + 1))
        client.chat(to, "after")  # it was behind; now an event is alone again
        await feed.message("after", "out")
        assert len(feed.batches[-1]) == 1


@pytest.mark.parametrize(("stream", "n"), [("nosuch", "1"), ("", "1"), (None, "x"), (None, "-1"), (None, "999999999")])
async def test_an_ack_that_cannot_be_is_ignored(
    server: Prosody, feed: FeedComponent, stream: str | None, n: str
) -> None:
    before = (await feed.subscribe(server.told), feed.streams())[1]
    feed.ack(feed.current if stream is None else stream, n)
    await feed.subscribe(server.told)
    assert feed.streams()[-1][2:] == before[-1][2:]
    assert "Ignored an ack" in server.log()


async def test_acks_are_cumulative_and_never_go_back(server: Prosody, feed: FeedComponent) -> None:
    client = await server.client(f"{server.name()}/a")
    client.chat(server.name(), "cumulative")
    n = (await feed.message("cumulative")).n
    feed.ack(feed.current, n)
    feed.ack(feed.current, n - 1)
    await feed.subscribe({feed.current: n})
    assert feed.streams()[-1][3] == n
    server.told[feed.current] = n
    await client.close()


async def test_subscribing_again_sends_again_what_is_not_acked(server: Prosody, feed: FeedComponent) -> None:
    client = await server.client(f"{server.name()}/a")
    client.chat(server.name(), "again")
    first = await feed.message("again")
    feed.events.clear()
    await feed.subscribe(server.told)
    assert (await feed.message("again")).n == first.n
    await client.close()


# ---- §5: which messages are events ---------------------------------------------------------------------------------


async def test_a_message_is_one_event_out_and_one_in(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client, laptop = await server.client(f"{one}/phone"), await server.client(f"{other}/laptop")
    client.chat(other, "to bare")
    client.chat(laptop.jid, "to full")
    client.chat(f"{other}/gone", "to a resource that is not there")
    await settled(feed, client)
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
    assert abs(int(into.element.get("at", "")) - int(out.element.get("at", ""))) < 5_000_000
    await client.close()
    await laptop.close()


@pytest.mark.parametrize(
    "inner",
    [
        f"<propose xmlns='{JMI}' id='c1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>",
        f"<displayed xmlns='{MARKERS}' id='m1'/>",
        f"<propose xmlns='{JMI}' id='c1'/><store xmlns='urn:xmpp:hints'/>",
    ],
)
async def test_bodiless_messages_come_with_their_archive_id(server: Prosody, feed: FeedComponent, inner: str) -> None:
    one, other = server.name(), server.name()
    client = await server.client(f"{one}/a")
    sent = client.message(other, inner)
    for direction in ("out", "in"):
        event = await feed.event(
            lambda e, d=direction: (
                e.kind == "message" and e.stanza.get("id") == sent and e.element.get("direction") == d
            )
        )
        assert event.element.get("archive-id")
    await client.close()


async def test_what_the_archive_does_not_keep_comes_without_an_id(server: Prosody, feed: FeedComponent) -> None:
    client = await server.client(f"{server.name()}/a")
    client.message(server.name(), "<body>ephemeral</body><no-store xmlns='urn:xmpp:hints'/>")
    assert (await feed.message("ephemeral")).element.get("archive-id") is None
    await client.close()


async def test_a_message_to_an_offline_account_comes_once_and_not_again_at_login(
    server: Prosody, feed: FeedComponent
) -> None:
    one, other = server.name(), server.name()
    client = await server.client(f"{one}/a")
    client.chat(other, "offline")
    assert states(await feed.message("offline")) == {}
    late = await server.client(f"{other}/late")
    await late.wait_for(lambda e: e.findtext(CLIENT + "body") == "offline", past=True)
    await settled(feed, late)
    assert len(of(feed, other)) == 1
    await client.close()
    await late.close()


async def test_carbons_and_further_resources_are_no_events(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client = await server.client(f"{one}/a", carbons=True)
    also = await server.client(f"{one}/b", carbons=True)
    receivers = [await server.client(f"{other}/{r}", carbons=True) for r in ("x", "y")]
    client.chat(other, "copied")
    await also.wait_for(lambda e: e.find("{urn:xmpp:carbons:2}sent") is not None, past=True)
    for receiver in receivers:
        await receiver.wait_for(lambda e: e.findtext(CLIENT + "body") == "copied", past=True)
    await settled(feed, client, also, *receivers)
    assert (len(of(feed, one)), len(of(feed, other))) == (1, 1)
    for session in (client, also, *receivers):
        await session.close()


@pytest.mark.parametrize("how", ["nothing", "bare", "full"])
async def test_a_message_to_oneself_is_one_event(server: Prosody, feed: FeedComponent, how: str) -> None:
    one = server.name()
    client, other = await server.client(f"{one}/a"), await server.client(f"{one}/b")
    client.chat({"nothing": None, "bare": one, "full": other.jid}[how], f"self {how}")
    event = await feed.message(f"self {how}")
    await settled(feed, client)
    assert len(of(feed, one)) == 1
    assert event.element.get("to-self") == "true"
    assert event.stanza.get("to") == (other.jid if how == "full" else one)
    await client.close()
    await other.close()


async def test_a_bounce_of_this_server_is_an_event_of_the_sender(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client = await server.client(f"{one}/a")
    sent = client.message(f"nobody@{DOMAIN}", f"<propose xmlns='{JMI}' id='c9'/>")
    bounce = await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")
    assert (bounce.stanza.get("id"), bounce.element.get("account")) == (sent, one)
    await settled(feed, client)
    assert not of(feed, f"nobody@{DOMAIN}")  # an account that does not exist never has events
    assert len([e for e in feed.events if e.kind == "message" and e.stanza.get("type") == "error"]) == 1
    await client.close()


async def test_a_bounce_from_elsewhere_is_one_event(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client = await server.client(f"{one}/a")
    client.chat("friend@elsewhere.example", "far away")
    error = await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")
    assert error.stanza.get("from") == "friend@elsewhere.example"
    await settled(feed, client)
    assert [direction for _, direction, _ in of(feed, one)] == ["out", "in"]
    await client.close()


async def test_a_blocked_sender_makes_no_event_for_the_one_who_blocks(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client, blocker = await server.client(f"{one}/a"), await server.client(f"{other}/a")
    await blocker.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{one}'/></block>")
    client.chat(other, "unwanted")
    await settled(feed, client)
    assert of(feed, other) == []
    assert [w[1] for w in of(feed, one)] == ["out", "in"]  # sent, and bounced
    blocker.chat(one, "refused")
    await settled(feed, blocker)
    assert of(feed, other) == []
    await client.close()
    await blocker.close()


async def test_groupchat_and_pep_notifications_are_no_events(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client = await server.client(f"{one}/a")
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


async def test_known_is_a_subscription_in_the_roster(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client, friend = await server.client(f"{one}/a"), await server.client(f"{other}/a")
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


async def test_the_components_own_messages_are_no_events(server: Prosody, feed: FeedComponent) -> None:
    one, other = server.name(), server.name()
    client = await server.client(f"{one}/a")
    feed.send(f"<message from='{COMPONENT}' to='{one}' id='own'><body>by the component</body></message>")
    inner = f"<body>in a name</body><convsync xmlns='{NS}'/>"
    marked = f"<message xmlns='jabber:client' from='{other}' to='{one}' id='mark'>{inner}</message>"
    feed.send(
        f"<message from='{COMPONENT}' to='{DOMAIN}'><privilege xmlns='urn:xmpp:privilege:2'>"
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
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.feed()
        one, other = server.name(), server.name()
        client, friend = await server.client(f"{one}/a"), await server.client(f"{other}/a")
        client.message(other, "<body>broken</body><broken xmlns='urn:convsync:test'/>")
        await friend.wait_for(lambda e: e.findtext(CLIENT + "body") == "broken", past=True)
        client.chat(other, "next")
        await feed.message("next")
        assert "A callback failed" in server.log()
        gap = await feed.event(lambda e: e.kind == "gap")  # the event is lost: the component is told
        assert (gap.n, gap.element.get("account")) == (1, DOMAIN)


# ---- §5: sessions and accounts -------------------------------------------------------------------------------------


async def test_the_life_of_a_session(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client = await server.client(f"{one}/phone", presence=False, sm=True)
    await client.available()
    await client.csi("inactive")
    await client.csi("active")
    await client.unavailable()
    await client.available()
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await server.client(f"{one}/phone", resume=client)
    await again.close()
    await feed.event(lambda e: e.element.get("state") == "unbound" and e.element.get("account") == one)
    lived = " ".join(e.element.get("state", "") for e in feed.events if e.element.get("account") == one)
    assert lived == "bound available inactive active unavailable available hibernated resumed unbound"


async def test_a_message_says_how_attentive_each_session_is(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    sessions = [await server.client(f"{one}/{r}", sm=True) for r in ("active", "inactive", "hibernated")]
    await sessions[1].csi("inactive")
    await sessions[2].cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    bound = await server.client(f"{one}/bound", presence=False)
    sender = await server.client(f"{server.name()}/a")
    sender.chat(one, "look")
    assert states(await feed.message("look")) == {name: name for name in ("active", "inactive", "hibernated", "bound")}
    for session in (*sessions[:2], bound, sender):
        await session.close()


async def test_resending_by_stream_management_is_no_event(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client, sender = await server.client(f"{one}/a", sm=True), await server.client(f"{server.name()}/a")
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    sender.chat(one, "slept")
    await feed.message("slept")
    again = await server.client(f"{one}/a", resume=client)
    await again.wait_for(lambda e: e.findtext(CLIENT + "body") == "slept", past=True)
    await settled(feed, again)
    assert len(of(feed, one)) == 1
    await again.close()
    await sender.close()


async def test_a_bounce_that_is_resent_is_no_second_event(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    client = await server.client(f"{one}/a", sm=True)
    client.forgetful = True
    client.chat(f"nobody@{DOMAIN}", "bounces")
    await client.wait_for(lambda e: e.get("type") == "error", past=True)
    await client.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await server.client(f"{one}/a", resume=client)
    await again.wait_for(lambda e: e.get("type") == "error", past=True)
    await settled(feed, again)
    assert [direction for _, direction, _ in of(feed, one)] == ["out", "in"]
    await again.close()


async def test_accounts_that_are_made_and_deleted(server: Prosody, feed: FeedComponent) -> None:
    client = await server.client(f"{server.name()}/a")
    registering = XmppClient(f"newcomer@{DOMAIN}", "pw")
    await registering.open("127.0.0.1", server.c2s_port, registering._header())
    await registering.iq(
        "set", "<query xmlns='jabber:iq:register'><username>newcomer</username><password>pw</password></query>"
    )
    await feed.event(lambda e: e.what == ("newcomer", "", "created"))
    await registering.cut()
    newcomer = await XmppClient.connect(f"newcomer@{DOMAIN}/a", "pw", server.c2s_port)
    newcomer.send("<iq type='set' id='rm'><query xmlns='jabber:iq:register'><remove/></query></iq>")
    await feed.event(lambda e: e.what == ("newcomer", "", "deleted"))
    client.chat(f"newcomer@{DOMAIN}", "too late")
    await settled(feed, client)
    assert of(feed, f"newcomer@{DOMAIN}") == []
    await client.close()


# ---- §6: lost memory -----------------------------------------------------------------------------------------------


async def test_a_killed_server_loses_no_event(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.component()
        await feed.subscribe()
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        for i in range(20):
            client.chat(to, f"kept {i}")
        await feed.message("kept 19")
        sent = [(e.n, e.what) for e in feed.events]
        old = feed.current
        feed.ack(old, 10)
        await feed.caught_up()
        server.kill()
        await server.start()
        again = await server.component()
        await again.subscribe({old: 10})
        assert again.streams()[0] == (old, 11, sent[-1][0], 10)
        assert again.current != old
        await again.until(lambda: again.events[-1:] != [] and again.events[-1].n == sent[-1][0])
        assert [(e.n, e.what) for e in again.events] == sent[10:]
        assert again.hello.find(f"{FEED}regressed") is None


async def test_events_wait_for_a_component_that_is_away(server: Prosody) -> None:
    client = await server.client(f"{server.name()}/a")
    feed = await server.feed()
    await feed.cut()
    client.chat(server.name(), "meanwhile")
    await client.ping()
    again = await server.component()
    await again.subscribe(server.told)
    await again.message("meanwhile")
    server.told |= again.ack_all()
    await again.caught_up()
    await again.cut()
    await client.close()


async def test_a_second_connection_replaces_the_first(server: Prosody, feed: FeedComponent) -> None:
    again = await server.component()
    await again.subscribe(server.told)
    client = await server.client(f"{server.name()}/a")
    client.chat(server.name(), "to the second")
    await again.message("to the second")
    assert feed.closed
    await again.cut()
    await client.close()


async def test_a_component_that_forgot_is_named(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.feed()
        client = await server.client(f"{server.name()}/a")
        client.chat(server.name(), "seen")
        await feed.message("seen")
        feed.ack_all()
        for told in ({feed.current: 1}, {}):  # an older copy of the database, and an empty one
            hello = await feed.subscribe(told)
            assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [feed.current]
        old, acked = feed.current, feed.streams()[-1][3]
        server.stop()
        await server.start()
        again = await server.component()
        hello = await again.subscribe({})  # a finished stream stays as the mark until a newer one has an ack
        assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [old]
        hello = await again.subscribe({old: acked + 100})
        assert hello.find(f"{FEED}regressed") is None
        assert again.streams()[0][2] >= acked  # it claims more than there is: high tells


@pytest.mark.parametrize("damage", ["torn", "flipped", "lost"])
async def test_a_damaged_outbox_is_a_gap(tmp_path: Path, damage: str) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        for i in range(5):
            client.chat(to, f"e{i}")
        await client.ping()
        server.stop()
        segment = next(server.outbox.glob("*.seg"))
        content = segment.read_bytes()
        if damage == "torn":
            segment.write_bytes(content[:-7])
        elif damage == "flipped":
            segment.write_bytes(content.replace(b"<body>e3</body>", b"<body>e#</body>"))
        else:
            segment.unlink()
        await server.start()
        feed = await server.component()
        await feed.subscribe()
        gap = await feed.event(lambda e: e.kind == "gap")
        assert (gap.n, gap.stream, gap.element.get("reason")) == (1, feed.current, "torn")
        bodies = [e.body for e in feed.events if e.body]
        assert bodies[::2] == bodies[1::2] or damage == "flipped"
        assert {"torn": "e4" in bodies, "flipped": "e2" in bodies and "e4" not in bodies, "lost": not bodies}[damage]
        assert "Dropped" in server.log() or damage == "lost"


async def test_a_full_outbox_begins_anew_with_a_gap(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max=1) as server:
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        await client.ping()
        assert sum(f.stat().st_size for f in server.outbox.iterdir()) < 2_200_000
        feed = await server.component()
        await feed.subscribe()
        await feed.message("newest")
        assert feed.events[0].kind == "gap"
        assert feed.events[0].element.get("reason") == "full"


async def test_a_full_outbox_while_subscribed_goes_on_in_a_new_stream(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max=1) as server:
        feed = await server.feed()
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        newest = await feed.message("newest")
        assert newest.stream != feed.current
        feed.ack(feed.current, 3)  # of the stream that was given up
        feed.ack(newest.stream, newest.n)
        hello = await feed.subscribe({newest.stream: newest.n})
        assert [s.get("id") for s in hello.iter(f"{FEED}stream")] == [newest.stream]


async def test_acked_files_go(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.feed()
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        for i in range(100):
            client.chat(to, f"{i}" + "x" * 20_000)
        client.chat(to, "end")
        await feed.message("end")
        assert len(list(server.outbox.glob("*.seg"))) >= 4
        feed.ack_all()
        await feed.caught_up()
        assert len(list(server.outbox.glob("*.seg"))) <= 1


async def test_reloading_loses_nothing_and_asks_the_component_to_subscribe(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.feed()
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        client.chat(to, "before")
        await feed.message("before")
        old = feed.current
        await server.control(client, "reload")
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        client.chat(to, "after")
        await client.ping()
        feed.events.clear()
        await feed.subscribe(server.told)
        after = await feed.message("after")
        assert (await feed.message("before")).stream == old
        assert after.stream == feed.current != old
        assert not [e for e in feed.events if e.kind == "gap"]
        client.chat(f"nobody@{DOMAIN}", "bounce")  # the session is older than the module
        await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")


async def test_a_module_that_was_unloaded_says_that_it_missed_something(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as server:
        feed = await server.feed()
        client = await server.client(f"{server.name()}/a")
        to = server.name()
        client.chat(to, "before")
        await feed.message("before")
        await server.control(client, "unload")
        client.chat(to, "unseen")
        await server.control(client, "load")
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        feed.events.clear()
        await feed.subscribe(server.told)
        await feed.message("before")
        assert (await feed.event(lambda e: e.kind == "gap")).element.get("reason") == "unloaded"


# ---- §8 requests, §9 stream feature --------------------------------------------------------------------------------


def note(sender: str, number: int = 1) -> str:
    return f"<iq xmlns='jabber:client' type='set' id='n{number}' from='{sender}'><note xmlns='urn:test'>hi</note></iq>"


async def test_deliver_reaches_one_session_or_every_available_one(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    web, phone = await server.client(f"{one}/web", sm=True), await server.client(f"{one}/phone")
    asleep = await server.client(f"{one}/asleep", sm=True)
    silent = await server.client(f"{one}/silent", presence=False)
    await asleep.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    assert await feed.deliver(one, note(one), "web") == 1
    got = await web.wait_for(lambda e: e.get("id") == "n1", past=True)
    assert (got.tag, got.get("from"), got.get("to")) == (CLIENT + "iq", one, web.jid)
    assert await feed.deliver(one, note(DOMAIN, 2)) == 2  # not to the hibernated nor to the silent one
    await web.wait_for(lambda e: e.get("id") == "n2", past=True)
    await phone.wait_for(lambda e: e.get("id") == "n2", past=True)
    assert await feed.deliver(one, note(COMPONENT, 3), "asleep") == 0
    assert await feed.deliver(one, note(COMPONENT, 5), "silent") == 1  # named: clients sync before their first presence
    assert await feed.deliver(server.name(), note(COMPONENT, 4)) == 0
    assert [e.get("id") for e in phone.received if (e.get("id") or "").startswith("n")] == ["n2"]
    again = await server.client(f"{one}/asleep", resume=asleep)
    await again.ping()
    assert not [e for e in again.received if (e.get("id") or "").startswith("n")]
    for session in (web, phone, silent, again):
        await session.close()


async def test_a_delivery_survives_the_loss_of_the_connection(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    web = await server.client(f"{one}/web", sm=True)
    web.forgetful = True
    assert await feed.deliver(one, note(one), "web") == 1
    await web.wait_for(lambda e: e.get("id") == "n1", past=True)
    await web.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await server.client(f"{one}/web", resume=web)
    await again.wait_for(lambda e: e.get("id") == "n1", past=True)
    await again.close()


async def test_a_delivered_message_is_not_archived_and_makes_no_event(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    web = await server.client(f"{one}/web")
    other = await server.client(f"{one}/other", carbons=True)
    for kind in ("chat", "error"):
        attributes = f"xmlns='jabber:client' type='{kind}' id='d{kind}' from='{COMPONENT}'"
        stanza = f"<message {attributes}><body>secret</body></message>"
        assert await feed.deliver(one, stanza, "web") == 1
        await web.wait_for(lambda e, k=kind: e.get("id") == f"d{k}", past=True)
    await settled(feed, web, other)
    assert of(feed, one) == []
    fin = await web.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert fin.find("{urn:xmpp:mam:2}fin") is not None
    assert not [e for e in web.received if e.find("{urn:xmpp:mam:2}result") is not None]
    assert not [e for e in other.received if "secret" in ET.tostring(e, encoding="unicode")]
    await web.close()
    await other.close()


@pytest.mark.parametrize(
    ("account", "stanza", "condition"),
    [
        (f"u1@{DOMAIN}", note(f"u2@{DOMAIN}"), "forbidden"),
        (f"u1@{DOMAIN}", note("elsewhere.example"), "forbidden"),
        (f"u1@{DOMAIN}", note(""), "forbidden"),
        ("u1@elsewhere.example", note("u1@elsewhere.example"), "item-not-found"),
        (f"u1@{DOMAIN}/r", note(f"u1@{DOMAIN}"), "bad-request"),
        (DOMAIN, note(DOMAIN), "bad-request"),
        (f"u1@{DOMAIN}", "", "bad-request"),
        (f"u1@{DOMAIN}", f"<x xmlns='jabber:client' from='{DOMAIN}'/>", "bad-request"),
        (f"u1@{DOMAIN}", f"<iq xmlns='urn:other' from='{DOMAIN}'/>", "bad-request"),
    ],
)
async def test_deliver_refuses_what_it_must(feed: FeedComponent, account: str, stanza: str, condition: str) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.deliver(account, stanza)
    assert caught.value.condition == condition


async def test_sessions_lists_every_session_of_the_host(server: Prosody, feed: FeedComponent) -> None:
    one = server.name()
    web, silent = await server.client(f"{one}/web"), await server.client(f"{one}/silent", presence=False)
    await web.csi("inactive")
    listed = {s.get("jid"): s.get("state") for s in await feed.ask("get", SESSIONS)}
    assert (listed[web.jid], listed[silent.jid]) == ("inactive", "bound")
    await web.close()
    await silent.close()


async def test_the_stream_feature_is_offered_after_login_only(server: Prosody) -> None:
    client = await server.client(f"{server.name()}/a")
    feature = "{https://xabber.com/protocol/synchronization}synchronization"
    before = client.received[0]
    assert before.find(feature) is None
    assert client.features.find(feature) is not None
    await client.close()


# ---- the sandbox's Prosody, and the sample configuration ---------------------------------------------------------


async def test_the_process_is_the_server_and_ends_at_once_on_sigterm(tmp_path: Path) -> None:
    prosody = Prosody(tmp_path)
    await prosody.start()
    client = await prosody.client(f"{prosody.name()}/a", sm=True)
    feed = await prosody.feed()
    stopping = asyncio.get_running_loop().run_in_executor(None, prosody.stop)
    assert await asyncio.wait_for(stopping, 3) == 0  # with a client and a component that do not go by themselves
    await client.cut()
    await feed.cut()


@pytest.mark.parametrize("missing", ["server", "modules"])
def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "server":
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    else:
        monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/prosody")
        monkeypatch.setattr("sync.sandbox.prosody._PLACES", ())
    with pytest.raises(LaunchError, match="apt-get install prosody prosody-modules"):
        find_prosody()


async def test_the_sample_configuration_delegates_and_grants(tmp_path: Path) -> None:
    prosody = Prosody(tmp_path)
    config = tmp_path / "prosody.cfg.lua"
    sandbox = "".join(  # an option that is set twice keeps Prosody 0.12 from starting
        line
        for line in config.read_text().partition("VirtualHost")[0].splitlines(keepends=True)
        if not line.startswith(("plugin_paths", "component_ports"))
    )
    sample = (ROOT / "deploy" / "prosody" / "convsync.cfg.lua").read_text()
    for mine, theirs in (
        ("example.org", DOMAIN),
        ("5347", str(prosody.component_port)),
        ("replace this", SECRET),
        ("/etc/prosody/convsync", str(ROOT / "deploy" / "prosody")),
    ):
        sample = sample.replace(mine, theirs)
    config.write_text(sandbox + 'modules_enabled = { "roster"; "saslauth"; "disco"; "ping" }\n' + sample)
    try:
        await prosody.start()
        feed = await prosody.component()
        advertised = await feed.wait_for(lambda e: e.find("{urn:xmpp:delegation:2}delegation") is not None, past=True)
        namespaces = {d.get("namespace") for d in advertised.iter("{urn:xmpp:delegation:2}delegated")}
        assert namespaces == set(DELEGATED)
        granted = await feed.wait_for(lambda e: e.find("{urn:xmpp:privilege:2}privilege") is not None, past=True)
        assert {p.get("access") for p in granted.iter("{urn:xmpp:privilege:2}perm")} == {"roster", "message", "iq"}
        await feed.subscribe()
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "works")
        await feed.message("works")
        assert "error" not in prosody.log()
    finally:
        prosody.kill()
