"""What happens to the parts: kill -9, a pause, lost connections, two things at once; when, by seeded dice.

Each fault is given by its name and is over when its function returns: the killed part has a successor, the stopped one
goes on. The instants of kills of the server are kept, since what it was doing then nobody can be sure of.
"""

import asyncio
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import redis.asyncio

from tests.system.box import Box, eventually

PARTS = ("component", "postgres", "redis", "server")
PAUSES = (0.3, 3.0)
BETWEEN_SECONDS = (0.1, 1.5)
BACK_SECONDS = 60

FAULTS = (
    *(f"kill {part}" for part in PARTS),
    *(f"pause {part}" for part in PARTS),
    *("cut component", "cut postgres", "cut redis", "cut clients"),
)
PAIRS = (
    *("kill postgres + kill component", "kill server + kill component", "kill redis + kill component"),
    *("pause postgres + kill component", "kill postgres + pause server", "cut component + cut postgres"),
    *("pause component + kill server", "kill postgres + kill server"),
)


def plan(seed: str, rounds: int) -> list[str]:
    """Every single fault once in each round, some of the pairs, in an order of the seed's."""
    dice = random.Random(seed)  # noqa: S311
    found: list[str] = []
    for _ in range(rounds):
        some = [*FAULTS, *dice.sample(PAIRS, 2)]
        dice.shuffle(some)
        found += some
    return found


@dataclass
class Weather:
    """Brings the faults. `disconnect` drops the connections of some devices and says of how many."""

    box: Box
    seed: str
    disconnect: Callable[[random.Random], Awaitable[int]]
    happened: Counter[str] = field(default_factory=Counter)
    server_deaths: list[float] = field(default_factory=list)  # seconds since the epoch
    recovery_seconds: float = 0.0  # from the last fault until every part answered
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed} weather")  # noqa: S311

    async def storm(self, faults: Sequence[str]) -> None:
        """One after the other; before some of them the whole may recover, before others it may not."""
        for names in faults:
            if self.random.random() < 0.5:
                await recovered(self.box)
            await asyncio.sleep(self.random.uniform(*BETWEEN_SECONDS))
            self.say(names)
            await asyncio.gather(*(self.bring(*name.split(" ", 1)) for name in names.split(" + ")))

    async def bring(self, what: str, part: str) -> None:
        """One fault, until it is over."""
        if what == "kill":
            await self.kill(part)
        elif what == "pause":
            await self.pause(part, self.random.uniform(*PAUSES))
        elif not await getattr(self, f"cut_{part}")():
            return
        self.happened[f"{what} {part}"] += 1

    async def kill(self, part: str) -> None:
        """kill -9; returns when there is a successor."""
        before = self.box.pid(part)
        if part == "server":
            self.server_deaths.append(time.time())
        with suppress(ProcessLookupError):
            os.kill(before, signal.SIGKILL)
        await self.box.wait(lambda ready: ready["pids"][part] != before, BACK_SECONDS)

    async def pause(self, part: str, seconds: float) -> None:
        """SIGSTOP to the part and its children, and SIGCONT."""
        pid = self.box.pid(part)
        stopped = [pid, *children(pid)]
        send(stopped, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            send(stopped, signal.SIGCONT)

    async def cut_component(self) -> bool:
        """The component's connection to the server."""
        if self.box.ready["server"] == "prosody":
            with suppress(Exception):  # the server may be away
                await asyncio.wait_for(self.box.cut(), 5)
                return True
            return False
        toml = (self.box.data / "convsync.toml").read_text()
        port = toml.split("[component]")[1].split("port = ")[1].split("\n")[0]
        ss = shutil.which("ss")
        if ss is None or os.geteuid() != 0:
            return False
        process = await asyncio.create_subprocess_exec(
            *(ss, "-K", "dst", "127.0.0.1", "dport", "=", port),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        said, _ = await process.communicate()
        return b"ESTAB" in said

    async def cut_postgres(self) -> bool:
        """Every session of the database."""
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(self.box.ready["postgres"], timeout=2)
            try:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            finally:
                connection.terminate()
            return True
        return False

    async def cut_redis(self) -> bool:
        """Every connection of Redis, those that listen too."""
        client = redis.asyncio.from_url(self.box.ready["redis"], socket_timeout=2, socket_connect_timeout=2)
        try:
            for kind in ("normal", "pubsub"):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        except (redis.exceptions.RedisError, OSError):
            return False
        finally:
            with suppress(Exception):
                await client.aclose()
        return True

    async def cut_clients(self) -> bool:
        """The connections of some devices."""
        return await self.disconnect(self.random) > 0


def children(pid: int) -> list[int]:
    """The process's children, as the kernel lists them."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def recovered(box: Box) -> None:
    """Until every part answers."""
    await eventually(lambda: whole(box), BACK_SECONDS)


async def whole(box: Box) -> bool:
    with suppress(OSError):
        await box.whole(5)
        return True
    return False
