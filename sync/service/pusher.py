"""Claims due push jobs, sends them, records what became of them (step 7 of the flow).

Two lanes of workers: calls have their own, so that no burst of messages stands before a ringing phone. A claim is its
own short transaction that commits "attempted" before the first byte leaves; the outcome is another. Hints say that
something is due at once; without them the queue is looked at every few seconds, and whatever a crashed process left
behind is found there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TypeVar

from sync.model.books import Books, Keys, Ruling
from sync.model.conversation import key_of
from sync.model.device import JobState, Lane, PushJob, PushKind, conversation_of
from sync.model.errors import SealBroken, StoreUnavailable
from sync.model.push import PushOutcome, PushRequest, PushType, Verdict
from sync.model.query import App
from sync.ports import Bus, Clock, DueJob, Observer, Presence, PushGate, Sealer, Store
from sync.rules.claims import Claim, Claimed, claim, rung_at_once
from sync.rules.fold import Policies, Report, Ring
from sync.rules.outcomes import settle
from sync.rules.payloads import Names, Wording, request
from sync.service.storms import DeathWatch

log = logging.getLogger(__name__)

T = TypeVar("T")

TOPIC = "push-jobs"
ROUND = 64  # jobs claimed in one transaction
KNOWN = 1024  # due jobs remembered for each lane; what falls out is found in the queue
LOOK_EVERY = 8  # rounds between looks at the queue while there are hints
LOOK_SECONDS = 2.0  # how long a worker sleeps at most
ABANDONED_AFTER = timedelta(seconds=30)  # longer than any send takes: its worker is dead

LANES: Mapping[str, tuple[Lane, ...]] = {"calls": (Lane.CALLS,), "messages": (Lane.MESSAGES, Lane.UPDATES)}


class Pusher:
    """The workers of both lanes."""

    def __init__(
        self,
        *,
        store: Store,
        gate: PushGate,
        presence: Presence,
        bus: Bus,
        sealer: Sealer,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        apps: Mapping[str, App],
        wordings: Mapping[str, Wording],
        in_flight: int,
    ) -> None:
        self._store, self._gate, self._presence, self._bus, self._sealer = store, gate, presence, bus, sealer
        self._clock, self._observer, self._policies = clock, observer, policies
        self._apps, self._wordings = apps, wordings
        self._room = dict.fromkeys(LANES, in_flight)  # how many more pushes each lane may have under way
        self._rounds = 0
        self._closing = False
        self._bad: dict[str, None] = {}  # jobs that cannot be claimed, oldest first
        self._hints = {name: asyncio.Event() for name in LANES}
        self._known: dict[str, deque[DueJob]] = {name: deque(maxlen=KNOWN) for name in LANES}
        self._sending: set[asyncio.Future[None]] = set()
        self._deaths: dict[str, DeathWatch] = {}

    def committed(self, report: Report) -> None:
        """A batch is committed. Calls that began to ring with it are claimed at once, beside the lanes."""
        at_once = {ring.job.job_id: ring for ring in report.rings[: max(self._room["calls"], 0)]}
        if self._closing:
            at_once.clear()
        for ring in at_once.values():
            self._start("calls", self._ring(ring))
        if others := [job for job in report.jobs if job.job_id not in at_once]:
            self.hint(others)
        if min(self._room.values()) <= 0:
            # As many pushes are under way here as may be: other processes need not wait for their next look.
            self._keep(asyncio.ensure_future(self._bus.publish(TOPIC, {})))

    async def _ring(self, ring: Ring) -> None:
        """Claim by version, and send. What does not succeed here is in the queue like any other job."""
        attempt, follow = rung_at_once(ring, self._clock.now(), self._policies)
        try:
            claimed = await self._store.claim_ring(attempt.job, ring.account.version, follow)
        except StoreUnavailable:
            claimed = False
        if claimed:
            await self._send(attempt)
        else:
            self.hint([ring.job])

    def hint(self, jobs: Sequence[PushJob] = ()) -> None:
        """Something may be due: these jobs, which need not be looked for, or anything."""
        now = self._clock.now()
        for name, own in LANES.items():
            mine = [job for job in jobs if job.lane in own]
            self._known[name].extend(due_of(job) for job in mine if is_due(job, now))
            if mine or not jobs:
                self._hints[name].set()

    async def run(self) -> None:
        """Push until cancelled, or drained."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.subscribe(TOPIC, lambda _: self.hint()), name="push-hints")
            for name in LANES:
                group.create_task(self._work(name), name=f"push-{name}")

    async def drain(self) -> None:
        """Claim nothing more, and wait for the answers to what has left."""
        self._closing = True
        self.hint()
        while self._sending:
            await asyncio.wait(self._sending)

    async def _work(self, name: str) -> None:
        while not self._closing:
            self._hints[name].clear()
            try:
                busy = await self.round(name)
                pause = 0.0 if busy else await self._until_next(name)
            except StoreUnavailable:
                pause = LOOK_SECONDS
            if pause > 0 and not self._closing:
                await self._wait(name, pause)

    async def _wait(self, name: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hints[name].wait()
        except TimeoutError:
            pass

    async def _until_next(self, name: str) -> float:
        if self._room[name] <= 0:
            return LOOK_SECONDS  # the end of a send is a hint
        due = await self._store.next_job_at(LANES[name])
        if due is None:
            return LOOK_SECONDS
        return min(max((due - self._clock.now()).total_seconds(), 0.001), LOOK_SECONDS)

    async def round(self, name: str) -> bool:
        """Claim what is due, not more than may be sent at once, and start to send it; False when there was nothing."""
        due = [job for job in await self._due(name) if job.job_id not in self._bad]
        if not due:
            return False
        for found in await self._claimed(due):
            self._start(name, self._send(found))
        return True

    async def _due(self, name: str) -> Sequence[DueJob]:
        """What was hinted at, and every few rounds what is in the queue, however much is hinted at."""
        limit, known = min(ROUND, self._room[name]), self._known[name]
        if limit <= 0:
            return ()
        self._rounds += 1
        if known and self._rounds % LOOK_EVERY:
            return [known.popleft() for _ in range(min(len(known), limit))]
        return await self._store.due_jobs(self._clock.now(), LANES[name], limit)

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
            self._bad[due[0].job_id] = None
            if len(self._bad) > KNOWN:
                del self._bad[next(iter(self._bad))]
            return []
        for why in claimed.suppressed:
            self._observer.suppressed(why)
        return claimed.claims

    def _start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Something to send: it takes a place of its lane until it is done."""
        self._room[name] -= 1
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._done(name))
        self._keep(task)

    def _done(self, name: str) -> None:
        self._room[name] += 1
        self._hints[name].set()

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _claim(self, due: Sequence[DueJob]) -> Claimed:
        accounts = {job.account for job in due}
        presence = {account: await self._presence.sessions(account) for account in accounts}
        rule = partial(claim, [job.job_id for job in due], presence)
        return await self._store.transact(keys_of(due), partial(self._with_policies, rule))

    def _with_policies(self, rule: Callable[[Books, Policies], Ruling[T]], books: Books) -> Ruling[T]:
        return rule(books, self._policies)

    async def _send(self, found: Claim) -> None:
        began = perf_counter()
        app = self._apps.get(found.device.app)
        try:
            if app is None:
                outcome = PushOutcome(verdict=Verdict.REJECTED, reason="app-not-configured")
            else:
                outcome = await self._gate.send(self._request(found, app))
        except SealBroken:
            log.error("a push token cannot be opened: a key is missing in [secrets]")
            outcome = PushOutcome(verdict=Verdict.REJECTED, reason="sealed")
        outcome = self._doubted(found, outcome)
        if outcome.verdict is Verdict.CREDENTIALS:
            log.error(
                "the push service refuses our credentials",
                extra={"app": found.device.app, "outcome": outcome.verdict, "reason": outcome.reason},
            )
        self._tell(found, outcome, perf_counter() - began)
        await self._settle(found.job, outcome)

    def _doubted(self, found: Claim, outcome: PushOutcome) -> PushOutcome:
        """The outcome, unless it calls one token of very many dead: then the registrations stay (PUSH §2)."""
        watch = self._deaths.setdefault(found.device.app, DeathWatch())
        undated = outcome.verdict is Verdict.DEAD_TOKEN and outcome.dead_since_at is None  # 410 says since when
        watch.note(undated, self._clock.now())
        if not undated or not watch.is_storm:
            return outcome
        log.error("many tokens are called dead: is the app's environment right?", extra={"app": found.device.app})
        return replace(outcome, verdict=Verdict.REJECTED)

    def _request(self, found: Claim, app: App) -> PushRequest:
        device = found.device
        token = device.voip_token if found.job.voip else device.alert_token
        opened = self._sealer.open(token.sealed) if token is not None else ""
        names = Names(
            account=tag_of(device.account, self._sealer),
            call=self._name_of(found.job, found.job.sid) if found.job.sid is not None else None,
            continued=self._name_of(found.job, key_of(found.call.continues))
            if found.call is not None and found.call.continues is not None
            else None,
        )
        wording = self._wordings.get(app.name, Wording())
        return request(found, opened, names, wording, time_sensitive=app.time_sensitive)

    def _name_of(self, job: PushJob, sid: str) -> bytes:
        """A call of the job's peer by `key_of` its session id, in a name that says nothing."""
        return self._sealer.digest(f"call {job.account} {job.peer} {sid}")

    def _tell(self, found: Claim, outcome: PushOutcome, seconds: float) -> None:
        job = found.job
        self._observer.push(
            app=found.device.app,
            environment=found.device.environment,
            push_type=PushType.VOIP if job.voip else PushType.ALERT,
            priority=10,
            kind=job.kind,
            outcome=outcome.verdict,
            reason=outcome.reason,
            seconds=seconds,
        )
        if job.kind is PushKind.CALL and found.call is not None and outcome.verdict is Verdict.ACCEPTED:
            self._observer.call_to_push((self._clock.now() - found.call.proposed_at).total_seconds())

    async def _settle(self, job: PushJob, outcome: PushOutcome) -> None:
        """Record the outcome, however long that takes: until it is recorded the attempt counts as uncertain."""
        due = due_of(job)
        rule = partial(settle, job.job_id, job.account, outcome)
        while True:
            try:
                removed = await self._store.transact(keys_of([due]), partial(self._with_policies, rule))
            except StoreUnavailable:
                await self._clock.sleep(LOOK_SECONDS)
            else:
                break
        if removed:
            self._observer.token_removed(outcome.reason or "unknown")
        self.hint([job])

    async def recover(self) -> None:
        """Jobs that left with a process that died: nobody knows whether they arrived."""
        before = self._clock.now() - ABANDONED_AFTER
        for due in await self._store.abandoned_jobs(before, ROUND):
            outcome = PushOutcome(verdict=Verdict.UNCERTAIN, reason="worker-died")
            rule = partial(settle, due.job_id, due.account, outcome)
            await self._store.transact(keys_of([due]), partial(self._with_policies, rule))
            self.hint()

    async def measure(self, now: datetime) -> None:
        """Tell how many jobs are due."""
        depth = await self._store.queue_depth(now)
        for lane in Lane:
            jobs, oldest = depth.get(lane, (0, 0.0))
            self._observer.queue_depth(lane.name.lower(), jobs, oldest)


def tag_of(account: str, sealer: Sealer) -> str:
    """The account in a name that says nothing, the same in every push of it."""
    return sealer.digest(f"account {account}").hex()[:32]


def due_of(job: PushJob) -> DueJob:
    """The job as the queue names it."""
    return DueJob(
        account=job.account,
        job_id=job.job_id,
        lane=job.lane,
        peer=job.peer,
        group=job.group,
        sid=job.sid,
        queue=job.queue,
    )


def is_due(job: PushJob, now: datetime) -> bool:
    """True for a job to claim now."""
    return job.state is JobState.QUEUED and job.not_before <= now


def keys_of(due: Sequence[DueJob]) -> Keys:
    """The rows that claiming or settling these jobs needs."""
    return Keys(
        accounts=frozenset(job.account for job in due),
        conversations=frozenset(key for job in due if (key := conversation_of(job.account, job.peer, group=job.group))),
        calls=frozenset((job.account, job.sid) for job in due if job.sid is not None),
        devices=True,
    )
