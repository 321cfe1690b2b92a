"""The component's own share of an answer, and whether it grows with what there is: a stand-in for the server
(`bench.port`) asks a component of its own on a database of its own, so that no server's work is in the figures.

The account is written by SQL: so many conversations, so many messages in the index of the ten that have changed.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg

from bench.apart import HOST, Stage, stage
from bench.queries import take
from bench.questions import COPY, ordered
from bench.report import milliseconds, table
from bench.stage import processor_seconds
from bench.traffic import body, event, frames, stanza, unique
from bench.ways import OWN, SYNC, result_set
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.delta import DeltaToken
from sync.protocol.token import encode_token

ACCOUNT = "ann@localhost"
CHANGED, MANY = 10, 50
SECONDS, QUICK_SECONDS = 3.0, 0.5
COPIES = [f"user{number}@localhost" for number in range(20)]
MORE_CONVERSATIONS = """
WITH model AS (SELECT source FROM conversation source WHERE account = $1 ORDER BY version LIMIT 1)
INSERT INTO conversation SELECT (jsonb_populate_record(source, jsonb_build_object(
    'peer', 'more' || n || '@example.org', 'version', (source).version - 10 * n
))).* FROM model, generate_series($2::bigint, $3::bigint) AS n
"""
MORE_MESSAGES = """
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, archive_key)
SELECT $1, 'peer' || to_char(n % 10, 'FM000') || '@example.org', 'chat', n, n % 2 = 0, false, now(), 'o' || n, 'k' || n
FROM generate_series($2::bigint, $3::bigint) AS n
"""


class Sized(NamedTuple):
    """What the account has."""

    conversations: int
    messages: int


SIZES = (Sized(100, 0), Sized(1_000, 0), Sized(100_000, 0), Sized(100_000, 1_000_000))
QUICK_SIZES = (Sized(60, 0), Sized(500, 5_000))


class Took(NamedTuple):
    """Answers a second, how long each took, processor time of the component and of the database, bytes of an answer."""

    rate: float
    seconds: list[float]
    ours: float
    theirs: float
    size: int


# ---- the account ---------------------------------------------------------------------------------------------------


def said(peer: int, chance: random.Random) -> str:
    """A message of one of the peers."""
    sender = f"peer{peer:03d}@example.org"
    return event(ACCOUNT, "in", stanza(sender, ACCOUNT, unique("m"), body(chance)), sessions="")


async def fill(dsn: str) -> tuple[int, int, int]:
    """Conversations by the service's own ingest; the versions before the last fifty, before the last ten, and now."""
    pool, chance, versions = Pool(dsn, size=2), random.Random(5), [0]  # noqa: S311 - traffic, no secret
    await pool.open()
    try:
        store = PostgresStore(pool, SystemClock(), Metrics())
        for name, peers in (("first", range(60)), ("more", range(MANY)), ("last", range(CHANGED))):
            await take(store, frames([said(peer, chance) for peer in peers], host=HOST, stream=name))
            found = await store.account(ACCOUNT)
            assert found is not None
            versions.append(found.version)
    finally:
        await pool.close()
    return versions[1], versions[2], versions[3]


async def grow(dsn: str, size: Sized) -> None:
    """So many conversations, and so many messages in the index of those that have changed."""
    connection = await asyncpg.connect(dsn)
    try:
        for table_, statement, wanted in (
            ("conversation", MORE_CONVERSATIONS, size.conversations),
            ("message", MORE_MESSAGES, size.messages),
        ):
            have = await connection.fetchval(f"SELECT count(*) FROM {table_} WHERE account = $1", ACCOUNT)  # noqa: S608
            if wanted > have:
                await connection.execute(statement, ACCOUNT, have + 1, wanted)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def copy(dsn: str, model: str, copies: Sequence[str]) -> None:
    """Accounts like that one."""
    connection = await asyncpg.connect(dsn)
    try:
        for name, key in (("account", "jid"), ("conversation", "account")):
            await connection.execute(COPY.format(table=name, key=key, most=""), model, list(copies))
        # A message is stored under its archive's own id.
        own = "UPDATE conversation SET last_stanza = replace(last_stanza, $1, account) WHERE account = ANY ($2)"
        await connection.execute(own, model, list(copies))
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


# ---- measuring -----------------------------------------------------------------------------------------------------


async def measured(on: Stage, questions: list[list[str]], window: int, seconds: float) -> Took:
    """So many questions under way for so long, after a moment that does not count."""
    connection = await asyncpg.connect(on.dsn)
    try:
        pids = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'convsync'")
    finally:
        await connection.close()
    backends = [row["pid"] for row in pids]
    order = {"questions": questions, "window": window}
    await ordered(on.port, order | {"seconds": seconds / 10})
    before = processor_seconds(on.component), processor_seconds(*backends)
    found = json.loads(await ordered(on.port, order | {"seconds": seconds}))
    ours, theirs = processor_seconds(on.component) - before[0], processor_seconds(*backends) - before[1]
    many = found["answers"]
    return Took(many / found["seconds"], found["took"], ours / many * 1e6, theirs / many * 1e6, found["bytes"] // many)


def questions_of(account: str, versions: tuple[int, int, int]) -> dict[str, tuple[str, int]]:
    """What is asked, and with how many conversations it is answered."""
    many, ten, now = versions
    tokens = [encode_token(DeltaToken(epoch=1, since=since, log=since), account=account) for since in versions]
    own = [f"<sync xmlns='{OWN}' token='{token}'/>" for token in tokens]
    lean = [question.replace("/>", " preview='100'/>") for question in own]
    theirs = [f"<query xmlns='{SYNC}' stamp='{since}'>{result_set(60)}</query>" for since in (many, ten, now)]
    return {
        "nothing new, urn:convsync:0": (own[2], 0),
        "nothing new, Client Synchronization": (theirs[2], 0),
        f"{CHANGED} changed, urn:convsync:0": (own[1], CHANGED),
        f"{CHANGED} changed, urn:convsync:0, rows of a list": (lean[1], CHANGED),
        f"{CHANGED} changed, Client Synchronization": (theirs[1], CHANGED),
        f"{MANY} changed, urn:convsync:0": (own[0], MANY),
        f"{MANY} changed, urn:convsync:0, rows of a list": (lean[0], MANY),
        f"{MANY} changed, Client Synchronization": (theirs[0], MANY),
    }


async def checked(on: Stage, account: str, what: str, payload: str, expected: int) -> None:
    """The answer is the one that is meant."""
    answer = json.loads(await ordered(on.port, {"once": [account, "r", payload]}))
    if answer.count("<conversation ") != expected:
        raise AssertionError(f"{what}: {answer.count('<conversation ')} conversations: {answer[:400]}")


async def crowd(on: Stage, versions: tuple[int, int, int], seconds: float) -> str:
    """Questions of many accounts at the same time."""
    rows: list[list[object]] = []
    asked = [questions_of(account, versions) for account in COPIES]
    for what, (payload, expected) in asked[0].items():
        await checked(on, COPIES[0], what, payload, expected)
        questions = [[account, "r", mine[what][0]] for account, mine in zip(COPIES, asked, strict=True)]
        took = await measured(on, questions, len(COPIES), seconds)
        rows.append([
            what,
            f"{took.rate:,.0f}",
            *milliseconds(took.seconds, 50, 99),
            f"{took.ours:,.0f}",
            f"{took.theirs:,.0f}",
            f"{took.size:,}",
        ])  # fmt: skip
    return table(["", "answers/s", "p50 ms", "p99 ms", "CPU µs", "database, CPU µs", "bytes"], rows)


async def alone(on: Stage, versions: tuple[int, int, int], sizes: Sequence[Sized], seconds: float) -> str:
    """One question after the other, while the account grows."""
    rows: dict[str, list[object]] = {what: [what] for what in questions_of(ACCOUNT, versions)}
    for size in sizes:
        await grow(on.dsn, size)
        for what, (payload, expected) in questions_of(ACCOUNT, versions).items():
            await checked(on, ACCOUNT, what, payload, expected)
            took = await measured(on, [[ACCOUNT, "r", payload]], 1, seconds / 2)
            (wait,) = milliseconds(took.seconds, 50)
            rows[what].append(f"{wait} ({took.ours:,.0f} + {took.theirs:,.0f})")
    names = [f"{size.conversations:,} / {size.messages:,}" for size in sizes]
    return table(["conversations / messages held", *names], rows.values())


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    sizes, seconds = (QUICK_SIZES, QUICK_SECONDS) if quick else (SIZES, SECONDS)
    async with stage() as on:
        versions = await fill(on.dsn)
        await grow(on.dsn, sizes[0])
        await copy(on.dsn, ACCOUNT, COPIES)
        say(f"answers: {len(COPIES)} accounts")
        together = await crowd(on, versions, seconds)
        say(f"answers: up to {sizes[-1].conversations:,} conversations and {sizes[-1].messages:,} messages")
        one = await alone(on, versions, sizes, seconds)
    return (
        f"One component process; the stand-in for the server and the database share the machine. {len(COPIES)} "
        f"accounts with {sizes[0].conversations} conversations, each asking as soon as it was answered; processor "
        f"time of the component, and of the database's processes that serve it, for one answer; bytes with the "
        f"delegation's envelope:\n\n{together}\n\nOne account, one question after the other: p50 ms (CPU µs of the "
        f"component + of the database):\n\n{one}"
    )
