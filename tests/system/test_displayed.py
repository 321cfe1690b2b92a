"""What mod_convsync_feed publishes for the component: how far an account has read, as an item of its own (docs/feed.md
§8.3), under a real Prosody and a real ejabberd.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import quoteattr

import pytest
import pytest_asyncio

from tests.system.displayed_client import MDS, DisplayedClient, Marker
from tests.system.ejabberd_server import Ejabberd, ejabberd_of_its_own
from tests.system.feed_schema import elements, faults
from tests.system.prosody_server import COMPONENT, DOMAIN, PASSWORD, ROOMS, Prosody, prosody_of_its_own
from tests.system.xmpp_client import StanzaError
from tests.system.xmpp_component import NS, Event, FeedComponent, settled

Server = Prosody | Ejabberd
BOB, TEA = "bob@example.net", f"tea@{ROOMS}"


@pytest_asyncio.fixture(scope="module", params=[Prosody, Ejabberd], ids=["prosody", "ejabberd"])
async def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    server: Server = request.param(tmp_path_factory.mktemp("server"))
    await server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def feed(host: Server) -> AsyncIterator[FeedComponent]:
    """The users' host."""
    component = await host.feed()
    yield component
    host.told |= component.ack_all()
    await component.caught_up()
    await component.cut()


def of_its_own(kind: type[Server], folder: Path, **options: Any) -> AbstractAsyncContextManager[Server]:
    return prosody_of_its_own(folder, **options) if kind is Prosody else ejabberd_of_its_own(folder, **options)


async def session(host: Server, account: str, resource: str = "other") -> DisplayedClient:
    client = await DisplayedClient.connect(f"{account}/{resource}", PASSWORD, host.c2s_port, presence=False)
    await client.listen()
    return client


def displayed(account: str, jid: str = BOB, place: str = "a1", by: str | None = None) -> str:
    given = {"account": account, "jid": jid, "id": place, "by": account if by is None else by}
    return f"<displayed xmlns='{NS}'" + "".join(f" {name}={quoteattr(value)}" for name, value in given.items()) + "/>"


async def publish(feed: FeedComponent, *asked: str, **more: str) -> None:
    answer = await feed.iq("set", displayed(*asked, **more), to=feed.host)
    assert len(answer) == 0


def told(feed: FeedComponent, account: str) -> list[Event]:
    return [e for e in feed.events if e.kind == "pep" and e.element.get("account") == account]


async def test_it_is_published_as_the_user_would(host: Server, feed: FeedComponent) -> None:
    ann = host.name()
    markers: list[Marker] = [(BOB, "<&'\"ö>", ann), (TEA, "r1", TEA), (f"{TEA}/Bob", "a2", ann)]
    client = await session(host, ann)
    for jid, place, by in markers:
        await publish(feed, ann, jid, place, by)
        await client.hears((jid, place, by))
    assert await client.kept() == set(markers)
    found = await client.configuration()
    assert (found["access_model"], found["send_last_published_item"]) == ("whitelist", "never")
    assert found["persist_items"] in ("1", "true")
    assert found["max_items"] == "max"
    await settled(feed, client)
    events = [e.element for e in told(feed, ann)]
    assert [(e.get("item"), e.get("action"), e.get("echo"), e.get("resource")) for e in events] == [
        (jid, "publish", "true", None) for jid, _, _ in markers
    ]
    assert [fault for frame in feed.batches for fault in faults(frame)] == []
    await publish(feed, ann, BOB, "a9")
    assert await client.kept() == {(BOB, "a9", ann), *markers[1:]}
    await client.close()


async def test_many_at_once_are_all_published(host: Server, feed: FeedComponent) -> None:
    """Though nobody has made the node before."""
    ann = host.name()
    chats = [f"user{number}@example.net" for number in range(8)]
    await asyncio.gather(*(publish(feed, ann, jid) for jid in chats))
    client = await session(host, ann)
    assert await client.kept() == {(jid, "a1", ann) for jid in chats}
    assert (await client.configuration())["max_items"] == "max"
    await client.close()


async def test_what_the_user_publishes_is_no_echo(host: Server, feed: FeedComponent) -> None:
    ann = host.name()
    client = await session(host, ann)
    await publish(feed, ann)
    await client.read(BOB, "a2")
    await settled(feed, client)
    events = [e.element for e in told(feed, ann)]
    assert [(e.get("echo"), e.get("resource")) for e in events] == [("true", None), (None, "other")]
    await client.close()


async def test_nobody_else_hears_of_it_or_can_read_it(host: Server, feed: FeedComponent) -> None:
    ann, bob = host.name(), host.name()
    mine, theirs = await session(host, ann), await session(host, bob)
    for one, other in ((mine, bob), (theirs, ann)):
        await one.iq("get", "<query xmlns='jabber:iq:roster'/>")
        one.send(f"<presence type='subscribe' to='{other}'/>")
        one.send(f"<presence type='subscribed' to='{other}'/>")
        await one.ping()
    await theirs.listen()
    await publish(feed, ann)
    await mine.hears((BOB, "a1", ann))
    await theirs.ping()
    assert theirs.heard == []
    theirs.account, own = ann, theirs.account
    with pytest.raises(StanzaError):
        await theirs.kept()
    theirs.account = own
    for client in (mine, theirs):
        await client.close()


async def test_a_node_that_others_may_read_is_left_alone(host: Server, feed: FeedComponent) -> None:
    if isinstance(host, Ejabberd):
        pytest.skip("ejabberd: force_node_config decides; see below")
    ann = host.name()
    client = await session(host, ann)
    await client.read(TEA, "r1", by=TEA, access_model="presence", persist_items="true", max_items="10")
    with pytest.raises(StanzaError, match="conflict"):
        await publish(feed, ann)
    assert await client.kept() == {(TEA, "r1", TEA)}
    await client.close()


async def test_a_node_that_was_made_otherwise_is_used_as_it_is(host: Server, feed: FeedComponent) -> None:
    ann = host.name()
    client = await session(host, ann)
    await client.read(TEA, "r1", by=TEA)  # one item is enough for it
    before = await client.configuration()
    await publish(feed, ann)
    assert (BOB, "a1", ann) in await client.kept()
    assert await client.configuration() == before
    await client.close()


@pytest.mark.parametrize(
    ("bad", "condition"),
    [
        (f"<displayed xmlns='{NS}'/>", "bad-request"),
        (displayed(""), "bad-request"),
        (displayed(DOMAIN), "bad-request"),
        (displayed(f"u1@{DOMAIN}/phone"), "bad-request"),
        (displayed(f"u1@{DOMAIN}", ""), "bad-request"),
        (displayed(f"u1@{DOMAIN}", "@"), "bad-request"),
        (displayed(f"u1@{DOMAIN}", BOB, ""), "bad-request"),
        (displayed(f"u1@{DOMAIN}", BOB, "a1", ""), "bad-request"),
        (displayed(f"u1@{DOMAIN}", BOB, "a1", f"u2@{DOMAIN}"), "bad-request"),
        (displayed(f"u1@{DOMAIN}", f"{TEA}/Bob", "a1", f"{TEA}/Bob"), "bad-request"),
        (displayed(f"u1@{DOMAIN}", f"{TEA}/Bob", "a1", TEA), "bad-request"),
        (displayed("u1@elsewhere.example"), "item-not-found"),
        (displayed(f"nobody@{DOMAIN}"), "item-not-found"),
    ],
)
async def test_nonsense_is_refused(feed: FeedComponent, bad: str, condition: str) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.iq("set", bad, to=DOMAIN)
    assert caught.value.condition == condition
    assert [e for e in feed.events if e.kind == "pep"] == []


async def test_nobody_but_the_component_may_ask(host: Server, feed: FeedComponent) -> None:
    ann = host.name()
    client = await session(host, ann)
    for jid in (ann, f"u1@{DOMAIN}"):
        with pytest.raises(StanzaError, match="forbidden"):
            await client.iq("set", displayed(jid), to=DOMAIN)
    feed.component = f"somebody@{COMPONENT}"
    with pytest.raises(StanzaError, match="forbidden"):
        await publish(feed, ann)
    feed.component = COMPONENT
    with pytest.raises(StanzaError, match="service-unavailable"):
        await feed.iq("get", displayed(ann), to=DOMAIN)
    with pytest.raises(StanzaError, match="service-unavailable"):
        await feed.iq("set", displayed(TEA), to=ROOMS)
    await settled(feed, client)
    assert (client.heard, told(feed, ann)) == ([], [])
    await client.close()


@pytest.mark.parametrize("kind", [Prosody, Ejabberd])
async def test_an_operator_may_switch_it_off(tmp_path: Path, kind: type[Server]) -> None:
    option = {"convsync_feed_displayed" if kind is Prosody else "displayed": False}
    async with of_its_own(kind, tmp_path, **option) as host:
        feed = await host.feed()
        with pytest.raises(StanzaError, match="forbidden"):
            await publish(feed, host.name())
        client = await session(host, f"u9@{DOMAIN}")
        await client.read(BOB, "a1")  # the user may, of course
        await settled(feed, client)
        assert [e.element.get("echo") for e in told(feed, f"u9@{DOMAIN}")] == [None]
        await client.close()
        await feed.cut()


@pytest.mark.parametrize("kind", [Prosody, Ejabberd])
async def test_a_host_without_pep_says_so(tmp_path: Path, kind: type[Server]) -> None:
    how: dict[str, Any] = {"modules": {"mod_pubsub": {"plugins": ["flat"]}}}
    if kind is Prosody:
        how = {"modules_disabled": ["pep", "bookmarks"]}
    async with of_its_own(kind, tmp_path, **how) as host:
        feed = await host.feed()
        with pytest.raises(StanzaError, match="feature-not-implemented"):
            await publish(feed, host.name())
        await feed.caught_up()
        assert feed.events == []
        await feed.cut()


async def test_ejabberd_leaves_a_node_alone_that_its_operator_opens(tmp_path: Path) -> None:
    opened = {"mod_pubsub": {"force_node_config": {MDS: {"access_model": "presence", "persist_items": True}}}}
    async with ejabberd_of_its_own(tmp_path, modules=opened) as host:
        feed, ann = await host.feed(), host.name()
        with pytest.raises(StanzaError, match="conflict"):
            await publish(feed, ann)
        client = await session(host, ann)
        assert await client.kept() == set()
        await client.close()
        await feed.cut()


async def test_without_an_operators_word_ejabberd_makes_the_node_as_xep_0490_has_it(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, modules={"mod_pubsub": {"force_node_config": {}}}) as host:
        feed, ann = await host.feed(), host.name()
        client = await session(host, ann)
        for jid in (BOB, "cat@example.net"):
            await publish(feed, ann, jid)
        assert await client.kept() == {(BOB, "a1", ann), ("cat@example.net", "a1", ann)}
        found = await client.configuration()
        assert (found["access_model"], found["max_items"], found["send_last_published_item"]) == (
            *("whitelist", "max", "never"),
        )
        await client.read(BOB, "a2")
        bad = host.name()
        other = await session(host, bad)
        await other.read(BOB, "a1", access_model="presence", persist_items="true")
        with pytest.raises(StanzaError, match="conflict"):
            await publish(feed, bad, "cat@example.net")
        assert await other.kept() == {(BOB, "a1", bad)}
        for one in (client, other):
            await one.close()
        await feed.cut()


def test_requests_keep_to_the_schema() -> None:
    for request in (displayed(f"u1@{DOMAIN}"), displayed(f"u1@{DOMAIN}", TEA, "r1", TEA)):
        (element,) = elements([fromstring(f"<iq xmlns='jabber:client' type='set'>{request}</iq>")])  # noqa: S314 - ours
        assert faults(element) == []
