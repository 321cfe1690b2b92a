"""The workers that push: queues that stand still, refused credentials, storms, abandoned attempts, the end of a
process. The store and the gate are in memory.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from sync.model.books import Books, Keys, Rule, Ruling, Writes
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.errors import StoreUnavailable
from sync.model.push import PushOutcome, PushRequest, Verdict
from sync.rules.fold import Policies, Report, Ring
from sync.rules.wishes import WakePolicy
from sync.service.storms import MANY, WINDOW
from tests.adapters.pushing import Desk, phone
from tests.contract.apns_server import numbered
from tests.contract.fakes_push import RecordingPushGate
from tests.contract.samples import ANN, account, call, owned
from tests.service.pushing import DEAD, office

REFUSED = PushOutcome(verdict=Verdict.CREDENTIALS, status=403, reason="InvalidProviderToken")
UNSENT = PushOutcome(verdict=Verdict.NOT_SENT)


def elsewhere(found: Desk) -> Device:
    """A second phone, of the other app."""
    other = phone(found.clock.now(), numbered(7), None, device_id="elsewhere", app="other")
    found.register(phone(found.clock.now()), other)
    return other


# ---- refused credentials ---------------------------------------------------------------------------------------------


async def test_after_a_refusal_jobs_wait_untouched_and_one_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    found, doors = office()
    first = found.message("first")
    doors.answer_next(REFUSED)
    await found.round("messages")
    assert (found.now(first).state, found.now(first).attempts) == (JobState.QUEUED, 1)
    call_ = found.ring()
    others = [found.message(f"{n}", kind=kind) for n, kind in enumerate((PushKind.INVITED, PushKind.SUBSCRIPTION))]
    found.later(4.9)
    await found.all_lanes()
    assert len(doors.sent) == 1
    assert {found.now(job).attempts for job in (call_, *others)} == {0}
    why = "pushes wait: credentials (InvalidProviderToken)"
    assert found.pusher.troubles() == {"apns:chat": why, "apns:other": why}
    assert found.told("breaker") == [
        {"name": "apns:other", "is_open": True},
        {"name": "apns:chat", "is_open": True},
    ]
    found.later(0.1)
    await found.all_lanes()  # a call is what tries first, and then everything goes
    assert [request.push_type.value for request in doors.sent] == ["alert", "voip", "alert", "alert", "alert"]
    assert found.pusher.troubles() == {}
    assert {"name": "apns:chat", "is_open": False} in found.told("breaker")
    assert found.device() is not None
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == [
        "the push service refuses our credentials"
    ] * 2


async def test_one_probe_at_a_time() -> None:
    found, doors = office()
    for number in range(20):
        found.message(f"{number}", device_id="phone", not_before=found.clock.now() + timedelta(milliseconds=number))
    doors.outcome_of = lambda _: REFUSED
    for _ in range(10):
        await found.all_lanes()
    sent = len(doors.sent)
    found.later(5)
    for _ in range(10):
        await found.all_lanes()
    assert len(doors.sent) == sent + 1
    found.later(5)  # now the pause is ten seconds
    await found.all_lanes()
    assert len(doors.sent) == sent + 1
    found.later(5)
    await found.all_lanes()
    assert len(doors.sent) == sent + 2


async def test_a_call_that_waits_for_its_queue_ends_with_its_time() -> None:
    found, doors = office()
    doors.outcome_of = lambda _: REFUSED
    made = found.ring()
    await found.round("calls")
    waiting = found.ring("second", sid="s2")
    found.later(4)
    await found.pusher.expire()
    assert found.now(waiting).state is JobState.QUEUED
    doors.outcome_of = lambda _: None
    found.later(56.1)
    found.pusher._queues._breakers["apns:chat"].again_at = found.clock.now() + timedelta(seconds=1)
    await found.pusher.expire()
    assert {found.now(one).outcome for one in (made, waiting)} == {"suppressed:expired"}
    assert len(doors.sent) == 1


async def begun(found: Desk) -> tuple[PushJob, Report]:
    """A call begins to ring, and its transaction claims it where that may be."""
    ringing = found.ring()
    device = found.device()
    assert device is not None
    ring = Ring(job=ringing, device=device, account=account(devices=1, unread=1), call=call("s1"), jobs=[ringing])

    def rule(_: Books) -> Ruling[Report]:
        return Ruling(writes=Writes(jobs=[ringing]), value=Report(rings=[ring], jobs=[ringing]))

    return ringing, await found.pusher.transact(owned(), rule)


async def test_a_ring_that_begins_while_its_queue_is_stopped_waits_in_the_store() -> None:
    found, doors = office()
    doors.answer_next(REFUSED)
    found.message()
    await found.round("messages")
    for seconds in (0, 5):  # after five seconds a probe may go, and a probe is no call that was claimed with others
        found.later(seconds)
        made, report = await begun(found)
        assert found.now(made).state is JobState.QUEUED
    found.pusher.committed(report)
    await found.quiet()
    assert found.now(made).attempts == 0
    await found.round("calls")
    assert found.now(made).outcome == "accepted"


async def test_a_ring_is_claimed_by_the_transaction_in_which_it_begins() -> None:
    found, doors = office()
    made, report = await begun(found)
    assert (found.now(made).state, found.now(made).attempts) == (JobState.ATTEMPTED, 1)
    assert doors.sent == []
    found.pusher.committed(report)
    await found.quiet()
    assert found.now(made).outcome == "accepted"
    assert [request.push_type.value for request in doors.sent] == ["voip"]
    assert found.pusher._queues.room("calls") == 80
    (follows,) = found.alerts()
    assert follows.not_before == found.clock.now() + timedelta(seconds=8)


async def test_rings_that_begin_together_take_the_places_that_there_are() -> None:
    found, _ = office(in_flight=1)
    first, report = await begun(found)
    found.pusher.committed(report)
    second = found.ring("second", sid="s2")
    device, owner = found.device(), account(devices=1, unread=1)
    assert device is not None
    ring = Ring(job=second, device=device, account=owner, call=call("s2"), jobs=[second])
    told = await found.pusher.transact(
        owned(), lambda _: Ruling(writes=Writes(jobs=[second]), value=Report(rings=[ring], jobs=[second]))
    )
    assert found.now(second).state is JobState.QUEUED
    found.pusher.committed(told)
    await found.quiet()
    assert found.now(first).outcome == "accepted"
    await found.round("calls")
    assert found.now(second).outcome == "accepted"


async def test_who_ends_claims_nothing_more_with_what_it_commits() -> None:
    found, doors = office()
    await found.pusher.drain()
    made, report = await begun(found)
    found.pusher.committed(report)
    await found.quiet()
    assert found.now(made).state is JobState.QUEUED
    assert doors.sent == []


@pytest.mark.parametrize("stood", [True, False])
async def test_a_claim_whose_commit_nobody_knows_of_rings_all_the_same(stood: bool) -> None:
    """The connection is cut at the commit: nothing has left, so what stands is queued again, and rings once."""
    found, doors = office()
    whole = found.store.transact

    async def cut(keys: Keys, rule: Rule[Any]) -> Any:
        found.store.transact = whole  # type: ignore[method-assign]
        if stood:
            await whole(keys, rule)
        else:
            rule(Books(now=found.clock.now()))
        raise StoreUnavailable("ConnectionDoesNotExistError")

    found.store.transact = cut  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await begun(found)
    await found.quiet()
    (made,) = [job for job in found.store.tables.jobs.values() if job.voip]
    assert (made.state, made.attempts) == (JobState.QUEUED, 1 if stood else 0)
    found.later(1)
    await found.round("calls")
    assert found.now(made).outcome == "accepted"
    assert [request.push_type.value for request in doors.sent] == ["voip"]


# ---- one that stands still stalls no other ---------------------------------------------------------------------------


async def test_an_app_whose_service_is_silent_takes_its_own_places_only() -> None:
    found, doors = office(in_flight=4)
    elsewhere(found)
    silence = asyncio.Event()

    async def send(request: PushRequest) -> PushOutcome:
        if request.app == "chat":
            await silence.wait()
        return await RecordingPushGate.send(doors, request)

    doors.send = send  # type: ignore[method-assign]
    for number in range(10):
        found.message(f"silent {number}", kind=list(PushKind)[4 + number % 6])
    made = [
        found.message(f"other {n}", device_id="elsewhere", queue="apns:other", kind=PushKind.INVITED) for n in (1, 2)
    ]
    for _ in range(4):
        await found.pusher.round("messages")
    async with asyncio.timeout(60):
        while not all(found.now(one).state is JobState.DONE for one in made):  # noqa: ASYNC110 - as a poller would
            await asyncio.sleep(0)
    waiting = [job for job in found.store.tables.jobs.values() if job.state is JobState.ATTEMPTED]
    assert len(waiting) == 4
    assert not await found.pusher.round("messages")
    silence.set()
    await found.quiet()
    for _ in range(3):
        await found.round("messages")
    assert {job.state for job in found.store.tables.jobs.values() if not job.repeat} == {JobState.DONE}


async def test_an_outage_of_one_app_is_that_apps(caplog: pytest.LogCaptureFixture) -> None:
    found, doors = office()
    elsewhere(found)
    doors.outcome_of = lambda request: UNSENT if request.app == "chat" else None
    for number in range(12):
        found.message(f"{number}")
        await found.round("messages")
        found.later(0.1)
    assert "unreachable" in found.pusher.troubles()["apns:chat"]
    assert caplog.records[-1].message == "the push service takes nothing"
    made = found.message("other", device_id="elsewhere", queue="apns:other")
    await found.round("messages")
    assert found.now(made).outcome == "accepted"


# ---- storms and throttling -------------------------------------------------------------------------------------------


async def test_when_very_many_tokens_are_called_dead_no_more_are_removed() -> None:
    found, doors = office()
    now = found.clock.now()
    phones = [phone(now, numbered(n), None, device_id=f"{n}") for n in range(MANY + 10)]
    found.register(*phones)
    doors.outcome_of = lambda _: DEAD
    for one in phones:
        found.message(one.device_id, device_id=one.device_id)
    while await found.round("messages"):
        pass
    left = [key for key in found.store.tables.devices if key[0] == ANN]
    assert len(left) == len(phones) - (MANY - 1) + 1  # and one that was not pushed
    assert "many tokens" in found.pusher.troubles()["chat"]
    assert {"app": "chat", "many": True} in found.told("dying")
    found.later(WINDOW.total_seconds() + 1)
    await found.pusher.measure(found.clock.now())
    assert found.pusher.troubles() == {}
    assert found.told("dying")[-1] == {"app": "chat", "many": False}


async def test_tokens_that_never_registered_keep_no_other_dead_ones() -> None:
    """Another server may publish to as many tokens as it makes up."""
    found, doors = office()
    now = found.clock.now()
    guests = [phone(now, numbered(n), None, device_id=f"{n}", secret_digest=b"") for n in range(2 * MANY)]
    ours = phone(now, numbered(99), None, device_id="ours")
    found.register(*guests, ours)
    doors.outcome_of = lambda _: DEAD
    for one in (*guests, ours):
        found.message(one.device_id, device_id=one.device_id)
    while await found.round("messages"):
        pass
    assert found.device("ours") is None
    assert found.device(guests[-1].device_id) is not None
    assert set(found.pusher.troubles()) == {"chat/tokens"}


def limited(_: PushRequest) -> PushOutcome:
    return PushOutcome(verdict=Verdict.THROTTLED, status=429, reason="TooManyRequests")


async def test_a_device_that_gets_too_much_keeps_one_wake_and_waits() -> None:
    found, doors = office()
    doors.outcome_of = limited
    sent = found.message("sent", version=5)
    await found.pusher.round("messages")
    later = {"not_before": found.clock.now() + timedelta(seconds=1)}
    read = found.message("read", kind=PushKind.READ, lane=Lane.UPDATES, version=7, **later)
    missed = found.message("missed", kind=PushKind.MISSED, lane=Lane.CALLS, sid="s9", version=6, **later)
    await found.quiet()
    kept = found.now(sent)
    assert (kept.state, kept.version) == (JobState.QUEUED, 7)
    assert kept.not_before > found.clock.now() + timedelta(seconds=1.4)
    assert found.now(read).outcome == "suppressed:throttled"
    assert found.now(missed) == missed  # it shows something of its own


async def test_an_app_that_shows_everything_keeps_each_kind() -> None:
    found, doors = office(policies=Policies(wakes=WakePolicy()))
    doors.outcome_of = limited
    sent = found.message("sent")
    await found.pusher.round("messages")
    later = found.clock.now() + timedelta(seconds=1)
    invited = found.message("invited", kind=PushKind.INVITED, not_before=later)
    await found.quiet()
    assert found.now(sent).state is found.now(invited).state is JobState.QUEUED
    assert found.now(invited).not_before == found.now(sent).not_before > later
