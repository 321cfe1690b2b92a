"""A part of the sandbox is killed: how long until its successor answers, and what that costs of the processor.

The supervisor hears of the death as an event and starts the successor at once, so this is the part's own start. The
clock stops when the port takes connections; for the component when `/ready` says that it is joined to its server.
"""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.report import spread, table
from bench.stage import processor_seconds
from sync.sandbox.probes import accepts, answers_200
from sync.sandbox.stack import Options, Ready, sandbox

ROUNDS, QUICK_ROUNDS = 10, 1
LOOK_SECONDS = 0.005
END_SECONDS = 120.0
CALM_SECONDS = 10.5  # who lives for so long dies for the first time again (`supervisor.STABLE_SECONDS`)
PARTS: Mapping[str, tuple[str, ...]] = {
    "prosody": ("server", "component", "postgres", "redis", "apns"),
    "ejabberd": ("server",),
}


def port_of(ready: Ready, part: str) -> int:
    """Where a part answers."""
    if part == "server":
        return int(ready["c2s"]["port"])
    where = {"component": ready["http"]["base"], "apns": ready["apns"]["url"]}.get(part) or ready[part]
    return int(where.rpartition("@")[2].split("://")[-1].split("/")[0].rpartition(":")[2])


async def once(ready: Ready, part: str) -> tuple[float, float]:
    """Seconds until the successor answers, and processor seconds of it and its children by then."""
    pid, port = ready["pids"][part], port_of(ready, part)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    async def back() -> bool:
        if ready["pids"][part] == pid:
            return False
        return await (answers_200(port, "/ready") if part == "component" else accepts(port))

    async with asyncio.timeout(END_SECONDS):
        while not await back():  # noqa: ASYNC110 - other processes' doing has no event to wait for
            await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began, processor_seconds(ready["pids"][part])


async def measure(server: str, rounds: int, say: Callable[[str], None]) -> list[list[str]]:
    """A row for each part."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="convsync-restart-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
        async with sandbox(Options(server=server, accounts=4, data=Path(folder) / "data")) as ready:
            for part in PARTS[server]:
                found = []
                for each in range(rounds):
                    await asyncio.sleep(CALM_SECONDS)
                    found.append(await once(ready, part))
                    say(f"restart: {server}, {part}, {each + 1} of {rounds}: {found[-1][0]:.2f} s")
                seconds, busy = zip(*found, strict=True)
                name = server if part == "server" else part
                rows.append([name, str(rounds), spread(seconds, ".2f"), spread(busy, ".2f")])
    return rows


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = [row for server in PARTS for row in await measure(server, rounds, say)]
    head = ["killed (`kill -9`)", "times", "its successor answers, s", "processor time of the successor by then, s"]
    return (
        "Each part of a sandbox is killed and is back on its port. Median (lowest–highest). Target: 2 s.\n\n"
        f"{table(head, rows)}"
    )
