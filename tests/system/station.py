"""One Convsync of a test's own, beside an XMPP server of a test's own: what the sandbox does not do, such as several
users' hosts, hosts that lack something, and a server that is looked at while no service runs.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from cryptography.fernet import Fernet

from tests.ports import free_port
from tests.system.box import REPOSITORY, eventually


class Station:
    """A configuration in `folder`, and what the commands make of it."""

    def __init__(
        self,
        folder: Path,
        *,
        dsn: str,
        port: int,
        secret: str,
        hosts: Sequence[str],
        muc_hosts: Sequence[str] = (),
        component: str = "sync.localhost",
        redis: str | None = None,
        more: str = "",
    ) -> None:
        self.folder, self.dsn, self.http = folder, dsn, free_port()
        self.config = folder / "convsync.toml"
        shared = f'[redis]\nurl = "{redis}"\n' if redis else ""
        self.config.touch(mode=0o600)
        self.config.write_text(
            f"""
[component]
jid = "{component}"
secret = "{secret}"
port = {port}
hosts = {json.dumps(list(hosts))}
muc_hosts = {json.dumps(list(muc_hosts))}
{more}
[postgres]
dsn = "{dsn}"
[http]
port = {self.http}
[secrets]
keys = ["{Fernet.generate_key().decode()}"]
{shared}
"""
        )
        self.log = folder / "convsync.log"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """`convsync serve`, as a process."""
        with self.log.open("ab") as output:
            process = await self._start("serve", stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Status and output of a command."""
        process = await self._start(*arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, output.decode()

    async def _start(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync", *arguments, "--config", str(self.config)),
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            **streams,
        )

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """/ready; status 0 while nobody answers."""
        try:
            where = f"http://127.0.0.1:{self.http}/ready"
            async with aiohttp.ClientSession() as session, session.get(where) as answer:
                return answer.status, await answer.json(content_type=None)
        except aiohttp.ClientError:
            return 0, {}

    async def until(self, missing: set[str], seconds: float = 60) -> dict[str, Any]:
        """Until exactly that is missing; what /ready says then."""

        async def look() -> dict[str, Any]:
            _, found = await self.ready()
            assert set(found.get("missing", {"http": ""})) == missing, (found, self.said()[-2000:])
            return found

        return await eventually(look, seconds)

    async def why(self, name: str, words: str) -> None:
        """Until /ready says so of what is missing, or of what it can do without."""

        async def look() -> bool:
            _, found = await self.ready()
            told = {**found.get("missing", {}), **found.get("notes", {})}
            assert words in told.get(name, ""), told
            return True

        await eventually(look, 60)

    async def metric(self, line: str) -> float:
        """The value of one sample, by all of it before the value; the sum where labels are left out."""
        where = f"http://127.0.0.1:{self.http}/metrics"
        async with aiohttp.ClientSession() as session, session.get(where) as answer:
            lines = [one for one in (await answer.text()).splitlines() if one.startswith(line)]
        return sum(float(one.rsplit(" ", 1)[1]) for one in lines)

    async def sql(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""
