"""Who belongs to a room, who is asked into it, and who is not in it any more: what is left of it in people's lists."""

from functools import partial

from tests.system.box import Box, eventually
from tests.system.person import STORE, Person
from tests.system.room import Room, people
from tests.system.room_client import affiliate, destroy, kick
from tests.system.xmpp_client import CLIENT, XmppClient

USER = "http://jabber.org/protocol/muc#user"


async def visited(box: Box, *, private: bool = False) -> tuple[Room, Person, Person, Person]:
    """A room with Alice and Eve in it, and a reader of Eve's; Alice has said something."""
    alice, eve = await box.person(resource="desk"), await box.person(resource="desk")
    reader = await box.person(eve.account, "reader", presence=False)
    room = await Room.open(box, alice, private=private)
    if private:
        await room.admit(eve)
    await room.enter(eve, "Eve")
    await room.say(alice, "hello")
    assert await room.told(reader) == (1, "hello")
    return room, alice, eve, reader


async def out(eve: XmppClient, room: Room) -> None:
    """Until Eve has heard that she is not in the room any more."""
    await eve.wait_for(lambda e: e.get("from") == f"{room.jid}/Eve" and e.get("type") == "unavailable", past=True)


async def heard(person: Person, text: str) -> None:
    await person.wait_for(lambda e: e.findtext(f"{CLIENT}body") == text, past=True)


async def unlisted(reader: Person, room: Room) -> bool:
    return room.jid not in (await reader.sync()).jids


async def accepted(room: Room, person: Person) -> bool:
    """An invitation, by entering. ejabberd's room lets its occupants know before its module."""
    return (await room.row(person))["invited_by"] is None


# ---- leaving ---------------------------------------------------------------------------------------------------------


async def test_a_visitor_who_leaves_keeps_what_was_unread_and_hears_no_more(box: Box) -> None:
    room, alice, eve, reader = await visited(box)
    await room.leave(eve)
    await room.say(alice, "while Eve is away")
    assert await room.told(reader) == (1, "hello")
    await room.enter(eve, "Eve", history=20)
    await room.say(alice, "welcome back")
    assert await room.told(reader) == (2, "welcome back")
    await box.sound(eve.account)


async def test_a_member_whose_session_dies_remains_a_member(box: Box) -> None:
    room, alice, eve, reader = await visited(box, private=True)
    await eve.close()
    await room.say(alice, "still with us")
    assert await room.told(reader) == (2, "still with us")
    await box.sound(eve.account)


async def test_who_is_kicked_hears_no_more(box: Box) -> None:
    room, alice, eve, reader = await visited(box)
    await kick(alice, room.jid, "Eve")
    await out(eve, room)
    await room.say(alice, "she is gone")
    assert await room.told(reader) == (1, "hello")
    assert (await room.row(reader))["status"] == "active"
    await box.sound(eve.account)


async def test_who_is_banned_has_nothing_to_read_there(box: Box) -> None:
    room, alice, eve, reader = await visited(box)
    await affiliate(alice, room.jid, eve.account, "outcast")
    await out(eve, room)
    await room.say(alice, "she is gone")
    row = await room.row(reader)
    assert (row["status"], row["unread"]) == ("archived", 0)
    await affiliate(alice, room.jid, eve.account, "none")
    await room.enter(eve, "Eve", history=20)
    await room.say(alice, "forgiven")
    row = await room.row(reader)
    assert (row["status"], row["unread"]) == ("active", 1)
    await box.sound(eve.account)


async def test_an_absent_member_who_is_removed_has_nothing_to_read_there(box: Box) -> None:
    alice = await box.person(resource="desk")
    bob, carol = await people(box, 2)
    room = await Room.open(box, alice, private=True)
    await room.admit(bob, carol)
    await room.say(alice, "hello")
    await room.admit(bob, affiliation="none")
    await room.say(alice, "without Bob")
    row = await room.row(bob)
    assert (row["status"], row["unread"], row["mentions"]) == ("archived", 0, 0)
    assert await room.told(carol) == (2, "without Bob")
    await room.admit(bob)
    await room.say(alice, "with Bob again")
    assert await room.told(bob) == (1, "with Bob again")
    await box.sound(bob.account, carol.account)


async def test_a_room_that_is_destroyed_is_in_nobodys_list(box: Box) -> None:
    room, alice, eve, reader = await visited(box, private=True)
    (bob,) = await people(box, 1)
    await room.admit(bob)
    await room.say(alice, "the end")
    assert await room.told(bob) == (1, "the end")
    stamp = (await reader.sync()).stamp
    await destroy(alice, room.jid)
    for one in (reader, bob):
        await eventually(partial(unlisted, one, room))  # ejabberd answers before the room is gone
        row = await room.row(one)
        assert (row["status"], row["unread"]) == ("deleted", 0)
    assert [(item.jid, item.status) for item in (await reader.sync(stamp)).items] == [(room.jid, "deleted")]
    await box.sound(alice.account, eve.account, bob.account)


# ---- between two occupants -------------------------------------------------------------------------------------------


async def test_a_private_message_is_a_conversation_of_its_own(box: Box) -> None:
    room, alice, eve, reader = await visited(box)
    phone = await box.person(eve.account, "phone", presence=False)
    registered = await box.phone(phone)
    await phone.close()
    alice.message(f"{room.jid}/Eve", f"<body>between us</body><x xmlns='{USER}'/>")
    await heard(eve, "between us")
    listing = await reader.sync()
    whisper = listing.of(f"{room.jid}/Owner")
    assert whisper is not None
    assert (whisper.unread, whisper.body) == (1, "between us")
    assert await room.told(reader) == (1, "hello")
    eve.message(f"{room.jid}/Owner", f"<body>I see</body><x xmlns='{USER}'/>")
    await heard(alice, "I see")
    own = (await alice.sync()).of(f"{room.jid}/Eve")
    assert own is not None
    assert (own.unread, own.body) == (1, "I see")
    assert (await box.pushed(registered.token))[0]["payload"]["x"]["k"] == "message"
    await box.sound(alice.account, eve.account)


# ---- invitations -----------------------------------------------------------------------------------------------------


async def test_a_direct_invitation_is_shown_pushed_and_answered_by_joining(box: Box) -> None:
    alice = await box.person(resource="desk")
    (dave,) = await people(box, 1)
    app = await box.person(dave.account, "phone", presence=False)
    phone = await box.phone(app)
    await app.close()
    room = await Room.open(box, alice)
    alice.message(dave.account, f"<x xmlns='jabber:x:conference' jid='{room.jid}'/>{STORE}", kind="normal")
    await alice.ping()
    assert await room.told(dave) == (0, None)
    assert (await room.row(dave))["invited_by"] == alice.account
    await box.pushed(phone.token, kind="invited")
    desk = await box.person(dave.account, "desk")
    await room.enter(desk, "Dave")
    assert await accepted(room, dave) or box.server == "ejabberd"
    await eventually(partial(accepted, room, dave))
    await room.say(alice, "there you are")
    assert await room.told(dave) == (1, "there you are")
    await box.sound(dave.account)


async def test_an_invitation_through_the_room(box: Box) -> None:
    alice = await box.person(resource="desk")
    dave = await box.person(resource="desk")
    room = await Room.open(box, alice, private=True)
    invite = f"<x xmlns='{USER}'><invite to='{dave.account}'><reason>tea</reason></invite></x>"
    alice.message(room.jid, invite, kind="normal")
    await dave.wait_for(lambda e: e.tag == f"{CLIENT}message" and e.get("from") == room.jid, past=True)
    row = await room.row(dave)
    inviter = {"prosody": f"{room.jid}/Owner", "ejabberd": alice.account}[box.server]  # as the server names her
    assert (row["invited_by"], row["unread"]) == (inviter, 0)  # made a member, and not there yet
    assert (await dave.sync()).jids == [room.jid]
    await room.enter(dave, "Dave")

    assert await accepted(room, dave) or box.server == "ejabberd"
    await eventually(partial(accepted, room, dave))
    await room.say(alice, "welcome")
    assert await room.told(dave) == (1, "welcome")
