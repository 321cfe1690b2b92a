"""Rooms of this server, from one real client to the others' lists, rows and phones, be they there or not (PROTOCOLS
§5).
"""

import pytest

from tests.system.box import Box
from tests.system.person import CORRECT, SID, Person, Phone
from tests.system.room import Room, people
from tests.system.room_client import rename
from tests.system.xmpp_client import CLIENT

MODERATE = "urn:xmpp:message-moderate:0"


async def household(box: Box) -> tuple[Room, Person, Person, Person]:
    """A members-only room with Alice in it; Bob and Carol are members who never came."""
    alice = await box.person(resource="desk")
    bob, carol = await people(box, 2)
    room = await Room.open(box, alice, private=True)
    await room.admit(bob, carol)
    return room, alice, bob, carol


async def pocket(box: Box, owner: Person) -> tuple[Person, Phone]:
    """A phone of the owner's, whose app is not running."""
    app = await box.person(owner.account, "phone", presence=False)
    phone = await box.phone(app)
    await app.close()
    return app, phone


def kinds(box: Box, phone: Phone) -> list[str]:
    return [push["payload"]["x"]["k"] for push in box.pushes(*phone.tokens, status=None)]


# ---- a members-only room ---------------------------------------------------------------------------------------------


async def test_absent_members_have_it_unread_and_are_woken_once(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    _, his = await pocket(box, bob)
    _, hers = await pocket(box, alice)
    await room.say(alice, "dinner is ready")
    assert await room.told(bob) == await room.told(carol) == (1, "dinner is ready")
    assert await room.told(alice) == (0, "dinner is ready")
    await box.pushed(his.token)
    await box.settled(alice.account, bob.account)
    assert (kinds(box, his), kinds(box, hers)) == (["message"], [])
    await box.sound(alice.account, bob.account, carol.account)


async def test_mentions_count_for_whom_they_mean(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    await room.admit(carol, nick="Carol")
    await room.mention(alice, bob.account)
    await room.say(alice, "carol: are you coming?")
    await room.mention(alice, f"{room.jid}/Carol")
    await room.say(alice, "scarole is a salad")
    rows = [await room.row(one) for one in (alice, bob, carol)]
    called = 2 if box.server == "prosody" else 0  # ejabberd keeps no nickname with an affiliation
    assert [(row["unread"], row["mentions"]) for row in rows] == [(0, 0), (4, 1), (4, called)]
    await box.sound(alice.account, bob.account, carol.account)


async def test_read_inside_the_room(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    app, phone = await pocket(box, bob)
    ids = [await room.say(alice, f"number {number}") for number in range(3)]
    await box.pushed(phone.token)
    await box.fetched(app)
    desk = await box.person(bob.account, "desk")
    await room.enter(desk, "Bob")
    await room.displayed(desk, ids[1])
    assert await room.told(bob) == (1, "number 2")
    await room.displayed(desk, ids[2])
    await room.displayed(desk, ids[0])
    assert await room.told(bob) == (0, "number 2")
    assert await room.told(carol) == (3, "number 2")
    await box.pushed(phone.token, kind="read")
    await box.sound(bob.account, carol.account)


async def test_read_on_another_device(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    app, phone = await pocket(box, bob)
    ids = [await room.say(alice, f"number {number}") for number in range(3)]
    await box.pushed(phone.token)
    await box.fetched(app)
    await bob.read(room.jid, ids[1], by=room.jid)
    assert await room.told(bob) == (1, "number 2")
    await bob.read(room.jid, ids[2], by=room.jid)
    assert await room.told(bob) == (0, "number 2")
    await box.pushed(phone.token, kind="read")
    await room.say(alice, "number 3")
    assert (await room.told(bob), await room.told(carol)) == ((1, "number 3"), (4, "number 3"))
    await box.sound(bob.account, carol.account)


async def test_what_is_read_the_moment_it_is_heard_is_read(box: Box) -> None:
    room, alice, bob, _ = await household(box)
    desk = await box.person(bob.account, "desk")
    await room.enter(desk, "Bob")
    for number in range(20):
        sent = alice.message(room.jid, f"<body>number {number}</body>", kind="groupchat", message_id=f"now{number}")
        said = await desk.wait_for(lambda e, sent=sent: e.get("id") == sent)  # type: ignore[misc]
        # By another stream than the message that it is about.
        await desk.read(room.jid, said.find(f"{{{SID}}}stanza-id").get("id"), by=room.jid)  # type: ignore[union-attr]
        assert await room.told(bob) == (0, f"number {number}")
    await box.sound(bob.account)


async def test_what_was_announced_and_is_taken_back_is_withdrawn(box: Box) -> None:
    room, alice, bob, _ = await household(box)
    app, phone = await pocket(box, bob)
    said = await room.say(alice, "oops")
    await box.pushed(phone.token)
    await box.fetched(app)
    await room.retract(alice, said)
    await box.pushed(phone.token, kind="withdraw")
    assert await room.told(bob) == (0, None)


# ---- a public room ---------------------------------------------------------------------------------------------------


async def test_strangers_have_nothing_and_visitors_are_woken_by_mentions_only(box: Box) -> None:
    alice, eve = await box.person(resource="desk"), await box.person(resource="desk")
    (dave,) = await people(box, 1)
    _, phone = await pocket(box, eve)
    room = await Room.open(box, alice)
    await room.enter(eve, "Eve")
    await room.say(alice, "good morning")
    assert (await room.told(dave), await room.told(eve)) == (None, (1, "good morning"))
    await box.settled(eve.account)
    assert await box.jobs(eve.account) == []
    await room.say(alice, "Eve, what do you think?")
    await box.pushed(phone.token)
    await box.settled(eve.account)
    assert kinds(box, phone) == ["message"]


async def test_the_bookmark_says_what_wakes(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    await room.wish(bob, "never")
    await room.wish(carol, "on-mention")
    (_, his), (_, hers) = await pocket(box, bob), await pocket(box, carol)
    await room.mention(alice, bob.account)
    assert (await room.told(bob), await room.told(carol)) == ((1, "you, there"), (1, "you, there"))
    await room.mention(alice, carol.account)
    await box.pushed(hers.token)
    await box.settled(bob.account, carol.account)
    assert (kinds(box, his), kinds(box, hers)) == ([], ["message"])
    assert len(await box.jobs(bob.account)) == 0


async def test_always_in_a_public_room(box: Box) -> None:
    alice = await box.person(resource="desk")
    (bob,) = await people(box, 1)
    room = await Room.open(box, alice)
    await room.admit(bob)
    await room.wish(bob, "always")
    _, phone = await pocket(box, bob)
    await room.say(alice, "anything")
    await box.pushed(phone.token)
    assert await room.told(bob) == (1, "anything")


# ---- what is no news -------------------------------------------------------------------------------------------------


async def test_history_at_rejoining_and_for_another_resource_counts_nothing(box: Box) -> None:
    room, alice, bob, _ = await household(box)
    await room.say(alice, "one")
    await room.say(alice, "two")
    desk, laptop = [await box.person(bob.account, resource) for resource in ("desk", "laptop")]
    await room.enter(desk, "Bob", history=20)
    await room.say(desk, "three")
    await room.enter(laptop, "Bob", history=20)
    await room.leave(desk)
    await room.enter(desk, "Bob", history=20)
    await desk.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "three", past=True)
    await desk.ping()
    assert (await room.told(bob), await room.told(alice)) == ((2, "three"), (1, "three"))
    assert len(await box.sql("SELECT 1 FROM message WHERE account = $1", room.jid)) == 3
    assert await box.sql("SELECT 1 FROM message WHERE account = ANY ($1)", [bob.account, alice.account]) == []


async def test_subjects_joins_and_new_nicks_are_no_news(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    await room.say(alice, "one")
    stamp = (await bob.sync()).stamp
    alice.message(room.jid, "<subject>Tea</subject>", kind="groupchat")
    await alice.wait_for(lambda e: e.findtext(f"{CLIENT}subject") == "Tea")
    desk = await box.person(carol.account, "desk")
    await room.enter(desk, "Carol")
    await rename(desk, room.jid, "Caroline")
    room.nicks[desk.jid] = "Caroline"
    await room.leave(desk)
    await desk.ping()
    assert (await bob.sync(stamp)).items == []


# ---- what happens to messages ----------------------------------------------------------------------------------------


async def test_corrected_reacted_to_and_taken_back(box: Box) -> None:
    room, alice, bob, _ = await household(box)
    desk = await box.person(bob.account, "desk")
    await room.enter(desk, "Bob")
    first = await room.say(alice, "dinenr", message_id="first")
    second = await room.say(alice, "at eight", message_id="second")
    await room.say(alice, "dinner", f"<replace xmlns='{CORRECT}' id='first'/>")
    await room.say(desk, "nonsense", f"<replace xmlns='{CORRECT}' id='first'/>")  # not his own
    desk.react(room.jid, first, "🎉", kind="groupchat")
    await desk.ping()
    assert await room.told(bob) == (2, "at eight")
    await room.retract(desk, first)  # not his either
    await room.retract(alice, second)
    assert await room.told(bob) == (1, None)
    expected = [("corrected", first), ("reacted", first), ("retracted", second)]
    assert await room.changes(bob) == await room.changes(alice) == expected
    await box.sound(alice.account, bob.account)


@pytest.mark.without("ejabberd", "23.01 knows no moderation (XEP-0425)")
async def test_a_moderator_takes_it_away(box: Box) -> None:
    room, alice, bob, carol = await household(box)
    desk = await box.person(carol.account, "desk")
    await room.enter(desk, "Carol")
    rude = await room.say(desk, "rude")
    await room.say(desk, "polite")
    assert await room.told(bob) == (2, "polite")
    request = f"<moderate xmlns='{MODERATE}'><retract xmlns='urn:xmpp:message-retract:0'/></moderate>"
    await alice.iq("set", f"<apply-to xmlns='urn:xmpp:fasten:0' id='{rude}'>{request}</apply-to>", to=room.jid)
    assert (await room.told(bob), await room.told(alice), await room.told(carol)) == (
        *((1, "polite"), (1, "polite"), (0, "polite")),
    )
    assert await room.changes(bob) == [("moderated", rude)]
    await box.sound(alice.account, bob.account, carol.account)


# ---- freshness -------------------------------------------------------------------------------------------------------


async def test_a_member_who_asks_sees_what_was_said_before_the_question(box: Box) -> None:
    room, alice, bob, _ = await household(box)
    for number in range(1, 101):
        said = alice.message(room.jid, f"<body>number {number}</body>", kind="groupchat")
        # The room has said it when its author hears it; from here on no question may miss it.
        await alice.wait_for(lambda e, said=said: e.get("id") == said)  # type: ignore[misc]
        assert await room.told(bob) == (number, f"number {number}")
        if number % 10 == 0:
            phone = await box.person(bob.account, f"phone{number}", presence=False)
            assert await room.told(phone) == (number, f"number {number}")
            await phone.close()
