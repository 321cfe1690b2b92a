"""Ingest as the service grows: accounts, lanes that are committed at once, processes on one database, messages held.

Accounts, conversations and messages of the past are written by SQL. What is measured is the way from the text of the
feed to the commit, as in `ingest`, by processes of their own (`bench.ingester`); two of them share the accounts.
"""

import json
import statistics
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg

from bench.ingester import HOST, ONE
from bench.questions import heard, ordered, process_of
from bench.report import spread, table
from bench.stage import database
from sync.adapters.postgres import migrate

EVENTS, ROUNDS, BATCH, PEERS = 10_000, 4, 512, 10
QUICK_EVENTS, QUICK_ROUNDS = 200, 1
MOMENT = 1_700_000_000_000_000  # microseconds; before everything that comes
ACCOUNTS = """
INSERT INTO account (jid, version, floor) SELECT 'person' || n || '@' || $2::text, $3, 0
FROM generate_series(0, $1::bigint - 1) AS n
"""
CONVERSATIONS = """
INSERT INTO conversation (account, peer, kind, version, activity, status, read_rank, read_id, last_rank, last_stanza,
    last_message_id, last_archive_id, last_sent_at)
SELECT 'person' || n || '@' || $2::text, 'person' || (n + $1::bigint / 2) % $1::bigint || '@' || $2::text, 'chat', $3,
    $3, 'active', $3, 'a' || n, $3, '<message xmlns="jabber:client" type="chat" id="m' || n || '"><body>' ||
    repeat('well then let us meet ', 12) || '</body></message>', 'm' || n, 'a' || n, now() - interval '1 day'
FROM generate_series(0, $1::bigint - 1) AS n
"""
MESSAGES = """
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, archive_key)
SELECT 'person' || n || '@' || $2::text, 'person' || (n + $1::bigint / 2) % $1::bigint || '@' || $2::text, 'chat', $3,
    false, false, now() - interval '1 day', 'm' || n, 'a' || n
FROM generate_series(0, $1::bigint - 1) AS n
"""
HELD = """
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, archive_key)
SELECT $2, 'peer' || n % $3::bigint || '@example.org', 'chat', n, n % 2 = 0, false, now() - interval '1 day', 'o' || n,
    'k' || n
FROM generate_series(1, $1::bigint) AS n
"""


class Setting(NamedTuple):
    """What is there, and who takes it in. `held`: one account that has so many messages, instead of the accounts."""

    accounts: int
    workers: int = 2
    processes: int = 1
    held: int | None = None

    @property
    def base(self) -> str:
        """The database's name."""
        return f"held{self.held}" if self.held is not None else f"accounts{self.accounts}"

    @property
    def row(self) -> list[object]:
        """How its line begins."""
        if self.held is not None:
            return [f"one account, {self.held:,} messages held", self.workers, self.processes]
        return [f"{self.accounts:,} accounts", self.workers, self.processes]


FULL = (
    Setting(1_000), Setting(100_000), Setting(1_000_000),
    Setting(100_000, workers=1), Setting(100_000, workers=4), Setting(100_000, workers=8),
    Setting(100_000, processes=2),
    Setting(1, held=0), Setting(1, held=1_000_000),
)  # fmt: skip
QUICK = (Setting(100), Setting(1_000), Setting(1_000, processes=2), Setting(1, held=0), Setting(1, held=1_000))


@dataclass(slots=True)
class Found:
    """Of one setting, a value for each round."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


async def fill(dsn: Callable[[str], str], setting: Setting) -> None:
    """The database of a setting."""
    connection = await asyncpg.connect(dsn("postgres"))
    await connection.execute(f"CREATE DATABASE {setting.base}")
    await connection.close()
    await migrate.install(dsn(setting.base))
    connection = await asyncpg.connect(dsn(setting.base))
    if setting.held is not None:
        await connection.execute(HELD, setting.held, ONE, PEERS)
    else:
        for statement in (ACCOUNTS, CONVERSATIONS, MESSAGES):
            await connection.execute(statement, setting.accounts, HOST, MOMENT)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()


async def once(
    processes: Sequence[Process], setting: Setting, dsn: str, events: int, stream: str
) -> tuple[float, float]:
    """Events a second, and µs of our processes for each."""
    chosen = processes[: setting.processes]
    share = events // setting.processes
    for part, process in enumerate(chosen):
        task = {
            "dsn": dsn,
            "accounts": setting.accounts,
            "events": share,
            "workers": setting.workers,
            "batch": BATCH,
            "part": part,
            "parts": setting.processes,
            "stream": f"{stream}-{part}",
            "peers": PEERS if setting.held is not None else 0,
        }
        await ordered(process, task)
    for process in chosen:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    found = [json.loads(await heard(process)) for process in chosen]
    seconds = max(one["ended"] for one in found) - min(one["began"] for one in found)
    return share * len(chosen) / seconds, sum(one["cpu"] for one in found) / (share * len(chosen)) * 1e6


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    settings, events, rounds = (QUICK, QUICK_EVENTS, QUICK_ROUNDS) if quick else (FULL, EVENTS, ROUNDS)
    results = {setting: Found() for setting in settings}
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(
            database(shared_buffers="512MB", max_wal_size="8GB", max_connections="60")
        )
        for setting in {setting.base: setting for setting in settings}.values():
            say(f"scale: {setting.row[0]} are written")
            await fill(dsn, setting)
        processes = [await stack.enter_async_context(process_of("bench.ingester")) for _ in range(2)]
        for number, process in enumerate(processes):
            await ordered(process, number)
        for number in range(rounds + 1):  # the first one warms up
            say(f"scale: round {number} of {rounds}")
            for place, (setting, found) in enumerate(results.items()):
                rate, cost = await once(processes, setting, dsn(setting.base), events, f"{number}-{place}")
                if number:
                    found.rates.append(rate)
                    found.costs.append(cost)
    base = results[settings[0]].rates
    rows = [
        [
            *setting.row,
            spread(found.rates),
            f"{statistics.median(a / b for a, b in zip(found.rates, base, strict=True)):.0%}",
            spread(found.costs),
        ]
        for setting, found in results.items()
    ]
    head = ["what is there", "lanes at once", "processes", "events/s", "÷ the first line", "our CPU µs/event"]
    return (
        f"From the text of the feed to the commit, {events:,} events, batches of up to {BATCH}; each account has one "
        f"conversation, and all are written to equally often, so that the database finds little where it was. One "
        f"account means one lane, whatever there is besides. {rounds} rounds, in turns, median (lowest–highest); the "
        f"ratio is the median of the rounds' own. Two processes share accounts, database and the machine's processors. "
        f"Target: flat; ≥ 10,000 events/s, ≤ 60 µs.\n\n{table(head, rows)}"
    )
