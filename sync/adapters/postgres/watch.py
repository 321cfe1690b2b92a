"""Which sessions are told of changes as they happen, on Postgres. Only the process that speaks for the component writes
these rows; a session's row goes with its account's, too.
"""

from collections.abc import Mapping, Sequence

from sync.adapters.postgres.pool import RETRYABLE, Pool
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import sql
from sync.model.errors import StoreUnavailable
from sync.ports import Watcher


class PostgresWatches:
    """The `Watches` port on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def after(self, place: tuple[str, str] | None, limit: int) -> Sequence[Watcher]:
        """`Watches.after`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("watchers"), *(place or ("", "")), limit)
        return [Watcher(row["account"], row["resource"], row["told"], row["log"]) for row in found]

    async def put(self, watcher: Watcher) -> None:
        """`Watches.put`."""
        await self._execute("put_watcher", watcher.account, watcher.resource, watcher.told, watcher.log)

    async def move(self, watchers: Sequence[Watcher]) -> None:
        """`Watches.move`."""
        if watchers:
            rows = ((one.account, one.resource, one.told, one.log) for one in watchers)
            await self._execute("move_watchers", *columns(rows, 4))

    async def drop(self, sessions: Sequence[tuple[str, str]]) -> None:
        """`Watches.drop`."""
        if sessions:
            await self._execute("drop_watchers", *columns(sessions, 2))

    async def versions(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """`Watches.versions`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("versions"), list(accounts))
        return {row["jid"]: row["version"] for row in found}

    async def _execute(self, name: str, *arguments: object) -> None:
        try:
            async with self._pool.connection() as connection:
                await connection.execute(sql(name), *arguments)
        except RETRYABLE as error:  # who deletes the account at this moment; the rows wait for the next round
            raise StoreUnavailable(type(error).__name__) from None
