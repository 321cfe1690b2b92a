"""The rule (invariant 5): what one event does. `decide(before, event, conduct, now)` → what is after it and what
follows from it.

It dispatches on the event's content; each topic has its own file. It reads no clock and does no I/O, and
`sync.rules.wanted` says beforehand which rows it will want to see.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from sync.model.conversation import Kind
from sync.model.event import (
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Correction,
    Displayed,
    Invitation,
    MessageEvent,
    Moderation,
    Nothing,
    Reaction,
    Receipt,
    Retraction,
    Subscription,
)
from sync.rules import abroad, calls, contacts, markers, messages, room_calls
from sync.rules.view import Conduct, Decision, View, ignore


def decide(before: View, event: MessageEvent, conduct: Conduct, now: datetime) -> Decision:
    """What an event does to the conversation of `before`, and to the account's phones."""
    if event.blocked:
        return ignore("blocked")
    # XEP-0334 §4.2: no-store leaves no trace; calls are looked at first (PROTOCOLS §5).
    if not event.stored and not isinstance(event.content, CallMessage | Bounce):
        return ignore("no-store")
    if event.replayed:
        return ignore("history")
    if abroad.is_sent(event):
        return abroad.sent(before, event, now)
    if event.kind is Kind.GROUP:
        mine = abroad.recognised(before, event)
        nick = abroad.own_nick(mine, event)
        if nick is not None and before.conversation is not None:
            before = replace(before, conversation=replace(before.conversation, nick=nick))
        event = mine
    return by_content(before, event, conduct, now)


def by_content(  # noqa: PLR0912 - one branch for each content is its whole point
    before: View, event: MessageEvent, conduct: Conduct, now: datetime
) -> Decision:
    """Each content's own rule."""
    content = event.content
    match content:
        case Body():
            return messages.body(before, content, event, conduct, now)
        case Correction():
            return messages.correction(before, content, event, now)
        case Retraction():
            return messages.retraction(before, content, event, now)
        case Moderation():
            return messages.moderation(before, content, event, now)
        case Reaction():
            return messages.reaction(before, content, event, now)
        case Displayed():
            return markers.displayed(before, content, event, now)
        case Receipt():
            return markers.delivered(before, content, event, now)
        case Invitation():
            return contacts.invited(before, content, event, now)
        case Bookmark():
            return contacts.bookmarked(before, content, event, now)
        case Subscription():
            return contacts.subscription(before, content, event, now)
        case CallMessage() if event.kind is Kind.GROUP:
            return room_calls.abroad(before, content, event, conduct.calls, now)
        case CallMessage():
            return calls.call_step(before, content, event, conduct.calls, now)
        case Bounce():
            return calls.bounced(before, content, event, conduct.calls, now)
        case Nothing():
            return ignore(content.why)
        case _:
            assert_never(content)
