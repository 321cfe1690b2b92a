"""Deltas while many write, read, call, delete and lose their epoch: on a real Postgres whoever reads to the end holds
the truth, was told nothing twice within a chain, and knows of every change.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from sync.adapters.postgres import rows
from sync.model.call import CallState
from sync.model.delta import Filters, SyncRequest
from sync.model.query import ListQuery
from sync.protocol.convsync import decode
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from tests.adapters.test_inbox_at_once import removing
from tests.adapters.test_store_concurrency import ACCOUNTS, WRITERS, Crowd
from tests.contract.delta_reader import DeltaReader

CHOSEN: list[dict[str, Any]] = [
    *({"limit": limit} for limit in (1, 2, 3, 200)),
    {"limit": 1, "filters": Filters(unread=True)},
    {"limit": 2, "filters": Filters(pinned=False)},
]


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(database: str) -> AsyncIterator[Crowd]:
    made = Crowd(database)
    await made.pool.open()
    yield made
    await made.pool.close()


class Desk:
    """Answers readers out of the crowd's store."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        fetches = Fetches(store=crowd.store, observer=crowd.observer)
        self.deltas = Deltas(store=crowd.store, clock=crowd.clock, fetches=fetches)

    async def page(self, reader: DeltaReader) -> bool:
        request = decode(reader.ask(), account=reader.account, kind="get")
        assert isinstance(request, SyncRequest)
        return reader.told((await self.deltas.sync(reader.account, "desk", request)).element)

    async def read(self, reader: DeltaReader) -> int:
        """While anybody writes, and then to the end; how many pages there were."""
        pages = 0
        while self.crowd.writing:
            await self.page(reader)
            pages += 1
        for _ in range(2):
            while not await self.page(reader):
                pass
        return pages


async def hold(crowd: Crowd, reader: DeltaReader) -> None:
    """The reader has the truth."""
    whole = await crowd.store.page(reader.account, ListQuery())
    shown = [c for item in whole.items if reader.filters.match(c := item.conversation)]
    assert reader.held == {(c.key.peer, c.key.kind.value): c.version for c in shown}
    async with crowd.pool.connection() as connection:
        log = await connection.fetch("SELECT * FROM change WHERE account = $1", reader.account)
        calls = await connection.fetch("SELECT * FROM call WHERE account = $1", reader.account)
    assert [one for one in map(rows.change, log) if not reader.knows(one)] == []
    for call in map(rows.call, calls):
        name = (call.key.peer, call.session_id)
        own = call.state is CallState.OUTGOING or call.caller.startswith(reader.account)
        assert (name in reader.ringing) == (call.state is CallState.RINGING and call.rings(crowd.clock.now()))
        assert own or call.version <= reader.all_loaded or reader.calls.get(name) == call.state.value


@pytest.mark.parametrize("losing", [False, True])
async def test_whoever_reads_to_the_end_holds_the_truth(crowd: Crowd, losing: bool) -> None:
    desk, readers = Desk(crowd), [DeltaReader(owner, **chosen) for owner in ACCOUNTS for chosen in CHOSEN]
    writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
    await asyncio.sleep(0)  # let the writers begin
    beside = [removing(crowd), crowd.lose()] if losing else [removing(crowd)]
    *pages, _ = await asyncio.gather(*map(desk.read, readers), asyncio.gather(*beside))
    await writers
    for reader in readers:
        await hold(crowd, reader)
    assert {reset for reader in readers for reset in reader.resets} == ({"epoch"} if losing else set())
    assert sum(pages) > 10 * len(readers)
