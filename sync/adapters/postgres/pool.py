"""Connections to Postgres: how they are made, how long they may take, and what their errors mean to the service.

Every command has a time limit and so has waiting for a connection, which asyncpg leaves open. The planner is told
what this application is: every hot statement finds a few rows by key, so plans are made once and never scan.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.exceptions._base import DataError as UnencodableError  # hidden by the server's DataError

from sync.model.errors import StoreUnavailable, Uncommittable

Connection = Any  # a pool's connection proxy: asyncpg has no types

SETTINGS = {
    "application_name": "convsync",
    "jit": "off",
    "timezone": "UTC",
    # With array parameters a generic plan is as good as a custom one; planning anew for each batch is lost time.
    "plan_cache_mode": "force_generic_plan",
    # A plan made while a table was small would scan it for as long as the plan is kept.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Whoever hangs, or lost its power, in the middle of a transaction holds its locks no longer than its lease.
    "idle_in_transaction_session_timeout": "5s",
}

# Rolled back by the server and worth another try (DESIGN §2, invariant 10).
ATTEMPTS = 5  # of a transaction that the database rolls back
ALL_OF_A_HOST_SECONDS = 600.0  # for a statement that writes a row of each account of a host: 20,000 to 50,000 a second
RETRYABLE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# Everything else that the database says is its own trouble and no fault of the rows: a wrong password, a missing
# privilege, a full disk, a standby. Rows wait for it to be mended.
UNAVAILABLE = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)
REFUSED = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.CardinalityViolationError,  # a row twice in one statement: without its neighbours each may go through
    UnencodableError,  # the driver's own: an InterfaceError, though trying again is of no use
)


class Pool:
    """A pool of connections with time limits."""

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        connect_seconds: float = 5.0,
        statement_seconds: float = 10.0,
        prepared: bool = True,
    ) -> None:
        self._dsn, self._size, self._prepared = dsn, size, prepared
        self._connect_seconds, self._seconds = connect_seconds, statement_seconds
        self._pool: Any = None

    async def open(self) -> None:
        """Connect; `StoreUnavailable` when the database does not answer."""
        async with meaning():
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._size,
                timeout=self._connect_seconds,
                command_timeout=self._seconds,
                # Nothing of ours stays behind in a session, so the round trip that would clean it up is saved.
                reset=leave,
                **session(prepared=self._prepared),
            )

    @property
    def prepared(self) -> bool:
        """Whether a session is ours from its beginning to its end."""
        return self._prepared

    @property
    def raw(self) -> Any:
        """asyncpg's own pool, for the parts of this adapter that bring their own time limits."""
        return self._pool

    async def close(self) -> None:
        """Let running statements end, within the limit."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one or a few statements; driver errors come out in the service's words."""
        async with meaning(), self._pool.acquire(timeout=self._connect_seconds) as connection:
            yield connection


def session(*, prepared: bool) -> dict[str, Any]:
    """How a session begins. A pooler in transaction mode may give each statement another one, and takes no settings."""
    return {"server_settings": SETTINGS} if prepared else {"statement_cache_size": 0}


async def leave(connection: Connection) -> None:
    """A connection that goes back to the pool as it is."""


@asynccontextmanager
async def meaning() -> AsyncIterator[None]:
    """Driver errors in the service's words. What is worth a retry passes as it is."""
    try:
        yield
    except RETRYABLE:
        raise
    except REFUSED as error:
        raise Uncommittable(getattr(error, "constraint_name", None) or type(error).__name__) from None
    except UNAVAILABLE as error:
        raise StoreUnavailable(type(error).__name__) from error
