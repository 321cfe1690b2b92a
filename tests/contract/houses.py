"""Stores with their housekeeping: in memory, and on a real Postgres. A test says whose turn it is, and sees
the rows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sync.adapters.postgres import bootstrap_rows, push_rows, room_rows, rows
from sync.adapters.postgres.housekeeping import PostgresHousekeeping
from sync.model.books import Rule
from sync.model.conversation import Account, Conversation, ConversationKey
from sync.ports import Housekeeping, Retention, Trimmed
from sync.rules.times import microseconds
from tests.contract.fakes_housekeeping import MemoryHousekeeping
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore
from tests.contract.fakes_tables import Tables, recount
from tests.contract.samples import ANN, NOW, owned, storing
from tests.contract.stores import Bench

DAY = timedelta(days=1)
KEEP = Retention(
    messages=5, messages_at_least=2, message_age=10 * DAY, changes=3, change_age=10 * DAY, horizon=30 * DAY
)
READ = {
    "accounts": ("account", rows.account, lambda a: a.jid),
    "conversations": ("conversation", rows.conversation, lambda c: c.key),
    "messages": ("message", rows.message, lambda m: (m.conversation, m.rank)),
    "changes": ("change", rows.change, lambda h: (h.conversation.account, h.version)),
    "calls": ("call", rows.call, lambda c: c.key),
    "jobs": ("push_job", push_rows.job, lambda j: (j.account, j.job_id)),
    "rooms": ("room", room_rows.room, lambda r: r.jid),
    "members": ("room_member", room_rows.member, lambda m: (m.room, m.account)),
    "entries": ("room_entry", room_rows.entry, lambda e: (e.room, e.rank)),
    "bootstraps": ("bootstrap", bootstrap_rows.bootstrap, lambda b: b.account),
}


def ago(days: float) -> int:
    """The rank of what happened so long before now."""
    return microseconds(NOW - days * DAY)


@dataclass
class House:
    """A store and who tidies it."""

    bench: Bench
    keeping: Housekeeping

    async def put(self, **stored: Any) -> None:
        """Store rows as they are; whoever is in them gets a turn at the very end of time."""
        accounts = {account.jid for account in stored.get("accounts", ())} or {ANN}
        rooms = [room.jid for room in stored.get("rooms", ())]
        rule: Rule[None] = storing(**stored)
        await self.bench.store.transact(owned(*accounts, rooms=rooms), rule)

    async def turn_at(self, jid: str, at: datetime) -> None:
        """The account or room has its turn then."""
        if isinstance(self.keeping, MemoryHousekeeping):
            self.keeping.trim_at[jid] = at
            return
        assert self.bench.pool
        async with self.bench.pool.connection() as connection:
            for table in ("account", "room"):
                await connection.execute(f"UPDATE {table} SET trim_at = $2 WHERE jid = $1", jid, at)  # noqa: S608

    async def tidy(self, *jids: str, keep: Retention = KEEP, now: datetime = NOW, limit: int = 10) -> Trimmed:
        """A round in which it is the turn of these."""
        for jid in jids or (ANN,):
            await self.turn_at(jid, now)
        trimmed = await self.keeping.trim(now, keep, limit)
        return Trimmed(turns=trimmed.turns, rows={table: count for table, count in trimmed.rows.items() if count})

    async def tables(self) -> Tables:
        """All rows."""
        if isinstance(self.bench.store, MemoryStore):
            return self.bench.store.tables
        assert self.bench.pool
        found = Tables()
        async with self.bench.pool.connection() as connection:
            for name, (table, of, key) in READ.items():
                values = map(of, await connection.fetch(f"SELECT * FROM {table}"))  # noqa: S608
                setattr(found, name, {key(value): value for value in values})
        return found

    async def ranks(self, key: ConversationKey) -> list[int]:
        """Of the messages that are left, in days ago."""
        kept = sorted((m.rank for where, m in (await self.messages()) if where == key), reverse=True)
        return [round((microseconds(NOW) - rank) / (DAY // timedelta(microseconds=1))) for rank in kept]

    async def messages(self) -> list[tuple[ConversationKey, Any]]:
        return [(key, message) for (key, _), message in (await self.tables()).messages.items()]

    async def conversation(self, key: ConversationKey) -> Conversation:
        """One that has to be there, and whose counters have to be right."""
        tables = await self.tables()
        found = tables.conversations[key]
        assert (found.unread, found.mentions) == recount(tables, key)
        return found

    async def account(self, jid: str = ANN) -> Account:
        return (await self.tables()).accounts[jid]


def in_house(bench: Bench) -> House:
    if bench.pool is None:
        assert isinstance(bench.store, MemoryStore)
        return House(bench, MemoryHousekeeping(bench.store))
    return House(bench, PostgresHousekeeping(bench.pool, RecordingObserver()))
