"""Pushes from the outbox to the simulator, by the service's own workers: a store in memory, one phone, one call."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sync.adapters.apns import ApnsApp, ApnsGate, GateLimits
from sync.adapters.memory import MemoryBus, MemoryPresence
from sync.adapters.sealing import Sealer
from sync.model.device import Device, JobState, PushJob, PushKind, SealedToken
from sync.model.push import Environment
from sync.model.query import App
from sync.ports import Presence, PushGate, Store
from sync.rules.fold import Policies
from sync.rules.wishes import WakePolicy
from sync.service.pusher import LANES, Pusher
from sync.service.sender import Sender
from tests.contract.apns_server import ALERT, APP, PATIENT, VOIP, Apns
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, account, call, call_job, device, job, owned, storing

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat", "other"})))
SEALER = Sealer([urlsafe_b64encode(bytes(32)).decode()])  # the same in every process of a test
DAY = timedelta(days=1)


def sealed(token: str) -> SealedToken:
    return SealedToken(SEALER.digest(token), SEALER.seal(token))


def phone(now: datetime, alert: str = ALERT, voip: str | None = VOIP, **fields: Any) -> Device:
    """A device of the simulator's app."""
    tokens = {"alert_token": sealed(alert), "voip_token": None if voip is None else sealed(voip)}
    return device(environment=Environment.PRODUCTION, registered_at=now - DAY, **(tokens | fields))


@dataclass
class Office:
    """The workers of one process, and what they work on."""

    store: Store
    gate: PushGate
    clock: Any
    presence: Presence = field(default_factory=MemoryPresence)
    bus: Any = field(default_factory=MemoryBus)
    policies: Policies = POLICIES
    keys: Mapping[str, str] = field(default_factory=lambda: {"apns:chat": "K", "apns:other": "K"})
    in_flight: int = 10

    def __post_init__(self) -> None:
        self.observer = RecordingObserver()
        apps = {
            name: App(name=name, bundle_id=APP, environment=Environment.PRODUCTION, filtering=True)
            for name in ("chat", "other")
        }
        self.sender = Sender(
            gate=self.gate,
            publisher=cast(Any, None),  # nobody here has an app server of another maker
            sealer=SEALER,
            clock=self.clock,
            observer=self.observer,
            apps=apps,
            wordings={},
        )
        self.pusher = Pusher(
            store=self.store,
            sender=self.sender,
            presence=self.presence,
            bus=self.bus,
            clock=self.clock,
            observer=self.observer,
            policies=self.policies,
            keys=self.keys,
            in_flight=self.in_flight,
        )

    async def round(self, lane: str) -> bool:
        """One claim of a lane, and everything that came of it."""
        busy = await self.pusher.round(lane)
        await self.quiet()
        return busy

    async def quiet(self) -> None:
        """Until nothing is under way."""
        while self.pusher._sending:
            await asyncio.wait(set(self.pusher._sending))

    async def all_lanes(self) -> None:
        for lane in LANES:
            await self.round(lane)

    def told(self, name: str) -> list[dict[str, object]]:
        return self.observer.told(name)


class Desk(Office):
    """With a store in memory: Ann's phone, a message to read and a call that rings."""

    store: MemoryStore

    def put(self, **rows: Any) -> None:
        self.store.apply(owned(), storing(**rows))

    def register(self, *devices: Device) -> None:
        self.put(accounts=[account(devices=len(devices), unread=1)], devices=list(devices), retokened=list(devices))

    def message(self, name: str = "message", **fields: Any) -> PushJob:
        now = self.clock.now()
        usual = {"created_at": now, "not_before": now, "deadline": now + DAY, "queue": "apns:chat", "collapse": "w"}
        made = job(name, **(usual | fields))
        self.put(jobs=[made])
        return made

    def ring(self, name: str = "call", sid: str = "s1", **fields: Any) -> PushJob:
        now = self.clock.now()
        until = now + timedelta(seconds=60)
        usual = {"created_at": now, "not_before": now, "deadline": until, "queue": "apns:chat"}
        made = call_job(name, sid=sid, **(usual | fields))
        self.put(calls=[call(sid, proposed_at=now, rings_until=until)], jobs=[made])
        return made

    def now(self, made: PushJob) -> PushJob:
        """The job as it is by now."""
        return self.store.tables.jobs[made.account, made.job_id]

    def device(self, device_id: str = "phone") -> Device | None:
        return self.store.tables.devices.get((ANN, device_id))

    def alerts(self) -> list[PushJob]:
        """What is queued to be shown for the call."""
        jobs = self.store.tables.jobs.values()
        return [one for one in jobs if one.kind is PushKind.CALL_FALLBACK and one.state is JobState.QUEUED]

    def later(self, seconds: float) -> None:
        self.clock.instant += timedelta(seconds=seconds)


def desk(gate: PushGate, **more: Any) -> Desk:
    """Ann's phone is registered."""
    clock = SetClock(datetime.now(UTC))
    found = Desk(MemoryStore(clock), gate, clock, **more)
    found.register(phone(clock.now()))
    return found


@asynccontextmanager
async def desk_at(
    server: Apns, *apps: ApnsApp, limits: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[Desk]:
    """A desk whose pushes go to this simulator, over a connection that is warm."""
    gate = ApnsGate([server.app(), *apps], server.tokens(), limits=GateLimits(**PATIENT | dict(limits or {})))
    await gate.open()
    found = desk(gate, **more)
    warm = found.message("warm")
    await found.round("messages")
    assert found.now(warm).outcome == "accepted"
    found.store.tables.jobs.clear()
    server.simulator.journal.clear()
    found.register(replace(phone(found.clock.now()), woken_version=0))
    try:
        yield found
    finally:
        await gate.close()
