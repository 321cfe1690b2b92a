"""One session that gets live notices, and how far it was told."""

from dataclasses import dataclass
from typing import Final

from sync.ports import Watcher

NEVER: Final = 2**63


@dataclass(slots=True, eq=False)
class Watch:
    """A session that is told. It has everything up to `told`. Change logs are told since `log`, which stays behind
    while the session reads a list (`DeltaToken.log`): until it was told of `settles`. `waits`: nothing is handed; it
    hibernates, or nobody took the last notice. `heard`: how often the server has said what became of it. `stored`: told
    and log as they are in the database, None = they are not.
    """

    account: str
    resource: str
    told: int
    log: int
    serial: int
    settles: int = 0
    waits: bool = False
    heard: int = 0
    stored: tuple[int, int] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Its primary key."""
        return self.account, self.resource

    def settle(self) -> None:
        """Nothing older is left to be told."""
        if self.told >= self.settles:
            self.log, self.settles = self.told, 0


def stored_watch(row: Watcher, serial: int) -> Watch:
    """As an earlier process left it. Whether a session that read a list has come to its end is not known any more."""
    settles = NEVER if row.log < row.told else 0
    return Watch(row.account, row.resource, row.told, row.log, serial, settles, stored=(row.told, row.log))
