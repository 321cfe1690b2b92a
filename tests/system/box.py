"""A sandbox as its own process, as a tester gets it: found by its ready file, killed by process id, looked into by SQL.

Waiting is for what another process writes or answers, asked again every few milliseconds: there is no event for it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import Any, TypeVar

import aiohttp
import asyncpg

from sync.adapters.postgres.dossier import opened
from tests.system.person import Person, Phone
from tests.system.surgery import another_home, another_host, cut_connection

REPOSITORY = Path(__file__).parents[2]
ASK_SECONDS = 0.02
COMPLAINTS = 40

T = TypeVar("T")
Row = dict[str, Any]


async def eventually(look: Callable[[], Awaitable[T]], seconds: float = 30) -> T:
    """What `look` returns once it is true; at the end of the time, what it last returned decides (and an AssertionError
    that it raises is kept for the report).
    """
    end = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            if found := await look():
                return found
            why = AssertionError(f"not within {seconds} s: {look}")
        except AssertionError as failed:
            why = failed
        if asyncio.get_running_loop().time() > end:
            raise why
        await asyncio.sleep(ASK_SECONDS)


class Box:
    """A running sandbox."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.file, self.data = folder / "ready.json", folder / "data"
        self.ready: dict[str, Any] = {}
        self.deaths: list[tuple[str, float]] = []  # part, when it was killed
        self._next = 0
        self._people: list[Person] = []

    async def wait(self, when: Callable[[dict[str, Any]], bool] = lambda _: True, seconds: float = 150) -> None:
        """Until the ready file is as wanted."""

        async def look() -> bool:
            assert self.process.returncode is None, (self.folder / "output").read_text()[-1500:]
            with suppress(FileNotFoundError):
                self.ready = json.loads(self.file.read_text())
            return bool(self.ready) and when(self.ready)

        await eventually(look, seconds)

    # ---- parts -----------------------------------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        self.ready = json.loads(self.file.read_text())
        return int(self.ready["pids"][part])

    def signal(self, part: str, number: Signals) -> int:
        pid = self.pid(part)
        os.kill(pid, number)
        return pid

    async def killed(self, part: str, by: Signals = Signals.SIGKILL) -> None:
        """kill -9, or as told; returns when its successor runs and the whole answers again."""
        pid = self.signal(part, by)
        self.deaths.append((part, time.time()))
        await self.wait(lambda ready: ready["pids"][part] != pid)
        await self.whole()

    @property
    def server(self) -> str:
        name: str = self.ready["server"]
        return name

    async def elsewhere(self) -> str:
        """A host of rooms that the feed does not cover, as another server's; the server starts anew for it, once."""
        host = f"elsewhere.{self.ready['domain']}"
        if another_host(self.server, self.data / self.server, host):
            await self.killed("server")
        return host

    async def abroad(self) -> str:
        """A host of users that we have no feed of, as another server's; the server starts anew for it, once."""
        host = f"abroad.{self.ready['domain']}"
        accounts = [(one["jid"].partition("@")[0], one["password"]) for one in self.ready["accounts"]]
        if another_home(self.server, self.data / self.server, host, accounts):
            await self.killed("server")
        return host

    async def conditions(self) -> tuple[int, dict[str, Any]]:
        """Status and content of /ready; status 0 while nobody answers."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(self.ready["http"]["base"] + "/ready", timeout=aiohttp.ClientTimeout(3)) as answer,
            ):
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0, {}

    async def whole(self, seconds: float = 60) -> None:
        """Until every part answers."""

        async def look() -> bool:
            status, found = await self.conditions()
            assert status == 200, found
            return await self._accepts(self.ready["c2s"]["port"])

        await eventually(look, seconds)

    @staticmethod
    async def _accepts(port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        except OSError:
            return False
        return True

    async def metric(self, wanted: str) -> float:
        """The sum of a metric's samples."""
        async with aiohttp.ClientSession() as session, session.get(self.ready["http"]["base"] + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == wanted)

    @property
    def component_port(self) -> int:
        toml = (self.data / "convsync.toml").read_text()
        return int(toml.split("[component]")[1].split("port = ")[1].split("\n")[0])

    @property
    def server_log(self) -> Path:
        # ejabberd writes its own file some seconds late, and the same at once to its standard output.
        logs = {"prosody": "prosody/prosody.log", "ejabberd": "logs/server.log"}
        return self.data / logs[self.server]

    def complaints(self) -> str:
        """The newest of what the component found worth a warning: for the report of a test that failed."""
        with suppress(FileNotFoundError):
            lines = (self.data / "logs" / "component.log").read_text(errors="replace").splitlines()
            return "\n".join([line for line in lines if '"level": "info"' not in line][-COMPLAINTS:])
        return ""

    def component_connections(self) -> int:
        """How many connections came to the component's port since the sandbox was made."""
        sign = {"prosody": "Incoming Jabber component", "ejabberd": f"-> 127.0.0.1:{self.component_port}"}[self.server]
        return self.server_log.read_text(errors="replace").count(sign)

    async def cut(self) -> None:
        """Take the component's connection away, without a word to either side."""
        cut_connection(self.pid("component"), self.component_port)

    # ---- people ----------------------------------------------------------------------------------------------------

    def account(self) -> str:
        """An account that nobody had."""
        self._next += 1
        jid: str = self.ready["accounts"][self._next - 1]["jid"]
        return jid

    async def person(self, jid: str | None = None, resource: str = "desk", **options: Any) -> Person:
        """A session: of a new account, or a further one."""
        jid = jid or self.account()
        user = jid.partition("@")[0]
        password = next(a["password"] for a in self.ready["accounts"] if a["jid"].partition("@")[0] == user)
        found = await Person.connect(f"{jid}/{resource}", password, self.ready["c2s"]["port"], **options)
        self._people.append(found)
        return found

    def joins(self, session: Person) -> None:
        """A session that a test made itself ends with the test, too."""
        self._people.append(session)

    async def friends(self, *resources: str, **options: Any) -> list[Person]:
        """So many people, each a friend of each, and the component knows it."""
        found = [await self.person(resource=resource, **options) for resource in resources]
        for index, one in enumerate(found):
            for other in found[index + 1 :]:
                await one.befriend(other)
        for one in found:
            await one.sync()
        return found

    async def phone(self, owner: Person, **fields: Any) -> Phone:
        """The session's device, registered and enabled."""
        phone = await owner.register(component=self.ready["component"], app=self.ready["apns"]["app"], **fields)
        await owner.enable(phone, component=self.ready["component"])
        return phone

    async def fetched(self, owner: Person) -> None:
        """The phone has been woken: its app logs in, asks, and leaves; returns when that counts as a fetch."""
        app = await self.person(owner.account, owner.resource, presence=False)
        await app.sync()

        async def look() -> bool:
            rows = await self.sql(
                "SELECT 1 FROM device WHERE account = $1 AND fetched_version < woken_version", owner.account
            )
            return rows == []

        await eventually(look)
        await app.close()

    async def everybody_leaves(self) -> None:
        people, self._people = self._people, []
        for one in people:
            with suppress(Exception):
                await one.cut()

    # ---- what is stored and sent -----------------------------------------------------------------------------------

    async def sql(self, statement: str, *arguments: object) -> list[Row]:
        connection = await asyncpg.connect(self.ready["postgres"])
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    async def conversation(self, account: str, peer: str, kind: str = "chat") -> Row | None:
        """One conversation's row."""
        found = await self.sql(
            "SELECT * FROM conversation WHERE account = $1 AND peer = $2 AND kind = $3", account, peer, kind
        )
        return found[0] if found else None

    async def changes(self, account: str, peer: str) -> list[tuple[str, str]]:
        """The change log of the conversations with a peer: what, and the id of the message that it is about."""
        rows = await self.sql(
            "SELECT what, target_id FROM change WHERE account = $1 AND peer = $2 ORDER BY version", account, peer
        )
        return [(row["what"], row["target_id"]) for row in rows]

    async def sound(self, *accounts: str) -> None:
        """What `convsync repair` would change: nothing, or AssertionError."""
        async with opened(self.ready["postgres"], connect_seconds=5) as dossier:
            for account in accounts:
                repair = await dossier.repair(account, datetime.now(UTC), dry=True)
                assert repair.differences == (), account

    def pushes(self, *tokens: str, status: int | None = 200) -> list[Row]:
        """What the simulator answered, for these tokens (none = any)."""
        lines = Path(self.ready["apns"]["log"]).read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be on its way
        return [
            one
            for one in found
            if (not tokens or one["token"] in tokens) and (status is None or one["status"] == status)
        ]

    async def pushed(self, *tokens: str, many: int = 1, kind: str | None = None, seconds: float = 45) -> list[Row]:
        """So many accepted pushes to these tokens, once they are there; `kind`: only those of this kind (`x.k`)."""

        async def look() -> list[Row]:
            found = [one for one in self.pushes(*tokens) if kind is None or one["payload"]["x"]["k"] == kind]
            assert len(found) >= many, [(one["push_type"], one["payload"]) for one in self.pushes(*tokens, status=None)]
            return found

        return await eventually(look, seconds)

    async def fault(self, **fault: object) -> None:
        where = self.ready["apns"]["control"] + "/faults"
        async with aiohttp.ClientSession() as session, session.post(where, json=fault) as answer:
            assert answer.status == 200, await answer.text()

    async def apns(self) -> Row:
        """The simulator's figures."""
        where = self.ready["apns"]["control"] + "/stats"
        async with aiohttp.ClientSession() as session, session.get(where) as answer:
            found: Row = await answer.json()
            return found

    async def settled(self, *accounts: str, under_way: bool = True, seconds: float = 45) -> None:
        """Until no push job of these accounts is due, or under way: what is decided by then stays decided."""

        async def look() -> bool:
            open_ = await self.sql(
                "SELECT kind, state, not_before FROM push_job WHERE account = ANY ($1) "
                "AND (state = 'attempted' AND $2 OR state = 'queued' AND not_before <= now())",
                list(accounts),
                under_way,
            )
            assert not open_, open_
            return True

        await eventually(look, seconds)

    async def jobs(self, account: str) -> list[Row]:
        """The account's push jobs, oldest first; of one moment, what is due first."""
        order = "created_at, version, not_before"
        return await self.sql(f"SELECT * FROM push_job WHERE account = $1 ORDER BY {order}", account)  # noqa: S608


@asynccontextmanager
async def boxed(folder: Path, accounts: int = 4, server: str = "prosody") -> AsyncIterator[Box]:
    """A sandbox that ends with the context."""
    os.makedirs(folder, exist_ok=True)
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync", "sandbox", "--server", server, "--accounts", str(accounts)),
            *("--data", str(folder / "data"), "--ready-file", str(folder / "ready.json")),
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    box = Box(process, folder)
    try:
        await box.wait()
        yield box
    finally:
        await box.everybody_leaves()
        if process.returncode is None:
            process.terminate()
        await process.wait()
