"""Rooms of other servers, of which nothing is known but what the account's own sessions see (PROTOCOLS §5): a second
host of rooms, on which our module is not.
"""

from tests.system.box import Box
from tests.system.person import CORRECT, MARKERS, STORE, Person
from tests.system.room import Room, people
from tests.system.xmpp_client import CLIENT


async def abroad(box: Box) -> tuple[Room, Person, Person]:
    """A room with Alice and Bob in it."""
    host = await box.elsewhere()
    alice, bob = await box.person(resource="desk"), await box.person(resource="desk")
    room = await Room.open(box, alice, host=host)
    await room.enter(bob, "Bob")
    return room, alice, bob


async def heard(person: Person, text: str) -> None:
    await person.wait_for(lambda e: e.findtext(f"{CLIENT}body") == text, past=True)
    await person.ping()


async def test_those_who_are_there_have_it_and_the_author_has_nothing_unread(box: Box) -> None:
    room, alice, bob = await abroad(box)
    (carol,) = await people(box, 1)
    await room.admit(carol)
    await room.say(alice, "hello abroad")
    await heard(bob, "hello abroad")
    assert await room.told(bob) == (1, "hello abroad")
    assert await room.told(alice) == (0, "hello abroad")
    assert await room.told(carol) is None
    await room.say(bob, "hello, Owner")
    await heard(alice, "hello, Owner")
    assert await room.told(bob) == (1, "hello, Owner")
    assert (await room.row(alice))["mentions"] == 1
    await box.sound(alice.account, bob.account)


async def test_several_resources_and_history_count_nothing(box: Box) -> None:
    room, alice, bob = await abroad(box)
    await room.say(alice, "one")
    laptop = await box.person(bob.account, "laptop")
    await room.enter(laptop, "Bob", history=20)
    await heard(laptop, "one")
    await room.say(alice, "two")
    await heard(laptop, "two")
    await room.say(bob, "three")
    await heard(laptop, "three")
    await room.leave(bob)
    await room.enter(bob, "Bob", history=20)
    await bob.ping()
    assert await room.told(bob) == (2, "three")
    assert await room.told(alice) == (1, "three")
    alice.message(room.jid, "<subject>Tea</subject>", kind="groupchat")
    await bob.wait_for(lambda e: e.findtext(f"{CLIENT}subject") == "Tea", past=True)
    assert await room.told(bob) == (2, "three")
    await box.sound(alice.account, bob.account)


async def test_read_inside_the_room_and_on_another_device(box: Box) -> None:
    room, alice, bob = await abroad(box)
    ids = [await room.say(alice, f"number {number}") for number in range(4)]
    await heard(bob, "number 3")
    bob.message(room.jid, f"<displayed xmlns='{MARKERS}' id='{ids[1]}'/>{STORE}", kind="groupchat")
    await bob.ping()
    assert await room.told(bob) == (2, "number 3")
    await bob.read(room.jid, ids[2], by=room.jid)
    assert await room.told(bob) == (1, "number 3")
    await box.sound(bob.account)


async def test_corrected_reacted_to_and_taken_back(box: Box) -> None:
    room, alice, bob = await abroad(box)
    first = await room.say(alice, "dinenr", message_id="first")
    second = await room.say(alice, "at eight")
    await room.say(alice, "dinner", f"<replace xmlns='{CORRECT}' id='first'/>")
    await room.say(bob, "nonsense", f"<replace xmlns='{CORRECT}' id='first'/>")  # not his own
    bob.react(room.jid, first, "🎉", kind="groupchat")
    await bob.ping()
    await room.retract(alice, second)
    await heard(bob, "took something back")
    assert await room.told(bob) == (1, None)
    expected = [("corrected", first), ("reacted", first), ("retracted", second)]
    assert await room.changes(bob) == await room.changes(alice) == expected
    await box.sound(alice.account, bob.account)


async def test_a_mention_wakes_and_other_messages_do_not(box: Box) -> None:
    room, alice, bob = await abroad(box)
    app = await box.person(bob.account, "phone", presence=False)
    phone = await box.phone(app)
    await app.close()
    await room.say(alice, "nothing special")
    await heard(bob, "nothing special")
    assert await room.told(bob) == (1, "nothing special")
    await box.settled(bob.account)
    assert await box.jobs(bob.account) == []
    await room.mention(alice, bob.account)
    await box.pushed(phone.token)


async def test_what_the_room_refuses_has_not_been_said(box: Box) -> None:
    room, alice, bob = await abroad(box)
    await room.say(bob, "I was here")
    await room.leave(bob)
    sent = bob.message(room.jid, "<body>and still am</body>", kind="groupchat")
    await bob.wait_for(lambda e: e.get("type") == "error" and e.get("id") == sent, past=True)
    assert await room.told(bob) == (0, "I was here")
    assert await room.told(alice) == (1, "I was here")
