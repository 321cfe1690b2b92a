"""How many questions a second are answered: 20 sessions of 20 accounts, each asking again as soon as it was answered.

The accounts are copies of one that the service's ingest has filled, made by SQL; the sessions are a process of their
own (`bench.askers`) that does not parse what it gets.
"""

import asyncio
import json
import random
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from bench.client import Client
from bench.crowd import accounts
from bench.queries import said, take
from bench.report import milliseconds, table
from bench.stage import processor_seconds
from bench.traffic import frames
from bench.ways import OWN, SYNC, result_set
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.delta import DeltaToken
from sync.protocol.token import encode_token
from sync.sandbox.stack import Ready

SESSIONS, SIZES, QUICK_SIZES = 20, (100, 1_000, 5_000), (50,)
CHANGED = 10
PARTS = ("server", "component", "postgres")
SECONDS, QUICK_SECONDS = 2.0, 0.5
RATES_PEOPLE = 1 + SESSIONS  # the one that is copied, and the copies
LINE_BYTES = 2**25  # how long each answer took, as text
COPY = """
WITH chosen AS (SELECT source FROM {table} source WHERE {key} = $1 {most})
INSERT INTO {table} SELECT (jsonb_populate_record(chosen.source, jsonb_build_object('{key}', copy))).*
FROM chosen, unnest($2::text[]) AS copy
"""


async def fill(ready: Ready, account: str, conversations: int) -> None:
    """A message in each of so many conversations."""
    pool, chance = Pool(ready["postgres"], size=2), random.Random(7)  # noqa: S311 - traffic, no secret
    await pool.open()
    try:
        events = [said(account, peer, chance) for peer in range(conversations)]
        await take(PostgresStore(pool, SystemClock(), Metrics()), frames(events, host="localhost", stream="bench-many"))
    finally:
        await pool.close()


async def copied(ready: Ready, model: str, copies: Sequence[str], size: int) -> tuple[int, int]:
    """The copies get the model's newest conversations, so many; the newest version, and the one before the changed."""
    connection = await asyncpg.connect(ready["postgres"])
    try:
        async with connection.transaction():
            # The component makes rows of accounts that it hears of, and the sessions are online.
            await connection.execute("LOCK TABLE account, conversation")
            for name, key, most in (
                ("account", "jid", ""),
                ("conversation", "account", f"ORDER BY version DESC LIMIT {size}"),
            ):
                await connection.execute(f"DELETE FROM {name} WHERE {key} = ANY ($1)", list(copies))  # noqa: S608
                await connection.execute(COPY.format(table=name, key=key, most=most), model, list(copies))
        await connection.execute("VACUUM (ANALYZE) conversation")
        newest = await connection.fetchval("SELECT version FROM account WHERE jid = $1", model)
        before = await connection.fetchval(
            "SELECT version FROM conversation WHERE account = $1 ORDER BY version DESC OFFSET $2 LIMIT 1",
            model,
            CHANGED,
        )
        return newest, before
    finally:
        await connection.close()


def questions(copies: Sequence[str], since: int) -> dict[str, list[str]]:
    """What each of them asks, in each dialect."""
    tokens = [encode_token(DeltaToken(epoch=1, since=since, log=since), account=copy) for copy in copies]
    return {
        "Client Synchronization": [f"<query xmlns='{SYNC}' stamp='{since}'>{result_set(60)}</query>"] * len(copies),
        "urn:convsync:0": [f"<sync xmlns='{OWN}' token='{token}'/>" for token in tokens],
    }


async def rates(ready: Ready, *, quick: bool, say: Callable[[str], None]) -> str:
    """The table."""
    (model, _), *others = accounts(ready)[-RATES_PEOPLE:]
    copies = [jid for jid, _ in others]
    sizes, seconds = (QUICK_SIZES, QUICK_SECONDS) if quick else (SIZES, SECONDS)
    await fill(ready, model, max(sizes))
    rows: list[list[object]] = []
    async with sessions(ready, others) as process:
        for size in sizes:
            say(f"sessions: {ready['server']}, questions a second at {size:,} conversations")
            newest, before = await copied(ready, model, copies, size)
            for what, since in (("nothing new", newest), (f"{CHANGED} changed", before)):
                for dialect, payloads in questions(copies, since).items():
                    await asyncio.to_thread(check, ready, others, payloads, 0 if since == newest else CHANGED)
                    before = spent(ready)
                    found = json.loads(await ordered(process, {"payloads": payloads, "seconds": seconds}))
                    costs = [late - early for early, late in zip(before, spent(ready), strict=True)]
                    rows.append([
                        f"{what}, {dialect}",
                        f"{size:,}",
                        f"{found['answers'] / found['seconds']:,.0f}",
                        *milliseconds(found["took"], 50, 99),
                        *(f"{cost / found['answers'] * 1e6:,.0f}" for cost in costs),
                    ])  # fmt: skip
    head = ["", "conversations", "requests/s", "p50 ms", "p99 ms", *(f"{name}, CPU µs" for name in PARTS)]
    asked = f"{SESSIONS} sessions that ask without a pause; processor time for one answer, by whose it is"
    return f"{asked}:\n\n{table(head, rows)}"


def spent(ready: Ready) -> list[float]:
    """Processor time of the server, the component and the database so far."""
    return [processor_seconds(ready["pids"][name]) for name in PARTS]


def check(ready: Ready, people: Sequence[tuple[str, str]], payloads: Sequence[str], expected: int) -> None:
    """What they ask is answered with so many conversations."""
    for (jid, password), payload in (*zip(people[:1], payloads, strict=False), (people[-1], payloads[-1])):
        with Client.connect(host=ready["c2s"]["host"], port=ready["c2s"]["port"], jid=jid, password=password) as asker:
            asker.bind("check")
            answer = asker.iq("get", payload)[0]
            many = sum(1 for child in answer if child.tag.endswith("}conversation"))
            if many != expected:
                raise AssertionError(f"{many} conversations in place of {expected}: {answer.attrib}")


@asynccontextmanager
async def sessions(ready: Ready, people: Sequence[tuple[str, str]]) -> AsyncIterator[Process]:
    """The process, with everybody logged in."""
    async with process_of("bench.askers") as process:
        await ordered(process, {"host": ready["c2s"]["host"], "port": ready["c2s"]["port"], "people": people})
        yield process


@asynccontextmanager
async def process_of(module: str) -> AsyncIterator[Process]:
    """A module of ours as a process that takes orders."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        cwd=Path(__file__).parents[1],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it ended by itself, and has said why
            process.kill()
        await process.wait()


async def ordered(process: Process, order: object) -> bytes:
    """Its next line, in answer to this one."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    return await heard(process)


async def heard(process: Process) -> bytes:
    """Its next line."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the process ended")
    return line
