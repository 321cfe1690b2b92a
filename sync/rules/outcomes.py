"""What an answer to a push means for its job and its device: done, again, an alert in its place, a token that is dead.

Invariant 6: what surely was not accepted goes again; what is uncertain goes again only where it cannot ring.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Account
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.push import PushOutcome, Verdict
from sync.rules.fold import Policies
from sync.rules.jobs import WAKES, job_id, shared

RETRYABLE = frozenset({Verdict.RETRY, Verdict.NOT_SENT, Verdict.THROTTLED, Verdict.CREDENTIALS})


def settle(job_id: str, account: str, outcome: PushOutcome, books: Books, policies: Policies) -> Ruling[bool]:
    """The rule for an answer: record it, and what follows. The value: was a token removed?"""
    writes = Writes()
    jobs = books.jobs.get(account, [])
    job = next((job for job in jobs if job.job_id == job_id and job.state is JobState.ATTEMPTED), None)
    if job is None:
        return Ruling(writes=writes, value=False)
    device = next((d for d in books.devices.get(account, ()) if d.device_id == job.device_id), None)
    told = replace(job, status=outcome.status, reason=outcome.reason)
    done = replace(told, state=JobState.DONE, outcome=outcome.verdict.value, done_at=books.now)
    verdict = outcome.verdict
    if verdict is Verdict.ACCEPTED:
        writes.jobs.append(done)
        writes.jobs.extend(repeated(job, device, jobs, books, policies))
        return Ruling(writes=writes, value=False)
    if may_go_again(job, verdict) and (again := books.now + back_off(job, verdict)) < job.deadline:
        newer = queued_beside(job, jobs)
        if newer is None:
            writes.jobs.append(replace(told, state=JobState.QUEUED, not_before=again))
        else:
            writes.jobs += [done, standing_in(newer, job, again)]
        return Ruling(writes=writes, value=False)
    writes.jobs.append(done)
    if job.voip:
        # PUSH §5: an uncertain or failed attempt leads to the alert at once; it is never repeated as VoIP.
        waiting = (other for other in jobs if other.kind is PushKind.CALL_FALLBACK and other.sid == job.sid)
        writes.jobs.extend(
            replace(other, not_before=books.now)
            for other in waiting
            if other.device_id == job.device_id and other.state is JobState.QUEUED
        )
    removed = verdict is Verdict.DEAD_TOKEN and device is not None and is_dead(device, job, outcome)
    if removed and device is not None:
        if job.voip:
            writes.devices.append(replace(device, voip_token=None))
            writes.retokened.append(writes.devices[-1])
        else:
            writes.deleted_devices.append((device.account, device.device_id))
            writes.accounts.append(without_device(books.accounts[account]))
    return Ruling(writes=writes, value=removed)


def is_dead(device: Device, job: PushJob, outcome: PushOutcome) -> bool:
    """PUSH §2: a verdict of death counts only if the token was not registered anew since. Where the vendor names no
    instant, the push itself is one: what was registered after it left is another token.
    """
    if outcome.dead_since_at is not None:
        return outcome.dead_since_at > device.registered_at
    return job.attempted_at is None or job.attempted_at >= device.registered_at


def without_device(account: Account) -> Account:
    """The account with one device less."""
    return replace(account, devices=account.devices - 1)


def may_go_again(job: PushJob, verdict: Verdict) -> bool:
    """What surely was not accepted goes again; what is uncertain only when it cannot ring. A test is one push."""
    if job.kind is PushKind.TEST:
        return False
    return verdict in RETRYABLE or (verdict is Verdict.UNCERTAIN and not job.voip)


def queued_beside(job: PushJob, jobs: Sequence[PushJob]) -> PushJob | None:
    """The wake of the same kind that was queued for the device while this one was under way."""
    if job.kind not in WAKES or job.sid is not None:
        return None
    beside = (other for other in jobs if other.kind is job.kind and other.device_id == job.device_id)
    return next((other for other in beside if other.state is JobState.QUEUED), None)


def standing_in(newer: PushJob, job: PushJob, again: datetime) -> PushJob:
    """PUSH §2: only the newest wake is kept; it waits as long as the one that it stands for would have."""
    return replace(
        shared(newer, job.conversation),
        silent=newer.silent and job.silent,
        collapse="w" if "w" in (newer.collapse, job.collapse) else newer.collapse,
        target_rank=max(newer.target_rank or 0, job.target_rank or 0) or None,
        not_before=max(newer.not_before, again),
        deadline=max(newer.deadline, job.deadline),
    )


def back_off(job: PushJob, verdict: Verdict) -> timedelta:
    """How long to wait: calls have seconds to live, so they go again fast; refused credentials wait for somebody."""
    if job.lane is Lane.CALLS:
        return timedelta(seconds=0.2 * 2 ** min(job.attempts - 1, 4))
    if verdict is Verdict.CREDENTIALS:
        return timedelta(seconds=60)
    return timedelta(seconds=min(2.0 ** min(job.attempts, 10), 600))


def repeated(
    job: PushJob, device: Device | None, jobs: Sequence[PushJob], books: Books, policies: Policies
) -> list[PushJob]:
    """PUSH §5: a wake that stays unfetched is sent again after a while, to a device that shows nothing for it."""
    waits = policies.wakes.repeats
    if job.kind is not PushKind.MESSAGE or job.repeat >= len(waits) or device is None:
        return []
    if device.app not in policies.wakes.filtering_apps or device.fetched_version >= job.version:
        return []
    if any(
        other.state is JobState.QUEUED and other.kind is job.kind and other.device_id == job.device_id for other in jobs
    ):
        return []
    again = replace(
        job,
        job_id=job_id(device, job.kind, job.version, job.repeat + 1),
        repeat=job.repeat + 1,
        state=JobState.QUEUED,
        joined=0,
        attempts=0,
        attempted_at=None,
        status=None,
        reason=None,
        created_at=books.now,
        not_before=books.now + waits[job.repeat],
    )
    return [again]
