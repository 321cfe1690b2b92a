"""What every ProviderTokens promises: one token for all processes, changed neither too early nor too late."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from sync.adapters.postgres.provider_tokens import LOCK, READ, WRITE, PostgresProviderTokens
from sync.adapters.sealing import Sealer
from sync.ports import ProviderTokens
from tests.contract.apns_server import KEY, TEAM, new_key
from tests.contract.fakes_push import MemoryProviderTokens, MemoryRow, SetClock

SIGNER, _ = new_key()
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def sealer() -> Sealer:
    return Sealer([Fernet.generate_key().decode()])


@dataclass
class Bench:
    """`process()` gives the ProviderTokens of one more process that shares the token."""

    clock: SetClock
    process: Callable[[], ProviderTokens]


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """Where the shared row is, None = in memory."""
    return None if request.param == "memory" else request.getfixturevalue("database")


@pytest_asyncio.fixture(loop_scope="session")
async def bench(dsn: str | None) -> AsyncIterator[Bench]:
    clock = SetClock(START)
    if dsn is None:
        row = MemoryRow()
        yield Bench(clock, lambda: MemoryProviderTokens(SIGNER.mint, clock.now, row))
        return
    seal = sealer()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=8) as pool:
        yield Bench(clock, lambda: PostgresProviderTokens(pool, key=SIGNER, seal=seal, clock=clock))


async def test_the_token_stays_the_same_for_almost_an_hour(bench: Bench) -> None:
    tokens = bench.process()
    assert tokens.minted_at is None
    first = await tokens.current()
    assert tokens.minted_at is not None
    bench.clock.advance(minutes=49)
    assert await tokens.current() == first
    bench.clock.advance(minutes=1)
    assert await tokens.current() != first


async def test_processes_share_one_token(bench: Bench) -> None:
    tokens = await asyncio.gather(*(bench.process().current() for _ in range(8)))
    assert len(set(tokens)) == 1


async def test_processes_renew_it_once(bench: Bench) -> None:
    processes = [bench.process() for _ in range(8)]
    old = {await process.current() for process in processes}
    bench.clock.advance(minutes=51)
    new = await asyncio.gather(*(process.current() for process in processes))
    assert len(set(new)) == 1
    assert not old & set(new)


async def test_a_restarted_process_goes_on_with_the_same_token(bench: Bench) -> None:
    first = await bench.process().current()
    bench.clock.advance(minutes=30)
    assert await bench.process().current() == first


async def test_a_token_that_changes_too_often_is_kept_while_it_may_be_used(bench: Bench) -> None:
    tokens = bench.process()
    first = await tokens.current()
    bench.clock.advance(minutes=45)
    tokens.hold()
    bench.clock.advance(minutes=13)
    assert await tokens.current() == first
    bench.clock.advance(minutes=1)  # nobody takes it any more
    second = await tokens.current()
    assert second != first
    bench.clock.advance(minutes=50)  # long forgotten
    assert await tokens.current() != second


async def test_a_refused_token_of_twenty_minutes_is_replaced(bench: Bench) -> None:
    tokens = bench.process()
    old = await tokens.current()
    bench.clock.advance(minutes=20)
    assert await tokens.refused(old)
    assert await tokens.current() != old


async def test_a_refused_token_that_is_younger_stays(bench: Bench) -> None:
    tokens = bench.process()
    old = await tokens.current()
    bench.clock.advance(minutes=19, seconds=59)
    assert not await tokens.refused(old)
    assert await tokens.current() == old


async def test_a_token_that_another_process_has_replaced_is_not_replaced_again(bench: Bench) -> None:
    one, other = bench.process(), bench.process()
    old = await one.current()
    assert await other.current() == old
    bench.clock.advance(minutes=25)
    assert await one.refused(old)
    bench.clock.advance(minutes=25)
    assert await other.refused(old)
    assert await other.current() == await one.current()


async def test_many_refusals_at_once_mint_one_token(bench: Bench) -> None:
    tokens = bench.process()
    old = await tokens.current()
    bench.clock.advance(minutes=30)
    assert await asyncio.gather(*(tokens.refused(old) for _ in range(10))) == [True] * 10
    assert await bench.process().current() == await tokens.current()


# ---- Postgres only ---------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as opened:
        yield opened


async def test_the_statements_are_prepared(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        for statement in (LOCK, READ, WRITE):
            await connection.prepare(statement)


async def test_the_token_lies_sealed(pool: asyncpg.Pool) -> None:
    seal = sealer()
    token = await PostgresProviderTokens(pool, key=SIGNER, seal=seal, clock=SetClock(START)).current()
    row = await pool.fetchrow(READ, TEAM, KEY)
    assert row is not None
    assert token.encode() not in row["sealed"]
    assert (seal.open(row["sealed"]), row["minted_at"]) == (token, START)


async def test_a_token_that_no_key_opens_is_minted_anew(pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = SetClock(START)
    old = await PostgresProviderTokens(pool, key=SIGNER, seal=sealer(), clock=clock).current()
    assert await PostgresProviderTokens(pool, key=SIGNER, seal=sealer(), clock=clock).current() != old
    assert "cannot be opened" in caplog.text


async def test_a_token_from_the_far_future_is_minted_anew(pool: asyncpg.Pool) -> None:
    seal = sealer()
    wrong = SetClock(datetime(2099, 1, 1, tzinfo=UTC))
    old = await PostgresProviderTokens(pool, key=SIGNER, seal=seal, clock=wrong).current()
    assert await PostgresProviderTokens(pool, key=SIGNER, seal=seal, clock=SetClock(START)).current() != old


async def test_without_the_database_the_token_in_memory_goes_on_while_apns_takes_it(database: str) -> None:
    clock = SetClock(START)
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        tokens = PostgresProviderTokens(pool, key=SIGNER, seal=sealer(), clock=clock)
        first = await tokens.current()
    clock.advance(minutes=58)
    assert await tokens.current() == first
    clock.advance(minutes=1)
    with pytest.raises(asyncpg.InterfaceError):
        await tokens.current()
