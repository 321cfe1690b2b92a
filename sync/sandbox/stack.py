"""The whole stack: Postgres, Valkey, the APNs simulator, a scratch server and the component, on free loopback ports.

(1) folder, ports, accounts, configuration (2) Postgres → schema │ Valkey │ simulator │ server        side by side (3)
the component, once all of those answer (4) the ready file; written again whenever a part has a new process

Decides the order and the names in the ready file, and what is left behind: nothing, or the data folder that was asked
for. Refuses to know how any part is started.
"""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from sync.sandbox import component, identity, postgres, valkey
from sync.sandbox.ejabberd import ejabberd
from sync.sandbox.folder import DataFolderError, data_folder
from sync.sandbox.identity import Identity
from sync.sandbox.launch import LaunchError, environment, tied
from sync.sandbox.parts import Part
from sync.sandbox.ports import hold, number
from sync.sandbox.prosody import prosody
from sync.sandbox.supervisor import PartError, Supervisor

DOMAIN, COMPONENT, MUC = "localhost", "sync.localhost", "conference.localhost"
SCHEMA_SECONDS = 120.0
TITLES = {"prosody": "Prosody", "ejabberd": "ejabberd"}
SERVERS: Mapping[str, Callable[..., Part]] = {"prosody": prosody, "ejabberd": ejabberd}

FAILURES = (DataFolderError, LaunchError, PartError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`data`: kept at the end, and opened again if it exists; None: a folder of our own, removed at the end."""

    server: str = "prosody"
    accounts: int = 4
    data: Path | None = None
    ready_file: Path | None = None
    report: Callable[[str], None] = lambda _: None


Ready = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ports:
    """One for each thing that listens, in the order in which the data folder remembers them."""

    c2s: int
    component: int
    postgres: int
    redis: int
    apns: int
    apns_control: int
    http: int


@contextlib.asynccontextmanager
async def sandbox(options: Options) -> AsyncIterator[Ready]:
    """The stack while it runs; yields the content of the ready file, whose `pids` follow the restarts.

    Raises one of FAILURES when it does not come up; nothing is left running then either.
    """
    _withdraw(options.ready_file)
    with data_folder(options.data) as folder, contextlib.ExitStack() as held:
        # (1) as last time, or new
        known = identity.remember(folder / "sandbox.json", accounts=options.accounts, server=options.server)
        if known.server != options.server:
            raise DataFolderError(
                f"The data in {folder} are those of {TITLES[known.server]}: use --server {known.server}."
            )
        ports = [held.enter_context(port) for port in hold(len(fields(Ports)), known.ports)]
        known = replace(known, ports=tuple(number(port) for port in ports))
        identity.keep(folder / "sandbox.json", known)
        ready = _describe(folder, known, Ports(*known.ports))

        def changed() -> None:
            if ready["pids"]:  # not while the stack is still starting
                _publish(options.ready_file, ready, supervisor.pids)

        (folder / "logs").mkdir(exist_ok=True)
        supervisor = Supervisor(logs=folder / "logs", changed=changed)
        try:
            await _start(folder, known, Ports(*known.ports), supervisor, options.report)
            # (4) only now, and later by changed()
            _publish(options.ready_file, ready, supervisor.pids)
            yield ready
        finally:
            _withdraw(options.ready_file)
            await supervisor.stop()


async def run(options: Options) -> int:
    """Run the stack until SIGTERM, SIGINT or SIGHUP; the exit status. Further signals do not disturb the stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(name, stop.set)

    async def stay() -> None:
        async with sandbox(options) as ready:
            options.report(_how_to_connect(ready))
            await asyncio.Event().wait()

    staying, stopping = asyncio.create_task(stay()), asyncio.create_task(stop.wait())
    await asyncio.wait((staying, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        options.report("Stopping.")
        staying.cancel()
    try:
        await staying
    except asyncio.CancelledError:
        return 0
    except FAILURES as error:
        options.report(str(error))
        return 1
    return 0


async def _start(
    folder: Path, known: Identity, ports: Ports, supervisor: Supervisor, report: Callable[[str], None]
) -> None:
    configuration, apns_folder = folder / "convsync.toml", folder / "apns"
    apns_folder.mkdir(mode=0o700, exist_ok=True)
    private_key, public_key = component.provider_key(apns_folder)
    component.configure(
        configuration,
        jid=COMPONENT,
        secret=known.component_secret,
        component_port=ports.component,
        host=DOMAIN,
        muc_host=MUC,
        postgres=postgres.dsn(port=ports.postgres, password=known.postgres_password),
        redis=valkey.url(port=ports.redis, password=known.redis_password),
        http_port=ports.http,
        sealing_key=known.sealing_key,
        key_file=private_key,
        apns_port=ports.apns,
        ca_file=apns_folder / "ca.pem",
    )

    async def timed(what: str, work: Coroutine[Any, Any, None]) -> None:
        began = time.monotonic()
        await work
        report(f"  {what:<28} {time.monotonic() - began:4.1f} s")

    async def database() -> None:
        data = folder / "postgres"
        await _to_its_end(asyncio.to_thread(postgres.create, data, password=known.postgres_password))
        await supervisor.start(postgres.postgres(data, port=ports.postgres, password=known.postgres_password))
        await _install_schema(folder, configuration)

    redis = valkey.valkey(folder / "redis", port=ports.redis, password=known.redis_password)
    apns = component.apns(apns_folder, port=ports.apns, control_port=ports.apns_control, public_key=public_key)

    try:
        # (2) side by side: none needs another
        async with asyncio.TaskGroup() as group:
            group.create_task(timed("Postgres, with its schema", database()))
            group.create_task(timed("Valkey", supervisor.start(redis)))
            group.create_task(timed("APNs simulator", supervisor.start(apns)))
            group.create_task(timed(TITLES[known.server], _start_server(folder, known, ports, supervisor)))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    # (3) needs all of them
    itself = component.component(folder, configuration=configuration, http_port=ports.http)
    await timed("Convsync", supervisor.start(itself))


async def _start_server(folder: Path, known: Identity, ports: Ports, supervisor: Supervisor) -> None:
    made = asyncio.to_thread(
        SERVERS[known.server],
        folder / known.server,
        domain=DOMAIN,
        accounts=list(known.accounts.items()),
        c2s_port=ports.c2s,
        component_port=ports.component,
        component_secret=known.component_secret,
        module_path=_modules(known.server),
    )
    await supervisor.start(await _to_its_end(made))


async def _install_schema(folder: Path, configuration: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*tied(), *component.PYTHON, "sync", "schema", "--config", str(configuration)),
        cwd=folder,
        env=environment({}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SCHEMA_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        raise PartError(f"The schema was not installed within {SCHEMA_SECONDS:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise PartError(f"The schema could not be installed:\n{said.decode(errors='replace').strip()[-1500:]}")


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be left half done: it is finished even if we are told to stop meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _modules(server: str) -> Path:
    """The folder with the server's feed module: in the installed package, or in the checkout."""
    packaged = Path(__file__).parent / "deploy" / server
    return packaged if packaged.exists() else Path(__file__).parents[2] / "deploy" / server


def _describe(folder: Path, known: Identity, ports: Ports) -> Ready:
    """The ready file's content, before there are processes."""
    return {
        "server": known.server,
        "domain": DOMAIN,
        "c2s": {"host": "127.0.0.1", "port": ports.c2s, "tls": False},
        "component": COMPONENT,
        "muc": MUC,
        "accounts": [{"jid": f"{user}@{DOMAIN}", "password": password} for user, password in known.accounts.items()],
        "apns": {
            "url": f"https://127.0.0.1:{ports.apns}",
            "control": f"http://127.0.0.1:{ports.apns_control}",
            "log": str(folder / "apns" / "apns.jsonl"),
            "app": component.APP,
        },
        "http": {
            "base": f"http://127.0.0.1:{ports.http}",
            "metrics": "/metrics",
            "live": "/live",
            "ready": "/ready",
        },
        "postgres": postgres.dsn(port=ports.postgres, password=known.postgres_password),
        "redis": valkey.url(port=ports.redis, password=known.redis_password),
        "pids": {},
    }


def _publish(file: Path | None, ready: Ready, pids: Mapping[str, int]) -> None:
    ready["pids"] = dict(pids)
    if file:
        identity.write_private(file, json.dumps(ready, indent=1) + "\n")


def _withdraw(file: Path | None) -> None:
    if file:
        file.unlink(missing_ok=True)


def _how_to_connect(ready: Ready) -> str:
    first, second = ready["accounts"][:2]
    return f"""
The sandbox runs. Log in with any XMPP client at {ready["c2s"]["host"]} port {ready["c2s"]["port"]}, without encryption:
  {first["jid"]:<20} password {first["password"]}
  {second["jid"]:<20} password {second["password"]}
Pushes are written to {ready["apns"]["log"]}
Health and metrics:   {ready["http"]["base"]}/ready  {ready["http"]["base"]}/metrics
Ctrl-C stops everything."""
