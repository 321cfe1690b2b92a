"""Workers that are killed between claim, send and record, as processes of their own on one database: at most one VoIP
push for a call and token, every call is shown, every wake arrives, and nothing stays attempted (invariant 6).
"""

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.sandbox.apns.rules import Push
from tests.adapters.processes import REPOSITORY
from tests.adapters.pushing import phone
from tests.contract.apns_server import Apns, apns, numbered
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import account, call, call_job, conversation, job, owned, storing
from tests.ports import free_port


async def until(look: Callable[[], Awaitable[bool]], seconds: float = 200) -> None:
    async with asyncio.timeout(seconds):
        while not await look():  # noqa: ASYNC110 - what other processes do to a database has no event
            await asyncio.sleep(0.02)


@dataclass
class Yard:
    """A database, a simulator, and worker processes."""

    dsn: str
    server: Apns
    store: PostgresStore
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)
    arrived: list[Push] = field(default_factory=list)
    redis: str = ""

    def __post_init__(self) -> None:
        decide = self.server.simulator.decide

        def noted(push: Push, *more: Any) -> Any:
            self.arrived.append(push)
            return decide(push, *more)

        self.server.simulator.decide = noted  # type: ignore[method-assign]

    async def worker(self, die: str = "", **more: Any) -> asyncio.subprocess.Process:
        told = {"dsn": self.dsn, "port": self.server.port, "ca": str(self.server.ca_file), "die": die}
        told |= {"pem": self.server.key.pem, "redis": self.redis} | more
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.adapters.push_worker"),
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.workers.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(told).encode())
        process.stdin.close()
        async with asyncio.timeout(200):
            assert await process.stdout.readline() == b"ready\n"
        return process

    async def people(self, many: int, after: int = 0, *, rings: bool = True) -> None:
        """So many accounts, numbered from `after`, each with a phone, a call that rings (or a friend who may call) and
        a message to be told of.
        """
        now = datetime.now(UTC)
        until_, day = now + timedelta(minutes=10), now + timedelta(days=1)
        for number in range(after, after + many):
            owner = f"user{number}@example.org"
            mine = phone(now, numbered(number), f"f{number:063x}", owner=owner)
            ring = {"created_at": now, "not_before": now, "deadline": until_, "queue": "apns:chat"}
            rows: dict[str, Any] = {
                "accounts": [account(owner, devices=1, unread=1)],
                "devices": [mine],
                "retokened": [mine],
                "conversations": [conversation(owner=owner, written=True, unread=1)],
                "jobs": [job(f"wake {number}", owner, **(ring | {"deadline": day, "collapse": "w"}))],
            }
            if rings:
                rows["calls"] = [call("s1", owner=owner, proposed_at=now, rings_until=until_)]
                rows["jobs"].append(call_job(f"call {number}", owner=owner, **ring))
            await self.store.transact(owned(owner), storing(**rows))

    async def sql(self, statement: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def abandoned(self) -> None:
        """Time passes for what nobody will ever hear of."""
        await self.sql("UPDATE push_job SET attempted_at = attempted_at - interval '16 s' WHERE state = 'attempted'")

    async def settled(self) -> bool:
        """Nothing is under way, due, or about to go again; an alert that waits for a fetch is neither."""
        return not await self.sql(
            """SELECT 1 FROM push_job WHERE state = 'attempted' OR state = 'queued'
            AND not_before <= now() + CASE WHEN kind = 'call-fallback' THEN interval '0' ELSE interval '5 s' END"""
        )

    def sent(self, push_type: str, kind: str | None = None) -> Counter[str]:
        """Requests by token, whatever was answered, or nothing."""
        pushes = [push for push in self.arrived if push.push_type == push_type]
        return Counter(push.token for push in pushes if kind in {None, (push.payload or {})["x"]["k"]})  # type: ignore[index]


@asynccontextmanager
async def yard(dsn: str) -> AsyncIterator[Yard]:
    pool = Pool(dsn, size=2, connect_seconds=60, statement_seconds=60)
    await pool.open()
    async with apns() as server:
        store = PostgresStore(pool, SystemClock(), RecordingObserver())
        found = Yard(dsn, server, store)
        try:
            yield found
        finally:
            for process in found.workers:
                if process.returncode is None:
                    process.kill()
                await process.wait()
            await pool.close()


@pytest.fixture
async def place(database: str) -> AsyncIterator[Yard]:
    async with yard(database) as found:
        yield found


async def finished(place: Yard, many: int, *, closing: bool = False) -> None:
    """What must hold whoever died: after somebody has worked who did not. `closing`: connections are closed under
    pushes, and one whose end had not left goes again.
    """
    await place.abandoned()
    worker = await place.worker()
    await until(place.settled)
    assert max(place.sent("voip").values(), default=0) <= 1
    jobs = await place.sql("SELECT account, kind, outcome, attempts, voip FROM push_job WHERE state = 'done'")
    shown = place.sent("alert", "call")
    for owner in (f"user{number}@example.org" for number in range(many)):
        mine = [one for one in jobs if one["account"] == owner]
        (ring,) = [one for one in mine if one["voip"]]
        assert ring["attempts"] == 1 or closing
        assert ring["outcome"] in {"accepted", "uncertain"}
        token = numbered(int(owner[4:].partition("@")[0]))
        assert ring["outcome"] == "accepted" or shown[token] >= 1, "uncertain, and nobody was told"
        assert any(one["kind"] == "message" and one["outcome"] == "accepted" for one in mine)
    worker.terminate()
    assert await worker.wait() == 0


@pytest.mark.parametrize(("die", "voip"), [("claimed", 0), ("answered", 1)])
async def test_a_worker_that_dies(place: Yard, die: str, voip: int) -> None:
    worker = await place.worker(die)
    await place.people(1)
    assert await worker.wait() == -signal.SIGKILL
    assert sum(place.sent("voip").values()) <= voip
    await finished(place, 1)


@pytest.mark.parametrize(("die", "voip"), [("claimed", 0), ("answered", 1)])
async def test_a_process_that_dies_with_a_call_that_just_began_to_ring(place: Yard, die: str, voip: int) -> None:
    """The claim was committed with the event; nobody but this process knew of it."""
    await place.people(1, rings=False)
    worker = await place.worker(die, rings=1)
    assert await worker.wait() == -signal.SIGKILL
    assert sum(place.sent("voip").values()) == voip
    (ring,) = await place.sql("SELECT state, attempts FROM push_job WHERE voip")
    assert ring == {"state": "attempted", "attempts": 1}
    assert len(await place.sql("SELECT 1 FROM push_job WHERE kind = 'call-fallback' AND state = 'queued'")) == 1
    await finished(place, 1)
    assert sum(place.sent("voip").values()) == voip


async def test_calls_ring_as_they_come_out_of_the_feed(place: Yard) -> None:
    await place.people(5, rings=False)
    await place.worker(rings=5)

    async def rung() -> bool:
        return len(await place.sql("SELECT 1 FROM push_job WHERE voip AND state = 'done'")) == 5

    await until(rung)
    assert place.sent("voip") == Counter({f"f{number:063x}": 1 for number in range(5)})
    assert {one["attempts"] for one in await place.sql("SELECT attempts FROM push_job WHERE voip")} == {1}


async def test_a_worker_that_dies_when_all_is_recorded(place: Yard) -> None:
    worker = await place.worker()
    await place.people(1)
    await until(place.settled)
    worker.kill()
    await worker.wait()
    before = place.sent("voip"), place.sent("alert", "message")
    await finished(place, 1)
    assert (place.sent("voip"), place.sent("alert", "message")) == before  # the alert of a call nobody fetched may come


async def test_a_worker_that_dies_while_apple_thinks(place: Yard) -> None:
    """The push has left, and nobody hears the answer."""
    place.server.fault("slow", push_type="voip", seconds=3600)
    worker = await place.worker()
    await place.people(1)
    left = place.server.simulator

    async def under_way() -> bool:
        return left.faults.waiting == 0

    await until(under_way)
    worker.kill()
    await worker.wait()
    (ring,) = await place.sql("SELECT state FROM push_job WHERE voip")
    assert ring["state"] == "attempted"
    await finished(place, 1)
    (ring,) = await place.sql("SELECT outcome, reason FROM push_job WHERE voip")
    assert ring == {"outcome": "uncertain", "reason": "worker-died"}


async def test_workers_die_all_the_time(place: Yard) -> None:
    """Two at a time, each killed after a moment, whatever it is at."""
    dice, many = random.Random("kills"), 40  # noqa: S311
    await place.people(many)
    for token in range(0, many, 4):
        place.server.fault("slow", token=f"f{token:063x}", seconds=0.3)
        place.server.fault("close", token=numbered(token + 1))
    for _ in range(2):
        workers = await asyncio.gather(*(place.worker() for _ in range(2)))
        await asyncio.sleep(dice.random() / 10)
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(worker.wait() for worker in workers))
        await place.abandoned()
    await finished(place, many, closing=True)


async def test_several_workers_share_one_queue(place: Yard) -> None:
    many = 40
    workers = await asyncio.gather(*(place.worker() for _ in range(2)))
    await place.people(many)
    await until(place.settled)
    assert place.sent("voip") == Counter({f"f{number:063x}": 1 for number in range(many)})
    assert place.sent("alert", "message") == Counter({numbered(number): 1 for number in range(many)})
    assert place.server.simulator.stats()["provider_tokens"] == 1
    for worker in workers:
        worker.terminate()
        assert await worker.wait() == 0


async def test_sigterm_finishes_what_is_under_way_and_claims_nothing_more(place: Yard) -> None:
    place.server.fault("slow", push_type="voip", seconds=0.5)
    worker = await place.worker()
    await place.people(1)

    async def under_way() -> bool:
        return place.server.simulator.faults.waiting == 0

    await until(under_way)
    worker.terminate()
    await place.people(1, after=1)
    assert await worker.wait() == 0
    first = await place.sql("SELECT state, outcome FROM push_job WHERE account = 'user0@example.org' AND voip")
    assert first == [{"state": "done", "outcome": "accepted"}]
    assert await place.sql("SELECT 1 FROM push_job WHERE state = 'attempted'") == []


# ---- Redis -----------------------------------------------------------------------------------------------------------


async def test_without_redis_everything_goes_out(place: Yard) -> None:
    """It is configured, and nobody is there."""
    place.redis = f"redis://127.0.0.1:{free_port()}"
    await place.worker()
    await place.people(5)
    await until(place.settled)
    assert place.sent("voip") == Counter({f"f{number:063x}": 1 for number in range(5)})
    assert place.sent("alert", "message") == Counter({numbered(number): 1 for number in range(5)})
