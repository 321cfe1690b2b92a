"""The store's roles: the state and its transactions, rooms on their way to their members, housekeeping, the feed's
marks, leases. All of them raise `StoreUnavailable` when the database does not answer in time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from sync.model.books import Keys, Rule
from sync.model.call import Call, CallKey
from sync.model.conversation import Account, ConversationKey, Kind
from sync.model.delta import CallQuery, DeltaPage, DeltaQuery
from sync.model.query import (
    ChangesPage,
    ConversationPage,
    InboxPage,
    InboxQuery,
    ListedConversation,
    ListQuery,
    RewritePage,
    RewriteQuery,
)
from sync.model.registry import ListedDevice
from sync.model.room import RoomEntry, RoomMember

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DueJob:
    """A push job to claim: enough to know which rows its claim needs."""

    account: str
    job_id: str
    lane: int
    peer: str
    about: Kind
    sid: str | None
    queue: str = ""


class Store(Protocol):
    """The one truth. Everything raises `StoreUnavailable` when the database does not answer in time."""

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        """Lock and load what `keys` name, run the rule, store what it wrote, commit; its value after the commit.

        The rule may run several times, and its exceptions end the transaction without a trace. `Uncommittable`: the
        database refuses the rows for what they contain.
        """
        ...

    async def account(self, jid: str) -> Account | None:
        """One account; one primary-key read."""
        ...

    async def page(self, account: str, query: ListQuery) -> ConversationPage:
        """A list of conversations and the version up to which it is complete, out of one snapshot (invariant 2). Last
        messages for which an answer has no space may be missing.
        """
        ...

    async def inbox(self, account: str, query: InboxQuery) -> InboxPage:
        """A page of the inbox and its counts, out of one snapshot."""
        ...

    async def conversations(self, keys: Sequence[ConversationKey]) -> Sequence[ListedConversation]:
        """Those of the named conversations that exist, deleted ones too, as a list shows them; in no order."""
        ...

    async def rewrites(self, account: str, query: RewriteQuery) -> RewritePage:
        """Corrections and retractions since a version, out of one snapshot."""
        ...

    async def changes(self, key: ConversationKey, since: int, limit: int) -> ChangesPage:
        """What happened in a conversation since a version, out of one snapshot. More than `limit` changes, or a version
        of which the log is not whole any more, are a reset.
        """
        ...

    async def delta(self, account: str, query: DeltaQuery) -> DeltaPage | None:
        """A page of what changed, newest version first, with the calls, out of one snapshot; the cost follows what
        changed. None = there is no such account.
        """
        ...

    async def call(self, account: str, query: CallQuery) -> Call | None:
        """The newest call of that session id, None = there is none."""
        ...

    async def devices(self, account: str) -> Sequence[ListedDevice]:
        """The account's devices with what the ledger has of them, registered last first."""
        ...

    async def token_owners(self, app: str, environment: str, digests: Sequence[bytes]) -> frozenset[str]:
        """The accounts whose devices hold these tokens."""
        ...

    async def node_owners(self, node: str) -> frozenset[str]:
        """The accounts whose devices have this node (XEP-0357)."""
        ...

    async def due_jobs(
        self, now: datetime, lanes: Sequence[int], limit: int, held: Collection[str] = ()
    ) -> Sequence[DueJob]:
        """Queued jobs that are due, by lane and time, of all queues but the held ones; not locked. What it costs does
        not depend on how much waits in those.
        """
        ...

    async def next_job_at(self, lanes: Sequence[int], held: Collection[str] = ()) -> datetime | None:
        """When the next queued job is due outside of the held queues, None = there is none."""
        ...

    async def overdue_jobs(self, now: datetime, queues: Collection[str], limit: int) -> Sequence[DueJob]:
        """Queued jobs for calls in these queues that have no time left: to end, not to send."""
        ...

    async def abandoned_jobs(self, before: datetime, limit: int) -> Sequence[DueJob]:
        """Jobs that were attempted before that instant and have no outcome: their worker died."""
        ...

    async def queue_depth(self, now: datetime) -> Mapping[int, tuple[int, float]]:
        """For each lane: how many jobs are due, and the age of the oldest in seconds."""
        ...

    async def expired_calls(self, now: datetime, limit: int) -> Sequence[CallKey]:
        """Calls that are still open, and should not be any more (`Call.over_at`), the longest over first."""
        ...


class Rooms(Protocol):
    """The entries of rooms on their way into their members' conversations."""

    async def pending_rooms(self, limit: int) -> Sequence[str]:
        """Rooms that have entries which not every member has yet."""
        ...

    async def entries(self, room: str, after: int, limit: int) -> Sequence[RoomEntry]:
        """The entries of a room that are kept, from behind the rank `after`, oldest first."""
        ...

    async def members(self, room: str, after: str, limit: int) -> Sequence[RoomMember]:
        """Members of a room, former ones included that may lack entries, ordered by account, from behind `after`."""
        ...

    async def memberships(self, account: str, rooms: Sequence[str]) -> Sequence[RoomMember]:
        """What one account is to these rooms."""
        ...

    async def fanned(self, room: str, rank: int) -> None:
        """Every member has the entries up to `rank`: drop them, and the members that left before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept. `messages`: of each conversation's index, at most that many, and of those older than
    `message_age` the newest `messages_at_least`; `changes` likewise, by `change_age`. `horizon`: how long ended calls,
    done pushes, and the tombstones of deleted conversations are held. `every`: how often an account has its turn.
    """

    messages: int = 5000
    messages_at_least: int = 50
    message_age: timedelta = timedelta(days=90)
    changes: int = 1000
    change_age: timedelta = timedelta(days=30)
    horizon: timedelta = timedelta(days=30)
    every: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """How many accounts and rooms had their turn, and how many rows of each table went."""

    turns: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)


class Housekeeping(Protocol):
    """Drops what need not be held any longer."""

    async def trim(self, now: datetime, retention: Retention, limit: int) -> Trimmed:
        """Drop what is older or more than is kept, of up to `limit` accounts and rooms whose turn it is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMark:
    """How far a stream is committed, as told to the module, and the newest n that the module is known to have given
    out. `good`: the server's time of the newest event below which nothing is missing, in microseconds; 0 = not known.
    """

    stream: str
    shard: str
    committed: int
    seen: int
    good: int = 0


class FeedMarks(Protocol):
    """What the component remembers of a host's streams beside the lanes' positions."""

    async def marks(self, host: str) -> Sequence[StreamMark]:
        """All streams of the host, in no order."""
        ...

    async def mark(self, host: str, marks: Sequence[StreamMark]) -> None:
        """Remember; committed, seen and good never go back."""
        ...

    async def forget(self, host: str, streams: Sequence[str]) -> None:
        """The module does not know these streams any more: drop their marks and positions."""
        ...

    async def raise_epochs(
        self, host: str, now: datetime, *, marks: Sequence[StreamMark] = (), forget: Sequence[str] = ()
    ) -> int:
        """Every account of the host starts over (invariant 4), and its archive is read again from the last time that is
        good; what was learnt with that is remembered as it is and forgotten in the same transaction. How many accounts
        those were.
        """
        ...


class Leases(Protocol):
    """Who may connect under which component JID (docs/feed.md §1): at most one process at a time."""

    async def acquire(self, name: str, holder: str) -> bool:
        """Take it or renew it; False while somebody else holds it."""
        ...

    async def release(self, name: str, holder: str) -> None:
        """Give it back, so that the next one need not wait."""
        ...
