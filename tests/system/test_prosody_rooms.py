"""Rooms under a real Prosody: a message once, members whether they are there or not (docs/feed.md §5)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.prosody_server import DOMAIN, ROOMS, Prosody, prosody_of_its_own
from tests.system.room_client import Cast, affiliate, configure, destroy, enter, kick, leave, members, rename, words
from tests.system.xmpp_client import StanzaError
from tests.system.xmpp_component import FEED, NS, FeedComponent, settled

pytest_plugins = ("tests.system.prosody_feed",)

CHATSTATES = "http://jabber.org/protocol/chatstates"
OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"


@pytest_asyncio.fixture
async def cast(prosody: Prosody, rooms: FeedComponent) -> AsyncIterator[Cast]:
    cast = Cast(prosody, rooms)
    await cast.arrive()
    yield cast
    await cast.depart()


# ---- §2 and §8: what a host of rooms answers -----------------------------------------------------------------------


async def test_hello_of_a_host_of_rooms_says_so_and_has_no_sessions(rooms: FeedComponent) -> None:
    assert (rooms.hello.get("host"), rooms.hello.get("rooms")) == (ROOMS, "true")
    assert rooms.hello.find(f"{FEED}session") is None


async def test_a_users_host_is_no_host_of_rooms(feed: FeedComponent) -> None:
    assert feed.hello.get("rooms") is None


async def test_both_hosts_are_fed_on_one_connection(prosody: Prosody, feed: FeedComponent) -> None:
    await feed.iq("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", to=ROOMS)
    cast = Cast(prosody, feed)
    await cast.arrive()
    await enter(cast.ann, cast.room, "Ann")
    await feed.event(lambda e: e.element.get("account") == cast.room)
    await feed.event(lambda e: e.element.get("account") == cast.accounts["ann"])
    assert len({e.stream for e in feed.events}) == 2
    prosody.told_of_rooms |= {e.stream: e.n for e in feed.events if e.element.get("account", "").endswith(ROOMS)}
    await cast.depart()


async def test_nobody_but_the_component_may_fetch_the_rooms(cast: Cast) -> None:
    with pytest.raises(StanzaError, match="forbidden"):
        await cast.ann.iq("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", to=ROOMS)


async def test_a_host_of_rooms_delivers_nothing(rooms: FeedComponent) -> None:
    with pytest.raises(StanzaError, match="service-unavailable"):
        await rooms.deliver(f"u1@{DOMAIN}", f"<message xmlns='jabber:client' from='{ROOMS}'/>")


# ---- room-members: the listing -------------------------------------------------------------------------------------


async def test_a_new_room_is_listed_with_its_owner_in_it(cast: Cast) -> None:
    await enter(cast.ann, cast.room, "Ann")
    assert await cast.said() == ["listing: ann owner in as Ann"]


async def test_a_listing_names_members_who_never_came_and_visitors_who_did(cast: Cast) -> None:
    await cast.open(members=["cid"])
    await enter(cast.bob, cast.room, "Bob")
    await affiliate(cast.ann, cast.room, "friend@elsewhere.example", "member")
    await affiliate(cast.ann, cast.room, "whole.example", "outcast")
    await affiliate(cast.ann, cast.room, cast.server.name(), "outcast")
    await cast.said()
    await cast.server.control(cast.ann, "reload", host=ROOMS)  # a new stream
    await cast.feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
    await cast.subscribed_again()
    cast.say(cast.ann, "hello")
    assert (await cast.said())[-2:] == [
        "listing: ann owner in as Ann, bob none in as Bob, cid member",
        "message: hello by ann",
    ]


async def test_a_listing_gives_the_occupant_id_that_messages_carry(cast: Cast) -> None:
    await cast.open(members=["bob"])
    await cast.server.control(cast.ann, "reload", host=ROOMS)
    await cast.subscribed_again()
    cast.say(cast.ann, "listed")
    listing, _ = (await cast.events())[-2:]
    await enter(cast.bob, cast.room, "Bob")
    cast.say(cast.bob, "mine")
    cast.say(cast.ann, "hers")
    said = {e.element.get("author", ""): e.stanza.find(OCCUPANT_ID) for e in await cast.events() if e.body}
    assert said.keys() == {cast.accounts["ann"], cast.accounts["bob"]}
    for account, element in said.items():
        assert element is not None
        assert members(listing)[account].get("occupant-id") == element.get("id")


async def test_a_room_is_not_listed_again_while_the_stream_lives(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    cast.say(cast.bob, "one")
    cast.say(cast.bob, "two")
    assert await cast.said() == ["change: bob none in as Bob", "message: one by bob", "message: two by bob"]


async def test_a_killed_server_lists_its_rooms_again(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        cast = Cast(prosody, await prosody.rooms())
        await cast.arrive()
        await cast.open(members_only=True, members=["bob", "cid"])
        await enter(cast.bob, cast.room, "Bob")
        assert await cast.said() == ["private change: bob member in as Bob"]
        prosody.kill()
        await prosody.start()
        await cast.arrive()
        await cast.subscribed_again()
        await enter(cast.ann, cast.room, "Ann")
        assert (await cast.said())[-1] == "private listing: ann owner in as Ann, bob member, cid member"
        assert cast.feed.events[-1].stream == cast.feed.current


async def test_after_a_gap_a_room_is_listed_again(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        cast = Cast(prosody, await prosody.rooms())
        await cast.arrive()
        await cast.open()
        cast.ann.message(cast.room, "<body>broken</body><broken xmlns='urn:convsync:test'/>", kind="groupchat")
        cast.say(cast.ann, "next")
        new = await cast.events()
        assert [words(e, cast.names) for e in new] == ["listing: ann owner in as Ann", "message: next by ann"]
        gap = await cast.feed.event(lambda e: e.kind == "gap")
        assert (gap.n, gap.element.get("account"), gap.stream) == (1, ROOMS, new[0].stream)


async def test_a_full_outbox_does_not_part_a_message_from_its_listing(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max=1) as prosody:
        cast = Cast(prosody, await prosody.component(ROOMS))  # nobody is subscribed
        await cast.arrive()
        await enter(cast.ann, cast.room, "Ann")
        await configure(cast.ann, cast.room)
        for i in range(40):
            cast.say(cast.ann, f"{i}" + "x" * 40_000)
        await cast.ann.ping()
        await cast.feed.subscribe()
        await cast.feed.event(lambda e: (e.body or "").startswith("39x"))
        assert [e.kind for e in cast.feed.events][:3] == ["gap", "room-members", "room-message"]
        assert cast.feed.events[0].element.get("reason") == "full"


@pytest.mark.parametrize("count", [200, 201, 1500])
async def test_a_long_listing_comes_in_pages_and_costs_little(prosody: Prosody, cast: Cast, count: int) -> None:
    await cast.open()
    others = [f"m{i}@{DOMAIN}" for i in range(count - 1)]
    await cast.server.control(cast.ann, "affiliate", room=cast.room, count=str(count - 1))
    await cast.said()
    await cast.server.control(cast.ann, "reload", host=ROOMS)
    await cast.subscribed_again()
    await settled(cast.feed, cast.ann)
    before = prosody.processor_seconds()
    cast.say(cast.ann, "now")
    *listing, _ = [e for e in await cast.events() if e.stream == cast.feed.current]
    took = prosody.processor_seconds() - before
    sizes = [len(members(e)) for e in listing]
    assert sizes == [200] * (count // 200) + ([count % 200] if count % 200 else [])
    assert [e.element.get("begin") for e in listing] == ["true"] + [None] * (len(sizes) - 1)
    assert [e.element.get("end") for e in listing] == [None] * (len(sizes) - 1) + ["true"]
    assert {jid for e in listing for jid in members(e)} == {cast.accounts["ann"], *others}
    assert took < 5  # of the processor, and generous: it takes some tens of milliseconds


# ---- room-members: changes -----------------------------------------------------------------------------------------


async def test_joining_and_leaving_is_told_for_the_first_and_the_last_session(cast: Cast) -> None:
    await cast.open()
    laptop = await cast.server.client(f"{cast.accounts['bob']}/laptop")
    await enter(cast.bob, cast.room, "Bob")
    assert await cast.said() == ["change: bob none in as Bob"]
    await enter(laptop, cast.room, "Bob")
    await leave(cast.bob, cast.room, "Bob")
    assert await cast.said() == []
    await laptop.close()  # without leaving
    assert await cast.said() == ["change: bob none left"]


async def test_presence_updates_are_no_changes(cast: Cast) -> None:
    await cast.open()
    cast.ann.send(f"<presence to='{cast.room}/Ann'><show>away</show></presence>")
    assert await cast.said() == []


async def test_a_member_who_leaves_remains_a_member(cast: Cast) -> None:
    await cast.open(members=["bob"])
    await enter(cast.bob, cast.room, "Bob")
    await leave(cast.bob, cast.room, "Bob")
    assert await cast.said() == ["change: bob member in as Bob", "change: bob member left"]


async def test_a_new_nick_is_one_change(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await rename(cast.bob, cast.room, "Robert")
    assert (await cast.said())[1:] == ["change: bob none in as Robert"]


async def test_a_kick_says_so(cast: Cast) -> None:
    await cast.open(members=["bob"])
    await enter(cast.bob, cast.room, "Bob")
    await kick(cast.ann, cast.room, "Bob")
    assert (await cast.said())[1:] == ["change: bob member kicked"]


async def test_a_ban_is_one_change_and_of_the_absent_too(cast: Cast) -> None:
    await cast.open(members=["cid"])
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    for name in ("bob", "cid"):
        await affiliate(cast.ann, cast.room, cast.accounts[name], "outcast")
    assert await cast.said() == ["change: bob outcast banned", "change: cid outcast banned"]
    await affiliate(cast.ann, cast.room, cast.server.name(), "outcast")  # somebody who was never a member
    assert await cast.said() == []


async def test_affiliations_of_the_absent_change(cast: Cast) -> None:
    await cast.open()
    for affiliation in ("member", "admin", "owner", "none"):
        await affiliate(cast.ann, cast.room, cast.accounts["cid"], affiliation)
    assert await cast.said() == [
        *("change: cid member", "change: cid admin", "change: cid owner", "change: cid none removed"),
    ]


async def test_the_affiliation_of_somebody_present_is_one_change(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await affiliate(cast.ann, cast.room, cast.accounts["bob"], "admin")
    await affiliate(cast.ann, cast.room, cast.accounts["bob"], "none")
    assert (await cast.said())[1:] == ["change: bob admin in as Bob", "change: bob none in as Bob"]


async def test_who_loses_membership_of_a_private_room_is_removed(cast: Cast) -> None:
    await cast.open(members_only=True, members=["bob"])
    await enter(cast.bob, cast.room, "Bob")
    await affiliate(cast.ann, cast.room, cast.accounts["bob"], "none")
    assert (await cast.said())[1:] == ["private change: bob none removed"]


async def test_a_reserved_nick_is_told_and_the_one_in_the_room_goes_before_it(cast: Cast) -> None:
    await cast.open()
    await affiliate(cast.ann, cast.room, cast.accounts["bob"], "member", nick="Bobby")
    await enter(cast.bob, cast.room, "Bob")
    assert await cast.said() == ["change: bob member as Bobby", "change: bob member in as Bob"]


async def test_a_room_that_becomes_private_says_so_and_removes_visitors(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await configure(cast.ann, cast.room, members_only=True)
    changes = [c for c in await cast.said() if "message" not in c]
    assert changes == ["private change: bob none removed"]
    await configure(cast.ann, cast.room, members_only=False)
    assert [c for c in await cast.said() if "message" not in c] == ["change:"]
    await configure(cast.ann, cast.room, members_only=True)
    assert [c for c in await cast.said() if "message" not in c] == ["private change:"]


async def test_who_is_thrown_out_as_the_first_thing_in_a_stream_is_named_besides_the_listing(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await cast.server.control(cast.ann, "reload", host=ROOMS)
    await cast.subscribed_again()
    await kick(cast.ann, cast.room, "Bob")
    assert (await cast.said())[-2:] == ["listing: ann owner in as Ann", "change: bob none kicked"]


# ---- room-message --------------------------------------------------------------------------------------------------


async def test_a_message_comes_once_with_its_author_and_its_archive_id(cast: Cast) -> None:
    await cast.open(members=["cid"])
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    cast.say(cast.bob, "hello")
    (event,) = await cast.events()
    assert (event.element.get("author"), event.element.get("private")) == (cast.accounts["bob"], None)
    stanza = event.stanza
    assert (stanza.get("type"), stanza.get("from"), stanza.get("to")) == ("groupchat", f"{cast.room}/Bob", None)
    ids = [s.attrib for s in stanza.iterfind("{urn:xmpp:sid:0}stanza-id")]
    assert ids == [{"by": cast.room, "id": event.element.get("archive-id")}]


async def test_a_message_of_a_private_room_says_so(cast: Cast) -> None:
    await cast.open(members_only=True)
    cast.say(cast.ann, "secret")
    assert await cast.said() == ["private message: secret by ann"]


async def test_a_message_that_is_not_archived_has_no_archive_id(cast: Cast) -> None:
    await cast.open()
    forged = f"<stanza-id xmlns='urn:xmpp:sid:0' by='{cast.room}' id='forged'/>"
    cast.ann.message(cast.room, f"<body>x</body>{forged}<no-store xmlns='urn:xmpp:hints'/>", kind="groupchat")
    (event,) = await cast.events()
    assert event.element.get("archive-id") is None
    assert event.stanza.find("{urn:xmpp:sid:0}stanza-id") is None


async def test_a_moderated_message_is_announced_by_the_room_itself(cast: Cast) -> None:
    await cast.open()
    cast.say(cast.ann, "rude")
    (rude,) = await cast.events()
    request = "<moderate xmlns='urn:xmpp:message-moderate:0'><retract xmlns='urn:xmpp:message-retract:0'/></moderate>"
    apply_to = f"<apply-to xmlns='urn:xmpp:fasten:0' id='{rude.element.get('archive-id')}'>{request}</apply-to>"
    await cast.ann.iq("set", apply_to, to=cast.room)
    (event,) = await cast.events()
    assert (event.kind, event.element.get("author"), event.stanza.get("from")) == ("room-message", None, cast.room)
    assert event.stanza[0].get("id") == rude.element.get("archive-id")


async def test_chat_states_alone_are_no_events(cast: Cast) -> None:
    await cast.open()
    typing = f"<composing xmlns='{CHATSTATES}'/><no-store xmlns='urn:xmpp:hints'/><thread>t</thread>"
    cast.ann.message(cast.room, typing, kind="groupchat")
    cast.ann.message(cast.room, f"<active xmlns='{CHATSTATES}'/><body>done</body>", kind="groupchat")
    assert await cast.said() == ["message: done by ann"]


async def test_history_is_not_sent_again(cast: Cast) -> None:
    await cast.open()
    cast.say(cast.ann, "old")
    await cast.said()
    await enter(cast.bob, cast.room, "Bob", history=20)
    await cast.bob.wait_for(lambda e: e.findtext("{jabber:client}body") == "old", past=True)
    assert await cast.said() == ["change: bob none in as Bob"]


async def test_who_is_not_in_the_room_says_nothing(cast: Cast) -> None:
    await cast.open()
    cast.say(cast.bob, "hello?")
    assert await cast.said() == []


async def test_a_private_message_is_none_of_the_rooms(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    cast.ann.chat(f"{cast.room}/Bob", "between us")
    await cast.bob.wait_for(lambda e: e.findtext("{jabber:client}body") == "between us", past=True)
    assert await cast.said() == []
    feed = await cast.server.feed()  # acked: what came before is known
    cast.ann.chat(f"{cast.room}/Bob", "again")
    out, into = await feed.message("again", "out"), await feed.message("again", "in")
    assert (out.element.get("account"), out.stanza.get("to")) == (cast.accounts["ann"], f"{cast.room}/Bob")
    assert (into.element.get("account"), into.stanza.get("from")) == (cast.accounts["bob"], f"{cast.room}/Ann")
    cast.server.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()


# ---- room: the end -------------------------------------------------------------------------------------------------


async def test_a_destroyed_room_says_so_once_and_is_new_when_it_comes_back(cast: Cast) -> None:
    await cast.open(persistent=False, members=["cid"])
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await destroy(cast.ann, cast.room)
    assert await cast.said() == ["room destroyed"]
    await enter(cast.bob, cast.room, "Bob")
    assert await cast.said() == ["listing: bob owner in as Bob"]


async def test_a_temporary_room_ends_with_its_last_occupant(cast: Cast) -> None:
    await cast.open(persistent=False)
    await leave(cast.ann, cast.room, "Ann")
    assert await cast.said() == ["change: ann owner left", "room destroyed"]


async def test_a_persistent_room_that_is_destroyed_leaves_nothing_behind(cast: Cast) -> None:
    await cast.open()
    await destroy(cast.ann, cast.room)
    assert await cast.said() == ["room destroyed"]
    with pytest.raises(StanzaError, match="gone"):
        await affiliate(cast.ann, cast.room, cast.accounts["bob"], "member")
    assert await cast.said() == []


async def test_a_room_that_does_not_come_to_be_is_no_event(cast: Cast) -> None:
    cast.ann.send(f"<presence to='{cast.room}/ '><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    assert await cast.said() == []
