"""The component's own share of an answer, and whether it grows with what there is: a stand-in for the server
(`bench.port`) asks a component of its own on a database of its own, so that no server's work is in the figures.

The account is written by SQL: so many conversations, so many messages in the index of the ten that have changed.
"""

import json
import random
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from cryptography.fernet import Fernet

from bench.queries import take
from bench.questions import heard, ordered, process_of
from bench.report import milliseconds, table
from bench.stage import database, processor_seconds
from bench.traffic import body, event, frames, stanza, unique
from bench.ways import OWN, SYNC, result_set
from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.delta import DeltaToken
from sync.protocol.token import encode_token
from sync.sandbox import component, valkey
from sync.sandbox.folder import data_folder
from sync.sandbox.identity import write_private
from sync.sandbox.ports import hold, number
from sync.sandbox.supervisor import Supervisor

HOST, COMPONENT, SECRET, ACCOUNT = "localhost", "sync.localhost", "hush", "ann@localhost"
CHANGED, MANY = 10, 50
SIZES = ((100, 0), (1_000, 0), (100_000, 0), (100_000, 1_000_000))
QUICK_SIZES = ((60, 0), (500, 5_000))
WINDOW, SECONDS, QUICK_SECONDS = 20, 3.0, 0.5
CONFIGURATION = """\
[component]
jid = "{component}"
secret = "{secret}"
server = "127.0.0.1"
port = {port}
hosts = ["{host}"]

[postgres]
dsn = "{dsn}"

[redis]
url = "{redis}"

[http]
listen = "127.0.0.1"
port = {http}

[secrets]
keys = ["{key}"]
"""
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


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs: the stand-in for the server, the component's process, and the database."""

    port: Process
    component: int
    dsn: str


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A database, a Redis, the stand-in and a component that has subscribed there."""
    async with database(shared_buffers="512MB", max_wal_size="4GB") as dsn, process_of("bench.port") as port:
        await migrate.install(dsn("postgres"))
        with data_folder(None) as folder:
            held, http = hold(2)
            supervisor, file = Supervisor(logs=Path(folder)), folder / "convsync.toml"
            with held, http:
                values = {
                    "component": COMPONENT,
                    "secret": SECRET,
                    "port": int(await ordered(port, {"host": HOST, "component": COMPONENT})),
                    "host": HOST,
                    "dsn": dsn("postgres"),
                    "redis": valkey.url(port=number(held), password=SECRET),
                    "http": number(http),
                    "key": Fernet.generate_key().decode(),
                }
                write_private(file, CONFIGURATION.format(**values))
                try:
                    await supervisor.start(valkey.valkey(folder / "redis", port=number(held), password=SECRET))
                    await supervisor.start(component.component(folder, configuration=file, http_port=number(http)))
                    await heard(port)
                    yield Stage(port, supervisor.pids["component"], dsn("postgres"))
                finally:
                    await supervisor.stop()


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


async def grow(dsn: str, before: tuple[int, int], size: tuple[int, int]) -> None:
    """More conversations, and more messages in the index of those that have changed."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement, had, have in zip((MORE_CONVERSATIONS, MORE_MESSAGES), before, size, strict=True):
            if have > had:
                await connection.execute(statement, ACCOUNT, had + 1, have)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


# ---- measuring -----------------------------------------------------------------------------------------------------


async def measured(on: Stage, payload: str, seconds: float) -> list[object]:
    """Answers a second, latency, what one takes of the component's and of the database's processor time, its bytes."""
    connection = await asyncpg.connect(on.dsn)
    try:
        pids = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'convsync'")
    finally:
        await connection.close()
    backends = [row["pid"] for row in pids]
    questions = [[ACCOUNT, f"r{place}", payload] for place in range(WINDOW)]
    await ordered(on.port, {"questions": questions, "window": WINDOW, "seconds": 0.3})
    before = processor_seconds(on.component), processor_seconds(*backends)
    found = json.loads(await ordered(on.port, {"questions": questions, "window": WINDOW, "seconds": seconds}))
    after = processor_seconds(on.component), processor_seconds(*backends)
    answers = found["answers"]
    alone = [[ACCOUNT, "r0", payload]]
    idle = json.loads(await ordered(on.port, {"questions": alone, "window": 1, "seconds": seconds / 3}))
    costs = [f"{(late - early) / answers * 1e6:,.0f}" for early, late in zip(before, after, strict=True)]
    return [
        f"{answers / found['seconds']:,.0f}",
        *milliseconds(found["took"], 50, 99),
        *milliseconds(idle["took"], 50),
        *costs,
        f"{found['bytes'] / answers:,.0f}",
    ]


def questions_of(versions: tuple[int, int, int]) -> dict[str, tuple[str, int]]:
    """What is asked, and with how many conversations it is answered."""
    many, ten, now = versions
    tokens = [encode_token(DeltaToken(epoch=1, since=since, log=since), account=ACCOUNT) for since in versions]
    own = [f"<sync xmlns='{OWN}' token='{token}'/>" for token in tokens]
    lean = [question.replace("/>", " preview='100'/>") for question in own]
    theirs = [f"<query xmlns='{SYNC}' stamp='{since}'>{result_set(60)}</query>" for since in (many, ten, now)]
    return {
        "nothing new, urn:convsync:0": (own[2], 0),
        "nothing new, Client Synchronization": (theirs[2], 0),
        f"{CHANGED} changed, urn:convsync:0": (own[1], CHANGED),
        f"{CHANGED} changed, urn:convsync:0 with preview": (lean[1], CHANGED),
        f"{CHANGED} changed, Client Synchronization": (theirs[1], CHANGED),
        f"{MANY} changed, urn:convsync:0": (own[0], MANY),
        f"{MANY} changed, urn:convsync:0 with preview": (lean[0], MANY),
        f"{MANY} changed, Client Synchronization": (theirs[0], MANY),
    }


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    sizes, seconds = (QUICK_SIZES, QUICK_SECONDS) if quick else (SIZES, SECONDS)
    rows: list[list[object]] = []
    async with stage() as on:
        versions, before = await fill(on.dsn), (60, 0)
        for size in sizes:
            say(f"answers: {size[0]:,} conversations, {size[1]:,} messages")
            await grow(on.dsn, before, size)
            before = size
            for what, (payload, expected) in questions_of(versions).items():
                answer = json.loads(await ordered(on.port, {"once": [ACCOUNT, "r0", payload]}))
                if answer.count("<conversation ") != expected:
                    raise AssertionError(f"{what}: {answer.count('<conversation ')} conversations: {answer[:400]}")
                rows.append([what, f"{size[0]:,}", f"{size[1]:,}", *await measured(on, payload, seconds)])
    head = ["", "conversations", "messages held", "answers/s", "p50 ms", "p99 ms", "alone, p50 ms"]
    head += ["CPU µs", "database, CPU µs", "bytes"]
    return (
        f"One component process, {WINDOW} questions under way at a time, `alone` one after the other; the stand-in for "
        f"the server and the database share the machine. CPU: processor time of the component, and of the database's "
        f"processes that serve it, for one answer. Bytes with the delegation's envelope.\n\n{table(head, rows)}"
    )
