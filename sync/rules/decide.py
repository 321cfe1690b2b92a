"""The rule (invariant 5): what one event does. `decide(before, event, now)` → what is after it and what follows from
it.

It dispatches on the event's content; each topic has its own file. It reads no clock and does no I/O, and `keys` says
beforehand which rows it will want to see.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import assert_never

from sync.model.books import Keys, LanePosition
from sync.model.conversation import ConversationKey, key_of
from sync.model.event import (
    AccountEvent,
    Body,
    Bounce,
    CallMessage,
    Correction,
    Displayed,
    Event,
    GapEvent,
    Malformed,
    MessageEvent,
    Nothing,
    Retraction,
    SessionEvent,
)
from sync.model.jid import lane
from sync.rules import calls, markers, messages
from sync.rules.view import CallPolicy, Decision, View, ignore


def decide(before: View, event: MessageEvent, policy: CallPolicy, now: datetime) -> Decision:
    """What a message does to the conversation of `before`, and to the account's phones."""
    content = event.content
    # XEP-0334 §4.3: no-store leaves no trace; calls are looked at first (PROTOCOLS §5).
    if not event.stored and not isinstance(content, CallMessage | Bounce):
        return ignore("no-store")
    match content:
        case Body():
            return messages.body(before, event, now)
        case Correction():
            return messages.correction(before, content, event, now)
        case Retraction():
            return messages.retraction(before, content, event, now)
        case Displayed():
            return markers.displayed(before, content, event, now)
        case CallMessage():
            return calls.call_step(before, content, event, policy, now)
        case Bounce():
            return calls.bounced(before, content, event, now)
        case Nothing():
            return ignore(content.why)
        case _:
            assert_never(content)


def keys(events: Iterable[Event]) -> Keys:
    """The rows that `decide` will want to see for these events, and the positions that they move."""
    accounts: set[str] = set()
    conversations: set[ConversationKey] = set()
    ids: set[tuple[ConversationKey, str]] = set()
    archived: set[tuple[ConversationKey, str]] = set()
    unread_of: set[ConversationKey] = set()
    sids: set[tuple[str, str]] = set()
    positions: set[LanePosition] = set()
    for event in events:
        positions.add(LanePosition.of(event.position, lane(event.account)))
        match event:
            case MessageEvent(content=Nothing()) | SessionEvent() | GapEvent():
                continue
            case AccountEvent() | Malformed():
                accounts.update({event.account} - {""})
            case MessageEvent():
                key = ConversationKey(event.account, event.peer, event.kind)
                accounts.add(event.account)
                conversations.add(key)
                lookups = archived if isinstance(event.content, Body) and event.archive_id else ids
                lookups.update((key, identifier) for identifier in wanted_ids(event))
                if isinstance(event.content, Displayed | Retraction):
                    unread_of.add(key)
                if session_id := session_id_of(event):
                    sids.add((event.account, key_of(session_id)))
            case _:
                assert_never(event)
    return Keys(
        accounts=frozenset(accounts),
        create=True,
        conversations=frozenset(conversations),
        ids=frozenset(ids),
        archived=frozenset(archived),
        unread_of=frozenset(unread_of),
        calls=frozenset(sids),
        devices=True,
        positions=frozenset(positions),
    )


def wanted_ids(event: MessageEvent) -> list[str]:
    """The indexed ids by which an event finds messages: its own, to be taken once, and its target's."""
    match event.content:
        case Body():
            found = [event.archive_id or event.message_id]
        case Correction(target=target):
            found = [event.archive_id or event.message_id, target]
        case Retraction(target=target):
            found = [target]
        case Displayed(target=target, stanza_ids=stanza_ids):
            found = [target, *stanza_ids]
        case _:
            found = []
    return [key_of(identifier) for identifier in found if identifier]


def session_id_of(event: MessageEvent) -> str | None:
    """The session id of the call that an event is about."""
    match event.content:
        case CallMessage(session_id=session_id):
            return session_id
        case Bounce(call=call):
            return call
        case _:
            return None
