"""The load process, from outside: start it, let it go, stop it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sync.sandbox.stack import Ready

PEOPLE = 20  # ten who write, ten who are written to


class Crowd:
    """People of the sandbox who write to each other, or did."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.result: dict[str, Any] = {}

    def finish(self, *, now: bool) -> dict[str, Any]:
        """What was sent and received; `now`: stop them first."""
        if not self.result:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            if now:
                self._process.stdin.close()
            self.result = json.loads(self._process.stdout.readline())
        return self.result


@contextmanager
def crowd(ready: Ready, *, rate: int, messages: int | None = None) -> Iterator[Crowd]:
    """They write from here on, at `rate` messages a second."""
    people = accounts(ready)[-PEOPLE:]
    config = {
        "host": ready["c2s"]["host"],
        "port": ready["c2s"]["port"],
        "rate": rate,
        "messages": messages,
        "senders": people[: PEOPLE // 2],
        "receivers": people[PEOPLE // 2 :],
    }
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(config) + "\n")
            process.stdin.flush()
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("the load did not log in")
            process.stdin.write("go\n")
            process.stdin.flush()
            yield Crowd(process)
        finally:
            process.kill()


def accounts(ready: Ready) -> Sequence[tuple[str, str]]:
    """JIDs and passwords."""
    return [(one["jid"], one["password"]) for one in ready["accounts"]]
