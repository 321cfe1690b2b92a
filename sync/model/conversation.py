"""Accounts, conversations, the message index and the change log: the rows of the versioned state.

Versions are microseconds since the epoch that only go up (invariant 1). A *rank* orders the messages of a
conversation: the account's version at which the message was taken; in a room that this server keeps, the room's
(`sync.model.room`). All values are valid at birth and changed with `dataclasses.replace`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from sync.model.quiet import Quiet

MAX_KEY_BYTES = 128


class Kind(StrEnum):
    """What sort of conversation it is; part of its key."""

    CHAT = "chat"
    GROUP = "group"
    # What is encrypted by OMEMO between two, where that is kept apart from the plain chat (docs/dialects.md §1).
    OMEMO_2 = "omemo-2"
    OMEMO_1 = "omemo-1"
    AXOLOTL = "axolotl"

    @property
    def message_type(self) -> str:
        """RFC 6121 §5.2.2: the `type` of its messages."""
        return "groupchat" if self is Kind.GROUP else "chat"


ENCRYPTED = (Kind.OMEMO_2, Kind.OMEMO_1, Kind.AXOLOTL)


class Status(StrEnum):
    """Where a conversation stands in its owner's list."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Notify(StrEnum):
    """XEP-0492: for which messages of a conversation the owner wants to be notified."""

    NEVER = "never"
    ON_MENTION = "on-mention"
    ALWAYS = "always"


class Direction(StrEnum):
    """Seen from the account: what it received, what one of its devices sent."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """The key of a conversation: owner, the other party, kind. The peer is a bare JID; of a private conversation with
    an occupant of a room (XEP-0045 §7.5) it is the occupant's full JID.
    """

    account: str
    peer: str
    kind: Kind = Kind.CHAT

    @property
    def plain(self) -> "ConversationKey":
        """The key that stands for all of the peer's conversations: that of the plain chat, of a room its own."""
        return ConversationKey(self.account, self.peer) if self.kind in ENCRYPTED else self

    @property
    def alike(self) -> tuple["ConversationKey", ...]:
        """All conversations that there may be with the same peer, the plain chat first; of a room, that one."""
        if self.kind is Kind.GROUP:
            return (self,)
        return tuple(ConversationKey(self.account, self.peer, kind) for kind in (Kind.CHAT, *ENCRYPTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One owner. `floor` is the oldest version that a token may name; `wakes_open`: a device was pushed and has not
    fetched. `quiet`: when it wants to be left alone; None = never.
    """

    jid: str
    version: int
    floor: int
    epoch: int = 1
    unread: int = 0
    mentions: int = 0
    unread_conversations: int = 0
    devices: int = 0
    wakes_open: bool = False
    quiet: Quiet | None = None


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
class Base:
    """What is counted without being in the message index any more: `unread` messages, `mentions` of them, all of rank
    `rank` or less.
    """

    unread: int = 0
    mentions: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation of one account.

    `activity_at` orders the list. `pinned` is a client's number, larger is higher, 0 = not pinned. `muted_until` None
    = not muted, the far end of time = for ever. `notify` None: the default of its kind. `read` is the owner's read
    pointer, `displayed` and `delivered` the peer's. `unread` and `mentions` always equal `base` plus the recount of
    the message index behind both `read` and `base.rank`. `marked_unread` is the owner's flag and counts nothing.
    `ringing` counts the calls of this conversation in state ringing. `log_from`: changes of this version and older ones
    may be missing from the change log. `requests_presence`: the peer asks for a subscription to the owner's presence;
    `request_told_at`: when a phone was last told of one, or of an invitation. Of rooms: `invited_by` a pending
    invitation's sender, `private` members only (None = not known), `nick` the owner's, `taken` the rank of the newest
    entry of a room of this server that is part of this state.
    """

    key: ConversationKey
    version: int
    activity_at: datetime
    status: Status = Status.ACTIVE
    pinned: int = 0
    muted_until: datetime | None = None
    notify: Notify | None = None
    read: Pointer = Pointer()
    displayed: Pointer = Pointer()
    delivered: Pointer = Pointer()
    unread: int = 0
    mentions: int = 0
    base: Base = Base()
    marked_unread: bool = False
    ringing: int = 0
    rewritten: int = 0  # version of the newest correction or retraction, 0 = none
    log_from: int = 0
    written: bool = False  # the owner has written to the peer
    requests_presence: bool = False
    request_told_at: datetime | None = None
    invited_by: str | None = None
    private: bool | None = None
    nick: str | None = None
    taken: int = 0
    last: LastMessage | None = None

    def muted(self, now: datetime) -> bool:
        """True while the owner wants no pushes for it."""
        return self.muted_until is not None and self.muted_until > now


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedMessage:
    """What is remembered of a message beside the archive: enough to count, and to find it again by any of its ids.

    `message_key`, `origin_key`, `archive_key` are `key_of` the stanza's id, its origin-id (None where equal) and the
    archive id. `counted`: it makes the conversation unread until it is read; `mention`: it mentions whom it counts
    for. `retracted`: the rank of its retraction; the entry stays, so that a second one finds it. `about`: the rank of
    the message that this one corrects or retracts, or of the call's invite; of an invite in a room its own.

    In rooms `author` tells senders apart: the real bare JID where it is known, else the occupant-id (XEP-0421), else
    the occupant's JID. The index of a room of this server belongs to the room (`account` and `peer` of the key are the
    room): a message there counts for everybody but its author, and `mentions` names the accounts that it mentions.
    """

    conversation: ConversationKey
    rank: int
    direction: Direction
    sent_at: datetime
    counted: bool
    mention: bool = False
    message_key: str | None = None
    origin_key: str | None = None
    archive_key: str | None = None
    archive_id: str | None = None
    retracted: int | None = None
    about: int | None = None
    author: str | None = None
    mentions: tuple[str, ...] = ()

    def bears(self, key: str) -> bool:
        """True when one of its ids is this one."""
        return key in (self.message_key, self.origin_key, self.archive_key)


class ChangeKind(StrEnum):
    """What happened to a message, or in a conversation, that is no new message."""

    CORRECTED = "corrected"
    RETRACTED = "retracted"
    MODERATED = "moderated"
    REACTED = "reacted"
    FAILED = "failed"
    CALL_ENDED = "call-ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of a conversation's change log.

    `target_id` names the message to clients: its archive id, else its message id; of a call it is the session id and
    `target_rank` 0. `author`: who reacted, or who moderated. `detail`: how a call ended (`CallState`), or the defined
    condition of the error. `stanza` is the correction or reaction as received, None where there is no text to keep:
    of other kinds, of what the server did not archive, and of messages that were retracted since.
    """

    conversation: ConversationKey
    version: int
    kind: ChangeKind
    target_rank: int
    target_id: str
    author: str | None = None
    detail: str | None = None
    stanza: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Behind:
    """How many messages of a conversation are unread behind a rank, and how many of them are mentions; `first`: the
    rank of the oldest unread one up to there.
    """

    unread: int
    mentions: int
    first: int | None = None


def key_of(identifier: str) -> str:
    """An id as it is indexed: itself, or its SHA-256 when longer than 128 bytes (ids are claims of any length by
    anyone).
    """
    data = identifier.encode()
    if len(data) <= MAX_KEY_BYTES and not identifier.startswith("sha256:"):
        return identifier
    return "sha256:" + sha256(data).hexdigest()
