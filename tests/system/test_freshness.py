"""A query sees what came before it (invariant 11)."""

import asyncio
import signal

from tests.system.box import Box


async def test_what_the_server_has_taken_is_in_the_next_answer(box: Box) -> None:
    ann, bob = await box.friends("a", "b", sm=True)
    stamp: int | None = None
    for number in range(150):
        sent = bob.write(ann.account, f"number {number}")
        assert sent in await bob.acked()
        listing = await ann.sync(stamp if number % 3 else None)
        stamp = listing.stamp
        item = listing.of(bob.account)
        assert item is not None
        assert item.body == f"number {number}"
        assert item.unread == number + 1


async def test_a_component_that_hangs_answers_late_and_misses_nothing(box: Box) -> None:
    ann, bob = await box.friends("a", "b", sm=True)
    for number in range(3):
        box.signal("component", signal.SIGSTOP)
        try:
            for _ in range(20):
                bob.write(ann.account, f"number {number}")
            await bob.acked()
            asked = asyncio.ensure_future(ann.sync())
            await ann.ping()  # the question has reached the server: it is behind what was written
        finally:
            box.signal("component", signal.SIGCONT)
        item = (await asked).of(bob.account)
        assert item is not None
        assert (item.body, item.unread) == (f"number {number}", 20 * (number + 1))


async def test_sync_then_online_then_sync_misses_nothing(box: Box) -> None:
    bob = await box.person(sm=True)
    ann = await box.person()
    await ann.befriend(bob)
    for number in range(15):
        phone = await box.person(ann.account, f"phone{number}", presence=False)
        early = bob.write(ann.account, f"early {number}")
        stamp = (await phone.sync()).stamp
        late = [bob.write(ann.account, f"late {number}")]
        await phone.available()
        late.append(bob.write(ann.account, f"later {number}"))
        assert {early, *late} <= await bob.acked()
        listing = await phone.sync(stamp)
        assert [item.body for item in listing.items] == [f"later {number}"]
        await phone.close()
