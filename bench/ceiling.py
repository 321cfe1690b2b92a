"""The ceiling of ingest: the rows that our path wrote, sent again as bare statements to a twin of its database."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import asyncpg

from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate, write
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.model.books import Books, Keys, Rule, Ruling, Writes

T = TypeVar("T")
Statement = tuple[str, tuple[object, ...]]


class Remembering:
    """A store that remembers what each of its users wrote. Keeping references costs nothing while it is measured."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.written: dict[str, list[Writes]] = {}

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        """`Store.transact`."""
        ruled: list[Writes] = []

        def noted(books: Books) -> Ruling[T]:
            ruling = rule(books)
            ruled[:] = [ruling.writes]  # of a transaction that was tried again, the last attempt
            return ruling

        value = await self._store.transact(keys, noted)
        task = asyncio.current_task()
        self.written.setdefault(task.get_name() if task else "", []).extend(ruled)
        return value


class Recorder:
    """A connection that keeps statements in place of running them."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    async def execute(self, statement: str, *arguments: object) -> None:
        """Keep it."""
        self.statements.append((statement, arguments))


async def statements(written: Sequence[Writes]) -> list[list[Statement]]:
    """The write statements of each transaction, with their arrays."""
    found = []
    for writes in written:
        recorder = Recorder()
        await write.writes(recorder, writes)
        found.append(recorder.statements)
    return found


async def replay(pool: Pool, prepared: Sequence[Sequence[Sequence[Statement]]]) -> None:
    """The rows again: each worker's transactions on a connection of its own."""

    async def one(transactions: Sequence[Sequence[Statement]]) -> None:
        async with pool.connection() as connection:
            for transaction in transactions:
                async with connection.transaction():
                    for statement, arguments in transaction:
                        await connection.execute(statement, *arguments)

    await asyncio.gather(*map(one, prepared))


class Twins:
    """Two equal databases: `ours` is written by our path, `bare` by what it wrote."""

    def __init__(self, dsn: Callable[[str], str]) -> None:
        self._dsn = dsn

    async def make(self, fill: Callable[[PostgresStore], Awaitable[object]]) -> None:
        """Install, fill, and copy."""
        await self._run("postgres", "CREATE DATABASE ours")
        await migrate.install(self._dsn("ours"))
        pool = Pool(self._dsn("ours"), size=2)
        await pool.open()
        await fill(PostgresStore(pool, SystemClock(), Metrics()))
        await pool.close()
        await self._run("ours", "VACUUM ANALYZE")
        await self._run("postgres", "CREATE DATABASE bare TEMPLATE ours")

    async def _run(self, name: str, statement: str) -> None:
        connection = await asyncpg.connect(self._dsn(name))
        await connection.execute(statement)
        await connection.close()

    async def open(self, stack: AsyncExitStack) -> tuple[Pool, Pool]:
        """A pool on each."""
        pools = []
        for name in ("ours", "bare"):
            pool = Pool(self._dsn(name), size=4, statement_seconds=60)
            await pool.open()
            stack.push_async_callback(pool.close)
            pools.append(pool)
        return pools[0], pools[1]
