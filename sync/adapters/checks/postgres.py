"""Is the database reachable, is its version one that we know, is the schema installed, who holds the component's
lease.

Reads only. Words the driver's errors: they quote neither the password nor the whole connection URL.
"""

import asyncpg

from sync.adapters.checks.finding import LIMIT_SECONDS, Finding, fault, ok

OLDEST = 14  # Postgres: the oldest release that is still maintained in 2026

_WHY: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidPasswordError, "the user or the password is refused"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the user is refused"),
    (asyncpg.InvalidCatalogNameError, "there is no such database"),
    (asyncpg.TooManyConnectionsError, "all its connections are taken"),
    (asyncpg.InsufficientPrivilegeError, "the user lacks a privilege there"),
    (asyncpg.CannotConnectNowError, "it is starting or stopping"),
    (ConnectionRefusedError, "nobody listens there"),
    (TimeoutError, f"no answer within {LIMIT_SECONDS:g} s"),
)

DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError)  # URLs: ValueError


def why(error: Exception) -> str:
    """An error of connecting or asking, in words."""
    for kind, words in _WHY:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return type(error).__name__


async def postgres(dsn: str, *, expected: int) -> list[Finding]:
    """The database, and its schema: `expected` is the version that this program works with."""
    try:
        connection = await _connect(dsn)
    except DATABASE_ERRORS as error:
        return [fault("postgres", f"cannot connect: {why(error)}", "postgres.dsn")]
    try:
        server = connection.get_server_version()
        text = f"PostgreSQL {server.major}.{server.minor} answers"
        if server.major < OLDEST:
            return [fault("postgres", f"{text}, but {OLDEST} or newer is needed", "postgres.dsn")]
        return [ok("postgres", text), await _schema(connection, expected)]
    except DATABASE_ERRORS as error:
        return [fault("postgres", f"cannot be read: {why(error)}", "postgres.dsn")]
    finally:
        connection.terminate()


async def lease_holders(dsn: str) -> list[str] | None:
    """Who holds a lease that has not expired; None = the database does not tell."""
    try:
        connection = await _connect(dsn)
    except DATABASE_ERRORS:
        return None
    try:
        rows = await connection.fetch("SELECT DISTINCT holder FROM lease WHERE expires_at > now() ORDER BY holder")
    except asyncpg.UndefinedTableError:
        return []  # without a schema no component can run
    except DATABASE_ERRORS:
        return None
    finally:
        connection.terminate()
    return [row["holder"] for row in rows]


async def _connect(dsn: str) -> asyncpg.Connection:
    """Statements have no names, so that it does not matter whether a pooler is on the way."""
    return await asyncpg.connect(dsn, timeout=LIMIT_SECONDS, command_timeout=LIMIT_SECONDS, statement_cache_size=0)


async def _schema(connection: asyncpg.Connection, expected: int) -> Finding:
    try:
        found = await connection.fetchval("SELECT max(version) FROM schema_version")
    except asyncpg.UndefinedTableError:
        return fault("schema", "not installed; run: convsync schema --config …", "postgres.dsn")
    if found is None or found < expected:
        return fault("schema", f"version {found or 0}, wanted is {expected}; run: convsync schema --config …")
    if found > expected:
        return fault("schema", f"version {found} is newer than this program, which knows {expected}; update it")
    return ok("schema", f"version {found}")
