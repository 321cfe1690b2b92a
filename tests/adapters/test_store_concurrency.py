"""Many writers on the same accounts, and readers between them: on a real Postgres nothing is lost, skipped or stuck."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import asyncpg
import pytest_asyncio

from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.model.books import Keys
from sync.model.call import CallStep
from sync.model.conversation import ConversationKey, Direction, Kind
from sync.model.errors import ItemNotFound
from sync.model.event import (
    Body,
    CallMessage,
    Content,
    Displayed,
    Event,
    FeedPosition,
    Mentions,
    MessageEvent,
    Retraction,
)
from sync.model.query import ListQuery, SetProperties
from sync.rules.fold import Policies, take
from sync.rules.properties import set_properties
from sync.rules.wanted import keys
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.readers import Reader

ACCOUNTS = [f"user{n}@example.org" for n in range(5)]
PEERS = [f"peer{n}@example.net" for n in range(6)]
CLUB = "club@rooms.example.com"  # a room of another server: its index is each member's own
WRITERS, BATCHES, BATCH = 6, 20, 8
RECOUNT = """
SELECT count(*) FROM conversation c
WHERE (unread - base_unread, mentions - base_mentions) <> (
    SELECT count(*), count(*) FILTER (WHERE mention) FROM message m
    WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
    AND m.counted AND m.retracted IS NULL AND m.rank > greatest(c.read_rank, c.base_rank))
OR ringing <> (
    SELECT count(*) FROM call WHERE (call.account, call.peer) = (c.account, c.peer) AND state = 'ringing')"""
TOTALS = """
SELECT count(*) FROM account a JOIN (
    SELECT account, sum(unread) AS unread, sum(mentions) AS mentions, count(*) FILTER (WHERE unread > 0) AS many,
        max(version) AS version
    FROM conversation GROUP BY account) AS c ON c.account = a.jid
WHERE (a.unread, a.mentions, a.unread_conversations) <> (c.unread, c.mentions, c.many)
OR a.version < greatest(c.version, a.floor)"""


class UnsteadyClock:
    """The time of day, give or take a second: clocks of several machines, one of which is set back now and then."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._random.uniform(-1, 1))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Crowd:
    """Writers and readers over one store."""

    def __init__(self, dsn: str) -> None:
        self.random = Random(20260102)  # noqa: S311 - the same crowd every time
        self.clock, self.observer = UnsteadyClock(self.random), RecordingObserver()
        self.pool = Pool(dsn, size=10, connect_seconds=60, statement_seconds=60)
        self.store = PostgresStore(self.pool, self.clock, self.observer)
        self.writing = 0

    def content(self) -> Content:
        target = f"m{self.random.randrange(40)}"
        call = CallMessage(self.random.choice(list(CallStep)), f"s{self.random.randrange(20)}", ("audio",))
        said = Body(mentions=Mentions(everybody=self.random.random() < 0.3))
        return self.random.choice([said, said, said, Displayed(target), Retraction(target), call])

    def event(self, stream: str, n: int) -> Event:
        account, peer = self.random.choice(ACCOUNTS), self.random.choice([*PEERS, CLUB])
        room = peer == CLUB
        out = self.random.random() < 0.3
        return MessageEvent(
            position=FeedPosition("example.org", stream, "main", n),
            account=account,
            at=self.clock.now(),
            direction=Direction.OUT if out else Direction.IN,
            peer=peer,
            kind=Kind.GROUP if room else Kind.CHAT,
            sender=f"{account}/web" if out else f"{peer}/phone",
            author=f"{peer}/phone" if room and not out else None,
            content=self.content(),
            stanza="<message xmlns='jabber:client'/>",
            message_id=f"m{self.random.randrange(40)}",
            archive_id=f"{stream} {n}",
        )

    async def write(self, number: int) -> None:
        self.writing += 1
        try:
            for batch in range(BATCHES):
                events = [self.event(f"stream {number}", batch * BATCH + n + 1) for n in range(BATCH)]
                await self.store.transact(keys(events), lambda books, events=events: take(events, books, Policies()))
                await self.set(self.random.choice(ACCOUNTS), self.random.choice(PEERS))
        finally:
            self.writing -= 1

    async def lose(self) -> None:
        """Raise the epochs of all accounts, again and again."""
        marks = PostgresFeedMarks(self.pool)
        while self.writing:
            await marks.raise_epochs("example.org", self.clock.now())

    async def set(self, account: str, peer: str) -> None:
        request = SetProperties(peer=peer, pinned=self.random.randrange(9))
        wanted = Keys(accounts=frozenset({account}), conversations=frozenset({ConversationKey(account, peer)}))
        try:
            await self.store.transact(wanted, partial(set_properties, account, [request]))
        except ItemNotFound:
            return

    async def read(self, account: str, limit: int | None, *, backwards: bool = False) -> Reader:
        """Ask until everybody has written, then once more for the rest."""
        reader, last = Reader(backwards=backwards), False
        while not last:
            last = self.writing == 0
            await self.ask(reader, account, limit)
        return reader

    async def ask(self, reader: Reader, account: str, limit: int | None) -> None:
        """All pages of one list."""
        told = False
        while not told:
            owner = await self.store.account(account)
            told = owner is None or reader.told(await self.store.page(account, reader.ask(owner, limit)))


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(database: str) -> AsyncIterator[Crowd]:
    made = Crowd(database)
    await made.pool.open()
    yield made
    await made.pool.close()


async def test_nothing_is_lost_in_a_crowd(crowd: Crowd, database: str) -> None:
    readers = [
        (account, limit, backwards) for account in ACCOUNTS for limit in (None, 1, 2) for backwards in (False, True)
    ]
    writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
    await asyncio.sleep(0)  # let the writers begin
    seen = await asyncio.gather(
        *(crowd.read(account, limit, backwards=backwards) for account, limit, backwards in readers)
    )
    await writers
    for (account, _, _), reader in zip(readers, seen, strict=True):
        whole = await crowd.store.page(account, ListQuery())
        assert reader.list == {item.conversation.key: item.conversation for item in whole.items}
    connection = await asyncpg.connect(database)
    assert (await connection.fetchval(RECOUNT), await connection.fetchval(TOTALS)) == (0, 0)
    assert await connection.fetchval("SELECT count(*) FROM conversation WHERE mentions > 0") > 0
    await connection.close()


async def test_everybody_starts_over_in_a_crowd(crowd: Crowd) -> None:
    writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
    await asyncio.sleep(0)
    reading = (crowd.read(account, 2, backwards=n % 2 == 0) for n, account in enumerate(ACCOUNTS))
    *readers, _ = await asyncio.gather(*reading, crowd.lose())
    await writers
    for account, reader in zip(ACCOUNTS, readers, strict=True):
        whole = await crowd.store.page(account, ListQuery())
        assert reader.list == {item.conversation.key: item.conversation for item in whole.items}


async def test_a_deadlock_is_tried_again(crowd: Crowd, database: str) -> None:
    """Somebody else locks two accounts the other way round."""
    both = sorted(ACCOUNTS[:2])
    await crowd.store.transact(Keys(accounts=frozenset(both), create=True), lambda books: take([], books, Policies()))
    other = await asyncpg.connect(database)
    await other.execute("SET deadlock_timeout = '10s'")  # so that ours is the one to find out
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM account WHERE jid = $1 FOR UPDATE", both[1])
    event = replace(crowd.event("s", 1), account=both[0])  # type: ignore[type-var]
    wanted = replace(keys([event]), accounts=frozenset(both))
    ours = asyncio.ensure_future(crowd.store.transact(wanted, lambda books: take([event], books, Policies())))
    await waiting(database)
    await other.execute("SELECT FROM account WHERE jid = $1 FOR UPDATE", both[0])
    await transaction.rollback()
    assert (await ours).taken == 1
    assert crowd.observer.told("transaction_retried") == [{"why": "DeadlockDetectedError"}]
    await other.close()


async def waiting(dsn: str) -> None:
    """Until somebody waits for a lock."""
    connection = await asyncpg.connect(dsn)
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    await connection.close()
