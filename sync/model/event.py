"""What the feed reports, decoded: a closed union. One stanza is one event with one content.

The decoder (`sync.protocol.stanza`) chooses the content by precedence: call steps, then retraction, correction,
marker, body. Whatever has no meaning for state is `Nothing`, so that its position still moves.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sync.model.conversation import Direction, Kind


class SessionState(StrEnum):
    """How attentive one session of an account is."""

    BOUND = "bound"  # connected, no presence sent
    ACTIVE = "active"
    INACTIVE = "inactive"  # XEP-0352
    HIBERNATED = "hibernated"  # XEP-0198: connection lost, waits for resumption


@dataclass(frozen=True, slots=True)
class Session:
    """One session of an account."""

    resource: str
    state: SessionState


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """Where an event stands in the feed (docs/feed.md §1)."""

    host: str
    stream: str
    shard: str
    n: int


# ---- contents of a message -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Body:
    """A message to read. `encrypted`: its text is opaque."""

    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """XEP-0308: replaces the sender's message with this id."""

    target: str


@dataclass(frozen=True, slots=True)
class Retraction:
    """XEP-0424: withdraws the sender's message with this id."""

    target: str


@dataclass(frozen=True, slots=True)
class Displayed:
    """XEP-0333: displayed up to the message with this id; `stanza_ids` are further names for it that the marker
    carries.
    """

    target: str
    stanza_ids: tuple[str, ...] = ()


class CallStep(StrEnum):
    """XEP-0353 §4–5: one step of a call's negotiation. `accept` of older clients is read as `proceed`."""

    PROPOSE = "propose"
    RINGING = "ringing"
    PROCEED = "proceed"
    REJECT = "reject"
    RETRACT = "retract"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class CallMessage:
    """XEP-0353: a step of the call `session_id`. `media` (audio, video) only with a propose."""

    step: CallStep
    session_id: str
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounce:
    """RFC 6120 §8.3: an error for a stanza that the account sent. `call` is the session id when a propose came back."""

    target: str | None
    call: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """No meaning for state; `why` is one of a few fixed words, for the metrics."""

    why: str


Content = Body | Correction | Retraction | Displayed | CallMessage | Bounce | Nothing

# ---- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent:
    """A message that the account received or sent.

    `sender` is the full JID in `from`, `resource` the account's own session concerned. `archive_id` is trusted: the
    module read it from the account's own archive. `message_id` and `origin_id` are claims. `stanza` is the message
    with its own namespace. `stored`: false for hints that ask for no trace (XEP-0334).
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
    known: bool = False
    to_self: bool = False
    stored: bool = True
    sessions: tuple[Session, ...] = ()


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
    """One session of the account came, went or changed."""

    position: FeedPosition
    account: str
    at: datetime
    resource: str
    change: SessionChange


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
    unknown.
    """

    position: FeedPosition
    account: str
    why: str
    xml: str = field(repr=False)


Event = MessageEvent | SessionEvent | AccountEvent | GapEvent | Malformed
