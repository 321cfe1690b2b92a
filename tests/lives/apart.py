"""Encrypted chats in lives: apart from the plain ones while the option says so, which is turned at any time."""

from collections.abc import Mapping
from dataclasses import replace

from sync.model.conversation import ENCRYPTED, Conversation, ConversationKey, Kind
from sync.model.event import Body
from tests.lives.world import World

Conversations = Mapping[ConversationKey, Conversation]


def some_text(w: World) -> Body:
    """A message, now and then encrypted, and then mostly as the one before."""
    kind = w.pick((None, None, *ENCRYPTED, Kind.OMEMO_2, Kind.OMEMO_2))
    return Body() if kind is None else Body(encrypted=True, sealed=kind)


def turn_the_option(w: World) -> None:
    """Encrypted chats are kept apart from now on, or no longer. What was there before is known."""
    conduct = w.policies.conduct
    were_apart = any(key.kind in ENCRYPTED for key in w.tables.conversations)
    conduct = replace(conduct, encrypted_apart=not conduct.encrypted_apart, were_apart=were_apart)
    w.policies = replace(w.policies, conduct=conduct)


def one_has_changed(w: World, before: Conversations) -> None:
    """An event changes one conversation at most; and where none may be apart, none is."""
    assert len(changed(w, before)) <= 1
    assert w.policies.conduct.several or all(key.kind not in ENCRYPTED for key in w.tables.conversations)


def all_are_read(w: World, key: ConversationKey, before: Conversations) -> None:
    """What XEP-0490 reads of a peer it reads in all of the peer's conversations."""
    read = [w.tables.conversations[one].read.rank for one in changed(w, before)]
    for one in key.alike if read else ():
        found = w.tables.conversations.get(one)
        assert found is None or found.read.rank >= max(read) or found.base.unread, one


def changed(w: World, before: Conversations) -> list[ConversationKey]:
    """The conversations that are not as they were."""
    return [key for key, found in w.tables.conversations.items() if found != before.get(key)]
