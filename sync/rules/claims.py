"""The second push decision (invariant 7): what becomes of a job that is due, taken under its account's lock just
before sending.

The claim commits "attempted" before the first byte leaves, so that a VoIP push is sent at most once for a call that
rings (invariant 6). What came back is `outcomes`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sync.model.books import Books, Ruling, Writes
from sync.model.call import Call, CallKey
from sync.model.conversation import Account, Conversation
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.event import Session
from sync.rules.fold import Policies, Ring
from sync.rules.wakes import attentive, ended, fetched_since, new_job
from sync.rules.wishes import unwanted

WAKES = frozenset(set(PushKind) - {PushKind.CALL, PushKind.CALL_FALLBACK, PushKind.CALL_END, PushKind.TEST})
# What ends something that a phone shows goes out from a muted conversation too.
TAKES_BACK = frozenset({PushKind.WITHDRAW, PushKind.READ, PushKind.CALL_END})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job to send now, with what its payload needs."""

    job: PushJob
    device: Device
    account: Account
    call: Call | None = None


@dataclass(slots=True, kw_only=True)
class Claimed:
    """What became of the due jobs."""

    claims: list[Claim] = field(default_factory=list)
    suppressed: list[str] = field(default_factory=list)


def claim(
    job_ids: Sequence[str], presence: Mapping[str, tuple[Session, ...] | None], books: Books, policies: Policies
) -> Ruling[Claimed]:
    """The rule for due jobs: send, or end them with the reason. `presence` None: unknown, then nobody is watching."""
    round_ = Round(books, policies)
    wanted = set(job_ids)
    due = [job for jobs in books.jobs.values() for job in jobs if job.job_id in wanted]
    for job in sorted(due, key=lambda job: (job.lane, job.not_before)):
        if job.state is JobState.QUEUED and job.not_before <= books.now:
            round_.take(job, presence.get(job.account) or ())
    return Ruling(writes=round_.writes(), value=round_.claimed)


def rung_at_once(ring: Ring, now: datetime, policies: Policies) -> tuple[Claim, list[PushJob]]:
    """A call's push that was decided a moment ago, claimed without deciding anew: the claim holds only if the account
    is still at the version of that decision (`Store.claim_ring`). With it come the jobs that follow from the
    claim.
    """
    attempt = replace(ring.job, state=JobState.ATTEMPTED, attempts=1, attempted_at=now)
    follow = ring.job.voip and ring.device.app in policies.wakes.filtering_apps
    jobs = [fallback(ring.device, ring.call, now + policies.calls.fallback, now)] if follow else []
    account = replace(ring.account, wakes_open=True)
    return Claim(job=attempt, device=ring.device, account=account, call=ring.call), jobs


class Round:
    """The working state of one claim."""

    def __init__(self, books: Books, policies: Policies) -> None:
        self.claimed = Claimed()
        self._books, self._policies = books, policies
        self._accounts = dict(books.accounts)
        self._devices = {(d.account, d.device_id): d for found in books.devices.values() for d in found}
        self._jobs: list[PushJob] = []
        self._woken: set[tuple[str, str]] = set()
        self._pushed: set[str] = set()

    def take(self, job: PushJob, sessions: tuple[Session, ...]) -> None:
        """One due job: send it, or end it with the reason."""
        account, device = self._accounts.get(job.account), self._devices.get((job.account, job.device_id))
        if account is None or device is None or not device.enabled:
            self._end(job, "no-device")
        elif why := self._reason_not_to(job, device, account, sessions):
            self._end(job, why)
        else:
            self._send(job, device, account)

    def _reason_not_to(
        self, job: PushJob, device: Device, account: Account, sessions: tuple[Session, ...]
    ) -> str | None:
        if why := reason_not_to(job, device, account, sessions, self._books):
            return why  # what was read mentions nobody any more: the ledger says the former
        key = job.conversation
        conversation = self._books.conversations.get(key) if key else None
        return unwanted_now(job, conversation, self._policies, self._books.now) if conversation else None

    def _end(self, job: PushJob, why: str) -> None:
        self._jobs.append(ended(job, why, self._books.now))
        self.claimed.suppressed.append(why)

    def _send(self, job: PushJob, device: Device, account: Account) -> None:
        now = self._books.now
        attempt = replace(job, state=JobState.ATTEMPTED, attempts=job.attempts + 1, attempted_at=now)
        call = call_of(job, self._books)
        self._jobs.append(attempt)
        filtering = device.app in self._policies.wakes.filtering_apps  # the others show what they get (PUSH §5)
        if job.voip and call is not None and job.attempts == 0 and filtering:
            self._jobs.append(fallback(device, call, now + self._policies.calls.fallback, now))
        if job.kind in WAKES:
            device = replace(device, woken_version=max(device.woken_version, job.version), woken_at=now)
            self._devices[job.account, job.device_id] = device
            self._woken.add((job.account, job.device_id))
        # A ring, too, waits for a fetch: it makes the fallback needless.
        account = replace(account, wakes_open=True)
        self._accounts[job.account] = account
        self._pushed.add(job.account)
        self.claimed.claims.append(Claim(job=attempt, device=device, account=account, call=call))

    def writes(self) -> Writes:
        """The jobs with their new states, and what the wakes left at devices and accounts."""
        return Writes(
            accounts=[self._accounts[jid] for jid in self._pushed],
            devices=[self._devices[key] for key in self._woken],
            jobs=self._jobs,
        )


def unwanted_now(job: PushJob, conversation: Conversation, policies: Policies, now: datetime) -> str | None:
    """Why the owner does not want to hear of a conversation any more; None = wants to."""
    if job.kind is PushKind.MESSAGE and conversation.unread:
        return unwanted(conversation, policies.wakes, now, mention=conversation.mentions > 0)
    if job.kind is PushKind.INVITED and conversation.invited_by is None:
        return "answered"
    if job.kind is PushKind.SUBSCRIPTION and not conversation.requests_presence:
        return "answered"
    if job.kind in TAKES_BACK or not conversation.muted(now):
        return None
    return None if job.lane is Lane.CALLS and policies.wakes.muted_calls else "muted"


def reason_not_to(
    job: PushJob, device: Device, account: Account, sessions: tuple[Session, ...], books: Books
) -> str | None:
    """Why a due job is not sent after all; None = send it."""
    key = job.conversation
    conversation = books.conversations.get(key) if key else None
    if job.deadline <= books.now:
        return "expired"
    if job.kind is PushKind.CALL_END:
        return "fetched" if fetched_since(device, job) else None
    if job.kind in (PushKind.CALL, PushKind.CALL_FALLBACK):
        return reason_not_to_ring(job, device, sessions, books)
    if job.published:
        return None  # what was read or fetched, and who is looking, only the account's own server knows
    if job.kind is PushKind.MESSAGE and (
        account.unread == 0 or (conversation is not None and conversation.unread == 0)
    ):
        return "read"
    if job.kind is PushKind.CORRECTED and (
        account.unread == 0 or (conversation is not None and (job.target_rank or 0) <= conversation.read.rank)
    ):
        return "read"
    if device.fetched_version >= job.version:
        return "fetched"
    return "attentive" if attentive(device, sessions) else None


def reason_not_to_ring(job: PushJob, device: Device, sessions: tuple[Session, ...], books: Books) -> str | None:
    """Why a device does not ring: only a call that rings now rings, on a device that does not have it before its
    eyes.
    """
    call = call_of(job, books)
    if call is None or not call.rings(books.now):
        return "call-over"
    if job.voip and device.voip_token is None:
        return "no-token"
    if job.kind is PushKind.CALL_FALLBACK and fetched_since(device, job):
        return "fetched"
    return "attentive" if device.bound_to is not None and attentive(device, sessions) else None


def fallback(device: Device, call: Call, due: datetime, now: datetime) -> PushJob:
    """The alert that follows a VoIP push which nobody fetched."""
    job = new_job(device, PushKind.CALL_FALLBACK, call.version, now, lane=Lane.CALLS)
    return replace(job, peer=call.key.peer, sid=call.key.sid, collapse="c", not_before=due, deadline=call.rings_until)


def call_of(job: PushJob, books: Books) -> Call | None:
    """The call that a job is about."""
    return books.calls.get(CallKey(job.account, job.peer, job.sid)) if job.sid is not None else None
