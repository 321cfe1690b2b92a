"""The simulator's log: one JSON line for each request that was answered, on disk before the answer leaves.

It holds device tokens, because tests look for them: it is made for a sandbox, where tokens are made up. It decides
nothing.
"""

import json
import os
from pathlib import Path

from sync.sandbox.apns.rules import Push


class Journal:
    """Appends to `path`, which may have lines of an earlier run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered and O_APPEND: a line is there when `answered` returns, and truncating does not leave a hole.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def answered(self, push: Push, apns_id: str, *, at: float, status: int, reason: str | None) -> None:
        """One answered request; `at` in epoch seconds. Header values that are no numbers are logged as they came."""
        line = {
            "t": at,
            "status": status,
            "reason": reason,
            "token": push.token,
            "topic": push.topic,
            "push_type": push.push_type,
            "priority": _number(push.priority),
            "expiration": _number(push.expiration),
            "collapse_id": push.collapse_id,
            "apns_id": apns_id,
            "payload": push.payload,
        }
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def lines(self) -> list[object]:
        """Every line, oldest first."""
        return [json.loads(line) for line in self._path.read_bytes().splitlines()]

    def clear(self) -> None:
        """Forget every line."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Nothing more will be answered."""
        os.close(self._file)


def _number(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 19 else value
