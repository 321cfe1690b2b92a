"""The table of calls as a whole: what it may lead to, its vectors, and that docs/state.md shows it."""

import tomllib
from collections import defaultdict
from itertools import product
from pathlib import Path
from random import Random

from hypothesis import event, given
from hypothesis import strategies as st

from sync.model.call import CallKey, CallState, CallStep
from sync.model.conversation import Direction
from sync.rules.calls import FIRST, NEXT, TERMINAL, By, Turn, following
from tests.lives import laws, moves, people, phones
from tests.lives.world import DAY

ROOT = Path(__file__).parent.parent.parent
SIDES = {By.CALLER: " by the caller", By.CALLED: " by the called", By.EITHER: "", By.ANOTHER: " by another member"}
ENDS = {CallState.RINGING: "time is up", CallState.OUTGOING: "a day is over", CallState.ANSWERED: "a day is over"}
BEGINS = {Direction.IN: "incoming", Direction.OUT: "outgoing"}


def word(what: CallStep | Turn) -> str:
    match what:
        case CallStep.YIELD:
            return "tie-break"
        case Turn.BOUNCED:
            return "error for a stanza"
        case _:
            return what.value


def drawn() -> str:
    """The table as a Mermaid diagram: one arrow for each two states, with all that leads from one to the other."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (way, how), state in FIRST.items():
        arrows["[*]", state].append(f"{how}, {BEGINS[way]}")
    arrows["[*]", CallState.CLOSED].append(f"{' or '.join(sorted(map(word, TERMINAL)))} before its propose")
    for (was, by, what), state in NEXT.items():
        arrows[was, state].append(ENDS[was] if what is Turn.OUT else word(what) + SIDES[by])
    lines = [f"    {was} --> {state}: {', or '.join(words)}" for (was, state), words in arrows.items()]
    over = [f"    {state} --> [*]" for state in CallState if not state.is_open]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, *over, "```"])


def test_the_diagram_is_the_table() -> None:
    assert drawn() in (ROOT / "docs" / "state.md").read_text()


def test_what_is_over_stays_over() -> None:
    for state, by, what in product(CallState, By, (*CallStep, *Turn)):
        following_state = following(state, by, what)
        assert following_state is None or (state.is_open and following_state not in (state, CallState.RINGING))


def test_only_an_open_call_has_an_end_by_time_alone() -> None:
    ending = {state for state in CallState if following(state, By.TIME, Turn.OUT)}
    assert ending == {state for state in CallState if state.is_open}


def test_no_row_of_one_side_contradicts_that_of_either() -> None:
    assert not {(was, what) for was, by, what in NEXT if by is By.EITHER} & {
        (was, what) for was, by, what in NEXT if by is not By.EITHER
    }


def test_every_vector_of_a_call_says_by_which_section() -> None:
    file = tomllib.loads((ROOT / "tests" / "vectors" / "rules" / "calls.toml").read_text())
    cited = [vector.get("cites", file["cites"]) for vector in file["vector"]]
    assert all("XEP-0" in cites or "PROTOCOLS §6" in cites or "RFC" in cites for cites in cited)


@given(seed=st.integers(0, 2**32))
def test_two_that_call_each_other_agree(seed: int) -> None:
    """What rings at one is on its way at the other, once everything has arrived, whoever called, crossed or hung up."""
    world = moves.begun(Random(seed))  # noqa: S311 - a test
    former = world.tables
    for _ in range(40):
        world.random.choice((*moves.TALKS, phones.claim_jobs, phones.answer_push, phones.fetch))(world)
        if not world.flying and world.chance(10):
            world.wait(world.pick((1, 61, DAY.total_seconds())))
            people.ring_out(world)
        laws.hold(world, former)
        former = world.tables
    while world.flying:
        people.hear(world)
    calls = world.tables.calls
    ringing = [key for key, call in calls.items() if call.state is CallState.RINGING]
    event(f"{len(ringing)} ring")
    assert all(calls[CallKey(k.peer, k.account, k.sid)].state is CallState.OUTGOING for k in ringing)
    waiting = {(key.account, key.peer) for key in ringing}
    assert not any((peer, account) in waiting for account, peer in waiting)
