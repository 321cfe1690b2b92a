"""Who belongs to a room of a real ejabberd, and who told it so: the room, its members, an administrator's tools
(docs/feed.md §5.3). In the end, random comings and goings: what was told change by change is what a listing says.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.system.ejabberd_server import DOMAIN, Ejabberd
from tests.system.room_client import Cast, affiliate, configure, enter, kick, leave, members, rename
from tests.system.test_prosody_membership import STEPS, fold, step
from tests.system.xmpp_component import FeedComponent

pytest_plugins = ("tests.system.ejabberd_feed",)


@pytest_asyncio.fixture
async def cast(ejabberd: Ejabberd, rooms: FeedComponent) -> AsyncIterator[Cast]:
    cast = Cast(ejabberd, rooms)
    await cast.arrive()
    yield cast
    await cast.depart()


# ---- what people do ------------------------------------------------------------------------------------------------


async def test_joining_and_leaving_is_told_for_the_first_and_the_last_session(cast: Cast) -> None:
    await cast.open()
    laptop = await cast.server.client(f"{cast.accounts['bob']}/laptop")
    await enter(cast.bob, cast.room, "Bob")
    assert await cast.said() == ["change: bob none in as Bob"]
    await enter(laptop, cast.room, "Bob")
    await leave(cast.bob, cast.room, "Bob")
    assert await cast.said() == []
    cast.ann.received.clear()
    await laptop.close()  # without leaving
    await cast.ann.wait_for(lambda e: e.get("from") == f"{cast.room}/Bob" and e.get("type") == "unavailable", past=True)
    assert await cast.said() == ["change: bob none left"]


async def test_a_session_that_is_lost_leaves(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    gone = asyncio.ensure_future(
        cast.ann.wait_for(lambda e: e.get("from") == f"{cast.room}/Bob" and e.get("type") == "unavailable")
    )
    await cast.bob.cut()
    await gone
    cast.bob = cast.ann
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


async def test_who_left_after_a_kick_of_somebody_else_has_left(cast: Cast) -> None:
    await cast.open()
    cat = await cast.server.client(f"{cast.accounts['cid']}/cat")
    await enter(cast.bob, cast.room, "Bob")
    await enter(cat, cast.room, "Cat")
    await kick(cast.ann, cast.room, "Bob")
    await leave(cat, cast.room, "Cat")
    assert (await cast.said())[2:] == ["change: bob none kicked", "change: cid none left"]
    await cat.close()


async def test_who_was_kicked_and_is_back_has_nothing_said_of_it(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await kick(cast.ann, cast.room, "Bob")
    await enter(cast.bob, cast.room, "Bob")
    await leave(cast.bob, cast.room, "Bob")
    assert (await cast.said())[-2:] == ["change: bob none in as Bob", "change: bob none left"]


async def test_who_is_thrown_out_as_the_first_thing_in_a_stream_is_named_besides_the_listing(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await cast.server.control(cast.ann, "reload")
    await cast.subscribed_again()
    await kick(cast.ann, cast.room, "Bob")
    assert (await cast.said())[-2:] == ["listing: ann owner in as Ann", "change: bob none kicked"]


# ---- affiliations --------------------------------------------------------------------------------------------------


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


async def test_a_room_that_becomes_private_says_so_and_removes_visitors(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    await configure(cast.ann, cast.room, members_only=True)
    assert await cast.said() == ["private change: bob none removed"]
    await configure(cast.ann, cast.room, members_only=False)
    assert await cast.said() == ["change:"]
    await configure(cast.ann, cast.room, members_only=True)
    assert await cast.said() == ["private change:"]


async def test_a_subscriber_of_the_room_has_a_nick_while_absent(cast: Cast) -> None:
    await cast.open(members=["bob"])
    await cast.server.control(cast.ann, "set-option", room=cast.room, option="allow_subscription", value="true")
    nick = (
        "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Bobby'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>"
    )
    await cast.bob.iq("set", nick, to=cast.room)
    assert await cast.said() == ["change: bob member as Bobby"]
    cast.say(cast.ann, "to subscribers, too")  # once, though it goes out twice
    assert await cast.said() == ["message: to subscribers, too by ann"]


# ---- an administrator's tools, which no hook tells of ---------------------------------------------------------------


async def test_what_an_administrator_does_to_a_room_with_people_in_it_is_seen_at_once(cast: Cast) -> None:
    await cast.open()
    await enter(cast.bob, cast.room, "Bob")
    await cast.said()
    for name, affiliation in (("bob", "member"), ("cid", "member"), ("bob", "outcast")):
        await cast.server.control(
            cast.ann, "set-affiliation", room=cast.room, account=cast.accounts[name], affiliation=affiliation
        )
    assert await cast.said() == ["change: bob member in as Bob", "change: cid member", "change: bob outcast banned"]
    await cast.server.control(cast.ann, "set-option", room=cast.room, option="members_only", value="true")
    assert await cast.said() == ["private change:"]


async def test_what_is_done_to_an_empty_room_is_seen_soon(cast: Cast) -> None:
    """By the look that every room takes from time to time."""
    await cast.open()
    await leave(cast.ann, cast.room, "Ann")
    assert await cast.said() == ["change: ann owner left"]
    await cast.server.control(
        cast.ann, "set-affiliation", room=cast.room, account=cast.accounts["cid"], affiliation="admin"
    )
    await cast.feed.event(lambda e: cast.accounts["cid"] in members(e))
    assert await cast.said() == ["change: cid admin"]


async def test_what_is_done_to_an_empty_room_is_seen_before_its_next_event(cast: Cast) -> None:
    await cast.open()
    await leave(cast.ann, cast.room, "Ann")
    for i in range(3):
        account = cast.accounts["cid"] if i else f"m{i}@{DOMAIN}"
        await cast.server.control(cast.ann, "set-affiliation", room=cast.room, account=account, affiliation="member")
    await enter(cast.ann, cast.room, "Ann")
    cast.say(cast.ann, "hello")
    said = await cast.said()
    assert said[-1] == "message: hello by ann"
    assert "cid member" in " ".join(said)


async def test_a_room_that_an_administrator_destroys_ends(cast: Cast) -> None:
    await cast.open()
    await leave(cast.ann, cast.room, "Ann")
    await cast.server.control(cast.ann, "destroy", room=cast.room)
    assert (await cast.said())[-1] == "room destroyed"


# ---- all of it together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hasty", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_changes_add_up_to_the_listing(cast: Cast, seed: int, hasty: bool) -> None:
    """Hasty: people seldom wait for the room, so that it takes one look at several things."""
    dice = random.Random(seed)  # noqa: S311 - repeatable
    await cast.open()
    people = [cast.accounts["bob"], cast.accounts["cid"], cast.server.name()]
    sessions = await asyncio.gather(*(cast.server.client(f"{who}/{r}") for who in people for r in "ab"))
    for _ in range(STEPS):
        actor, stanza = step(dice, cast, sessions)
        actor.send(stanza)
        await actor.ping()
        if not hasty or dice.randrange(4) == 0:
            await cast.server.control(cast.ann, "settle", room=cast.room)
    await cast.said()
    gone = sessions.pop()
    await gone.close()
    await cast.said()
    told = [e for e in cast.feed.events if e.element.get("account") == cast.room]
    assert len(told) > STEPS / (12 if hasty else 4)
    await cast.server.control(cast.ann, "reload")
    await cast.subscribed_again()
    cast.say(cast.ann, "list it")
    await cast.said()
    again = [e for e in cast.feed.events if e.stream == cast.feed.current and e.element.get("account") == cast.room]
    assert fold(told) == fold(again)
    assert told[-1].element.get("private") == again[0].element.get("private")
    for session in sessions:
        await session.close()
