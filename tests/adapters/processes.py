"""Waiting for processes by their own signals, and being somebody else."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534

# Run as root, every test of the sandbox also runs as an ordinary user; that user may read the checkout wherever it is.
WHO = ("root", "ordinary") if os.geteuid() == 0 else ("ordinary",)


def python(who: str, folder: Path) -> list[str]:
    """The command line of this Python as `who`, to whom `folder` is given."""
    if who == "root" or os.geteuid() != 0:
        return [sys.executable]
    os.chown(folder, NOBODY, NOBODY)
    setpriv = shutil.which("setpriv") or "setpriv"
    right = "+dac_read_search"
    return [
        *(setpriv, "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
        *("--inh-caps", right, "--ambient-caps", right, "--securebits", "+no_setuid_fixup", "--", sys.executable),
    ]


async def gone(pid: int, seconds: float = 30.0) -> None:
    """Return when the process has ended, or fail."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of a folder and of all folders above it."""
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.parents)}


def listens(port: int) -> bool:
    needle = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1] == needle and row[3] == "0A" for row in rows)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
