"""Rooms under a real ejabberd: a message once, members whether they are there or not (docs/feed.md §5)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.ejabberd_server import DOMAIN, ROOMS, Ejabberd, ejabberd_of_its_own
from tests.system.room_client import MUC, Cast, affiliate, configure, destroy, enter, leave, members, words
from tests.system.surgery import processor_seconds
from tests.system.xmpp_client import StanzaError
from tests.system.xmpp_component import FEED, NS, FeedComponent, settled

pytest_plugins = ("tests.system.ejabberd_feed",)

CHATSTATES = "http://jabber.org/protocol/chatstates"


@pytest_asyncio.fixture
async def cast(ejabberd: Ejabberd, rooms: FeedComponent) -> AsyncIterator[Cast]:
    cast = Cast(ejabberd, rooms)
    await cast.arrive()
    yield cast
    await cast.depart()


# ---- §2 and §8: what a host of rooms answers -----------------------------------------------------------------------


async def test_hello_of_a_host_of_rooms_says_so_and_has_no_sessions(rooms: FeedComponent) -> None:
    assert (rooms.hello.get("host"), rooms.hello.get("rooms")) == (ROOMS, "true")
    assert rooms.hello.find(f"{FEED}session") is None


async def test_both_hosts_are_fed_on_one_connection(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    await feed.iq("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", to=ROOMS)
    cast = Cast(ejabberd, feed)
    await cast.arrive()
    await enter(cast.ann, cast.room, "Ann")
    await feed.event(lambda e: e.element.get("account") == cast.room)
    await feed.event(lambda e: e.element.get("account") == cast.accounts["ann"])
    ejabberd.told_of_rooms |= {e.stream: e.n for e in feed.events if e.element.get("account", "").endswith(ROOMS)}
    await cast.depart()


async def test_nobody_but_the_component_may_fetch_the_rooms(cast: Cast) -> None:
    with pytest.raises(StanzaError, match="forbidden"):
        await cast.ann.iq("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", to=ROOMS)


async def test_the_rooms_are_the_accounts_of_their_host(tmp_path: Path) -> None:
    """Those that are kept, asleep or not, and those that are there for now."""
    async with ejabberd_of_its_own(tmp_path, modules={"mod_muc": {"preload_rooms": False}}) as server:
        cast = Cast(server, await server.rooms())
        await cast.arrive()
        kept = [f"kept{i}@{ROOMS}" for i in range(3)]
        for room in kept:
            await enter(cast.ann, room, "Ann")
            await configure(cast.ann, room)
            await leave(cast.ann, room, "Ann")
        server.stop()
        await server.start()
        cast.feed = await server.rooms()
        await cast.arrive()
        await enter(cast.bob, cast.room, "Bob")
        assert await accounts(cast.feed, 2) == sorted([*kept, cast.room])


async def accounts(feed: FeedComponent, page: int) -> list[str]:
    listed: list[str] = []
    last = False
    while not last:
        behind = f" after='{listed[-1]}'" if listed else ""
        answer = await feed.ask("get", f"<accounts xmlns='{NS}' max='{page}'{behind}/>")
        listed += [account.get("jid", "") for account in answer]
        last = answer.get("last") == "true"
    return listed


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
    await cast.server.control(cast.ann, "reload")  # a new stream
    await cast.feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
    await cast.subscribed_again()
    cast.say(cast.ann, "hello")
    assert (await cast.said())[-2:] == [
        "listing: ann owner in as Ann, bob none in as Bob, cid member",
        "message: hello by ann",
    ]


async def test_a_room_is_not_listed_again_while_the_stream_lives(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    cast.say(cast.bob, "one")
    cast.say(cast.bob, "two")
    assert await cast.said() == ["change: bob none in as Bob", "message: one by bob", "message: two by bob"]


async def test_a_killed_server_lists_its_rooms_again(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as server:
        cast = Cast(server, await server.rooms())
        await cast.arrive()
        await cast.open(members_only=True, members=["bob", "cid"])
        await enter(cast.bob, cast.room, "Bob")
        assert await cast.said() == ["private change: bob member in as Bob"]
        server.kill()
        await server.start()
        await cast.arrive()
        await cast.subscribed_again()
        await enter(cast.ann, cast.room, "Ann")
        assert (await cast.said())[-1] == "private listing: ann owner in as Ann, bob member, cid member"
        assert cast.feed.events[-1].stream == cast.feed.current


async def test_a_room_that_slept_is_listed_before_its_next_event(tmp_path: Path) -> None:
    """Its process ends, and with it what is remembered of it."""
    async with ejabberd_of_its_own(tmp_path, modules={"mod_muc": {"hibernation_timeout": "1 second"}}) as server:
        cast = Cast(server, await server.rooms())
        await cast.arrive()
        await cast.open(members=["cid"])
        await leave(cast.ann, cast.room, "Ann")
        assert await cast.said() == ["change: ann owner left"]
        await cast.server.control(cast.ann, "asleep", room=cast.room)
        await enter(cast.bob, cast.room, "Bob")
        assert await cast.said() == ["listing: ann owner, bob none in as Bob, cid member"]


async def test_after_a_gap_a_room_is_listed_again(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as server:
        cast = Cast(server, await server.rooms())
        await cast.arrive()
        await cast.open()
        cast.ann.message(cast.room, "<body>broken</body><broken xmlns='urn:convsync:test'/>", kind="groupchat")
        cast.say(cast.ann, "next")
        new = await cast.events()
        assert [words(e, cast.names) for e in new] == ["listing: ann owner in as Ann", "message: next by ann"]
        gap = await cast.feed.event(lambda e: e.kind == "gap")
        assert (gap.n, gap.element.get("account"), gap.stream) == (1, ROOMS, new[0].stream)
        await cast.ann.wait_for(lambda e: e.findtext("{jabber:client}body") == "broken", past=True)


async def test_a_full_outbox_does_not_part_a_message_from_its_listing(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, outbox_max=1) as server:
        cast = Cast(server, await server.component(ROOMS))  # nobody is subscribed
        await cast.arrive()
        await enter(cast.ann, cast.room, "Ann")
        await configure(cast.ann, cast.room)
        for i in range(40):
            cast.say(cast.ann, f"{i}" + "x" * 40_000)
        await cast.ann.ping()
        await cast.server.control(cast.ann, "settle", room=cast.room)
        await cast.feed.subscribe()
        await cast.feed.event(lambda e: (e.body or "").startswith("39x"))
        assert [e.kind for e in cast.feed.events][:3] == ["gap", "room-members", "room-message"]
        assert cast.feed.events[0].element.get("reason") == "full"


@pytest.mark.parametrize("count", [200, 201, 1500])
async def test_a_long_listing_comes_in_pages_and_fast(ejabberd: Ejabberd, cast: Cast, count: int) -> None:
    await cast.open()
    others = [f"m{i}@{DOMAIN}" for i in range(count - 1)]
    await cast.server.control(cast.ann, "affiliate", room=cast.room, count=str(count - 1))
    await cast.said()
    await cast.server.control(cast.ann, "reload")
    await cast.subscribed_again()
    await settled(cast.feed, cast.ann)
    before = processor_seconds(ejabberd.pid)
    cast.say(cast.ann, "now")
    *listing, _ = [e for e in await cast.events() if e.stream == cast.feed.current]
    took = processor_seconds(ejabberd.pid) - before
    sizes = [len(members(e)) for e in listing]
    assert sizes == [200] * (count // 200) + ([count % 200] if count % 200 else [])
    assert [e.element.get("begin") for e in listing] == ["true"] + [None] * (len(sizes) - 1)
    assert [e.element.get("end") for e in listing] == [None] * (len(sizes) - 1) + ["true"]
    assert {jid for e in listing for jid in members(e)} == {cast.accounts["ann"], *others}
    assert took < 5  # generous: it takes some tens of milliseconds


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
    seen = await cast.ann.wait_for(lambda e: e.findtext("{jabber:client}body") == "hello", past=True)
    assert [s.attrib for s in seen.iterfind("{urn:xmpp:sid:0}stanza-id")] == ids


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


async def test_a_room_without_an_archive_gives_no_archive_id(cast: Cast) -> None:
    await cast.open()
    await cast.server.control(cast.ann, "set-option", room=cast.room, option="mam", value="false")
    cast.say(cast.ann, "fleeting")
    (event,) = await cast.events()
    assert (event.body, event.element.get("archive-id")) == ("fleeting", None)


async def test_what_the_room_itself_says_has_no_author(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await cast.server.control(cast.ann, "announce", room=cast.room, text="The room moves")
    (event,) = await cast.events()
    assert (event.body, event.element.get("author"), event.stanza.get("from")) == ("The room moves", None, cast.room)


async def test_a_new_subject_is_a_message(cast: Cast) -> None:
    await cast.open()
    cast.ann.message(cast.room, "<subject>Tea</subject>", kind="groupchat")
    (event,) = await cast.events()
    assert (event.kind, event.stanza.findtext("{jabber:client}subject")) == ("room-message", "Tea")


async def test_chat_states_alone_are_no_events(cast: Cast) -> None:
    await cast.open()
    typing = f"<composing xmlns='{CHATSTATES}'/><no-store xmlns='urn:xmpp:hints'/><thread>t</thread>"
    cast.ann.message(cast.room, typing, kind="groupchat")
    cast.ann.message(cast.room, f"<active xmlns='{CHATSTATES}'/><body>done</body>", kind="groupchat")
    assert await cast.said() == ["message: done by ann"]


async def test_history_and_subject_are_not_sent_again(cast: Cast) -> None:
    await cast.open()
    cast.say(cast.ann, "old")
    cast.ann.message(cast.room, "<subject>Tea</subject>", kind="groupchat")
    await cast.said()
    await enter(cast.bob, cast.room, "Bob", history=20)
    await cast.bob.wait_for(lambda e: e.findtext("{jabber:client}subject") == "Tea", past=True)
    assert await cast.said() == ["change: bob none in as Bob"]


async def test_who_is_not_in_the_room_says_nothing(cast: Cast) -> None:
    await cast.open()
    cast.say(cast.bob, "hello?")
    assert await cast.said() == []


async def test_nothing_that_a_covered_room_says_is_a_message_of_a_user(ejabberd: Ejabberd, cast: Cast) -> None:
    feed = await ejabberd.feed()
    await cast.open(members=["cid"])
    await enter(cast.bob, cast.room, "Bob")
    cast.say(cast.bob, "to all")
    await affiliate(cast.ann, cast.room, ejabberd.name(), "admin")  # a notice to those who are there
    await configure(cast.ann, cast.room, members_only=True)
    await cast.said()
    cast.ann.chat(cast.accounts["bob"], "the end")
    await feed.message("the end")
    assert {e.body for e in feed.events if e.kind == "message"} == {"the end"}
    ejabberd.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()


async def test_a_private_message_is_none_of_the_rooms(ejabberd: Ejabberd, cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    feed = await ejabberd.feed()
    cast.ann.chat(f"{cast.room}/Bob", "between us")
    out, into = await feed.message("between us", "out"), await feed.message("between us", "in")
    assert (out.element.get("account"), out.stanza.get("to")) == (cast.accounts["ann"], f"{cast.room}/Bob")
    assert (into.element.get("account"), into.stanza.get("from")) == (cast.accounts["bob"], f"{cast.room}/Ann")
    ejabberd.told |= feed.ack_all()
    await feed.caught_up()
    await feed.cut()
    assert await cast.said() == []


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
    assert await cast.said() == ["room destroyed"]


async def test_a_room_is_listed_before_its_end_in_a_stream_that_knows_nothing_of_it(cast: Cast) -> None:
    await cast.open(members=["cid"])
    await cast.server.control(cast.ann, "reload")
    await cast.subscribed_again()
    await destroy(cast.ann, cast.room)
    assert (await cast.said())[-2:] == ["listing: ann owner in as Ann, cid member", "room destroyed"]


async def test_a_room_that_does_not_come_to_be_is_no_event(cast: Cast) -> None:
    form = "<nick>Taken</nick>"
    await cast.bob.iq("set", f"<query xmlns='jabber:iq:register'>{form}</query>", to=ROOMS)
    cast.ann.send(f"<presence to='{cast.room}/Taken'><x xmlns='{MUC}'/></presence>")
    await cast.ann.wait_for(lambda e: e.get("type") == "error" and e.get("from") == f"{cast.room}/Taken", past=True)
    assert await cast.said() == []
