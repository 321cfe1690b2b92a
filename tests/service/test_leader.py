"""Who holds the lease lets go of it in time, whatever the wall clock does meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from sync.model.errors import StoreUnavailable
from sync.service.leader import TRUST, Leader
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import NOW

DAY = timedelta(days=1)


class Turns(SetClock):
    """Nobody sleeps; others have their turn. `ran` is what a stop watch shows."""

    ran = 0.0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.ran += seconds
        await asyncio.sleep(0)


class Giving:
    """Plays `Leases`: gives to whoever asks, while the database is there."""

    away = False
    asked = 0

    async def acquire(self, name: str, holder: str) -> bool:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("OSError")
        return True

    async def release(self, name: str, holder: str) -> None: ...


class Desk:
    """A leader with what is around it; `said` is what it told."""

    def __init__(self) -> None:
        self.clock, self.leases, self.said = Turns(NOW), Giving(), list[str]()
        self.leader = Leader(
            "sync.example.org",
            "one",
            leases=self.leases,
            clock=self.clock,
            observer=RecordingObserver(),
            on_held=lambda: self.said.append("held"),
            on_lost=lambda: self.said.append("lost"),
            monotonic=lambda: self.clock.ran,
        )

    async def asks(self, times: int) -> None:
        target = self.leases.asked + times
        async with asyncio.timeout(60):
            while self.leases.asked < target:  # noqa: ASYNC110 - a double without events
                await asyncio.sleep(0)


@asynccontextmanager
async def at_work() -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.ensure_future(desk.leader.run())
    try:
        await desk.asks(2)
        assert desk.said == ["held"]
        yield desk
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("jump", [timedelta(0), DAY, -DAY])
async def test_without_the_database_it_is_let_go_in_time(jump: timedelta) -> None:
    async with at_work() as desk:
        desk.clock.instant += jump
        desk.leases.away = True
        began = desk.clock.ran
        await desk.asks(6)
        assert desk.said == ["held", "lost"]
        assert desk.clock.ran - began < 2 * TRUST.total_seconds()


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_clock_that_jumps_costs_no_lease(jump: timedelta) -> None:
    async with at_work() as desk:
        desk.clock.instant += jump
        await desk.asks(5)
        assert desk.said == ["held"]
