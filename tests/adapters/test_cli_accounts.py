"""The commands for one account: what they print, what they refuse, and how they end."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from sync.adapters.redis import Link, RedisPresence
from sync.cli import cli
from sync.cli_accounts import account_of
from sync.model.event import Session, SessionState
from tests.adapters.account_rows import fill, installed
from tests.adapters.test_cli import command, configuration
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, EVE, TEA
from tests.contract.stores import on_postgres

COMMANDS = ["show", "repair", "export", "delete"]


@pytest_asyncio.fixture(loop_scope="session")
async def path(database: str, tmp_path: Path) -> Path:
    """The configuration of a component that knows Ann and Eve."""
    await installed(database)
    async with on_postgres(database) as bench:
        await fill(bench, ANN, 1)
        await fill(bench, EVE, 2)
    return configuration(tmp_path, dsn=database)


@pytest_asyncio.fixture(loop_scope="session")
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def run(*arguments: str | Path) -> Result:
    """In a thread: a command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli, [str(one) for one in arguments])


# ---- show -----------------------------------------------------------------------------------------------------------


async def test_an_account_is_shown_in_columns(path: Path) -> None:
    result = await run("show", ANN, "--config", path)
    assert (result.exit_code, result.stderr) == (0, "")
    for words in (
        "unread 4 in 2 conversations, mentions 2, devices 1",
        "Conversations, the newest first (3)",
        "pinned 3, muted until for ever",
        "last 2026-01-02 03:04:05 message m1 archive a1",
        "ringing",
        "enabled, voip",
        "Rooms of this server (1)",
        "malformed",
    ):
        assert words in result.stdout
    assert "the secret of" not in result.stdout
    assert "sealed" not in result.stdout
    assert "\x1b" not in result.stdout  # the phone's name would clear the screen


async def test_long_lists_say_how_many_more_there_are(path: Path, admin: asyncpg.Connection) -> None:
    await admin.execute(
        "INSERT INTO conversation (account, peer, kind, version, activity, status) "
        "SELECT $1, 'p' || n || '@example.net', 'chat', 100 + n, n, 'active' FROM generate_series(1, 60) n",
        ANN,
    )
    assert "… and 13 more (--all)" in (await run("show", ANN, "--config", path)).stdout
    assert "more (--all)" not in (await run("show", ANN, "--all", "--config", path)).stdout


async def test_machines_are_told_the_same(path: Path) -> None:
    shown = json.loads((await run("show", ANN, "--json", "--config", path)).stdout)
    assert (shown["account"]["jid"], shown["account"]["unread"]) == (ANN, 4)
    assert shown["conversations"]["total"] == 3
    bob = next(one for one in shown["conversations"]["shown"] if one["peer"] == "bob@example.net")
    assert (bob["muted_until"], bob["last_archive_id"]) == ("infinity", "a1")
    assert shown["quarantine"]["shown"][0]["why"] == "malformed"


async def test_who_is_online_is_shown_as_processes_share_it(
    database: str, path: Path, tmp_path: Path, redis_url: str
) -> None:
    shared = configuration(tmp_path, dsn=database, more=f'[redis]\nurl = "{redis_url}"\n')
    show = partial(asyncio.to_thread, command, "show", ANN, "--config", shared)
    assert "sessions: not known" in (await show()).stdout
    observer = RecordingObserver()
    link = Link(redis_url, observer=observer)
    acked = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    online = [Session("phone", SessionState.HIBERNATED, acked), Session("\x1bweb", SessionState.ACTIVE)]
    await RedisPresence(link, observer=observer).reset("example.org", {ANN: online})
    told = (await show()).stdout
    assert "sessions (2)" in told
    assert "  phone     hibernated  2026-01-02 03:04:05" in told
    assert "\x1b" not in told
    machine = json.loads((await asyncio.to_thread(command, "show", ANN, "--json", "--config", shared)).stdout)
    assert {"resource": "phone", "state": "hibernated", "acked_at": acked.isoformat()} in machine["sessions"]
    await link.close()


async def test_a_redis_that_is_away_is_no_fault(database: str, path: Path, tmp_path: Path) -> None:
    nowhere = configuration(tmp_path, dsn=database, more='[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    shown = await asyncio.to_thread(command, "show", ANN, "--json", "--config", nowhere)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["sessions"] is None


# ---- repair ---------------------------------------------------------------------------------------------------------


async def test_repair_says_what_it_mends(path: Path, admin: asyncpg.Connection) -> None:
    await admin.execute("UPDATE conversation SET unread = 7 WHERE account = $1 AND peer = 'bob@example.net'", ANN)
    dry, done, again = [await run("repair", ANN, *more, "--config", path) for more in (["--dry-run"], [], [])]
    assert dry.stdout.splitlines() == [
        "  bob@example.net (chat): unread 7 → 2",
        f"{ANN}: 1 difference; nothing was changed.",
    ]
    assert done.stdout.splitlines()[0] == "  bob@example.net (chat): unread 7 → 2"
    assert "1 difference mended" in done.stdout
    assert (again.exit_code, again.stdout) == (0, f"{ANN}: nothing differs.\n")


# ---- export ---------------------------------------------------------------------------------------------------------


async def test_an_export_can_be_piped(path: Path) -> None:
    program = [sys.executable, "-m", "sync", "export", ANN, "--config", str(path)]
    ended = await asyncio.to_thread(subprocess.run, program, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["account"]["jid"] == ANN


async def test_a_reader_that_leaves_ends_an_export_without_a_traceback(path: Path, admin: asyncpg.Connection) -> None:
    await admin.execute(
        "INSERT INTO change (account, version, peer, kind, what, target_rank, target_id, stanza) "
        "SELECT $1, 5000 + n, 'p', 'chat', 'corrected', 1, 'm', repeat('x', 2000) FROM generate_series(1, 500) n",
        ANN,
    )
    line = f"'{sys.executable}' -m sync export {ANN} --config '{path}' | head -n 3"
    ended = await asyncio.to_thread(subprocess.run, ["sh", "-c", line], capture_output=True, timeout=60, check=False)
    assert ended.stdout.startswith(b'{\n"format": 1,')
    assert b"Traceback" not in ended.stderr
    assert b"database" not in ended.stderr


# ---- delete ---------------------------------------------------------------------------------------------------------


async def known(admin: asyncpg.Connection) -> set[str]:
    return {jid for (jid,) in await admin.fetch("SELECT jid FROM account")}


async def test_without_a_terminal_nothing_is_deleted_unasked(path: Path, admin: asyncpg.Connection) -> None:
    result = await run("delete", ANN, "--config", path)
    assert (result.exit_code, result.stderr) == (1, "There is no terminal to ask on: say --yes.\n")
    assert await known(admin) == {ANN, EVE}


async def test_a_deletion_says_how_many_rows_went(path: Path, admin: asyncpg.Connection) -> None:
    result = await run("delete", ANN, "--yes", "--config", path)
    assert result.exit_code == 0
    rows = dict(line.split() for line in result.stdout.splitlines()[1:-1])
    assert (rows["conversation"], rows["device"], rows["account"]) == ("3", "1", "1")
    assert result.stdout.splitlines()[-1] == f"{ANN} was deleted: {sum(map(int, rows.values()))} rows."
    assert await known(admin) == {EVE}


@pytest.mark.parametrize(("typed", "status", "left"), [(ANN, 0, {EVE}), (EVE, 1, {ANN, EVE}), ("yes", 2, {ANN, EVE})])
async def test_on_a_terminal_the_account_is_typed(
    path: Path, admin: asyncpg.Connection, typed: str, status: int, left: set[str]
) -> None:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "sync", "delete", ANN, "--config", str(path)]
    os.write(ours, f"{typed}\n".encode())
    ended = await asyncio.to_thread(
        subprocess.run, program, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == status, ended.stderr
    assert await known(admin) == left


def test_help_names_the_commands() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    assert all(f"  {name} " in text for name in COMMANDS)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
async def test_nobody_and_rooms_are_one_sentence(path: Path, command: str) -> None:
    more = ["--yes"] if command == "delete" else []
    nobody = await run(command, "nobody@example.org", *more, "--config", path)
    assert (nobody.exit_code, nobody.stdout) == (1, "")
    assert nobody.stderr == "Nothing is held on nobody@example.org.\n"
    assert (
        await run(command, TEA, *more, "--config", path)
    ).stderr == f"{TEA} is a room of this server, not an account.\n"


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_database_that_is_away_is_one_sentence(tmp_path: Path, command: str) -> None:
    more = ["--yes"] if command == "delete" else []
    result = await run(command, ANN, *more, "--config", configuration(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "The database cannot be used: nobody listens there (postgres.dsn).\n"


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_missing_schema_is_one_sentence(empty_database: str, tmp_path: Path, command: str) -> None:
    more = ["--yes"] if command == "delete" else []
    result = await run(command, ANN, *more, "--config", configuration(tmp_path, dsn=empty_database))
    assert (result.exit_code, result.stderr) == (1, "The schema is not installed: run convsync schema.\n")


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_faulty_configuration_ends_with_two(tmp_path: Path, command: str) -> None:
    result = await run(command, ANN, "--config", configuration(tmp_path, more="[http]\nprot = 1\n"))
    assert result.exit_code == 2
    assert "http.prot: unknown key" in result.stderr


@pytest.mark.parametrize(
    "typed", ["ann@example.org/phone", "example.org", "ann@", "@example.org", "a b@example.org", ""]
)
async def test_what_is_no_account_ends_with_two(path: Path, typed: str) -> None:
    result = await run("show", typed, "--config", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "ann@example.org" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "account"),
    [
        ("Ann@Example.ORG", ANN),
        (" ann@example.org ", ANN),
        ("JÖRG@example.org", "jörg@example.org"),
        ("ann@[::1]", "ann@[::1]"),
        ("o\\27hara@example.org", "o\\27hara@example.org"),
    ],
)
def test_an_account_is_taken_as_servers_compare_it(typed: str, account: str) -> None:
    assert account_of(typed) == account
