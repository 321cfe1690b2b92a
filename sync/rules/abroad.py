"""Rooms of other servers (XEP-0045): all that is known of them is what the account's own sessions see.

A session's message goes out and comes back as the room's reflection; only then has it been said. So what goes out
leaves a note in the index, and a message that comes in and fits a note, or bears the account's own nickname, is the
account's own. Markers are the exception: they are the account's as soon as it sends them.
"""

from dataclasses import replace
from datetime import datetime

from sync.model.conversation import Direction, IndexedMessage, Kind, key_of
from sync.model.event import Body, CallMessage, Displayed, Invitation, MessageEvent
from sync.model.jid import bare, resource
from sync.rules.index import SAME_MESSAGE, indexed
from sync.rules.view import After, Decision, View, ignore, opened, settled, version_for


def is_sent(event: MessageEvent) -> bool:
    """True for what a session says to a room, and that the room has not said yet."""
    return (
        event.kind is Kind.GROUP
        and event.direction is Direction.OUT
        and bool(event.stanza)
        and not isinstance(event.content, Displayed | Invitation)
    )


def sent(before: View, event: MessageEvent, now: datetime) -> Decision:
    """A note of a message that goes out, under its ids. It is no message yet: the room may refuse it. What changes
    messages leaves none: where it changes nothing its note would lie open to whoever repeats the id.
    """
    if not isinstance(event.content, Body | CallMessage) or not (event.message_id or event.origin_id):
        return ignore("room-sent")
    version = version_for(before, now)
    at = min(event.at, now)
    note = replace(indexed(event, version, at, counted=False), author=None)
    conversation = replace(opened(before, version, at), version=version, written=True)
    after = After(account=settled(before, conversation), conversation=conversation, messages=(note,))
    return Decision(after=after)


def recognised(before: View, event: MessageEvent) -> MessageEvent:
    """The event as its account's own where it is the reflection of what one of its sessions sent."""
    if event.kind is not Kind.GROUP or event.direction is Direction.OUT or not event.stanza:
        return event
    if isinstance(event.content, Displayed):
        return event  # the account's own were taken as they went out: this is by whoever has the nickname now
    if not bears_own_nick(before, event) and not (is_noted(before, event) and not is_said(before, event)):
        return event
    return replace(event, direction=Direction.OUT, author=event.account)


def is_noted(before: View, event: MessageEvent) -> bool:
    """True when what the room says now left a note."""
    return any(
        note.direction is Direction.OUT
        and note.author is None
        and shares_id(note, event)
        and abs(event.at - note.sent_at) < SAME_MESSAGE
        for note in before.found
    )


def is_said(before: View, event: MessageEvent) -> bool:
    """True when the room has said it before. Everybody knows its ids since: they prove nothing any more."""
    return any(message.author == event.account and shares_id(message, event) for message in before.found)


def shares_id(message: IndexedMessage, event: MessageEvent) -> bool:
    """True when the sender gave both the same id."""
    ids = {key_of(identifier) for identifier in (event.message_id, event.origin_id) if identifier}
    return not ids.isdisjoint({message.message_key, message.origin_key} - {None})


def bears_own_nick(before: View, event: MessageEvent) -> bool:
    """True when the sender has the nickname that the account has in the room."""
    nick = before.conversation.nick if before.conversation else None
    return nick is not None and event.sender != bare(event.sender) and resource(event.sender) == nick


def own_nick(event: MessageEvent, original: MessageEvent) -> str | None:
    """The account's nickname, where the event turned out to be its own reflection."""
    if event is original or not isinstance(event.content, Body):
        return None
    return resource(original.sender)
