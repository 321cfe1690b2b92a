"""The `Watches` port in memory."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sync.model.errors import Uncommittable
from sync.ports import Watcher

if TYPE_CHECKING:
    from tests.contract.fakes_store import MemoryStore


class MemoryWatches:
    """Plays `Watches` beside a store in memory; `rows` is open to tests."""

    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self.rows: dict[tuple[str, str], Watcher] = {}

    async def after(self, place: tuple[str, str] | None, limit: int) -> Sequence[Watcher]:
        behind = sorted(key for key in self.rows if place is None or key > place)
        return [self.rows[key] for key in behind[:limit]]

    async def put(self, watcher: Watcher) -> None:
        if not watcher.resource:
            raise Uncommittable("watcher_resource_is_short")
        if not 0 <= watcher.log <= watcher.told:
            raise Uncommittable("watcher_told_is_version")
        self.rows[watcher.account, watcher.resource] = watcher

    async def move(self, watchers: Sequence[Watcher]) -> None:
        self.rows |= {(w.account, w.resource): w for w in watchers if (w.account, w.resource) in self.rows}

    async def drop(self, sessions: Sequence[tuple[str, str]]) -> None:
        for session in sessions:
            self.rows.pop(session, None)

    async def versions(self, accounts: Sequence[str]) -> Mapping[str, int]:
        found = self._store.tables.accounts
        return {jid: found[jid].version for jid in accounts if jid in found}
