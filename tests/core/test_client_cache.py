"""The client's cache against a small server of the specification: pages, live notices, losses, resets, in any order,
end at what the server has; and whoever takes the events in order knows what the cache knows.
"""

import copy
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sync.client import storage
from sync.client.cache import Cache, Step, apply, glance
from sync.client.events import (
    CallEnded,
    CallRings,
    ConversationChanged,
    ConversationRemoved,
    Event,
    Happened,
    QuietChanged,
    StartedOver,
    TotalsChanged,
)
from sync.client.values import FOR_EVER, Call, CallKey, Conversation, Key, Notice, Page, Quiet, Totals
from tests.core.client_server import Server

KEYS = st.sampled_from([*(Key(f"p{n}@ex.net") for n in range(3)), Key("p0@ex.net", "group")])
CALLS = st.builds(CallKey, st.sampled_from(["p0@ex.net", "p1@ex.net"]), st.sampled_from(["s1", "s2", "s3"]))
PLACES = st.sampled_from([0, -1, 1])
HOURS = Quiet(begin="22:00", end="07:30", zone="Europe/Berlin")
QUIETS = st.sampled_from(
    [None, HOURS, Quiet(until=datetime(2025, 1, 2, tzinfo=UTC), calls=True), Quiet(until=FOR_EVER)]
)


class View:
    """What an app makes of the events: it has its own lists and looks at nothing else."""

    def __init__(self) -> None:
        self.rows: dict[Key, Conversation] = {}
        self.ringing: dict[CallKey, Call] = {}
        self.totals: Totals | None = None
        self.quiet: Quiet | None = None
        self.loaded: dict[Key, int] = {}  # the version at which the app loaded the conversation's messages
        self.changes: dict[Key, list[int]] = {}

    def take(self, event: Event) -> None:
        match event:
            case CallRings(call):
                assert call.key not in self.ringing
                self.ringing[call.key] = call
            case CallEnded(call):
                self.ringing.pop(call.key, None)
            case StartedOver():
                self.rows, self.loaded, self.changes = {}, {}, {}
            case ConversationChanged(conversation, before):
                assert before == self.rows.get(conversation.key)
                if before is None:
                    self.loaded[conversation.key], self.changes[conversation.key] = conversation.version, []
                self.rows[conversation.key] = conversation
            case ConversationRemoved(conversation):
                assert self.rows.pop(conversation.key) == conversation
            case Happened(key, changes, reload):
                if reload:
                    self.loaded[key], self.changes[key] = self.rows[key].version, []
                else:
                    self.changes[key] += [change.version for change in changes]
            case TotalsChanged(totals):
                self.totals = totals
            case QuietChanged(quiet):
                assert quiet != self.quiet
                self.quiet = quiet


def in_order(events: tuple[Event, ...]) -> bool:
    """Calls before anything else, those that ring first."""
    ranks = [0 if isinstance(e, CallRings) else 1 if isinstance(e, CallEnded) else 2 for e in events]
    return ranks == sorted(ranks)


class Life(RuleBasedStateMachine):
    """A client, its server, and a wire on which everything may be late, and notices may get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.server, self.cache, self.view = Server(), Cache(), View()
        self.backup = copy.deepcopy(self.server)
        self.wire: list[Page | Notice] = []
        self.waiting = False  # for an answer
        self.behind = True  # something may be missing that no notice will tell of

    @initialize(keys=st.lists(KEYS, max_size=6))
    def begin(self, keys: list[Key]) -> None:
        for key in keys:
            self.server.write(key)

    # ---- what happens at the server --------------------------------------------------------------------------------

    @rule(key=KEYS, what=st.sampled_from(["write", "read", "correct", "delete"]), told=st.booleans())
    def happen(self, key: Key, what: str, told: bool) -> None:
        getattr(self.server, what)(key)
        if told:
            self.notify()

    @rule(key=CALLS, state=st.sampled_from(["ringing", "answered", "missed"]), told=st.booleans())
    def call(self, key: CallKey, state: str, told: bool) -> None:
        self.server.call(key, state)
        if told:
            self.notify()

    @rule(quiet=QUIETS, told=st.booleans())
    def keep_quiet(self, quiet: Quiet | None, told: bool) -> None:
        self.server.hush(quiet)
        if told:
            self.notify()

    @rule()
    def expire(self) -> None:
        self.server.expire()

    @rule()
    def back_up(self) -> None:
        self.backup = copy.deepcopy(self.server)

    @rule()
    def restore(self) -> None:
        self.server.restore(self.backup)
        self.behind = self.behind or self.server.watch is None

    @rule()
    def notify(self) -> None:
        if notice := self.server.notice():
            self.wire.append(notice)

    # ---- what happens at the client --------------------------------------------------------------------------------

    @precondition(lambda self: not self.waiting)
    @rule(most=st.integers(1, 4), live=st.booleans())
    def ask(self, most: int, live: bool) -> None:
        self.wire.append(self.asked(most, live=live))
        self.waiting = True

    @precondition(lambda self: not self.waiting)
    @rule(most=st.integers(1, 4))
    def start_over(self, most: int) -> None:
        self.wire.append(self.server.sync(None, most=most, live=True))
        self.waiting = True

    @precondition(lambda self: not self.waiting and self.cache.chain is not None)
    @rule()
    def look(self) -> None:
        """As a phone does that was stopped amid its pages: first of all what rings."""
        page = self.server.sync(self.cache.token, most=0, live=False)
        self.take(glance(self.cache, page))

    @precondition(lambda self: self.wire)
    @rule(place=PLACES)
    def deliver(self, place: int) -> None:
        self.arrive(self.wire.pop(place % len(self.wire)))

    @precondition(lambda self: self.wire)
    @rule(place=PLACES)
    def lose(self, place: int) -> None:
        lost = self.wire.pop(place % len(self.wire))
        self.waiting = self.waiting and not isinstance(lost, Page)
        self.behind = True

    @rule()
    def end(self) -> None:
        """The client ends and starts again from what it stored."""
        self.wire, self.waiting, self.behind, self.server.watch = [], False, True, None
        stored = self.cache
        self.cache = storage.loads(storage.dumps(stored))
        assert self.cache == replace(stored, untold=frozenset(call.key for call in stored.ringing))
        self.view.ringing = {}

    def asked(self, most: int, *, live: bool) -> Page:
        if self.cache.chain:
            return self.server.sync(self.cache.chain.token, most=most, live=False)
        page = self.server.sync(self.cache.token, most=most, live=live)
        self.behind = not live and (self.behind or self.server.watch is None)
        return page

    def arrive(self, item: Page | Notice) -> None:
        self.waiting = self.waiting and not isinstance(item, Page)
        step = apply(self.cache, item)
        self.take(step)
        again = apply(self.cache, item) if isinstance(item, Notice) else None
        assert again is None or (again.cache, again.events) == (self.cache, ())

    def take(self, step: Step) -> None:
        assert in_order(step.events)
        for event in step.events:
            self.view.take(event)
        self.cache = step.cache
        self.behind = self.behind or step.ask

    # ---- what holds ------------------------------------------------------------------------------------------------

    @invariant()
    def the_events_say_what_the_cache_says(self) -> None:
        assert self.view.rows == self.cache.conversations
        assert self.view.ringing.keys() == {call.key for call in self.cache.ringing} - self.cache.untold
        assert (self.view.totals, self.view.quiet) == (self.cache.totals, self.cache.quiet)
        for versions in self.view.changes.values():
            assert versions == sorted(set(versions))

    def teardown(self) -> None:
        """Everything arrives, the server tells the rest, and the client asks where it knows that it must."""
        while self.wire or self.settle():
            while self.wire:
                self.arrive(self.wire.pop(0))
        assert self.cache.conversations == self.server.rows
        assert self.view.ringing.keys() == self.server.ringing
        assert (self.cache.totals, self.cache.quiet) == (self.server.totals, self.server.quiet)
        for key, loaded in self.view.loaded.items():
            if key in self.view.rows:
                log = [change.version for change in self.server.log.get(key, []) if change.version > loaded]
                assert [version for version in self.view.changes[key] if version > loaded] == log

    def settle(self) -> bool:
        if notice := self.server.notice():
            self.wire.append(notice)
        elif self.behind or self.cache.chain:
            self.wire.append(self.asked(3, live=True))
        return bool(self.wire)


TestLife = Life.TestCase
