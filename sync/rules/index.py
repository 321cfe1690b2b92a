"""The message index: taking a message once, and finding the one that another names.

Ids are claims of any length by anyone; only what is found in the conversation's own index counts.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from xml.sax.saxutils import quoteattr

from sync.model.conversation import Change, ChangeKind, ConversationKey, Direction, IndexedMessage, Kind, key_of
from sync.model.copies import replace
from sync.model.event import MessageEvent, RoomMessageEvent
from sync.rules.view import View, wrote

SAME_MESSAGE = timedelta(hours=24)  # docs/feed.md §7: how long (sender, id, kind) names one message


Said = MessageEvent | RoomMessageEvent


def is_duplicate(before: View, event: MessageEvent) -> bool:
    """True when this very message was taken before (docs/feed.md §7)."""
    return was_taken(before.found, event, lambda message: wrote(message, event))


def was_taken(found: Iterable[IndexedMessage], event: Said, by_sender: Callable[[IndexedMessage], bool]) -> bool:
    """True when one of these messages is the event's own: by archive id, else by sender and message id within a day.
    ejabberd's archive ids are microseconds, and two messages of one microsecond share one: a message id that both bear
    tells them apart.
    """
    message_key = key_of(event.message_id) if event.message_id else None
    if event.archive_id is not None:
        archive_key = key_of(event.archive_id)
        unsaid = (None, message_key)
        return any(
            message.archive_key == archive_key and (message_key is None or message.message_key in unsaid)
            for message in found
        )
    return message_key is not None and any(
        message.message_key == message_key and by_sender(message) and abs(event.at - message.sent_at) < SAME_MESSAGE
        for message in found
    )


def original(found: Iterable[IndexedMessage], message: IndexedMessage) -> IndexedMessage:
    """The message that a correction corrects: XEP-0308 §3 has every correction name the first one, and clients that
    name the newest correction mean the same. A reaction or retraction stands for itself.
    """
    if message.about is None:
        return message
    return next((other for other in found if other.rank == message.about), message)


def meant_by(found: Iterable[IndexedMessage], keys: Collection[str]) -> list[IndexedMessage]:
    """The messages that bear one of these ids. Those to which the archive gave it go before: occupants of a room see
    such an id, and one may give it to a message of its own, to be taken for the other.
    """
    bearing = [message for message in found if any(message.bears(key) for key in keys)]
    return [message for message in bearing if message.archive_key in keys] or bearing


def named(before: View, target: str) -> IndexedMessage | None:
    """The newest message with this message id, origin-id or archive id, in its original form."""
    found = max(meant_by(before.found, {key_of(target)}), key=lambda m: m.rank, default=None)
    return original(before.found, found) if found else None


def own_message(before: View, target: str, event: MessageEvent) -> IndexedMessage | None:
    """The newest message of the event's sender with this id, in its original form. Archive ids name messages in
    rooms (XEP-0424 §3); in a one-to-one chat only what the sender itself said does.
    """
    key = key_of(target)
    found = [
        message
        for message in before.found
        if wrote(message, event) and (message.bears(key) if message.author else sent_as(message, key))
    ]
    newest = max(found, key=lambda message: message.rank, default=None)
    return original(before.found, newest) if newest else None


def sent_as(message: IndexedMessage, key: str) -> bool:
    """True when its sender gave it this id."""
    return key in (message.message_key, message.origin_key)


def indexed(event: MessageEvent, rank: int, at: datetime, *, counted: bool, mention: bool = False) -> IndexedMessage:
    """The event's entry in the message index."""
    key = ConversationKey(event.account, event.peer, event.kind)
    row = row_of(event, key, rank, at)
    return replace(row, direction=event.direction, author=event.author, counted=counted, mention=mention)


def row_of(event: Said, key: ConversationKey, rank: int, at: datetime) -> IndexedMessage:
    """An entry of the message index under the event's ids, that counts for nobody yet."""
    origin = event.origin_id if event.origin_id != event.message_id else None
    return IndexedMessage(
        conversation=key,
        rank=rank,
        direction=Direction.IN,
        sent_at=at,
        counted=False,
        message_key=key_of(event.message_id) if event.message_id else None,
        origin_key=key_of(origin) if origin else None,
        archive_key=key_of(event.archive_id) if event.archive_id else None,
        archive_id=event.archive_id,
    )


def changing(event: MessageEvent, rank: int, at: datetime, target: IndexedMessage) -> IndexedMessage:
    """The entry of a message that changes another one: never unread, and found when its own id is named."""
    return replace(indexed(event, rank, at, counted=False), about=target.rank)


def change(before: View, version: int, kind: ChangeKind, target: IndexedMessage, claimed: str) -> Change:
    """The change log's entry for a message. Clients know it by its archive id, else by the id that was named."""
    return Change(
        conversation=before.key,
        version=version,
        kind=kind,
        target_rank=target.rank,
        target_id=target.archive_id or claimed,
    )


def text_of(event: MessageEvent) -> str | None:
    """What may be kept of a message's text: what the server keeps."""
    return event.stanza if event.archive_id else None


def envelope(event: MessageEvent) -> str:
    """The message without anything that was said: what stays of one that the server did not archive, or that was
    retracted.
    """
    return envelope_of(event.sender, event.kind, event.message_id)


def envelope_of(sender: str, kind: Kind, message_id: str | None) -> str:
    """A message of which nothing is known but who sent it."""
    names = {"from": sender, "type": kind.message_type, "id": message_id}
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in names.items() if value)
    return f'<message xmlns="jabber:client"{attributes}/>'
