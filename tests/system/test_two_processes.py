"""Two components on one database, as two machines would run them: whichever is killed in the middle of traffic, the
other takes its buckets over, nothing is lost and nothing doubled (invariants 1, 3 and 6).

Both push all the while; only the one that holds the lease speaks. What must hold afterwards is what `company` and the
rooms' party say of every disturbance.
"""

import signal
from pathlib import Path

import pytest

from tests.system.box import Box, eventually
from tests.system.company import Company
from tests.system.standby import READY, SECONDS, WAITS, Standby, holds, promote, standby
from tests.system.test_room_kills import Party


async def there_and_back(box: Box, other: Standby) -> None:
    """The sandbox's component is killed, then the other one, each while it holds the lease, which is back then."""
    first = box.pid("component")
    await promote(box, other)
    await other.until(READY)
    await box.wait(lambda ready: ready["pids"]["component"] != first, SECONDS)

    async def waits() -> bool:
        _, said = await box.conditions()
        assert WAITS in str(said), said
        return True

    await eventually(waits, SECONDS)
    other.process.send_signal(signal.SIGKILL)
    await other.process.wait()
    await holds(box)
    await box.whole(SECONDS)


@pytest.mark.parametrize("people", [Company, Party])
async def test_whichever_is_killed_the_other_goes_on(
    people: type[Company] | type[Party], box: Box, tmp_path: Path
) -> None:
    async with standby(box, tmp_path) as other:
        await other.until(WAITS)
        talk = Company(box, "two processes") if people is Company else Party(box)
        await talk.gather()
        await talk.talk(lambda: there_and_back(box, other))
        await talk.check()


async def test_who_does_not_hold_the_lease_is_not_connected(box: Box, tmp_path: Path) -> None:
    """Two connections under one name would throw each other out, or lose the order of events."""
    before = box.component_connections()
    async with standby(box, tmp_path) as other:
        await other.until(WAITS)
        ann, bob = await box.friends("phone", "desk")
        bob.write(ann.account, "hello")
        await bob.ping()
        assert [item.body for item in (await ann.sync()).items] == ["hello"]
        assert box.component_connections() == before
