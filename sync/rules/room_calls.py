"""Calls into rooms (XEP-0482): what a step that somebody took there does to one member's record of the call.

Each member has a record of its own, which changes by the tables of `sync.rules.calls`: its own accept, reject and left
are the called party's. What others do concerns it in two ways only: the first who comes answers the caller, and an
invite that is over for all has been missed by whom it still rings for. Of rooms of this server `sync.rules.rooms` says
when that is; of others only the caller's retract does, since who is in a call there is not remembered.
"""

from dataclasses import replace
from datetime import datetime

from sync.model.call import Call, CallState, CallStep
from sync.model.conversation import Conversation, Direction, IndexedMessage, Kind, Pointer
from sync.model.event import CallMessage, FeedPosition, MessageEvent
from sync.model.jid import domain, resource
from sync.model.room import RoomEntry, RoomMember
from sync.rules.calls import By, Moment, Turn, after_of, as_one, by_age, following, moved, propose
from sync.rules.index import indexed, is_duplicate, named
from sync.rules.view import After, CallPolicy, Decision, View, ignore, is_own, opened, settled, version_for, wrote


def told(before: View, member: RoomMember, entry: RoomEntry, policy: CallPolicy, now: datetime) -> Decision:
    """An entry of kind call, to one member. `before.calls`: the member's record, if there is one."""
    event, content = seen(member, entry)
    if content.step is CallStep.PROPOSE:
        if before.calls:
            return ignore("known-call")
        # What was said before the first entry that the member takes is not unread.
        conversation = before.conversation or Conversation(
            key=before.key, version=version_for(before, now), activity_at=entry.at, read=Pointer(entry.rank - 1)
        )
        return propose(having(before, conversation, entry), content, event, policy, now)
    if before.conversation is None or not before.calls or before.calls[0].kind is not Kind.GROUP:
        return ignore("unknown-call")
    before, moment = having(before, before.conversation, entry), Moment(policy, min(event.at, now), now)
    return stepped(before, before.calls[0], event, content.step, moment, over=entry.everybody)


def having(before: View, conversation: Conversation, entry: RoomEntry) -> View:
    """The view with the entry taken."""
    return replace(before, conversation=replace(conversation, taken=entry.rank, private=entry.private))


def seen(member: RoomMember, entry: RoomEntry) -> tuple[MessageEvent, CallMessage]:
    """The entry as a session of the member would have sent or received it."""
    mine = entry.author == member.account
    content = CallMessage(entry.step or CallStep.RINGING, entry.target_id or "", entry.media)
    event = MessageEvent(
        position=FeedPosition(domain(entry.room), "", "", entry.rank),
        account=member.account,
        at=entry.at,
        direction=Direction.OUT if mine else Direction.IN,
        peer=entry.room,
        sender=member.account if mine else entry.sender or entry.room,
        content=content,
        stanza=entry.stanza or "",
        kind=Kind.GROUP,
        archive_id=entry.archive_id,
        author=entry.author,
        known=True,  # who belongs to a room knows it
    )
    return event, content


def stepped(before: View, call: Call, event: MessageEvent, step: CallStep, moment: Moment, *, over: bool) -> Decision:
    """What somebody's step does to the account's record. `over`: nobody can come any more who has not."""
    mine = is_own(event)
    if mine and step is CallStep.REJECT and call.state is CallState.ANSWERED:
        return ignore("answered-elsewhere")  # by another device of the account: who leaves a call says so
    by = By.ANOTHER if not mine else By.CALLER if call.is_own else By.CALLED
    state = following(call.state, by, Turn.OVER if over and not mine else step)
    if state is None:
        return ignore("no-transition")
    return moved(before, call, state, moment, taker=None if mine else resource(event.sender))


def left(before: View, entry: RoomEntry, policy: CallPolicy, now: datetime) -> list[Decision]:
    """The member belongs to the room no more: nothing rings there for it. `before.calls`: all that it has there."""
    moment, ended = Moment(policy, min(entry.at, now), now), list[Decision]()
    for call in by_age(before.calls):
        state = following(call.state, By.CALLER if call.is_own else By.CALLED, Turn.GONE)
        if state is not None:
            ended.append(moved(before, call, state, moment))
            before = after_of(before, ended[-1])
    return ended


# ---- rooms of other servers -----------------------------------------------------------------------------------------


def abroad(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """A step in a room of another server, as a session of the account received it. Invites stay in the index, where the
    steps that follow find them by any id; so does what the account said, or its note would lie open to whoever repeats
    it.
    """
    if is_duplicate(before, event):
        return ignore("duplicate")
    mine = is_own(event)
    if mine:
        event = replace(event, sender=event.account)
    if content.step is CallStep.PROPOSE:
        if any(call.key.peer == event.peer for call in before.calls):
            return ignore("known-call")
        content = replace(content, session_id=event.archive_id or content.session_id)
        kept = noted(before, event, now)
        known = replace(event, known=True)  # who is in a room knows it
        return as_one([kept, propose(after_of(before, kept), content, known, policy, now)])
    decisions = [noted(before, event, now)] if mine else []
    found = answer(after_of(before, decisions[0]) if mine else before, content, event, policy, now)
    return as_one([*decisions, found]) if decisions and found.after else decisions[0] if decisions else found


def answer(before: View, content: CallMessage, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """A step about an invite that is known."""
    target = named(before, content.session_id)
    sid = target and (target.archive_key or target.origin_key or target.message_key)
    call = next((call for call in before.lines if call.key.sid == sid), None)
    if target is None or call is None:
        return ignore("unknown-call")
    withdrawn = content.step is CallStep.RETRACT
    if withdrawn and not wrote(target, event):
        return ignore("not-the-caller")
    return stepped(before, call, event, content.step, Moment(policy, min(event.at, now), now), over=withdrawn)


def noted(before: View, event: MessageEvent, now: datetime) -> Decision:
    """The message in the index: it counts for nothing."""
    version, at = version_for(before, now), min(event.at, now)
    row: IndexedMessage = indexed(event, version, at, counted=False)
    conversation = replace(opened(before, version, at), version=version)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation, messages=(row,)))
