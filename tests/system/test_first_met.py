"""Whom Convsync meets for the first time while a room speaks: a member has what was said after it had connected, though
its account be committed later than the room's message (docs/architecture.md).
"""

import signal

import asyncpg

from sync.model.jid import lane
from tests.system.box import Box, eventually
from tests.system.person import Person
from tests.system.room import Room, people

SECONDS = 60


async def group(box: Box) -> tuple[Room, Person, Person, str]:
    """A room of Alice; Carol is a member who is known, the account a member whom nobody has ever seen."""
    alice = await box.person(resource="desk")
    (carol,) = await people(box, 1)
    jid = box.account()
    room = await Room.open(box, alice, private=True)
    while lane(room.jid) == lane(jid):  # else the account would be committed before the room's message
        room = await Room.open(box, alice, private=True)
    await room.admit(carol)
    await room.admit_account(jid)
    await room.say(alice, "before")
    assert await room.told(carol) == (1, "before")

    async def over() -> bool:
        return not await box.sql("SELECT 1 FROM room_entry WHERE room = $1", room.jid)

    await eventually(over, SECONDS)  # what is still owed is not too old for anybody
    assert not await box.sql("SELECT 1 FROM account WHERE jid = $1", jid)
    return room, alice, carol, jid


async def test_who_connects_for_the_first_time_while_the_room_speaks_has_it(box: Box) -> None:
    room, alice, carol, jid = await group(box)
    blocker = await asyncpg.connect(box.ready["postgres"])
    try:
        # Whoever makes the same account waits for the end of this transaction.
        await blocker.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
        await blocker.execute("INSERT INTO account (jid, version, floor) VALUES ($1, 0, 0)", jid)
        bob = await box.person(jid, "reader", presence=False)

        async def waits() -> bool:
            by = "SELECT 1 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
            return bool(await box.sql(by, blocker.get_server_pid()))

        await eventually(waits, SECONDS)
        await room.say(alice, "dinner is ready")

        async def told() -> bool:
            found = await box.conversation(carol.account, room.jid, "group")
            return found is not None and found["unread"] == 2

        await eventually(told, SECONDS)
    finally:
        await blocker.close()

    async def has_it() -> bool:
        assert await room.told(bob) == (1, "dinner is ready")
        return True

    await eventually(has_it, SECONDS)
    assert await room.told(carol) == (2, "dinner is ready")
    await box.sound(jid, carol.account)


async def test_what_was_said_while_the_component_was_dead_too(box: Box) -> None:
    """Rooms are fetched first: the message comes before the session that was before it."""
    room, alice, carol, jid = await group(box)
    box.signal("component", signal.SIGSTOP)
    bob = await box.person(jid, "reader", presence=False)
    await bob.ping()
    await room.say(alice, "dinner is ready")
    await box.killed("component")

    async def has_it() -> bool:
        assert await room.told(bob) == (1, "dinner is ready")
        return True

    await eventually(has_it, SECONDS)
    assert await room.told(carol) == (2, "dinner is ready")
    await box.sound(jid, carol.account)
