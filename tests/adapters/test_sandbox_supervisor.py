"""The supervisor with parts of one line each."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sync.sandbox import supervisor as module
from sync.sandbox.parts import Part
from sync.sandbox.supervisor import PartError, Supervisor
from tests.adapters.processes import gone

SLEEP = "import time; time.sleep(600)"
# Says that it is there only once it no longer listens to SIGTERM.
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); open('up', 'w'); time.sleep(600)"
PARENT = (
    f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); "
    "open('child.new', 'w').write(str(child.pid)); import os; os.rename('child.new', 'child'); time.sleep(600)"
)


def part(folder: Path, code: str, *, name: str = "one", up: Path | None = None) -> Part:
    async def answers() -> bool:
        return up is None or os.access(up, os.F_OK)

    return Part(name=name, argv=(sys.executable, "-c", code), cwd=folder, answers=answers)


class Restarts:
    """Counts, and can be waited for."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[None] = asyncio.Queue()

    def __call__(self) -> None:
        self.seen.put_nowait(None)

    async def next(self) -> None:
        async with asyncio.timeout(60):
            await self.seen.get()


@pytest.fixture
def restarts() -> Restarts:
    return Restarts()


@pytest_asyncio.fixture
async def supervised(tmp_path: Path, restarts: Restarts) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(logs=tmp_path, changed=restarts)
    yield supervisor
    await supervisor.stop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the supervisor has waited before each start; nobody waits for it here."""
    waited: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds != module.ASK_SECONDS:
            waited.append(seconds)
            seconds = 0.0
        await real(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return waited


async def test_a_killed_part_is_back_at_once_as_another_process(
    supervised: Supervisor, restarts: Restarts, pauses: list[float], tmp_path: Path
) -> None:
    await supervised.start(part(tmp_path, SLEEP))
    first = supervised.pids["one"]
    os.kill(first, signal.SIGKILL)
    await restarts.next()
    assert supervised.pids["one"] != first
    assert pauses == [0.0]


async def test_a_part_that_keeps_dying_is_started_more_and_more_slowly(
    supervised: Supervisor, restarts: Restarts, pauses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STABLE_SECONDS", 3600.0)
    await supervised.start(part(tmp_path, SLEEP))
    for _ in range(len(module.PAUSES) + 1):
        os.kill(supervised.pids["one"], signal.SIGKILL)
        await restarts.next()
    assert pauses == [*module.PAUSES, module.PAUSES[-1]]
    assert sorted(set(pauses)) == pauses[:-1]
    assert pauses[-1] < 2


async def test_a_part_that_was_well_for_a_while_is_back_at_once(
    supervised: Supervisor, restarts: Restarts, pauses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STABLE_SECONDS", 0.0)
    await supervised.start(part(tmp_path, SLEEP))
    for _ in range(3):
        os.kill(supervised.pids["one"], signal.SIGKILL)
        await restarts.next()
    assert pauses == [0.0] * 3


async def test_a_part_that_ends_at_once_is_named_with_its_last_words(supervised: Supervisor, tmp_path: Path) -> None:
    never = tmp_path / "never"
    with pytest.raises(PartError, match=r"one ended with status 1(?s:.)*no licence to run"):
        await supervised.start(part(tmp_path, "raise SystemExit('no licence to run')", up=never))


async def test_what_does_not_answer_in_time_is_an_error(
    supervised: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.1)
    with pytest.raises(PartError, match="one does not answer"):
        await supervised.start(part(tmp_path, SLEEP, up=tmp_path / "never"))


async def test_a_stop_ends_even_what_ignores_it(
    supervised: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    await supervised.start(part(tmp_path, STUBBORN, up=tmp_path / "up"))
    pid = supervised.pids["one"]
    await supervised.stop()
    await gone(pid)


async def test_a_stop_also_ends_children_and_starts_nothing_again(
    supervised: Supervisor, restarts: Restarts, tmp_path: Path
) -> None:
    await supervised.start(part(tmp_path, PARENT, up=tmp_path / "child"))
    child = int((tmp_path / "child").read_text())
    await supervised.stop()
    await gone(child)
    assert restarts.seen.empty()
    assert not supervised.pids


async def test_stopping_goes_backwards(supervised: Supervisor, tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(15, lambda *_: (open('ends', 'a').write('{0} '), sys.exit(0))); "
    for name in ("first", "second", "third"):
        up = tmp_path / f"{name}.up"
        await supervised.start(
            part(tmp_path, code.format(name) + f"open('{up.name}', 'w'); time.sleep(600)", name=name, up=up)
        )
    await supervised.stop()
    assert (tmp_path / "ends").read_text().split() == ["third", "second", "first"]
