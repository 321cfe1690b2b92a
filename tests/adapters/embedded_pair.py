"""Run by tests as a process of its own: Postgres and Valkey under a supervisor, a JSON line for what happened.

`python embedded_pair.py FOLDER PORT PORT [kill]`: with `kill`, Postgres is killed while a session is busy and Valkey
too, both must be back with their data, then all stops. Without, it stays until somebody ends it.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio

from sync.sandbox import postgres, valkey
from sync.sandbox.supervisor import Supervisor


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def main(folder: Path, port: int, redis_port: int, *, kill: bool) -> None:
    password = secrets.token_hex(16)
    restarted = asyncio.Event()
    supervisor = Supervisor(logs=folder, changed=restarted.set)
    postgres.create(folder / "postgres", password=password)
    server = postgres.postgres(folder / "postgres", port=port, password=password)
    store = valkey.valkey(folder / "valkey", port=redis_port, password=password)
    await supervisor.start(server)
    await supervisor.start(store)
    say(pids=dict(supervisor.pids))
    if not kill:
        await asyncio.Event().wait()

    dsn, url = postgres.dsn(port=port, password=password), valkey.url(port=redis_port, password=password)
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000)"))
    client = redis.asyncio.from_url(url, decode_responses=True)
    await client.set("kept", "42")
    await client.aclose()
    for part in (server, store):
        restarted.clear()
        os.kill(supervisor.pids[part.name], signal.SIGKILL)
        async with asyncio.timeout(90):
            await restarted.wait()
            while not await part.answers():  # noqa: ASYNC110 - a port has no event to wait for
                await asyncio.sleep(0.01)
        say(killed=part.name)
    await asyncio.gather(busy, return_exceptions=True)
    again, client = await asyncpg.connect(dsn), redis.asyncio.from_url(url, decode_responses=True)
    say(row=await again.fetchval("SELECT n FROM kept"), value=await client.get("kept"))
    await again.close()
    await client.aclose()
    await supervisor.stop()
    say(stopped=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), kill="kill" in sys.argv))
