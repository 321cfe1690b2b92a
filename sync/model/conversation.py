"""Accounts, conversations, the message index and the change log: the rows of the versioned state.

Versions are microseconds since the epoch that only go up (invariant 1). A *rank* orders the messages of an account:
the version at which the message was taken. All values are valid at birth and changed with `dataclasses.replace`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

MAX_KEY_BYTES = 128


class Kind(StrEnum):
    """What sort of conversation it is; part of its key."""

    CHAT = "chat"
    GROUP = "group"


class Status(StrEnum):
    """Where a conversation stands in its owner's list."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Direction(StrEnum):
    """Seen from the account: what it received, what one of its devices sent."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """The key of a conversation: owner, the other party's bare JID, kind."""

    account: str
    peer: str
    kind: Kind = Kind.CHAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One owner. `floor` is the oldest version that a token may name; `wakes_open`: a device was pushed and has not
    fetched.
    """

    jid: str
    version: int
    floor: int
    epoch: int = 1
    unread: int = 0
    unread_conversations: int = 0
    devices: int = 0
    wakes_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LastMessage:
    """The newest message of a conversation, for its preview.

    `stanza` is the message as the account received or sent it (after a correction: the correction), serialised with
    its own `jabber:client` namespace. `message_id` and `archive_id` are the original's. `retracted`: show a
    tombstone, `stanza` then holds no text of the message.
    """

    rank: int
    stanza: str = field(repr=False)
    message_id: str | None
    archive_id: str | None
    sent_at: datetime
    retracted: bool = False


@dataclass(frozen=True, slots=True)
class Pointer:
    """A position in a conversation: everything up to `rank` is meant; `id` is the archive id that names it to
    clients.
    """

    rank: int = 0
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation of one account.

    `activity_at` orders the list. `pinned` is a client's number, larger is higher, 0 = not pinned. `muted_until` None
    = not muted, the far end of time = for ever. `read` is the owner's read pointer, `displayed` the peer's. `unread`
    always equals the recount of the message index behind `read`. `ringing` counts the calls of this conversation in
    state ringing.
    """

    key: ConversationKey
    version: int
    activity_at: datetime
    status: Status = Status.ACTIVE
    pinned: int = 0
    muted_until: datetime | None = None
    read: Pointer = Pointer()
    displayed: Pointer = Pointer()
    unread: int = 0
    ringing: int = 0
    rewritten: int = 0  # version of the newest correction or retraction, 0 = none
    written: bool = False  # the owner has written to the peer
    last: LastMessage | None = None

    def muted(self, now: datetime) -> bool:
        """True while the owner wants no pushes for it."""
        return self.muted_until is not None and self.muted_until > now


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedMessage:
    """What is remembered of a message beside the archive: enough to count, and to find it again by any of its ids.

    `message_key`, `origin_key`, `archive_key` are `key_of` the stanza's id, its origin-id (None where equal) and the
    archive id. `counted`: it makes the conversation unread until it is read. `retracted` messages stay, so that a
    second retraction finds them.
    """

    conversation: ConversationKey
    rank: int
    direction: Direction
    sent_at: datetime
    counted: bool
    message_key: str | None = None
    origin_key: str | None = None
    archive_key: str | None = None
    archive_id: str | None = None
    retracted: bool = False

    def bears(self, key: str) -> bool:
        """True when one of its ids is this one."""
        return key in (self.message_key, self.origin_key, self.archive_key)


class ChangeKind(StrEnum):
    """What happened to a message after it had been sent."""

    CORRECTED = "corrected"
    RETRACTED = "retracted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of a conversation's change log.

    `target_id` names the message to clients: its archive id, else its message id. `stanza` is the correction as
    received, None where there is no text to keep: retractions, corrections that the server did not archive, and
    corrections of what was retracted since.
    """

    conversation: ConversationKey
    version: int
    kind: ChangeKind
    target_rank: int
    target_id: str
    stanza: str | None = field(default=None, repr=False)


def key_of(identifier: str) -> str:
    """An id as it is indexed: itself, or its SHA-256 when longer than 128 bytes (ids are claims of any length by
    anyone).
    """
    data = identifier.encode()
    if len(data) <= MAX_KEY_BYTES and not identifier.startswith("sha256:"):
        return identifier
    return "sha256:" + sha256(data).hexdigest()
