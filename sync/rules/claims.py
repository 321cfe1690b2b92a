"""The second push decision (invariant 7): what becomes of a job that is due, taken under its account's lock just
before sending.

The claim commits "attempted" before the first byte leaves, so that a VoIP push is sent at most once for a call that
rings (invariant 6). What came back is `outcomes`'.

A push service keeps one notification for a device that is away, the last (PUSH §5). So while a wake is unfetched each
later one carries the newest version and lives as long as the longest of them, and what lives shorter, because it is
about a call, is followed by a fresh wake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sync.model.books import Books, Ruling, Writes
from sync.model.call import Call, CallKey
from sync.model.conversation import Account, Conversation, Notify
from sync.model.copies import replace
from sync.model.device import Device, JobState, PushJob, PushKind, Route
from sync.model.event import Session
from sync.model.jid import bare
from sync.rules.backlog import fresh_wake
from sync.rules.fold import Policies
from sync.rules.jobs import CALL_KINDS, MARKED, WAKES, Case, attentive, ended, fetched_since
from sync.rules.quiet import held, hush
from sync.rules.reasons import Why
from sync.rules.ring import fallback, unwelcome
from sync.rules.wishes import unwanted

# What ends something that a phone shows goes out from a muted conversation too.
TAKES_BACK = frozenset({PushKind.WITHDRAW, PushKind.READ, PushKind.CALL_END})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job to send now, with what its payload needs."""

    job: PushJob
    device: Device
    account: Account
    call: Call | None = None
    conversation: Conversation | None = None


@dataclass(slots=True, kw_only=True)
class Claimed:
    """What became of the due jobs; of those that wait for the end of quiet hours nothing is told."""

    claims: list[Claim] = field(default_factory=list)
    suppressed: list[str] = field(default_factory=list)


def claim(
    job_ids: Sequence[str], presence: Mapping[str, tuple[Session, ...] | None], books: Books, policies: Policies
) -> Ruling[Claimed]:
    """The rule for due jobs: send, keep, or end them with the reason. `presence` None: unknown, then nobody is
    watching.
    """
    round_ = Round(books, policies)
    wanted = set(job_ids)
    due = [job for jobs in books.jobs.values() for job in jobs if job.job_id in wanted]
    # Of two that are due at once the newer one goes last: the phone shows it, and whatever order rows come in.
    for job in sorted(due, key=lambda job: (job.lane, job.not_before, job.version, job.job_id)):
        if job.state is JobState.QUEUED and job.not_before <= books.now:
            round_.take(job, presence.get(job.account) or ())
    return Ruling(writes=round_.writes(), value=round_.claimed)


def following(
    attempt: PushJob, device: Device, call: Call | None, jobs: Sequence[PushJob], policies: Policies
) -> list[PushJob]:
    """What is queued when a push leaves for an app that need not show it. `jobs`: the device's."""
    now = attempt.attempted_at or attempt.created_at
    if attempt.voip and call is not None and attempt.attempts == 1:
        return [fallback(device, call, now + policies.calls.fallback, now)]
    return fresh_wake(attempt, device, jobs, now)


class Round:
    """The working state of one claim."""

    def __init__(self, books: Books, policies: Policies) -> None:
        self.claimed = Claimed()
        self._books, self._policies = books, policies
        self._accounts = dict(books.accounts)
        self._devices = {(d.account, d.device_id): d for found in books.devices.values() for d in found}
        # By account and device: a claim looks at the jobs of its device, and a round may be of hundreds.
        self._jobs: dict[tuple[str, str], dict[str, PushJob]] = {}
        for found in books.jobs.values():
            for job in found:
                self._jobs.setdefault((job.account, job.device_id), {})[job.job_id] = job
        self._changed: dict[str, PushJob] = {}
        self._woken: set[tuple[str, str]] = set()
        self._pushed: set[str] = set()

    def take(self, job: PushJob, sessions: tuple[Session, ...]) -> None:
        """One due job: send it, keep it for the end of quiet hours, or end it with the reason."""
        account, device = self._accounts.get(job.account), self._devices.get((job.account, job.device_id))
        if account is None or device is None or not device.enabled:
            self._end(job, Why.NO_DEVICE)
            return
        now = self._books.now
        silence = hush(account.quiet, self._policies.wakes.zones, now)
        if why := self._reason_not_to(job, device, account, sessions):
            self._end(job, why)
        elif job.kind in CALL_KINDS and silence is not None and not silence.calls:
            self._end(job, Why.QUIET)
        elif (kept := held(job, silence)).not_before > now:
            self._keep(kept)
        else:
            self._send(job, device, account)

    def _reason_not_to(
        self, job: PushJob, device: Device, account: Account, sessions: tuple[Session, ...]
    ) -> Why | None:
        if why := reason_not_to(job, device, account, sessions, self._books):
            return why  # what was read mentions nobody any more: the ledger says the former
        filtering = device.app in self._policies.wakes.filtering_apps
        if not filtering and (why := would_show(job, device)):
            return why
        key = job.conversation
        conversation = self._books.conversations.get(key) if key else None
        if conversation is None:
            return None
        case = Case(conversation, self._policies.wakes, self._books.now)
        return unwanted_now(job, device, case, filtering=filtering)

    def _end(self, job: PushJob, why: Why) -> None:
        self._keep(ended(job, why, self._books.now))
        self.claimed.suppressed.append(why)

    def _keep(self, *jobs: PushJob) -> None:
        for job in jobs:
            self._jobs.setdefault((job.account, job.device_id), {})[job.job_id] = self._changed[job.job_id] = job

    def _send(self, job: PushJob, device: Device, account: Account) -> None:
        now = self._books.now
        tried = replace(job, state=JobState.ATTEMPTED, attempts=job.attempts + 1, attempted_at=now, reason=None)
        attempt = newest(tried, device)
        call = call_of(job, self._books)
        self._keep(attempt)
        if device.app in self._policies.wakes.filtering_apps:  # the others show what they get (PUSH §5)
            # As they are by now: what follows upon two pushes may be the same job.
            mine = list(self._jobs[job.account, job.device_id].values())
            self._keep(*following(attempt, device, call, mine, self._policies))
        if job.kind in WAKES:
            device = woken(device, attempt, now)
            self._devices[job.account, job.device_id] = device
            self._woken.add((job.account, job.device_id))
        # A ring, too, waits for a fetch: it makes the fallback needless.
        if not account.wakes_open:
            account = replace(account, wakes_open=True)
            self._accounts[job.account] = account
            self._pushed.add(job.account)
        key = job.conversation
        conversation = self._books.conversations.get(key) if key else None
        claimed = Claim(job=attempt, device=device, account=account, call=call, conversation=conversation)
        self.claimed.claims.append(claimed)

    def writes(self) -> Writes:
        """The jobs with their new states, and what the wakes left at devices and accounts."""
        return Writes(
            accounts=[self._accounts[jid] for jid in self._pushed],
            devices=[self._devices[key] for key in self._woken],
            jobs=list(self._changed.values()),
        )


def newest(job: PushJob, device: Device) -> PushJob:
    """The push, which may take the place of an unfetched wake at the service: it says all that the other said, and what
    is no call lives as long.
    """
    if not device.wake_unfetched or job.voip or job.kind is PushKind.TEST:
        return job
    lasting = job.kind in WAKES and device.woken_until is not None
    deadline = max(job.deadline, device.woken_until or job.deadline) if lasting else job.deadline
    return replace(job, version=max(job.version, device.woken_version), deadline=deadline)


def woken(device: Device, attempt: PushJob, now: datetime) -> Device:
    """The device, woken by a push of which the service knows until its deadline."""
    return replace(
        device,
        woken_version=max(device.woken_version, attempt.version),
        woken_at=now,
        woken_until=attempt.deadline,
        chased=device.chased + (attempt.kind is PushKind.SYNC),
    )


def unwanted_now(job: PushJob, device: Device, case: Case, *, filtering: bool) -> Why | None:
    """Why the owner, or this device, does not want to hear of a conversation any more; None = wants to."""
    conversation, wishes = case.conversation, device.wishes
    if job.kind in CALL_KINDS:
        return unwelcome(device, case, known=not job.silent)
    if job.kind is PushKind.MESSAGE and conversation.unread:
        if wishes.ignore_unknown and job.collapse == "u":
            return Why.IGNORE_UNKNOWN
        mention = conversation.mentions > 0
        return unwanted(conversation, case.policy, case.now, mention=mention, wishes=wishes, filtering=filtering)
    if job.kind is PushKind.INVITED and conversation.invited_by is None:
        return Why.ANSWERED
    if job.kind is PushKind.SUBSCRIPTION and not conversation.requests_presence:
        return Why.ANSWERED
    if job.kind in TAKES_BACK:
        return None
    if conversation.muted(case.now):
        return Why.MUTED if job.kind is not PushKind.MISSED or not case.policy.muted_calls else None
    if conversation.notify is Notify.NEVER and job.kind is not PushKind.CORRECTED:
        return Why.NOTIFY_NEVER
    return Why.DEVICE_MUTED if bare(conversation.key.peer) in wishes.muted else None


def would_show(job: PushJob, device: Device) -> Why | None:
    """Why an app that shows whatever it gets does not get this: the phone may have registered for another one since.
    App servers of other makers are told of a call that does not ring there (`ring.ring`).
    """
    if job.kind not in MARKED:
        return Why.SHOWS_ALL
    ours = device.route is Route.APNS
    return Why.NO_FILTER if ours and job.kind is PushKind.CALL and not job.voip else None


def reason_not_to(
    job: PushJob, device: Device, account: Account, sessions: tuple[Session, ...], books: Books
) -> Why | None:
    """Why a due job is not sent after all; None = send it."""
    key = job.conversation
    conversation = books.conversations.get(key) if key else None
    if job.deadline <= books.now:
        return Why.QUIET if job.reason == Why.QUIET else Why.EXPIRED
    if job.published:
        return None  # what was read or fetched, and who is looking, only the account's own server knows
    if job.kind is PushKind.CALL_END:
        return Why.FETCHED if fetched_since(device, job) else None
    if job.kind in CALL_KINDS:
        return reason_not_to_ring(job, device, sessions, books)
    if job.kind is PushKind.MESSAGE and (
        account.unread == 0 or (conversation is not None and conversation.unread == 0)
    ):
        return Why.READ
    if job.kind is PushKind.CORRECTED and (
        account.unread == 0 or (conversation is not None and (job.target_rank or 0) <= conversation.read.rank)
    ):
        return Why.READ
    if device.fetched_version >= job.version:
        return Why.FETCHED
    if job.kind is PushKind.SYNC and device.woken_at is not None and device.woken_at > job.created_at:
        return Why.WOKEN_SINCE
    return Why.ATTENTIVE if attentive(device, sessions) else None


def reason_not_to_ring(job: PushJob, device: Device, sessions: tuple[Session, ...], books: Books) -> Why | None:
    """Why a device does not ring: only a call that rings now rings, on a device that does not have it before its
    eyes.
    """
    call = call_of(job, books)
    if call is None or not call.rings(books.now):
        return Why.CALL_OVER
    if job.voip and not device.rings:
        return Why.NO_TOKEN
    if job.kind is PushKind.CALL_FALLBACK and fetched_since(device, job):
        return Why.FETCHED
    return Why.ATTENTIVE if device.bound_to is not None and attentive(device, sessions) else None


def call_of(job: PushJob, books: Books) -> Call | None:
    """The call that a job is about."""
    return books.calls.get(CallKey(job.account, job.peer, job.sid)) if job.sid is not None else None
