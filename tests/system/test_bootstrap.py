"""What the server's archive has becomes conversations, on a real server: first contact, a kill, a loss.

An account that Convsync has forgotten, while the server has not, is one that it meets for the first time.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from sync.adapters.postgres.dossier import opened
from tests.system.box import Box, Row, boxed, eventually
from tests.system.person import SYNC, Person
from tests.system.room import Room

GATE = 2026  # of an advisory lock


async def forgotten(box: Box, *people: Person) -> None:
    """They leave, and Convsync never heard of them."""
    for one in people:
        await one.close()
    await quiet(box)
    async with opened(box.ready["postgres"], connect_seconds=5) as dossier:
        for one in people:
            await dossier.delete(one.account)


async def quiet(box: Box) -> None:
    """Everything that the module has is committed: nothing of what was does come later."""

    async def look() -> bool:
        return await box.metric("convsync_feed_lag_events") == 0

    await eventually(look)


async def read(box: Box, account: str) -> Row:
    """The row of an archive that is done."""

    async def look() -> Row:
        rows = await box.sql("SELECT * FROM bootstrap WHERE account = $1", account)
        assert [row["state"] for row in rows] == ["done"], rows
        return rows[0]

    return await eventually(look, 60)


async def test_a_first_contact_has_its_archive(box: Box) -> None:
    ann, bob = await box.friends("desk", "desk")
    for text in ("one", "two", "three", "four"):
        last = bob.write(ann.account, text)
    bob.correct(ann.account, last, "four, corrected")
    await bob.fresh()
    ann.write(bob.account, "hello")
    out = ann.write(bob.account, "never mind")
    ann.retract(bob.account, out)
    await ann.fresh()
    await forgotten(box, ann, bob)
    ann = await box.person(ann.account)
    row = await read(box, ann.account)
    assert (row["why"], row["restored"]) == (None, 8)
    shown = await ann.wait_for(lambda e: e.get("type") == "set" and e.find(f"{{{SYNC}}}query") is not None, past=True)
    assert [element.get("jid") for element in shown[0]] == [bob.account]
    listed = (await ann.sync()).of(bob.account)
    assert listed is not None
    assert (listed.unread, listed.retracted) == (0, True)
    stored = await box.conversation(ann.account, bob.account)
    assert stored is not None
    assert stored["written"]
    assert await box.changes(ann.account, bob.account) != []
    await box.sound(ann.account)
    assert await box.jobs(ann.account) == []


async def test_what_was_marked_as_read_says_what_is_unread(box: Box) -> None:
    ann, bob = await box.friends("desk", "desk")
    for text in ("one", "two", "three", "four"):
        bob.write(ann.account, text)
    await ann.fresh()
    await bob.fresh()
    archive = await ann.archive()
    await ann.read(bob.account, archive[1][0])
    await ann.fresh()
    await forgotten(box, ann, bob)
    ann = await box.person(ann.account)
    await read(box, ann.account)
    listed = (await ann.sync()).of(bob.account)
    assert listed is not None
    assert (listed.unread, listed.read_to, listed.body) == (2, archive[1][0], "four")
    await box.sound(ann.account)


async def test_what_the_outbox_lost_is_unread_all_the_same(tmp_path: Path) -> None:
    """The component is away, people write, and the module's outbox is gone: the archive has it. Every archive of the
    host is read again then, so the sandbox is its own.
    """
    async with boxed(tmp_path / "box") as box:
        await lost_and_found(box)


async def lost_and_found(box: Box) -> None:
    ann, bob = await box.friends("desk", "desk")
    first = bob.write(ann.account, "one")
    await bob.fresh()
    ann.displayed(bob.account, first)
    await ann.fresh()
    stamp = (await ann.sync()).stamp
    await quiet(box)
    os.kill(box.process.pid, signal.SIGSTOP)  # nobody starts again what dies
    try:
        box.signal("component", signal.SIGKILL)
        bob.write(ann.account, "lost")
        bob.write(ann.account, "lost, too")
        await bob.ping()
        box.signal("server", signal.SIGKILL)
        for file in box.data.rglob("convsync_feed.d/*"):
            if file.is_file():
                file.unlink()
    finally:
        os.kill(box.process.pid, signal.SIGCONT)
    await box.whole()
    ann = await box.person(ann.account)

    async def repaired() -> bool:
        listed = (await ann.sync(stamp)).of(bob.account)
        assert listed is not None
        assert (listed.unread, listed.body) == (2, "lost, too")
        return True

    await eventually(repaired, 60)
    assert (await read(box, ann.account))["turn"] > 1
    await box.sound(ann.account)
    assert await box.jobs(ann.account) == []


@asynccontextmanager
async def stuck_at_its_second_page(box: Box, account: str) -> AsyncIterator[None]:
    """The transaction that takes an archive's second page does not end, within the context."""
    gate = await asyncpg.connect(box.ready["postgres"])
    try:
        await gate.execute(f"SELECT pg_advisory_lock({GATE})")
        await gate.execute(
            f"""CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NEW; END $$"""
        )
        await gate.execute(
            f"""CREATE TRIGGER gate BEFORE UPDATE ON bootstrap FOR EACH ROW
                WHEN (OLD.account = '{account}' AND OLD.after IS NOT NULL) EXECUTE FUNCTION wait_at_gate()"""
        )
        yield
    finally:
        await gate.execute(f"SELECT pg_advisory_unlock({GATE})")
        await gate.execute("DROP FUNCTION wait_at_gate CASCADE")
        await gate.close()


async def test_whoever_is_killed_goes_on_behind_the_last_page(box: Box) -> None:
    ann, bob = await box.friends("desk", "desk")
    for number in range(500):
        bob.write(ann.account, f"message {number}")
    await bob.fresh()
    await forgotten(box, ann, bob)

    async def waits() -> bool:
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
        return bool(await box.sql(held, GATE))

    async with stuck_at_its_second_page(box, ann.account):
        ann = await box.person(ann.account, presence=False)
        await eventually(waits, 60)
        rows = await box.sql("SELECT state, after FROM bootstrap WHERE account = $1", ann.account)
        assert [(row["state"], row["after"] is None) for row in rows] == [("waiting", False)]
        await box.killed("component")
    row = await read(box, ann.account)
    assert (row["restored"], row["turn"]) == (500, 1)
    stored = await box.sql("SELECT count(*) AS many FROM message WHERE account = $1", ann.account)
    assert stored[0]["many"] == 500
    await box.sound(ann.account)


async def test_a_room_has_its_newest_messages_read(box: Box) -> None:
    """Ann and Bob are forgotten, and so is the room: all meet anew. The server ends in order: one that is killed tells
    its newest messages again.
    """
    ann, bob = await box.friends("desk", "desk")
    room = await Room.open(box, ann)
    await room.admit(bob)
    for text in ("one", "two", "three"):
        await room.say(ann, text)
    await ann.fresh()
    await forgotten(box, ann, bob)
    for table, column in (("room", "jid"), ("room_member", "room"), ("message", "account"), ("bootstrap", "account")):
        await box.sql(f"DELETE FROM {table} WHERE {column} = $1", room.jid)  # noqa: S608 - names of ours
    await box.killed("server", signal.SIGTERM)
    ann, bob = await box.person(ann.account), await box.person(bob.account)
    await room.enter(ann, "Owner")
    row = await read(box, room.jid)
    assert row["restored"] == 3

    async def told() -> bool:
        assert await room.told(bob) == (0, "three")
        return True

    await eventually(told)
    await room.say(ann, "four")
    assert await eventually(lambda: room.told(bob)) is not None
    await bob.fresh()
    assert await room.told(bob) == (1, "four")
    await box.sound(ann.account, bob.account)
    assert await box.jobs(bob.account) == []
