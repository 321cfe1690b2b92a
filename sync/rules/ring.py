"""Which phones ring for a call, and how those that rang learn that it is over (PUSH §5, the rows of calls).

A phone rings once: by VoIP where it has a token and the caller is no stranger, else by an alert where the app may drop
what need not be shown. `sync.rules.claims` decides again before sending.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.call import Call
from sync.model.conversation import Notify
from sync.model.device import Device, JobState, Lane, PushJob, PushKind, Route
from sync.model.effect import CallMissed, CallRings, CallSettled
from sync.model.jid import bare
from sync.rules.jobs import SUPPRESSED, Case, Phone, about, attentive, ended, fetched_since, new_job
from sync.rules.quiet import held
from sync.rules.reasons import Why

CALL_END_LIFE = timedelta(seconds=60)
MISSED_LIFE = timedelta(days=28)


def ring(effect: CallRings, phone: Phone, case: Case) -> list[PushJob] | Why:
    """A call rings: VoIP to a phone with a VoIP token, an alert to a filtering one without. Never rate-limited."""
    call, device = effect.call, phone.device
    if why := unwelcome(device, case, known=effect.known):
        return why
    if case.hush is not None and not case.hush.calls:
        return Why.QUIET
    if device.bound_to is not None and attentive(device, effect.sessions):
        return Why.ATTENTIVE
    if any(job.voip for job in phone.of_call(call)):
        return Why.RUNG_BEFORE  # the session id of a call that is long forgotten: one VoIP push a call, come what may
    voip = device.rings and (effect.known or case.policy.ring_unknown)
    if not voip and not phone.filtering and device.route is Route.APNS:
        return Why.NO_FILTER  # an app server shows what it likes
    job = of_call(device, call, case.now)
    return [replace(job, voip=voip, silent=not effect.known, collapse=None if voip else "c")]


def unwelcome(device: Device, case: Case, *, known: bool) -> Why | None:
    """Why the owner, or this device, wants no call of this peer."""
    conversation, wishes = case.conversation, device.wishes
    if conversation.notify is Notify.NEVER:
        return Why.NOTIFY_NEVER
    if conversation.muted(case.now) and not case.policy.muted_calls:
        return Why.MUTED
    if bare(conversation.key.peer) in wishes.muted and not case.policy.muted_calls:
        return Why.DEVICE_MUTED
    return Why.IGNORE_UNKNOWN if wishes.ignore_unknown and not known else None


def settle(effect: CallSettled, phone: Phone, now: datetime) -> list[PushJob]:
    """A call was answered, declined or ended: call off what is queued, tell a phone that rings and does not know."""
    call = effect.call
    jobs = called_off(phone, call, now)
    rung = phone.was_rung(call)
    answered_here = phone.device.bound_to is not None and phone.device.bound_to == effect.resource
    if rung is None or answered_here or not phone.filtering or fetched_since(phone.device, rung):
        return jobs
    job = about(new_job(phone.device, PushKind.CALL_END, call.version, now, lane=Lane.CALLS), call)
    return [*jobs, replace(job, collapse="c", deadline=now + CALL_END_LIFE)]


def missed(effect: CallMissed, phone: Phone, case: Case) -> list[PushJob]:
    """Nobody answered: call off what is queued; if something was sent, an alert replaces it, never a second VoIP push.
    A call that did not ring because the account was quiet is told when that ends.
    """
    call, now = effect.call, case.now
    jobs = called_off(phone, call, now)
    why = {job.outcome for job in phone.of_call(call)}
    rung, hushed = phone.was_rung(call), SUPPRESSED + Why.QUIET in why
    if not (rung or hushed) or SUPPRESSED + Why.BLOCKED in why or case.conversation.muted(now):
        return jobs
    job = about(new_job(phone.device, PushKind.MISSED, call.version, now, lane=Lane.CALLS), call)
    job = replace(job, collapse="c", deadline=now + MISSED_LIFE)
    if not rung and case.hush is not None:
        job = held(replace(job, reason=Why.QUIET), case.hush)
    return [*jobs, job]


def of_call(device: Device, call: Call, now: datetime) -> PushJob:
    """The job by which a call rings on a device."""
    return replace(
        about(new_job(device, PushKind.CALL, call.version, now, lane=Lane.CALLS), call), deadline=call.rings_until
    )


def fallback(device: Device, call: Call, due: datetime, now: datetime) -> PushJob:
    """The alert that follows a VoIP push which nobody fetched."""
    job = about(new_job(device, PushKind.CALL_FALLBACK, call.version, now, lane=Lane.CALLS), call)
    return replace(job, collapse="c", not_before=due, deadline=call.rings_until)


def called_off(phone: Phone, call: Call, now: datetime) -> list[PushJob]:
    """The call's queued jobs, ended."""
    return [ended(job, Why.CALL_OVER, now) for job in phone.of_call(call) if job.state is JobState.QUEUED]
