"""What a client is told of a page or notice, as values; each class carries the name of its slixmpp event.

Of one answer they come in this order: calls that ring, calls that do not any more, starting over, conversations with
their changes in the order of the answer, totals, quiet hours. An app that keeps its own database changes it by these
alone.
"""

from dataclasses import dataclass
from typing import ClassVar

from sync.client.values import Call, Change, Conversation, Key, Quiet, Totals


@dataclass(frozen=True, slots=True)
class CallRings:
    """A call rings that was not known to."""

    name: ClassVar[str] = "convsync_call"
    call: Call


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call does not ring, or not any more: `call.state` says why. Comes again when an answered call ends."""

    name: ClassVar[str] = "convsync_call_ended"
    call: Call


@dataclass(frozen=True, slots=True)
class StartedOver:
    """Drop all conversations: the whole list follows. `reason` is the server's, empty where the client wished it."""

    name: ClassVar[str] = "convsync_reset"
    reason: str


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """A conversation is new or different; `before` is None where it was not known."""

    name: ClassVar[str] = "convsync_conversation"
    conversation: Conversation
    before: Conversation | None


@dataclass(frozen=True, slots=True)
class ConversationRemoved:
    """A conversation was deleted; `outside`: it does not match the filters any more."""

    name: ClassVar[str] = "convsync_removed"
    conversation: Conversation
    outside: bool


@dataclass(frozen=True, slots=True)
class Happened:
    """Messages of a conversation were corrected, retracted, reacted to: `changes`, oldest first. `reload`: more than is
    told; load the conversation's messages from the archive anew.
    """

    name: ClassVar[str] = "convsync_changes"
    key: Key
    changes: tuple[Change, ...]
    reload: bool


@dataclass(frozen=True, slots=True)
class TotalsChanged:
    """The badge."""

    name: ClassVar[str] = "convsync_totals"
    totals: Totals


@dataclass(frozen=True, slots=True)
class QuietChanged:
    """When the account wants to be left alone; None = never."""

    name: ClassVar[str] = "convsync_quiet"
    quiet: Quiet | None


Event = (
    CallRings
    | CallEnded
    | StartedOver
    | ConversationChanged
    | ConversationRemoved
    | Happened
    | TotalsChanged
    | QuietChanged
)
