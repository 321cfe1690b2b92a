"""Two components on one database, on both servers: how long nobody speaks when the one that holds the lease ends.

Killed, its database session ends with it, and the other one, which asks four times a second, has the lease at once.
Hanging (stopped, as a machine without power would be), the lease has to run out. A message that is written at that
moment waits in the module's outbox; the clock stops when the other process holds the lease, and when it has committed
the message.
"""

import asyncio
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg

from bench.calls import client
from bench.crowd import accounts
from bench.report import spread, table
from sync.sandbox.ports import hold, number
from sync.sandbox.probes import accepts
from sync.sandbox.stack import Options, Ready, sandbox

ROUNDS, QUICK_ROUNDS = 10, 2
LOOK_SECONDS = 0.005
END_SECONDS = 60.0
LEASE = "SELECT split_part(holder, ':', 2)::integer FROM lease WHERE name = $1 AND expires_at > now()"
STORED = "SELECT EXISTS (SELECT FROM message WHERE account = $1 AND message_key = $2)"


class Second:
    """A component beside the sandbox's; started again when it was killed."""

    def __init__(self, settings: Path, port: int) -> None:
        self._settings, self._port = settings, port
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Until it answers, be it that it waits for the lease."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "sync", "serve", "--config", str(self._settings)),
            cwd=self._settings.parent,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(lambda: accepts(self._port))

    async def stop(self) -> None:
        """And wait for its end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        await self.process.wait()


async def until(look: Callable[[], Awaitable[object]]) -> float:
    """The instant at which it became true. Raises TimeoutError."""
    async with asyncio.timeout(END_SECONDS):
        while not await look():  # noqa: ASYNC110 - other processes' doing has no event to wait for
            await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic()


@asynccontextmanager
async def second(folder: Path) -> AsyncIterator[Second]:
    """From the sandbox's configuration, with a port of its own."""
    (held,) = hold(1)
    with held:
        text = (folder / "convsync.toml").read_text()
        settings = folder / "second.toml"
        settings.write_text(re.sub(r"(\[http\][^\[]*port = )\d+", rf"\g<1>{number(held)}", text))
        settings.chmod(0o600)
        found = Second(settings, number(held))
        await found.start()
        try:
            yield found
        finally:
            await found.stop()


async def once(ready: Ready, database: asyncpg.Connection, other: Second, how: signal.Signals) -> tuple[float, float]:
    """Seconds until another process holds the lease, and until the message is committed."""
    name, (_, (peer, _)) = ready["component"], accounts(ready)[:2]
    holder = await database.fetchval(LEASE, name)
    message = secrets.token_hex(8)
    began = await asyncio.to_thread(_write, ready, peer, message, lambda: os.kill(holder, how))
    taken = await until(lambda: _changed(database, name, holder))
    stored = await until(lambda: database.fetchval(STORED, peer, message))
    if how is signal.SIGSTOP:
        os.kill(holder, signal.SIGCONT)
    elif holder == other.process.pid:
        await other.process.wait()
        await other.start()
    else:
        await until(lambda: accepts(int(ready["http"]["base"].rpartition(":")[2])))
    return taken - began, stored - began


def _write(ready: Ready, peer: str, message: str, end: Callable[[], None]) -> float:
    """`end` the holder, and write at once; when that was. Returns when the server has the message."""
    with client(ready, 0) as writer:
        writer.bind("desk")
        end()
        began = time.monotonic()
        writer.message(peer, "<body>who speaks?</body>", message)
        writer.ping()
    return began


async def _changed(database: asyncpg.Connection, name: str, holder: int) -> bool:
    return await database.fetchval(LEASE, name) not in (None, holder)


async def measure(server: str, rounds: int, say: Callable[[str], None]) -> list[list[str]]:
    """Two rows of the table."""
    rows = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convsync-takeover-")))
        os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
        ready = await stack.enter_async_context(sandbox(Options(server=server, accounts=2, data=folder / "data")))
        other = await stack.enter_async_context(second(folder / "data"))
        database = await asyncpg.connect(ready["postgres"])
        stack.push_async_callback(database.close)
        for how, words in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "hangs")):
            found = []
            for each in range(rounds):
                found.append(await once(ready, database, other, how))
                say(f"takeover: {server}, {words}, {each + 1} of {rounds}: {found[-1][0]:.2f} s")
            taken, stored = zip(*found, strict=True)
            rows.append([f"{server}, {words}", str(rounds), spread(taken, ".2f"), spread(stored, ".2f")])
    return rows


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = [row for server in ("prosody", "ejabberd") for row in await measure(server, rounds, say)]
    head = [
        "the process that holds the lease",
        "times",
        "the other one holds it, s",
        "a message written then is committed, s",
    ]
    return (
        "Two components on one database, the one that speaks is killed (`kill -9`) or stopped (`kill -STOP`: its "
        "database session stays, the lease has to run out). Median (lowest–highest). Target: 5 s.\n\n"
        f"{table(head, rows)}"
    )
