"""Our own dialect's delta: what a client asks for, the token it keeps, and what it is told (docs/protocol.md).

A chain of pages is begun at one version of the account, S, and goes from the newest version down. What is bumped
meanwhile has a version above S, is on no later page, and comes with the next delta, which begins at S. Filter key and
cursor key are the version (invariant 2), so no writer makes a reader skip a row.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from sync.model.call import Call
from sync.model.conversation import Account, Change, Conversation, Kind, Status

MAX_CALLS = 50  # of an answer: those that ring, and as many that have changed
MAX_CHANGES = 100  # of one conversation in an answer; where there are more, the client loads it anew
MAX_STANZA_BYTES = 64 * 1024  # of one last message, and of all changes of one conversation


class Reset(StrEnum):
    """Why a client has to start over."""

    EPOCH = "epoch"  # the database was restored, or the feed has lost something
    FILTER = "filter"  # the token belongs to a list with other filters
    FUTURE = "future"  # of a version that this database has not reached
    EXPIRED = "expired"  # older than what is still held


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which conversations are asked for; None = whatever they are. `unread`: with unread messages or marked unread."""

    peer: str | None = None
    kind: Kind | None = None
    status: Status | None = None
    unread: bool | None = None
    pinned: bool | None = None

    @property
    def digest(self) -> bytes:
        """Eight bytes that tell filters apart; none where there is no filter."""
        if self == Filters():
            return b""
        values = (self.peer, self.kind, self.status, self.unread, self.pinned)
        return sha256(repr([value if value is None else str(value) for value in values]).encode()).digest()[:8]

    @property
    def may_change(self) -> bool:
        """True where a conversation can come to match, or cease to."""
        return (self.status, self.unread, self.pinned) != (None, None, None)

    def match(self, conversation: Conversation) -> bool:
        """True for what was asked for."""
        marked = conversation.unread > 0 or conversation.marked_unread
        return (
            self.concern(conversation)
            and self.status in (None, conversation.status)
            and self.unread in (None, marked)
            and self.pinned in (None, conversation.pinned > 0)
        )

    def concern(self, conversation: Conversation) -> bool:
        """True for what has the name and kind that was asked for; neither ever changes."""
        return self.peer in (None, conversation.key.peer) and self.kind in (None, conversation.key.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaToken:
    """Up to where a client was told. It has everything up to `since` (0 = nothing); of the epoch `epoch` of its account
    and of the filters of that digest.

    Within a chain of pages, `newest` is the version at which the chain was begun, and `low` the last version shown.
    `log` is the version since which change logs are told: `since`, or less, where a conversation may have been bumped
    while a chain was read, and so was left for the next delta with changes older than the chain.
    """

    epoch: int
    filters: bytes = b""
    since: int = 0
    log: int = 0
    newest: int = 0
    low: int | None = None

    @property
    def says_nothing(self) -> bool:
        """True where its client has been shown no conversation."""
        return self.since == 0 and self.low is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """`sync`. `limit` conversations, 0 = none. `messages`, `changes`: with last messages, with change logs. `preview`:
    of last messages the first so many characters, and nothing that is as it is by default; None = all. `at_least`: a
    version that the account is known to have reached. `device`: the node of the device that asks. `live`: whether the
    session is told of what changes from now on; None = as before.
    """

    token: DeltaToken | None = None
    filters: Filters = Filters()
    limit: int = 100
    messages: bool = True
    changes: bool = True
    preview: int | None = None
    at_least: int = 0
    device: str | None = None
    live: bool | None = None

    @property
    def wakes(self) -> bool:
        """True for the question of a phone that was woken: several of its processes may ask, each wants the calls."""
        return self.at_least > 0 or self.device is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuery:
    """One call: the newest one of that session id, with that peer where one is named."""

    session_id: str
    peer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaQuery:
    """A page of conversations whose versions are above `since` and below `below` (None = no bound), newest first.

    `since` 0 = everything but deleted ones; else deleted ones too, and those that ceased to match `filters`. `newest`:
    the version at which the chain was begun, None = it begins. `messages`: with last messages; `changes`: with change
    logs, since the version `log`.
    """

    filters: Filters = Filters()
    since: int = 0
    log: int = 0
    below: int | None = None
    newest: int | None = None
    limit: int
    messages: bool = True
    changes: bool = True

    @property
    def begins(self) -> bool:
        """True for the first page of a chain, which has the calls."""
        return self.below is None

    @property
    def whole_since(self) -> int:
        """The version since which nothing may have been dropped, lest the answer leave something out."""
        return self.since or self.newest or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaItem:
    """A conversation on a page. `matches` False: it changed and is not asked for (any more); nothing else is told of
    it. `mention_id`: the archive id of its first unread mention. `left_out`: its last message is too large; then, and
    where no messages are asked for, `conversation.last` is None. `changes` since the query's `log`, oldest first;
    None = they are too many, too large, or some are not held any more.
    """

    conversation: Conversation
    matches: bool = True
    mention_id: str | None = None
    left_out: bool = False
    changes: tuple[Change, ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaPage:
    """An answer out of one snapshot; `owner` as of that. `ringing` calls and, in a delta, those that `settled`: changed
    since and do not ring, none that the account has made itself. Newest first, at most `MAX_CALLS` of each, on a
    chain's first page only. `more`: there are conversations behind these.
    """

    query: DeltaQuery
    owner: Account
    ringing: tuple[Call, ...] = ()
    settled: tuple[Call, ...] = ()
    items: tuple[DeltaItem, ...] = ()
    more: bool = False

    @property
    def version(self) -> int:
        """The version at which the chain was begun, and which its reader reaches with it."""
        return self.owner.version if self.query.newest is None else self.query.newest

    def token(self, shown: int) -> DeltaToken:
        """What a client may keep that was shown the first `shown` conversations of the page."""
        query = self.query
        epoch, filters = self.owner.epoch, query.filters.digest
        if self.is_last(shown):
            # Who reads everything has nothing yet that older changes could be about.
            skipped = query.since > 0 and self.owner.version > self.version
            log = query.log if skipped else self.version
            return DeltaToken(epoch=epoch, filters=filters, since=self.version, log=log)
        if not shown and query.begins:
            return DeltaToken(epoch=epoch, filters=filters, since=query.since, log=query.log)
        low = self.items[shown - 1].conversation.version if shown else query.below
        return DeltaToken(epoch=epoch, filters=filters, since=query.since, log=query.log, newest=self.version, low=low)

    def is_last(self, shown: int) -> bool:
        """True where nothing is left behind the first `shown` conversations."""
        return not self.more and shown == len(self.items)
