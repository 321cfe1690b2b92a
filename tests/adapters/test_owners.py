"""Accounts that are asked for at the same time are read together, and everybody gets the own one, or the failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest_asyncio

from sync.adapters.postgres.owners import READS, Owners
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.statements import sql
from sync.model.errors import StoreUnavailable
from tests.adapters.test_delta_statements import Desk
from tests.contract.samples import ANN, account, owned, storing

NAMES = [f"owner{number}@ex.org" for number in range(30)]


@pytest_asyncio.fixture(loop_scope="session")
async def desk(database: str) -> AsyncIterator[Desk]:
    made = Desk(database)
    await made.open()
    for number, name in enumerate(NAMES[:20]):
        await made.store.transact(owned(name), storing(accounts=[account(jid=name, version=number + 1)]))
    made.said.clear()
    yield made
    await made.pool.close()


async def turn() -> None:
    """Everything that can go on without the database goes on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_those_who_ask_meanwhile_are_answered_by_the_next_statements(desk: Desk) -> None:
    owners = Owners(desk.pool)
    async with desk.pool.connection():  # the only one: whoever reads waits for it
        asked = []
        for place in range(0, len(NAMES), 5):
            asked += [asyncio.ensure_future(owners.read(name)) for name in NAMES[place : place + 5]]
            await turn()
    found = await asyncio.gather(*asked)
    assert [one and (one.jid, one.version) for one in found] == [
        *((name, number + 1) for number, name in enumerate(NAMES[:20])),
        *(None for _ in NAMES[20:]),
    ]
    assert desk.said == [sql("read_accounts")] * (READS + 1)


async def test_one_who_asks_alone_is_read_at_once_and_sees_what_was_committed_before(desk: Desk) -> None:
    owners = Owners(desk.pool)
    for version in (101, 102, 103):
        await desk.store.transact(owned(NAMES[0]), storing(accounts=[account(jid=NAMES[0], version=version)]))
        found = await owners.read(NAMES[0])
        assert found is not None
        assert found.version == version


async def test_one_who_does_not_wait_any_more_takes_nobody_along(desk: Desk) -> None:
    owners = Owners(desk.pool)
    async with desk.pool.connection():
        first, second = (asyncio.ensure_future(owners.read(NAMES[1])) for _ in range(2))
        await turn()
        first.cancel()
        await turn()
    assert (await second) is not None
    assert first.cancelled()
    assert (await owners.read(NAMES[2])) is not None


async def test_a_failure_is_told_to_those_who_waited_for_it(desk: Desk) -> None:
    owners = Owners(desk.pool)
    await desk.pool.close()
    for _ in range(2):
        told = await asyncio.gather(*(owners.read(name) for name in (ANN, *NAMES)), return_exceptions=True)
        assert {type(one) for one in told} == {StoreUnavailable}


class Slow:
    """A pool whose database has nobody, and says so when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Slow"]:
        yield self

    async def fetch(self, *_: object) -> list[object]:
        await self.let.wait()
        return []


async def test_whoever_asks_in_the_turn_in_which_all_readers_end_is_read() -> None:
    pool = Slow()
    owners = Owners(cast("Pool", pool))

    async def late() -> object:
        await pool.let.wait()
        return await owners.read(ANN)

    asked: list[asyncio.Future[object]] = []
    for name in NAMES[:READS]:
        asked.append(asyncio.ensure_future(owners.read(name)))
        await turn()
    asked.append(asyncio.ensure_future(late()))
    await turn()
    pool.let.set()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*asked) == [None] * (READS + 1)
