"""Rooms while several write: on a real Postgres nobody drops what another is about to keep."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from sync.model.books import Books, Ruling, Writes
from tests.contract.samples import ANN, EVE, TEA, entry, member, owned, room, seeing, storing
from tests.contract.stores import Bench, on_postgres

WRITERS, ENTRIES = 4, 15


@pytest_asyncio.fixture(loop_scope="session")
async def stores(database: str) -> AsyncIterator[Bench]:
    async with on_postgres(database, size=8) as bench:
        yield bench


async def test_who_comes_back_meanwhile_stays_a_member(stores: Bench, database: str) -> None:
    await stores.store.transact(
        owned(rooms=[TEA]), storing(rooms=[room(version=9)], members=[member(until=5), member(EVE, until=5)])
    )
    other = await asyncpg.connect(database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM room WHERE jid = $1 FOR UPDATE", TEA)
    dropping = asyncio.ensure_future(stores.rooms.fanned(TEA, 9))
    await waiting(database)
    await other.execute("UPDATE room_member SET until = NULL WHERE (room, account) = ($1, $2)", TEA, ANN)
    await transaction.commit()
    await dropping
    assert list(await stores.rooms.members(TEA, "", 9)) == [member()]
    await other.close()


def say(books: Books) -> Ruling[int]:
    """One more entry, as the room's lane writes it."""
    rank = books.rooms[TEA].version + 1
    said = Writes(rooms=[room(version=rank, fanned=books.rooms[TEA].fanned)], entries=[entry(rank)])
    return Ruling(writes=said, value=rank)


async def test_no_entry_is_lost_or_doubled_while_others_go(stores: Bench) -> None:
    """Writers add, a server takes what is there and drops it: it sees every entry once, in order."""
    seen: list[int] = []

    async def write() -> None:
        for _ in range(ENTRIES):
            await stores.store.transact(owned(rooms=[TEA]), say)

    async def serve(writers: "asyncio.Future[list[None]]") -> None:
        last = False
        while not last:
            last = writers.done()
            for name in await stores.rooms.pending_rooms(9):
                seen.extend(found.rank for found in await stores.rooms.entries(name, 0, 7))
                await stores.rooms.fanned(name, seen[-1])

    writers = asyncio.gather(*(write() for _ in range(WRITERS)))
    await serve(writers)
    assert seen == list(range(1, WRITERS * ENTRIES + 1))
    assert list(await stores.rooms.pending_rooms(9)) == []


async def test_accounts_and_rooms_in_either_order_do_not_block_each_other(stores: Bench) -> None:
    """Everybody asks for them as they come; the store locks them in one order."""
    many = [f"room{n}@rooms.example.org" for n in range(5)]
    people = [f"user{n}@example.org" for n in range(5)]

    async def write(turn: int) -> None:
        some = owned(*people[turn % 5 :], *people[: turn % 3], rooms=many[turn % 4 :] + many[: turn % 5])
        await stores.store.transact(some, storing())

    await asyncio.gather(*(write(turn) for turn in range(60)))
    books = await stores.store.transact(owned(*people, rooms=many), seeing())
    assert (len(books.accounts), len(books.rooms)) == (5, 5)


async def waiting(dsn: str) -> None:
    """Until somebody waits for a lock."""
    connection = await asyncpg.connect(dsn)
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    await connection.close()
