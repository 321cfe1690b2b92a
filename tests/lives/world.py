"""A small world to live in: four accounts, their peers and rooms, on a store in memory. Whatever is done to the store
goes through `transact`, `fanned` and `tidy`, which are written down as acts: another store can repeat them.

`random` chooses everything. In a property test it is Hypothesis's, so that a life shrinks; elsewhere a seeded one.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

from sync.adapters.zones import zone
from sync.model.books import Keys, Rule
from sync.model.call import CallKey
from sync.model.conversation import Change, Conversation, ConversationKey, IndexedMessage, Status
from sync.model.errors import Conflict, ItemNotFound
from sync.model.event import CallMessage, Event, FeedPosition, Session, SessionState
from sync.model.jid import domain
from sync.model.room import RoomEntry, RoomMember
from sync.ports import Retention
from sync.rules.fold import Policies, Report, take
from sync.rules.view import CallPolicy, Conduct
from sync.rules.wanted import keys
from sync.rules.wishes import WakePolicy
from tests.contract.fakes_housekeeping import MemoryHousekeeping
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_tables import Tables
from tests.contract.samples import ANN, BOB, CAT, EVE, NOW, TEA, seeing

T = TypeVar("T")

FAY, GUS = "fay@example.org", "gus@example.org"
ACCOUNTS = (ANN, EVE, FAY, GUS)
DEN = "den@rooms.example.org"  # like TEA a room of this server
ROOMS = (TEA, DEN)
CLUB = "club@rooms.example.com"  # of another server
PEERS = (BOB, CAT, EVE, f"{TEA}/Bob")
RESOURCES = ("ph", "web")
DAY = timedelta(days=1)
KEEPS = (
    Retention(messages=3, messages_at_least=1, message_age=DAY, changes=2, change_age=2 * DAY, horizon=DAY),
    Retention(messages=1, messages_at_least=1, message_age=90 * DAY, changes=0, change_age=DAY, horizon=30 * DAY),
    Retention(messages=6, messages_at_least=2, message_age=DAY / 4, changes=3, change_age=9 * DAY, horizon=DAY / 8),
)
REFUSALS = (ItemNotFound, Conflict)


@dataclass(frozen=True, kw_only=True)
class Transact:
    """A transaction, and with what it was refused."""

    at: datetime
    keys: Keys
    rule: Rule[Any]
    refused: type[Exception] | None = None


@dataclass(frozen=True, kw_only=True)
class Fanned:
    """All members have the entries of a room up to a rank."""

    room: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class Tidy:
    """These accounts and rooms have their turn."""

    at: datetime
    jids: tuple[str, ...]
    keep: Retention
    rows: Mapping[str, int]


Act = Transact | Fanned | Tidy


@dataclass
class Pass:
    """A fan-out under way: these entries went to the members up to `after`."""

    entries: Sequence[RoomEntry]
    after: str = ""


def policies_of(random: Random) -> Policies:
    """Any that an operator may set."""
    flags = [random.random() < 0.5 for _ in range(6)]
    return Policies(
        conduct=Conduct(calls=CallPolicy(missed_counts=flags[0]), sending_reads=flags[1], encrypted_apart=flags[5]),
        wakes=WakePolicy(
            filtering_apps=frozenset({"chat"}),
            reactions=flags[2],
            muted_mentions=flags[3],
            muted_calls=flags[4],
            zones=zone,
        ),
    )


@dataclass
class World:
    """The store, the clock, and what is remembered of this life."""

    random: Random
    clock: SetClock = field(default_factory=lambda: SetClock(NOW))
    fed: list[Event] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    passes: dict[str, Pass] = field(default_factory=dict)
    history: dict[str, list[Change]] = field(default_factory=dict)  # every entry of a change log that ever was
    rung: Counter[tuple[str, ...]] = field(default_factory=Counter)  # VoIP pushes that may have rung
    lives: Counter[str] = field(default_factory=Counter)  # how often an account began anew
    flying: list[tuple[str, str, CallMessage]] = field(default_factory=list)  # steps of calls, to whom and from whom
    told: Callable[[object], None] = lambda _: None

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.keeping = MemoryHousekeeping(self.store)
        self.policies = policies_of(self.random)
        # In a small circle more happens between the same.
        self.folk = (*ACCOUNTS[: self.pick((1, 2, 4))], ACCOUNTS[0])
        self.peers, self.halls = PEERS[: self.pick((1, 4))], ROOMS[: self.pick((1, 2))]
        self.transact(Keys(accounts=frozenset(ACCOUNTS), create=True), seeing())

    @property
    def tables(self) -> Tables:
        return self.store.tables

    def wait(self, seconds: float) -> None:
        self.clock.instant += timedelta(seconds=seconds)

    # ---- acts ----

    def transact(self, wanted: Keys, rule: Rule[T]) -> T | None:
        """None where the rule refuses."""
        former, refused, value = self.tables, None, None
        try:
            value = self.store.apply(wanted, rule)
        except REFUSALS as refusal:
            refused = type(refusal)
        self.acts.append(Transact(at=self.clock.now(), keys=wanted, rule=rule, refused=refused))
        for where, change in self.tables.changes.items():
            if where not in former.changes:
                self.history.setdefault(where[0], []).append(change)
        return value

    def feed(self, *events: Event) -> Report:
        """New events, in one batch."""
        self.fed += events
        self.told(events)
        return self.fold(events)

    def fold(self, events: Sequence[Event]) -> Report:
        policies = self.policies
        wanted = keys(events, several=policies.conduct.several)
        report = self.transact(wanted, lambda books: take(events, books, policies))
        assert report is not None
        return report

    def fanned(self, room: str, rank: int) -> None:
        run(self.store.fanned(room, rank))
        self.acts.append(Fanned(room=room, rank=rank))

    def tidy(self, jids: Sequence[str], keep: Retention) -> None:
        now = self.clock.now()
        self.keeping.trim_at = dict.fromkeys(jids, now)
        trimmed = self.keeping.tidy(now, keep, len(jids))
        # A session id of which nothing is known any more is that of a new call.
        calls, jobs = self.tables.calls, self.tables.jobs.values()
        known = {(key.account, key.peer, key.sid) for key in calls} | {(j.account, j.peer, j.sid or "") for j in jobs}
        for rung in [rung for rung in self.rung if (rung[0], *rung[2:]) not in known]:
            del self.rung[rung]
        rows = {table: count for table, count in trimmed.rows.items() if count}
        self.acts.append(Tidy(at=now, jids=tuple(jids), keep=keep, rows=rows))

    def position(self, account: str) -> FeedPosition:
        """The next one of the account's host."""
        return FeedPosition(domain(account), "stream", "main", len(self.fed) + 1)

    # ---- choices ----

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def pick(self, values: Sequence[T]) -> T:
        return self.random.choice(values)

    def some(self, values: Sequence[T]) -> list[T]:
        """A part of them, in their order."""
        return [value for value in values if self.chance(50)]

    def sessions(self) -> tuple[Session, ...]:
        states = list(SessionState)
        return tuple(Session(resource, self.pick(states)) for resource in RESOURCES if self.chance(25))

    def known(self, index: ConversationKey) -> list[IndexedMessage]:
        """What the index of a conversation has, and of those that are encrypted and kept apart from it."""
        return [message for message in in_order(self.tables.messages) if message.conversation.plain == index.plain]

    def target(self, index: ConversationKey, of: Callable[[IndexedMessage], bool] = lambda _: True) -> str:
        """An id of a message: mostly of one in the index that fits, now and then of another, or of none."""
        fitting = [message for message in self.known(index) if of(message)]
        anything = in_order(self.tables.messages)
        found = fitting if fitting and self.chance(85) else anything
        if not found or self.chance(5):
            return "nobody-said-this"
        message = self.pick(found)
        ids = [i for i in (message.archive_key, message.message_key, message.origin_key) if i is not None]
        return self.pick(ids) if ids else "nobody-said-this"

    # ---- what there is ----

    def mine(self, account: str) -> list[Conversation]:
        return [c for c in in_order(self.tables.conversations) if c.key.account == account]

    def listed(self, account: str) -> dict[ConversationKey, Conversation]:
        return {c.key: c for c in self.mine(account) if c.status is not Status.DELETED}

    def members(self, room: str, after: str = "", limit: int = 99) -> Sequence[RoomMember]:
        return run(self.store.members(room, after, limit))

    def pending(self) -> Sequence[str]:
        return run(self.store.pending_rooms(9))


def in_order(table: Mapping[Any, T]) -> list[T]:
    """Rows by their keys: that of a dictionary depends on the process's hashes."""
    return [table[key] for key in sorted(table, key=flat)]


def flat(key: Any) -> tuple[Any, ...]:
    if isinstance(key, ConversationKey | CallKey):
        return astuple(key)
    return (*astuple(key[0]), *key[1:]) if isinstance(key[0], ConversationKey) else tuple(key)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine of the store in memory, which waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it waits")
