"""Sends a test push through the adapter and configuration that the service uses, and waits for the device to fetch.

A process of its own beside the service: they share the database, the provider token and nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import perf_counter
from uuid import uuid4

from sync.adapters.metrics import Metrics
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.sealing import Sealer
from sync.app.drivers import SystemClock, open_gate, open_pool
from sync.app.settings import apps, wordings
from sync.config import Config
from sync.model.books import Books, Keys, Ruling, Writes
from sync.model.device import Device, Route
from sync.model.errors import SealBroken
from sync.model.push import PushOutcome, PushRequest, Verdict
from sync.ports import PushGate, Store
from sync.rules.claims import Claim
from sync.rules.payloads import Names, Wording, request
from sync.rules.trial import Twin, begin, diagnosis, finish, others
from sync.service.sender import tag_of

LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one test. `seconds`: from the request's leaving us to the answer; `fetched_seconds`: from the
    attempt to the device's query, None where none came in time.
    """

    device: Device
    job_id: str
    voip: bool
    outcome: PushOutcome
    seconds: float
    meaning: str | None
    fetched_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        """True where APNs took it."""
        return self.outcome.verdict is Verdict.ACCEPTED


class Trial:
    """Test pushes to the devices of one account."""

    def __init__(self, config: Config, store: Store, gate: PushGate, sealer: Sealer, account: str) -> None:
        self._store, self._gate, self._sealer, self._account = store, gate, sealer, account
        self._apps, self._wordings = apps(config), wordings(config)
        self._keys = Keys(accounts=frozenset({account}), devices=True)

    async def push(self, device: Device, *, voip: bool) -> tuple[Report, datetime]:
        """One test, and when it left. `ItemNotFound` where the device is gone or has no VoIP token."""
        job_id = str(uuid4())
        rule = partial(begin, self._account, device.device_id, job_id, voip=voip)
        found: Claim = await self._store.transact(self._keys, rule)
        began = perf_counter()
        outcome = await self._sent(found)
        seconds = perf_counter() - began
        await self._store.transact(self._keys, partial(finish, job_id, self._account, outcome))
        twin = await self._twin(found) if outcome.reason == "BadDeviceToken" and not voip else None
        meaning = diagnosis(outcome, found.device, twin, voip=voip)
        report = Report(
            device=found.device, job_id=job_id, voip=voip, outcome=outcome, seconds=seconds, meaning=meaning
        )
        return report, found.job.created_at

    async def fetched(self, report: Report, left_at: datetime) -> Report:
        """The report; once the device has asked, with that."""
        devices = await devices_of(self._store, self._account)
        device = next((one for one in devices if one.device_id == report.device.device_id), None)
        if device is None or device.fetched_at is None or device.fetched_at < left_at:
            return report
        return replace(report, fetched_seconds=(device.fetched_at - left_at).total_seconds())

    async def _sent(self, found: Claim) -> PushOutcome:
        if found.device.route is Route.PUBLISH:
            return PushOutcome(verdict=Verdict.REJECTED, reason="not-ours")
        if found.device.app not in self._apps:
            return PushOutcome(verdict=Verdict.REJECTED, reason="app-not-configured")
        try:
            return await self._gate.send(self._request(found))
        except SealBroken:
            return PushOutcome(verdict=Verdict.REJECTED, reason="sealed")

    def _request(self, found: Claim) -> PushRequest:
        token = found.device.voip_token if found.job.voip else found.device.alert_token
        opened = self._sealer.open(token.sealed) if token is not None else ""
        call = self._sealer.digest(f"call {self._account} test {found.job.job_id}") if found.job.voip else None
        names = Names(account=tag_of(self._account, self._sealer), call=call)
        return request(found, opened, names, self._wordings.get(found.device.app, Wording()))

    async def _twin(self, found: Claim) -> Twin | None:
        """The same alert to the app of the same bundle in the other environment, where one is configured: what APNs
        says there tells a mix-up from garbage.
        """
        mine, other = self._apps[found.device.app], others(found.device.environment)
        alike = (app for app in self._apps.values() if (app.bundle_id, app.environment) == (mine.bundle_id, other))
        twin = next(alike, None)
        if twin is None:
            return None
        again = replace(self._request(found), app=twin.name, environment=other, apns_id=str(uuid4()))
        return Twin(name=twin.name, accepted=(await self._gate.send(again)).verdict is Verdict.ACCEPTED)


async def devices_of(store: Store, account: str) -> list[Device]:
    """The account's devices; none where there is no such account."""

    def look(books: Books) -> Ruling[list[Device]]:
        return Ruling(writes=Writes(), value=list(books.devices.get(account, ())))

    return await store.transact(Keys(accounts=frozenset({account}), devices=True), look)


async def push_test(
    config: Config,
    account: str,
    choose: Callable[[list[Device]], list[Device]],
    *,
    voip: bool,
    wait_seconds: float,
) -> list[Report]:
    """A test to each chosen device, then up to `wait_seconds` for what was accepted to be fetched. Raises
    `CannotStart`, `StoreUnavailable`, `ItemNotFound`, and what `choose` raises.
    """
    async with AsyncExitStack() as stack:
        pool = await open_pool(config, stack)
        store, sealer = PostgresStore(pool, SystemClock(), Metrics()), Sealer(config.secrets.ring)
        chosen = choose(await devices_of(store, account))
        trial = Trial(config, store, await open_gate(config, pool, sealer, stack), sealer, account)
        sent = [await trial.push(device, voip=voip) for device in chosen]
        reports = [report for report, _ in sent]
        end = asyncio.get_running_loop().time() + wait_seconds
        while True:
            open_ = [n for n, one in enumerate(reports) if one.accepted and one.fetched_seconds is None]
            for n in open_:
                reports[n] = await trial.fetched(*sent[n])
            if not open_ or asyncio.get_running_loop().time() >= end:
                return reports
            await asyncio.sleep(LOOK_SECONDS)
