"""Encrypted chats apart from the plain one with the same peer: to which of a peer's conversations an event belongs, and
what is read in the others when one place is named for all of them.

A message goes where its encryption says. What is about a message goes where that message is: clients name it by its
ids, never by a conversation. What is about none that is known goes to the plain chat, as calls do. XEP-0490 names the
peer, and is written by clients that show one chat: what it says is read is read in all of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from sync.model.conversation import ConversationKey, Direction, IndexedMessage, Kind, Pointer, key_of
from sync.model.event import (
    Body,
    Bounce,
    Correction,
    Displayed,
    MessageEvent,
    Reaction,
    Receipt,
    Retraction,
)
from sync.rules.index import named, own_message, was_taken
from sync.rules.markers import marked
from sync.rules.view import Conduct, View, is_own, wrote
from sync.rules.wanted import named_ids

Place = tuple[bool, bool, bool, int]


def placed(event: MessageEvent, views: Sequence[View], conduct: Conduct) -> MessageEvent:
    """The event in the one of these conversations with its peer that it belongs to. `views` begin with the plain chat;
    ranks are the account's, so that no two fit equally well. Who is known in one of them is known in all.
    """
    if not event.known and any(view.conversation is not None and view.conversation.written for view in views):
        event = replace(event, known=True)
    if isinstance(event.content, Body):
        return replace(event, kind=home(event, event.content, views, conduct))
    found = [(place, view.key.kind) for view in views if (place := place_of(view, event)) is not None]
    return replace(event, kind=max(found)[1]) if found else event


def home(event: MessageEvent, content: Body, views: Sequence[View], conduct: Conduct) -> Kind:
    """The kind of a message: what it was taken as already, else what its encryption says."""
    if content.sealed is None:
        return event.kind
    taken = [view.key.kind for view in views if was_known(view.found, event)]
    wanted = content.sealed if conduct.encrypted_apart else event.kind
    return wanted if wanted in taken or not taken else taken[0]


def sealed_apart(event: MessageEvent, conduct: Conduct) -> Kind | None:
    """By what a message is encrypted, where that makes a difference."""
    return event.content.sealed if conduct.several and isinstance(event.content, Body) else None


def was_known(found: Sequence[IndexedMessage], event: MessageEvent) -> bool:
    """True when it was taken before; out of an archive also where it was taken live and without its archive id."""
    if was_taken(found, event, lambda message: wrote(message, event)):
        return True
    if event.rank is None:
        return False
    bare = [message for message in found if message.archive_key is None]
    return was_taken(bare, replace(event, archive_id=None), lambda message: wrote(message, event))


def place_of(view: View, event: MessageEvent) -> Place | None:
    """How well an event fits into a conversation: it is part of it already; it names a message there by the archive's
    id; one that went the way that it should; the newest one. None: it names nothing there.
    """
    target = about(view, event)
    if target is None:
        return None
    leaves_a_row = isinstance(event.content, Correction | Retraction | Reaction)
    taken = leaves_a_row and was_known(view.found, event)
    names = {key_of(name) for name in named_ids(event.content) if name}
    archived = any(message.archive_key in names for message in view.found)
    return taken, archived, target.direction is expected(event), target.rank


def about(view: View, event: MessageEvent) -> IndexedMessage | None:
    """The message of a conversation that an event is about, None where it is about none there."""
    content = event.content
    match content:
        case Correction() | Retraction():
            return own_message(view, content.target, event)
        case Reaction():
            return named(view, content.target)
        case Displayed():
            return marked(view, content, expected(event))
        case Receipt(target=target) | Bounce(target=str(target), call=None):
            key = key_of(target)
            sent = [one for one in view.found if one.direction is Direction.OUT and one.bears(key)]
            return max(sent, key=lambda message: message.rank, default=None)
        case _:
            return None


def expected(event: MessageEvent) -> Direction:
    """Which way the message went that an event is most likely about: one is read, answered to and reacted to by the
    other side. What changes its sender's own message finds no other.
    """
    return Direction.IN if is_own(event) and not event.to_self else Direction.OUT


def read_everywhere(event: MessageEvent, view: View) -> tuple[tuple[ConversationKey, Pointer], ...]:
    """How far an event that names the peer alone reads each of the peer's other conversations. `view`: of the one that
    holds the message. Ranks are the account's, so that a place in one is a place in all.
    """
    content = event.content
    if not isinstance(content, Displayed) or event.stanza or event.kind is Kind.GROUP or not is_own(event):
        return ()
    if event.blocked or not event.stored:
        return ()
    target = marked(view, content, expected(event))
    if target is None:
        return ()
    pointer = Pointer(target.rank, target.archive_id)
    return tuple((key, pointer) for key in view.key.alike if key != view.key)
