"""Displayed markers (XEP-0333): how far somebody has read. Pointers only move forward, and counts are exact after
partial reads.
"""

from bisect import bisect_right
from dataclasses import replace
from datetime import datetime

from sync.model.conversation import Direction, IndexedMessage, Pointer, key_of
from sync.model.effect import Effect, ReadElsewhere
from sync.model.event import Displayed, MessageEvent
from sync.rules.view import After, Decision, View, ignore, settled, version_for


def displayed(before: View, content: Displayed, event: MessageEvent, now: datetime) -> Decision:
    """The account's own marker moves its read pointer, the peer's one the peer's displayed pointer."""
    own = event.direction is Direction.OUT or event.to_self
    target = marked(before, content, Direction.IN if own and not event.to_self else Direction.OUT)
    if target is None or before.conversation is None:
        return ignore("unknown-target")
    return read(before, target, event, now) if own else seen_by_peer(before, target, now)


def read(before: View, target: IndexedMessage, event: MessageEvent, now: datetime) -> Decision:
    """Everything up to `target` is read; what is behind it stays unread."""
    conversation, ranks = before.conversation, before.unread_ranks
    if conversation is None or ranks is None:
        return ignore("unknown-target")
    if target.rank <= conversation.read.rank:
        return ignore("old-marker")
    version = version_for(before, now)
    first_left = bisect_right(ranks, target.rank)
    conversation = replace(
        conversation,
        version=version,
        read=Pointer(target.rank, target.archive_id or conversation.read.id),
        unread=len(ranks) - first_left,
    )
    after = After(
        account=settled(before, conversation), conversation=conversation, unread_ranks=tuple(ranks[first_left:])
    )
    effects: tuple[Effect, ...] = ()
    if first_left:
        effects = (
            ReadElsewhere(conversation=before.key, version=version, first_rank=ranks[0], resource=event.resource),
        )
    return Decision(after=after, effects=effects)


def seen_by_peer(before: View, target: IndexedMessage, now: datetime) -> Decision:
    """The peer displayed our messages up to `target`."""
    conversation = before.conversation
    if conversation is None or target.rank <= conversation.displayed.rank:
        return ignore("old-marker")
    conversation = replace(
        conversation,
        version=version_for(before, now),
        displayed=Pointer(target.rank, target.archive_id or conversation.displayed.id),
    )
    after = After(account=settled(before, conversation), conversation=conversation, unread_ranks=before.unread_ranks)
    return Decision(after=after)


def marked(before: View, content: Displayed, expected: Direction) -> IndexedMessage | None:
    """The message that a marker names.

    XEP-0333 §3: a marker is for a message received from the other side, so of several messages with that id
    one that went the `expected` way is meant; some clients mark their own newest message instead.
    """
    keys = {key_of(content.target), *map(key_of, content.stanza_ids)}
    found = [message for message in before.found if any(message.bears(key) for key in keys)]
    return max(found, key=lambda message: (message.direction is expected, message.rank), default=None)
