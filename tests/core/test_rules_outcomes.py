"""What follows from answers to pushes, where the vectors (tests/vectors/rules/claims.toml) do not go: several at once,
devices that get too much, attempts that are long over.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.push import PushOutcome, Verdict
from sync.rules.fold import Policies
from sync.rules.outcomes import Answer, back_off, settle_all
from sync.rules.wishes import WakePolicy
from tests.contract.samples import ANN, NOW, account, after, call_job, device, job, token

FILTERING = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
PHONE = device(voip_token=token("voip"))


def left(name: str = "j1", **fields: Any) -> PushJob:
    """Under way."""
    return job(name, **({"state": JobState.ATTEMPTED, "attempts": 1, "attempted_at": NOW} | fields))


def ringing(name: str = "call", **fields: Any) -> PushJob:
    return call_job(name, **({"state": JobState.ATTEMPTED, "attempts": 1, "attempted_at": NOW} | fields))


def settled(
    jobs: list[PushJob], *answers: Answer, devices: tuple[Device, ...] = (PHONE,), policies: Policies = FILTERING
) -> tuple[Any, dict[str, PushJob]]:
    """The ruling, and the jobs as they are afterwards."""
    books = Books(
        now=after(10),
        accounts={ANN: account(devices=len(devices))},
        devices={ANN: list(devices)},
        jobs={ANN: jobs},
    )
    ruling = settle_all(answers, books, policies)
    return ruling, {one.job_id: one for one in [*jobs, *ruling.writes.jobs]}


def answer(to: PushJob, verdict: Verdict, **more: Any) -> Answer:
    told = {name: more.pop(name) for name in ("status", "reason", "dead_since_at") if name in more}
    return Answer(account=ANN, job_id=to.job_id, outcome=PushOutcome(verdict=verdict, **told), **more)


def test_an_answer_to_another_attempt_says_nothing() -> None:
    one = left(attempts=2)
    assert settled([one], answer(one, Verdict.ACCEPTED, attempts=1))[0].writes.jobs == []
    _, now = settled([one], answer(one, Verdict.ACCEPTED, attempts=2))
    assert now[one.job_id].outcome == "accepted"


def test_both_tokens_of_a_device_die_in_one_transaction() -> None:
    wake, ring = left("wake"), ringing()
    for answers in ((wake, ring), (ring, wake)):
        ruling, _ = settled([wake, ring], *(answer(one, Verdict.DEAD_TOKEN) for one in answers))
        assert ruling.writes.deleted_devices == [(ANN, "phone")]
        assert ruling.writes.devices == ruling.writes.retokened == []
        assert [owner.devices for owner in ruling.writes.accounts] == [0]
        assert len(ruling.value) == (2 if answers == (ring, wake) else 1)


def test_a_device_dies_once() -> None:
    one, two = left("one"), left("two", kind=PushKind.INVITED)
    ruling, _ = settled([one, two], answer(one, Verdict.DEAD_TOKEN), answer(two, Verdict.DEAD_TOKEN))
    assert [owner.devices for owner in ruling.writes.accounts] == [0]
    assert len(ruling.value) == 1


def test_two_wakes_that_fail_together_become_one() -> None:
    one, two = left("one", version=5), left("two", version=6)
    _, now = settled([one, two], answer(one, Verdict.RETRY), answer(two, Verdict.RETRY))
    queued = [found for found in now.values() if found.state is JobState.QUEUED]
    assert len(queued) == 1


@pytest.mark.parametrize("spread", [0.75, 1.25])
def test_what_failed_together_comes_back_at_different_times(spread: float) -> None:
    one = left(attempts=3)
    _, now = settled([one], answer(one, Verdict.RETRY, spread=spread))
    assert now[one.job_id].not_before == after(10 + 8 * spread)


def test_pauses_grow_and_end_somewhere() -> None:
    wakes = [back_off(left(attempts=n), Verdict.RETRY).total_seconds() for n in range(1, 14)]
    assert wakes == sorted(wakes)
    assert (wakes[0], wakes[-1]) == (2, 600)
    calls = [back_off(ringing(attempts=n), Verdict.RETRY).total_seconds() for n in range(1, 14)]
    assert (calls[0], calls[-1]) == (0.2, 3.2)


def test_what_stands_for_a_refused_wake_waits_as_long_as_it_would_have() -> None:
    old, newer = left("old", attempts=6, deadline=after(9000)), job("newer", version=7, not_before=after(11))
    _, now = settled([old, newer], answer(old, Verdict.RETRY))
    kept = now[newer.job_id]
    assert (kept.not_before, kept.deadline, kept.joined) == (after(74), after(9000), 1)
    assert now[old.job_id].outcome == "retry"


def test_a_device_that_gets_too_much_is_left_alone_for_a_while() -> None:
    heard = left("heard", attempts=4)
    read = job("read", kind=PushKind.READ, lane=Lane.UPDATES, version=9, not_before=after(11), target_rank=8)
    missed = job("missed", kind=PushKind.MISSED, lane=Lane.CALLS, sid="s1", not_before=after(11))
    other = job("other", device_id="other", not_before=after(11))
    done = {read.job_id: "suppressed:throttled"}
    _, now = settled([heard, read, missed, other], answer(heard, Verdict.THROTTLED))
    kept = now[heard.job_id]
    assert (kept.state, kept.version, kept.not_before, kept.target_rank) == (JobState.QUEUED, 9, after(26), 8)
    assert {found.job_id: found.outcome for found in now.values() if found.state is JobState.DONE} == done
    assert now[missed.job_id] == missed
    assert now[other.job_id] == other


def test_what_is_heard_is_kept_whatever_is_newer() -> None:
    quiet = left("quiet", kind=PushKind.WITHDRAW, lane=Lane.UPDATES, attempts=4)
    heard = job("heard", version=3, not_before=after(11))
    _, now = settled([quiet, heard], answer(quiet, Verdict.THROTTLED))
    assert now[heard.job_id].state is JobState.QUEUED
    assert (now[heard.job_id].version, now[heard.job_id].not_before) == (5, after(26))
    assert now[quiet.job_id].outcome == "suppressed:throttled"


@pytest.mark.parametrize("kind", [PushKind.MESSAGE, PushKind.INVITED])
def test_what_waits_for_the_end_of_quiet_hours_stays_as_it_is(kind: PushKind) -> None:
    """Neither does the night's wake go out with what may go at once, nor does that wait for the morning."""
    gone = left("gone", kind=PushKind.WITHDRAW, lane=Lane.UPDATES, attempts=4)
    kept = job("kept", kind=kind, version=3, not_before=after(9000), deadline=after(90000), reason="quiet")
    _, now = settled([gone, kept], answer(gone, Verdict.THROTTLED))
    assert now[kept.job_id] == kept
    assert (now[gone.job_id].state, now[gone.job_id].not_before) == (JobState.QUEUED, after(26))


def test_an_app_that_shows_everything_loses_nothing() -> None:
    heard = left("heard", attempts=4)
    invited = job("invited", kind=PushKind.INVITED, not_before=after(11))
    _, now = settled([heard, invited], answer(heard, Verdict.THROTTLED), policies=Policies())
    assert {found.state for found in now.values()} == {JobState.QUEUED}
    assert now[invited.job_id].not_before == now[heard.job_id].not_before == after(26)


def test_a_call_that_is_throttled_goes_again_at_once_and_once_only() -> None:
    ring = ringing()
    _, now = settled([ring], answer(ring, Verdict.THROTTLED))
    assert now[ring.job_id].not_before == after(10.2)
    late = replace(ring, deadline=after(10) + timedelta(seconds=0.1))
    _, now = settled([late], answer(late, Verdict.THROTTLED))
    assert now[ring.job_id].outcome == "throttled"
