"""What the feed reports, decoded: a closed union. One stanza is one event with one content.

The decoder (`sync.protocol.stanza`) chooses the content by precedence: call steps, then invitation, retraction,
correction, reaction, body, marker. Whatever has no meaning for state is `Nothing`, so that its position still moves.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sync.model.call import CallStep
from sync.model.conversation import Direction, Kind, Notify
from sync.model.room import Affiliation, Departure


class SessionState(StrEnum):
    """How attentive one session of an account is."""

    BOUND = "bound"  # connected, no presence sent
    ACTIVE = "active"
    INACTIVE = "inactive"  # XEP-0352
    HIBERNATED = "hibernated"  # XEP-0198: connection lost, waits for resumption


@dataclass(frozen=True, slots=True)
class Session:
    """One session of an account. `acked_at`: of a hibernated one, the server's time up to which its client is known to
    have had what was sent to it; None where the server does not tell.
    """

    resource: str
    state: SessionState
    acked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """Where an event stands in the feed (docs/feed.md §1)."""

    host: str
    stream: str
    shard: str
    n: int


# ---- contents of a message -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """Whom a message in a room means (XEP-0372, XEP-0513, XEP-0461): bare JIDs, occupant-ids, occupant JIDs,
    everybody; `reply_to` is the id of the message that it replies to.
    """

    jids: tuple[str, ...] = ()
    occupant_ids: tuple[str, ...] = ()
    occupants: tuple[str, ...] = ()
    everybody: bool = False
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A message to read. `encrypted`: its text is opaque; `sealed`, one-to-one: by which version of OMEMO. In rooms:
    `mentions`, and `text`, the beginning of what is said, without quoted text (XEP-0428), to find nicknames in.
    """

    encrypted: bool = False
    sealed: Kind | None = None
    mentions: Mentions | None = None
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Correction:
    """XEP-0308: replaces the sender's message with this id."""

    target: str


@dataclass(frozen=True, slots=True)
class Retraction:
    """XEP-0424: withdraws the sender's message with this id."""

    target: str


@dataclass(frozen=True, slots=True)
class Moderation:
    """XEP-0425: the room withdraws somebody's message with this stanza-id; `by`: the moderator's occupant JID."""

    target: str
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Reaction:
    """XEP-0444: the sender's reactions to the message with this id are now these; () = none any more."""

    target: str
    emojis: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Displayed:
    """XEP-0333, XEP-0490: displayed up to the message with this id; `stanza_ids` are further names for it that the
    marker carries.
    """

    target: str
    stanza_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """XEP-0184, XEP-0333 `received`: the message with this id arrived."""

    target: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """XEP-0249, XEP-0045 §7.8.2: somebody asks the account into the room that is the event's peer."""

    by: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """XEP-0402, XEP-0492: the account's bookmark of the room that is the event's peer; `notify` None = the default.
    `nick` as it means to be called.
    """

    notify: Notify | None = None
    nick: str | None = None


class Subscription(StrEnum):
    """RFC 6121 §3: what became of a peer's wish to see the account's presence. It is a content."""

    REQUESTED = "requested"
    WITHDRAWN = "withdrawn"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class CallMessage:
    """XEP-0353: a step of the call `session_id`. `media` (audio, video) only with a propose; `migrated` only with a
    finish: the session id of the call in which this one goes on. Of an invite in a room `session_id` is its sender's
    claim: the room's stanza-id goes before.
    """

    step: CallStep
    session_id: str
    media: tuple[str, ...] = ()
    migrated: str | None = None


@dataclass(frozen=True, slots=True)
class Bounce:
    """RFC 6120 §8.3: an error for a stanza that the account sent. `call` is the session id when a propose or a proceed
    came back, `condition` the error's defined condition.
    """

    target: str | None
    call: str | None = None
    condition: str = "undefined-condition"


@dataclass(frozen=True, slots=True)
class Nothing:
    """No meaning for state; `why` is one of a few fixed words, for the metrics."""

    why: str


Content = (
    Body
    | Correction
    | Retraction
    | Moderation
    | Reaction
    | Displayed
    | Receipt
    | Invitation
    | Bookmark
    | Subscription
    | CallMessage
    | Bounce
    | Nothing
)

# ---- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent:
    """Something in one conversation: a message that the account received or sent, or what its roster and its
    personal storage say about a peer.

    `sender` is the full JID in `from`, `resource` the account's own session concerned. `archive_id` is trusted: the
    module read it from the account's own archive, or the room gave it. `message_id` and `origin_id` are claims;
    `author` as in `IndexedMessage`, in rooms only. `stanza` is the message with its own namespace, empty where the
    event is no message. `stored`: false for hints that ask for no trace (XEP-0334). `blocked`: the account blocks the
    sender. `replayed`: out of a room's history. `rank`: its place, where it comes out of the archive.
    """

    position: FeedPosition
    account: str
    at: datetime
    direction: Direction
    peer: str
    sender: str
    content: Content
    stanza: str = field(repr=False)
    kind: Kind = Kind.CHAT
    resource: str | None = None
    archive_id: str | None = None
    message_id: str | None = None
    origin_id: str | None = None
    author: str | None = None
    rank: int | None = None
    known: bool = False
    blocked: bool = False
    to_self: bool = False
    replayed: bool = False
    stored: bool = True
    sessions: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocklistEvent:
    """XEP-0191: the account blocks these bare JIDs from now on, or no longer; `cleared`: it blocked nobody before
    `blocked` was added.
    """

    position: FeedPosition
    account: str
    at: datetime
    blocked: frozenset[str] = frozenset()
    unblocked: frozenset[str] = frozenset()
    cleared: bool = False


class SessionChange(StrEnum):
    """What happened to a session (docs/feed.md §5)."""

    BOUND = "bound"
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    ACTIVE = "active"
    INACTIVE = "inactive"
    HIBERNATED = "hibernated"
    RESUMED = "resumed"
    UNBOUND = "unbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """One session of the account came, went or changed. `acked_at`: as of `Session`, where it hibernates."""

    position: FeedPosition
    account: str
    at: datetime
    resource: str
    change: SessionChange
    acked_at: datetime | None = None


class AccountState(StrEnum):
    """Life of an account."""

    CREATED = "created"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEvent:
    """The account was made or removed on the server."""

    position: FeedPosition
    account: str
    at: datetime
    state: AccountState


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMessageEvent:
    """A message that a room of this server sent to its occupants; `account` is the room.

    `sender` is the occupant's full JID (the room's bare JID for the room's own words), `author` its real bare JID where
    the server says it, `archive_id` the room's stanza-id. `past`: it comes out of the room's archive; `counted` then
    says whether the members have it unread.
    """

    position: FeedPosition
    account: str
    at: datetime
    sender: str
    content: Content
    stanza: str = field(repr=False)
    private: bool = False
    author: str | None = None
    occupant_id: str | None = None
    archive_id: str | None = None
    message_id: str | None = None
    origin_id: str | None = None
    stored: bool = True
    past: bool = False
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What one account is to a room now. `why` where it is in the room no more."""

    account: str
    affiliation: Affiliation
    present: bool
    nick: str | None = None
    occupant_id: str | None = None
    why: Departure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMembersEvent:
    """Affiliations or presence in a room changed, or (between `begin` and `end`) all of them are listed; `account` is
    the room.
    """

    position: FeedPosition
    account: str
    at: datetime
    members: tuple[Membership, ...]
    private: bool = False
    begin: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomDestroyedEvent:
    """A room is no more; `account` is the room."""

    position: FeedPosition
    account: str
    at: datetime


class GapReason(StrEnum):
    """Why the module lost events (docs/feed.md §6)."""

    TORN = "torn"
    FULL = "full"
    WRITE_FAILED = "write-failed"
    UNREADABLE = "unreadable"
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class GapEvent:
    """Events of the host were lost before this one. `account` is the host; with `FULL` all other streams are given
    up.
    """

    position: FeedPosition
    account: str
    at: datetime
    reason: GapReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """An event that could not be decoded, or that breaks the domain rule. It is quarantined; `account` is empty when
    unknown. `room`: the account is a room.
    """

    position: FeedPosition
    account: str
    why: str
    xml: str = field(repr=False)
    room: bool = False


RoomEvent = RoomMessageEvent | RoomMembersEvent | RoomDestroyedEvent
Event = MessageEvent | BlocklistEvent | RoomEvent | SessionEvent | AccountEvent | GapEvent | Malformed
