"""Random histories of calls, messages and phones through the real rules: what rings, what wakes, what is left alone.

The moves and most laws are those of `tests.lives`: a VoIP push leaves for a call that rings, once for a call and
device; every call that begins to ring has a row in the ledger for every device; nobody is woken for what was fetched,
against a wish or in quiet hours; what may take an unfetched wake's place at the push service says as much. Here they
meet in small circles: few peers, phones that come, ask and go, and a vendor that refuses.
"""

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.model.call import CallState, CallStep
from sync.model.device import JobState, PushKind
from sync.model.event import CallMessage
from sync.rules.jobs import SUPPRESSED
from sync.rules.reasons import Why
from tests.contract.samples import BOB
from tests.lives import laws, moves, people, phones
from tests.lives.moves import Move
from tests.lives.world import World, in_order


def rings(w: World) -> None:
    """A friend calls while nobody looks."""
    content = CallMessage(CallStep.PROPOSE, f"r{len(w.fed)}", ("audio",))
    known = {"at": w.clock.now(), "known": True, "sessions": (), "stored": True, "blocked": False}
    w.feed(people.message(w, w.pick(w.folk), BOB, content, "in", **known))


def over(w: World) -> None:
    """A call that rings is answered, or given up."""
    ringing = [call for call in in_order(w.tables.calls) if call.state is CallState.RINGING]
    if ringing:
        call, (step, way) = w.pick(ringing), w.pick(((CallStep.RETRACT, "in"), (CallStep.PROCEED, "out")))
        content = CallMessage(step, call.session_id, ())
        w.feed(people.message(w, call.key.account, call.key.peer, content, way, blocked=False))


def a_moment(w: World) -> None:
    w.wait(w.pick((0.3, 1, 5, 10)))


CALLS: tuple[Move, ...] = (
    *moves.CALLS,
    *moves.CALLS,
    *moves.PHONES,
    phones.answer_push,
    people.pass_time,
    people.pass_time,
)
RINGS: tuple[Move, ...] = (
    rings,
    rings,
    over,
    a_moment,
    a_moment,
    *moves.PHONES,
    phones.claim_jobs,
    phones.refuse_rings,
)
WAKES: tuple[Move, ...] = (
    *moves.CHATS,
    *moves.PHONES,
    phones.answer_push,
    people.pass_time,
    people.ask,
    people.set_some,
)
ROOMS: tuple[Move, ...] = (*moves.AT_HOME, *moves.TO_MEMBERS, *moves.PHONES, people.pass_time)
HAILS: tuple[Move, ...] = (*moves.HAILS, *moves.HAILS, *moves.PHONES, phones.claim_jobs, phones.answer_push)
TOPICS = (RINGS, CALLS, WAKES, ROOMS, HAILS, (*CALLS, *WAKES))
STEPS = 60


def reasons_are_words(world: World) -> None:
    """What the ledger says of a push that did not leave, `explain` can say in a sentence."""
    for job in world.tables.jobs.values():
        outcome = job.outcome or ""
        assert not outcome.startswith(SUPPRESSED) or outcome.removeprefix(SUPPRESSED) in set(Why), outcome
        assert job.state is JobState.DONE or not outcome
        assert job.kind is not PushKind.REMOVED


@settings(suppress_health_check=list(HealthCheck))  # a history draws thousands of choices
@given(random=st.randoms(use_true_random=False), topic=st.sampled_from(TOPICS))
def test_histories(random: Random, topic: tuple[Move, ...]) -> None:
    world = moves.begun(random)
    former = world.tables
    for _ in range(STEPS):
        random.choice(topic)(world)
        laws.hold(world, former)
        reasons_are_words(world)
        former = world.tables
