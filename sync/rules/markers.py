"""Displayed markers (XEP-0333, XEP-0490) and receipts (XEP-0184): how far somebody has read, or got. Pointers only
move forward, and counts are exact after partial reads.
"""

from dataclasses import replace
from datetime import datetime

from sync.model.conversation import Direction, IndexedMessage, Kind, Pointer, key_of
from sync.model.effect import Effect, ReadElsewhere
from sync.model.event import Displayed, MessageEvent, Receipt
from sync.rules.index import meant_by, original
from sync.rules.view import After, Decision, View, ignore, is_own, opened, read_up_to, settled, version_for


def displayed(before: View, content: Displayed, event: MessageEvent, now: datetime) -> Decision:
    """The account's own marker moves its read pointer, the peer's one the peer's displayed pointer. What the others
    in a room have seen is nobody's pointer.
    """
    own = is_own(event)
    if not own and event.kind is Kind.GROUP:
        return ignore("room-marker")
    target = marked(before, content, Direction.IN if own and not event.to_self else Direction.OUT)
    if target is None:
        return ignore("unknown-target")
    if before.conversation is None and own and event.kind is Kind.GROUP:
        # What a room of this server has said is on its way to the member; it will not be unread.
        before = replace(before, conversation=opened(before, version_for(before, now), min(event.at, now)))
    return read(before, target, event.resource, now) if own else seen_by_peer(before, target, now)


def read(before: View, target: IndexedMessage, resource: str | None, now: datetime) -> Decision:
    """Everything up to `target` is read; what is behind it stays unread."""
    return read_to(before, Pointer(target.rank, target.archive_id), resource, now)


def read_to(before: View, pointer: Pointer, resource: str | None, now: datetime) -> Decision:
    """The read pointer moves to a message that the index has."""
    conversation, behind = before.conversation, before.behind.get(pointer.rank)
    if conversation is None or behind is None:
        return ignore("unknown-target")
    if pointer.rank < conversation.read.rank or (
        pointer.rank == conversation.read.rank and not conversation.marked_unread
    ):
        return ignore("old-marker")
    if conversation.base.unread and pointer.rank < conversation.base.rank:
        return ignore("trimmed-target")
    version = version_for(before, now)
    was_unread = conversation.unread
    pointer = Pointer(pointer.rank, pointer.id or conversation.read.id)
    conversation = replace(read_up_to(conversation, pointer, behind), version=version)
    after = After(account=settled(before, conversation), conversation=conversation)
    effects: tuple[Effect, ...] = ()
    if was_unread > conversation.unread:
        first = behind.first if behind.first is not None else pointer.rank
        effects = (ReadElsewhere(conversation=before.key, version=version, first_rank=first, resource=resource),)
    return Decision(after=after, effects=effects)


def seen_by_peer(before: View, target: IndexedMessage, now: datetime) -> Decision:
    """The peer displayed our messages up to `target`, and so has them, too."""
    conversation = before.conversation
    if conversation is None or target.rank <= conversation.displayed.rank:
        return ignore("old-marker")
    pointer = Pointer(target.rank, target.archive_id or conversation.displayed.id)
    conversation = replace(conversation, version=version_for(before, now), displayed=pointer)
    if conversation.delivered.rank < pointer.rank:
        conversation = replace(conversation, delivered=pointer)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation))


def delivered(before: View, content: Receipt, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0184 §5: a receipt is for one message; that it arrived says as much of those before it."""
    if is_own(event) or event.kind is Kind.GROUP:
        return ignore("receipt")
    key = key_of(content.target)
    found = [message for message in before.found if message.direction is Direction.OUT and message.bears(key)]
    target = max(found, key=lambda message: message.rank, default=None)
    conversation = before.conversation
    if target is None or conversation is None:
        return ignore("unknown-target")
    target = original(before.found, target)
    if target.rank <= conversation.delivered.rank:
        return ignore("old-receipt")
    pointer = Pointer(target.rank, target.archive_id or conversation.delivered.id)
    conversation = replace(conversation, version=version_for(before, now), delivered=pointer)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation))


def marked(before: View, content: Displayed, expected: Direction) -> IndexedMessage | None:
    """The message that a marker names.

    A stanza-id is a place in the archive, so what bears it marks its own place, be it a correction. A message id
    names a message: that of a correction means the corrected one. XEP-0333 §3: a marker is for a message received from
    the other side, so of several messages with that id one that went the `expected` way is meant; some clients mark
    their own newest message instead.
    """
    places = set(map(key_of, content.stanza_ids))
    target = key_of(content.target)
    bearing = [message for message in before.found if message.archive_key in places or message.bears(target)]
    found = [
        message if message.archive_key in (target, *places) else original(before.found, message)
        for message in meant_by(bearing, {target, *places})
    ]
    return max(found, key=lambda message: (message.direction is expected, message.rank), default=None)
