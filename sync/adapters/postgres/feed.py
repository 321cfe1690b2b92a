"""What a host's feed needs remembered beside the lanes' positions: how far streams are committed, and who may
connect.

A lease lives in a row; its time runs on the database's clock. The row names the holder's database session: when that
session is gone, so is the holder, and the next process need not wait for the time to run out (a restarted component
takes over at once). A connection pooler's sessions are nobody's: there only the time lets go of a dead holder's lease.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from sync.adapters.postgres.pool import (
    ALL_OF_A_HOST_SECONDS,
    ATTEMPTS,
    RETRYABLE,
    Connection,
    Pool,
    meaning,
    session,
)
from sync.adapters.postgres.statements import sql
from sync.model.errors import StoreUnavailable
from sync.ports import StreamMark
from sync.rules.times import microseconds

LEASE = timedelta(seconds=4)  # renewed every second: a dead machine's buckets are taken over within 5 s (DESIGN §7)


class PostgresFeedMarks:
    """The `FeedMarks` port on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def marks(self, host: str) -> Sequence[StreamMark]:
        """`FeedMarks.marks`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("marks"), host)
        return [StreamMark(**dict(row)) for row in found]

    async def mark(self, host: str, marks: Sequence[StreamMark]) -> None:
        """`FeedMarks.mark`."""
        if not marks:
            return
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection:
                    await write_marks(connection, "write_marks", host, marks)
                return
        raise StoreUnavailable("retries")

    async def forget(self, host: str, streams: Sequence[str]) -> None:
        """`FeedMarks.forget`."""
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection, connection.transaction():
                    await forget_streams(connection, host, streams)
                return
        raise StoreUnavailable("retries")

    async def raise_epochs(
        self, host: str, now: datetime, *, marks: Sequence[StreamMark] = (), forget: Sequence[str] = ()
    ) -> int:
        """`FeedMarks.raise_epochs`."""
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection, connection.transaction():
                    done = await start_over(connection, host, microseconds(now))
                    if marks:
                        await write_marks(connection, "replace_marks", host, marks)
                    if forget:
                        await forget_streams(connection, host, forget)
                return int(done.rsplit(" ", 1)[-1])
        raise StoreUnavailable("retries")


async def start_over(connection: Connection, host: str, version: int) -> str:
    """All clients of a host, or of the members of a room, and the archives are read again. The status of the first."""
    whose = "raise_epochs_of_room" if "@" in host else "raise_epochs"
    done: str = await connection.execute(sql(whose), host, version, timeout=ALL_OF_A_HOST_SECONDS)
    await connection.execute(sql("read_again"), host, version, timeout=ALL_OF_A_HOST_SECONDS)
    return done


async def write_marks(connection: Connection, name: str, host: str, marks: Sequence[StreamMark]) -> None:
    """Remember how far streams are committed and seen, in the one order that all writers of them keep."""
    rows = sorted((host, mark.stream, mark.shard, mark.committed, mark.seen, mark.good) for mark in marks)
    await connection.execute(sql(name), *map(list, zip(*rows, strict=True)))


async def forget_streams(connection: Connection, host: str, streams: Sequence[str]) -> None:
    """Drop marks and positions of streams."""
    await connection.execute(sql("forget_streams"), host, list(streams))
    await connection.execute(sql("forget_positions"), host, list(streams))


class PostgresLeases:
    """The `Leases` port on Postgres, over a connection of its own. Its session is what proves that the holder lives,
    where it is ours and not a pooler's (`prepared`).
    """

    def __init__(self, dsn: str, *, timeout_seconds: float = 2.0, prepared: bool = True) -> None:
        self._dsn, self._timeout, self._prepared = dsn, timeout_seconds, prepared
        self._connection: Any = None

    async def acquire(self, name: str, holder: str) -> bool:
        """`Leases.acquire`."""
        async with meaning():
            connection = await self._connected()
            generation = await connection.fetchval(sql("acquire_lease"), name, holder, LEASE, self._prepared)
        return generation is not None

    async def release(self, name: str, holder: str) -> None:
        """`Leases.release`."""
        async with meaning():
            connection = await self._connected()
            await connection.execute(sql("release_lease"), name, holder)

    async def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=self._timeout,
                command_timeout=self._timeout,
                **session(prepared=self._prepared),
            )
        return self._connection
