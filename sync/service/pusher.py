"""Claims due push jobs, hands them to the sender, records what became of them (step 7 of the flow).

Two lanes of workers: calls have their own, so that no burst of messages stands before a ringing phone; in each lane
every queue has places of its own (`sync.service.queues`), so that what stands still in one stalls no other. A claim is
its own short transaction that commits "attempted" before the first byte leaves; the outcome is another. Hints say that
something is due at once; without them the queues are looked at every few seconds, and whatever a crashed process left
behind is found there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sync.model.books import Books, Keys, Rule, Ruling
from sync.model.device import Lane, PushJob
from sync.model.errors import StoreUnavailable
from sync.model.push import PushOutcome, Verdict
from sync.ports import Bus, Clock, DueJob, Observer, Presence, Store
from sync.rules.claims import Claim, Claimed, claim
from sync.rules.farewell import TRIES, farewell
from sync.rules.fold import Policies, Report, Ring
from sync.rules.outcomes import RETRYABLE, settle
from sync.rules.rung import Spare, claim_of, ring_at_once
from sync.service.breaker import LATE
from sync.service.due import due_of, is_due, keys_of
from sync.service.ledger import Ledger
from sync.service.queues import Place, Queues
from sync.service.sender import Sender

log = logging.getLogger(__name__)

T = TypeVar("T")

TOPIC = "push-jobs"
ROUND = 64  # jobs claimed in one transaction
KNOWN = 1024  # due jobs remembered for each lane; what falls out is found in the queue
LOOK_EVERY = 8  # rounds between looks at the queue while there are hints
LOOK_SECONDS = 2.0  # how long a worker sleeps at most
LOOK = timedelta(seconds=LOOK_SECONDS)
BAD_SECONDS = 0.25
BAD_FOR = timedelta(minutes=1)  # how long a job that cannot be claimed is left alone
# Longer than a claim holds and a send takes (`sender.CLAIM_HOLDS`, `PushGate.send`): its worker is dead.
ABANDONED_AFTER = timedelta(seconds=15)

LANES: Mapping[str, tuple[Lane, ...]] = {"calls": (Lane.CALLS,), "messages": (Lane.MESSAGES, Lane.UPDATES)}


class Pusher:
    """The workers of both lanes. `keys` names for each queue the key that its pushes are signed with, `reaches` says
    whether this process can send what is in it.
    """

    def __init__(
        self,
        *,
        store: Store,
        sender: Sender,
        presence: Presence,
        bus: Bus,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        keys: Mapping[str, str],
        in_flight: int,
        reaches: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._store, self._sender, self._presence, self._bus = store, sender, presence, bus
        self._clock, self._observer, self._policies = clock, observer, policies
        self._queues = Queues(each=in_flight, observer=observer, keys=keys, reaches=reaches)
        self._rounds = 0
        self._closing = False
        self._wanting: set[str] = set()  # lanes that had no place for something when they looked last
        self._bad: dict[str, datetime] = {}  # jobs that cannot be claimed, oldest first, and when to try them again
        self._hints = {name: asyncio.Event() for name in LANES}
        self._known: dict[str, deque[DueJob]] = {name: deque(maxlen=KNOWN) for name in LANES}
        self._sending: set[asyncio.Future[None]] = set()
        self._mine: set[str] = set()  # jobs that this process attempts, or has attempted and not written down yet
        self._bidding: set[asyncio.Future[None]] = set()  # of those, last pushes of removed accounts
        self._ledgers = {name: Ledger(store=store, clock=clock, observer=observer, policies=policies) for name in LANES}

    async def transact(self, keys: Keys, rule: Rule[Report]) -> Report:
        """Commit what a rule decides, together with the claims of the calls that begin to ring by it: one transaction
        from the event to the push. The caller hands the report to `committed`. Raises what `Store.transact` raises.
        """
        tried: list[Ring] = []

        def claiming(books: Books) -> Ruling[Report]:
            spare = Spare() if self._closing else self._queues.spare("calls", books.now)
            ruling = ring_at_once(rule(books), spare, books.now, self._policies)
            tried[:] = ruling.value.rings
            return ruling

        try:
            return await self._store.transact(keys, claiming)
        except StoreUnavailable:
            for ring in tried:
                self._take_back(ring)
            raise

    def _take_back(self, ring: Ring) -> None:
        """Nobody knows whether the claim was committed, but that nothing has left: then the job is queued again."""
        if claim_of(ring) is not None and len(self._mine) < KNOWN:  # what is more counts as abandoned after a while
            self._mine.add(ring.job.job_id)
            unsent = PushOutcome(verdict=Verdict.NOT_SENT, reason=LATE)
            self._keep(asyncio.ensure_future(self._record("calls", ring.job, unsent)))

    def committed(self, report: Report) -> None:
        """A batch is committed. Calls that were claimed with it leave at once, beside the lanes."""
        at_once: set[str] = set()
        for gone, devices in report.farewells:
            for last in farewell(gone, devices, self._clock.now()):
                self._bid_soon(last)
        for ring in report.rings:
            if (found := claim_of(ring)) is not None:
                at_once.add(found.job.job_id)
                place = self._queues.seat("calls", found.job.queue)
                self._start(place, self._send(found, place))
        if others := [job for job in report.jobs if job.job_id not in at_once]:
            self.hint(others)
            if any(self._queues.room(name) <= 0 for name in LANES):
                # As many pushes are under way here as may be: other processes need not wait for their next look.
                self._keep(asyncio.ensure_future(self._bus.publish(TOPIC, {})))

    def _bid_soon(self, last: Claim) -> None:
        """They wait in no store, so they may not be without number."""
        if len(self._bidding) >= KNOWN:
            log.warning("so many accounts are removed at once that not all of their devices are told")
            return
        task = asyncio.ensure_future(self._bid(last))
        self._bidding.add(task)
        task.add_done_callback(self._bidding.discard)
        self._keep(task)

    async def _bid(self, last: Claim) -> None:
        """A removed account's last push. It has no place in the queue, nor in the ledger: all of that is gone."""
        for _ in range(TRIES):
            outcome = await self._sender.send(last)
            if outcome.verdict not in RETRYABLE:
                return
            await self._clock.sleep(LOOK_SECONDS)
            job = replace(last.job, attempted_at=self._clock.now())
            last = replace(last, job=job)

    def hint(self, jobs: Sequence[PushJob] = ()) -> None:
        """Something may be due: these jobs, which need not be looked for, or anything."""
        now = self._clock.now()
        for name, own in LANES.items():
            mine = [job for job in jobs if job.lane in own]
            self._known[name].extend(due_of(job) for job in mine if is_due(job, now))
            if not jobs or any(job.not_before - now <= LOOK for job in mine):  # what is later is looked for in time
                self._hints[name].set()

    async def run(self) -> None:
        """Push until cancelled, or drained."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.subscribe(TOPIC, lambda _: self.hint()), name="push-hints")
            for name in LANES:
                self._keep(group.create_task(self._work(name), name=f"push-{name}"))

    async def drain(self) -> None:
        """Claim nothing more, and wait for the claims under way and for the answers to what has left."""
        self._closing = True
        self.hint()
        while self._sending:
            await asyncio.wait(self._sending)

    async def _work(self, name: str) -> None:
        while not self._closing:
            self._hints[name].clear()
            self._wanting.discard(name)
            try:
                busy = await self.round(name)
                pause = 0.0 if busy else await self._until_next(name)
            except StoreUnavailable:
                pause = LOOK_SECONDS
                self._hints[name].clear()  # that places are free again is no news
            if pause > 0 and not self._closing:
                await self._wait(name, pause)

    async def _wait(self, name: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hints[name].wait()
        except TimeoutError:
            pass

    async def _until_next(self, name: str) -> float:
        if self._queues.room(name) <= 0:
            self._wanting.add(name)
            return LOOK_SECONDS  # the end of a send is a hint
        now = self._clock.now()
        due = await self._store.next_job_at(LANES[name], self._queues.held(name, now))
        at = min((at for at in (due, self._queues.next_probe_at(now)) if at is not None), default=None)
        if at is None:
            return LOOK_SECONDS
        # A job that cannot be claimed is always due.
        soonest = BAD_SECONDS if self._bad else 0.001
        return min(max((at - self._clock.now()).total_seconds(), soonest), LOOK_SECONDS)

    async def round(self, name: str) -> bool:
        """Claim what is due, not more than may be sent at once, and start to send it; False when there was nothing."""
        places = self._places(name, await self._due(name))
        if not places:
            return False
        try:
            claims = await self._claimed([job for job, _ in places.values()])
        except BaseException:
            self._release(place for _, place in places.values())
            raise
        for found in claims:
            _, place = places.pop(found.job.job_id)
            self._start(place, self._send(found, place))
        self._release(place for _, place in places.values())
        return True

    async def _due(self, name: str) -> Sequence[DueJob]:
        """What was hinted at, and every few rounds what is in the queues, however much is hinted at."""
        limit, known = min(ROUND, self._queues.room(name)), self._known[name]
        if limit <= 0:
            self._wanting.add(name)
            return ()
        self._rounds += 1
        if known and self._rounds % LOOK_EVERY:
            return [known.popleft() for _ in range(min(len(known), limit))]
        now = self._clock.now()
        held = self._queues.held(name, now)
        if held:
            self._wanting.add(name)
        return await self._store.due_jobs(now, LANES[name], limit, held)

    def _places(self, name: str, due: Sequence[DueJob]) -> dict[str, tuple[DueJob, Place]]:
        """Those of them for which there is a place now; the others stay in the store."""
        now, found = self._clock.now(), {}
        for job in due:
            if job.job_id in found or self._bad.get(job.job_id, now) > now:
                continue
            place = self._queues.admit(name, job.queue, now)
            if place is None:
                self._wanting.add(name)
            else:
                found[job.job_id] = job, place
        return found

    async def _claimed(self, due: Sequence[DueJob]) -> list[Claim]:
        """The claims; where the rule or the database stumbles over one job, the others are claimed without it."""
        try:
            claimed = await self._claim(due)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one bad job must not end the pushes of all
            if len(due) > 1:
                return [found for job in due for found in await self._claimed([job])]
            log.error("a push job cannot be claimed", extra={"job": due[0].job_id, "error": type(error).__name__})
            self._bad.pop(due[0].job_id, None)
            self._bad[due[0].job_id] = self._clock.now() + BAD_FOR
            if len(self._bad) > KNOWN:
                del self._bad[next(iter(self._bad))]
            return []
        for why in claimed.suppressed:
            self._observer.suppressed(why)
        return claimed.claims

    async def _claim(self, due: Sequence[DueJob]) -> Claimed:
        presence = await self._presence.sessions_of({job.account for job in due})
        rule = partial(claim, [job.job_id for job in due], presence)
        return await self._store.transact(keys_of(due), partial(self._with_policies, rule))

    def _with_policies(self, rule: Callable[[Books, Policies], Ruling[T]], books: Books) -> Ruling[T]:
        return rule(books, self._policies)

    def _start(self, place: Place, work: Coroutine[None, None, None]) -> None:
        """Something to send: it takes its place until it is done."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._release([place]))
        self._keep(task)

    def _release(self, places: Iterable[Place]) -> None:
        for place in places:
            self._queues.release(place)
            if place.lane in self._wanting:
                self._hints[place.lane].set()

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, found: Claim, place: Place) -> None:
        self._mine.add(found.job.job_id)
        outcome = await self._sender.send(found)
        self._queues.told(place, outcome, self._clock.now(), found.job.account)
        await self._record(place.lane, found.job, outcome)

    async def _record(self, lane: str, job: PushJob, outcome: PushOutcome) -> None:
        """Write down what became of an attempt of this process."""
        try:
            await self._ledgers[lane].record(job, outcome)
        finally:
            self._mine.discard(job.job_id)
        if outcome.verdict is not Verdict.ACCEPTED:  # then something else may be due soon, or the same again
            self._hints[lane].set()

    async def recover(self) -> None:
        """Jobs that left with a process that died: nobody knows whether they arrived."""
        before = self._clock.now() - ABANDONED_AFTER
        for due in await self._store.abandoned_jobs(before, ROUND):
            if due.job_id in self._mine:  # the database was away, and comes back a moment before the outcome
                continue
            outcome = PushOutcome(verdict=Verdict.UNCERTAIN, reason="worker-died")
            rule = partial(settle, due.job_id, due.account, outcome)
            try:
                await self._store.transact(keys_of([due]), partial(self._with_policies, rule))
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - one bad job must not keep those behind it under way
                reason = type(error).__name__
                log.error("the outcome of a push cannot be recorded", extra={"job": due.job_id, "error": reason})
            else:
                self.hint()

    async def expire(self) -> None:
        """End the calls that waited in vain for a queue that is stopped: nothing else looks at them."""
        now = self._clock.now()
        if stopped := self._queues.stopped(now):
            due = await self._store.overdue_jobs(now, stopped, ROUND)
            if due and await self._claimed(due):
                log.error("a call that is over was claimed")

    async def measure(self, now: datetime) -> None:
        """Tell how many jobs are due, and let go of what nobody waits for."""
        self._queues.forget(now)
        depth = await self._store.queue_depth(now)
        for lane in Lane:
            jobs, oldest = depth.get(lane, (0, 0.0))
            self._observer.queue_depth(lane.name.lower(), jobs, oldest)
        self._sender.measure()

    def troubles(self) -> dict[str, str]:
        """What an operator should look at, by queue or app."""
        return self._queues.troubles() | self._sender.troubles()
