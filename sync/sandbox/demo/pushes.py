"""What the APNs simulator answered, read from its log as it is written.

The phone of the demo is woken by this and nothing else, as a real one is by Apple. Latencies do not depend on how often
the log is looked at: the simulator writes down when it answered.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sync.sandbox.demo.story import StepFailed

LOOK_SECONDS = 0.002  # another process writes the log: there is no event to wait for
LOOK_IDLY_SECONDS = 0.1
PATIENCE_SECONDS = 30.0  # it takes milliseconds; a machine with much else to do is no failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One request that was answered; `at` in epoch seconds. `news` is the app's own part of the payload."""

    at: float
    status: int
    token: str
    push_type: str
    priority: int
    payload: Mapping[str, Any]

    @property
    def news(self) -> Mapping[str, Any]:
        found = self.payload.get("x")
        return found if isinstance(found, dict) else {}

    @property
    def kind(self) -> str:
        return str(self.news.get("k", ""))


class Pushes:
    """The log, read onwards from `mark`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self.mark()

    def mark(self) -> None:
        """Forget what came before now."""
        self._offset = self._log.stat().st_size if self._log.exists() else 0

    def rest(self) -> list[Push]:
        """What came since the last push that was read."""
        found: list[Push] = []
        while (line := self._line()) is not None:
            found.append(_push(json.loads(line)))
        return found

    async def next(self, token: str, kind: str, *, seconds: float = PATIENCE_SECONDS) -> Push:
        """The next push of this kind for this token; others are passed over. Raises StepFailed."""
        seen: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                async for push in self.follow(LOOK_SECONDS):
                    if push.token == token and push.kind == kind:
                        return push
                    seen.append(f"{push.push_type}/{push.kind}")
        except TimeoutError:
            pass
        others = f"; there were {', '.join(seen)}" if seen else ""
        raise StepFailed(f"No push of the kind “{kind}” came within {seconds:g} s{others}.")

    async def follow(self, look_seconds: float = LOOK_IDLY_SECONDS) -> AsyncIterator[Push]:
        """Every push from here on, as it comes."""
        while True:
            line = self._line()
            if line is None:
                await asyncio.sleep(look_seconds)
            else:
                yield _push(json.loads(line))

    def _line(self) -> bytes | None:
        """The next line, once it is whole."""
        if not self._log.exists():
            return None
        with self._log.open("rb") as log:
            log.seek(self._offset)
            line = log.readline()
        if not line.endswith(b"\n"):
            return None
        self._offset += len(line)
        return line


def _push(line: Mapping[str, Any]) -> Push:
    payload = line["payload"]
    return Push(
        at=line["t"],
        status=line["status"],
        token=line["token"],
        push_type=str(line["push_type"]),
        priority=int(line["priority"] or 0),
        payload=payload if isinstance(payload, dict) else {},
    )
