"""What follows from an event beside the rows: a closed union of reasons to push. Each becomes jobs for the account's
devices, or none (`sync.rules.wakes`).
"""

from dataclasses import dataclass

from sync.model.call import Call
from sync.model.conversation import ConversationKey
from sync.model.event import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageArrived:
    """A message to read came in. `mention`: it means the account itself."""

    conversation: ConversationKey
    version: int
    known: bool
    sessions: tuple[Session, ...]
    mention: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCorrected:
    """An unread message was corrected by its sender."""

    conversation: ConversationKey
    version: int
    target_rank: int
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageWithdrawn:
    """An incoming message was retracted by its sender, or by a moderator."""

    conversation: ConversationKey
    version: int
    target_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadElsewhere:
    """The owner read messages on the device `resource`; the oldest of them had the rank `first_rank`."""

    conversation: ConversationKey
    version: int
    first_rank: int
    resource: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReacted:
    """Somebody reacted to a message of the account's own."""

    conversation: ConversationKey
    version: int
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """The account was asked into a room."""

    conversation: ConversationKey
    version: int
    known: bool
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRequested:
    """A peer asks to see the account's presence, for the first time in a day."""

    conversation: ConversationKey
    version: int
    known: bool
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRings:
    """A call for the account began to ring."""

    call: Call
    known: bool
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettled:
    """A ringing call was answered, declined or ended by the device `resource` of the account, or by the peer's
    finish.
    """

    call: Call
    resource: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallMissed:
    """A call stopped ringing without an answer."""

    call: Call


Effect = (
    MessageArrived
    | MessageCorrected
    | MessageWithdrawn
    | MessageReacted
    | ReadElsewhere
    | Invited
    | SubscriptionRequested
    | CallRings
    | CallSettled
    | CallMissed
)
