"""The history of a life, committed by many at once to a real Postgres: lanes by two feeds each that cut it differently,
while properties are set, rooms are fanned out by two processes, calls ring out, rows are trimmed, and clients page.

In the end every event was taken once, every counter is a recount, and no client has skipped a row or a change. Clocks
differ by a second. Nothing waits on purpose: everybody goes on until all of the feed is committed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres.housekeeping import PostgresHousekeeping
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.rooms import PostgresRooms
from sync.adapters.postgres.store import PostgresStore
from sync.model.books import Books, Keys, Rule, Ruling
from sync.model.conversation import Change, ConversationKey
from sync.model.event import AccountEvent, Event, Malformed
from sync.model.jid import lane
from sync.model.query import ChangesPage, ListQuery
from sync.model.room import RoomMember
from sync.ports import Retention
from sync.rules.fold import Policies, expire, fan_out, take
from sync.rules.properties import set_properties
from sync.rules.wanted import keys
from sync.service.fanout import keys_of
from tests.adapters.recounts import wrong_rows
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.readers import Follower, Reader, shown
from tests.contract.samples import NOW
from tests.lives import moves, people
from tests.lives.world import ACCOUNTS, REFUSALS, World

T = TypeVar("T")
MOVES_OF_A_LIFE = 150
NO_TIME = timedelta(0)
KEEPS = (
    Retention(messages=3, messages_at_least=1, message_age=NO_TIME, changes=2, change_age=NO_TIME, horizon=NO_TIME),
    Retention(messages=1, messages_at_least=1, changes=1, horizon=NO_TIME),
    Retention(messages=4, messages_at_least=2, message_age=NO_TIME, changes=5),
)
TURNS = "UPDATE account SET trim_at = '-infinity'", "UPDATE room SET trim_at = '-infinity'"


class UnsteadyClock:
    """The time of day, give or take a second."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._random.uniform(-1, 1))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def history(random: Random) -> tuple[list[Event], Policies]:
    """What the feed of a life has, as if it had happened now. Accounts stay: what they were is somebody else's."""
    world = moves.begun(random)
    quiet = {people.pass_time, people.trim, people.remove_account, people.repeat_the_feed, people.set_some}
    made = [move for move in moves.MOVES if move not in quiet]
    for _ in range(MOVES_OF_A_LIFE):
        random.choice(made)(world)
    shift = datetime.now(UTC) - NOW
    events = [event for event in world.fed if not isinstance(event, AccountEvent)]
    return [e if isinstance(e, Malformed) else replace(e, at=e.at + shift) for e in events], world.policies


class Crowd:
    """Everybody who writes and reads, over one store."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - a test
        self.events, self.policies = history(self.random)
        self.clock, self.observer = UnsteadyClock(self.random), RecordingObserver()
        self.pool = Pool(dsn, size=10, connect_seconds=60, statement_seconds=60)
        self.store = PostgresStore(self.pool, self.clock, self.observer)
        self.rooms, self.keeping = PostgresRooms(self.pool), PostgresHousekeeping(self.pool, self.observer)
        self.feeding, self.taken = 0, 0
        self.changes: list[Change] = []  # of all committed transactions

    async def commit(self, wanted: Keys, rule: Rule[T]) -> T:
        """A transaction; what it adds to change logs is remembered when it is committed, though it be tried twice."""
        tried: list[Ruling[T]] = []

        def noted(books: Books) -> Ruling[T]:
            tried.append(rule(books))
            return tried[-1]

        value = await self.store.transact(wanted, noted)
        self.changes += tried[-1].writes.changes
        return value

    # ---- who writes ----

    async def feed(self, number: int) -> None:
        """All of a lane from its beginning, in batches of some size."""
        self.feeding += 1
        mine = [event for event in self.events if lane(event.account) == number]
        while mine:
            size = self.random.randrange(1, 9)
            batch, mine = mine[:size], mine[size:]
            wanted = keys(batch, several=self.policies.conduct.several)
            report = await self.commit(wanted, lambda books, batch=batch: take(batch, books, self.policies))  # type: ignore[misc]
            self.taken += report.taken
        self.feeding -= 1

    async def until_fed(self, turn: Callable[[], Any]) -> None:
        while self.feeding:
            await turn()

    async def fan(self) -> None:
        """A pass of each room that is owed one, in chunks of one or two members."""
        for room in await self.rooms.pending_rooms(9):
            entries, after = await self.rooms.entries(room, 0, self.random.choice([2, 64])), ""
            while entries and (members := await self.rooms.members(room, after, self.random.choice([1, 2]))):
                await self.serve(entries, members)
                after = members[-1].account
            if entries:
                await self.rooms.fanned(room, entries[-1].rank)

    async def serve(self, entries: Sequence[Any], members: Sequence[RoomMember]) -> None:
        rule = partial(self._fan_out, entries, members)
        await self.commit(keys_of(entries, members), rule)

    def _fan_out(self, entries: Sequence[Any], members: Sequence[RoomMember], books: Books) -> Ruling[Any]:
        return fan_out(entries, members, books, self.policies)

    async def set(self) -> None:
        account = self.random.choice(ACCOUNTS)
        page = await self.store.page(account, ListQuery(limit=3))
        if not page.items:
            return
        found = self.random.choice(page.items).conversation
        request = people.request(World(self.random), found.key, found.version)
        wanted = Keys(accounts=frozenset({account}), conversations=frozenset({found.key}))
        with suppress(*REFUSALS):
            await self.commit(wanted, partial(set_properties, account, [request]))

    async def ring_out(self) -> None:
        due = list(await self.store.expired_calls(self.clock.now(), 5))
        wanted = Keys(
            accounts=frozenset(k.account for k in due), calls=frozenset((k.account, k.sid) for k in due), devices=True
        )
        await self.commit(wanted, lambda books: expire(due, books, self.policies))

    async def trim(self) -> None:
        with suppress(asyncpg.DeadlockDetectedError):  # this test's own statement takes locks in any order
            async with self.pool.connection() as connection:
                for turn in TURNS:
                    await connection.execute(turn)
        await self.keeping.trim(self.clock.now(), self.random.choice(KEEPS), 9)

    # ---- who reads ----

    async def read(self, account: str, limit: int | None) -> Reader:
        """Ask until all is fed and told to the members, then once more for the rest."""
        reader = Reader()
        await self.until_fed(partial(self.ask, reader, account, limit))
        return reader

    async def ask(self, reader: Reader, account: str, limit: int | None) -> None:
        """All pages of one list."""
        told = False
        while not told:
            owner = await self.store.account(account)
            told = owner is None or reader.told(await self.store.page(account, reader.ask(owner, limit)))

    async def follow(self, account: str) -> Follower:
        follower = Follower()
        await self.until_fed(partial(self.ask_logs, follower, account))
        return follower

    async def ask_logs(self, follower: Follower, account: str) -> None:
        owner = await self.store.account(account)
        if owner is None:
            return
        page = await self.store.page(account, follower.since(owner))
        logs: dict[tuple[ConversationKey, int], ChangesPage] = {}
        since = page.query.since
        for item in page.items:
            logs[item.conversation.key, since] = await self.store.changes(item.conversation.key, since, 9)
        follower.follow(owner, page, lambda key, stamp: logs[key, stamp])


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    nightly = request.config.getoption("--hypothesis-profile") == "nightly"
    return range(40) if nightly else range(2)


@pytest_asyncio.fixture(loop_scope="session")
async def crowds(database: str, seeds: range) -> AsyncIterator[AsyncIterator[Crowd]]:
    """One crowd after the other, each in an empty database."""

    async def made() -> AsyncIterator[Crowd]:
        for seed in seeds:
            crowd = Crowd(database, seed)
            await crowd.pool.open()
            async with crowd.pool.connection() as connection:
                tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
                await connection.execute(";".join(f"DELETE FROM {name}" for (name,) in tables))  # noqa: S608
            try:
                yield crowd
            finally:
                await crowd.pool.close()

    yield made()


async def test_a_life_is_whole_whoever_commits_it(crowds: AsyncIterator[Crowd], database: str) -> None:
    async for crowd in crowds:
        await crowd.commit(Keys(accounts=frozenset(ACCOUNTS), create=True), partial(take, [], policies=crowd.policies))
        lanes = sorted({lane(event.account) for event in crowd.events})
        feeds = asyncio.gather(*(crowd.feed(number) for number in [*lanes, *lanes]))
        await asyncio.sleep(0)  # let them begin
        reading = asyncio.gather(*(crowd.read(account, limit) for account in ACCOUNTS for limit in (None, 1, 2)))
        following = asyncio.gather(*(crowd.follow(account) for account in ACCOUNTS))
        others = (crowd.fan, crowd.fan, crowd.set, crowd.ring_out, crowd.trim)
        await asyncio.gather(feeds, *(crowd.until_fed(turn) for turn in others))
        assert crowd.taken == len(crowd.events)
        await told_everything(crowd)
        for n, reader in enumerate(await reading):
            await same_as_the_server(crowd, reader, ACCOUNTS[n // 3])
        for account, follower in zip(ACCOUNTS, await following, strict=True):
            await crowd.ask_logs(follower, account)
            assert [c for c in crowd.changes if c.conversation.account == account and not follower.knows(c)] == []
        assert await wrong(database) == []


async def told_everything(crowd: Crowd) -> None:
    """Every member has everything."""
    while await crowd.rooms.pending_rooms(1):
        await crowd.fan()


async def wrong(dsn: str) -> list[dict[str, object]]:
    connection = await asyncpg.connect(dsn)
    try:
        return await wrong_rows(connection)
    finally:
        await connection.close()


async def same_as_the_server(crowd: Crowd, reader: Reader, account: str) -> None:
    """It asks once more, for what came last."""
    await crowd.ask(reader, account, None)
    whole = await crowd.store.page(account, ListQuery())
    assert reader.list == {item.conversation.key: shown(item.conversation) for item in whole.items}
