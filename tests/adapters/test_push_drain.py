"""A queue that was left alone for a night is drained in the order of lanes, with memory that does not grow with it.

`CONVSYNC_QUEUED=100000 pytest -s tests/adapters/test_push_drain.py` says how fast.
"""

import asyncio
import os
import sys
from collections import Counter
from time import perf_counter, process_time

import asyncpg

from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.push import PushOutcome, PushRequest, Verdict
from tests.adapters.pushing import SEALER, Office
from tests.contract.apns_server import ALERT
from tests.contract.fakes_observer import RecordingObserver

QUEUED = int(os.environ.get("CONVSYNC_QUEUED", "3000"))
IN_FLIGHT = 100
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


class Counting:
    """A gate that takes everything at once, and remembers nothing but kinds."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.tokens: Counter[str] = Counter()

    async def send(self, request: PushRequest) -> PushOutcome:
        x = request.payload["x"]
        assert isinstance(x, dict)
        self.kinds.append(sys.intern(x["k"]))
        self.tokens[request.token] += 1
        await asyncio.sleep(0)
        return PushOutcome(verdict=Verdict.ACCEPTED, status=200)

    async def close(self) -> None: ...


class Silent(RecordingObserver):
    """Remembers nothing."""

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return lambda *_, **__: None


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_a_long_queue_is_drained_in_the_order_of_lanes(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(FILL, QUEUED // 4, SEALER.seal(ALERT))
    await connection.execute("ANALYZE")
    pool = Pool(database, size=4, connect_seconds=60, statement_seconds=60)
    await pool.open()
    gate, clock = Counting(), SystemClock()
    office = Office(PostgresStore(pool, clock, Silent()), gate, clock, in_flight=IN_FLIGHT)
    office.pusher._observer = office.sender._observer = Silent()
    began, busy, peak, first = perf_counter(), process_time(), 0, 0
    running = asyncio.ensure_future(office.pusher.run())
    while len(gate.kinds) < QUEUED:
        assert not running.done()
        assert len(office.pusher._sending) <= 3 * IN_FLIGHT
        if len(gate.kinds) > QUEUED // 10:
            first = first or resident_bytes()
            peak = max(peak, resident_bytes())
        await asyncio.sleep(0.05)
    await office.pusher.drain()
    seconds, busy = perf_counter() - began, process_time() - busy
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    left = await connection.fetchval("SELECT count(*) FROM push_job WHERE state <> 'done' AND repeat = 0")
    await connection.close()
    await pool.close()
    print(
        f"\n{QUEUED} jobs in {seconds:.1f} s, {QUEUED / seconds:.0f}/s, {QUEUED / busy:.0f}/s of our own CPU;",
        f"{first / 1e6:.0f} MB after a tenth, {peak / 1e6:.0f} MB at most",
    )
    assert left == 0
    assert len(gate.kinds) == QUEUED
    # Calls have workers of their own: they are a quarter, and done when about half is. Updates come last.
    assert max(n for n, kind in enumerate(gate.kinds) if kind == "missed") < QUEUED * 0.75
    others = [kind for kind in gate.kinds if kind != "missed"]
    last_message = max(n for n, kind in enumerate(others) if kind == "message")
    assert last_message <= QUEUED // 4 + IN_FLIGHT
    assert peak - first < 40e6
