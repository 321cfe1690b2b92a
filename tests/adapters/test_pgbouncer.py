"""The adapter through a real PgBouncer in transaction mode: each transaction may have another session than the last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest_asyncio

from sync.adapters import checks
from sync.adapters.postgres import migrate
from sync.adapters.postgres.feed import PostgresLeases
from sync.adapters.postgres.pool import SETTINGS, Pool
from sync.adapters.postgres.store import PostgresStore
from sync.model.books import Books, Ruling, Writes
from sync.model.errors import StoreUnavailable
from tests.adapters.pgbouncer import SESSIONS, bouncing
from tests.conftest import PostgresServer
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, EVE, NOW, owned, seeing, storing

CLIENTS, ROUNDS = 20, 30
NAME = "sync.example.org"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bouncer(postgres_server: PostgresServer) -> AsyncIterator[int]:
    """Its port."""
    async with bouncing(postgres=postgres_server.port, password=postgres_server.password) as port:
        yield port


@pytest_asyncio.fixture(loop_scope="session")
async def pooled(bouncer: int, database: str, postgres_server: PostgresServer) -> str:
    """The test's database through it."""
    return through(bouncer, database, postgres_server)


def through(bouncer: int, dsn: str, server: PostgresServer) -> str:
    """A database of that server through it."""
    return dsn.replace(f":{server.port}/", f":{bouncer}/")


@asynccontextmanager
async def opened(dsn: str, *, size: int = CLIENTS) -> AsyncIterator[Pool]:
    pool = Pool(dsn, size=size, statement_seconds=60.0, connect_seconds=60.0, prepared=False)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def test_many_who_ask_at_once_get_their_own_answers(pooled: str) -> None:
    """What is prepared in one session and executed in another is missing there, or somebody else's."""
    async with opened(pooled) as pool:

        async def ask(client: int) -> None:
            for number in range(ROUNDS):
                async with pool.connection() as connection:
                    own = f"{client}-{number}"
                    assert await connection.fetchval(f"SELECT $1::text || ' of {client}'", own) == f"{own} of {client}"
                    rows = await connection.fetch("SELECT $1::text FROM generate_series(1, $2::int)", own, client)
                    assert [row[0] for row in rows] == [own] * client

        await asyncio.gather(*(ask(client) for client in range(1, CLIENTS + 1)))


async def test_many_writers_lose_nothing(pooled: str) -> None:
    """Locks, reads and writes of a transaction are in one session, and all of it is seen by the next."""
    async with opened(pooled) as pool:
        store = PostgresStore(pool, SetClock(NOW), RecordingObserver())
        await store.transact(owned(ANN, EVE), storing())

        def one_more(books: Books) -> Ruling[None]:
            changed = [replace(one, epoch=one.epoch + 1) for one in books.accounts.values()]
            return Ruling(writes=Writes(accounts=changed), value=None)

        await asyncio.gather(*(store.transact(owned(ANN, EVE), one_more) for _ in range(ROUNDS)))
        epochs = seeing(lambda books: {one.epoch for one in books.accounts.values()})
        assert await store.transact(owned(ANN, EVE), epochs) == {1 + ROUNDS}


END_SESSIONS = """SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""


async def test_a_session_of_the_pooler_that_ends_gives_no_lease_away(pooled: str, database: str) -> None:
    """PgBouncer closes sessions that are old or idle, while their clients live."""
    one, two = PostgresLeases(pooled, prepared=False), PostgresLeases(pooled, prepared=False)
    direct = PostgresLeases(database)
    assert await one.acquire(NAME, "one")
    connection = await asyncpg.connect(database)
    assert [ended for (ended,) in await connection.fetch(END_SESSIONS)] == [True]
    for other in (two, direct):
        with suppress(StoreUnavailable):  # the pooler had not noticed yet
            assert not await other.acquire(NAME, "two")
    assert not await direct.acquire(NAME, "two")
    await connection.execute("UPDATE lease SET expires_at = now() - interval '1 second'")
    assert await direct.acquire(NAME, "two")
    assert await connection.fetchval("SELECT backend_pid IS NOT NULL FROM lease")
    for each in (one, two, direct):
        await each.close()
    await connection.close()


async def test_schema_and_check_go_through_it_again_and_again(
    bouncer: int, empty_database: str, postgres_server: PostgresServer
) -> None:
    pooled = through(bouncer, empty_database, postgres_server)
    assert "was installed" in await migrate.install(pooled)
    for _ in range(2 * SESSIONS):
        assert "nothing to do" in await migrate.install(pooled)
        assert {one.level for one in await checks.postgres(pooled, expected=migrate.VERSION)} == {checks.Level.OK}
        assert await checks.lease_holders(pooled) == []


def test_the_manual_names_every_setting_that_a_session_of_ours_has() -> None:
    """Sessions of a pooler begin without them."""
    text = (Path(__file__).parents[2] / "docs" / "wide.md").read_text()
    for name, value in SETTINGS.items():
        assert name == "application_name" or f"ALTER ROLE convsync SET {name} = '{value}';" in text, name
