"""Live notices without holes: whatever happens and whatever dies, each begins where the one before ended."""

import asyncio
import xml.etree.ElementTree as ET

import pytest

from tests.system.box import Box, eventually
from tests.system.live_mirror import (
    OWN,
    Mirror,
    Row,
    has,
    in_a_chain,
    listening,
    live_of,
    says,
)
from tests.system.lively import Circle
from tests.system.person import Person
from tests.system.test_properties import one, put


async def test_two_hundred_messages_are_a_chain(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    for number in range(100):
        bob.write(ann.account, f"b{number}")
        carl.write(ann.account, f"c{number}")
        if number % 10 == 9:
            await bob.ping()
    await live.until(says(bob.account, "b99"))
    await live.until(says(carl.account, "c99"))
    await live.agrees()
    assert live.holes == []
    assert in_a_chain(live.session)
    assert len(live_of(live.session)) <= 200


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_people_do_two_followers_have_the_truth(seed: int, box: Box) -> None:
    """Lists, counters, calls, and every entry of every change log; one reads its list in small pages meanwhile."""
    circle = await Circle.meet(box, seed)
    await circle.live(30)
    first = await listening(box, circle.ann, "first")
    logged = await logs(box, circle.ann)
    session = await box.person(circle.ann.account, "second")
    moving = asyncio.ensure_future(circle.live(120, together=4))
    second = Mirror(session)
    await second.sync("live='true'", most=1)
    await moving
    await circle.settle()
    for mirror in (first, second):
        await mirror.agrees()
        assert mirror.holes == []
    written = {version: entry for version, entry in (await logs(box, circle.ann)).items() if version not in logged}
    # Of a deleted conversation it is told that it is, and nothing else.
    wanted = {
        version: (what, about) for version, (row, what, about) in written.items() if version > first.gone.get(row, 0)
    }
    told = {version: what for version, what in first.changes.items() if version not in logged}
    assert wanted.items() <= told.items()
    assert told.keys() <= written.keys()


async def logs(box: Box, person: Person) -> dict[int, tuple[Row, str, str]]:
    """Version → conversation, what happened, to which message."""
    rows = await box.sql("SELECT * FROM change WHERE account = $1", person.account)
    return {row["version"]: ((row["peer"], row["kind"]), row["what"], row["target_id"]) for row in rows}


async def test_what_changes_while_it_begins_is_not_lost(box: Box) -> None:
    """Sessions begin while somebody writes: each goes on from its own answer."""
    ann, bob = await box.friends("phone", "b")
    sessions = [await box.person(ann.account, f"live{n}") for n in range(8)]
    over = asyncio.Event()

    async def write() -> None:
        number = 0
        while not over.is_set() or number < 60:
            bob.write(ann.account, f"note {number}")
            number += 1
            await bob.ping()

    writing = asyncio.ensure_future(write())
    mirrors = []
    for session in sessions:
        mirrors.append(await Mirror.begin(session))
        began = mirrors[-1].version
        await eventually(lambda s=session: _any(s))
        assert int(live_of(session)[0].get("previous", "")) == began
    over.set()
    await writing
    for mirror in mirrors:
        await mirror.agrees()
        assert mirror.holes == []
        assert in_a_chain(mirror.session)


async def _any(session: Person) -> bool:
    return bool(live_of(session))


async def test_a_list_that_is_read_while_it_changes_lacks_no_change(box: Box) -> None:
    """What is bumped is on no later page; the notice tells its older changes, too."""
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    await live.session.iq("get", f"<sync xmlns='{OWN}' live='false'/>")
    known = bob.write(ann.account, "one")
    bob.correct(ann.account, known, "two")
    await bob.ping()
    carl.write(ann.account, "later")
    await carl.ping()
    await ann.fresh()
    ahead: list[int] = []

    def between() -> None:
        """The first page had Carl; Bob's conversation moves before the second one."""
        ahead.append(1)
        bob.write(ann.account, "three")

    async def ask() -> None:
        await live.sync("live='true'", most=1, between=between)

    before = dict(live.changes)
    await ask()
    assert ahead
    await live.until(says(bob.account, "three"))
    assert {kind for version, (kind, _) in live.changes.items() if version not in before} == {"corrected"}
    await live.agrees()


async def test_a_component_that_is_killed_leaves_nothing_out(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    halfway = asyncio.Event()

    async def talk() -> None:
        for number in range(120):
            bob.write(ann.account, f"b{number}")
            if number % 3 == 0:
                own = carl.write(ann.account, f"c{number}")
                carl.correct(ann.account, own, f"c{number} corrected")
            await bob.ping()
            if number == 40:
                halfway.set()

    talking = asyncio.ensure_future(talk())
    await halfway.wait()
    await box.killed("component")
    await talking
    for session in (bob, carl):
        await session.ping()
    # Without a word of the client's: it was remembered, and what it missed is told.
    await live.agrees()
    assert live.holes == []
    await live.sync()
    version, rows, _ = await live.truth()
    assert (live.version, live.rows) == (version, rows)


async def test_a_cut_connection_leaves_nothing_out(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    live = await listening(box, ann)
    bob.write(ann.account, "before")
    await live.until(says(bob.account, "before"))
    await box.cut()
    for number in range(10):
        bob.write(ann.account, f"note {number}")
    await bob.ping()
    await box.whole()
    await live.agrees()
    assert live.holes == []


# ---- too much --------------------------------------------------------------------------------------------------------


async def test_more_than_twenty_conversations_are_asked_for(box: Box) -> None:
    ann = await box.person(resource="phone")
    peers = [box.account() for _ in range(25)]
    for peer in peers:
        ann.write(peer, "hello")
    await ann.ping()
    live = await listening(box, ann)
    assert len(live.rows) == 25
    await put(ann, *(one(peer, pinned="5") for peer in peers))
    (notice,) = await eventually(lambda: _to_ask(live))
    assert len(notice) == 0
    assert int(notice.get("previous", "")) == live.version
    live.look()
    assert live.holes
    assert await live.sync() == int(notice.get("version", ""))
    assert all('pinned="5"' in row for row in live.rows.values())
    live.holes.clear()
    await put(ann, one(peers[0], pinned="6"))
    await live.until(has(peers[0], pinned="6"))
    await live.agrees()
    assert live.holes == []


async def _to_ask(live: Mirror) -> list[ET.Element]:
    return [notice for notice in live_of(live.session) if notice.get("more") == "true"]
