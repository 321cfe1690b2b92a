"""A call that begins to ring is claimed by the transaction that decides so, where there is a place for its push.

Decision and claim are one instant under one lock, so the second look that every other job gets (`claims`) would see
what the first one saw. The claim commits "attempted" as always, before the first byte leaves (invariant 6). What finds
no place is queued like any other job.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sync.model.books import Ruling, Writes
from sync.model.copies import replace
from sync.model.device import JobState, PushJob, Route
from sync.rules.claims import Claim, following
from sync.rules.fold import Policies, Report, Ring


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """How many more calls may be under way: altogether, and `each` queue, of which `taken` says how many are. Nothing
    of the queues in `held` may leave now.
    """

    places: int = 0
    each: int = 0
    taken: Mapping[str, int] = field(default_factory=dict)
    held: frozenset[str] = frozenset()


def ring_at_once(ruling: Ruling[Report], spare: Spare, now: datetime, policies: Policies) -> Ruling[Report]:
    """The ruling of that instant, with the claims of the calls that begin to ring by it: their rings' jobs are
    attempted.
    """
    if not ruling.value.rings or spare.places <= 0:
        return ruling
    left, taken = spare.places, Counter(spare.taken)
    rings: list[Ring] = []
    changed: dict[tuple[str, str], PushJob] = {}
    owners = {account.jid: account for account in ruling.writes.accounts}
    for ring in ruling.value.rings:
        job = ring.job
        free = left > 0 and job.queue not in spare.held and taken[job.queue] < spare.each
        # What was decided earlier is looked at again. Of app servers of other makers the queue knows more.
        if not free or job.created_at != now or not ring.device.enabled or ring.device.route is not Route.APNS:
            rings.append(ring)
            continue
        left -= 1
        taken[job.queue] += 1
        attempt = replace(job, state=JobState.ATTEMPTED, attempts=1, attempted_at=now)
        made = [attempt]
        if ring.device.app in policies.wakes.filtering_apps:
            mine = {one.job_id: one for one in ring.jobs}
            mine |= {one.job_id: one for one in changed.values() if one.job_id in mine or same_device(one, job)}
            made += following(attempt, ring.device, ring.call, list(mine.values()), policies)
        changed |= {(one.account, one.job_id): one for one in made}
        # A ring waits for a fetch: it makes the fallback needless.
        owners[job.account] = replace(owners.get(job.account, ring.account), wakes_open=True)
        rings.append(replace(ring, job=attempt))
    rings = [replace(ring, account=owners.get(ring.job.account, ring.account)) for ring in rings]
    jobs = list(({(job.account, job.job_id): job for job in ruling.writes.jobs} | changed).values())
    writes: Writes = replace(ruling.writes, accounts=list(owners.values()), jobs=jobs)
    return Ruling(writes=writes, value=replace(ruling.value, rings=rings, jobs=jobs))


def same_device(one: PushJob, other: PushJob) -> bool:
    """True for jobs of one device."""
    return (one.account, one.device_id) == (other.account, other.device_id)


def claim_of(ring: Ring) -> Claim | None:
    """What is to be sent of a ring that was claimed; None of one that waits in its queue."""
    if ring.job.state is not JobState.ATTEMPTED:
        return None
    return Claim(job=ring.job, device=ring.device, account=ring.account, call=ring.call)
