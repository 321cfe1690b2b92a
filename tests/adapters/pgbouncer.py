"""A real PgBouncer in transaction mode before a test's Postgres: `scripts/setup --tests` sees that it is installed.

Few sessions for many clients, so that a statement that counts on "its" session finds another one soon.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sync.sandbox import launch
from sync.sandbox.parts import Part
from sync.sandbox.postgres import USER
from sync.sandbox.probes import accepts
from tests.conftest import running, up
from tests.ports import free_port

SESSIONS = 3

SETTINGS = """\
[databases]
* = host=127.0.0.1 port={postgres}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
"""


def binary() -> str:
    """Raises LaunchError."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise launch.LaunchError("PgBouncer is missing: run `apt-get install pgbouncer` as root.")
    return found


def pgbouncer(folder: Path, *, port: int, postgres: int, password: str) -> Part:
    """Its settings are written into `folder`, which is made."""
    program = Path(binary())
    launch.give(folder, program)
    owner = folder.stat()
    for name, text in (
        ("users", f'"{USER}" "{password}"\n'),
        ("pgbouncer.ini", SETTINGS.format(port=port, postgres=postgres, folder=folder, sessions=SESSIONS)),
    ):
        (folder / name).write_text(text)
        os.chown(folder / name, owner.st_uid, owner.st_gid)
    return Part(
        name="pgbouncer",
        argv=(str(program), str(folder / "pgbouncer.ini")),
        cwd=folder,
        answers=lambda: accepts(port),
        unprivileged=True,
    )


@asynccontextmanager
async def bouncing(*, postgres: int, password: str) -> AsyncIterator[int]:
    """Its port, while it runs before the server on that port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="convsync-pgbouncer-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - it runs as somebody else
        part = pgbouncer(Path(folder) / "data", port=port, postgres=postgres, password=password)
        with running(part):
            await up(part)
            yield port
