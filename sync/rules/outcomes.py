"""What an answer to a push means for its job and its device: done, again, an alert in its place, a token that is dead.

Invariant 6: what surely was not accepted goes again; what is uncertain goes again only where it cannot ring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Account
from sync.model.copies import replace
from sync.model.device import Device, JobState, Lane, PushJob, PushKind, Route
from sync.model.push import PushOutcome, Verdict
from sync.rules.fold import Policies
from sync.rules.jobs import WAKES, ended, job_id, shared
from sync.rules.publish_budget import counted
from sync.rules.reasons import Why
from sync.rules.times import next_version

RETRYABLE = frozenset({Verdict.RETRY, Verdict.NOT_SENT, Verdict.THROTTLED, Verdict.CREDENTIALS})
# Apple replaces a notification by the same one. An app server may show each publish, and one that never answers
# may have shown them all.
UNANSWERED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one attempt of a job; `attempts` None where it is not known which one it was. `spread` stretches
    the pause before the next one: what failed together must not come back together.
    """

    account: str
    job_id: str
    outcome: PushOutcome
    attempts: int | None = None
    spread: float = 1.0


def settle_all(answers: Sequence[Answer], books: Books, policies: Policies) -> Ruling[tuple[Answer, ...]]:
    """The rule for the answers of a while, each of which sees what those before it left. The value: those that
    removed a token.
    """
    settled = Settled(books, policies)
    return Ruling(value=tuple(answer for answer in answers if settled.take(answer)), writes=settled.writes())


def settle(job_id: str, account: str, outcome: PushOutcome, books: Books, policies: Policies) -> Ruling[bool]:
    """The rule for one answer. The value: was a token removed?"""
    ruling = settle_all([Answer(account=account, job_id=job_id, outcome=outcome)], books, policies)
    return Ruling(writes=ruling.writes, value=bool(ruling.value))


class Settled:
    """The working state of one transaction: the rows as they will be."""

    def __init__(self, books: Books, policies: Policies) -> None:
        self._books, self._policies = books, policies
        self._jobs = {account: {job.job_id: job for job in found} for account, found in books.jobs.items()}
        self._devices = {(d.account, d.device_id): d for found in books.devices.values() for d in found}
        self._accounts = dict(books.accounts)
        self._changed: dict[tuple[str, str], PushJob] = {}
        self._touched: dict[tuple[str, str], Device] = {}
        self._deleted: list[tuple[str, str]] = []

    def take(self, answer: Answer) -> bool:
        """One answer; True where it removed a token."""
        job = self._jobs.get(answer.account, {}).get(answer.job_id)
        if job is None or job.state is not JobState.ATTEMPTED or answer.attempts not in (None, job.attempts):
            return False
        outcome, verdict = answer.outcome, answer.outcome.verdict
        device = self._devices.get((job.account, job.device_id))
        done = replace(
            job,
            state=JobState.DONE,
            outcome=verdict.value,
            status=outcome.status,
            reason=outcome.reason,
            done_at=self._books.now,
        )
        pause = back_off(job, verdict) * answer.spread
        if verdict is Verdict.ACCEPTED:
            self._keep(done, *repeated(job, device, self._of(job), self._books, self._policies))
        elif may_go_again(job, verdict, device) and (again := self._books.now + pause) < job.deadline:
            self._again(replace(job, status=outcome.status, reason=outcome.reason), done, again)
            if verdict is Verdict.THROTTLED and device is not None:
                self._keep(*throttled(device, self._of(job), again, self._books, self._policies))
        else:
            self._keep(done)
            if job.voip:
                self._keep(*alerts_at_once(job, self._of(job), self._books.now))
        return device is not None and self._judged(device, job, outcome)

    def writes(self) -> Writes:
        """The rows that changed."""
        gone = {account for account, _ in self._deleted}
        touched = [device for key, device in self._touched.items() if key not in self._deleted]
        return Writes(
            accounts=[self._accounts[account] for account in sorted(gone)],
            devices=touched,
            retokened=[device for device in touched if device.route is Route.APNS],
            deleted_devices=self._deleted,
            jobs=list(self._changed.values()),
        )

    def _of(self, job: PushJob) -> list[PushJob]:
        """The jobs of the account as they are now."""
        return list(self._jobs[job.account].values())

    def _keep(self, *jobs: PushJob) -> None:
        for job in jobs:
            self._jobs[job.account][job.job_id] = self._changed[job.account, job.job_id] = job

    def _again(self, told: PushJob, done: PushJob, again: datetime) -> None:
        newer = queued_beside(told, self._of(told))
        if newer is None:
            self._keep(replace(told, state=JobState.QUEUED, not_before=again))
        else:
            self._keep(done, standing_in(newer, told, again))

    def _judged(self, device: Device, job: PushJob, outcome: PushOutcome) -> bool:
        """What an answer means for the device; True where it loses a token by it."""
        key = (device.account, device.device_id)
        dead = outcome.verdict is Verdict.DEAD_TOKEN and is_dead(device, job, outcome)
        if device.route is Route.PUBLISH and not dead:
            held = counted(device, outcome, self._policies.publish, self._books.now)
            if held is not None and held is not device:
                self._devices[key] = self._touched[key] = held
            dead = held is None
        if not dead:
            return False
        if job.voip and device.route is Route.APNS:
            self._devices[key] = self._touched[key] = replace(device, voip_token=None)
        else:
            del self._devices[key]
            self._deleted.append(key)
            waiting = (one for one in self._of(job) if one.device_id == device.device_id)
            left = [one for one in waiting if one.state is JobState.QUEUED]
            self._keep(*(ended(one, Why.NO_DEVICE, self._books.now) for one in left))
            owner = without_device(self._accounts[device.account])
            if not device.is_registered:  # from now on its token is no node (`publishes.publish_to_token`)
                owner = replace(owner, version=next_version(owner, self._books.now))
            self._accounts[device.account] = owner
        return True


def alerts_at_once(job: PushJob, jobs: Sequence[PushJob], now: datetime) -> list[PushJob]:
    """PUSH §5: an uncertain or failed attempt leads to the alert at once; it is never repeated as VoIP."""
    return [
        replace(other, not_before=now)
        for other in jobs
        if other.kind is PushKind.CALL_FALLBACK
        and (other.sid, other.device_id, other.state) == (job.sid, job.device_id, JobState.QUEUED)
    ]


def throttled(
    device: Device, jobs: Sequence[PushJob], again: datetime, books: Books, policies: Policies
) -> list[PushJob]:
    """PUSH §2: back off for that device, keep only the newest wake. An app that filters learns everything from the one
    that is kept; others show each, so there each kind keeps its own. What waits for the end of quiet hours is not in
    the way, and speaks for nothing that need not.
    """
    waiting = [
        job
        for job in jobs
        if job.device_id == device.device_id and job.state is JobState.QUEUED and job.kind in WAKES and job.sid is None
        if job.reason != Why.QUIET
    ]
    later = [replace(job, not_before=max(job.not_before, again)) for job in waiting]
    if device.app not in policies.wakes.filtering_apps or len(later) < 2:
        return later
    # What is heard must be heard; of the rest the newest.
    kept = max(later, key=lambda job: (job.kind is PushKind.MESSAGE, job.version))
    others = [job for job in later if job is not kept]
    for job in others:
        kept = replace(standing_in(kept, job, again), version=max(kept.version, job.version))
    return [kept, *(ended(job, Why.THROTTLED, books.now) for job in others)]


def is_dead(device: Device, job: PushJob, outcome: PushOutcome) -> bool:
    """PUSH §2: a verdict of death counts only if the token was not registered anew since. Where the vendor names no
    instant, the push itself is one: what was registered after it left is another token. What never registered is known
    by publishes to it, and they prove nothing.
    """
    if outcome.dead_since_at is not None and device.is_registered:
        return outcome.dead_since_at > device.registered_at
    return job.attempted_at is None or job.attempted_at >= device.registered_at


def without_device(account: Account) -> Account:
    """The account with one device less."""
    return replace(account, devices=account.devices - 1)


def may_go_again(job: PushJob, verdict: Verdict, device: Device | None) -> bool:
    """What surely was not accepted goes again; what is uncertain only when it cannot ring, and to app servers of other
    makers a few times. A test is one push.
    """
    if job.kind is PushKind.TEST:
        return False
    if verdict is Verdict.UNCERTAIN:
        abroad = device is not None and device.route is Route.PUBLISH
        return not job.voip and not (abroad and job.attempts >= UNANSWERED)
    return verdict in RETRYABLE


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
    """How long to wait: calls have seconds to live, so they go again fast. Behind refused credentials the queue waits
    as a whole (`sync.service.breaker`), so the job itself need not.
    """
    if job.lane is Lane.CALLS:
        return timedelta(seconds=0.2 * 2 ** min(job.attempts - 1, 4))
    if verdict is Verdict.CREDENTIALS:
        return timedelta(seconds=1)
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
