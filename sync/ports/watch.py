"""The role that remembers which sessions are told of changes as they happen (docs/architecture.md, "Live notices")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Watcher:
    """A session that is told. `told`: it was told of everything up to this version, at the least. `log`: change logs
    are told since this one; it is less while the session reads a list that it had begun before.
    """

    account: str
    resource: str
    told: int
    log: int


class Watches(Protocol):
    """The watchers of all accounts. Everything raises `StoreUnavailable` when the database does not answer."""

    async def after(self, place: tuple[str, str] | None, limit: int) -> Sequence[Watcher]:
        """Those behind this account and resource (None = from the beginning), in the order of these two."""
        ...

    async def put(self, watcher: Watcher) -> None:
        """Store one, whether it is known or not."""
        ...

    async def move(self, watchers: Sequence[Watcher]) -> None:
        """They were told more; those that are not known any more stay so."""
        ...

    async def drop(self, sessions: Sequence[tuple[str, str]]) -> None:
        """Forget these accounts' resources."""
        ...

    async def versions(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """The versions of those of these accounts that exist."""
        ...
