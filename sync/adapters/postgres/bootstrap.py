"""Which archives are still to be read, on Postgres. What is read of them is the store's; this moves cursors that move
without it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sync.adapters.postgres import bootstrap_rows
from sync.adapters.postgres.pool import ATTEMPTS, RETRYABLE, Connection, Pool
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import sql
from sync.model.bootstrap import Bootstrap
from sync.model.errors import StoreUnavailable
from sync.rules.times import microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many archives are in each state, and how many messages of theirs were new."""

    waiting: int = 0
    done: int = 0
    failed: int = 0
    restored: int = 0


class PostgresBootstraps:
    """The `Bootstraps` port on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, now: datetime, hosts: Sequence[str], limit: int) -> Sequence[Bootstrap]:
        """`Bootstraps.due`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("due_bootstraps"), list(hosts), now, limit)
        return [bootstrap_rows.bootstrap(row) for row in found]

    async def meet(self, accounts: Sequence[str], now: datetime) -> int:
        """`Bootstraps.meet`."""
        async with self._pool.connection() as connection:
            made = await connection.fetch(sql("create_accounts"), sorted(set(accounts)), microseconds(now))
        return len(made)

    async def ask(self, names: Sequence[str], now: datetime) -> Sequence[str]:
        """`Bootstraps.ask`."""
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection, connection.transaction():
                    return await asked(connection, names, now)
        raise StoreUnavailable("retries")

    async def enrol(self, host: Bootstrap, accounts: Sequence[str], now: datetime, *, make: bool) -> None:
        """`Bootstraps.enrol`."""
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection, connection.transaction():
                    if make:
                        await connection.execute(sql("create_accounts"), sorted(accounts), microseconds(now))
                    await connection.fetch(sql("ask_bootstraps"), sorted(accounts), now)
                    await store(connection, host)
                return
        raise StoreUnavailable("retries")

    async def store(self, row: Bootstrap) -> None:
        """`Bootstraps.store`."""
        async with self._pool.connection() as connection:
            await store(connection, row)

    async def counts(self, hosts: Sequence[str]) -> Mapping[str, int]:
        """`Bootstraps.counts`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("count_bootstraps"), list(hosts))
        return {row["state"]: row["rows"] for row in found}

    async def tally(self, names: Sequence[str], hosts: Sequence[str]) -> Tally:
        """Of these accounts and rooms, and of all of these hosts."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("count_bootstraps_of"), list(names), list(hosts))
        counts = {row["state"]: row["rows"] for row in found}
        return Tally(**counts, restored=sum(row["restored"] for row in found))

    async def watch(self, names: Sequence[str], hosts: Sequence[str], limit: int) -> Sequence[Bootstrap]:
        """The first of them, those that wait or failed before the others."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("watch_bootstraps"), list(names), list(hosts), limit)
        return [bootstrap_rows.bootstrap(row) for row in found]


async def asked(connection: Connection, names: Sequence[str], now: datetime) -> list[str]:
    """Accounts and rooms that are known, and hosts, wait for their archives to be read."""
    hosts = sorted({name for name in names if "@" not in name})
    found = await connection.fetch(sql("ask_bootstraps"), sorted(set(names) - set(hosts)), now)
    if hosts:
        found += await connection.fetch(sql("ask_hosts"), hosts, microseconds(now), now)
    return [row["account"] for row in found]


async def store(connection: Connection, row: Bootstrap) -> None:
    """One row."""
    await connection.execute(sql("move_bootstraps"), *columns([bootstrap_rows.bootstrap_row(row)], 0))
