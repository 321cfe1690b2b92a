"""A process that pushes, and dies where it is told to: `python -m tests.adapters.push_worker < settings.json`.

`die`: "claimed" (before the push leaves), "answered" (before the outcome is recorded), or nothing. `rings`: for so many
accounts, numbered from 0, it takes a propose out of the feed as well. It says "ready" when it begins, and ends well on
SIGTERM.
"""

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sync.adapters.apns import ApnsApp, ApnsGate, ProviderKey
from sync.adapters.memory import MemoryPresence
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.provider_tokens import PostgresProviderTokens
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.redis.bus import RedisBus
from sync.adapters.redis.link import Link
from sync.adapters.redis.presence import RedisPresence
from sync.app.drivers import SystemClock
from sync.model.push import Environment, PushOutcome, PushRequest, PushType
from sync.rules.fold import take
from sync.rules.wanted import keys
from sync.service.pusher import Pusher
from tests.adapters.pushing import POLICIES, SEALER, Office
from tests.contract.apns_server import APP, KEY, PATIENCE, TEAM
from tests.contract.fakes_observer import RecordingObserver
from tests.core.rule_feed import Feed

TICK_SECONDS = 0.05


class DyingGate(ApnsGate):
    """Dies on one side of a send or the other, where a call is to ring."""

    die = ""

    async def send(self, request: PushRequest) -> PushOutcome:
        dies = self.die if request.push_type is PushType.VOIP else ""
        if dies == "claimed":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await super().send(request)
        if dies == "answered":
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome


async def ring(pusher: Pusher, number: int) -> None:
    """A propose out of the feed: the call begins to ring, and is claimed in the same transaction."""
    event = Feed(SystemClock().now).event("call", ["propose", "s1"], {})
    event = replace(event, account=f"user{number}@example.org", position=replace(event.position, n=number + 1))
    pusher.committed(await pusher.transact(keys([event]), lambda books: take([event], books, POLICIES)))


async def work(told: dict[str, Any]) -> None:
    clock, pool = SystemClock(), Pool(told["dsn"], size=4, connect_seconds=60, statement_seconds=60)
    await pool.open()
    key = ProviderKey(team_id=TEAM, key_id=KEY, pem=told["pem"])
    app = ApnsApp(
        name="chat",
        bundle_id=APP,
        environment=Environment.PRODUCTION,
        server=f"https://127.0.0.1:{told['port']}",
        ca_file=Path(told["ca"]),
    )
    tokens = PostgresProviderTokens(pool.raw, key=key, seal=SEALER, clock=clock)
    gate = DyingGate([app], tokens, limits=PATIENCE)
    gate.die = told.get("die", "")
    await gate.open()
    shared: dict[str, Any] = {"presence": MemoryPresence()}
    if redis := told.get("redis"):
        link = Link(redis, observer=RecordingObserver())
        shared = {"presence": RedisPresence(link, observer=RecordingObserver()), "bus": RedisBus(link)}
    office = Office(PostgresStore(pool, clock, RecordingObserver()), gate, clock, **shared)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = asyncio.ensure_future(office.pusher.run())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for number in range(told.get("rings", 0)):
        await ring(office.pusher, number)
    while not stop.is_set() and not running.done():
        await office.pusher.recover()
        await office.pusher.expire()
        await asyncio.sleep(TICK_SECONDS)
    await office.pusher.drain()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await gate.close()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.stdin.read())))
