"""What the server's archive has becomes conversations, on a real server: at the first contact, on command, after a loss.

An account that Convsync has forgotten, while the server has not, is one that it meets for the first time.
"""

from sync.adapters.postgres.dossier import opened
from tests.system.box import Box, Row, eventually
from tests.system.person import Person


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


async def read(box: Box, account: str, seconds: float = 20) -> Row:
    """The row of an archive that is done."""

    async def look() -> Row | None:
        rows = await box.sql("SELECT * FROM bootstrap WHERE account = $1 AND state = 'done'", account)
        return rows[0] if rows else None

    found = await eventually(look, seconds)
    assert found is not None
    return found


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
