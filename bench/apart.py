"""A component of its own with its database and Redis, and a process of ours in the server's place: what the component
does by itself, without a server's work in the figures.
"""

from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from bench.questions import heard, ordered, process_of
from bench.stage import database
from sync.adapters.postgres import migrate
from sync.sandbox import component, valkey
from sync.sandbox.folder import data_folder
from sync.sandbox.identity import write_private
from sync.sandbox.parts import Part
from sync.sandbox.ports import hold, number
from sync.sandbox.supervisor import Supervisor

HOST, COMPONENT, SECRET = "localhost", "sync.localhost", "hush"
CONFIGURATION = """\
[component]
jid = "{component}"
secret = "{secret}"
server = "127.0.0.1"
port = {port}
hosts = ["{host}"]

[postgres]
dsn = "{dsn}"

[redis]
url = "{redis}"

[http]
listen = "127.0.0.1"
port = {http}

[secrets]
keys = ["{key}"]
"""


@dataclass(frozen=True, slots=True)
class Apart:
    """What runs before the component does: the process in the server's place, the database and Redis (its process)."""

    port: Process
    part: Part
    logs: Path
    dsn: str
    redis: int

    @asynccontextmanager
    async def component(self) -> AsyncIterator[int]:
        """The component, from its start to its orderly end; yields its process once it is ready."""
        supervisor = Supervisor(logs=self.logs)
        try:
            await supervisor.start(self.part)
            yield supervisor.pids["component"]
        finally:
            await supervisor.stop()


@asynccontextmanager
async def apart(module: str) -> AsyncIterator[Apart]:
    """Everything but the component, which finds `module` where it looks for its server."""
    async with database(shared_buffers="512MB", max_wal_size="4GB") as dsn, process_of(module) as port:
        await migrate.install(dsn("postgres"))
        with data_folder(None) as folder:
            held, http = hold(2)
            supervisor, file = Supervisor(logs=Path(folder)), folder / "convsync.toml"
            with held, http:
                values = {
                    "component": COMPONENT,
                    "secret": SECRET,
                    "port": int(await ordered(port, {"host": HOST, "component": COMPONENT})),
                    "host": HOST,
                    "dsn": dsn("postgres"),
                    "redis": valkey.url(port=number(held), password=SECRET),
                    "http": number(http),
                    "key": Fernet.generate_key().decode(),
                }
                write_private(file, CONFIGURATION.format(**values))
                part = component.component(folder, configuration=file, http_port=number(http))
                try:
                    await supervisor.start(valkey.valkey(folder / "redis", port=number(held), password=SECRET))
                    yield Apart(port, part, Path(folder), dsn("postgres"), supervisor.pids["redis"])
                finally:
                    await supervisor.stop()


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs: the stand-in for the server, the component's process, and the database."""

    port: Process
    component: int
    dsn: str


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A component that has subscribed at a port that tells nothing."""
    async with apart("bench.port") as found, found.component() as pid:
        await heard(found.port)
        yield Stage(found.port, pid, found.dsn)
