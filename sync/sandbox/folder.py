"""The data folder of one sandbox.

Decides where it is, that two sandboxes never share one (the folder itself is locked, so a killed sandbox leaves no
lock), and whether it is kept: one that was asked for is, one of our own is removed. Refuses to know what is in it.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MOST = 1000


class DataFolderError(Exception):
    """No usable data folder; the text says why."""


@contextlib.contextmanager
def data_folder(wanted: Path | None) -> Iterator[Path]:
    """`wanted`, kept afterwards; or the first free `.data/sandbox-<n>` below the project, removed afterwards."""
    if wanted:
        folder = wanted.resolve()
        try:
            lock = _lock(folder)
        except OSError as error:
            raise DataFolderError(f"Cannot use {folder}: {error.strerror}.") from error
        if lock is None:
            raise DataFolderError(f"Another sandbox uses {folder}.")
        with lock:
            yield folder
        return
    folder, lock = _first_free(_project() / ".data")
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _project() -> Path:
    """The checkout that we run from; for an installed package, the current folder."""
    checkout = Path(__file__).parents[2]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def _first_free(home: Path) -> tuple[Path, contextlib.ExitStack]:
    for n in range(1, MOST):
        folder = home / f"sandbox-{n}"
        try:
            if lock := _lock(folder):
                # What a killed sandbox left here, for nobody to use.
                for entry in folder.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                return folder, lock
        except OSError as error:
            if not home.exists():
                raise DataFolderError(f"Cannot write to {home}: {error.strerror}. Use --data DIR.") from error
    raise DataFolderError(f"Cannot make a folder in {home}. Use --data DIR.")


def _lock(folder: Path) -> contextlib.ExitStack | None:
    """Make the folder and lock it; None while another sandbox has it. Leave the context to unlock."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as undo:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        undo.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(folder).st_ino != os.fstat(handle).st_ino:
                return None  # removed and made again meanwhile
        except (BlockingIOError, FileNotFoundError):
            return None
        return undo.pop_all()
