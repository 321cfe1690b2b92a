"""The fixtures that all other tests stand on."""

import asyncpg
import redis.asyncio


async def test_a_database_is_fresh(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE only_here (n int)")
    await connection.close()


async def test_and_fresh_again(database: str) -> None:
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT to_regclass('only_here')") is None
    await connection.close()


async def test_an_empty_database_has_no_schema(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


async def test_valkey_keeps_a_key(redis_url: str) -> None:
    client = redis.asyncio.from_url(redis_url)
    await client.set("here", "1")
    assert await client.dbsize() == 1
    await client.aclose()


async def test_and_forgets_it_for_the_next_test(redis_url: str) -> None:
    client = redis.asyncio.from_url(redis_url)
    assert await client.dbsize() == 0
    await client.aclose()
