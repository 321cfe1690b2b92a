"""How far the archive of an account, or of a room of this server, has become state: one row for each.

A row is made together with its account or room, so `since` is the first contact: what is archived up to there was said
before anybody here could count it. The row of a host (a name without `@`) stands for the list of the host's accounts.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BootstrapState(StrEnum):
    """Whether there is anything left to do."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """One archive's row.

    `since`, `start` and `rank` are microseconds since the epoch: the first contact; from which archive time on to read
    (0 = as far back as configured); the rank of the newest item that was taken. `after`: the archive id of that item.
    `turn` counts how often it was asked for: what was read for an earlier turn moves no cursor. `seen` items were read
    since `start`, `restored` messages were new in all. `why`: of a failure, in a fixed word or condition.
    """

    account: str
    since: int
    due_at: datetime
    state: BootstrapState = BootstrapState.WAITING
    start: int = 0
    after: str | None = None
    rank: int = 0
    seen: int = 0
    restored: int = 0
    turn: int = 1
    attempts: int = 0
    why: str | None = None
