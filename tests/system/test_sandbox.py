"""`convsync sandbox` as a user runs it: the ready file, kills, Ctrl-C, several at once."""

import asyncio
import json
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sync.sandbox import stack
from sync.sandbox.cli import sandbox
from sync.sandbox.folder import DataFolderError
from tests.adapters.processes import REPOSITORY, WHO, gone, listens, modes, python

PARTS = {"server", "component", "postgres", "redis", "apns"}
SERVERS = ("prosody", "ejabberd")
COMMAND = ("-m", "sync", "sandbox")
SECONDS = 60  # for what must come, however busy the machine is

Ready = dict[str, Any]


def read(file: Path) -> Ready | None:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    assert isinstance(found, dict)
    return found


class Box:
    """A sandbox that a test started."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self.process, self.file = process, file

    async def ready(self, when: Callable[[Ready], bool] = lambda _: True, seconds: float = 150) -> Ready:
        """The ready file's content, once it is as wanted. Another process writes it, so there is nothing to wait on."""
        async with asyncio.timeout(seconds):
            while True:
                assert self.process.returncode is None, "the sandbox ended"
                if (found := read(self.file)) and when(found):
                    return found
                await asyncio.sleep(0.02)


def ports(ready: Ready) -> set[int]:
    return {ready["c2s"]["port"]} | {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", json.dumps(ready))}


async def listening(ready: Ready) -> None:
    """Until somebody does on every port."""
    async with asyncio.timeout(SECONDS):
        while not all(listens(port) for port in ports(ready)):  # noqa: ASYNC110 - no event for a port
            await asyncio.sleep(0.02)


@asynccontextmanager
async def started(folder: Path, who: str = WHO[0], server: str = SERVERS[0]) -> AsyncIterator[Box]:
    os.makedirs(folder, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(*python(who, folder), *COMMAND, "--server", server),
        *("--data", str(folder / "data"), "--ready-file", str(folder / "ready.json")),
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        yield Box(process, folder / "ready.json")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that whoever it is given to can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def nobody_left(folder: Path) -> None:
    """Until no process has the folder in its environment: also what a server had started by itself."""
    needle = os.fsencode(folder) + b"/"

    def left() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if needle in (process / "environ").read_bytes() and process.name != str(os.getpid()):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found

    async with asyncio.timeout(SECONDS):
        while left():  # noqa: ASYNC110 - another's processes: no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("who", WHO)
async def test_sigterm_leaves_no_process_no_port_no_opened_folder(who: str, name: str, place: Path) -> None:
    async with started(place, who, name) as box:
        before = modes(place)
        ready = await box.ready()
        assert ready["server"] == name
        assert set(ready["pids"]) == PARTS
        assert [account["jid"] for account in ready["accounts"]] == [
            f"{name}@localhost" for name in ("alice", "bob", "carol", "dave")
        ]
        assert all(listens(port) for port in ports(ready))
        box.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await box.process.wait() == 0
        for pid in ready["pids"].values():
            await gone(pid)
        await nobody_left(place)
        assert not any(listens(port) for port in ports(ready))
        assert not box.file.exists()
        assert modes(place) == before


@pytest.mark.parametrize(("name", "parts"), [(SERVERS[0], PARTS), (SERVERS[1], {"server"})], ids=SERVERS)
async def test_a_killed_part_is_back_on_its_port_after_one_start(name: str, parts: set[str], tmp_path: Path) -> None:
    """How many seconds that is on a machine with nothing else to do is measured by `python -m bench restart`."""
    async with started(tmp_path / "box", server=name) as box:
        first = await box.ready()
        pids = first["pids"]
        for part in sorted(parts):
            os.kill(pids[part], signal.SIGKILL)
            ready = await box.ready(lambda found, killed=pids[part], part=part: found["pids"][part] != killed)  # type: ignore[misc]
            await listening(ready)
            # Its first successor is the one that listens, and no other part has gone with it.
            assert read(box.file) == ready == {**first, "pids": {**pids, part: ready["pids"][part]}}, part
            pids = ready["pids"]


@pytest.mark.parametrize("name", SERVERS)
async def test_a_killed_sandbox_leaves_no_orphans(name: str, tmp_path: Path) -> None:
    async with started(tmp_path / "box", server=name) as box:
        ready = await box.ready()
        box.process.send_signal(signal.SIGKILL)
        for pid in ready["pids"].values():
            await gone(pid)
    await nobody_left(tmp_path)


@pytest.mark.parametrize("name", SERVERS)
async def test_data_and_ports_of_last_time_are_used_again(name: str, tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        async with started(tmp_path / "box", server=name) as box:
            seen.append({**await box.ready(), "pids": None})
    assert seen[0] == seen[1]


async def test_several_run_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        boxes = [await stack.enter_async_context(started(tmp_path / name)) for name in ("one", "other")]
        one, other = [await box.ready() for box in boxes]
        assert not ports(one) & ports(other)


def test_a_server_that_there_is_not_is_refused() -> None:
    result = CliRunner().invoke(sandbox, ["--server", "openfire"])
    assert result.exit_code == 2
    assert "'openfire' is not one of 'prosody', 'ejabberd'" in result.output


async def test_data_of_another_server_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sandbox.json").write_text(json.dumps({"server": "ejabberd"}))
    with pytest.raises(DataFolderError, match="those of ejabberd: use --server ejabberd"):
        async with stack.sandbox(stack.Options(data=tmp_path)):
            pass
    assert os.listdir(tmp_path) == ["sandbox.json"]
