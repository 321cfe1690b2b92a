"""Which phones are woken for what (PUSH §5), decided when something happened. Calls are in `sync.rules.ring`;
`sync.rules.claims` decides again before sending.

Effects of one event and the account's devices go in, jobs come out: new ones, queued ones that now announce a newer
version, and queued ones that are called off. A device has at most one queued wake, so that a burst of messages is one
push.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

from sync.model.conversation import Kind, Notify
from sync.model.device import Lane, PushJob, PushKind
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
from sync.model.jid import bare
from sync.rules.jobs import Case, Phone, attentive, ended, new_job, next_wake, of, shared, shows
from sync.rules.quiet import held
from sync.rules.reasons import Why
from sync.rules.ring import missed, of_call, ring, settle
from sync.rules.wishes import unwanted

# How long a push may wait at the vendor (PUSH §5, column "exp").
MESSAGE_LIFE = timedelta(days=28)
STRANGER_LIFE = timedelta(days=7)
UPDATE_LIFE = timedelta(days=1)
WITHDRAW_LIFE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Jobs to store, and why devices were left alone (fixed words, for the metrics)."""

    jobs: tuple[PushJob, ...] = ()
    suppressed: tuple[Why, ...] = ()


def plan(effect: Effect, phones: Iterable[Phone], case: Case) -> Plan:
    """The jobs that one effect makes, changes or calls off. Why a phone does not ring is in the ledger, too: nobody
    forgives that without a reason.
    """
    jobs: list[PushJob] = []
    suppressed: list[Why] = []
    for phone in phones:
        found = for_phone(effect, phone, case)
        if isinstance(found, Why):
            suppressed.append(found)
            if isinstance(effect, CallRings):
                jobs.append(ended(of_call(phone.device, effect.call, case.now), found, case.now))
        else:
            jobs.extend(found)
    return Plan(jobs=tuple(jobs), suppressed=tuple(suppressed))


def for_phone(effect: Effect, phone: Phone, case: Case) -> list[PushJob] | Why:
    """Jobs for one device, or why there are none."""
    match effect:
        case MessageArrived():
            return message(effect, phone, case)
        case MessageCorrected():
            return correct(effect, phone, case)
        case MessageWithdrawn():
            return withdraw(effect, phone, case)
        case MessageReacted():
            return reacted(effect, phone, case)
        case ReadElsewhere():
            return read_elsewhere(effect, phone, case)
        case Invited() | SubscriptionRequested():
            return asked(effect, phone, case)
        case CallRings():
            return ring(effect, phone, case)
        case CallSettled():
            return settle(effect, phone, case.now)
        case CallMissed():
            return missed(effect, phone, case)
        case _:
            assert_never(effect)


def message(effect: MessageArrived, phone: Phone, case: Case) -> list[PushJob] | Why:
    """A message to read: wake at once, or soon after the last wake; further messages join the queued wake."""
    device, now = phone.device, case.now
    why = unwanted(
        case.conversation,
        case.policy,
        now,
        mention=effect.mention,
        wishes=device.wishes,
        filtering=phone.filtering,
    )
    if why is not None:
        return why
    if device.wishes.ignore_unknown and not effect.known:
        return Why.IGNORE_UNKNOWN
    if attentive(device, effect.sessions):
        return Why.ATTENTIVE
    due, life = next_wake(device, case.policy, now), life_of(effect, case)
    queued = phone.queued(PushKind.MESSAGE)
    if queued is not None:
        joined = replace(
            shared(queued, case.conversation.key),
            version=effect.version,
            silent=queued.silent and not effect.known,
            collapse="w" if effect.known else queued.collapse,
            # What the vendor refused waits for its time (PUSH §2: back off, keep only the newest wake).
            not_before=queued.not_before if queued.attempts else min(queued.not_before, due),
            deadline=max(queued.deadline, now + life),
            repeat=0,
        )
        return [held(joined, case.hush)]
    job = of(new_job(device, PushKind.MESSAGE, effect.version, now), case.conversation.key)
    collapse = "w" if effect.known else "u"
    job = replace(job, silent=not effect.known, collapse=collapse, not_before=due, deadline=now + life)
    return [held(job, case.hush)]


def life_of(effect: MessageArrived, case: Case) -> timedelta:
    """How long the vendor keeps a message's wake."""
    if case.conversation.key.kind is Kind.GROUP and not effect.mention:
        return UPDATE_LIFE
    return MESSAGE_LIFE if effect.known else STRANGER_LIFE


def asked(effect: Invited | SubscriptionRequested, phone: Phone, case: Case) -> list[PushJob] | Why:
    """Somebody asks the user into a room, or to see its presence. Strangers do so without sound."""
    device, conversation, now = phone.device, case.conversation, case.now
    if conversation.muted(now):
        return Why.MUTED
    if conversation.notify is Notify.NEVER:
        return Why.NOTIFY_NEVER
    invitation = isinstance(effect, Invited)
    if {bare(conversation.key.peer), bare(conversation.invited_by or "")} & device.wishes.muted:
        return Why.DEVICE_MUTED
    if device.wishes.ignore_unknown and not effect.known:
        return Why.IGNORE_UNKNOWN
    if attentive(device, effect.sessions):
        return Why.ATTENTIVE
    kind = PushKind.INVITED if invitation else PushKind.SUBSCRIPTION
    # Who asks to see somebody's presence is a stranger mostly, and is heard all the same: once a day.
    silent = invitation and not effect.known
    due, deadline = next_wake(device, case.policy, now), now + MESSAGE_LIFE
    queued = phone.queued(kind)
    if queued is not None:
        return [replace(shared(queued, conversation.key), version=effect.version, silent=queued.silent and silent)]
    job = of(new_job(device, kind, effect.version, now), conversation.key)
    job = replace(job, silent=silent, collapse="w" if invitation else "s", not_before=due, deadline=deadline)
    return [held(job, case.hush)]


def reacted(effect: MessageReacted, phone: Phone, case: Case) -> list[PushJob] | Why:
    """A reaction to the user's own message, where the operator wants that, to apps that need not show it."""
    conversation = case.conversation
    if not case.policy.reactions:
        return Why.REACTIONS_OFF
    if not phone.filtering:
        return Why.SHOWS_ALL
    if conversation.muted(case.now):
        return Why.MUTED
    if conversation.notify is Notify.NEVER:
        return Why.NOTIFY_NEVER
    if bare(conversation.key.peer) in phone.device.wishes.muted:
        return Why.DEVICE_MUTED
    if attentive(phone.device, effect.sessions):
        return Why.ATTENTIVE
    job = new_job(phone.device, PushKind.REACTED, effect.version, case.now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.version, case)


def correct(effect: MessageCorrected, phone: Phone, case: Case) -> list[PushJob] | Why:
    """A correction of an unread message that the phone may be showing."""
    if case.conversation.muted(case.now):
        return Why.MUTED
    if not shows(phone, effect.target_rank):
        return Why.NOT_SHOWN
    if bare(case.conversation.key.peer) in phone.device.wishes.muted:
        return Why.DEVICE_MUTED
    if attentive(phone.device, effect.sessions):
        return Why.ATTENTIVE
    job = new_job(phone.device, PushKind.CORRECTED, effect.version, case.now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.target_rank, case)


def withdraw(effect: MessageWithdrawn, phone: Phone, case: Case) -> list[PushJob] | Why:
    """A retraction of a message that the phone may be showing."""
    if not shows(phone, effect.target_rank):
        return Why.NOT_SHOWN
    job = new_job(phone.device, PushKind.WITHDRAW, effect.version, case.now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.target_rank, case)


def read_elsewhere(effect: ReadElsewhere, phone: Phone, case: Case) -> list[PushJob] | Why:
    """The owner read on another device what this phone may be showing."""
    if phone.device.bound_to is not None and phone.device.bound_to == effect.resource:
        return Why.OWN_DEVICE
    if not shows(phone, effect.first_rank):
        return Why.NOT_SHOWN
    job = new_job(phone.device, PushKind.READ, effect.version, case.now, lane=Lane.UPDATES)
    return update(phone, of(job, effect.conversation), effect.first_rank, case)


LIFE = {
    PushKind.CORRECTED: UPDATE_LIFE,
    PushKind.WITHDRAW: WITHDRAW_LIFE,
    PushKind.READ: UPDATE_LIFE,
    PushKind.REACTED: UPDATE_LIFE,
}


def update(phone: Phone, job: PushJob, rank: int, case: Case) -> list[PushJob]:
    """A wake about something that the phone shows: one queued job of its kind, announcing the newest version."""
    queued = phone.queued(job.kind)
    if queued is not None:
        newest = max(rank, queued.target_rank or rank)
        return [replace(shared(queued, job.conversation), version=job.version, target_rank=newest)]
    due = next_wake(phone.device, case.policy, case.now)
    job = replace(job, collapse="w", target_rank=rank, not_before=due, deadline=case.now + LIFE[job.kind])
    return [held(job, case.hush)]
