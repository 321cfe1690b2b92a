"""A second component beside the sandbox's own, from its configuration with something changed: what a second machine
would run.

While the sandbox's supervisor stands still, what is killed stays dead: so the second one takes over, whoever is faster.
"""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.ports import free_port
from tests.system.box import REPOSITORY, Box, eventually

READY = '"status": 200'
WAITS = "another process speaks for the component"
SECONDS = 60.0  # for what must come, however busy the machine is


class Standby:
    """A `convsync serve` of our own."""

    def __init__(self, process: asyncio.subprocess.Process, http: int, log: Path) -> None:
        self.process, self.http, self.log = process, http, log

    async def conditions(self) -> dict[str, Any]:
        where = f"http://127.0.0.1:{self.http}/ready"
        try:
            async with aiohttp.ClientSession() as session, session.get(where) as answer:
                found: dict[str, Any] = await answer.json(content_type=None)
                return {"status": answer.status, **found}
        except (aiohttp.ClientError, ValueError):
            return {}

    async def until(self, words: str) -> None:
        """Until /ready says so."""

        async def look() -> bool:
            assert self.process.returncode is None, self.said()
            assert words in (said := json.dumps(await self.conditions())), said
            return True

        await eventually(look, SECONDS)

    def said(self) -> str:
        return self.log.read_text()


@asynccontextmanager
async def standby(box: Box, folder: Path, *changes: tuple[str, str]) -> AsyncIterator[Standby]:
    """Started from the sandbox's configuration, with (pattern, replacement) applied."""
    http, settings = free_port(), (box.data / "convsync.toml").read_text()
    for pattern, replacement in ((r"(\[http\][^\[]*port = )\d+", rf"\g<1>{http}"), *changes):
        settings, many = re.subn(pattern, replacement, settings)
        assert many == 1, pattern
    (folder / "convsync.toml").write_text(settings)
    log = folder / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync", "serve", "--config", str(folder / "convsync.toml")),
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
        )
    try:
        yield Standby(process, http, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await box.whole(SECONDS)


@contextmanager
def unsupervised(box: Box) -> Iterator[None]:
    """The sandbox starts nothing anew meanwhile."""
    box.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        box.process.send_signal(signal.SIGCONT)


async def holder(box: Box) -> int | None:
    """The process that holds the component's lease."""
    rows = await box.sql("SELECT holder FROM lease WHERE name = $1", box.ready["component"])
    return int(rows[0]["holder"].split(":")[1]) if rows else None


async def holds(box: Box, pid: int | None = None) -> None:
    """Until that process holds the lease; by default the sandbox's component, which may be another one meanwhile."""

    async def look() -> bool:
        wanted = box.pid("component") if pid is None else pid
        assert (found := await holder(box)) == wanted, (found, wanted)
        return True

    await eventually(look, SECONDS)


async def promote(box: Box, other: Standby, how: signal.Signals = signal.SIGKILL) -> float:
    """Kill the sandbox's component; the seconds until the other one holds the lease."""
    await other.until('"lease"')
    with unsupervised(box):
        box.signal("component", how)
        began = time.monotonic()
        await holds(box, other.process.pid)
        return time.monotonic() - began
