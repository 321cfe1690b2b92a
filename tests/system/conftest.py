"""One whole sandbox for each worker and server, as a process of its own; parts of it may be killed. Every test takes
new accounts.

A test that asks for `box` runs once for each server. `one_server` is for what does not depend on the server: Prosody's
only. `without(server, why)` is for what a server cannot do.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.box import Box, boxed

ACCOUNTS = 1000
SERVERS = ("prosody", "ejabberd")
SECONDS = 600  # a test that hangs; the start of its sandbox may take two minutes where everything else goes on


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each server in turn; pytest brings together what runs on the same, so a worker has one sandbox at a time."""
    if "server" in metafunc.fixturenames:
        metafunc.parametrize("server", SERVERS, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gone = [
        item for item in items if server_of(item) not in (None, SERVERS[0]) and item.get_closest_marker("one_server")
    ]
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=gone)
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))
        for marker in item.iter_markers("without"):
            server, why = marker.args
            if server_of(item) == server:
                item.add_marker(pytest.mark.skip(reason=f"{server}: {why}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What failed may not come again: the report says what the component complained of."""
    report = yield
    box = getattr(item, "funcargs", {}).get("box")
    if report.failed and isinstance(box, Box):
        report.sections.append(("The component's complaints", box.complaints()))
    return report


def server_of(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    return call.params.get("server") if call else None


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> str:
    """The XMPP server of the sandbox."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker_box(server: str) -> AsyncIterator[Box]:
    folder = Path(tempfile.mkdtemp(prefix="convsync-box-"))
    os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
    try:
        async with boxed(folder, ACCOUNTS, server) as box:
            yield box
    finally:
        shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="session")
async def box(worker_box: Box) -> AsyncIterator[Box]:
    """The worker's sandbox, whole, with nobody of an earlier test online."""
    await worker_box.whole()
    yield worker_box
    await worker_box.everybody_leaves()
