"""Wakes that say nothing but "ask again" (PUSH §5, row `sync`): where the push service may have dropped a wake for a
push about a call, and where a woken phone began to ask and has not come to the end.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.copies import replace
from sync.model.device import Device, Lane, PushJob, PushKind
from sync.rules.fold import Policies
from sync.rules.jobs import CALL_KINDS, job_id, new_job, queued_of
from sync.rules.times import microseconds

LIFE = timedelta(days=1)
AFTER = timedelta(seconds=30)  # iOS gives an extension about so long: then it is over, whatever it has reached
CHASES = 10  # a phone that never comes to the end, because its app asks for one page only, is left alone


def fresh_wake(attempt: PushJob, device: Device, jobs: Sequence[PushJob], now: datetime) -> list[PushJob]:
    """The wake that follows an alert about a call to a device that has a wake unfetched: the service keeps one
    notification, which has taken the wake's place and will be gone when the call is over. `jobs`: the device's.
    """
    short = attempt.kind in CALL_KINDS or attempt.kind is PushKind.CALL_END
    until = device.woken_until
    if attempt.voip or not short or until is None or not device.wake_unfetched or until <= attempt.deadline:
        return []
    return [soon(device, device.woken_version, jobs, now, due=attempt.deadline, until=until)]


def begun(account: str, resource: str, version: int, books: Books, *, policies: Policies) -> Ruling[None]:
    """The device bound to `resource` was told a part of what there is up to `version`. If it was woken and gets no
    further, it is woken again.
    """
    now, jobs = books.now, books.jobs.get(account, ())
    found = [
        soon(device, version, mine, now, due=now + AFTER, until=now + LIFE)
        for device in books.devices.get(account, ())
        if device.bound_to == resource and device.enabled and device.app in policies.wakes.filtering_apps
        if device.wake_unfetched and device.fetched_version < version and device.chased < CHASES
        for mine in [[job for job in jobs if job.device_id == device.device_id]]
    ]
    return Ruling(writes=Writes(jobs=found), value=None)


def soon(
    device: Device, version: int, jobs: Sequence[PushJob], now: datetime, *, due: datetime, until: datetime
) -> PushJob:
    """The device's one queued wake of this kind, new or put off. It counts as made now: wakes of before are no news."""
    queued = queued_of(jobs, PushKind.SYNC)
    job = queued or new_job(device, PushKind.SYNC, version, now, lane=Lane.UPDATES)
    return replace(
        job,
        # Named by the instant: a second one may be of the same version as one that has been.
        job_id=job.job_id if queued else job_id(device, PushKind.SYNC, microseconds(now)),
        version=max(job.version, version),
        collapse="w",
        silent=True,
        created_at=now,
        not_before=max(job.not_before, due),
        deadline=max(job.deadline, until),
    )
