"""Push jobs: how one is made, joined and ended, and what a device and its jobs say. Shared by the rules that decide
when something happens (`wakes`, `ring`), before sending (`claims`), and after the answer (`outcomes`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from sync.model.call import Call
from sync.model.conversation import Conversation, ConversationKey, Kind
from sync.model.copies import replace
from sync.model.device import Device, JobState, Lane, PushJob, PushKind, Route
from sync.model.event import Session, SessionState
from sync.rules.quiet import Hush
from sync.rules.wishes import WakePolicy

SUPPRESSED = "suppressed:"
CALL_KINDS = frozenset({PushKind.CALL, PushKind.CALL_FALLBACK})
# What a fetch answers; the others ring, end a ringing, or are an operator's.
# PUSH §5, the marked rows: what an app without the filtering entitlement gets, which shows whatever it gets.
MARKED = frozenset(
    {PushKind.MESSAGE, PushKind.CALL, PushKind.MISSED, PushKind.INVITED, PushKind.SUBSCRIPTION, PushKind.TEST}
)
WAKES = frozenset(set(PushKind) - {PushKind.CALL, PushKind.CALL_FALLBACK, PushKind.CALL_END, PushKind.TEST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One enabled device and its jobs: those that are open, and those of the call in question."""

    device: Device
    filtering: bool
    jobs: Sequence[PushJob] = field(default=())

    def queued(self, kind: PushKind) -> PushJob | None:
        """Its queued job of this kind that is about no call."""
        return queued_of(self.jobs, kind)

    def of_call(self, call: Call) -> list[PushJob]:
        """Its jobs for this call."""
        return [job for job in self.jobs if job.sid == call.key.sid and job.peer == call.key.peer]

    def was_rung(self, call: Call) -> PushJob | None:
        """The job by which something about this call left for it, if any did."""
        return next((job for job in self.of_call(call) if job.kind in CALL_KINDS and has_left(job)), None)


@dataclass(frozen=True, slots=True)
class Case:
    """What a decision about any device of the account rests on: the conversation, what the operator has set, the
    instant, and whether the account wants to be left alone then.
    """

    conversation: Conversation
    policy: WakePolicy
    now: datetime
    hush: Hush | None = None


def queued_of(jobs: Iterable[PushJob], kind: PushKind) -> PushJob | None:
    """The queued one of this kind that is about no call."""
    return next((job for job in jobs if job.state is JobState.QUEUED and job.kind is kind and job.sid is None), None)


def of(job: PushJob, key: ConversationKey) -> PushJob:
    """The job, about a conversation."""
    return replace(job, peer=key.peer, about=key.kind)


def about(job: PushJob, call: Call) -> PushJob:
    """The job, about a call."""
    return replace(job, peer=call.key.peer, about=call.kind, sid=call.key.sid)


def shared(queued: PushJob, key: ConversationKey | None) -> PushJob:
    """A wake that another one joins, about another conversation perhaps: it is about none where there are two."""
    more = replace(queued, joined=queued.joined + 1)
    return more if queued.conversation == key else replace(more, peer="", about=Kind.CHAT)


def shows(phone: Phone, rank: int) -> bool:
    """True when a filtering device was woken for the message of this rank, so that it may be showing it."""
    return phone.filtering and phone.device.woken_version >= rank


def attentive(device: Device, sessions: Iterable[Session]) -> bool:
    """True when the user sees the message on this device already: its own session is active. Of a device that is
    bound to no session nobody knows which one is its own: any active session counts (DESIGN §3).
    """
    active = {session.resource for session in sessions if session.state is SessionState.ACTIVE}
    return device.bound_to in active if device.bound_to is not None else bool(active)


def next_wake(device: Device, policy: WakePolicy, now: datetime) -> datetime:
    """When the device may be woken next (PUSH §5, first row). Clients with an app server of their own need not ask us
    for news: what they have fetched is not known, and they are told as any server would.
    """
    if device.woken_at is None:
        return now
    unfetched = device.wake_unfetched and device.route is Route.APNS
    return max(now, device.woken_at + (policy.interval if unfetched else policy.coalesce))


def fetched_since(device: Device, job: PushJob) -> bool:
    """True when the device has asked for news after this push left."""
    return device.fetched_at is not None and device.fetched_at >= (job.attempted_at or job.created_at)


def has_left(job: PushJob) -> bool:
    """True for a job whose push left, or may have."""
    return job.state is not JobState.QUEUED and not (job.outcome or "").startswith(SUPPRESSED)


def is_first_ring(job: PushJob, now: datetime) -> bool:
    """True for a push that rings now and was never tried."""
    return job.kind is PushKind.CALL and job.state is JobState.QUEUED and job.attempts == 0 and job.not_before <= now


def ended(job: PushJob, why: str, now: datetime) -> PushJob:
    """The job done without a push, and why: a word of `sync.rules.reasons`."""
    return replace(job, state=JobState.DONE, outcome=SUPPRESSED + why, done_at=now)


def new_job(device: Device, kind: PushKind, version: int, now: datetime, lane: Lane = Lane.MESSAGES) -> PushJob:
    """A job with what is common to all; its id follows from what it is for, so that a retried rule makes the same
    job.
    """
    return PushJob(
        account=device.account,
        job_id=job_id(device, kind, version),
        device_id=device.device_id,
        lane=lane,
        kind=kind,
        version=version,
        peer="",
        created_at=now,
        not_before=now,
        deadline=now,
        queue=device.queue,
    )


def job_id(device: Device, kind: PushKind, version: int, repeat: int = 0) -> str:
    """A UUID (RFC 9562 §5.4 form) out of the account, device, kind, version and repetition: one job each."""
    name = "\0".join((device.account, device.device_id, kind.value, str(version), str(repeat)))
    return str(UUID(bytes=sha256(name.encode()).digest()[:16], version=4))
