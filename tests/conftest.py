"""Servers for tests: a real Postgres and a real Valkey for each test process, and a fresh database for each test.

Each pytest worker has its own servers (0.9 s to start, only if a test asks), so workers share nothing and need no
lock. They listen on a free loopback port, keep their data in a temporary folder, and die with the worker. A database
is a clone of a template that holds schema.sql; fsync is off, because these servers are never killed: tests of crashes
start their own.
"""

import asyncio
import logging
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio
from hypothesis import HealthCheck, settings

from sync.sandbox import launch, postgres, stack, valkey
from sync.sandbox.parts import Part
from tests.cluster import Cluster, cluster
from tests.ports import free_port
from tests.proofs.codec import Codec

SCHEMA = Path(__file__).parent.parent / "schema.sql"
TEMPLATE = "convsync_template"

# Hypothesis: a few seconds at every change, and for the same code the same examples, so that what is green stays green;
# `--hypothesis-profile=dice` for others each time, `nightly` for as long as a night allows. None judges how fast this
# machine is.
AT_ANY_PACE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("everyday", stateful_step_count=40, derandomize=True, **AT_ANY_PACE)
settings.register_profile("dice", stateful_step_count=40, derandomize=False, **AT_ANY_PACE)
settings.register_profile("nightly", stateful_step_count=50, derandomize=False, max_examples=2000, **AT_ANY_PACE)
settings.load_profile("everyday")


@contextmanager
def running(part: Part) -> Iterator[None]:
    """A part without a supervisor: started, stopped, and its last words shown when it does not come up."""
    prefix = launch.unprivileged(Path(part.argv[0]), part.cwd) if part.unprivileged else launch.tied()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*prefix, *part.argv], cwd=part.cwd, stdout=log, stderr=log, env=launch.environment(part.env)
        )
        try:
            yield
        except TimeoutError:
            log.seek(0)
            raise RuntimeError(log.read()[-1000:].decode(errors="replace")) from None
        finally:
            process.send_signal(part.stop_signal)
            process.wait(60)


async def up(part: Part) -> None:
    async with asyncio.timeout(60):
        while not await part.answers():  # noqa: ASYNC110 - a server's socket has no event to wait for
            await asyncio.sleep(0.02)


MEMORY = Path("/dev/shm")  # noqa: S108
ENOUGH_BYTES = 2 * 1024**3


@pytest.fixture(autouse=True)
def levels_of_logging() -> Iterator[None]:
    """What one test configures is not the next one's."""
    loggers = [logging.getLogger(), logging.getLogger("sync")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """In memory where there is enough: a database is 500 files, cloned in 15 ms there and in 300 ms on a disk."""
    fast = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES
    home = MEMORY if fast else Path(tempfile.gettempdir())
    for stale in home.glob("convsync-test-*"):  # a killed worker's
        if not Path("/proc", stale.name.split("-")[2]).exists():
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"convsync-test-{os.getpid()}-", dir=home))
    yield folder
    shutil.rmtree(folder)


class PostgresServer:
    """The worker's Postgres: DSNs of its databases, and a superuser's connection to make and drop them."""

    def __init__(self, port: int, password: str, admin: asyncpg.Connection) -> None:
        self.port, self.password, self.admin = port, password, admin

    def dsn(self, database: str = "postgres") -> str:
        return postgres.dsn(port=self.port, password=self.password, database=database)

    async def create(self, template: str = "template1") -> str:
        """A new database, as its name."""
        name = f"test_{secrets.token_hex(6)}"
        await self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    async def drop(self, name: str) -> None:
        await self.admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(server_folder: Path) -> AsyncIterator[PostgresServer]:
    folder, port, password = server_folder / "postgres", free_port(), secrets.token_urlsafe(24)
    postgres.create(folder, password=password)
    part = postgres.postgres(folder, port=port, password=password, settings={"fsync": "off", "full_page_writes": "off"})
    with running(part):
        await up(part)
        admin = await asyncpg.connect(postgres.dsn(port=port, password=password))
        await admin.execute(f"CREATE DATABASE {TEMPLATE}")
        schema = await asyncpg.connect(postgres.dsn(port=port, password=password, database=TEMPLATE))
        await schema.execute(SCHEMA.read_text() or "SELECT 1")
        await schema.close()
        yield PostgresServer(port, password, admin)
        await admin.close()


@pytest_asyncio.fixture(loop_scope="session")
async def database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The DSN of a database of its own with the schema installed; dropped afterwards, whoever is still connected."""
    name = await postgres_server.create(TEMPLATE)
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest_asyncio.fixture(loop_scope="session")
async def empty_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The DSN of an empty database of its own."""
    name = await postgres_server.create()
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(server_folder: Path) -> AsyncIterator[str]:
    """The URL of the worker's Valkey."""
    port, password = free_port(), secrets.token_urlsafe(24)
    part = valkey.valkey(server_folder / "valkey", port=port, password=password)
    with running(part):
        await up(part)
        yield valkey.url(port=port, password=password)


@pytest_asyncio.fixture(loop_scope="session")
async def redis_url(redis_server: str) -> AsyncIterator[str]:
    """The URL of an empty Valkey."""
    client = redis.asyncio.from_url(redis_server)
    await client.flushall()
    yield redis_server
    await client.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster_server(server_folder: Path) -> AsyncIterator[Cluster]:
    """The worker's Redis Cluster of three masters."""
    async with cluster(server_folder / "cluster") as (found, _):
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def cluster_urls(cluster_server: Cluster) -> list[str]:
    """The URLs of the nodes of an empty Redis Cluster."""
    await cluster_server.empty()
    return cluster_server.urls


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox(server_folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The whole stack, as the ready file describes it; one for each worker."""
    async with stack.sandbox(stack.Options(accounts=100, data=server_folder / "sandbox")) as ready:
        yield ready


@pytest.fixture(scope="session")
def accounts(sandbox: dict[str, Any]) -> Iterator[dict[str, str]]:
    """`next(accounts)` is one that no other test of this worker has, with `jid` and `password`."""
    return iter(sandbox["accounts"])


@pytest.fixture(scope="session")
def codec() -> Iterator[Codec]:
    """ejabberd's codec, where it is installed: `make test` sees to that. One Erlang machine for each worker."""
    try:
        running_codec = Codec()
    except launch.LaunchError as missing:
        pytest.skip(str(missing))
    with running_codec:
        yield running_codec
