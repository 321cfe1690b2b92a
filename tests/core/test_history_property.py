"""Random archives, read in pages of any size while their owner is written to, with events that the feed has lost: in
the end the counters are a recount, and what is unread and last is what the archive says, however it came.

`Truth` says it a second time, for each conversation and from the archive alone: what somebody wrote to Ann since the
first contact, and did not take back, is unread behind the furthest of her markers; of before, what is behind the marker
of her own storage.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.model.books import Keys
from sync.model.conversation import ENCRYPTED, ConversationKey, Direction, Kind
from sync.model.event import Body, Correction, Displayed, FeedPosition, MessageEvent, Nothing, Reaction, Retraction
from sync.rules.fold import Policies, take
from sync.rules.view import Conduct
from sync.rules.wanted import keys
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, BOB, CAT, NOW, seeing
from tests.core.rule_feed import stanza
from tests.core.rule_history import Archive
from tests.core.rule_outcome import text_of, wrong

PEERS = (BOB, CAT)


@dataclass
class Truth:
    """One conversation, as the archive has it."""

    order: list[MessageEvent] = field(default_factory=list)  # bodies
    read: int = -1  # the furthest of `order` that is read
    texts: dict[str, str] = field(default_factory=dict)
    retracted: set[str] = field(default_factory=set)

    @property
    def unread(self) -> int:
        behind = self.order[self.read + 1 :]
        return sum(e.direction is Direction.IN and e.message_id not in self.retracted for e in behind)

    @property
    def last(self) -> str:
        newest = self.order[-1].message_id or ""
        return "" if newest in self.retracted else self.texts[newest]


class Life:
    """Ann's archive, and her account."""

    def __init__(self, random: Random, *, apart: bool = False) -> None:
        self.random, self.policies = random, Policies(conduct=Conduct(encrypted_apart=apart))
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.store.apply(Keys(accounts=frozenset({ANN}), create=True), seeing())
        self.archive = Archive(self.store, ANN, self.policies)
        self.truth: dict[ConversationKey, Truth] = defaultdict(Truth)
        self.items: list[MessageEvent] = []
        self.fed = self.taken = 0
        before = random.randrange(12)
        times = sorted(NOW - timedelta(microseconds=random.randrange(1, 10**9)) for _ in range(before))
        for at in times:
            self.happen(at)
        for peer in PEERS:
            self.read_before(peer)

    def read_before(self, peer: str) -> None:
        """What is known of the time before the first contact: all is read, or up to where Ann's own storage says, for
        all conversations with that peer, or a marker in one of them.
        """
        mark = self.random.choice(self.said(peer))[1] if self.said(peer) and self.random.random() < 0.5 else None
        if mark is not None:
            self.archive.marked[ConversationKey(ANN, peer)] = mark.archive_id or ""
        markers = {e.content.target for e in self.items if isinstance(e.content, Displayed) and e.peer == peer}
        for key, truth in self.truth.items():
            if key.peer == peer:
                end = mark.position.n if mark is not None else len(self.items)
                read = [n for n, e in enumerate(truth.order) if e.position.n <= end or e.message_id in markers]
                truth.read = max(read, default=-1)

    def said(self, peer: str) -> list[tuple[Truth, MessageEvent]]:
        """All bodies, and of which conversation they are part."""
        return [(truth, e) for key, truth in self.truth.items() if key.peer == peer for e in truth.order]

    def happen(self, at: datetime) -> MessageEvent:
        """The next item of the archive."""
        n, peer = len(self.items), self.random.choice(PEERS)
        said, out = self.said(peer), self.random.random() < 0.3
        mine = [(t, e) for t, e in said if (e.direction is Direction.OUT) is out and e.message_id not in t.retracted]
        dice = self.random.random()
        sealed = self.random.choice((None, None, *ENCRYPTED)) if self.policies.conduct.encrypted_apart else None
        content: Any = Body(encrypted=sealed is not None, sealed=sealed)
        if dice < 0.12 and mine:
            truth, target = self.random.choice(mine)
            content = Correction(target.message_id or "")
            truth.texts[content.target] = f"t{n}"
        elif dice < 0.2 and mine:
            truth, target = self.random.choice(mine)
            content = Retraction(target.message_id or "")
            truth.retracted.add(content.target)
        elif dice < 0.25 and said:
            content = Reaction(self.random.choice(said)[1].message_id or "", ("x",))
        elif dice < 0.4 and said:
            out, (truth, target) = True, self.random.choice(said)
            content = Displayed(target.message_id or "")
            truth.read = max(truth.read, truth.order.index(target))
        event = MessageEvent(
            position=FeedPosition("example.org", "s", "0", n + 1),
            account=ANN,
            at=at,
            direction=Direction.OUT if out else Direction.IN,
            peer=peer,
            sender=f"{ANN}/desk" if out else f"{peer}/desk",
            content=content,
            stanza=stanza(f"t{n}"),
            archive_id=f"a{n}",
            message_id=f"m{n}",
        )
        if isinstance(content, Body):
            truth = self.truth[ConversationKey(ANN, peer, sealed or Kind.CHAT)]
            truth.order.append(event)
            truth.texts[f"m{n}"] = f"t{n}"
        self.items.append(event)
        return event

    def live(self, lost: int) -> None:
        """Something happens, and the feed tells of it after a while, or loses it."""
        self.clock.instant += timedelta(microseconds=self.random.randrange(20, 10**6))
        event = self.happen(self.clock.instant)
        self.clock.instant += timedelta(microseconds=self.random.randrange(20, 10**6))
        if self.random.randrange(100) >= lost:
            several = self.policies.conduct.several
            self.store.apply(keys([event], several=several), lambda books: take([event], books, self.policies))

    def page(self) -> None:
        """The next items of the archive."""
        size = self.random.randrange(1, 8)
        some = [replace(e, position=FeedPosition("", "", "", 0)) for e in self.items[self.taken : self.taken + size]]
        self.taken += len(some)
        if some:
            self.archive.page(some)
        assert wrong(self.store.tables) == []

    def read_again(self) -> None:
        self.archive.begin()
        self.taken = 0
        while self.taken < len(self.items):
            self.page()
        nothing = replace(self.items[0], content=Nothing(""), direction=Direction.OUT, stanza="", rank=None)
        self.archive.finish(nothing)

    def seen(self) -> dict[ConversationKey, tuple[int, str]]:
        found = self.store.tables.conversations.values()
        return {c.key: (c.unread, text_of(c.last.stanza if c.last else None)) for c in found if c.last}

    def expected(self) -> dict[ConversationKey, tuple[int, str]]:
        return {key: (truth.unread, truth.last) for key, truth in self.truth.items() if truth.order}


def lived(random: Random, lost: int, *, apart: bool = False) -> Life:
    life = Life(random, apart=apart)
    for _ in range(random.randrange(2, 25)):
        life.page() if random.random() < 0.4 else life.live(lost)
    while life.taken < len(life.items):
        life.page()
    if life.items:
        life.read_again()
    return life


@settings(max_examples=300)
@given(random=st.randoms(use_true_random=False), lost=st.sampled_from([0, 50, 100]), apart=st.booleans())
def test_an_archive_and_live_traffic_in_any_order(random: Random, lost: int, apart: bool) -> None:
    life = lived(random, lost, apart=apart)
    assert life.seen() == life.expected()
    assert life.store.tables.jobs == {}
    if life.items:
        index = dict(life.store.tables.messages)
        life.read_again()
        assert (life.seen(), life.store.tables.messages) == (life.expected(), index)


@pytest.mark.parametrize("seed", range(200))
def test_longer_ones(seed: int) -> None:
    for apart in (False, True):
        life = lived(Random(seed), 30, apart=apart)  # noqa: S311 - a test
        assert life.seen() == life.expected()


def test_and_a_rule_that_counts_what_is_read_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.rules.history.read_along", lambda before, *_: before.conversation)
    wrong_ones = [seed for seed in range(40) if (life := lived(Random(seed), 30)).seen() != life.expected()]  # noqa: S311
    assert wrong_ones


def test_what_came_live_in_a_burst_is_where_it_is() -> None:
    """Ranks of one moment lie close together: each event's own time is the place of another."""
    life = Life(Random(4))  # noqa: S311
    life.items.clear()
    life.clock.instant += timedelta(seconds=1)
    at = life.clock.instant
    events = [life.happen(at + timedelta(microseconds=n)) for n in range(60)]
    life.store.apply(keys(events), lambda books: take(events, books, Policies()))
    before = life.seen()
    life.read_again()
    assert life.seen() == before


def test_what_was_lost_in_a_burst_takes_a_place_behind_it() -> None:
    life = Life(Random(4))  # noqa: S311
    bodies = [replace(lost(n), at=life.clock.instant) for n in range(500)]
    live, late = bodies[:-1], bodies[-1]
    life.store.apply(keys(live), lambda books: take(live, books, Policies()))
    life.archive.page([late])
    assert life.archive.turns <= 12
    assert len(life.store.tables.messages) == 500


def lost(n: int) -> MessageEvent:
    """A message of Bob's to Ann."""
    return MessageEvent(
        position=FeedPosition("example.org", "s", "0", n + 1),
        account=ANN,
        at=NOW,
        direction=Direction.IN,
        peer=BOB,
        sender=f"{BOB}/desk",
        content=Body(),
        stanza=stanza(f"t{n}"),
        archive_id=f"b{n}",
        message_id=f"b{n}",
    )
