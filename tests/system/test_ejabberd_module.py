"""How mod_convsync_feed and the component talk, under a real Ejabberd: subscribing, batches, acks, requests.

Sections are those of docs/feed.md.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.system.ejabberd_server import UNHURRIED, Ejabberd, ejabberd_of_its_own
from tests.system.prosody_server import COMPONENT, DOMAIN
from tests.system.xmpp_client import StanzaError
from tests.system.xmpp_component import FEED, NS, FeedComponent, of, settled

pytest_plugins = ("tests.system.ejabberd_feed",)

CLIENT = "{jabber:client}"
SESSIONS = f"<sessions xmlns='{NS}'/>"


# ---- §2 subscribe and hello ----------------------------------------------------------------------------------------


async def test_hello_names_the_server_its_streams_and_its_sessions(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    phone = await ejabberd.client(f"{ejabberd.name()}/phone")
    hello = await feed.subscribe(ejabberd.told)
    assert (hello.get("version"), hello.get("server"), hello.get("host")) == ("1", "ejabberd", DOMAIN)
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


async def test_an_unknown_version_is_told_what_is_spoken(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.ask("set", f"<subscribe xmlns='{NS}' versions='2' buckets='0-255'/>")
    told = caught.value.stanza.find(f"{{*}}error/{FEED}unsupported-version")
    assert told is not None
    assert told.get("versions") == "1"
    assert await ejabberd.logged("of the feed, this module version 1: update the older one")


@pytest.mark.parametrize("request_", [f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", SESSIONS])
async def test_nobody_but_the_component_may_ask(ejabberd: Ejabberd, feed: FeedComponent, request_: str) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
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


async def test_events_leave_at_once_and_alone(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    """The sender's and the recipient's of a message are written together."""
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    client.chat(other, "first")
    await feed.message("first")
    batch = feed.batches[-1]
    assert (batch.get("last"), batch.get("behind")) == (batch.get("head"), "0")
    told = [event for event in feed.events[-len(batch) :] if event.element.get("account") in (one, other)]
    assert {event.body for event in told} == {"first"}  # sessions of tests before may end now
    await client.close()


async def test_a_backlog_comes_in_batches_in_order(ejabberd: Ejabberd) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    to = ejabberd.name()
    for i in range(200):
        client.chat(to, f"backlog {i}")
    await client.ping()  # nobody is subscribed: the outbox has it all
    feed = await ejabberd.component()
    await feed.subscribe(ejabberd.told)
    await feed.message("backlog 199")
    assert [e.body for e in feed.events if e.element.get("direction") == "in"] == [f"backlog {i}" for i in range(200)]
    assert max(len(b) for b in feed.batches) == 50
    assert int(feed.batches[0].get("behind", "")) == int(feed.batches[0].get("head", "")) - int(
        feed.batches[0].get("last", "")
    )
    ejabberd.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()
    await client.close()


async def test_a_batch_ends_at_64_kilobytes(ejabberd: Ejabberd) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    for i in range(8):
        client.chat(ejabberd.name(), f"{i}" + "x" * 20_000)
    await client.ping()
    feed = await ejabberd.component()
    await feed.subscribe(ejabberd.told)
    await feed.event(lambda e: (e.body or "").startswith("7x"))
    assert max(sum(e.get("kind") == "message" for e in batch) for batch in feed.batches) == 3
    assert max(len(ET.tostring(b)) for b in feed.batches) < 70_000  # serialised anew, a little longer than on the wire
    ejabberd.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()
    await client.close()


async def test_the_window_closes_at_2000_and_opens_with_an_ack(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        feed = await ejabberd.component()
        await feed.subscribe()
        to = ejabberd.name()
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
        client.chat(to, "after")  # it was behind; now a message's events are alone again
        await feed.message("after")
        assert len(feed.batches[-1]) <= 2


@pytest.mark.parametrize(("stream", "n"), [("nosuch", "1"), ("", "1"), (None, "x"), (None, "-1"), (None, "999999999")])
async def test_an_ack_that_cannot_be_is_ignored(
    ejabberd: Ejabberd, feed: FeedComponent, stream: str | None, n: str
) -> None:
    before = (await feed.subscribe(ejabberd.told), feed.streams())[1]
    feed.ack(feed.current if stream is None else stream, n)
    await feed.subscribe(ejabberd.told)
    assert feed.streams()[-1][3] == before[-1][3]
    assert await ejabberd.logged("Ignored an ack")


async def test_acks_are_cumulative_and_never_go_back(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    client.chat(ejabberd.name(), "cumulative")
    n = (await feed.message("cumulative")).n
    feed.ack(feed.current, n)
    feed.ack(feed.current, n - 1)
    await feed.subscribe({feed.current: n})
    assert feed.streams()[-1][3] == n
    ejabberd.told[feed.current] = n
    await client.close()


async def test_subscribing_again_sends_again_what_is_not_acked(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    client.chat(ejabberd.name(), "again")
    first = await feed.message("again")
    feed.events.clear()
    await feed.subscribe(ejabberd.told)
    assert (await feed.message("again")).n == first.n
    await client.close()


# ---- §8 requests, §9 stream feature --------------------------------------------------------------------------------


def note(sender: str, number: int = 1) -> str:
    return f"<iq xmlns='jabber:client' type='set' id='n{number}' from='{sender}'><note xmlns='urn:test'>hi</note></iq>"


async def test_deliver_reaches_one_session_or_every_available_one(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    web, phone = await ejabberd.client(f"{one}/web", sm=True), await ejabberd.client(f"{one}/phone")
    asleep = await ejabberd.client(f"{one}/asleep", sm=True)
    silent = await ejabberd.client(f"{one}/silent", presence=False)
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
    assert await feed.deliver(ejabberd.name(), note(COMPONENT, 4)) == 0
    assert [e.get("id") for e in phone.received if (e.get("id") or "").startswith("n")] == ["n2"]
    again = await ejabberd.client(f"{one}/asleep", resume=asleep)
    await again.ping()
    assert not [e for e in again.received if (e.get("id") or "").startswith("n")]
    for session in (web, phone, silent, again):
        await session.close()


async def test_a_delivery_survives_the_loss_of_the_connection(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    web = await ejabberd.client(f"{one}/web", sm=True)
    web.forgetful = True
    assert await feed.deliver(one, note(one), "web") == 1
    await web.wait_for(lambda e: e.get("id") == "n1", past=True)
    await web.cut()
    await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    again = await ejabberd.client(f"{one}/web", resume=web)
    await again.wait_for(lambda e: e.get("id") == "n1", past=True)
    await again.close()


async def test_a_delivered_message_is_not_archived_and_makes_no_event(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    web = await ejabberd.client(f"{one}/web")
    other = await ejabberd.client(f"{one}/other", carbons=True)
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


async def test_sessions_lists_every_session_of_the_host(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    web, silent = await ejabberd.client(f"{one}/web"), await ejabberd.client(f"{one}/silent", presence=False)
    await web.csi("inactive")
    listed = {s.get("jid"): s.get("state") for s in await feed.ask("get", SESSIONS)}
    assert (listed[web.jid], listed[silent.jid]) == ("inactive", "bound")
    await web.close()
    await silent.close()


async def test_the_stream_feature_is_offered_after_login_only(ejabberd: Ejabberd) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    feature = "{https://xabber.com/protocol/synchronization}synchronization"
    before = client.received[0]
    assert before.find(feature) is None
    assert client.features.find(feature) is not None
    await client.close()


# ---- §5 what has arrived -------------------------------------------------------------------------------------------


async def test_a_hibernated_session_tells_up_to_when_it_has_everything(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    sender = await ejabberd.client(f"{ejabberd.name()}/a")
    phone = await ejabberd.client(f"{one}/phone", sm=True)
    sender.chat(one, "received")
    await phone.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "received", past=True)
    for _ in range(2):  # it was asked before the first pong came, so its <a/> is before the second ping
        await phone.ping()
    received = await feed.message("received")
    phone.forgetful = True
    sender.chat(one, "lost")
    await phone.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "lost", past=True)
    await phone.ping()
    lost = await feed.message("lost")
    await phone.cut()
    gone = await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    acked = int(gone.element.get("acked", ""))
    assert int(received.element.get("at", "")) < acked < int(lost.element.get("at", ""))
    assert received.element.find(f"{FEED}sessions/{FEED}s[@acked]") is None  # it was not hibernated
    sender.chat(one, "meanwhile")
    meanwhile = (await feed.message("meanwhile")).element.find(f"{FEED}sessions/{FEED}s")
    assert meanwhile is not None
    assert (meanwhile.get("state"), meanwhile.get("acked")) == ("hibernated", str(acked))
    for answer in (await feed.ask("get", SESSIONS), await feed.subscribe(ejabberd.told)):
        (listed,) = (s for s in answer.iter(f"{FEED}session") if s.get("jid") == phone.jid)
        assert (listed.get("state"), listed.get("acked")) == ("hibernated", str(acked))
    again = await ejabberd.client(f"{one}/phone", resume=phone)
    await again.close()
    await sender.close()


async def test_a_client_that_never_acknowledged_has_what_was_sent_before_it_came(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    one = ejabberd.name()
    phone = await ejabberd.client(f"{one}/phone", sm=True, presence=False)
    phone.forgetful = True
    await phone.available()
    bound = await feed.event(lambda e: e.element.get("state") == "bound" and e.element.get("account") == one)
    available = await feed.event(lambda e: e.element.get("state") == "available" and e.element.get("account") == one)
    await phone.cut()
    gone = await feed.event(lambda e: e.element.get("state") == "hibernated" and e.element.get("account") == one)
    acked = int(gone.element.get("acked", ""))
    margin = UNHURRIED["sessions", "MARGIN"]
    assert int(bound.element.get("at", "")) - margin < acked < int(available.element.get("at", ""))
