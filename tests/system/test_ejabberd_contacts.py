"""What the module says of an account besides its one-to-one messages, under a real ejabberd: rooms elsewhere, its own
PEP nodes, requests for its presence, its blocklist (docs/feed.md §5).
"""

import pytest

from tests.system.ejabberd_server import Ejabberd
from tests.system.prosody_server import DOMAIN, ELSEWHERE, ROOMS
from tests.system.room_client import affiliate, enter
from tests.system.xmpp_client import StanzaError, XmppClient
from tests.system.xmpp_component import FEED, Event, FeedComponent, of, settled

pytest_plugins = ("tests.system.ejabberd_feed",)

BODY = "{jabber:client}body"
MDS, BOOKMARKS = "urn:xmpp:mds:displayed:0", "urn:xmpp:bookmarks:1"
DISPLAYED = f"<displayed xmlns='{MDS}'><stanza-id xmlns='urn:xmpp:sid:0' by='a@b' id='1'/></displayed>"
CONFERENCE = f"<conference xmlns='{BOOKMARKS}' name='Tea' autojoin='true'><nick>Ann</nick></conference>"


def about(feed: FeedComponent, account: str, kind: str) -> list[Event]:
    return [e for e in feed.events if e.kind == kind and e.element.get("account") == account]


# ---- groupchat -----------------------------------------------------------------------------------------------------


async def test_groupchat_of_a_room_elsewhere_comes_for_each_session_and_once_from_its_author(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    room = f"tea@{ELSEWHERE}"
    ann = await ejabberd.client(f"{one}/a")
    bobs = [await ejabberd.client(f"{other}/{r}") for r in ("phone", "laptop")]
    for client, nick in ((ann, "Ann"), (bobs[0], "Bob"), (bobs[1], "Bob")):
        await enter(client, room, nick)
    ann.message(room, "<body>tea?</body>", kind="groupchat")
    for client in (ann, *bobs):
        await client.wait_for(lambda e: e.findtext(BODY) == "tea?", past=True)
    await settled(feed, ann, *bobs)
    said = [e for e in feed.events if e.kind == "message" and e.body == "tea?"]
    assert {e.stanza.get("type") for e in said} == {"groupchat"}
    get = [(e.element.get("account"), e.element.get("direction"), e.element.get("resource")) for e in said]
    assert sorted(get, key=str) == sorted(
        [(one, "out", "a"), (one, "in", "a"), (other, "in", "phone"), (other, "in", "laptop")], key=str
    )
    assert {e.stanza.get("from") for e in said if e.element.get("direction") == "in"} == {f"{room}/Ann"}
    for client in (ann, *bobs):
        await client.close()


async def test_groupchat_of_a_room_of_this_server_is_of_no_session(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    room = f"covered@{ROOMS}"
    ann, bob = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{other}/a")
    await enter(ann, room, "Ann")
    await ann.iq(
        "set",
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>",
        to=room,
    )
    await enter(bob, room, "Bob")
    ann.message(room, "<body>all</body>", kind="groupchat")
    await bob.wait_for(lambda e: e.findtext(BODY) == "all", past=True)
    await affiliate(ann, room, ejabberd.name(), "member")  # a notice to everybody in the room
    await settled(feed, ann, bob)
    assert of(feed, one, other) == []
    invited = f"<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{other}'/></x>"
    ann.message(room, invited, kind="normal")
    event = await feed.event(lambda e: e.kind == "message" and e.element.get("account") == other)
    assert event.stanza.get("from") == room  # an invitation is a message to the account
    await ann.close()
    await bob.close()


async def test_groupchat_that_reaches_no_session_is_no_event(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, other = ejabberd.name(), ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    for to in (other, f"{other}/nobody"):
        client.message(to, "<body>shout</body>", kind="groupchat")
    await settled(feed, client)
    assert of(feed, other) == []
    await client.close()


# ---- pep -----------------------------------------------------------------------------------------------------------


def publish(node: str, item: str, payload: str) -> str:
    published = f"<publish node='{node}'><item id='{item}'>{payload}</item></publish>"
    return f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{published}</pubsub>"


def retract(node: str, item: str) -> str:
    request = f"<retract node='{node}'><item id='{item}'/></retract>"
    return f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{request}</pubsub>"


@pytest.mark.parametrize(("node", "payload"), [(MDS, DISPLAYED), (BOOKMARKS, CONFERENCE)])
async def test_what_is_published_and_retracted_is_told(
    ejabberd: Ejabberd, feed: FeedComponent, node: str, payload: str
) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/phone")
    await client.iq("set", publish(node, "tea@rooms.example", payload))
    await client.iq("set", retract(node, "tea@rooms.example"))
    await settled(feed, client)
    published, retracted = about(feed, one, "pep")
    wanted = {"node": node, "item": "tea@rooms.example", "resource": "phone"}
    for event, action in ((published, "publish"), (retracted, "retract")):
        assert {k: event.element.get(k) for k in (*wanted, "action")} == wanted | {"action": action}
    assert [child.tag for child in published.element] == [f"{{{node}}}" + payload[1:].partition(" ")[0]]
    assert len(published.element[0]) == 1
    assert len(retracted.element) == 0
    await client.close()


@pytest.mark.parametrize("how", ["purge", "delete"])
async def test_a_node_that_is_emptied_retracts_each_of_its_items(
    ejabberd: Ejabberd, feed: FeedComponent, how: str
) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/phone")
    for item in ("a@rooms.example", "b@rooms.example"):
        await client.iq("set", publish(BOOKMARKS, item, CONFERENCE))
    emptied = f"<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><{how} node='{BOOKMARKS}'/></pubsub>"
    stranger = await ejabberd.client(f"{ejabberd.name()}/a")
    with pytest.raises(StanzaError):
        await stranger.iq("set", emptied, to=one)
    await settled(feed, client)
    assert len(about(feed, one, "pep")) == 2
    await client.iq("set", emptied)
    await settled(feed, client)
    told = [(e.element.get("action"), e.element.get("item")) for e in about(feed, one, "pep")[2:]]
    assert sorted(told, key=str) == [("retract", "a@rooms.example"), ("retract", "b@rooms.example")]
    await client.close()
    await stranger.close()


async def test_other_nodes_and_what_is_not_there_are_no_events(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/phone")
    nick = "http://jabber.org/protocol/nick"
    await client.iq("set", publish(nick, "current", f"<nick xmlns='{nick}'>n</nick>"))
    with pytest.raises(StanzaError, match="item-not-found"):
        await client.iq("set", retract(MDS, "nothing"))
    await settled(feed, client)
    assert about(feed, one, "pep") == []
    await client.close()


# ---- subscription --------------------------------------------------------------------------------------------------


def subscriptions(feed: FeedComponent, account: str) -> list[tuple[str | None, str | None]]:
    return [(e.element.get("peer"), e.element.get("state")) for e in about(feed, account, "subscription")]


async def both(ejabberd: Ejabberd) -> tuple[XmppClient, XmppClient]:
    return await ejabberd.client(f"{ejabberd.name()}/a"), await ejabberd.client(f"{ejabberd.name()}/a")


@pytest.mark.parametrize("answer", ["subscribed", "unsubscribed"])
async def test_a_request_that_waits_and_its_answer_are_told_once(
    ejabberd: Ejabberd, feed: FeedComponent, answer: str
) -> None:
    asker, owner = await both(ejabberd)
    for _ in range(2):
        asker.send(f"<presence to='{owner.account}' type='subscribe'/>")
    await asker.ping()
    for _ in range(2):
        owner.send(f"<presence to='{asker.account}' type='{answer}'/>")
    await settled(feed, asker, owner)
    assert subscriptions(feed, owner.account) == [(asker.account, "requested"), (asker.account, "settled")]
    assert subscriptions(feed, asker.account) == []
    asker.send(f"<presence to='{owner.account}' type='unsubscribe'/>")  # it is no request any more
    await settled(feed, asker, owner)
    assert len(subscriptions(feed, owner.account)) == 2
    await asker.close()
    await owner.close()


async def test_a_request_that_is_taken_back_is_withdrawn(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    asker, owner = await both(ejabberd)
    asker.send(f"<presence to='{owner.account}' type='subscribe'/>")
    asker.send(f"<presence to='{owner.account}' type='unsubscribe'/>")
    await settled(feed, asker, owner)
    assert subscriptions(feed, owner.account) == [(asker.account, "requested"), (asker.account, "withdrawn")]
    await asker.close()
    await owner.close()


async def test_a_request_to_an_account_that_is_offline_or_does_not_exist(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    asker, offline = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
    for account in (offline, f"nobody@{DOMAIN}"):
        asker.send(f"<presence to='{account}' type='subscribe'/>")
    await settled(feed, asker)
    assert subscriptions(feed, offline) == [(asker.account, "requested")]
    assert subscriptions(feed, f"nobody@{DOMAIN}") == []
    await asker.close()


# ---- blocklist -----------------------------------------------------------------------------------------------------


def blocking(name: str, *peers: str) -> str:
    return f"<{name} xmlns='urn:xmpp:blocking'>" + "".join(f"<item jid='{p}'/>" for p in peers) + f"</{name}>"


def blocklists(feed: FeedComponent, account: str) -> list[list[tuple[str, str | None]]]:
    return [
        sorted((child.tag.removeprefix(FEED), child.get("jid")) for child in event.element)
        for event in about(feed, account, "blocklist")
    ]


async def test_what_changes_in_the_blocklist_is_told(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    await client.iq("set", blocking("block", "Eve@example.org", "spam.example"))
    await client.iq("set", blocking("block", "eve@example.org", "mallory@example.org"))
    await client.iq("set", blocking("unblock", "eve@example.org", "nobody@example.org"))
    await client.iq("set", blocking("unblock", "nobody@example.org"))
    await client.iq("set", blocking("unblock"))
    await client.iq("set", blocking("unblock"))
    with pytest.raises(StanzaError, match="bad-request"):
        await client.iq("set", blocking("block"))
    await settled(feed, client)
    assert blocklists(feed, one) == [
        [("block", "eve@example.org"), ("block", "spam.example")],
        [("block", "mallory@example.org")],
        [("unblock", "eve@example.org")],
        [("unblock", None)],
    ]
    await client.close()


async def test_blocking_somebody_refuses_their_request(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    asker, owner = await both(ejabberd)
    asker.send(f"<presence to='{owner.account}' type='subscribe'/>")
    await asker.ping()
    await owner.iq("set", blocking("block", asker.account))
    asker.send(f"<presence to='{owner.account}' type='subscribe'/>")  # never gets here
    await settled(feed, asker, owner)
    assert subscriptions(feed, owner.account) == [(asker.account, "requested"), (asker.account, "settled")]
    assert blocklists(feed, owner.account) == [[("block", asker.account)]]
    await asker.close()
    await owner.close()
