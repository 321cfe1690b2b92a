"""Calls that are claimed by the transaction in which they begin to ring: which of them, and with what."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books, Ruling, Writes
from sync.model.device import JobState, Lane, PushJob, PushKind, Route
from sync.rules.claims import Claim, claim
from sync.rules.fold import Policies, Report, Ring
from sync.rules.ring import fallback
from sync.rules.rung import Spare, claim_of, ring_at_once
from sync.rules.wishes import WakePolicy
from tests.contract.samples import ANN, EVE, NOW, account, after, call, call_job, device, job
from tests.core.rule_vectors import World

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
FREE = Spare(places=10, each=5)


def ring(name: str = "j1", device_id: str = "phone", owner: str = ANN, **fields: Any) -> Ring:
    """A ring as the fold tells of it, decided now."""
    made = call_job(name, owner=owner, device_id=device_id, queue="apns:chat", **fields)
    return Ring(job=made, device=device(device_id, owner), account=account(owner), call=call(owner=owner), jobs=[made])


def decided(*rings: Ring, others: tuple[PushJob, ...] = ()) -> Ruling[Report]:
    owners = {one.account.jid: one.account for one in rings}
    jobs = [*others, *(one.job for one in rings)]
    return Ruling(writes=Writes(accounts=list(owners.values()), jobs=jobs), value=Report(rings=list(rings), jobs=jobs))


def attempted(ruling: Ruling[Report]) -> list[str]:
    return [one.job.job_id for one in ruling.value.rings if one.job.state is JobState.ATTEMPTED]


@pytest.mark.parametrize(
    ("app", "voip", "follows"), [("chat", True, True), ("chat", False, False), ("other", True, False)]
)
def test_what_begins_to_ring_is_claimed_as_if_it_had_been_due(app: str, voip: bool, follows: bool) -> None:
    wake = job("wake")
    begun = replace(ring(voip=voip), device=device(app=app))
    ruling = ring_at_once(decided(begun, others=(wake,)), FREE, NOW, POLICIES)
    attempt = replace(begun.job, state=JobState.ATTEMPTED, attempts=1, attempted_at=NOW)
    more = [fallback(begun.device, begun.call, after(8), NOW)] if follows else []
    assert ruling.writes.jobs == ruling.value.jobs == [wake, attempt, *more]
    assert ruling.writes.accounts == [account(wakes_open=True)]
    (one,) = ruling.value.rings
    assert claim_of(one) == Claim(job=attempt, device=begun.device, account=account(wakes_open=True), call=begun.call)
    assert [(one.kind, one.lane) for one in more] == ([(PushKind.CALL_FALLBACK, Lane.CALLS)] if follows else [])


@pytest.mark.parametrize(
    "spare",
    [
        Spare(),
        Spare(places=0, each=5),
        Spare(places=5, each=0),
        replace(FREE, taken={"apns:chat": 5}),
        replace(FREE, held=frozenset({"apns:chat"})),
    ],
)
def test_where_there_is_no_place_it_waits_like_any_other(spare: Spare) -> None:
    given = decided(ring())
    ruling = ring_at_once(given, spare, NOW, POLICIES)
    assert ruling == given
    assert claim_of(ruling.value.rings[0]) is None


@pytest.mark.parametrize(
    "begun",
    [
        replace(ring(), device=device(enabled=False)),
        replace(ring(), device=device(route=Route.PUBLISH)),
        ring(created_at=after(-1)),
    ],
)
def test_what_is_to_be_looked_at_again_is_not_claimed(begun: Ring) -> None:
    given = decided(begun)
    assert ring_at_once(given, FREE, NOW, POLICIES) == given


def test_as_many_as_there_are_places() -> None:
    rings = [ring(f"{n}", f"phone{n}") for n in range(4)]
    for spare in (replace(FREE, places=2), Spare(places=9, each=3, taken={"apns:chat": 1})):
        ruling = ring_at_once(decided(*rings), spare, NOW, POLICIES)
        assert attempted(ruling) == [one.job.job_id for one in rings[:2]]
        assert [one.job for one in ruling.value.rings[2:]] == [one.job for one in rings[2:]]
        kinds = [one.kind for one in ruling.writes.jobs]
        assert (kinds.count(PushKind.CALL), kinds.count(PushKind.CALL_FALLBACK)) == (4, 2)


def test_one_place_is_a_place() -> None:
    rings = [ring(f"{n}", f"phone{n}") for n in range(2)]
    ruling = ring_at_once(decided(*rings), replace(FREE, places=1), NOW, POLICIES)
    assert attempted(ruling) == [rings[0].job.job_id]


def test_one_batch_may_ring_at_several_people() -> None:
    ruling = ring_at_once(decided(ring("a"), ring("b", owner=EVE)), FREE, NOW, POLICIES)
    assert {one.jid: one.wakes_open for one in ruling.writes.accounts} == {ANN: True, EVE: True}
    assert len(attempted(ruling)) == 2


def test_a_wake_that_follows_two_calls_is_one_job() -> None:
    """Both alerts take the place of an unfetched wake: after the later of them the phone is woken again, once."""
    woken = device(woken_version=900, woken_at=after(-60), woken_until=after(9999))
    both = [replace(ring(name, voip=False, sid=name), device=woken) for name in ("a", "b")]
    both[1] = replace(both[1], job=replace(both[1].job, deadline=after(90)))
    ruling = ring_at_once(decided(*both), FREE, NOW, POLICIES)
    (wake,) = [one for one in ruling.writes.jobs if one.kind is PushKind.SYNC]
    assert wake.not_before == after(90)


@pytest.mark.parametrize("back", [False, True])
def test_of_two_that_are_due_at_once_the_newer_goes_last_whatever_order_rows_come_in(back: bool) -> None:
    """Each carries the newest version that was told: the second would have carried the first one's, or not."""
    found = [job("new", version=9, peer=None, kind=PushKind.READ), job("old", version=7, peer=None, kind=PushKind.READ)]
    phone = device(woken_version=8, woken_at=NOW, woken_until=after(60))
    books = Books(
        now=after(1),
        accounts={ANN: account(devices=1)},
        devices={ANN: [phone]},
        jobs={ANN: found[::-1] if back else found},
    )
    claimed = claim([one.job_id for one in found], {}, books, POLICIES).value
    assert [(one.job.job_id, one.job.version) for one in claimed.claims] == [
        (found[1].job_id, 8),
        (found[0].job_id, 9),
    ]


@pytest.mark.parametrize(
    ("end", "told"), [("call retract s1", PushKind.MISSED), ("call proceed s1 dir=out", PushKind.CALL_END)]
)
def test_all_that_is_told_of_a_call_goes_in_the_lane_of_calls(end: str, told: PushKind) -> None:
    world = World(batched=False)
    for step in ("device phone voip=yes", "call propose s1", "claim", "answer call accepted", end):
        world.do(step)
    lanes = {one.kind: one.lane for one in world.store.tables.jobs.values()}
    assert lanes == dict.fromkeys((PushKind.CALL, PushKind.CALL_FALLBACK, told), Lane.CALLS)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (("correct m1",), PushKind.CORRECTED),
        (("correct m1", "correct m2"), PushKind.CORRECTED),
        (("retract m1",), PushKind.WITHDRAW),
        (("displayed m1",), PushKind.READ),
    ],
)
def test_what_changes_a_notification_goes_behind_what_makes_one(steps: tuple[str, ...], told: PushKind) -> None:
    """In the lane of updates, and with the version at which the last of them is known."""
    world = World(batched=False)
    for step in ("device phone", "in m1 archive=a1", "in m2 archive=a2", "claim", "answer message accepted", *steps):
        world.do(step)
    (found,) = [one for one in world.store.tables.jobs.values() if one.kind is told]
    assert (found.lane, found.version) == (Lane.UPDATES, world.store.tables.accounts[ANN].version)
    targets = {one.archive_id: one.rank for one in world.store.tables.messages.values()}
    assert found.target_rank == targets["a2" if len(steps) > 1 else "a1"]
