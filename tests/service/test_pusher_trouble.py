"""Workers that meet what cannot be stored, sent or settled: neither busy for nothing, nor stuck behind it."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sync.model.device import JobState, PushJob, PushKind
from sync.model.errors import StoreUnavailable
from sync.model.push import PushOutcome, Verdict
from sync.service.breaker import FAILED, LATE, Breaker
from sync.service.publisher import ANSWER_SECONDS
from sync.service.pusher import ABANDONED_AFTER, BAD_FOR
from sync.service.sender import CLAIM_HOLDS
from tests.adapters.pushing import Desk
from tests.contract.apns_server import ALERT
from tests.contract.samples import after
from tests.service.pushing import left_behind, office, working


def stumbling(found: Desk, over: PushJob, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The store cannot take one job's row; call what is returned to mend it."""
    transact = found.store.transact

    async def stumbles(keys: Any, rule: Any) -> Any:
        def ruled(books: Any) -> Any:
            ruling = rule(books)
            if any(job.job_id == over.job_id for job in ruling.writes.jobs):
                raise ValueError(ALERT)
            return ruling

        return await transact(keys, ruled)

    monkeypatch.setattr(found.store, "transact", stumbles)
    return lambda: monkeypatch.setattr(found.store, "transact", transact)


async def test_a_database_that_takes_no_writes_is_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: what is due can be read, and nothing be claimed."""
    found, _ = office()
    for number, kind in enumerate((PushKind.MESSAGE, PushKind.INVITED, PushKind.SUBSCRIPTION)):
        found.message(f"{number}", kind=kind)
    asked = 0

    async def full(*_: Any) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise StoreUnavailable("DiskFullError")

    monkeypatch.setattr(found.store, "transact", full)
    await working(found)
    assert 1 <= asked <= 2


async def test_a_job_that_could_not_be_claimed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, doors = office()
    made = found.message()
    mended = stumbling(found, made, monkeypatch)
    await found.round("messages")
    mended()
    found.later(BAD_FOR.total_seconds() - 1)
    await found.round("messages")
    assert doors.sent == []
    found.later(1)
    await found.round("messages")
    assert found.now(made).outcome == "accepted"


async def test_one_that_cannot_be_settled_keeps_none_behind_it_under_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = office()
    bad, good = found.message("bad"), found.message("good", kind=PushKind.INVITED)
    left_behind(found, bad, ABANDONED_AFTER + timedelta(seconds=5))
    left_behind(found, good, ABANDONED_AFTER + timedelta(seconds=1))
    stumbling(found, bad, monkeypatch)
    await found.pusher.recover()
    assert (found.now(bad).state, found.now(good).state) == (JobState.ATTEMPTED, JobState.QUEUED)
    assert "the outcome of a push cannot be recorded" in caplog.text
    assert ALERT not in caplog.text


async def test_an_outcome_that_waits_for_the_database_is_not_forestalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks for dead workers' pushes finds the database back a moment before those who wait for it."""
    found, doors = office()
    made = found.message()
    transact, away = found.store.transact, asyncio.Event()

    async def gone(keys: Any, rule: Any) -> Any:
        if doors.sent and not away.is_set():
            raise StoreUnavailable("away")
        return await transact(keys, rule)

    monkeypatch.setattr(found.store, "transact", gone)
    again = asyncio.Event()

    async def sleep(_: float) -> None:
        await again.wait()

    monkeypatch.setattr(found.clock, "sleep", sleep)
    await found.pusher.round("messages")
    async with asyncio.timeout(60):
        while not found.pusher._ledgers["messages"]._writing:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        away.set()
        found.later(ABANDONED_AFTER.total_seconds() + 1)
        await found.pusher.recover()
        assert found.now(made).state is JobState.ATTEMPTED
        again.set()
        await found.quiet()
    assert found.now(made).outcome == "accepted"
    assert len(doors.sent) == 1


async def test_a_push_over_which_the_sender_stumbles_is_settled(caplog: pytest.LogCaptureFixture) -> None:
    found, doors = office()
    wake, ring = found.message(), found.ring()

    def stumbles(_: object) -> Any:
        raise ValueError(ALERT)

    doors.outcome_of = stumbles
    await found.all_lanes()
    assert (found.now(wake).state, found.now(wake).reason) == (JobState.QUEUED, FAILED)
    assert (found.now(ring).outcome, found.now(ring).reason) == ("uncertain", FAILED)
    assert [one.not_before for one in found.alerts()] == [found.clock.now()]
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == ["a push cannot be sent"] * 2
    assert ALERT not in caplog.text


@pytest.mark.parametrize(("verdict", "reason"), [(Verdict.NOT_SENT, LATE), (Verdict.UNCERTAIN, FAILED)])
def test_our_own_trouble_stops_no_queue(verdict: Verdict, reason: str) -> None:
    breaker = Breaker()
    for number in range(20):
        breaker.tell(breaker.enter(), PushOutcome(verdict=verdict, reason=reason), after(number))
    assert breaker.is_clean


def test_nobody_is_taken_for_dead_who_may_still_be_sending() -> None:
    assert CLAIM_HOLDS + timedelta(seconds=ANSWER_SECONDS) < ABANDONED_AFTER
