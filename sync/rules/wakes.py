"""Which phones are woken for what (PUSH §5), decided when something happened. `sync.rules.claims` decides again
before sending.

Effects of one event and the account's devices go in, jobs come out: new ones, queued ones that now announce a newer
version, and queued ones that are called off. A device has at most one queued wake, so that a burst of messages is one
push.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import assert_never
from uuid import UUID

from sync.model.call import Call
from sync.model.conversation import Conversation, ConversationKey, Kind, Notify
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.effect import (
    CallMissed,
    CallRings,
    CallSettled,
    Effect,
    Invited,
    MessageArrived,
    MessageCorrected,
    MessageReacted,
    MessageWithdrawn,
    ReadElsewhere,
    SubscriptionRequested,
)
from sync.model.event import Session, SessionState
from sync.rules.wishes import WakePolicy, unwanted

# How long a push may wait at the vendor (PUSH §5, column "exp").
MESSAGE_LIFE = timedelta(days=28)
STRANGER_LIFE = timedelta(days=7)
UPDATE_LIFE = timedelta(days=1)
WITHDRAW_LIFE = timedelta(days=7)
CALL_END_LIFE = timedelta(seconds=60)

CALL_KINDS = frozenset({PushKind.CALL, PushKind.CALL_FALLBACK})
SUPPRESSED = "suppressed:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Jobs to store, and why devices were left alone (fixed words, for the metrics)."""

    jobs: tuple[PushJob, ...] = ()
    suppressed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One enabled device and its jobs: those that are open, and those of the call in question."""

    device: Device
    filtering: bool
    jobs: Sequence[PushJob] = field(default=())

    def queued(self, kind: PushKind) -> PushJob | None:
        """Its queued job of this kind that is about no call."""
        return next((job for job in self.jobs if job.state is JobState.QUEUED and job.kind is kind), None)

    def of_call(self, call: Call) -> list[PushJob]:
        """Its jobs for this call."""
        return [job for job in self.jobs if job.sid == call.key.sid and job.peer == call.key.peer]

    def was_rung(self, call: Call) -> PushJob | None:
        """The job by which something about this call left for it, if any did."""
        return next((job for job in self.of_call(call) if job.kind in CALL_KINDS and has_left(job)), None)


def plan(
    effect: Effect, conversation: Conversation, phones: Iterable[Phone], policy: WakePolicy, now: datetime
) -> Plan:
    """The jobs that one effect makes, changes or calls off. Why a phone does not ring is in the ledger, too: nobody
    forgives that without a reason.
    """
    jobs: list[PushJob] = []
    suppressed: list[str] = []
    for phone in phones:
        found = for_phone(effect, conversation, phone, policy, now)
        if isinstance(found, str):
            suppressed.append(found)
            if isinstance(effect, CallRings):
                jobs.append(ended(of_call(phone.device, effect.call, now), found, now))
        else:
            jobs.extend(found)
    return Plan(jobs=tuple(jobs), suppressed=tuple(suppressed))


def for_phone(
    effect: Effect, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """Jobs for one device, or why there are none."""
    match effect:
        case MessageArrived():
            return message(effect, conversation, phone, policy, now)
        case MessageCorrected():
            return correct(effect, conversation, phone, policy, now)
        case MessageWithdrawn():
            return withdraw(effect, phone, policy, now)
        case MessageReacted():
            return reacted(effect, conversation, phone, policy, now)
        case ReadElsewhere():
            return read_elsewhere(effect, phone, policy, now)
        case Invited() | SubscriptionRequested():
            return asked(effect, conversation, phone, policy, now)
        case CallRings():
            return ring(effect, conversation, phone, policy, now)
        case CallSettled():
            return settle(effect, phone, now)
        case CallMissed():
            return missed(effect, conversation, phone, now)
        case _:
            assert_never(effect)


def message(
    effect: MessageArrived, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """A message to read: wake at once, or soon after the last wake; further messages join the queued wake."""
    if why := unwanted(conversation, policy, now, mention=effect.mention):
        return why
    if attentive(phone.device, effect.sessions):
        return "attentive"
    due = next_wake(phone.device, policy, now)
    life = life_of(effect, conversation)
    queued = phone.queued(PushKind.MESSAGE)
    if queued is not None:
        joined = replace(
            shared(queued, conversation.key),
            version=effect.version,
            silent=queued.silent and not effect.known,
            collapse="w" if effect.known else queued.collapse,
            # What the vendor refused waits for its time (PUSH §2: back off, keep only the newest wake).
            not_before=queued.not_before if queued.attempts else min(queued.not_before, due),
            deadline=max(queued.deadline, now + life),
            repeat=0,
        )
        return [joined]
    job = new_job(phone.device, PushKind.MESSAGE, effect.version, now)
    return [
        replace(
            of(job, conversation.key),
            silent=not effect.known,
            collapse="w" if effect.known else "u",
            not_before=due,
            deadline=now + life,
        )
    ]


def life_of(effect: MessageArrived, conversation: Conversation) -> timedelta:
    """How long the vendor keeps a message's wake."""
    if conversation.key.kind is Kind.GROUP and not effect.mention:
        return UPDATE_LIFE
    return MESSAGE_LIFE if effect.known else STRANGER_LIFE


def asked(
    effect: Invited | SubscriptionRequested, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """Somebody asks the user into a room, or to see its presence. Strangers do so without sound."""
    if conversation.muted(now):
        return "muted"
    if attentive(phone.device, effect.sessions):
        return "attentive"
    invitation = isinstance(effect, Invited)
    kind = PushKind.INVITED if invitation else PushKind.SUBSCRIPTION
    silent = isinstance(effect, Invited) and not effect.known
    due, deadline = next_wake(phone.device, policy, now), now + MESSAGE_LIFE
    queued = phone.queued(kind)
    if queued is not None:
        return [replace(shared(queued, conversation.key), version=effect.version, silent=queued.silent and silent)]
    job = of(new_job(phone.device, kind, effect.version, now), conversation.key)
    return [replace(job, silent=silent, collapse="w" if invitation else "s", not_before=due, deadline=deadline)]


def reacted(
    effect: MessageReacted, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """A reaction to the user's own message, where the operator wants that."""
    if not policy.reactions:
        return "reactions-off"
    if conversation.muted(now) or conversation.notify is Notify.NEVER:
        return "muted"
    if attentive(phone.device, effect.sessions):
        return "attentive"
    job = new_job(phone.device, PushKind.REACTED, effect.version, now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.version, policy, now)


def correct(
    effect: MessageCorrected, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """A correction of an unread message that the phone may be showing."""
    if conversation.muted(now):
        return "muted"
    if not shows(phone, effect.target_rank):
        return "not-shown"
    if attentive(phone.device, effect.sessions):
        return "attentive"
    job = new_job(phone.device, PushKind.CORRECTED, effect.version, now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.target_rank, policy, now)


def withdraw(effect: MessageWithdrawn, phone: Phone, policy: WakePolicy, now: datetime) -> list[PushJob] | str:
    """A retraction of a message that the phone may be showing."""
    if not shows(phone, effect.target_rank):
        return "not-shown"
    job = new_job(phone.device, PushKind.WITHDRAW, effect.version, now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.target_rank, policy, now)


def read_elsewhere(effect: ReadElsewhere, phone: Phone, policy: WakePolicy, now: datetime) -> list[PushJob] | str:
    """The owner read on another device what this phone may be showing."""
    if phone.device.bound_to is not None and phone.device.bound_to == effect.resource:
        return "own-device"
    if not shows(phone, effect.first_rank):
        return "not-shown"
    job = new_job(phone.device, PushKind.READ, effect.version, now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.first_rank, policy, now)


def ring(
    effect: CallRings, conversation: Conversation, phone: Phone, policy: WakePolicy, now: datetime
) -> list[PushJob] | str:
    """A call rings: VoIP to a phone with a VoIP token, an alert to a filtering one without. Never rate-limited."""
    call, device = effect.call, phone.device
    if conversation.notify is Notify.NEVER:
        return "notify-never"
    if conversation.muted(now) and not policy.muted_calls:
        return "muted"
    if device.bound_to is not None and attentive(device, effect.sessions):
        return "attentive"
    if any(job.voip for job in phone.of_call(call)):
        return "rung-before"  # the session id of a call that is long forgotten: one VoIP push a call, whatever happens
    voip = device.voip_token is not None and (effect.known or policy.ring_unknown)
    if not voip and not phone.filtering:
        return "no-filter"
    job = of_call(device, call, now)
    return [replace(job, voip=voip, silent=not effect.known, collapse=None if voip else "c")]


def settle(effect: CallSettled, phone: Phone, now: datetime) -> list[PushJob] | str:
    """A call was answered, declined or ended: call off what is queued, tell a phone that rings and does not know."""
    call = effect.call
    jobs = called_off(phone, call, now)
    rung = phone.was_rung(call)
    answered_here = phone.device.bound_to is not None and phone.device.bound_to == effect.resource
    if rung is None or answered_here or not phone.filtering or fetched_since(phone.device, rung):
        return jobs
    job = new_job(phone.device, PushKind.CALL_END, call.version, now, lane=Lane.CALLS)
    job = replace(job, peer=call.key.peer, sid=call.key.sid, collapse="c", deadline=now + CALL_END_LIFE)
    return [*jobs, job]


def missed(effect: CallMissed, conversation: Conversation, phone: Phone, now: datetime) -> list[PushJob] | str:
    """Nobody answered: call off what is queued; if something was sent, an alert replaces it. Never a second VoIP
    push.
    """
    call = effect.call
    jobs = called_off(phone, call, now)
    if phone.was_rung(call) is None or conversation.muted(now):
        return jobs
    job = new_job(phone.device, PushKind.MISSED, call.version, now, lane=Lane.CALLS)
    job = replace(job, peer=call.key.peer, sid=call.key.sid, collapse="c", deadline=now + MESSAGE_LIFE)
    return [*jobs, job]


# ---- what the rows above share ---------------------------------------------------------------------------------------


LIFE = {
    PushKind.CORRECTED: UPDATE_LIFE,
    PushKind.WITHDRAW: WITHDRAW_LIFE,
    PushKind.READ: UPDATE_LIFE,
    PushKind.REACTED: UPDATE_LIFE,
}


def update(phone: Phone, job: PushJob, rank: int, policy: WakePolicy, now: datetime) -> list[PushJob]:
    """A wake about something that the phone shows: one queued job of its kind, announcing the newest version."""
    queued = phone.queued(job.kind)
    if queued is not None:
        newest = max(rank, queued.target_rank or rank)
        return [replace(shared(queued, job.conversation), version=job.version, target_rank=newest)]
    due = next_wake(phone.device, policy, now)
    return [replace(job, collapse="w", target_rank=rank, not_before=due, deadline=now + LIFE[job.kind])]


def of_call(device: Device, call: Call, now: datetime) -> PushJob:
    """The job by which a call rings on a device."""
    job = new_job(device, PushKind.CALL, call.version, now, lane=Lane.CALLS)
    return replace(job, peer=call.key.peer, sid=call.key.sid, deadline=call.rings_until)


def of(job: PushJob, key: ConversationKey) -> PushJob:
    """The job, about a conversation."""
    return replace(job, peer=key.peer, group=key.kind is Kind.GROUP)


def shared(queued: PushJob, key: ConversationKey | None) -> PushJob:
    """A wake that another one joins, about another conversation perhaps: it is about none where there are two."""
    more = replace(queued, joined=queued.joined + 1)
    return more if queued.conversation == key else replace(more, peer="", group=False)


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
    """When the device may be woken next (PUSH §5, first row)."""
    if device.woken_at is None:
        return now
    return max(now, device.woken_at + (policy.interval if device.wake_unfetched else policy.coalesce))


def fetched_since(device: Device, job: PushJob) -> bool:
    """True when the device has asked for news after this push left."""
    return device.fetched_at is not None and device.fetched_at >= (job.attempted_at or job.created_at)


def has_left(job: PushJob) -> bool:
    """True for a job whose push left, or may have."""
    return job.state is not JobState.QUEUED and not (job.outcome or "").startswith(SUPPRESSED)


def called_off(phone: Phone, call: Call, now: datetime) -> list[PushJob]:
    """The call's queued jobs, ended."""
    return [ended(job, "call-over", now) for job in phone.of_call(call) if job.state is JobState.QUEUED]


def ended(job: PushJob, why: str, now: datetime) -> PushJob:
    """The job done without a push, and why."""
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
