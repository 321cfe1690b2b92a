"""What clients may write in more than one way, under a real ejabberd: addresses in any case, prefixes of their own; and
whose archive an id is of (docs/feed.md §5)."""

import pytest

from tests.system.ejabberd_server import Ejabberd
from tests.system.prosody_server import PASSWORD
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import NS, FeedComponent, settled

pytest_plugins = ("tests.system.ejabberd_feed",)


@pytest.mark.parametrize("online", [True, False])
async def test_an_address_in_capitals_is_the_same_account(
    ejabberd: Ejabberd, feed: FeedComponent, online: bool
) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    friend = await ejabberd.client(f"{other}/a") if online else None
    client.chat(other.upper(), "loud")
    for direction, account in (("out", one), ("in", other)):
        event = await feed.message("loud", direction)
        assert event.element.get("account") == account
        assert (event.stanza.get("from"), event.stanza.get("to")) == (client.jid, other)
        assert event.element.get("archive-id") is not None
    await client.close()
    if friend:
        await friend.close()


async def test_who_logs_in_in_capitals_is_the_same_account(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await XmppClient.connect(f"{one.replace('u', 'U', 1)}/a", PASSWORD, ejabberd.c2s_port)
    client.chat(other, "loud login")
    assert (await feed.message("loud login", "out")).stanza.get("from") == f"{one}/a"
    await settled(feed, client)
    accounts = {e.element.get("account", "") for e in feed.events}  # also of sessions of tests before that end now
    assert {one, other} <= accounts == set(map(str.lower, accounts))
    await client.close()


async def test_a_request_in_capitals_is_for_the_same_account(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    client.send(f"<presence to='{other.upper()}' type='subscribe'/>")
    event = await feed.event(lambda e: e.kind == "subscription" and e.element.get("peer") == one)
    assert event.element.get("account") == other
    await client.close()


@pytest.mark.parametrize("online", [True, False])
async def test_who_keeps_no_archive_has_no_archive_id(ejabberd: Ejabberd, feed: FeedComponent, online: bool) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client, friend = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{other}/a")
    await friend.iq("set", "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>")
    if not online:
        await friend.close()
    client.chat(other, "not kept")
    assert (await feed.message("not kept", "out")).element.get("archive-id") is not None
    assert (await feed.message("not kept")).element.get("archive-id") is None
    await client.close()
    await friend.close()


@pytest.mark.parametrize(
    "child", ["<x:foo x:bar='1'><x:baz/></x:foo>", "<stream:foo/>", "<foo xmlns='urn:x' stream:bar='1'><a/></foo>"]
)
async def test_a_prefix_from_around_the_message_stops_nobodys_feed(
    ejabberd: Ejabberd, feed: FeedComponent, child: str
) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    client.send(f"<message to='{other}' type='chat' xmlns:x='urn:x'><body>prefixed</body>{child}</message>")
    for direction in ("out", "in"):
        await feed.event(
            lambda e, d=direction: (
                e.body == "prefixed" and e.element.get("direction") == d and e.element.get("account") in (one, other)
            )
        )
    await feed.ask("get", f"<archive xmlns='{NS}' account='{one}'/>")  # the archive itself cannot read it any more
    assert (await ejabberd.status(client))["gaps"] == 0
    await client.close()


async def test_what_the_archive_cannot_read_does_not_hide_what_follows(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    for i in range(3):
        client.message(other, f"<body>unreadable {i}</body><foo xmlns='urn:x' stream:bar='1'/>")
    client.chat(other, "readable")
    client.chat(other, "the last")
    await feed.message("the last")
    first = await feed.ask("get", f"<archive xmlns='{NS}' account='{other}' max='1'/>")
    assert ["".join(item.itertext()) for item in first] == ["readable"]
    assert first.get("last") is None
    rest = await feed.ask("get", f"<archive xmlns='{NS}' account='{other}' after='{first[0].get('id')}'/>")
    assert ["".join(item.itertext()) for item in rest] == ["the last"]
    assert rest.get("last") == "true"
    await client.close()
