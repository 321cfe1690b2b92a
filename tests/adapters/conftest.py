"""Databases that several files of tests look at."""

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from sync.adapters.postgres.pool import SETTINGS
from tests.conftest import TEMPLATE, PostgresServer
from tests.patience import patience_with_redis  # noqa: F401 - for every test here


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installed(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A connection, with the application's settings, to a database that nobody changes."""
    name = await postgres_server.create(TEMPLATE)
    connection = await asyncpg.connect(postgres_server.dsn(name), server_settings=SETTINGS)
    yield connection
    await connection.close()
    await postgres_server.drop(name)
