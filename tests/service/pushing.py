"""A pusher with its desk and what is left behind, for its tests."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sync.model.device import JobState, PushJob
from sync.model.push import PushOutcome, Verdict
from tests.adapters.pushing import Desk, desk
from tests.contract.apns_server import APP
from tests.contract.fakes_push import RecordingPushGate
from tests.passing import standing

DEAD = PushOutcome(verdict=Verdict.DEAD_TOKEN, status=400, reason="BadDeviceToken")


def gate() -> RecordingPushGate:
    return RecordingPushGate({"chat": APP, "other": APP})


def office(**more: Any) -> tuple[Desk, RecordingPushGate]:
    doors = gate()
    return desk(doors, **more), doors


def left_behind(found: Desk, made: PushJob, age: timedelta) -> PushJob:
    """The process that attempted it is gone."""
    left = replace(made, state=JobState.ATTEMPTED, attempts=1, attempted_at=found.clock.now() - age)
    found.put(jobs=[left])
    return left


async def turns() -> None:
    """Everything that needs no time has happened."""
    for _ in range(200):
        await asyncio.sleep(0)


async def working(found: Desk) -> None:
    """0.3 seconds of a worker's life, however long they take here."""
    with standing() as passes:
        running = asyncio.ensure_future(found.pusher.run())
        for _ in range(300):
            passes(0.001)
            for _ in range(5):
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
