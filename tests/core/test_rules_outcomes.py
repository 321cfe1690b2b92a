"""What follows from answers to pushes, where the vectors (tests/vectors/rules/claims.toml) do not go: several at once,
devices that get too much, attempts that are long over.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from sync.model.books import Books
from sync.model.conversation import Kind
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.push import PushOutcome, Verdict
from sync.rules.fold import Policies
from sync.rules.jobs import job_id, shared
from sync.rules.outcomes import (
    Answer,
    alerts_at_once,
    back_off,
    is_dead,
    queued_beside,
    repeated,
    settle,
    settle_all,
    standing_in,
)
from sync.rules.wishes import WakePolicy
from tests.contract.samples import ANN, BOB, CAT, NOW, TEA, WITH_BOB, account, after, call_job, device, job, token

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


# ---- one answer -----------------------------------------------------------------------------------------------------


def test_the_ledger_has_what_the_vendor_said() -> None:
    one = left()
    ruling, now = settled([one], answer(one, Verdict.REJECTED, status=400, reason="BadTopic"))
    kept = now[one.job_id]
    assert (kept.outcome, kept.status, kept.reason, kept.done_at) == ("rejected", 400, "BadTopic", after(10))
    assert ruling.value == ()


def test_so_has_what_goes_again() -> None:
    one = left()
    _, now = settled([one], answer(one, Verdict.RETRY, status=503, reason="Shutdown"))
    kept = now[one.job_id]
    assert (kept.state, kept.status, kept.reason) == (JobState.QUEUED, 503, "Shutdown")


@pytest.mark.parametrize(("deadline", "state"), [(12, JobState.DONE), (13, JobState.QUEUED)])
def test_nothing_goes_again_at_its_deadline(deadline: int, state: JobState) -> None:
    one = left(deadline=after(deadline))
    _, now = settled([one], answer(one, Verdict.RETRY))
    assert now[one.job_id].state is state


@pytest.mark.parametrize(
    ("name", "verdict", "removed"),
    [("j1", Verdict.DEAD_TOKEN, True), ("j1", Verdict.ACCEPTED, False), ("?", Verdict.DEAD_TOKEN, False)],
)
def test_an_answer_says_whether_it_removed_a_token(name: str, verdict: Verdict, removed: bool) -> None:
    books = Books(now=NOW, accounts={ANN: account(devices=1)}, devices={ANN: [PHONE]}, jobs={ANN: [left()]})
    assert settle(job(name).job_id, ANN, PushOutcome(verdict=verdict), books, FILTERING).value is removed


def test_a_token_that_is_gone_may_be_another_devices() -> None:
    ring = ringing()
    ruling, _ = settled([ring], answer(ring, Verdict.DEAD_TOKEN))
    assert ruling.writes.devices == ruling.writes.retokened == [replace(PHONE, voip_token=None)]


@pytest.mark.parametrize(("since", "dead"), [(0, False), (1, True)])
def test_a_token_that_was_registered_in_that_instant_lives(since: int, dead: bool) -> None:
    outcome = PushOutcome(verdict=Verdict.DEAD_TOKEN, dead_since_at=after(since))
    assert is_dead(PHONE, left(), outcome) is dead


def test_a_ring_that_failed_hurries_its_own_alert_alone() -> None:
    ring = ringing()
    alert = call_job("alert", kind=PushKind.CALL_FALLBACK, voip=False, not_before=after(8))
    others = [
        replace(alert, sid="s2"),
        replace(alert, device_id="tablet"),
        replace(alert, state=JobState.DONE),
        replace(alert, kind=PushKind.CALL_END),
    ]
    assert alerts_at_once(ring, [ring, *others, alert], after(1)) == [replace(alert, not_before=after(1))]


# ---- wakes that stand for others ------------------------------------------------------------------------------------


def test_what_was_queued_beside_a_wake() -> None:
    wake, beside = left("wake"), job("beside")
    others = [job("kind", kind=PushKind.READ), job("device", device_id="tablet"), left("gone")]
    assert queued_beside(wake, [wake, *others, beside]) == beside
    assert queued_beside(wake, [wake, *others]) is None


@pytest.mark.parametrize("kind", [PushKind.MISSED, PushKind.CALL])
def test_no_call_stands_for_another(kind: PushKind) -> None:
    one, other = (job(name, kind=kind, sid=name) for name in ("s1", "s2"))
    assert queued_beside(replace(one, state=JobState.ATTEMPTED), [one, other][1:]) is None


@pytest.mark.parametrize(
    ("old", "new", "told"), [("u", "u", "u"), ("w", "u", "w"), ("u", "w", "w"), (None, "u", "u"), (None, None, None)]
)
def test_the_louder_place_is_kept(old: str | None, new: str | None, told: str | None) -> None:
    assert standing_in(job(collapse=new), left(collapse=old), NOW).collapse == told


@pytest.mark.parametrize(("old", "new", "told"), [(None, None, None), (3, None, 3), (None, 4, 4), (5, 4, 5)])
def test_the_newest_message_is_meant(old: int | None, new: int | None, told: int | None) -> None:
    assert standing_in(job(target_rank=new), left(target_rank=old), NOW).target_rank == told


@pytest.mark.parametrize(("peer", "told"), [(BOB, BOB), (CAT, "")])
def test_it_names_the_conversation_where_both_are_of_it(peer: str, told: str) -> None:
    assert standing_in(job(), left(peer=peer), NOW).peer == told


def test_what_is_of_two_conversations_is_of_none() -> None:
    both = shared(job(peer=TEA, about=Kind.GROUP), WITH_BOB)
    assert (both.conversation, both.peer, both.about, both.joined) == (None, "", Kind.CHAT, 1)


# ---- repetitions ----------------------------------------------------------------------------------------------------


def test_a_repetition_is_a_job_of_its_own() -> None:
    wake = left(attempts=2, joined=3, status=200, reason="?", repeat=0)
    books = Books(now=after(10))
    (again,) = repeated(wake, PHONE, [wake, job("read", kind=PushKind.READ)], books, FILTERING)
    made = job(repeat=1, created_at=after(10), not_before=after(70))
    assert again == replace(made, job_id=job_id(PHONE, PushKind.MESSAGE, 5, 1))
    assert UUID(again.job_id).version == 4
    for more in (job("next"), replace(again, job_id="?")):
        assert repeated(wake, PHONE, [wake, more], books, FILTERING) == []
    (last,) = repeated(replace(wake, repeat=1), PHONE, [wake, job("next", device_id="tablet")], books, FILTERING)
    assert (last.repeat, last.not_before) == (2, after(610))
    assert repeated(replace(wake, repeat=2), PHONE, [wake], books, FILTERING) == []
