"""Transactions that begin with their locks: BEGIN and the `lock` statement are one round trip.

A driver's transaction sends BEGIN by itself and waits for the answer. What begins here is sent as one text, so the
arguments stand in it as literals; they are arrays of texts and numbers and nothing else. Where sessions are our own,
the statement is planned once for each of them.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
from asyncpg.exceptions._base import DataError as UnencodableError  # hidden by the server's DataError

from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.statements import sql

_ESCAPED = re.compile(r'["\\]')
NAME = "convsync_lock"
TYPES = ("text[]", "text[]", "text[]", "smallint[]", "text[]", "text[]")


@asynccontextmanager
async def locked(connection: Connection, locks: Sequence[Sequence[object]], *, prepared: bool) -> AsyncIterator[int]:
    """A transaction that holds these locks (the arguments of `lock`) and commits at its end; how many it holds: a row
    that is not there cannot be locked.
    """
    try:
        yield await begin(connection, f"BEGIN; {lock(locks, prepared=prepared)}")
        await connection.execute("COMMIT")
    except BaseException:
        if connection.is_in_transaction():
            with suppress(Exception):  # then the session ends, and with it the transaction
                await connection.execute("ROLLBACK")
        raise


async def begin(connection: Connection, text: str) -> int:
    """A session's first transaction plans the lock for all of them. Returns how many rows are locked."""
    try:
        done = await connection.execute(text)
    except asyncpg.InvalidSQLStatementNameError:
        await connection.execute("ROLLBACK")
        await connection.execute(f"PREPARE {NAME} ({', '.join(TYPES)}) AS {sql('lock')}")
        done = await connection.execute(text)
    return int(done.removeprefix("SELECT "))


def lock(locks: Sequence[Sequence[object]], *, prepared: bool) -> str:
    """The statement with its arguments in place."""
    arguments = [literal(values) for values in locks]
    if prepared:
        return f"EXECUTE {NAME} ({', '.join(arguments)})"
    text = sql("lock")
    for number, argument in reversed(list(enumerate(arguments, 1))):
        before, _, behind = text.partition(f"${number}::")
        text = f"{before}{argument}::{behind}"
    return text


def literal(values: Sequence[object]) -> str:
    """An array of texts or numbers, as it is written whatever `standard_conforming_strings` says. Raises the driver's
    DataError for a text that the database cannot hold.
    """
    quoted = ",".join(
        str(value) if isinstance(value, int) else f'"{_ESCAPED.sub(_escape, str(value))}"' for value in values
    )
    text = "E'{" + quoted.replace("\\", "\\\\").replace("'", "''") + "}'"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnencodableError("half a character") from None
    if "\0" in text:
        raise UnencodableError("a text with a zero byte")
    return text


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]
