"""The client's cache against a small server of the specification: pages, live notices, losses, resets, in any order,
end at what the server has; and whoever takes the events in order knows what the cache knows.
"""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sync.client import storage
from sync.client.cache import MAX_ENDED_CALLS, Cache, Step, apply, glance, silence
from sync.client.events import (
    CallEnded,
    CallRings,
    ConversationChanged,
    ConversationRemoved,
    Event,
    Happened,
    StartedOver,
    TotalsChanged,
)
from sync.client.values import GONE, Call, CallKey, Conversation, Key, Notice, Page, Totals
from tests.core.client_server import Server

KEYS = st.sampled_from([*(Key(f"p{n}@ex.net") for n in range(3)), Key("p0@ex.net", "group")])
CALLS = st.builds(CallKey, st.sampled_from(["p0@ex.net", "p1@ex.net"]), st.sampled_from(["s1", "s2", "s3"]))
PLACES = st.sampled_from([0, -1, 1])


class View:
    """What an app makes of the events: it has its own lists and looks at nothing else."""

    def __init__(self) -> None:
        self.rows: dict[Key, Conversation] = {}
        self.ringing: dict[CallKey, Call] = {}
        self.totals: Totals | None = None
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
        assert self.view.totals == self.cache.totals
        for versions in self.view.changes.values():
            assert versions == sorted(set(versions))

    def teardown(self) -> None:
        """Everything arrives, the server tells the rest, and the client asks where it knows that it must."""
        while self.wire or self.settle():
            while self.wire:
                self.arrive(self.wire.pop(0))
        assert self.cache.conversations == self.server.rows
        assert self.view.ringing.keys() == self.server.ringing
        assert self.cache.totals == self.server.totals
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


def test_a_known_call_keeps_ringing_without_being_told_again() -> None:
    server = Server()
    server.call(CallKey("p0@ex.net", "s1"), "ringing")
    first = apply(Cache(), server.sync(None, most=5, live=True))
    assert [type(event) for event in first.events][:1] == [CallRings]
    server.write(Key("p1@ex.net"))
    second = apply(first.cache, server.sync(first.cache.token, most=5, live=True))
    assert not [event for event in second.events if isinstance(event, CallRings | CallEnded)]
    assert len(second.cache.ringing) == 1


def test_what_it_stores_is_read_again_and_nothing_else_is() -> None:
    server = Server()
    for n in range(3):
        server.write(Key(f"p{n}@ex.net"))
    cache = apply(Cache(), server.sync(None, most=2, live=False)).cache
    assert cache.chain
    assert storage.loads(storage.dumps(cache)) == cache
    text = storage.dumps(cache)
    for wrong in ("", "{}", "[]", "null", text[:-1], text.replace('"format":1', '"format":2'), "[" * 100_000):
        with pytest.raises(ValueError, match=r"^This is no cache that this version can read\.$"):
            storage.loads(wrong)


def test_a_list_that_was_overtaken_by_a_notice_is_asked_for_again() -> None:
    """The whole list is of a moment before the notice; what the notice told is dropped with everything else."""
    server = Server()
    server.write(Key("p0@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    late = server.sync(None, most=5, live=True)
    server.write(Key("p1@ex.net"))
    notice = server.notice()
    assert notice
    overtaken = apply(apply(cache, notice).cache, late)
    assert overtaken.ask
    assert len(overtaken.cache.conversations) == 1


def test_what_was_owed_by_a_list_in_pages_is_told_though_notices_went_on() -> None:
    """A conversation that is bumped before its page was there: its older change comes with the next delta."""
    server, early, late = Server(), Key("p0@ex.net"), Key("p1@ex.net")
    for key in (early, late):
        server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=False)).cache
    server.correct(early)
    server.correct(late)
    cache = apply(cache, server.sync(cache.token, most=1, live=True)).cache
    server.write(early)
    assert cache.chain
    end = apply(cache, server.sync(cache.chain.token, most=1, live=False)).cache
    assert end.owed
    # A notice of a third one arrives; that of the early one is lost with the connection.
    server.write(Key("p2@ex.net"))
    assert server.watch
    server.watch.told = server.version - 1
    notice = server.notice()
    assert notice
    end = apply(end, replace(notice, previous=end.version)).cache
    delta = apply(end, server.sync(end.token, most=5, live=False))
    assert [event.key for event in delta.events if isinstance(event, Happened)] == [early]
    assert not delta.cache.owed
    assert delta.cache.token != end.token


def test_time_passes_for_a_call_also_where_nothing_is_new() -> None:
    proposed = datetime(2026, 1, 1, tzinfo=UTC)
    call = Call(id="s", jid="p@ex.net", state="ringing", version=3, proposed_at=proposed, age=2, left=58)
    page = Page(token="t1", version=3, calls=(call,), time=proposed + timedelta(seconds=2))
    cache = storage.loads(storage.dumps(apply(Cache(), page).cache))
    later = Page(asked="t1", token="t1", version=3, time=proposed + timedelta(seconds=42))
    (told,) = apply(cache, later).events
    assert told == CallRings(replace(call, age=42, left=18))
    too_late = Page(asked="t1", token="t1", version=3, time=proposed + timedelta(seconds=61))
    (told,) = apply(cache, too_late).events
    assert (type(told), told.call.state) == (CallEnded, GONE)


def test_a_call_that_was_dealt_with_here_does_not_ring_again() -> None:
    server, key = Server(), CallKey("p0@ex.net", "s1")
    server.call(key, "ringing")
    page = server.sync(None, most=5, live=True)
    cache = silence(apply(Cache(), page).cache, key).cache
    assert silence(cache, key) == Step(cache)
    server.write(Key("p1@ex.net"))
    step = apply(cache, server.sync(cache.token, most=5, live=True))
    assert not [event for event in step.events if isinstance(event, CallRings | CallEnded)]
    server.call(key, "answered")
    step = apply(step.cache, server.sync(step.cache.token, most=5, live=True))
    assert [event.call.state for event in step.events if isinstance(event, CallEnded)] == ["answered"]


def test_ended_calls_do_not_pile_up() -> None:
    server, cache = Server(), Cache()
    server.write(Key("p0@ex.net"))
    for n in range(MAX_ENDED_CALLS + 10):
        cache = apply(cache, server.sync(cache.token, most=5, live=False)).cache
        server.call(CallKey("p0@ex.net", f"s{n}"), "ringing")
        server.call(CallKey("p0@ex.net", f"s{n}"), "missed")
    cache = apply(cache, server.sync(cache.token, most=5, live=False)).cache
    assert len(cache.calls) == MAX_ENDED_CALLS
    assert CallKey("p0@ex.net", f"s{MAX_ENDED_CALLS + 9}") in cache.calls


def test_what_was_deleted_does_not_come_back_with_a_late_page() -> None:
    server, gone = Server(), Key("p0@ex.net")
    server.write(Key("p1@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(gone)
    late = server.sync(cache.token, most=5, live=False)
    server.delete(gone)
    notice = server.notice()
    assert notice
    cache = apply(apply(cache, notice).cache, late).cache
    assert gone not in cache.conversations
    # A new message brings it back; and what no late page can show is forgotten.
    assert gone in cache.removed
    server.write(gone)
    cache = apply(cache, server.sync(cache.token, most=5, live=True)).cache
    assert gone in cache.conversations
    assert cache.removed == {}


def test_notices_during_a_list_in_pages_need_no_question_afterwards() -> None:
    server = Server()
    for n in range(3):
        server.write(Key(f"p{n}@ex.net"))
    cache = apply(Cache(), server.sync(None, most=2, live=True)).cache
    server.write(Key("p3@ex.net"))
    notice = server.notice()
    assert notice
    cache = apply(cache, notice).cache
    assert cache.chain
    assert not cache.complete
    cache = apply(cache, server.sync(cache.chain.token, most=2, live=False)).cache
    assert (cache.complete, cache.version, cache.conversations) == (True, server.version, server.rows)
    server.write(Key("p3@ex.net"))
    notice = server.notice()
    assert notice
    assert not apply(cache, notice).ask


def test_a_late_page_has_no_say_in_the_badge() -> None:
    server, key = Server(), Key("p0@ex.net")
    server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(key)
    late = server.sync(cache.token, most=5, live=False)
    server.read(key)
    notice = server.notice()
    assert notice
    step = apply(apply(cache, notice).cache, late)
    assert (step.events, step.cache.totals) == ((), server.totals)
    assert step.cache.version == server.version


def test_a_change_that_is_told_twice_happens_once() -> None:
    """What is owed of one conversation makes the next delta tell the log of all of them again."""
    server, first, second = Server(), Key("p0@ex.net"), Key("p1@ex.net")
    for key in (first, second):
        server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=False)).cache
    server.correct(second)
    server.correct(first)
    step = apply(cache, server.sync(cache.token, most=1, live=False))
    assert [event.key for event in step.events if isinstance(event, Happened)] == [first]
    assert step.cache.chain
    server.correct(first)
    server.write(second)
    cache = apply(step.cache, server.sync(step.cache.chain.token, most=1, live=False)).cache
    step = apply(cache, server.sync(cache.token, most=5, live=False))
    told = {
        event.key: [change.version for change in event.changes] for event in step.events if isinstance(event, Happened)
    }
    assert told == {first: [server.version - 1], second: [3]}
