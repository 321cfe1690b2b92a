"""The example of docs/clients/library.md does what the page says."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sync.client import loads
from tests.system.app import written
from tests.system.box import REPOSITORY, Box


@asynccontextmanager
async def example(box: Box, account: str, folder: Path) -> AsyncIterator[Callable[[str], Awaitable[list[str]]]]:
    """docs/clients/example.py, started as the page says; a call returns what it said up to the wanted line."""
    password = next(a["password"] for a in box.ready["accounts"] if a["jid"] == account)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(REPOSITORY / "docs" / "clients" / "example.py")),
        *(account, password, "127.0.0.1", str(box.ready["c2s"]["port"])),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    output = process.stdout

    async def says(wanted: str) -> list[str]:
        said: list[str] = []
        async with asyncio.timeout(60):
            while not said or wanted not in said[-1]:
                line = await output.readline()
                assert line, said
                said.append(line.decode().strip())
        return said

    try:
        yield says
    finally:
        process.kill()
        await process.wait()


async def test_the_example_of_the_documentation_runs(box: Box, tmp_path: Path) -> None:
    ann, bob = await box.friends("a", "b")
    (first,) = await written(ann, bob)
    async with example(box, ann.account, tmp_path) as says:
        said = await says("badge 1")
        assert f"{bob.account}: 1 unread, last 'hello'" in said
        bob.call("propose", ann.account, "sid")
        said = await says(f"{bob.account}: ")
        assert said[0].startswith(f"{bob.account} calls, ")
        bob.write(ann.account, "pick up")
        await says("last 'pick up'")
    assert loads((tmp_path / "cache.json").read_text()).ringing
    bob.correct(ann.account, first, "hello, Ann")
    await bob.ping()
    async with example(box, ann.account, tmp_path) as says:
        said = await says("[('corrected', 'hello, Ann')]")
        assert said[0].startswith(f"{bob.account} calls, ")
        assert len(said) == 3
