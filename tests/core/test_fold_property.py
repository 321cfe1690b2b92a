"""Random lives of four accounts: whatever happens in whatever order, the books balance and no client misses a thing.

The moves are in `tests.lives`, the laws in `tests.lives.laws`; they hold after every move. Clients sync at random
moments, all at once or page by page while others write. `make nightly` lives longer.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.lives import laws, moves
from tests.lives.clients import READERS, Clients
from tests.lives.moves import Move
from tests.lives.world import ACCOUNTS

randoms = st.randoms(use_true_random=False)
accounts = st.sampled_from(ACCOUNTS)
STEPS = 80


def one_of(made: Sequence[Move]) -> Any:
    """A rule that makes one of the moves."""

    def make(self: "Lives", move: Move, random: Random) -> None:
        self.world.random = random
        move(self.world)

    return rule(move=st.sampled_from(made), random=randoms)(make)


class Lives(RuleBasedStateMachine):
    """Everything that may happen."""

    @initialize(random=randoms)
    def begin(self, random: Random) -> None:
        self.world = moves.begun(random)
        self.world.told = lambda events: note(str(events))
        self.former = self.world.tables
        self.clients = Clients(self.world)

    people_talk = one_of(moves.CHATS)
    people_ring = one_of(moves.CALLS)
    people_meet_abroad = one_of(moves.ABROAD)
    people_meet_at_home = one_of(moves.AT_HOME)
    members_are_told = one_of(moves.TO_MEMBERS)
    members_are_told_more = one_of(moves.TO_MEMBERS)
    members_come_and_go = one_of(moves.COMINGS)
    owners_have_wishes = one_of(moves.OWNERS)
    time_passes = one_of(moves.TIME)
    the_feed_is_strange = one_of(moves.FEED)
    rooms_are_strange = one_of(moves.SELDOM)
    phones_are_busy = one_of(moves.PHONES)

    @rule(account=accounts, which=st.integers(0, READERS - 1), limit=st.sampled_from([None, 1, 2]))
    def a_client_reads(self, account: str, which: int, limit: int | None) -> None:
        self.clients.read(account, which, limit)

    @rule(account=accounts, limit=st.sampled_from([1, 3, 100]))
    def a_client_follows(self, account: str, limit: int) -> None:
        self.clients.follow(account, limit)

    @invariant()
    def laws_hold(self) -> None:
        if self.world.tables is not self.former:
            laws.hold(self.world, self.former)
        self.former = self.world.tables

    def teardown(self) -> None:
        """In the end every client asks once more."""
        if hasattr(self, "clients"):
            self.clients.finish()


TestLives = Lives.TestCase


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    nightly = request.config.getoption("--hypothesis-profile") == "nightly"
    return range(3000) if nightly else range(80)


def test_long_lives(seeds: range) -> None:
    """Hypothesis makes many short lives and shrinks them; these are long, and go where it seldom comes."""
    for seed in seeds:
        try:
            moves.live(Random(seed), STEPS)  # noqa: S311 - a test
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
