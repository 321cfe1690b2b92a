"""The roles that the service needs played, and nothing about who plays them.

Each role has one contract suite under `tests/contract` that every player passes, the in-memory ones included.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from xml.etree.ElementTree import Element

from sync.model.books import Keys, Rule
from sync.model.call import CallKey
from sync.model.conversation import Account
from sync.model.device import PushJob
from sync.model.event import Session, SessionEvent
from sync.model.push import PushOutcome, PushRequest
from sync.model.query import ConversationPage, ListQuery, RewritePage, RewriteQuery

T = TypeVar("T")


class PushGate(Protocol):
    """Sends pushes of one vendor. Never raises for what the vendor or the network does: that is an outcome."""

    async def send(self, request: PushRequest) -> PushOutcome:
        """Send once; answer within the gate's own time limit. Cancelling the caller must not disturb other pushes."""
        ...

    async def close(self) -> None:
        """Finish what is in flight, within a limit, then close the connections."""
        ...


class ProviderTokens(Protocol):
    """The one APNs provider token of a key, shared by all processes (PUSH: one token, used for almost an hour)."""

    async def current(self) -> str:
        """The token to use now; minted first when there is none or it is about to expire."""
        ...

    async def refused(self, token: str) -> bool:
        """APNs called `token` expired. Mint a new one unless another process has, or the old one is younger than 20
        minutes; True when `current` now gives another token."""
        ...


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """An aware instant in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMark:
    """How far a stream is committed, as told to the module, and the newest n that the module is known to have given
    out.
    """

    stream: str
    shard: str
    committed: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueJob:
    """A push job to claim: enough to know which rows its claim needs."""

    account: str
    job_id: str
    lane: int
    peer: str
    sid: str | None


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
        """A list of conversations and the version up to which it is complete, out of one snapshot (invariant 2)."""
        ...

    async def rewrites(self, account: str, query: RewriteQuery) -> RewritePage:
        """Corrections and retractions since a version, out of one snapshot."""
        ...

    async def token_owners(self, app: str, environment: str, digests: Sequence[bytes]) -> frozenset[str]:
        """The accounts whose devices hold these tokens."""
        ...

    async def claim_ring(self, attempt: PushJob, version: int, follow: Sequence[PushJob]) -> bool:
        """Store the attempt of a queued job and what follows from it, if its account is still at `version` and the
        job was never tried; one round trip, under the account's lock like every other claim.
        """
        ...

    async def due_jobs(self, now: datetime, lanes: Sequence[int], limit: int) -> Sequence[DueJob]:
        """Queued jobs that are due, by lane and time; not locked."""
        ...

    async def next_job_at(self, lanes: Sequence[int]) -> datetime | None:
        """When the next queued job is due, None = there is none."""
        ...

    async def abandoned_jobs(self, before: datetime, limit: int) -> Sequence[DueJob]:
        """Jobs that were attempted before that instant and have no outcome: their worker died."""
        ...

    async def queue_depth(self, now: datetime) -> Mapping[int, tuple[int, float]]:
        """For each lane: how many jobs are due, and the age of the oldest in seconds."""
        ...

    async def expired_calls(self, now: datetime, limit: int) -> Sequence[CallKey]:
        """Calls that still count as ringing, and should not any more."""
        ...


class FeedMarks(Protocol):
    """What the component remembers of a host's streams beside the lanes' positions."""

    async def marks(self, host: str) -> Sequence[StreamMark]:
        """All streams of the host, in no order."""
        ...

    async def mark(self, host: str, marks: Sequence[StreamMark]) -> None:
        """Remember; committed and seen never go back."""
        ...

    async def forget(self, host: str, streams: Sequence[str]) -> None:
        """The module does not know these streams any more: drop their marks and positions."""
        ...

    async def raise_epochs(
        self, host: str, now: datetime, *, marks: Sequence[StreamMark] = (), forget: Sequence[str] = ()
    ) -> int:
        """Every account of the host starts over (invariant 4), and what was learnt with that is remembered as it is
        and forgotten in the same transaction; how many accounts those were.
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


class Sealer(Protocol):
    """Keeps push tokens and secrets unreadable at rest."""

    def seal(self, text: str) -> bytes:
        """Encrypted."""
        ...

    def open(self, sealed: bytes) -> str:
        """Decrypted."""
        ...

    def digest(self, text: str) -> bytes:
        """32 bytes, the same for the same text and key; tells nothing about it."""
        ...


class Wire(Protocol):
    """The component's connection to the server."""

    def send(self, stanza: Element) -> None:
        """Write a stanza; dropped when there is no connection (what must not get lost is in the store)."""
        ...

    def request(self, iq: Element) -> Awaitable[Element]:
        """Send an IQ get or set at once, in order with everything else; what is awaited is its result, or `Refused`
        for an error or no answer in time.
        """
        ...

    def pause(self) -> None:
        """Stop reading: the server's own queue fills up instead of our memory."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Presence(Protocol):
    """Who is online. It may forget everything at any moment and then says so; it never answers from what it knows to
    be torn.

    One writer for each host: the process that holds the host's feed. A lost write makes the host unknown until
    `reset`.
    """

    async def sessions(self, account: str) -> tuple[Session, ...] | None:
        """The account's sessions, by resource; () = offline for certain; None = not known: go by the event's own
        summary."""
        ...

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        """Take these changes, in the order given. Never raises; what cannot be written makes the host unknown."""
        ...

    async def reset(self, host: str, sessions: Mapping[str, Sequence[Session]]) -> None:
        """Replace all that is known of the host: every session by account, as its hello or `<sessions/>` lists them."""
        ...

    async def complete(self, host: str) -> bool:
        """False: the host is not known any more, ask it for its sessions and `reset`. The writer asks every few
        seconds, which also keeps what it wrote valid for the other processes."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


Hint = Mapping[str, str | int]


class Bus(Protocol):
    """Wakes other processes. Any hint may get lost: whoever listens also looks from time to time."""

    async def publish(self, topic: str, hint: Hint) -> None:
        """Tell everybody who listens, this process included. Never raises and never waits for a listener."""
        ...

    async def subscribe(self, topic: str, callback: Callable[[Hint], None]) -> None:
        """Call back with each hint; with an empty one when hints may have been missed, so: look for yourself.
        Callbacks return at once and do not raise. Returns when the subscription stands, or can only stand later.
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class Observer(Protocol):
    """Is told what happened, for the operator's eyes; decides nothing and never fails.

    Every string is one of a few fixed words, a configured name or a host: never a JID of a user, a token or an
    exception's text.
    """

    def events_committed(self, kind: str, count: int) -> None:
        """Events that took effect; `kind` of the feed: message, session, account, malformed."""
        ...

    def batch_committed(self, events: int, seconds: float) -> None:
        """One transaction of ingest, from its first statement to its commit."""
        ...

    def transaction_retried(self, why: str) -> None:
        """A transaction was rolled back and is tried again: deadlock, serialization, connection."""
        ...

    def quarantined(self, why: str) -> None:
        """An event was set aside."""
        ...

    def ignored(self, why: str, count: int = 1) -> None:
        """An event or stanza without meaning for state."""
        ...

    def epoch_raised(self, why: str) -> None:
        """Clients of a host or account have to start over: a side lost memory, or an event was set aside."""
        ...

    def feed_lag(self, host: str, events: int) -> None:
        """How far the newest event of the host is ahead of what is committed."""
        ...

    def ingest_waiting(self, events: int) -> None:
        """Events in memory that wait for their commit."""
        ...

    def query(self, dialect: str, outcome: str, seconds: float) -> None:
        """A client's IQ was answered: `outcome` is result, reset or the error's condition."""
        ...

    def notice(self, kind: str, outcome: str) -> None:
        """A live notice to connected clients: sent, refused, dropped."""
        ...

    def push(
        self,
        *,
        app: str,
        environment: str,
        push_type: str,
        priority: int,
        kind: str,
        outcome: str,
        reason: str | None,
        seconds: float,
    ) -> None:
        """One request to a push service and its end: `outcome` a Verdict, `reason` the vendor's word."""
        ...

    def suppressed(self, why: str, count: int = 1) -> None:
        """A push that was due and decided against: read, muted, online, over, late."""
        ...

    def coalesced(self, kind: str, count: int = 1) -> None:
        """A push that an earlier queued one already stands for."""
        ...

    def queue_depth(self, lane: str, jobs: int, oldest_seconds: float) -> None:
        """Due jobs of a lane (calls, messages, updates), and the age of the oldest."""
        ...

    def token_removed(self, reason: str) -> None:
        """A device token is dead by the vendor's word."""
        ...

    def breaker(self, name: str, is_open: bool) -> None:
        """Sending to a service stopped (open), or goes on."""
        ...

    def call_to_push(self, seconds: float) -> None:
        """From the server's time of a propose to the vendor's acceptance of its push."""
        ...

    def wake_to_fetch(self, kind: str, seconds: float) -> None:
        """From a push to the query that proves its arrival: `call` or `wake`."""
        ...

    def connection(self, host: str, up: bool) -> None:
        """The feed of a host: subscribed or not."""
        ...

    def dependency(self, name: str, up: bool) -> None:
        """What we lean on answers or not: postgres, redis, server."""
        ...

    def lease(self, held: bool) -> None:
        """This process is the one that speaks for the component, or stands by."""
        ...

    def presence_unknown(self, why: str) -> None:
        """Presence could not be told: error, breaker, incomplete, malformed."""
        ...
