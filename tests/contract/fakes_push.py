"""A PushGate and a ProviderTokens that keep everything in memory, for tests of what stands above the ports.

They pass the same contract suites as the real ones. The gate judges by the simulator's own rules and tokens, so that
a push which APNs would refuse is refused here too; what it is told to answer next comes first, in the order in which
it was told.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from sync.model.push import PushOutcome, PushRequest, Verdict
from sync.protocol.apns import outcome, payload_limit_bytes, topic
from sync.sandbox.apns.registry import Registry
from sync.sandbox.apns.rules import CONTENT, Push, refusal


class RecordingPushGate:
    """Sends nowhere. `sent` has every request that a service would have seen, oldest first.

    `next_outcomes` are answered first; then what `outcome_of` gives; then the simulator's rules decide. While
    `released` is cleared `send` waits, to test what happens meanwhile.
    """

    def __init__(self, bundle_ids: dict[str, str]) -> None:
        self.bundle_ids = bundle_ids
        self.registry = Registry()
        self.sent: list[PushRequest] = []
        self.next_outcomes: deque[PushOutcome] = deque()
        self.outcome_of: Callable[[PushRequest], PushOutcome | None] = lambda _: None
        self.released = asyncio.Event()
        self.released.set()
        self.closed = False

    def answer_next(self, *outcomes: PushOutcome) -> None:
        self.next_outcomes.extend(outcomes)

    async def send(self, request: PushRequest) -> PushOutcome:
        if self.closed:
            return PushOutcome(verdict=Verdict.NOT_SENT)
        bundle_id = self.bundle_ids.get(request.app)
        if bundle_id is None:
            return PushOutcome(verdict=Verdict.REJECTED)
        try:
            body = json.dumps(
                dict(request.payload), ensure_ascii=False, separators=(",", ":"), allow_nan=False
            ).encode()
        except (TypeError, ValueError):
            return PushOutcome(verdict=Verdict.REJECTED)
        if len(body) > payload_limit_bytes(request.push_type):
            return PushOutcome(verdict=Verdict.TOO_LARGE)
        self.sent.append(request)
        await self.released.wait()
        if self.next_outcomes:
            return self.next_outcomes.popleft()
        return self.outcome_of(request) or self._judged(request, bundle_id, body)

    async def close(self) -> None:
        self.closed = True

    def _judged(self, request: PushRequest, bundle_id: str, body: bytes) -> PushOutcome:
        push = Push(
            method="POST",
            path=f"/3/device/{request.token}",
            names=(),
            authorization=None,
            topic=topic(bundle_id, request.push_type),
            declared_type=request.push_type.value,
            priority=str(request.priority),
            expiration=str(request.expiration),
            collapse_id=request.collapse_id,
            apns_id=request.apns_id,
            body=body,
            payload=dict(request.payload),
        )
        refused = refusal(CONTENT, push, set(self.bundle_ids.values()))
        refused = refused or self.registry.refusal(push.token, push.push_type)
        if refused is None:
            return outcome(200, b"")
        said = {"reason": refused.reason, "timestamp": refused.timestamp_ms}
        return outcome(refused.status, json.dumps(said).encode())


class MemoryRow:
    """What processes share in place of a table's row."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.minted_at: datetime | None = None


class MemoryProviderTokens:
    """ProviderTokens over a shared `row`; `mint` makes a token issued at an instant, `now` tells the time."""

    def __init__(
        self, mint: Callable[[datetime], str], now: Callable[[], datetime], row: MemoryRow | None = None
    ) -> None:
        self._mint, self._now, self._row = mint, now, row or MemoryRow()
        self._known: tuple[str, datetime] | None = None
        self._held_until: datetime | None = None

    @property
    def minted_at(self) -> datetime | None:
        return self._known[1] if self._known else None

    async def current(self) -> str:
        held = self._held_until is not None and self._now() < self._held_until
        limit = timedelta(minutes=59 if held else 50)
        if self._known is None or self._age(self._known[1]) >= limit:
            self._share(limit)
        assert self._known is not None
        return self._known[0]

    async def refused(self, token: str) -> bool:
        if self._known is not None and self._known[0] != token:
            return True
        self._share(timedelta(minutes=20) if self._row.token == token else timedelta(minutes=50))
        assert self._known is not None
        return self._known[0] != token

    def hold(self) -> None:
        self._held_until = self._now() + timedelta(minutes=20)

    def _age(self, minted_at: datetime) -> timedelta:
        return self._now() - minted_at

    def _share(self, limit: timedelta) -> None:
        row = self._row
        if row.token is None or row.minted_at is None or self._age(row.minted_at) >= limit:
            row.token, row.minted_at = self._mint(self._now()), self._now()
        assert row.token is not None
        assert row.minted_at is not None
        self._known = row.token, row.minted_at


class SetClock:
    """A clock that stands still until it is moved; `sleep` moves it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, **by: float) -> None:
        self.at += timedelta(**by)

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
