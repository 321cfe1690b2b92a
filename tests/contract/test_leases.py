"""What every Leases promises (sync/ports/store.py): the in-memory one, and Postgres with a session for each process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres.feed import PostgresLeases
from sync.model.errors import StoreUnavailable
from sync.ports import Leases
from tests.contract.fakes_store import MemoryLeases, SetClock
from tests.contract.samples import NOW

NAME = "sync.example.org"


@dataclass
class Processes:
    """Two processes, `one` and `two`, that want the same lease, and a way to let its time run out."""

    one: Leases
    two: Leases
    run_out: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(loop_scope="session")
async def in_memory() -> Processes:
    clock = SetClock(NOW)
    leases = MemoryLeases(clock, 4)

    async def run_out() -> None:
        clock.instant += timedelta(seconds=5)

    return Processes(leases, leases, run_out)


@pytest_asyncio.fixture(loop_scope="session")
async def on_postgres(emptied_database: str) -> AsyncIterator[Processes]:
    one, two = PostgresLeases(emptied_database), PostgresLeases(emptied_database)
    connection = await asyncpg.connect(emptied_database)

    async def run_out() -> None:
        await connection.execute("UPDATE lease SET expires_at = now() - interval '1 second'")

    yield Processes(one, two, run_out)
    for each in (one, two):
        await each.close()
    await connection.close()


@pytest.fixture(params=["in_memory", "on_postgres"])
def processes(request: pytest.FixtureRequest) -> Processes:
    return request.getfixturevalue(request.param)


async def test_the_first_gets_it_and_the_second_does_not(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    assert not await processes.two.acquire(NAME, "two")
    assert await processes.one.acquire(NAME, "one")


async def test_each_name_is_a_lease_of_its_own(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    assert await processes.two.acquire("sync.example.net", "two")


async def test_a_lease_that_ran_out_is_taken_over(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    await processes.run_out()
    assert await processes.two.acquire(NAME, "two")
    assert not await processes.one.acquire(NAME, "one")


async def test_renewed_in_time_it_does_not_run_out(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    await processes.run_out()
    assert await processes.one.acquire(NAME, "one")
    assert not await processes.two.acquire(NAME, "two")


async def test_given_back_it_is_free(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    await processes.one.release(NAME, "one")
    assert await processes.two.acquire(NAME, "two")


async def test_only_its_holder_gives_it_back(processes: Processes) -> None:
    assert await processes.one.acquire(NAME, "one")
    await processes.two.release(NAME, "two")
    assert not await processes.two.acquire(NAME, "two")


async def test_a_dead_session_holds_nothing(on_postgres: Processes, emptied_database: str) -> None:
    dead = PostgresLeases(emptied_database)
    assert await dead.acquire(NAME, "dead")
    assert not await on_postgres.two.acquire(NAME, "two")
    connection = await asyncpg.connect(emptied_database)
    # The second argument waits until the backend is gone.
    pid = await connection.fetchval("SELECT backend_pid FROM lease")
    assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await connection.close()
    assert await on_postgres.two.acquire(NAME, "two")
    await dead.close()


async def test_a_session_that_broke_is_made_anew(on_postgres: Processes, emptied_database: str) -> None:
    assert await on_postgres.one.acquire(NAME, "one")
    connection = await asyncpg.connect(emptied_database)
    pid = await connection.fetchval("SELECT backend_pid FROM lease")
    await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await connection.close()
    with suppress(StoreUnavailable):  # or the loop has noticed already
        await on_postgres.one.acquire(NAME, "one")
    assert await on_postgres.one.acquire(NAME, "one")
    assert not await on_postgres.two.acquire(NAME, "two")
