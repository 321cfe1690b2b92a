"""A pusher with its desk and what is left behind, for its tests."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sync.model.device import JobState, PushJob
from sync.model.push import PushOutcome, Verdict
from tests.adapters.pushing import Desk, desk
from tests.contract.apns_server import APP
from tests.contract.fakes_push import RecordingPushGate

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
