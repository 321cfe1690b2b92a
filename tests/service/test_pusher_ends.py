"""Attempts without an end and the end of a process: nothing is sent twice that rings, and nothing is forgotten."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.device import JobState, PushKind
from sync.model.errors import StoreUnavailable
from sync.rules.fold import Report
from sync.service.ledger import AGAIN_SECONDS
from sync.service.pusher import ABANDONED_AFTER, LANES
from sync.service.sender import CLAIM_HOLDS
from tests.adapters.pushing import Desk, phone
from tests.contract.apns_server import ALERT, VOIP, numbered
from tests.contract.samples import ANN
from tests.passing import standing
from tests.service.pushing import DEAD, left_behind, office, turns, working

# ---- attempts without an end -----------------------------------------------------------------------------------------


async def test_what_a_dead_worker_left_is_uncertain() -> None:
    found, doors = office()
    wake, ring = found.message(), found.ring()
    await found.round("calls")  # queues the alert for later
    doors.sent.clear()
    left_behind(found, wake, ABANDONED_AFTER + timedelta(seconds=1))
    left_behind(found, ring, ABANDONED_AFTER + timedelta(seconds=1))
    await found.pusher.recover()
    assert (found.now(wake).state, found.now(wake).reason) == (JobState.QUEUED, "worker-died")
    assert (found.now(ring).outcome, found.now(ring).reason) == ("uncertain", "worker-died")
    await found.round("calls")
    found.later(3)
    await found.round("messages")
    assert [(one.push_type.value, one.token) for one in doors.sent] == [("alert", ALERT)] * 2  # shown, and the wake
    assert VOIP not in [one.token for one in doors.sent]


async def test_what_a_living_worker_may_still_be_at_is_left_alone() -> None:
    found, _ = office()
    left = left_behind(found, found.message(), ABANDONED_AFTER - timedelta(seconds=1))
    await found.pusher.recover()
    assert found.now(left) == left


async def test_a_late_answer_does_not_settle_the_next_attempt() -> None:
    found, doors = office()
    doors.released.clear()
    made = found.message()
    await found.pusher.round("messages")
    found.put(jobs=[replace(found.now(made), attempts=2)])  # taken for abandoned, and claimed by another process
    doors.released.set()
    await found.quiet()
    assert (found.now(made).state, found.now(made).attempts) == (JobState.ATTEMPTED, 2)


async def test_a_claim_that_is_old_is_decided_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stood still between claim and send."""
    found, doors = office()
    made = found.ring()
    claimed = found.store.transact

    async def slow(keys: Any, rule: Any) -> Any:
        value = await claimed(keys, rule)
        found.clock.instant += CLAIM_HOLDS + timedelta(seconds=0.1)
        return value

    monkeypatch.setattr(found.store, "transact", slow)
    await found.round("calls")
    assert doors.sent == []
    assert found.now(made).state is JobState.QUEUED


class Away:
    """The database is away for some transactions."""

    def __init__(self, found: Desk, times: int) -> None:
        self.transact, self.times = found.store.transact, times

    async def __call__(self, keys: Any, rule: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailable("away")
        return await self.transact(keys, rule)


async def test_an_outcome_is_recorded_when_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found, doors = office()
    doors.released.clear()
    made = found.message()
    await found.pusher.round("messages")
    monkeypatch.setattr(found.store, "transact", Away(found, 3))
    began = found.clock.now()
    doors.released.set()
    await found.quiet()
    assert found.now(made).outcome == "accepted"
    assert found.clock.now() - began == timedelta(seconds=3 * AGAIN_SECONDS)
    assert len(doors.sent) == 1


async def test_an_outcome_that_cannot_be_recorded_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found, doors = office()
    doors.released.clear()
    bad, good = found.message("bad"), found.message("good", kind=PushKind.INVITED)
    await found.pusher.round("messages")
    transact = found.store.transact

    async def stumbling(keys: Any, rule: Any) -> Any:
        def ruled(books: Any) -> Any:
            ruling = rule(books)
            if any(job.job_id == bad.job_id for job in ruling.writes.jobs):
                raise ValueError(ALERT)
            return ruling

        return await transact(keys, ruled)

    monkeypatch.setattr(found.store, "transact", stumbling)
    doors.released.set()
    await found.quiet()
    assert found.now(good).outcome == "accepted"
    assert found.now(bad).state is JobState.ATTEMPTED
    assert "the outcome of a push cannot be recorded" in caplog.text
    assert ALERT not in caplog.text


# ---- the end of a process --------------------------------------------------------------------------------------------


async def test_who_drains_claims_nothing_more_and_waits_for_answers() -> None:
    found, doors = office()
    doors.released.clear()
    under_way = found.message()
    running = asyncio.ensure_future(found.pusher.run())
    async with asyncio.timeout(60):
        while not doors.sent:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(found.pusher.drain())
        await asyncio.sleep(0)
        waiting = found.message("waiting", kind=PushKind.INVITED)
        found.pusher.committed(Report(jobs=[waiting]))
        assert not draining.done()
        doors.released.set()
        await draining
    assert found.now(under_way).outcome == "accepted"
    assert (found.now(waiting).state, found.now(waiting).attempts) == (JobState.QUEUED, 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_being_claimed_when_the_drain_begins_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    found, doors = office()
    made, claiming, go_on = found.message(), asyncio.Event(), asyncio.Event()
    transact = found.store.transact

    async def slow(keys: Any, rule: Any) -> Any:
        claiming.set()
        await go_on.wait()
        return await transact(keys, rule)

    monkeypatch.setattr(found.store, "transact", slow)
    running = asyncio.ensure_future(found.pusher.run())
    async with asyncio.timeout(60):
        await claiming.wait()
        draining = asyncio.ensure_future(found.pusher.drain())
        await asyncio.sleep(0)
        go_on.set()
        await draining
    assert found.now(made).outcome == "accepted"
    assert len(doors.sent) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_job_that_cannot_be_claimed_does_not_keep_a_worker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = office()
    found.message()

    async def stumbling(keys: Any, rule: Any) -> Any:
        raise ValueError

    monkeypatch.setattr(found.store, "transact", stumbling)
    await found.round("messages")
    looks = 0
    look = found.store.due_jobs

    async def counted(*asked: Any) -> Sequence[Any]:
        nonlocal looks
        looks += 1
        return await look(*asked)

    monkeypatch.setattr(found.store, "due_jobs", counted)
    await working(found)
    assert looks <= 6


async def test_a_push_that_was_taken_is_no_reason_to_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what follows it much later. Where something waits for its place, the end of a send is one."""
    found, doors = office(in_flight=1)
    looks, look = list[Sequence[Any]](), found.store.due_jobs

    async def counted(*asked: Any) -> Sequence[Any]:
        looks.append(await look(*asked))
        return looks[-1]

    monkeypatch.setattr(found.store, "due_jobs", counted)
    with standing():  # no time at which it would look by itself comes
        running = asyncio.ensure_future(found.pusher.run())
        await turns()
        assert len(looks) == len(LANES)
        made = found.message()
        found.pusher.hint([made])
        await turns()
        assert found.now(made).outcome == "accepted"
        assert len(looks) <= len(LANES) + 2
        both = [found.message("a", kind=PushKind.INVITED), found.message("b", kind=PushKind.SUBSCRIPTION)]
        found.pusher.hint(both)
        await turns()
        assert [found.now(job).outcome for job in both] == ["accepted"] * 2
        assert len(doors.sent) == 3
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_tokens_of_accounts_are_settled_together() -> None:
    """Two devices of one account called dead in one batch: both go, and the account has none left."""
    found, doors = office()
    now = found.clock.now()
    found.register(*[phone(now, numbered(n), None, device_id=f"{n}") for n in (1, 2)])
    found.store.tables.devices.pop((ANN, "phone"))
    doors.outcome_of = lambda _: DEAD
    for n in (1, 2):
        found.message(f"{n}", device_id=f"{n}")
    await found.round("messages")
    assert found.store.tables.devices == {}
    assert found.store.tables.accounts[ANN].devices == 0
    assert found.told("token_removed") == [{"reason": "BadDeviceToken"}] * 2
