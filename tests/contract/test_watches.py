"""What every Watches promises (sync/ports/watch.py): the in-memory one, and Postgres."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.model.conversation import Account
from sync.model.errors import StoreUnavailable, Uncommittable
from sync.ports import Watcher
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore
from tests.contract.samples import ANN, EVE, account, conversation, owned, seeing, storing
from tests.contract.stores import Bench

WEB, PHONE, TAB = Watcher(ANN, "web", 5, 4), Watcher(ANN, "phone", 7, 7), Watcher(EVE, "tab", 9, 0)


async def held(bench: Bench) -> list[Watcher]:
    return list(await bench.watches.after(None, 100))


async def put(bench: Bench, *watchers: Watcher) -> None:
    for one in watchers:
        await bench.watches.put(one)


async def test_they_are_listed_page_by_page(stores: Bench) -> None:
    assert await held(stores) == []
    await put(stores, TAB, WEB, PHONE)
    first = await stores.watches.after(None, 2)
    assert list(first) == [PHONE, WEB]
    assert list(await stores.watches.after((first[-1].account, first[-1].resource), 2)) == [TAB]
    assert list(await stores.watches.after((TAB.account, TAB.resource), 2)) == []


async def test_one_that_is_put_again_is_replaced(stores: Bench) -> None:
    await put(stores, Watcher(ANN, "web", 9, 9), WEB)
    assert await held(stores) == [WEB]


async def test_a_session_has_a_name(stores: Bench) -> None:
    with pytest.raises(Uncommittable):
        await stores.watches.put(Watcher(ANN, "", 5, 5))


async def test_a_log_is_not_ahead(stores: Bench) -> None:
    with pytest.raises(Uncommittable):
        await stores.watches.put(Watcher(ANN, "web", 5, 6))


async def test_who_is_not_known_any_more_is_not_moved(stores: Bench) -> None:
    await put(stores, WEB, PHONE)
    await stores.watches.move([Watcher(ANN, "web", 8, 6), Watcher(EVE, "tab", 8, 8)])
    assert await held(stores) == [PHONE, Watcher(ANN, "web", 8, 6)]
    await stores.watches.move([])
    assert await held(stores) == [PHONE, Watcher(ANN, "web", 8, 6)]


async def test_those_that_are_dropped_are_gone(stores: Bench) -> None:
    await put(stores, WEB, PHONE, TAB)
    await stores.watches.drop([(ANN, "web"), (EVE, "phone"), (EVE, "tab")])
    assert await held(stores) == [PHONE]
    await stores.watches.drop([])
    assert await held(stores) == [PHONE]


async def test_versions_of_those_that_exist(stores: Bench) -> None:
    await stores.put(ANN, accounts=[account(version=77)])
    assert await stores.watches.versions([ANN, EVE]) == {ANN: 77}
    assert await stores.watches.versions([]) == {}


async def test_they_go_with_their_account(postgres: Bench) -> None:
    """In the transaction that deletes it; in memory the table is not the store's."""
    await postgres.put(ANN, accounts=[account()])
    await put(postgres, WEB, PHONE, TAB)
    await postgres.put(ANN, deleted_accounts=[ANN])
    assert await held(postgres) == [TAB]


# ---- what the store tells --------------------------------------------------------------------------------------------


@pytest.fixture
def told(stores: Bench) -> list[tuple[str, int]]:
    """(account, version) of what a store that tells has told."""
    found: list[tuple[str, int]] = []

    def tell(accounts: Sequence[Account]) -> None:
        found.extend((account.jid, account.version) for account in accounts)

    if stores.pool is None:
        assert isinstance(stores.store, MemoryStore)
        stores.store.stored = tell
    else:
        stores.store = PostgresStore(stores.pool, stores.clock, RecordingObserver(), stored=tell)
    return found


async def test_a_store_tells_whom_a_commit_has_changed(stores: Bench, told: list[tuple[str, int]]) -> None:
    await stores.put(ANN, EVE, accounts=[account(version=77)])
    assert told == [(ANN, 77)]
    await stores.store.transact(owned(ANN), seeing())
    assert told == [(ANN, 77)]


async def test_and_nothing_of_what_was_not_committed(stores: Bench, told: list[tuple[str, int]]) -> None:
    wrong = storing(accounts=[account(version=77)], conversations=[conversation(unread=-1)])
    with pytest.raises(Uncommittable):
        await stores.store.transact(owned(ANN), wrong)
    assert told == []


class Uncommitting:
    """A connection whose transactions end well and are not committed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, text: str, *arguments: object) -> Any:
        if text != "COMMIT":
            return await self._connection.execute(text, *arguments)
        await self._connection.execute("ROLLBACK")
        raise StoreUnavailable("commit")


class UncommittingPool:
    def __init__(self, pool: Pool) -> None:
        self._pool, self.prepared = pool, pool.prepared

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Uncommitting]:
        async with self._pool.connection() as connection:
            yield Uncommitting(connection)


async def test_nor_of_what_failed_at_the_very_end(postgres: Bench) -> None:
    await postgres.put(ANN)
    assert postgres.pool
    told: list[Account] = []
    pool = cast("Pool", UncommittingPool(postgres.pool))
    store = PostgresStore(pool, postgres.clock, RecordingObserver(), stored=told.extend)
    with pytest.raises(StoreUnavailable):
        await store.transact(owned(ANN), storing(accounts=[account(version=77)]))
    assert told == []
