"""How a part's process is started: with whose rights, in which environment, and whose death ends it.

Decides the command line in front of a part's own. Every part dies with the process that started it
(PR_SET_PDEATHSIG), so that even a killed sandbox leaves nothing behind. Postgres refuses root: started by root, such
a part runs as the owner of its data folder, or as `nobody`, and keeps one right of root's, to walk through
directories. So a checkout below a closed home directory works, and no directory's mode is changed. Where that right
cannot be given, a user namespace does. Refuses to know what the parts are.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

NOBODY = 65534

# Rights to walk through closed directories: the narrow one first; containers often have only the wide one.
WALKING_RIGHTS = ("dac_read_search", "dac_override")


class LaunchError(Exception):
    """A part cannot be started on this machine; the text says what to do about it."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a part: ours without what was meant for other Postgres servers and other configurations."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "CONVSYNC_"))}
    return inherited | dict(extra)


def tied() -> tuple[str, ...]:
    """The prefix that makes a process end with its starter. Empty without util-linux: a clean stop still stops all."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def unprivileged(program: Path, folder: Path) -> tuple[str, ...]:
    """The prefix for a program that refuses root and owns `folder`. For an ordinary user the same as `tied`."""
    if os.geteuid() != 0:
        return tied()
    owner = folder.stat()
    return _descent(program, owner.st_uid, owner.st_gid) if owner.st_uid else _descent(program, NOBODY, NOBODY)


@cache
def _descent(program: Path, user: int, group: int) -> tuple[str, ...]:
    """The first way down from root on this machine that can execute `program`."""
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    ways: list[tuple[str, ...]] = []
    if setpriv:
        change = (setpriv, "--reuid", str(user), "--regid", str(group), "--clear-groups", "--no-new-privs")
        # Without the securebit access(2) forgets these rights for everybody but root, and initdb asks it.
        kept = [
            ("--inh-caps", f"+{right}", "--ambient-caps", f"+{right}", "--securebits", "+no_setuid_fixup")
            for right in WALKING_RIGHTS
        ]
        ways += [(*change, *rights, "--pdeathsig", "KILL", "--") for rights in (*kept, ())]
    if unshare:
        # Root outside, somebody else inside: files stay root's. `give` does not hand them away in this case.
        ways.append((unshare, "--user", f"--map-user={user}", f"--map-group={group}", *tied()))
    for way in ways:
        if _works(way, program):
            return way
    raise LaunchError(
        "Postgres refuses to run as root, and neither setpriv nor unshare (package util-linux) can start it "
        "as somebody else here; run this as an ordinary user."
    )


def _works(way: tuple[str, ...], program: Path) -> bool:
    """True where the program runs, and where it would be told so by access(2)."""
    return all(
        subprocess.run([*way, *probe], capture_output=True, timeout=10, check=False).returncode == 0  # noqa: S603
        for probe in ((str(program), "--version"), ("test", "-x", str(program)))
    )


def give(folder: Path, program: Path) -> None:
    """Make a new, closed folder that the unprivileged process of `program` owns."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0 or folder.stat().st_uid != 0:
        return
    if "--reuid" in _descent(program, NOBODY, NOBODY):
        os.chown(folder, NOBODY, NOBODY)
