"""Sends what was claimed (step 7 of the flow): opens the token, makes the request, hands it to the gate of its way,
and tells what came of it.

It sends once. The one exception is a push that was too large: surely not taken, so what can be left out is left out
and it goes again. What an outcome means for the job is `rules.outcomes`'.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

from sync.model.conversation import key_of
from sync.model.device import PushJob, PushKind, Route
from sync.model.errors import SealBroken
from sync.model.push import PushOutcome, PushRequest, PushType, Verdict
from sync.model.query import App
from sync.ports import Clock, Observer, PushGate, Sealer
from sync.rules.claims import Claim
from sync.rules.payloads import Names, Wording, request, shrunk
from sync.rules.publish_budget import SEALED
from sync.service.breaker import FAILED, LATE
from sync.service.publisher import Publisher
from sync.service.storms import DeathWatch

log = logging.getLogger(__name__)

# A claim decides for the moment. What then did not leave in time (a process that stood still) is decided anew.
CLAIM_HOLDS = timedelta(seconds=5)


class Sender:
    """`gate` for our apps, `publisher` for app servers of others. `apps` and `wordings` by the name of an app.
    `measure_gate` has the gate tell of itself.
    """

    def __init__(
        self,
        *,
        gate: PushGate,
        publisher: Publisher,
        sealer: Sealer,
        clock: Clock,
        observer: Observer,
        apps: Mapping[str, App],
        wordings: Mapping[str, Wording],
        measure_gate: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate, self._publisher = gate, publisher
        self._sealer, self._clock, self._observer = sealer, clock, observer
        self._apps, self._wordings = apps, wordings
        self._measure_gate = measure_gate
        self._deaths: dict[str, DeathWatch] = {}

    async def send(self, found: Claim) -> PushOutcome:
        """What became of it."""
        began = perf_counter()
        try:
            outcome = await self._sent(found)
        except SealBroken:
            log.error("a push token cannot be opened: a key is missing in [secrets]")
            outcome = PushOutcome(verdict=Verdict.REJECTED, reason=SEALED)
        except Exception as error:  # noqa: BLE001 - whatever it stumbles over, the job must not stay under way
            log.error("a push cannot be sent", extra={"job": found.job.job_id, "error": type(error).__name__})
            outcome = PushOutcome(verdict=Verdict.UNCERTAIN, reason=FAILED)
        outcome = self._doubted(found, outcome)
        self._tell(found, outcome, perf_counter() - began)
        return outcome

    def troubles(self) -> dict[str, str]:
        """Which apps' tokens are called dead in numbers, by app."""
        now = self._clock.now()
        storms = sorted(app for app, watch in self._deaths.items() if watch.storms(now))
        return dict.fromkeys(storms, "many tokens are called dead: none is removed; is the environment right?")

    def measure(self) -> None:
        """Tell of the storms, and how it stands with the gate."""
        self._measure_gate()
        now = self._clock.now()
        for app, watch in self._deaths.items():
            self._observer.dying(app, watch.storms(now))

    async def _sent(self, found: Claim) -> PushOutcome:
        if found.job.attempted_at is not None and self._clock.now() - found.job.attempted_at > CLAIM_HOLDS:
            return PushOutcome(verdict=Verdict.NOT_SENT, reason=LATE)
        if found.device.route is Route.PUBLISH:
            return await self._publisher.send(found)
        app = self._apps.get(found.device.app)
        if app is None:
            return PushOutcome(verdict=Verdict.REJECTED, reason="app-not-configured")
        made = self._request(found, app)
        outcome = await self._gate.send(made)
        if outcome.verdict is Verdict.TOO_LARGE and (smaller := shrunk(made)) is not None:
            log.error("a push was too large; what can be left out is left out", extra={"app": app.name})
            return await self._gate.send(smaller)
        return outcome

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

    def _doubted(self, found: Claim, outcome: PushOutcome) -> PushOutcome:
        """The outcome, unless it calls one token of very many dead: then the registrations stay (PUSH §2)."""
        if found.device.route is Route.PUBLISH:
            return outcome  # it speaks of nodes of its own
        # Of tokens that never registered strangers say what they like; that must not keep the others' dead ones.
        app = found.device.app + ("" if found.device.is_registered else "/tokens")
        now = self._clock.now()
        watch = self._deaths.setdefault(app, DeathWatch())
        undated = outcome.verdict is Verdict.DEAD_TOKEN and outcome.dead_since_at is None  # 410 says since when
        if outcome.status is not None:
            watch.note(undated, now)
        if not undated or not watch.storms(now):
            return outcome
        log.error("many tokens are called dead: is the app's environment right?", extra={"app": app})
        self._observer.dying(app, True)
        return replace(outcome, verdict=Verdict.REJECTED)

    def _tell(self, found: Claim, outcome: PushOutcome, seconds: float) -> None:
        job = found.job
        ours = found.device.route is Route.APNS  # an app server's address is a user's choice, and no label
        self._observer.push(
            route=found.device.route,
            app=found.device.app if ours else "none",
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


def tag_of(account: str, sealer: Sealer) -> str:
    """The account in a name that says nothing, the same in every push of it."""
    return sealer.digest(f"account {account}").hex()[:32]
