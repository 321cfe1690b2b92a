"""Messages and what is done to them afterwards: bodies, corrections, retractions, moderation, reactions, errors
(PROTOCOLS §5). What each does to its conversation.

Only a message's own sender changes it (XEP-0308 §4, XEP-0424 §4), or in rooms a moderator. What names nothing known
is ignored and counted. The messages of rooms that this server keeps are decided in `sync.rules.rooms`.
"""

from datetime import datetime

from sync.model.conversation import (
    ChangeKind,
    Conversation,
    Direction,
    IndexedMessage,
    LastMessage,
    Pointer,
    Status,
    key_of,
)
from sync.model.copies import replace
from sync.model.effect import Effect, MessageArrived, MessageCorrected, MessageReacted, MessageWithdrawn
from sync.model.event import Body, Bounce, Correction, MessageEvent, Moderation, Reaction, Retraction
from sync.rules.index import (
    change,
    changing,
    envelope,
    indexed,
    is_duplicate,
    named,
    own_message,
    text_of,
)
from sync.rules.mentions import mentions_owner
from sync.rules.view import (
    NOTHING_BEHIND,
    After,
    Conduct,
    Decision,
    Tally,
    View,
    counts,
    ignore,
    is_own,
    opened,
    rank_of,
    read_up_to,
    settled,
    version_for,
)


def body(before: View, content: Body, event: MessageEvent, conduct: Conduct, now: datetime) -> Decision:
    """A message to read: last message, order, unread; reopens what was archived or deleted."""
    if is_duplicate(before, event):
        return ignore("duplicate")
    version = version_for(before, now)
    rank = rank_of(event, version)
    at = min(event.at, now)
    incoming = not is_own(event)
    conversation = opened(before, version, at)
    mention = incoming and mentions_owner(before, content, conversation)
    counted = incoming and counts(conversation, rank)
    last = LastMessage(
        rank=rank,
        stanza=text_of(event) or envelope(event),
        message_id=event.message_id,
        archive_id=event.archive_id,
        sent_at=at,
    )
    conversation = replace(
        conversation,
        version=version,
        activity_at=max(conversation.activity_at, at),
        # Whoever put the conversation away later than it was sent knew of it, or need not.
        status=reopened(conversation, now) if rank > conversation.version else conversation.status,
        unread=conversation.unread + counted,
        mentions=conversation.mentions + (mention and counted),
        written=conversation.written or event.direction is Direction.OUT,
        invited_by=None,  # only who is in a room hears it
        last=last if conversation.last is None or rank > conversation.last.rank else conversation.last,
    )
    if not incoming and conduct.sending_reads and event.rank is None:
        conversation = read_up_to(conversation, Pointer(version, event.archive_id), NOTHING_BEHIND)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(indexed(event, rank, at, counted=incoming, mention=mention),),
        tallies=(Tally(rank, 1, mention),) if counted else (),
    )
    if not incoming:
        return Decision(after=after)
    known = event.known or conversation.written
    arrived = MessageArrived(
        conversation=before.key, version=version, known=known, sessions=event.sessions, mention=mention
    )
    return Decision(after=after, effects=(arrived,))


def correction(before: View, content: Correction, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0308: a new text for an old message. Never moves the conversation, never counts."""
    if is_duplicate(before, event):
        return ignore("duplicate")
    target = own_message(before, content.target, event)
    conversation = before.conversation
    if target is None or conversation is None:
        return ignore("unknown-target")
    if target.retracted is not None:
        return ignore("retracted-target")
    version = version_for(before, now)
    # XEP-0308 §3: the payload of the newest correction stands for the message.
    if conversation.last and conversation.last.rank == target.rank:
        corrected = replace(conversation.last, stanza=text_of(event) or envelope(event))
        conversation = replace(conversation, last=corrected)
    conversation = replace(conversation, version=version, rewritten=version)
    entry = change(before, version, ChangeKind.CORRECTED, target, content.target)
    effects: tuple[Effect, ...] = ()
    if target.counted and counts(conversation, target.rank):
        effects = (
            MessageCorrected(
                conversation=before.key, version=version, target_rank=target.rank, sessions=event.sessions
            ),
        )
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(changing(event, rank_of(event, version), min(event.at, now), target),),
        changes=(replace(entry, stanza=text_of(event)),),
    )
    return Decision(after=after, effects=effects)


def retraction(before: View, content: Retraction, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0424: the sender takes a message back."""
    target = own_message(before, content.target, event)
    return withdrawn(before, ChangeKind.RETRACTED, target, event, now)


def moderation(before: View, content: Moderation, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0425: the room takes somebody's message back. Only the room itself says so (§4)."""
    if event.sender != event.peer:
        return ignore("not-the-room")
    return withdrawn(before, ChangeKind.MODERATED, named(before, content.target), event, now)


def withdrawn(
    before: View, kind: ChangeKind, target: IndexedMessage | None, event: MessageEvent, now: datetime
) -> Decision:
    """The message is gone. Its text leaves the preview and the change log too."""
    conversation = before.conversation
    if target is None or conversation is None:
        return ignore("unknown-target")
    if target.retracted is not None:
        return ignore("duplicate")
    version = version_for(before, now)
    rank = rank_of(event, version)
    was_unread = target.counted and counts(conversation, target.rank)
    if conversation.last and conversation.last.rank == target.rank:
        conversation = replace(conversation, last=replace(conversation.last, stanza=envelope(event), retracted=True))
    conversation = replace(
        conversation,
        version=version,
        rewritten=version,
        unread=conversation.unread - was_unread,
        mentions=conversation.mentions - (was_unread and target.mention),
    )
    claimed = event.content.target if isinstance(event.content, Retraction | Moderation) else ""
    entry = change(before, version, kind, target, claimed)
    if isinstance(event.content, Moderation):
        entry = replace(entry, author=event.content.by)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(replace(target, retracted=rank), changing(event, rank, min(event.at, now), target)),
        tallies=(Tally(target.rank, -1, -target.mention),) if target.counted else (),
        changes=(entry,),
        erased=(target.rank,),
    )
    if target.direction is not Direction.IN:
        return Decision(after=after)
    gone = MessageWithdrawn(conversation=before.key, version=version, target_rank=target.rank)
    return Decision(after=after, effects=(gone,))


def reaction(before: View, content: Reaction, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0444: never a message of its own, never unread. The author of what was reacted to may want to know."""
    if is_duplicate(before, event):
        return ignore("duplicate")
    target = named(before, content.target)
    if target is None or before.conversation is None:
        return ignore("unknown-target")
    if target.retracted is not None:
        return ignore("retracted-target")
    version = version_for(before, now)
    conversation = replace(before.conversation, version=version)
    entry = change(before, version, ChangeKind.REACTED, target, content.target)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(indexed(event, rank_of(event, version), min(event.at, now), counted=False),),
        changes=(replace(entry, author=event.author or event.sender, stanza=text_of(event)),),
    )
    effects: tuple[Effect, ...] = ()
    if target.direction is Direction.OUT and not is_own(event) and content.emojis:
        effects = (MessageReacted(conversation=before.key, version=version, sessions=event.sessions),)
    return Decision(after=after, effects=effects)


def failed(before: View, content: Bounce, event: MessageEvent, now: datetime) -> Decision:
    """RFC 6120 §8.3: a message of the account's own came back. An error bears the id of the stanza that it is about."""
    key = key_of(content.target) if content.target else None
    sent = [m for m in before.found if m.direction is Direction.OUT and m.message_key == key is not None]
    target = max(sent, key=lambda message: message.rank, default=None)
    if target is None or before.conversation is None:
        return ignore("bounce")
    version = version_for(before, now)
    conversation = replace(before.conversation, version=version)
    entry = change(before, version, ChangeKind.FAILED, target, content.target or "")
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        changes=(replace(entry, detail=content.condition),),
    )
    return Decision(after=after)


def reopened(conversation: Conversation, now: datetime) -> Status:
    """A message brings a conversation back, but an archived one only while it is not muted."""
    if conversation.status is Status.ARCHIVED and conversation.muted(now):
        return Status.ARCHIVED
    return Status.ACTIVE
