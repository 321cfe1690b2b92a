"""Messages, corrections and retractions of one-to-one chats (PROTOCOLS §5): what each does to its conversation.

Only ids found in the conversation's own index count, and only a message's own sender changes it (XEP-0308 §4,
XEP-0424 §4): in a one-to-one chat that is the same direction. What names nothing known is ignored and counted.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from xml.sax.saxutils import quoteattr

from sync.model.conversation import (
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    LastMessage,
    Status,
    key_of,
)
from sync.model.effect import Effect, MessageArrived, MessageCorrected, MessageWithdrawn
from sync.model.event import Correction, MessageEvent, Retraction
from sync.rules.view import After, Decision, View, ignore, opened, settled, version_for

SAME_MESSAGE = timedelta(hours=24)  # docs/feed.md §7: how long (sender, id, kind) names one message


def body(before: View, event: MessageEvent, now: datetime) -> Decision:
    """A message to read: last message, order, unread; reopens what was archived or deleted."""
    if is_duplicate(before, event):
        return ignore("duplicate")
    version = version_for(before, now)
    at = min(event.at, now)
    incoming = event.direction is Direction.IN and not event.to_self
    conversation = opened(before, version, at)
    last = LastMessage(
        rank=version,
        stanza=event.stanza if event.archive_id else envelope(event),
        message_id=event.message_id,
        archive_id=event.archive_id,
        sent_at=at,
    )
    conversation = replace(
        conversation,
        version=version,
        activity_at=max(conversation.activity_at, at),
        status=reopened(conversation, now),
        unread=conversation.unread + incoming,
        written=conversation.written or event.direction is Direction.OUT,
        last=last,
    )
    ranks = before.unread_ranks
    if ranks is not None and incoming:
        ranks = (*ranks, version)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(indexed(event, version, at, counted=incoming),),
        unread_ranks=ranks,
    )
    if not incoming:
        return Decision(after=after)
    arrived = MessageArrived(
        conversation=before.key, version=version, known=event.known or conversation.written, sessions=event.sessions
    )
    return Decision(after=after, effects=(arrived,))


def correction(before: View, content: Correction, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0308: a new text for an old message. Never moves the conversation, never counts."""
    if is_duplicate(before, event):
        return ignore("duplicate")
    target = own_message(before, content.target, event)
    if target is None or before.conversation is None:
        return ignore("unknown-target")
    if target.retracted:
        return ignore("retracted-target")
    version = version_for(before, now)
    conversation = before.conversation
    # XEP-0308 §3: the payload of the newest correction stands for the message.
    text = event.stanza if event.archive_id else envelope(event)
    if conversation.last and conversation.last.rank == target.rank:
        conversation = replace(conversation, last=replace(conversation.last, stanza=text))
    conversation = replace(conversation, version=version, rewritten=version)
    change = Change(
        conversation=before.key,
        version=version,
        kind=ChangeKind.CORRECTED,
        target_rank=target.rank,
        target_id=name_of(target, content.target),
        stanza=event.stanza if event.archive_id else None,
    )
    effects: tuple[Effect, ...] = ()
    if target.counted and target.rank > conversation.read.rank:
        effects = (
            MessageCorrected(
                conversation=before.key, version=version, target_rank=target.rank, sessions=event.sessions
            ),
        )
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(indexed(event, version, min(event.at, now), counted=False),),
        unread_ranks=before.unread_ranks,
        changes=(change,),
    )
    return Decision(after=after, effects=effects)


def retraction(before: View, content: Retraction, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0424: the message is gone. Its text leaves the preview and the change log too."""
    target = own_message(before, content.target, event)
    if target is None or before.conversation is None:
        return ignore("unknown-target")
    if target.retracted:
        return ignore("duplicate")
    version = version_for(before, now)
    conversation = before.conversation
    was_unread = target.counted and target.rank > conversation.read.rank
    if conversation.last and conversation.last.rank == target.rank:
        tombstone = replace(conversation.last, stanza=envelope(event), retracted=True)
        conversation = replace(conversation, last=tombstone)
    conversation = replace(conversation, version=version, rewritten=version, unread=conversation.unread - was_unread)
    ranks = before.unread_ranks
    if ranks is not None and was_unread:
        ranks = tuple(rank for rank in ranks if rank != target.rank)
    change = Change(
        conversation=before.key,
        version=version,
        kind=ChangeKind.RETRACTED,
        target_rank=target.rank,
        target_id=name_of(target, content.target),
    )
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        messages=(
            replace(target, retracted=True),
            indexed(event, version, min(event.at, now), counted=False),
        ),
        unread_ranks=ranks,
        changes=(change,),
        erased=(target.rank,),
    )
    if target.direction is not Direction.IN:
        return Decision(after=after)
    withdrawn = MessageWithdrawn(conversation=before.key, version=version, target_rank=target.rank)
    return Decision(after=after, effects=(withdrawn,))


def is_duplicate(before: View, event: MessageEvent) -> bool:
    """True when this very message was taken before (docs/feed.md §7)."""
    if event.archive_id is not None:
        archive_key = key_of(event.archive_id)
        return any(message.archive_key == archive_key for message in before.found)
    if event.message_id is None:
        return False
    message_key = key_of(event.message_id)
    return any(
        message.message_key == message_key
        and message.direction is event.direction
        and abs(event.at - message.sent_at) < SAME_MESSAGE
        for message in before.found
    )


def own_message(before: View, target: str, event: MessageEvent) -> IndexedMessage | None:
    """The newest message of the same sender with this message id or origin-id."""
    key = key_of(target)
    found = [
        message
        for message in before.found
        if message.direction is event.direction and key in (message.message_key, message.origin_key)
    ]
    return max(found, key=lambda message: message.rank, default=None)


def reopened(conversation: Conversation, now: datetime) -> Status:
    """A message brings a conversation back, but an archived one only while it is not muted."""
    if conversation.status is Status.ARCHIVED and conversation.muted(now):
        return Status.ARCHIVED
    return Status.ACTIVE


def indexed(event: MessageEvent, rank: int, at: datetime, *, counted: bool) -> IndexedMessage:
    """The event's entry in the message index."""
    from_sender = key_of(event.message_id) if event.message_id else None
    origin = key_of(event.origin_id) if event.origin_id and event.origin_id != event.message_id else None
    return IndexedMessage(
        conversation=ConversationKey(event.account, event.peer, event.kind),
        rank=rank,
        direction=event.direction,
        sent_at=at,
        counted=counted,
        message_key=from_sender,
        origin_key=origin,
        archive_key=key_of(event.archive_id) if event.archive_id else None,
        archive_id=event.archive_id,
    )


def envelope(event: MessageEvent) -> str:
    """The message without anything that was said: what stays of one that the server did not archive, or that was
    retracted.
    """
    names = {"from": event.sender, "type": event.kind.value, "id": event.message_id}
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in names.items() if value)
    return f'<message xmlns="jabber:client"{attributes}/>'


def name_of(target: IndexedMessage, claimed: str) -> str:
    """How clients know the message: by its archive id, else by the id that the change named."""
    return target.archive_id or claimed
