"""Calls into rooms of this server (XEP-0482), from a real client's invite to the members' phones and lists."""

from sync.protocol.names import CONVSYNC, SYNC
from tests.system.box import Box, eventually
from tests.system.person import STORE, Person, Phone
from tests.system.room import Room, people

INVITES = "urn:xmpp:call-invites:0"


async def pocket(box: Box, owner: Person) -> Phone:
    """A phone of the owner's, whose app is not running."""
    app = await box.person(owner.account, "phone", presence=False)
    phone = await box.phone(app)
    await app.close()
    return phone


async def invite(room: Room, caller: Person) -> str:
    """The id that the room gives the call."""
    return await room.say(caller, "", f"<invite xmlns='{INVITES}' video='true'><jingle sid='j1'/></invite>{STORE}")


async def step(room: Room, who: Person, word: str, call: str) -> None:
    await room.say(who, "", f"<{word} xmlns='{INVITES}' id='{call}'/>{STORE}")


async def states(box: Box, call: str, *members: Person) -> list[str]:
    """Where the call stands with each, as its own question finds it."""
    for member in members:
        await member.fresh()
    rows = await box.sql("SELECT account, state FROM call WHERE session_id = $1 AND kind = 'group'", call)
    found = {row["account"]: row["state"] for row in rows}
    return [found.get(member.account, "none") for member in members]


async def shown(reader: Person) -> list[tuple[str | None, ...]]:
    """The calls that ring, as a question in the own dialect is told of them: before all conversations."""
    (answer,) = await reader.iq("get", f"<sync xmlns='{CONVSYNC}'/>")
    names = [child.tag for child in answer]
    calls = [child for child in answer if child.tag == f"{{{CONVSYNC}}}call"]
    assert not calls or names.index(f"{{{CONVSYNC}}}call") < names.index(f"{{{CONVSYNC}}}conversation")
    assert all(call.find(f".//{{{INVITES}}}invite") is not None for call in calls)
    assert await in_list(reader) == len(calls)
    return [tuple(call.get(name) for name in ("id", "jid", "kind", "state")) for call in calls]


async def in_list(reader: Person) -> int:
    """How many a list of Client Synchronization has in its conversations."""
    (answer,) = await reader.iq("get", f"<query xmlns='{SYNC}'/>")
    return len(list(answer.iter(f"{{{INVITES}}}invite")))


async def test_an_invite_rings_for_absent_members_until_it_is_taken_back(box: Box) -> None:
    alice = await box.person(resource="desk")
    bob, carol, dave = await people(box, 3)
    room = await Room.open(box, alice, private=True)
    await room.admit(bob, carol, dave)
    desk = await box.person(carol.account, "desk")
    await room.enter(desk, "Carol")
    await room.wish(dave, "never")
    his, hers, silent, own = [await pocket(box, one) for one in (bob, carol, dave, alice)]
    call = await invite(room, alice)
    assert call
    (rung,) = await box.pushed(str(his.voip))
    await box.pushed(str(hers.voip))
    assert (rung["push_type"], rung["payload"]["x"]["m"]) == ("voip", "audio video")
    assert await states(box, call, alice, bob, carol, dave) == ["outgoing", "ringing", "ringing", "ringing"]
    assert await shown(bob) == [(call, room.jid, "group", "ringing")]
    # Another member's answer is its own: here it rings on.
    await step(room, desk, "accept", call)
    assert await states(box, call, alice, bob, carol) == ["answered", "ringing", "answered"]
    assert (await shown(bob), await shown(carol)) == ([(call, room.jid, "group", "ringing")], [])
    await step(room, alice, "left", call)
    assert await states(box, call, alice, bob, carol) == ["ended", "ringing", "answered"]
    await step(room, alice, "retract", call)
    assert await states(box, call, bob, carol) == ["missed", "answered"]
    await box.pushed(his.token, kind="missed")
    assert await shown(bob) == []
    everybody = [one.account for one in (alice, bob, carol, dave)]
    await box.settled(*everybody)
    assert len(box.pushes(str(his.voip), status=None)) == len(box.pushes(str(hers.voip), status=None)) == 1
    assert box.pushes(*silent.tokens, *own.tokens, status=None) == []
    await box.sound(*everybody)


async def test_a_member_that_is_put_out_while_it_rings(box: Box) -> None:
    alice = await box.person(resource="desk")
    bob, carol = await people(box, 2)
    room = await Room.open(box, alice, private=True)
    await room.admit(bob, carol)
    call = await invite(room, alice)
    assert await states(box, call, bob, carol) == ["ringing", "ringing"]
    await room.admit(bob, affiliation="outcast")

    async def put_out() -> bool:
        """ejabberd's room answers before its module hears of it."""
        return await states(box, call, bob, carol) == ["closed", "ringing"]

    assert await put_out() or box.server == "ejabberd"
    await eventually(put_out)
    await step(room, alice, "left", call)  # nobody has come, and the caller goes
    assert await states(box, call, alice, carol) == ["ended", "missed"]
    await box.sound(alice.account, bob.account, carol.account)
