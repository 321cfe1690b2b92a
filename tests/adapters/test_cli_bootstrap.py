"""`convsync bootstrap`: what it queues, what it shows, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from sync.cli import cli
from tests.adapters.account_rows import fill, installed
from tests.adapters.test_cli import configuration
from tests.contract.samples import ANN, EVE
from tests.contract.stores import on_postgres

HOST = "example.org"


@pytest_asyncio.fixture(loop_scope="session")
async def path(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a component that knows Ann and Eve, whose archives are done."""
    monkeypatch.setenv("CONVSYNC_COMPONENT__HOSTS", f'["{HOST}"]')
    await installed(database)
    async with on_postgres(database) as bench:
        await fill(bench, ANN, 1)
        await fill(bench, EVE, 2)
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE bootstrap SET state = 'done', restored = 7")
    await connection.close()
    return configuration(tmp_path, dsn=database)


@pytest_asyncio.fixture(loop_scope="session")
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def run(*arguments: str | Path) -> Result:
    """In a thread: a command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli, [str(one) for one in ("bootstrap", *arguments)])


async def states(admin: asyncpg.Connection) -> dict[str, str]:
    return {row["account"]: row["state"] for row in await admin.fetch("SELECT * FROM bootstrap")}


async def test_an_account_is_queued(path: Path, admin: asyncpg.Connection) -> None:
    result = await run(ANN.upper(), "--config", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "archives: 1 waiting, 0 done, 0 failed" in result.stdout
    found = await states(admin)
    assert (found[ANN], found[EVE]) == ("waiting", "done")


async def test_an_account_that_nobody_has_met_is_made(path: Path, admin: asyncpg.Connection) -> None:
    assert (await run(f"new@{HOST}", "--config", path)).exit_code == 0
    assert (await states(admin))[f"new@{HOST}"] == "waiting"
    assert await admin.fetchval("SELECT 1 FROM account WHERE jid = $1", f"new@{HOST}") == 1


@pytest.mark.parametrize("whose", [("--host", HOST), ("--all",)])
async def test_a_host_is_queued_to_be_listed(path: Path, admin: asyncpg.Connection, whose: tuple[str, ...]) -> None:
    assert (await run(*whose, "--config", path)).exit_code == 0
    assert (await states(admin))[HOST] == "waiting"


async def test_how_far_it_is(path: Path, admin: asyncpg.Connection) -> None:
    await admin.execute("UPDATE bootstrap SET state = 'failed', why = 'no-answer' WHERE account = $1", EVE)
    result = await run("--status", "--config", path)
    assert result.exit_code == 1
    assert "0 waiting, 1 done, 1 failed; 14 messages restored" in result.stdout
    assert "no-answer" in result.stdout
    assert set((await states(admin)).values()) == {"done", "failed"}
    assert (await run("--status", ANN, "--config", path)).exit_code == 0


async def test_it_waits_until_it_is_done(path: Path, admin: asyncpg.Connection) -> None:
    waiting = asyncio.create_task(run(ANN, "--wait", "--config", path))
    while (await states(admin))[ANN] != "waiting":
        assert not waiting.done()
    await admin.execute("UPDATE bootstrap SET state = 'done', restored = 9 WHERE account = $1", ANN)
    result = await waiting
    assert result.exit_code == 0
    assert "0 waiting, 1 done, 0 failed; 9 messages restored" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Say whose archives: accounts, --host HOST or --all."),
        (("ann@elsewhere.example",), "elsewhere.example is not served: see component.hosts and component.muc_hosts."),
        (("--host", "elsewhere.example"), "elsewhere.example is not served"),
        (("ann",), "is not an account"),
        ((f"ann@{HOST}/web",), "has a resource"),
    ],
)
async def test_what_is_refused_names_the_field(path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = await run(*arguments, "--config", path)
    assert result.exit_code == 2
    assert words in result.stderr


async def test_where_it_is_switched_off_nothing_is_queued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSYNC_BOOTSTRAP__ENABLED", "false")
    result = await run(ANN, "--config", path)
    assert (result.exit_code, result.stderr) == (2, "Archives are not read here: bootstrap.enabled is false.\n")
    assert (await run("--status", "--config", path)).exit_code == 0


async def test_a_database_that_is_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSYNC_POSTGRES__DSN", "postgresql://127.0.0.1:1/none")
    result = await run(ANN, "--config", path)
    assert result.exit_code == 1
    assert result.stderr.startswith("[postgres] dsn: the database does not answer")
