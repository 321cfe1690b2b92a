"""Several pushes of one phone, claimed in one transaction."""

from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.device import JobState, Lane, PushKind
from sync.model.push import PushOutcome, Verdict
from sync.rules.backlog import begun
from sync.rules.claims import Claimed, claim
from sync.rules.fold import Policies
from sync.rules.outcomes import settle
from sync.rules.wishes import WakePolicy
from tests.contract.samples import ANN, NOW, account, after, call, call_job, device, job, seeing
from tests.contract.stores import Bench

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))


async def test_a_wake_that_is_put_off_is_as_new_as_what_puts_it_off(stores: Bench) -> None:
    """Else it would be called off, as if the push that came in between had told all of it."""
    waiting = job("sync", kind=PushKind.SYNC, lane=Lane.UPDATES, version=40, created_at=NOW, not_before=after(5))
    phone = device(bound_to="phone", woken_version=50, woken_at=after(1), fetched_version=1)
    await stores.put(accounts=[account(devices=1)], devices=[phone], jobs=[waiting])
    keys = Keys(accounts=frozenset({ANN}), devices=True)
    stores.clock.instant = after(2)
    await stores.store.transact(keys, partial(begun, ANN, "phone", 60, policies=POLICIES))
    (put_off,) = await stores.store.transact(keys, seeing(lambda books: books.jobs[ANN]))
    assert (put_off.job_id, put_off.created_at, put_off.not_before) == (waiting.job_id, after(2), after(32))


async def test_a_second_wake_is_none_that_has_been(stores: Bench) -> None:
    """The ledger keeps the first, and the second is sent."""
    phone = device(bound_to="phone", woken_version=50, woken_at=NOW, fetched_version=1)
    await stores.put(accounts=[account(devices=1)], devices=[phone])
    keys, rule = Keys(accounts=frozenset({ANN}), devices=True), partial(begun, ANN, "phone", 60, policies=POLICIES)
    for number in range(2):
        stores.clock.instant = after(40 * number)
        await stores.store.transact(keys, rule)
        (made,) = await stores.store.transact(keys, seeing(lambda books: books.jobs[ANN]))
        stores.clock.instant = made.not_before
        found: Claimed = await stores.store.transact(keys, partial(claim, [made.job_id], {}, policies=POLICIES))
        assert [one.job.job_id for one in found.claims] == [made.job_id]
        taken = PushOutcome(verdict=Verdict.ACCEPTED)
        await stores.store.transact(keys, partial(settle, made.job_id, ANN, taken, policies=POLICIES))


async def test_two_calls_that_end_at_once_are_followed_by_one_wake(stores: Bench) -> None:
    """Each may take the place of the wake that the phone has not answered: one fresh wake follows both. Twice in one
    statement, a row made the database refuse them all.
    """
    phone = device(woken_version=50, woken_at=NOW, woken_until=after(9999), fetched_version=1)
    calls = [call(f"s{n}") for n in range(2)]
    jobs = [
        replace(call_job(f"j{n}", sid=f"s{n}"), kind=PushKind.CALL_END, voip=False, deadline=after(60 + n))
        for n in range(2)
    ]
    await stores.put(accounts=[account(devices=1)], devices=[phone], calls=calls, jobs=jobs)
    keys = Keys(accounts=frozenset({ANN}), calls=frozenset((ANN, f"s{n}") for n in range(2)), devices=True)
    rule = partial(claim, [job.job_id for job in jobs], {}, policies=POLICIES)
    found: Claimed = await stores.store.transact(keys, rule)
    assert {one.job.job_id for one in found.claims} == {job.job_id for job in jobs}
    held = await stores.store.transact(keys, seeing(lambda books: books.jobs[ANN]))
    (wake,) = [job for job in held if job.kind is PushKind.SYNC]
    assert (wake.state, wake.not_before, wake.version) == (JobState.QUEUED, after(61), 50)
