"""A process that ingests as a component does, from the text of the feed on: `python -m bench.ingester`.

Reads lines of JSON. The first is its number, so that no two make the same ids. Each further one is a task: dsn,
accounts, events, workers, batch, part and parts (of the accounts), stream, peers (instead: one account, to which so
many write). It says `ready` when the feed is made, begins at the next line, and says, as JSON, when it began and
ended by the machine's monotonic clock, and its processor time.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from bench.ingest import HOST, from_text
from bench.traffic import body, event, frames, number_from, stanza, unique
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app import spare_the_collector
from sync.app.drivers import SystemClock

ONE = f"ann@{HOST}"


def person(number: int) -> str:
    """An account of the table's."""
    return f"person{number}@{HOST}"


def friend(number: int, accounts: int) -> int:
    """With whom it has its conversation."""
    return (number + accounts // 2) % accounts


def peer(number: int) -> str:
    """Somebody elsewhere who writes to the one account."""
    return f"peer{number}@example.org"


def chatter(task: dict[str, Any]) -> Iterator[str]:
    """Messages between friends, each in two archives; or to the one account."""
    chance = random.Random(task["stream"])  # noqa: S311 - traffic, no secret
    while task["peers"]:
        yield event(
            ONE, "in", stanza(peer(chance.randrange(task["peers"])), ONE, unique("m"), body(chance)), sessions=""
        )
    while True:
        # Both of them belong to the same part.
        number = chance.randrange(task["accounts"] // 2 // task["parts"]) * task["parts"] + task["part"]
        sender, to = person(number), person(friend(number, task["accounts"]))
        if chance.random() < 0.5:
            sender, to = to, sender
        said = stanza(sender, to, unique("m"), body(chance))
        yield event(sender, "out", said)
        yield event(to, "in", said)


async def ingest(task: dict[str, Any]) -> None:
    """One task."""
    texts = frames(list(islice(chatter(task), task["events"])), host=HOST, stream=task["stream"])
    pool = Pool(task["dsn"], size=task["workers"] + 2, statement_seconds=60)
    await pool.open()
    try:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        took = await from_text(
            PostgresStore(pool, SystemClock(), Metrics()),
            pool,
            texts,
            task["events"],
            workers=task["workers"],
            batch=task["batch"],
        )
        ended = time.monotonic()
    finally:
        await pool.close()
    print(json.dumps({"began": began, "ended": ended, "cpu": took.cpu}), flush=True)


def main() -> None:
    number_from(int(json.loads(sys.stdin.readline())) << 28)
    spare_the_collector()
    print("started", flush=True)
    while line := sys.stdin.readline():
        asyncio.run(ingest(json.loads(line)))


if __name__ == "__main__":
    main()
