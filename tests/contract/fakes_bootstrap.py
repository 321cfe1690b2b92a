"""The `Bootstraps` port in memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.model.conversation import Account
from sync.model.jid import domain
from sync.rules.times import microseconds
from tests.contract.fakes_tables import Tables, waiting, write_bootstraps

HOUR = timedelta(hours=1)


class MemoryBootstraps:
    """Plays `Bootstraps` over the store's tables."""

    tables: Tables

    async def due(self, now: datetime, hosts: Sequence[str], limit: int) -> Sequence[Bootstrap]:
        waits = [row for row in self.tables.bootstraps.values() if row.state is BootstrapState.WAITING]
        found = [row for row in waits if domain(row.account) in hosts and not now < row.due_at <= now + HOUR]
        return sorted(found, key=lambda row: row.due_at)[:limit]

    async def meet(self, accounts: Sequence[str], now: datetime) -> int:
        made, at = set(accounts) - set(self.tables.accounts), microseconds(now)
        for jid in made:
            self.tables.accounts[jid] = Account(jid=jid, version=at, floor=at)
            self.tables.bootstraps.setdefault(jid, waiting(jid, at))
        return len(made)

    async def ask(self, names: Sequence[str], now: datetime) -> Sequence[str]:
        for host in (name for name in names if "@" not in name):
            self.tables.bootstraps.setdefault(host, waiting(host, microseconds(now)))
        asked = sorted({name for name in names if name in self.tables.bootstraps})
        for name in asked:
            row = self.tables.bootstraps[name]
            restored = row.restored if "@" in name else 0
            again = replace(waiting(name, row.since), due_at=now, turn=row.turn + 1, restored=restored)
            self.tables.bootstraps[name] = again
        return asked

    async def enrol(self, host: Bootstrap, accounts: Sequence[str], now: datetime, *, make: bool) -> None:
        if make:
            await self.meet(accounts, now)
        await self.ask(accounts, now)
        await self.store(host)

    async def store(self, row: Bootstrap) -> None:
        write_bootstraps(self.tables, [row])

    async def counts(self, hosts: Sequence[str]) -> Mapping[str, int]:
        rows = self.tables.bootstraps.values()
        return Counter(row.state.value for row in rows if "@" in row.account and domain(row.account) in hosts)
