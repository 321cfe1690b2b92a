"""`stores`: every player of the `Store` role, one after the other. On Postgres one database serves all tests of a
worker: emptying it takes a few milliseconds, cloning one a hundred.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.conftest import TEMPLATE, PostgresServer
from tests.contract.stores import Bench, in_memory, on_postgres
from tests.patience import patience_with_redis  # noqa: F401 - for every test here


@pytest.fixture
def memory() -> Bench:
    return in_memory()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    name = await postgres_server.create(TEMPLATE)
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest_asyncio.fixture(loop_scope="session")
async def emptied_database(shared_database: str) -> str:
    """The DSN of a database whose tables are empty."""
    connection = await asyncpg.connect(shared_database)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.execute(";".join(f"DELETE FROM {name}" for (name,) in tables))  # noqa: S608 - names of ours
    await connection.close()
    return shared_database


@pytest_asyncio.fixture(loop_scope="session")
async def postgres(emptied_database: str) -> AsyncIterator[Bench]:
    async with on_postgres(emptied_database) as bench:
        yield bench


@pytest.fixture(params=["memory", "postgres"])
def stores(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)
