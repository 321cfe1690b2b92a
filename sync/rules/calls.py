"""Calls (XEP-0353, XEP-0482, PROTOCOLS §6): the one place where a call's state changes.

A call is keyed by account, peer and session id; only that peer and the account's own devices change it. A call ends
once: whatever comes later changes nothing, and a terminal step that overtakes its propose leaves a closed record that
the propose cannot open. What one member does about a call in a room concerns the others by what `sync.rules.room_calls`
makes of it. `FIRST` says how a call begins, `NEXT` what may become of it; the diagram in docs/state.md is
drawn from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sync.model.call import Call, CallKey, CallState, CallStep
from sync.model.conversation import (
    Change,
    ChangeKind,
    Direction,
    IndexedMessage,
    Kind,
    Status,
    key_of,
)
from sync.model.effect import CallMissed, CallRings, CallSettled, Effect
from sync.model.event import Bounce, CallMessage, MessageEvent
from sync.model.jid import resource
from sync.rules.messages import failed
from sync.rules.view import After, CallPolicy, Decision, Tally, View, ignore, is_own, opened, settled, version_for


class By(StrEnum):
    """Whose doing something is, seen from the call."""

    CALLER = "caller"
    CALLED = "called"
    EITHER = "either"
    ANOTHER = "another member"  # of the room that was called: neither the caller nor the account
    TIME = "time"


class Propose(StrEnum):
    """How a propose meets the account."""

    IN_TIME = "propose"
    LATE = "late propose"
    CROSSED = "propose crossed by a lower id"  # XEP-0353 §5.1


class Turn(StrEnum):
    """What becomes of a call beside its own steps."""

    BOUNCED = "error"  # RFC 6120 §8.3: the propose or the proceed came back
    CROSSED = "crossing propose"  # XEP-0353 §5.1: with the lower id
    CONTINUED = "new propose"  # XEP-0353 §5.2
    OUT = "is up"
    OVER = "end of the invite"  # XEP-0482: taken back by the caller, or nobody is in the call any more
    GONE = "leaving the room"


FIRST: dict[tuple[Direction, Propose], CallState] = {
    (Direction.IN, Propose.IN_TIME): CallState.RINGING,
    (Direction.IN, Propose.LATE): CallState.MISSED,
    (Direction.IN, Propose.CROSSED): CallState.CLOSED,
    (Direction.OUT, Propose.IN_TIME): CallState.OUTGOING,
    (Direction.OUT, Propose.LATE): CallState.OUTGOING,
    (Direction.OUT, Propose.CROSSED): CallState.CLOSED,
}

# (state, whose doing, what) → the state that follows. What is not in the table changes nothing.
NEXT: dict[tuple[CallState, By, CallStep | Turn], CallState] = {
    (CallState.RINGING, By.CALLED, CallStep.PROCEED): CallState.ANSWERED,
    (CallState.RINGING, By.CALLED, CallStep.REJECT): CallState.REJECTED,
    (CallState.RINGING, By.CALLER, CallStep.RETRACT): CallState.MISSED,
    (CallState.RINGING, By.EITHER, CallStep.FINISH): CallState.ENDED,
    (CallState.RINGING, By.EITHER, CallStep.YIELD): CallState.CLOSED,
    (CallState.RINGING, By.CALLED, Turn.CROSSED): CallState.CLOSED,
    (CallState.RINGING, By.TIME, Turn.OUT): CallState.MISSED,
    (CallState.OUTGOING, By.CALLED, CallStep.PROCEED): CallState.ANSWERED,
    (CallState.OUTGOING, By.CALLED, CallStep.REJECT): CallState.CLOSED,
    (CallState.OUTGOING, By.CALLER, CallStep.RETRACT): CallState.ENDED,
    (CallState.OUTGOING, By.EITHER, CallStep.FINISH): CallState.ENDED,
    (CallState.OUTGOING, By.EITHER, CallStep.YIELD): CallState.CLOSED,
    (CallState.OUTGOING, By.CALLED, Turn.CROSSED): CallState.CLOSED,
    (CallState.OUTGOING, By.CALLER, Turn.BOUNCED): CallState.UNDELIVERABLE,
    (CallState.OUTGOING, By.TIME, Turn.OUT): CallState.ENDED,
    (CallState.ANSWERED, By.EITHER, CallStep.FINISH): CallState.ENDED,
    # Between proceed and session-initiate deployed clients hang up with the words of a call that still rings.
    (CallState.ANSWERED, By.CALLER, CallStep.RETRACT): CallState.ENDED,
    (CallState.ANSWERED, By.CALLED, CallStep.REJECT): CallState.ENDED,
    (CallState.ANSWERED, By.CALLED, Turn.BOUNCED): CallState.UNDELIVERABLE,
    (CallState.ANSWERED, By.EITHER, Turn.CONTINUED): CallState.ENDED,
    (CallState.ANSWERED, By.TIME, Turn.OUT): CallState.ENDED,
    (CallState.OUTGOING, By.ANOTHER, CallStep.PROCEED): CallState.ANSWERED,
    (CallState.RINGING, By.ANOTHER, Turn.OVER): CallState.MISSED,
    (CallState.RINGING, By.CALLED, Turn.GONE): CallState.CLOSED,
    (CallState.OUTGOING, By.CALLER, Turn.GONE): CallState.ENDED,
    (CallState.ANSWERED, By.EITHER, Turn.GONE): CallState.ENDED,
}

# What ends the ringing: before its propose it leaves a record that is closed.
TERMINAL = frozenset({CallStep.PROCEED, CallStep.REJECT, CallStep.RETRACT, CallStep.FINISH, CallStep.YIELD})


def following(state: CallState, by: By, what: CallStep | Turn) -> CallState | None:
    """The state that follows, None where nothing does."""
    found = NEXT.get((state, by, what))
    return found if found or by is By.ANOTHER else NEXT.get((state, By.EITHER, what))


@dataclass(frozen=True, slots=True)
class Moment:
    """When a step happened, when it is taken, and how calls ring then."""

    policy: CallPolicy
    at: datetime
    now: datetime


def call_step(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """One step of a call."""
    call = named_call(before, event)
    if call is not None and call.kind is not event.kind:
        return ignore("not-between-two")  # the peer is a room, and that id names a call of all of its members
    if content.step is CallStep.PROPOSE:
        return ignore("known-call") if call else propose(before, content, event, policy, now)
    if call is None:
        return premature(before, content, event, policy, now)
    by = By.CALLER if is_own(event) == call.is_own else By.CALLED
    taker = event.resource if is_own(event) else resource(event.sender)
    state = following(call.state, by, content.step)
    if state is None:
        return ignore("no-transition")
    if call.state is CallState.ANSWERED and content.step is CallStep.REJECT and taker != call.answered_by:
        return ignore("answered-elsewhere")  # two devices at once: the one that answered has the call
    moment = Moment(policy, event.at, now)
    ending = moved(before, call, state, moment, resource=event.resource, taker=taker)
    return as_one([ending, *going_on(after_of(before, ending), call, moment)])


def propose(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """A new call: ringing here, outgoing on the caller's side; with it ends what it crosses, or goes on with."""
    if event.to_self:
        return ignore("call-to-self")
    moment = Moment(policy, min(event.at, now), now)
    how = proposed(before, content, event, moment)
    state = FIRST[event.direction, how]
    ended: list[Decision] = []
    if how is not Propose.CROSSED:
        for rival in crossing(before, event, moment):
            ended.append(
                moved(before, rival, NEXT[rival.state, By.CALLED, Turn.CROSSED], moment, resource=event.resource)
            )
            before = after_of(before, ended[-1])
    former = continued(before, moment) if state is CallState.RINGING else []
    for one in former:
        ended.append(moved(before, one, NEXT[one.state, By.EITHER, Turn.CONTINUED], moment))
        before = after_of(before, ended[-1])
    call = Call(
        key=CallKey(event.account, event.peer, key_of(content.session_id)),
        session_id=content.session_id,
        state=state,
        version=version_for(before, now),
        proposed_at=moment.at,
        rings_until=moment.at + policy.ring,
        caller=event.sender,
        media=content.media,
        continues=former[-1].session_id if former else None,
        archive_id=event.archive_id,
        stanza=event.stanza,
        kind=event.kind,
    )
    return as_one([*ended, recorded(before, call, moment, begun(call, before, event))])


def proposed(before: View, content: CallMessage, event: MessageEvent, moment: Moment) -> Propose:
    """How a propose meets the account. XEP-0353 §5.1: of two that cross the lower id by octets (RFC 4790 §9.3) wins."""
    mine = content.session_id.encode()
    if any(rival.session_id.encode() < mine for rival in crossing(before, event, moment)):
        return Propose.CROSSED
    return Propose.IN_TIME if moment.at + moment.policy.ring > moment.now else Propose.LATE


def crossing(before: View, event: MessageEvent, moment: Moment) -> list[Call]:
    """The calls in the other direction that nobody has answered yet. Only for as long as a call rings: who calls back
    after that, though nobody hung up, does not cross anything.
    """
    waiting = CallState.OUTGOING if event.direction is Direction.IN else CallState.RINGING
    return [call for call in by_age(before.lines) if call.state is waiting and call.rings_until > moment.at]


def continued(before: View, moment: Moment) -> list[Call]:
    """XEP-0353 §5.2: the calls that go on in a new one of the peer: answered, and not over."""
    answered = (call for call in by_age(before.lines) if call.state is CallState.ANSWERED)
    return [call for call in answered if call.over_at is not None and call.over_at > moment.at]


def begun(call: Call, before: View, event: MessageEvent) -> tuple[Effect, ...]:
    """What phones learn of a new call: of one that does not ring, nothing. Whose call the owner has answered a moment
    ago is no stranger.
    """
    if call.state is not CallState.RINGING:
        return ()
    known = is_known(before, event) or call.continues is not None
    return (CallRings(call=call, known=known, sessions=event.sessions),)


def going_on(before: View, call: Call, moment: Moment) -> list[Decision]:
    """XEP-0353 §5.2: a finish with `migrated` names the call in which this one goes on, if the account has it."""
    successors = [one for one in before.lines if one.key != call.key and one.continues is None]
    return [
        recorded(
            before,
            replace(one, continues=call.session_id, version=version_for(before, moment.now)),
            moment,
            (),
            was_ringing=one.state is CallState.RINGING,
        )
        for one in successors
    ]


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
    """RFC 6120 §8.3: something that the account sent came back. The caller cannot be heard, or the answer not."""
    call = named_call(before, event)
    if content.call is None and not (call and call.is_own):
        return failed(before, content, event, now)
    by = By.CALLER if call and call.is_own else By.CALLED
    state = following(call.state, by, Turn.BOUNCED) if call and call.kind is event.kind else None
    if call is None or state is None:
        return ignore("bounce")
    return moved(before, call, state, Moment(policy, event.at, now))


def expired(before: View, call: Call, policy: CallPolicy, now: datetime) -> Decision:
    """Nobody has answered in time, or said in a whole day that the call is over."""
    over_at = call.over_at
    state = following(call.state, By.TIME, Turn.OUT)
    if state is None or over_at is None or over_at > now:
        return ignore("not-expired")
    return moved(before, call, state, Moment(policy, over_at, now))


def moved(
    before: View,
    call: Call,
    state: CallState,
    moment: Moment,
    *,
    resource: str | None = None,
    taker: str | None = None,
) -> Decision:
    """The call in its new state, with what its conversation and the other devices learn. `resource`: the account's
    session concerned; `taker`: that of either party which answers.
    """
    was_ringing = call.state is CallState.RINGING
    answered_by = taker if state is CallState.ANSWERED else call.answered_by
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
        if moment.policy.missed_counts and call.kind is Kind.CHAT:  # members of a room count what is said there
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
        conversation=call.conversation,
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
        conversation=call.conversation,
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


# ---- several calls in one event --------------------------------------------------------------------------------------


def by_age(calls: Sequence[Call]) -> list[Call]:
    """Oldest change first."""
    return sorted(calls, key=lambda call: call.version)


def after_of(before: View, decision: Decision) -> View:
    """What the next decision about the same conversation sees."""
    after = decision.after
    return replace(before, account=after.account, conversation=after.conversation) if after else before


def as_one(decisions: Sequence[Decision]) -> Decision:
    """Decisions about one conversation, each made after the one before, as one; each has a version of its own."""
    afters = [decision.after for decision in decisions if decision.after is not None]
    last = afters[-1]
    return Decision(
        after=After(
            account=last.account,
            conversation=last.conversation,
            messages=tuple(message for after in afters for message in after.messages),
            tallies=tuple(tally for after in afters for tally in after.tallies),
            changes=tuple(change for after in afters for change in after.changes),
            calls=tuple(call for after in afters for call in after.calls),
        ),
        effects=tuple(effect for decision in decisions for effect in decision.effects),
    )
