"""A queue of pushes that was left alone for a night is drained: claims, sending, outcomes, in the order of lanes.

The workers are the service's own, on a Postgres of their own, and push to the simulator. The jobs are written by SQL:
four for each account, a missed call, a message, and two updates, due at any time of the last eight hours.
"""

import asyncio
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any, cast

import asyncpg

from bench.report import table
from bench.simulator import APP, Simulated
from bench.stage import database, processor_seconds
from bench.start import resident
from sync.adapters.apns import ApnsGate
from sync.adapters.memory import MemoryBus, MemoryPresence
from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.sealing import Sealer
from sync.app import spare_the_collector
from sync.app.drivers import SystemClock
from sync.model.push import Environment, PushOutcome, PushRequest, Verdict
from sync.model.query import App
from sync.rules.fold import Policies
from sync.rules.wishes import WakePolicy
from sync.service.pusher import Pusher
from sync.service.sender import Sender

JOBS, QUICK_JOBS = 100_000, 400
IN_FLIGHT = 100
LOOK_SECONDS, SILENCE_SECONDS = 0.05, 120.0
ALERT = "a" * 64
FILL = """
WITH owner AS (
    INSERT INTO account (jid, version, floor, devices, unread)
    SELECT 'user' || n || '@example.org', 1000, 0, 1, 1 FROM generate_series(1, $1::integer) n RETURNING jid
), phone AS (
    INSERT INTO device (account, device_id, app, environment, alert_token, alert_digest, node, secret_digest, enabled,
        registered_at)
    SELECT jid, 'phone', 'chat', 'production', $2, sha256(jid::bytea), '', '', true, now() - interval '1 day' FROM owner
    RETURNING account
)
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, created_at, not_before, deadline, queue)
SELECT account, gen_random_uuid(), 'phone', lane, kind, 5, '', now(), now() - random() * interval '8 hours',
    now() + interval '1 day', 'apns:chat'
FROM phone, (VALUES (1, 'missed'), (2, 'message'), (3, 'read'), (3, 'reacted')) AS job(lane, kind)
"""


class Noting:
    """The gate, and in which order what kind went through it."""

    def __init__(self, gate: ApnsGate) -> None:
        self._gate = gate
        self.kinds: list[str] = []
        self.accepted = 0

    async def send(self, request: PushRequest) -> PushOutcome:
        """`PushGate.send`."""
        self.kinds.append(str(cast(dict[str, Any], request.payload["x"])["k"]))
        outcome = await self._gate.send(request)
        self.accepted += outcome.verdict is Verdict.ACCEPTED
        return outcome

    async def close(self) -> None:
        """`PushGate.close`."""
        await self._gate.close()


def made_pusher(pool: Pool, gate: Noting, sealer: Sealer) -> Pusher:
    """The workers as a component has them, with the observer that production has."""
    clock, observer = SystemClock(), Metrics()
    app = App(name="chat", bundle_id=APP, environment=Environment.PRODUCTION, filtering=True)
    sender = Sender(
        gate=gate,
        publisher=cast(Any, None),  # nobody here has an app server of another maker
        sealer=sealer,
        clock=clock,
        observer=observer,
        apps={"chat": app},
        wordings={},
    )
    return Pusher(
        store=PostgresStore(pool, clock, observer),
        sender=sender,
        presence=MemoryPresence(),
        bus=MemoryBus(),
        clock=clock,
        observer=observer,
        policies=Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"}))),
        keys={"apns:chat": "K"},
        in_flight=IN_FLIGHT,
    )


def place(kinds: list[str], chosen: str, *, last: bool = False) -> str:
    """How far the drain had come at the first, or the last, of a kind."""
    at = len(kinds) - 1 - kinds[::-1].index(chosen) if last else kinds.index(chosen)
    return f"{at / len(kinds):.0%}"


async def drained(pusher: Pusher, gate: Noting, jobs: int) -> tuple[float, float, float, float]:
    """Seconds, processor seconds, MB after a tenth and at most since then."""
    began, busy, first, most = time.perf_counter(), processor_seconds(os.getpid()), 0.0, 0.0
    running = asyncio.ensure_future(pusher.run())
    seen, since = 0, began
    while len(gate.kinds) < jobs:
        if running.done():
            running.result()
        if len(gate.kinds) > jobs / 10:
            now, _ = resident(os.getpid())
            first, most = first or now, max(most, now)
        await asyncio.sleep(LOOK_SECONDS)
        if len(gate.kinds) != seen:
            seen, since = len(gate.kinds), time.perf_counter()
        if time.perf_counter() - since > SILENCE_SECONDS:
            raise TimeoutError(f"{len(gate.kinds)} of {jobs} jobs")
    await pusher.drain()
    took = time.perf_counter() - began, processor_seconds(os.getpid()) - busy, first, most
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return took


async def run(at: Simulated, jobs: int, say: Callable[[str], None]) -> str:
    """The table."""
    sealer = Sealer([urlsafe_b64encode(bytes(32)).decode()])
    spare_the_collector()  # as the component does
    async with database(shared_buffers="256MB", max_wal_size="4GB") as dsn:
        await migrate.install(dsn("postgres"))
        connection = await asyncpg.connect(dsn("postgres"))
        await connection.execute(FILL, jobs // 4, sealer.seal(ALERT))
        await connection.execute("VACUUM ANALYZE")
        say(f"push: {jobs:,} jobs wait")
        pool, gate = Pool(dsn("postgres"), size=4), Noting(at.gate())
        await pool.open()
        seconds, busy, first, most = await drained(made_pusher(pool, gate, sealer), gate, jobs)
        left = await connection.fetchval("SELECT count(*) FROM push_job WHERE state <> 'done' AND repeat = 0")
        await connection.close()
        await gate.close()
        await pool.close()
    if left or gate.accepted != jobs:
        raise AssertionError(f"{left} jobs are left, {gate.accepted} pushes were accepted")
    row = [
        f"{jobs:,}",
        f"{seconds:.1f}",
        f"{jobs / seconds:,.0f}",
        f"{busy / jobs * 1e6:,.0f}",
        f"{first:.0f}",
        f"{most:.0f}",
        *(place(gate.kinds, kind, last=True) for kind in ("missed", "message")),
        min(place(gate.kinds, kind) for kind in ("read", "reacted")),
    ]
    head = [
        "jobs", "drained after, s", "jobs/s", "CPU µs/job", "MB after a tenth", "highest, MB",
        "last missed call at", "last message at", "first update at",
    ]  # fmt: skip
    return (
        "A queue that was left alone for a night, drained by the service's own workers on a Postgres beside them: "
        "claim, push and outcome of each, a quarter missed calls, a quarter messages, half updates, which come last. "
        f"The places say how far the drain had come; calls have workers of their own.\n\n{table(head, [row])}"
    )
