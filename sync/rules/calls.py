"""Calls (XEP-0353, PROTOCOLS §6): the one place where a call's state changes.

A call is keyed by account, peer and session id; only that peer and the account's own devices change it. A call ends
once: whatever comes later changes nothing, and a terminal step that overtakes its propose leaves a closed record that
the propose cannot open.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Change,
    ChangeKind,
    ConversationKey,
    Direction,
    IndexedMessage,
    Status,
    key_of,
)
from sync.model.effect import CallMissed, CallRings, CallSettled, Effect
from sync.model.event import Bounce, CallMessage, CallStep, MessageEvent
from sync.rules.messages import failed
from sync.rules.view import After, CallPolicy, Decision, Tally, View, ignore, is_own, opened, settled, version_for

# (state, who sent the step, step) → the state that follows. What is not in the table changes nothing.
NEXT: dict[tuple[CallState, Direction, CallStep], CallState] = {
    (CallState.RINGING, Direction.OUT, CallStep.PROCEED): CallState.ANSWERED,
    (CallState.RINGING, Direction.OUT, CallStep.REJECT): CallState.REJECTED,
    (CallState.RINGING, Direction.IN, CallStep.RETRACT): CallState.MISSED,
    (CallState.RINGING, Direction.IN, CallStep.FINISH): CallState.ENDED,
    (CallState.RINGING, Direction.OUT, CallStep.FINISH): CallState.ENDED,
    (CallState.OUTGOING, Direction.IN, CallStep.PROCEED): CallState.ANSWERED,
    (CallState.OUTGOING, Direction.IN, CallStep.REJECT): CallState.CLOSED,
    (CallState.OUTGOING, Direction.OUT, CallStep.RETRACT): CallState.ENDED,
    (CallState.OUTGOING, Direction.IN, CallStep.FINISH): CallState.ENDED,
    (CallState.OUTGOING, Direction.OUT, CallStep.FINISH): CallState.ENDED,
    (CallState.ANSWERED, Direction.IN, CallStep.FINISH): CallState.ENDED,
    (CallState.ANSWERED, Direction.OUT, CallStep.FINISH): CallState.ENDED,
}

TERMINAL = frozenset({CallStep.REJECT, CallStep.RETRACT, CallStep.FINISH, CallStep.PROCEED})


@dataclass(frozen=True, slots=True)
class Moment:
    """When a step happened, when it is taken, and how calls ring then."""

    policy: CallPolicy
    at: datetime
    now: datetime


def call_step(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """One step of a call."""
    call = named_call(before, event)
    if content.step is CallStep.PROPOSE:
        return ignore("known-call") if call else propose(before, content, event, policy, now)
    if call is None:
        return premature(before, content, event, policy, now)
    state = NEXT.get((call.state, Direction.OUT if is_own(event) else Direction.IN, content.step))
    if state is None:
        return ignore("no-transition")
    return moved(before, call, state, Moment(policy, event.at, now), resource=event.resource)


def propose(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """A new call: ringing here, outgoing on the caller's side. A propose out of an old backlog no longer rings: it
    was missed.
    """
    if event.to_self:
        return ignore("call-to-self")
    version = version_for(before, now)
    at = min(event.at, now)
    call = Call(
        key=CallKey(event.account, event.peer, key_of(content.session_id)),
        session_id=content.session_id,
        state=CallState.OUTGOING,
        version=version,
        proposed_at=at,
        rings_until=at + policy.ring,
        caller=event.sender,
        media=content.media,
        archive_id=event.archive_id,
        stanza=event.stanza,
    )
    effects: tuple[Effect, ...] = ()
    if event.direction is Direction.IN:
        rings = call.rings_until > now
        call = replace(call, state=CallState.RINGING if rings else CallState.MISSED)
        effects = (
            (CallRings(call=call, known=is_known(before, event), sessions=event.sessions),)
            if rings
            else (CallMissed(call=call),)
        )
    return recorded(before, call, Moment(policy, at, now), effects)


def premature(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """A step of a call that nobody proposed: if it ends the call, the propose that may follow must not ring."""
    if content.step not in TERMINAL or event.to_self:
        return ignore("unknown-call")
    at = min(event.at, now)
    call = Call(
        key=CallKey(event.account, event.peer, key_of(content.session_id)),
        session_id=content.session_id,
        state=CallState.CLOSED,
        version=version_for(before, now),
        proposed_at=at,
        rings_until=at,
        caller=event.sender,
    )
    if before.conversation is None:
        # Nobody may put a conversation into somebody's list by ending a call that never was.
        return Decision(
            after=After(account=replace(before.account, version=call.version), conversation=None, calls=(call,))
        )
    return recorded(before, call, Moment(policy, at, now), ())


def bounced(before: View, content: Bounce, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """RFC 6120 §8.3: the propose came back, or another message."""
    if content.call is None:
        return failed(before, content, event, now)
    call = named_call(before, event)
    if call is None or call.state is not CallState.OUTGOING:
        return ignore("bounce")
    return moved(before, call, CallState.UNDELIVERABLE, Moment(policy, event.at, now))


def expired(before: View, call: Call, policy: CallPolicy, now: datetime) -> Decision:
    """The ring deadline has passed without an answer."""
    if call.state is not CallState.RINGING or call.rings_until > now:
        return ignore("not-expired")
    return moved(before, call, CallState.MISSED, Moment(policy, call.rings_until, now))


def moved(before: View, call: Call, state: CallState, moment: Moment, *, resource: str | None = None) -> Decision:
    """The call in its new state, with what its conversation and the other devices learn."""
    was_ringing = call.state is CallState.RINGING
    answered_by = resource if state is CallState.ANSWERED else call.answered_by
    call = replace(call, state=state, version=version_for(before, moment.now), answered_by=answered_by)
    effects: tuple[Effect, ...] = ()
    if was_ringing:
        effects = (
            (CallMissed(call=call),) if state is CallState.MISSED else (CallSettled(call=call, resource=resource),)
        )
    return recorded(before, call, moment, effects, was_ringing=was_ringing)


def recorded(
    before: View, call: Call, moment: Moment, effects: tuple[Effect, ...], *, was_ringing: bool = False
) -> Decision:
    """The call stored, and its conversation bumped; a missed call moves the conversation to the top, and is unread
    where the operator wants that.
    """
    at = min(moment.at, moment.now)
    conversation = opened(before, call.version, at)
    rings = call.state is CallState.RINGING
    conversation = replace(conversation, version=call.version, ringing=conversation.ringing + rings - was_ringing)
    if conversation.status is Status.DELETED and (rings or call.state is CallState.MISSED):
        conversation = replace(conversation, status=Status.ACTIVE)
    if call.state is CallState.OUTGOING:
        conversation = replace(conversation, written=True)
    entry: IndexedMessage | None = None
    if call.state is CallState.MISSED:
        conversation = replace(conversation, activity_at=max(conversation.activity_at, at))
        if moment.policy.missed_counts:
            entry = missed_entry(call, at)
            conversation = replace(conversation, unread=conversation.unread + 1)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(entry,) if entry else (),
        tallies=(Tally(call.version, 1, 0),) if entry else (),
        changes=() if call.state.is_open else (ending(call),),
        calls=(call,),
    )
    return Decision(after=after, effects=effects)


def missed_entry(call: Call, at: datetime) -> IndexedMessage:
    """A missed call among the messages: unread until a marker names it (by the propose's archive id or the session id)
    or something behind it.
    """
    return IndexedMessage(
        conversation=ConversationKey(call.key.account, call.key.peer),
        rank=call.version,
        direction=Direction.IN,
        sent_at=at,
        counted=True,
        message_key=call.key.sid,
        archive_key=key_of(call.archive_id) if call.archive_id else None,
        archive_id=call.archive_id,
    )


def ending(call: Call) -> Change:
    """The change log's entry for a call that is over."""
    return Change(
        conversation=ConversationKey(call.key.account, call.key.peer),
        version=call.version,
        kind=ChangeKind.CALL_ENDED,
        target_rank=0,
        target_id=call.session_id,
        detail=call.state.value,
    )


def is_known(before: View, event: MessageEvent) -> bool:
    """PUSH §5: strangers may not make a phone ring. Whom the owner has in the roster, or has written to, is none."""
    return event.known or (before.conversation is not None and before.conversation.written)


def named_call(before: View, event: MessageEvent) -> Call | None:
    """The call that a step is about: of this peer.

    XEP-0353 before 0.8.0 told the account's other devices of an answer by a message to its own bare JID: such a step
    names a call by its session id alone, and only a ringing one.
    """
    if event.to_self:
        return next((call for call in before.calls if call.state is CallState.RINGING), None)
    return next((call for call in before.calls if call.key.peer == event.peer), None)
