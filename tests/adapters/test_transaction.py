"""Transactions that begin with their locks: what is written as a literal is what was meant, and an error ends it."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.adapters.postgres import load
from sync.adapters.postgres.load import locks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.postgres.transaction import literal, locked
from sync.model.books import Books, Keys, LanePosition
from sync.model.errors import StoreUnavailable, Uncommittable
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, EVE, NOW, account, owned, seeing, storing

NASTY = [
    "",
    "'",
    '"',
    "\\",
    "\\'",
    "'; DROP TABLE account; --",
    "{a,b}",
    "NULL",
    "null",
    " a ",
    "a\nb",
    "ü",
    "\U0001f600",
    "$1",
    "E'",
]
STORABLE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_a_literal_is_the_array_that_it_was(database: str, conforming: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(f"SET standard_conforming_strings = {conforming}")

    @settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(STORABLE, max_size=5))
    def tried(values: list[str]) -> None:
        texts.append(values)

    texts: list[list[str]] = [NASTY, []]
    tried()
    for values in texts:
        # As `locked` sends it: one text without parameters.
        await connection.execute(f"CREATE TEMP TABLE found AS SELECT {literal(values)}::text[] AS texts")
        assert await connection.fetchval("TABLE found") == values
        await connection.execute("DROP TABLE found")
    assert await connection.fetchval(f"SELECT {literal([0, 15])}::smallint[]") == [0, 15]
    await connection.close()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_what_no_database_can_hold_is_refused(database: str, text: str) -> None:
    async with opened(database) as store:
        with pytest.raises(Uncommittable):
            await store.transact(owned(text), seeing())
        assert await store.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]


def opened(dsn: str, **options: Any) -> "Opened":
    return Opened(dsn, options)


class Opened:
    """A store on a pool of one session, which therefore must come back whole."""

    def __init__(self, dsn: str, options: dict[str, Any]) -> None:
        self.pool = Pool(dsn, size=1, **{"connect_seconds": 60, "statement_seconds": 60} | options)

    async def __aenter__(self) -> PostgresStore:
        await self.pool.open()
        return PostgresStore(self.pool, SetClock(NOW), RecordingObserver())

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()


@pytest.mark.parametrize("prepared", [True, False])
async def test_whatever_happens_in_it_nothing_stays_locked(database: str, prepared: bool) -> None:
    async with opened(database, prepared=prepared) as store, opened(database) as other:
        await store.transact(owned(ANN, EVE), storing())

        def stumbling(_: object) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.transact(owned(), stumbling)
        with pytest.raises(Uncommittable):
            await store.transact(owned(), storing(accounts=[account(unread=-1)]))
        assert await other.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]
        assert await store.transact(owned(), seeing(lambda books: books.accounts[ANN].unread)) == 0


async def test_a_lock_that_does_not_come_is_given_up(database: str) -> None:
    async with opened(database) as store, opened(database, statement_seconds=1.0) as hasty:
        await store.transact(owned(), storing())
        pool = store._pool
        async with pool.connection() as connection, locked(connection, locks(owned()), prepared=True):
            with pytest.raises(StoreUnavailable):
                await hasty.transact(owned(), seeing())
        assert await hasty.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]


async def test_who_is_cancelled_while_it_waits_holds_nothing(database: str) -> None:
    async with opened(database) as store, opened(database) as other:
        await store.transact(owned(), storing())
        pool = store._pool
        async with pool.connection() as connection, locked(connection, locks(owned()), prepared=True):
            waiting = asyncio.ensure_future(other.transact(owned(), seeing()))
            while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await other.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]


@pytest.mark.parametrize("create", [True, False])
async def test_who_is_made_between_the_lock_and_the_look_is_locked_all_the_same(
    database: str, create: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that both found nobody to lock would write over one another."""
    look, free = load.books, list[list[str]]()
    other = await asyncpg.connect(database)

    async def looked(*arguments: Any) -> Books:
        await load.create(other, owned(), SetClock(NOW))  # somebody else is the first who hears of her
        found = await look(*arguments)
        free.append([row["jid"] for row in await other.fetch("SELECT jid FROM account FOR UPDATE SKIP LOCKED")])
        return found

    monkeypatch.setattr(load, "books", looked)
    async with opened(database) as store:
        seen = await store.transact(owned(create=create), seeing(lambda books: list(books.accounts)))
    assert (seen, free) == ([ANN], [[]])
    await other.close()


async def test_who_hangs_in_the_middle_holds_its_locks_only_for_a_while(database: str) -> None:
    """A stopped process's session lives on; its successor must not wait for it."""
    async with opened(database) as store, opened(database, statement_seconds=60.0) as other:
        await store.transact(owned(), storing())
        with pytest.raises(StoreUnavailable):
            async with store._pool.connection() as connection, locked(connection, locks(owned()), prepared=True):
                assert await other.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]
        assert await store.transact(owned(), seeing(lambda books: list(books.accounts))) == [ANN]


async def test_a_pooler_may_give_every_statement_another_session(database: str) -> None:
    """Nothing is prepared there, positions included."""
    where = frozenset({LanePosition("example.org", "st'ream", "0", 3)})
    async with opened(database, prepared=False) as store:
        await store.transact(
            Keys(accounts=frozenset({ANN}), create=True, positions=where), storing(positions=dict.fromkeys(where, 7))
        )
        assert await store.transact(
            Keys(positions=where), seeing(lambda books: dict(books.positions))
        ) == dict.fromkeys(where, 7)
        async with store._pool.connection() as connection:
            assert (
                await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name = 'convsync_lock'")
                == 0
            )
