"""How much a client that asks for a delta costs the database: statements, and by which index the first of them goes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from sync.adapters.postgres.delta import delta_statement
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.statements import sql
from sync.adapters.postgres.store import PostgresStore
from sync.model.delta import DeltaQuery, DeltaToken, SyncRequest
from sync.service.delta import Answer, Deltas
from sync.service.fetches import Fetches
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, BOB, CAT, NOW, account, call, conversation, owned, storing


class Desk:
    """`Deltas` over one connection, of which every statement is written down."""

    def __init__(self, dsn: str) -> None:
        self.pool, self.said = Pool(dsn, size=1, connect_seconds=60, statement_seconds=60), list[str]()
        observer, clock = RecordingObserver(), SetClock(NOW)
        self.store = PostgresStore(self.pool, clock, observer)
        self.deltas = Deltas(store=self.store, clock=clock, fetches=Fetches(store=self.store, observer=observer))

    async def open(self) -> None:
        await self.pool.open()
        async with self.pool.connection() as connection:
            connection.add_query_logger(self._write)

    def _write(self, record: Any) -> None:
        self.said.append(record.query)

    async def put(self, **rows: Any) -> None:
        await self.store.transact(owned(), storing(**rows))

    async def ask(self, **asked: Any) -> Answer:
        self.said.clear()
        return await self.deltas.sync(ANN, "desk", SyncRequest(**asked))


@pytest_asyncio.fixture(loop_scope="session")
async def desk(database: str) -> AsyncIterator[Desk]:
    made = Desk(database)
    await made.open()
    yield made
    async with made.pool.connection() as connection:
        connection.remove_query_logger(made._write)
    await made.pool.close()


async def test_nothing_new_is_one_primary_key_read_and_anything_else_one_statement_more(desk: Desk) -> None:
    await desk.put(
        accounts=[account(version=30)], conversations=[conversation(20, CAT), conversation(30, BOB)], calls=[call()]
    )
    for token in (None, DeltaToken(epoch=1, since=5, log=5)):
        await desk.ask(token=token)  # the driver asks once for the types
    first = await desk.ask()
    assert desk.said == [sql("read_accounts"), delta_statement(ANN, DeltaQuery(limit=100))[0]]
    await desk.ask(token=first.token)
    assert desk.said == [sql("read_accounts")]
    await desk.put(accounts=[account(version=40)], conversations=[conversation(40, BOB)])
    second = await desk.ask(token=first.token)
    assert desk.said == [sql("read_accounts"), delta_statement(ANN, DeltaQuery(limit=100, since=30, log=30))[0]]
    await desk.ask(token=second.token)
    assert desk.said == [sql("read_accounts")]


async def test_that_read_goes_by_the_primary_key(desk: Desk) -> None:
    async with desk.pool.connection() as connection:
        await connection.execute("SET enable_seqscan = off")  # of an empty table it would be cheaper
        await connection.execute(f"PREPARE explained AS {sql('read_accounts')}")
        found = json.loads(await connection.fetchval("EXPLAIN (FORMAT json) EXECUTE explained('{a@b}')"))
    plan = found[0]["Plan"]
    names, owners = plan["Plans"]
    assert (plan["Node Type"], names["Node Type"]) == ("Nested Loop", "Function Scan")
    assert (owners["Node Type"], owners["Index Name"], owners.get("Plans")) == ("Index Scan", "account_pkey", None)
