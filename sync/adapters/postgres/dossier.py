"""One account as an operator asks for it: seen, counted anew, handed over whole, or gone.

Each question is one transaction on a connection of its own: what only reads sees one snapshot, what writes holds the
account's lock, as every writer does (invariant 10). What differs and what follows from it is decided by
`sync.rules.repair`; how it is shown, by the caller.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

import asyncpg

from sync.adapters.postgres import migrate, push_rows, rows, write
from sync.adapters.postgres.pool import ATTEMPTS, RETRYABLE, Connection, meaning, session
from sync.adapters.postgres.quiet_rows import quiet
from sync.adapters.postgres.statements import sql
from sync.model.conversation import ConversationKey, Kind
from sync.model.errors import StoreUnavailable
from sync.model.jid import domain, lane
from sync.rules.explain import Evidence
from sync.rules.repair import Counters, Recount, Repair, repaired
from sync.rules.times import microseconds

FORMAT: Final = 1  # of the exported document; raised when what was there means something else or is gone

LIMITS: Final = {  # how many rows of each list are shown; the command may lift them
    "conversations": 50,
    "calls": 20,
    "devices": 50,
    "jobs": 50,
    "ledger": 20,
    "rooms": 50,
    "positions": 20,
    "quarantine": 20,
}
EXPORTED: Final = (
    "conversations",
    "messages",
    "changes",
    "calls",
    "devices",
    "device_tokens",
    "pushes",
    "room_memberships",
    "room_messages",
    "room_entries",
    "bootstraps",
    "watchers",
    "quarantine",
)
EXPLAINED: Final = 500  # rows of each list that a push is explained from
AT_ONCE = 50  # rows of an export in memory: a stanza may have a quarter of a megabyte

COMMAND_SECONDS = 600.0  # whoever waits sits at a terminal; a large account takes what it takes

Row = Mapping[str, object]
T = TypeVar("T")


class Absence(StrEnum):
    """Why there is no such account."""

    UNKNOWN = "unknown"
    ROOM = "room"  # the address is that of a room of this server
    ROWLESS = "rowless"  # something is held on the address, as quarantined events are, and there is no account


class NoSuchAccount(Exception):
    """There is nothing to work on."""

    def __init__(self, why: Absence) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Some rows of a list that has `total`."""

    rows: Sequence[Row]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is shown of an account: its own row (None: there is none, though something is held), and the lists of
    `LIMITS`. Values are as the driver gives them; no row holds a text of a message, a token or a digest.
    """

    jid: str
    account: Row | None
    lists: Mapping[str, Listed] = field(default_factory=dict)


class Dossier:
    """A connection to a database of this program's schema (`opened`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def show(self, jid: str, *, everything: bool = False) -> Sight:
        """The account as it is now."""
        async with self._snapshot():
            await self._known(jid)
            account = await self._connection.fetchrow(sql("show_account"), jid)
            lists: dict[str, Listed] = {}
            for name, limit in LIMITS.items():
                where: tuple[object, ...] = (jid, None if everything else limit)
                if name == "positions":
                    where = (domain(jid), where[1], lane(jid))
                lists[name] = listed(await self._connection.fetch(sql(f"show_{name}"), *where))
        return Sight(jid=jid, account=dict(account) if account else None, lists=lists)

    async def evidence(self, jid: str, device_id: str | None, since: datetime) -> Evidence:
        """What is held on the pushes of an account, or of one device, since an instant; of each list the newest
        `EXPLAINED` rows.
        """
        rank = microseconds(since)
        async with self._snapshot():
            await self._known(jid)
            jobs = await self._connection.fetch(sql("explain_jobs"), jid, device_id, since, EXPLAINED)
            calls = await self._connection.fetch(sql("explain_calls"), jid, since, EXPLAINED)
            messages = await self._connection.fetch(sql("explain_messages"), jid, rank, EXPLAINED)
            conversations = await self._connection.fetch(sql("explain_conversations"), jid, rank, EXPLAINED)
            devices = await self._connection.fetch(sql("explain_devices"), jid, device_id)
            wish = await self._connection.fetchval(sql("explain_quiet"), jid)
        return Evidence(
            devices=[rows.device(row) for row in devices],
            jobs=[push_rows.job(row["job"]) for row in jobs],
            jobs_total=jobs[0]["total"] if jobs else 0,
            calls=[rows.call(row["call"]) for row in calls],
            messages=[rows.message(row) for row in messages],
            conversations=[rows.conversation(row) for row in conversations],
            quiet=quiet(wish),
        )

    async def repair(self, jid: str, now: datetime, *, dry: bool = False) -> Repair:
        """Count everything anew under the account's lock, and store what differs, unless `dry`."""
        return await self._written(partial(self._repair, jid, now, dry=dry))

    async def export(self, jid: str, at: datetime) -> AsyncGenerator[str, None]:
        """Everything that is held on the account, as the pieces of one JSON document. A few rows at a time are in
        memory; close the iterator when it is not read to its end.
        """
        async with self._snapshot():
            await self._known(jid)
            own = await self._connection.fetchval(sql("export_account"), jid)
            yield f'{{\n"format": {FORMAT},\n"exported_at": "{at.isoformat()}",\n"account": {own or "null"}'
            for name in EXPORTED:
                yield f',\n"{name}": ['
                mark = "\n"
                async for row in self._connection.cursor(sql(f"export_{name}"), jid, prefetch=AT_ONCE):
                    yield mark + row[0]
                    mark = ",\n"
                yield "]" if mark == "\n" else "\n]"
            yield "\n}\n"

    async def delete(self, jid: str) -> Mapping[str, int]:
        """Delete everything that is held on the account; how many rows of each table went."""
        return await self._written(partial(self._delete, jid))

    async def exists(self, jid: str) -> None:
        """`NoSuchAccount` when nothing is held on it."""
        async with self._snapshot():
            await self._known(jid)

    async def _known(self, jid: str) -> None:
        row = await self._connection.fetchrow(sql("held_on"), jid)
        # A room's index lies under the room's own address: it is no account, and nobody may delete it as one.
        if row["room"] or not row["known"]:
            raise NoSuchAccount(Absence.ROOM if row["room"] else Absence.UNKNOWN)

    async def _repair(self, jid: str, now: datetime, *, dry: bool) -> Repair:
        row = await self._connection.fetchrow(sql("lock_account"), jid)
        if row is None:
            await self._known(jid)
            raise NoSuchAccount(Absence.ROWLESS)
        devices = await self._connection.fetchval(sql("recount_devices"), jid)
        found = [recount(jid, one) for one in await self._connection.fetch(sql("recount"), jid)]
        repair = repaired(rows.account(row), devices, found, now)
        if repair.differences and not dry:
            await self._store(repair)
        return repair

    async def _delete(self, jid: str) -> Mapping[str, int]:
        await self._connection.fetchrow(sql("lock_account"), jid)
        await self._known(jid)
        return await write.delete_accounts(self._connection, [jid])

    async def _store(self, repair: Repair) -> None:
        account = repair.account
        totals = (account.unread, account.mentions, account.unread_conversations, account.devices)
        await self._connection.execute(sql("repair_account"), account.jid, account.version, *totals)
        columns = zip(*map(repaired_row, repair.conversations), strict=True)
        if repair.conversations:
            await self._connection.execute(sql("repair_conversations"), account.jid, *map(list, columns))

    async def _written(self, work: Callable[[], Awaitable[T]]) -> T:
        """One transaction, tried again where the database asks for it."""
        for _ in range(ATTEMPTS):
            try:
                async with meaning(), self._connection.transaction():
                    return await work()
            except RETRYABLE:
                pass  # rolled back as a whole
        raise StoreUnavailable("retries")

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        """One state of the database for all reads; times are told in UTC. Whoever reads it may take time."""
        async with meaning(), self._connection.transaction(isolation="repeatable_read", readonly=True):
            await self._connection.execute(
                "SET LOCAL TimeZone = 'UTC'; SET LOCAL idle_in_transaction_session_timeout = 0"
            )
            yield


@asynccontextmanager
async def opened(dsn: str, *, connect_seconds: float, prepared: bool = True) -> AsyncIterator[Dossier]:
    """Connect. `StoreUnavailable` when the database does not answer, `SchemaError` when its schema is not ours."""
    async with meaning():
        connection = await asyncpg.connect(
            dsn, timeout=connect_seconds, command_timeout=COMMAND_SECONDS, **session(prepared=prepared)
        )
    try:
        async with meaning():
            found = await migrate.installed(connection)
        if found < migrate.VERSION:
            raise migrate.SchemaError(
                "The schema is not installed: run convsync schema."
                if found == 0
                else f"The database's schema is version {found}, this program needs {migrate.VERSION}: "
                "run convsync schema."
            )
        if found > migrate.VERSION:
            raise migrate.SchemaError(
                f"The database's schema is version {found}, this program knows {migrate.VERSION}: use a newer one."
            )
        yield Dossier(connection)
    finally:
        connection.terminate()


def listed(found: Sequence[rows.Row]) -> Listed:
    """Rows that name their total in each of them."""
    shown = [{name: value for name, value in row.items() if name != "total"} for row in found]
    return Listed(rows=shown, total=found[0]["total"] if found else 0)


def recount(account: str, row: rows.Row) -> Recount:
    """A row of recount."""
    return Recount(
        key=ConversationKey(account, row["peer"], Kind(row["kind"])),
        version=row["version"],
        stored=Counters(unread=row["unread"], mentions=row["mentions"], ringing=row["ringing"]),
        counted=Counters(
            unread=row["unread_counted"], mentions=row["mentions_counted"], ringing=row["ringing_counted"]
        ),
    )


def repaired_row(one: Recount) -> tuple[object, ...]:
    """In the order of repair_conversations."""
    counted = one.counted
    return one.key.peer, one.key.kind, one.version, counted.unread, counted.mentions, counted.ringing
