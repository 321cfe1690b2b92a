"""Several pushes of one phone, claimed in one transaction."""

from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.device import JobState, PushKind
from sync.rules.claims import Claimed, claim
from sync.rules.fold import Policies
from sync.rules.wishes import WakePolicy
from tests.contract.samples import ANN, NOW, account, after, call, call_job, device, seeing
from tests.contract.stores import Bench

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))


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
