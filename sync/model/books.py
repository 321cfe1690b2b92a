"""What a rule reads and writes within one transaction.

`Keys` says which rows to lock and load, `Books` are those rows, `Writes` the rows to store. A rule is a plain
function from books to a `Ruling`: it cannot await anything under a row lock, and runs again from the start when the
database asks for a retry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from sync.model.bootstrap import Bootstrap
from sync.model.call import Call, CallKey
from sync.model.conversation import Account, Behind, Change, Conversation, ConversationKey, IndexedMessage
from sync.model.device import Device, PushJob
from sync.model.event import FeedPosition
from sync.model.room import Room, RoomEntry, RoomMember

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LanePosition:
    """The key of a position: one lane of one stream (docs/feed.md §1)."""

    host: str
    stream: str
    shard: str
    lane: int

    @classmethod
    def of(cls, position: FeedPosition, lane: int) -> "LanePosition":
        """The lane's key in the stream of an event."""
        return cls(position.host, position.stream, position.shard, lane)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The rows to lock and load, always in the order of invariant 10.

    `accounts` and `rooms` are locked; with `create` missing ones are made. `ids` are looked up in the message index, in
    the named conversation (an id of any of the three sorts), `archived` likewise by archive id alone, `places` by rank.
    `behind`: for these conversations, what is unread behind each message that the lookups by id find in them, or in
    another with the same peer (in a room's index: for that account), and behind the ranks of `marks`. `calls`: by
    account and `key_of` the session id, with their conversations; `lines`: with these peers, all calls that are open,
    as if they were among `calls`. `devices`: the accounts' devices with the jobs that are open or belong to one of
    `calls`. `members`: by room and account; `nicks` by room and `nick_key`; `occupants` by room and occupant-id.
    """

    accounts: frozenset[str] = frozenset()
    create: bool = False
    conversations: frozenset[ConversationKey] = frozenset()
    ids: frozenset[tuple[ConversationKey, str]] = frozenset()
    archived: frozenset[tuple[ConversationKey, str]] = frozenset()
    behind: frozenset[ConversationKey] = frozenset()
    marks: frozenset[tuple[ConversationKey, int]] = frozenset()
    places: frozenset[tuple[ConversationKey, int]] = frozenset()
    calls: frozenset[tuple[str, str]] = frozenset()
    lines: frozenset[ConversationKey] = frozenset()
    devices: bool = False
    rooms: frozenset[str] = frozenset()
    members: frozenset[tuple[str, str]] = frozenset()
    nicks: frozenset[tuple[str, str]] = frozenset()
    occupants: frozenset[tuple[str, str]] = frozenset()
    positions: frozenset[LanePosition] = frozenset()


@dataclass(slots=True, kw_only=True)
class Books:
    """The loaded rows. `now` is the one instant of the whole transaction."""

    now: datetime
    accounts: dict[str, Account] = field(default_factory=dict)
    conversations: dict[ConversationKey, Conversation] = field(default_factory=dict)
    messages: dict[ConversationKey, list[IndexedMessage]] = field(default_factory=dict)
    behind: dict[tuple[ConversationKey, int], Behind] = field(default_factory=dict)
    calls: dict[CallKey, Call] = field(default_factory=dict)
    devices: dict[str, list[Device]] = field(default_factory=dict)
    jobs: dict[str, list[PushJob]] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    members: dict[tuple[str, str], RoomMember] = field(default_factory=dict)
    positions: dict[LanePosition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An event that is kept aside, with why (a fixed word or a constraint's name) and its XML."""

    position: FeedPosition
    account: str
    why: str
    event: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LostHost:
    """A host that has lost events, or a room: all of its accounts, or members, start over, at `version` at the least.
    `keep`: forget the positions of its other streams.
    """

    host: str
    version: int
    keep: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """Members of a room that the list `listing` did not name: they belong to it up to the rank `until`."""

    room: str
    listing: int
    until: int


@dataclass(slots=True, kw_only=True)
class Writes:
    """The rows to store: each replaces the stored row of its key. `retokened`: devices that hold other tokens from
    now on. `erased`: (conversation, rank) whose texts in the change log go. `deleted_accounts`: everything of
    theirs goes. `deleted_devices`: (account, device id). `bootstraps` are stored unless they were asked for anew.
    """

    accounts: list[Account] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)
    messages: list[IndexedMessage] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    erased: list[tuple[ConversationKey, int]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    retokened: list[Device] = field(default_factory=list)
    deleted_devices: list[tuple[str, str]] = field(default_factory=list)
    jobs: list[PushJob] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    members: list[RoomMember] = field(default_factory=list)
    unlisted: list[Unlisted] = field(default_factory=list)
    entries: list[RoomEntry] = field(default_factory=list)
    positions: dict[LanePosition, int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    deleted_accounts: list[str] = field(default_factory=list)
    lost_hosts: list[LostHost] = field(default_factory=list)
    bootstraps: list[Bootstrap] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling(Generic[T]):
    """What a rule decided: the rows to store, and what its caller is told once they are committed."""

    writes: Writes
    value: T


Rule = Callable[[Books], Ruling[T]]
