"""The embedded servers, as root and as an ordinary user: closed to others, back after a kill, nothing left behind."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sync.sandbox import ports, postgres
from sync.sandbox.launch import NOBODY, _descent, unprivileged
from tests.adapters.processes import REPOSITORY, WHO, command_line, gone, listens, modes, python

PAIR = Path(__file__).parent / "embedded_pair.py"


def closed_folder(tmp_path: Path) -> Path:
    """A folder below one that nobody else may enter, with a path too long for a Unix socket."""
    folder = tmp_path / "closed" / ("long" * 25) / "data"
    folder.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    return folder


@asynccontextmanager
async def pair(who: str, folder: Path, *more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """embedded_pair.py as somebody's process; the ports that it was given."""
    held = ports.hold(2)
    numbers = [ports.number(one) for one in held]
    process = await asyncio.create_subprocess_exec(
        *(*python(who, folder), str(PAIR), str(folder), *map(str, numbers), *more),
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process, numbers
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for one in held:
            one.close()


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout
    async with asyncio.timeout(90):
        line = await process.stdout.readline()
    assert line, "it ended early"
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("who", WHO)
async def test_killed_servers_come_back_with_their_data_and_a_stop_leaves_nothing(who: str, tmp_path: Path) -> None:
    folder = closed_folder(tmp_path)
    async with pair(who, folder, "kill") as (process, numbers):
        pids = (await said(process))["pids"]
        for name in ("postgres", "redis"):
            answer = await said(process)
            assert answer["killed"] == name
        assert await said(process) == {"row": 42, "value": "42"}
        assert (await said(process))["stopped"]
        assert await process.wait() == 0
        for pid in pids.values():
            await gone(pid)
        assert not any(listens(port) for port in numbers)


@pytest.mark.parametrize("who", WHO)
async def test_no_directory_is_opened_to_others(who: str, tmp_path: Path) -> None:
    folder = closed_folder(tmp_path)
    wheel = postgres.binaries()
    async with pair(who, folder) as (process, _):
        before = modes(folder), modes(wheel)
        await said(process)
        assert (modes(folder), modes(wheel)) == before
        assert (folder / "postgres").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("who", WHO)
async def test_a_killed_supervisor_leaves_no_orphans(who: str, tmp_path: Path) -> None:
    async with pair(who, closed_folder(tmp_path)) as (process, numbers):
        pids = (await said(process))["pids"]
        assert all(listens(port) for port in numbers)
        process.send_signal(signal.SIGKILL)
        for pid in pids.values():
            await gone(pid)
        assert not any(listens(port) for port in numbers)


@pytest.mark.parametrize("who", WHO)
async def test_only_with_the_password(who: str, tmp_path: Path) -> None:
    async with pair(who, closed_folder(tmp_path)) as (process, (port, redis_port)):
        pids = (await said(process))["pids"]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.dsn(port=port, password="guessed"))
        reader, writer = await asyncio.open_connection("127.0.0.1", redis_port)
        writer.write(b"PING\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()
        for pid in pids.values():
            assert "requirepass" not in command_line(pid)


if "root" in WHO:

    def test_root_keeps_no_right_but_walking() -> None:
        way = " ".join(_descent(postgres.binaries() / "postgres", NOBODY, NOBODY))
        assert "--ambient-caps +dac_read_search" in way
        assert "--no-new-privs" in way


def test_a_program_below_a_closed_folder_is_found_by_access_too(tmp_path: Path) -> None:
    programs = closed_folder(tmp_path) / "bin"
    programs.symlink_to(postgres.binaries())
    way = unprivileged(programs / "initdb", tmp_path)
    assert subprocess.run([*way, "test", "-x", programs / "initdb"], check=False).returncode == 0
