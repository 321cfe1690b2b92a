"""`convsync demo` as CI runs it, and the story's own rules."""

import asyncio
import json
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sync.sandbox.demo.pushes import Pushes
from sync.sandbox.demo.screen import Screen
from sync.sandbox.demo.story import Scene, StepFailed, check, tell
from tests.adapters.processes import REPOSITORY, WHO, gone, python

SECONDS = 280  # all of it; it takes twenty on an idle machine
TITLES = (
    "Bob sets up his phone and puts it away",
    "Alice writes",
    "Alice corrects what she wrote",
    "Alice takes it back",
    "Alice calls, and hangs up",
    "Alice calls, and twenty messages follow",
    "Alice calls, and Bob answers on his laptop",
    "Alice writes, and Bob reads it on his laptop",
    "Alice makes a group and mentions Bob, who was never in it",
    "Alice reacts and corrects, and nothing new is unread",
)


def children(pid: int) -> set[tuple[int, str]]:
    """The processes that a process has started and that run, and when each began."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it may be ending
            found |= set(map(int, task.read_text().split()))
    return {(child, born) for child in found if (born := began(child))}


def began(pid: int) -> str:
    """When a process did, in the kernel's measure; "" where there is none. The next one of its number began later."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that whoever it is given to can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@asynccontextmanager
async def started(place: Path, who: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo, its standard output and standard error in one pipe."""
    process = await asyncio.create_subprocess_exec(
        *(*python(who, place), "-m", "sync", "demo", *options),
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(place)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def logs(place: Path) -> str:
    """What the component had to say, for the report of a story that failed: it may not fail again."""
    file = place / "data" / "logs" / "component.log"
    return file.read_text(errors="replace") if file.exists() else ""


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout
    while line := await process.stdout.readline():
        yield line.decode().rstrip("\n")


@pytest.mark.parametrize("who", WHO)
async def test_without_a_terminal_it_tells_the_story_and_leaves_nothing_running(who: str, place: Path) -> None:
    parts: set[tuple[int, str]] = set()
    said: list[str] = []
    async with started(place, who, "--data", str(place / "data")) as process, asyncio.timeout(SECONDS):
        async for line in lines(process):
            said.append(line)
            parts |= children(process.pid)
        assert await process.wait() == 0, "\n".join((*said, logs(place)))
    titles = [line for line in said if re.match(r"\d+\. ", line)]
    assert titles == [f"{n}. {title}" for n, title in enumerate(TITLES, start=1)]
    assert not [line for line in said if "\x1b" in line or "Traceback" in line or "Task was" in line]
    assert len(parts) >= 5
    for pid, when in parts:
        if began(pid) == when:
            await gone(pid)


async def test_ctrl_c_after_the_story_ends_it_well_and_its_own_folder_is_gone(place: Path) -> None:
    mark: Path | None = None
    async with started(place, WHO[0], "--stay") as process, asyncio.timeout(SECONDS):
        async for line in lines(process):
            if line.startswith("Pushes "):
                # Another sandbox may take the folder's name at once; it would not have this file.
                mark = Path(line.removeprefix("Pushes ").strip()).parents[1] / "mark"
                mark.touch()
            if line.startswith("Ctrl-C"):
                process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert mark
    assert not mark.exists()


async def test_ctrl_c_before_the_end_is_an_interruption(place: Path) -> None:
    async with started(place, WHO[0]) as process, asyncio.timeout(SECONDS):
        async for line in lines(process):
            if line.startswith("2. "):
                process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def played(*scenes: Scene, seconds: float = 5) -> tuple[bool, str]:
    """Whether the story held, and what was shown."""
    shown = StringIO()
    held = await tell(scenes, Screen(Console(file=shown, width=100)), seconds=seconds)
    return held, shown.getvalue()


async def well() -> None:
    """Nothing to complain about."""


async def badly() -> None:
    check(False, "The phone slept on.")


async def by_mistake() -> None:
    raise ZeroDivisionError("division by zero")


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_story_that_holds_is_told_to_its_end() -> None:
    assert await played(Scene(title="One", play=well), Scene(title="Two", play=well)) == (True, "\n1. One\n\n2. Two\n")


@pytest.mark.parametrize(
    ("play", "why"),
    [(badly, "The phone slept on."), (by_mistake, "ZeroDivisionError: division by zero"), (never, "within 0.1 s")],
)
async def test_a_step_that_fails_ends_the_story_and_is_named(play, why: str) -> None:  # type: ignore[no-untyped-def]
    scenes = Scene(title="One", play=well), Scene(title="Two", play=play), Scene(title="Three", play=well)
    held, shown = await played(*scenes, seconds=0.1)
    assert not held
    assert "Failed at “Two”: " in shown
    assert why in shown
    assert "Three" not in shown


def pushed(log: Path, *kinds: str) -> None:
    """The simulator has answered pushes of these kinds."""
    with log.open("a", encoding="utf-8") as lines_:
        for kind in kinds:
            payload = {"x": {"k": kind}}
            one = {"t": 0.0, "status": 200, "token": "a1", "push_type": "alert", "priority": "10", "payload": payload}
            lines_.write(json.dumps(one) + "\n")


async def test_a_push_after_the_one_that_was_told_is_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sync.sandbox.demo import stage  # noqa: PLC0415

    monkeypatch.setattr(stage, "PAUSE_SECONDS", 0)
    log = tmp_path / "apns.jsonl"
    pushes = Pushes(log)
    told: Any = SimpleNamespace(pushes=pushes)
    pushed(log, "message")
    await pushes.next("a1", "message")
    await stage.Stage.silence(told)
    pushed(log, "message", "read")
    with pytest.raises(StepFailed, match=r"too many: message, read\."):
        await stage.Stage.silence(told)
    await stage.Stage.silence(told)


async def test_a_story_that_failed_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sync.sandbox.demo import command, scenes  # noqa: PLC0415

    monkeypatch.setattr(scenes, "scenes", lambda _: [Scene(title="Two", play=badly)])
    assert await command.run(stay=False, data=tmp_path / "data") == 1
