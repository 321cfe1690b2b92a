"""The store: transactions under the accounts' locks, and the reads of queries and queues.

It loads what `Keys` name in the order of invariant 10 (positions, rooms and accounts sorted, then what they protect),
runs the pure rule, and writes what came out with one statement for each table. It decides nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import TypeVar

from sync.adapters.postgres import load, rows, write
from sync.adapters.postgres.delta import delta_page, delta_statement
from sync.adapters.postgres.inbox import inbox_page, inbox_statement
from sync.adapters.postgres.listing import NAMED, page_statement
from sync.adapters.postgres.owners import Owners
from sync.adapters.postgres.pool import ATTEMPTS, RETRYABLE, Connection, Pool
from sync.adapters.postgres.statements import sql
from sync.adapters.postgres.transaction import locked
from sync.model.books import Keys, Rule
from sync.model.call import LASTS, Call, CallKey
from sync.model.conversation import Account, ConversationKey, Kind, key_of
from sync.model.delta import CallQuery, DeltaPage, DeltaQuery
from sync.model.errors import StoreUnavailable
from sync.model.query import (
    ChangesPage,
    ConversationPage,
    InboxPage,
    InboxQuery,
    ListedConversation,
    ListQuery,
    RewritePage,
    RewriteQuery,
)
from sync.model.registry import ListedDevice
from sync.ports import Clock, DueJob, Observer
from sync.protocol.convsync import MAX_CHANGES_BYTES

T = TypeVar("T")


def ignore(accounts: Sequence[Account]) -> None:
    """Nobody is to be told."""


class PostgresStore:
    """The `Store` port on Postgres. `stored` is told of the accounts that a transaction wrote, once it is committed."""

    def __init__(
        self, pool: Pool, clock: Clock, observer: Observer, *, stored: Callable[[Sequence[Account]], None] = ignore
    ) -> None:
        self._pool, self._clock, self._observer, self._stored = pool, clock, observer, stored
        self._owners = Owners(pool)

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        """`Store.transact`."""
        for _ in range(ATTEMPTS):
            try:
                async with self._pool.connection() as connection:
                    try:
                        return await self._transact(connection, keys, rule)
                    except load.Missing:
                        await load.create(connection, keys, self._clock)
                        return await self._transact(connection, keys, rule)
            except load.Missing:
                self._observer.transaction_retried("missing")  # made, and removed again by somebody else
            except RETRYABLE as error:
                self._observer.transaction_retried(type(error).__name__)
        raise StoreUnavailable("retries")

    async def _transact(self, connection: Connection, keys: Keys, rule: Rule[T]) -> T:
        async with locked(connection, load.locks(keys), prepared=self._pool.prepared) as held:
            books = await load.books(connection, keys, self._clock, held)
            ruling = rule(books)
            await write.writes(connection, ruling.writes, books.devices)
        self._stored(ruling.writes.accounts)
        return ruling.value

    async def account(self, jid: str) -> Account | None:
        """`Store.account`."""
        return await self._owners.read(jid)

    async def page(self, account: str, query: ListQuery) -> ConversationPage:
        """`Store.page`."""
        statement, arguments = page_statement(account, query)
        async with self._pool.connection() as connection:
            found = await connection.fetch(statement, *arguments)
        if not found:
            return ConversationPage(query=query, newest=query.since, items=(), total=0)
        newest = query.place.newest if query.place else found[0]["newest"]
        items = tuple(listed(row) for row in found if row["peer"] is not None)
        return ConversationPage(
            query=query, newest=newest, items=items, total=found[0]["total"], floor=found[0]["floor"]
        )

    async def inbox(self, account: str, query: InboxQuery) -> InboxPage:
        """`Store.inbox`."""
        statement, arguments = inbox_statement(account, query)
        async with self._pool.connection() as connection:
            found = await connection.fetch(statement, *arguments)
        return inbox_page(query, found)

    async def rewrites(self, account: str, query: RewriteQuery) -> RewritePage:
        """`Store.rewrites`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("rewrites"), account, query.since, query.limit + 1)
            if not found:
                return RewritePage(newest=query.since, changes=())
            newest = found[0]["newest"]
            torn = await connection.fetch(sql("torn_conversations"), account, query.since) if found[0]["torn"] else ()
            if len(found) <= query.limit:
                changes = tuple(rows.change(row) for row in found if row["peer"] is not None)
                return RewritePage(newest=newest, changes=changes, invalidated=versions(account, torn))
            many = await connection.fetch(sql("rewritten_conversations"), account, query.since, newest)
        invalidated = dict(versions(account, many)) | dict(versions(account, torn))
        return RewritePage(newest=newest, changes=(), invalidated=tuple(sorted(invalidated.items(), key=itemgetter(1))))

    async def changes(self, key: ConversationKey, since: int, limit: int) -> ChangesPage:
        """`Store.changes`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(
                sql("changes"), key.account, key.peer, key.kind, since, limit + 1, MAX_CHANGES_BYTES
            )
        if not found:
            return ChangesPage()
        version, log_from = found[0]["newest"], found[0]["log_from"]
        if found[0]["large"]:
            return ChangesPage(version=version, reset=True)
        log = tuple(rows.change(row) for row in found if row["peer"] is not None)
        if len(log) > limit or since < log_from:
            return ChangesPage(version=version, reset=True)
        return ChangesPage(version=version, changes=log)

    async def conversations(self, keys: Sequence[ConversationKey]) -> Sequence[ListedConversation]:
        """`Store.conversations`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(NAMED, *rows.columns(map(load.parts, keys), 3))
        return [listed(row) for row in found]

    async def delta(self, account: str, query: DeltaQuery) -> DeltaPage | None:
        """`Store.delta`."""
        statement, arguments = delta_statement(account, query)
        async with self._pool.connection() as connection:
            found = await connection.fetch(statement, *arguments)
        return delta_page(query, found)

    async def call(self, account: str, query: CallQuery) -> Call | None:
        """`Store.call`."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(sql("newest_call"), account, key_of(query.session_id), query.peer)
        return rows.call(row) if row else None

    async def devices(self, account: str) -> Sequence[ListedDevice]:
        """`Store.devices`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("devices_with_ledger"), account)
        return [rows.listed_device(row) for row in found]

    async def token_owners(self, app: str, environment: str, digests: Sequence[bytes]) -> frozenset[str]:
        """`Store.token_owners`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("token_owners"), app, environment, list(digests))
        return frozenset(row["account"] for row in found)

    async def node_owners(self, node: str) -> frozenset[str]:
        """`Store.node_owners`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("node_owners"), node)
        return frozenset(row["account"] for row in found)

    async def due_jobs(
        self, now: datetime, lanes: Sequence[int], limit: int, held: Collection[str] = ()
    ) -> Sequence[DueJob]:
        """`Store.due_jobs`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("due_jobs"), list(lanes), now, limit, list(held))
        return [due(row) for row in found]

    async def next_job_at(self, lanes: Sequence[int], held: Collection[str] = ()) -> datetime | None:
        """`Store.next_job_at`."""
        async with self._pool.connection() as connection:
            found: datetime | None = await connection.fetchval(sql("next_job_at"), list(lanes), list(held))
        return found

    async def overdue_jobs(self, now: datetime, queues: Collection[str], limit: int) -> Sequence[DueJob]:
        """`Store.overdue_jobs`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("overdue_jobs"), now, list(queues), limit)
        return [due(row) for row in found]

    async def abandoned_jobs(self, before: datetime, limit: int) -> Sequence[DueJob]:
        """`Store.abandoned_jobs`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("abandoned_jobs"), before, limit)
        return [due(row) for row in found]

    async def queue_depth(self, now: datetime) -> Mapping[int, tuple[int, float]]:
        """`Store.queue_depth`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("queue_depth"), now)
        return {row["lane"]: (row["jobs"], row["oldest"]) for row in found}

    async def expired_calls(self, now: datetime, limit: int) -> Sequence[CallKey]:
        """`Store.expired_calls`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("expired_calls"), now, limit, LASTS)
        return [CallKey(row["account"], row["peer"], row["sid"]) for row in found]


def listed(row: rows.Row) -> ListedConversation:
    """A conversation with what lists show beside it."""
    return ListedConversation(
        conversation=rows.conversation(row),
        calls=tuple(rows.call(call) for call in row["calls"] or ()),
        mention_id=row["mention_id"],
    )


def versions(account: str, found: Sequence[rows.Row]) -> tuple[tuple[ConversationKey, int], ...]:
    """Conversations of an account with the version of their newest change."""
    return tuple((ConversationKey(account, row["peer"], Kind(row["kind"])), row["version"]) for row in found)


def due(row: rows.Row) -> DueJob:
    """A row of due_jobs or abandoned_jobs."""
    return DueJob(
        account=row["account"],
        job_id=str(row["job_id"]),
        lane=row["lane"],
        peer=row["peer"],
        about=Kind(row["about"]),
        sid=row["sid"],
        queue=row["queue"],
    )
