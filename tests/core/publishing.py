"""A service that takes publishes of other servers, for its tests."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from sync.model.books import Keys
from sync.model.device import Device, JobState, PushJob
from sync.model.event import Session
from sync.model.notification import Notification, Urgency
from sync.model.push import PushOutcome, Verdict
from sync.rules.claims import Claimed, claim
from sync.rules.fold import Policies
from sync.rules.outcomes import settle
from sync.rules.publishes import (
    Outcome,
    Terms,
    publish,
)
from sync.rules.wishes import WakePolicy
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import NOW, account, device, owned, storing

ANN, EVE = "ann@far.example", "eve@example.org"
SECRET = b"secret"
TERMS = Terms(fed={"example.org"}, served={"far.example"}, publishers={"push.example"}, apps={"chat", "plain"})
POLICY = WakePolicy(filtering_apps=frozenset({"chat"}))
POLICIES = Policies(wakes=POLICY)


class Service:
    """A registry with one phone each, on a store in memory."""

    def __init__(self, **fields: Any) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        found = [device(owner=ANN, node="n", **({"enabled": False} | fields)), device(owner=EVE, node="e")]
        owners = [account(owner, version=0, floor=0, devices=1) for owner in (ANN, EVE)]
        self.store.apply(owned(ANN, EVE), storing(accounts=owners, devices=found))

    def publish(
        self,
        by: str = "far.example",
        node: str = "n",
        secret: bytes | None = SECRET,
        urgency: Urgency = Urgency.MESSAGE,
        terms: Terms = TERMS,
    ) -> Outcome:
        told = Notification(publisher=by, node=node, urgency=urgency)
        keys = Keys(accounts=frozenset({ANN, EVE}), devices=True)
        return self.store.apply(keys, lambda books: publish(told, secret, terms, POLICY, books))

    def after(self, seconds: float) -> None:
        self.clock.instant += timedelta(seconds=seconds)

    @property
    def jobs(self) -> list[PushJob]:
        return sorted(self.store.tables.jobs.values(), key=lambda job: job.created_at)

    @property
    def phone(self) -> Device:
        return next(one for one in self.store.tables.devices.values() if one.account == ANN)

    def claim(self, *sessions: Session) -> list[PushJob]:
        ids = [job.job_id for job in self.jobs]
        keys = Keys(accounts=frozenset({ANN, EVE}), devices=True)
        found: Claimed = self.store.apply(keys, lambda books: claim(ids, {ANN: sessions}, books, POLICIES))
        return [one.job for one in found.claims]

    def answered(self, job: PushJob, verdict: Verdict = Verdict.ACCEPTED) -> None:
        keys = Keys(accounts=frozenset({ANN}), devices=True)
        self.store.apply(keys, partial(settle, job.job_id, ANN, PushOutcome(verdict=verdict), policies=POLICIES))


def due(jobs: Sequence[PushJob]) -> list[tuple[float, int, bool]]:
    """(seconds until due, further events that it speaks for, silent) of queued ones."""
    return [
        ((job.not_before - NOW).total_seconds(), job.joined, job.silent) for job in jobs if job.state is JobState.QUEUED
    ]
