"""One whole sandbox for each worker, as a process of its own; parts of it may be killed. Every test takes new
accounts.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.system.box import Box, boxed

ACCOUNTS = 1000


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker_box() -> AsyncIterator[Box]:
    folder = Path(tempfile.mkdtemp(prefix="convsync-box-"))
    os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
    try:
        async with boxed(folder, ACCOUNTS) as box:
            yield box
    finally:
        shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="session")
async def box(worker_box: Box) -> AsyncIterator[Box]:
    """The worker's sandbox, whole, with nobody of an earlier test online."""
    await worker_box.whole()
    yield worker_box
    await worker_box.everybody_leaves()
