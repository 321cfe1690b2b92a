"""Keeps parts alive: starts them, waits until they answer, starts again what died, stops all in reverse order.

Decides when a part is started again (at once; more slowly while it keeps dying) and how long a stop may take. A death
is an event, not something looked for, so a restart begins within milliseconds. Every part leads its own process
group, so that Ctrl-C in a terminal reaches only the sandbox, and so that a stop reaches a part's children. Refuses to
know what the parts are and who reads their numbers.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.sandbox.launch import environment, tied, unprivileged
from sync.sandbox.parts import Part

START_SECONDS = 120.0  # a server on a machine with ten things to do
STOP_SECONDS = 5.0

# Pauses before a further start of a part that died within STABLE_SECONDS of its last one. The first restart has no
# pause, and the first few come quickly: a predecessor's socket or shared memory may need a moment to go.
PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.5)
STABLE_SECONDS = 10.0

# How often a starting part is asked whether it answers; a server's port has no event to wait for.
ASK_SECONDS = 0.02


class PartError(Exception):
    """A part did not start; the text names it and ends with its last words."""


@dataclass(slots=True)
class Child:
    """A part and the process that currently is it."""

    part: Part
    process: asyncio.subprocess.Process
    guard: asyncio.Task[None] | None = None


class Supervisor:
    """Parts by name. `changed` is called whenever a part has a new process."""

    def __init__(self, *, logs: Path, changed: Callable[[], None] = lambda: None) -> None:
        self._logs = logs
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._stopping = False

    @property
    def pids(self) -> Mapping[str, int]:
        return {name: child.process.pid for name, child in self._children.items()}

    async def start(self, part: Part) -> None:
        """Return once the part answers. Raises PartError when it ends before, or does not answer in time."""
        child = Child(part, await self._spawn(part))
        self._children[part.name] = child
        end = time.monotonic() + START_SECONDS
        while not await part.answers():
            if child.process.returncode is not None:
                raise PartError(f"{part.name} ended with status {child.process.returncode}{self.last_words(part.name)}")
            if time.monotonic() > end:
                raise PartError(f"{part.name} does not answer after {START_SECONDS:.0f} s{self.last_words(part.name)}")
            await asyncio.sleep(ASK_SECONDS)
        if child.process.returncode is not None:
            # Somebody else answers on its port.
            raise PartError(f"{part.name} ended with status {child.process.returncode}{self.last_words(part.name)}")
        child.guard = asyncio.create_task(self._keep(child), name=f"keep {part.name}")

    async def stop(self) -> None:
        """Stop what was started, last first. Nothing is left when this returns, however a part behaves."""
        self._stopping = True
        for child in reversed(self._children.values()):
            if child.guard:
                child.guard.cancel()
                await asyncio.gather(child.guard, return_exceptions=True)
            await _end(child)
        self._children.clear()

    def last_words(self, name: str) -> str:
        """The end of a part's log, to be appended to a sentence."""
        with contextlib.suppress(OSError):
            text = self._log(name).read_bytes()[-1500:].decode(errors="replace").strip()
            return f":\n{text}" if text else "."
        return "."

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    async def _spawn(self, part: Part) -> asyncio.subprocess.Process:
        if part.before:
            await part.before()
        prefix = unprivileged(Path(part.argv[0]), part.cwd) if part.unprivileged else tied()
        log = os.open(self._log(part.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *prefix,
                *part.argv,
                cwd=part.cwd,
                env=environment(part.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _keep(self, child: Child) -> None:
        deaths = 0
        started_at = time.monotonic()
        while True:
            await child.process.wait()
            if self._stopping:
                return
            deaths = 1 if time.monotonic() - started_at > STABLE_SECONDS else deaths + 1
            await asyncio.sleep(PAUSES[min(deaths, len(PAUSES)) - 1])
            _kill_group(child.process.pid)
            started_at = time.monotonic()
            try:
                child.process = await self._spawn(child.part)
            except OSError:
                continue  # counts as a death: the next try comes after a longer pause
            self._changed()


async def _end(child: Child) -> None:
    process = child.process
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(child.part.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    _kill_group(process.pid)
    if child.part.before:
        await child.part.before()


def _kill_group(leader: int) -> None:
    """What a part's process left behind in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
