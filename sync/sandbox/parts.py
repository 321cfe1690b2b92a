"""One process of the sandbox: how it is started, how it is known to answer, how it is told to stop."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process that the supervisor keeps alive.

    `name` is its key among the ready file's `pids`: server, component, postgres, redis, apns. `answers` is asked
    repeatedly and must return True once the part serves requests, and return (never hang) within about a second.
    `env` is added to the supervisor's own environment. `unprivileged`: it refuses root, and is then started as
    somebody else. `before` is awaited before every start, also before a restart: it clears away what a killed
    predecessor left.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    answers: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: Signals = SIGTERM
    unprivileged: bool = False
    before: Callable[[], Awaitable[None]] | None = None
