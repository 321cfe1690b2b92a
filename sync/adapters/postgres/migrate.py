"""Installs the schema, or brings an older database up to it.

`schema.sql` is what a new database gets; `migrations/NNNN_*.sql` lead an older one to the same, each in a transaction
of its own. Under an advisory lock, so that several processes that start together do it once.
"""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg

from sync.adapters.postgres.pool import meaning

VERSION = 1  # of schema.sql; raised with each migration
LOCK = 0x436F6E7673796E63  # "Convsync"

_NUMBER = re.compile(r"^(\d{4})_.+\.sql$")


class SchemaError(Exception):
    """The database's schema is not one that this program can bring up to its own."""


def schema_text() -> str:
    """schema.sql: beside this file in an installed package, at the top of a checkout."""
    packaged = files(__package__).joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "schema.sql").read_text(encoding="utf-8")


def migrations() -> dict[int, Traversable]:
    """The version that each migration leads to → its file."""
    folder = files(__package__).joinpath("migrations")
    found = {int(match.group(1)): item for item in folder.iterdir() if (match := _NUMBER.match(item.name))}
    return dict(sorted(found.items()))


async def installed(connection: asyncpg.Connection) -> int:
    """The schema's version in this database; 0 = there is none."""
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version"))


async def install(dsn: str) -> str:
    """Install or migrate; a sentence that says what was done. `StoreUnavailable` when the database does not answer."""
    async with meaning():
        # Statements have no names: a pooler may be on the way.
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=600, statement_cache_size=0)
    try:
        async with meaning(), connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            return await bring_up(connection)
    finally:
        await connection.close()


async def bring_up(connection: asyncpg.Connection) -> str:
    """The work of `install`, under its lock."""
    found = await installed(connection)
    if found == VERSION:
        return f"The schema is at version {VERSION}; there is nothing to do."
    if found > VERSION:
        raise SchemaError(f"The database's schema is version {found}, this program knows {VERSION}: use a newer one.")
    if found == 0:
        await connection.execute(schema_text())
        await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", VERSION)
        return f"The schema was installed, version {VERSION}."
    for version, file in migrations().items():
        if version > found:
            await connection.execute(file.read_text(encoding="utf-8"))
            await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", version)
    return f"The schema was brought from version {found} to {VERSION}."
