"""The lives of `tests.lives` on a real Postgres: after each transaction, fan-out and turn of housekeeping its rows are
those of the store in memory, and so are its answers.
"""

from dataclasses import fields, replace
from random import Random

import pytest

from sync.model.conversation import ConversationKey
from sync.model.query import ListQuery, RewriteQuery
from tests.contract.fakes_store import MemoryStore
from tests.contract.fakes_tables import Tables
from tests.contract.stores import on_postgres
from tests.lives import laws, moves
from tests.lives.on_postgres import Mirror
from tests.lives.world import ACCOUNTS, World

STEPS = 60


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """A few lives at every change, many at night."""
    nightly = request.config.getoption("--hypothesis-profile") == "nightly"
    return range(170) if nightly else range(6)


async def test_postgres_lives_as_memory_does(database: str, seeds: range) -> None:
    async with on_postgres(database) as bench:
        mirror = Mirror(bench)
        for seed in seeds:
            await empty(mirror)
            random = Random(seed)  # noqa: S311 - a test
            await live(mirror, moves.begun(random), random, seed)


async def live(mirror: Mirror, world: World, random: Random, seed: int) -> None:
    former, made = world.tables, moves.some(random)
    for step in range(STEPS):
        random.choice(made)(world)
        laws.hold(world, former)
        former = world.tables
        while world.acts:
            await mirror.repeat(world.acts.pop(0))
        found = await mirror.tables()
        wrong = [f.name for f in fields(Tables) if getattr(found, f.name) != getattr(world.tables, f.name)]
        assert not wrong, (seed, step, differences(found, world.tables, wrong))
        await same_answers(mirror, world, random)


def differences(found: Tables, expected: Tables, names: list[str]) -> list[object]:
    """Rows that are not the same, for the eyes of whoever mends it."""
    wrong: list[object] = []
    for name in names:
        here, there = getattr(found, name), getattr(expected, name)
        wrong += [(key, here.get(key), there.get(key)) for key in here | there if here.get(key) != there.get(key)]
    return wrong


async def same_answers(mirror: Mirror, world: World, random: Random) -> None:
    """A list or a delta and its next page, a change log, the rewrites: out of both stores."""
    account, memory = random.choice(ACCOUNTS), world.store
    versions = [0, 1, *(c.version - random.randrange(2) for c in world.mine(account))]
    query = ListQuery(
        since=random.choice(versions),
        pinned_first=random.random() < 0.5,
        pinned=random.choice([None, None, True, False]),
        archived=random.choice([None, None, True, False]),
        limit=random.choice([None, 0, 1, 2]),
    )
    assert await mirror.bench.store.page(account, query) == await memory.page(account, query)
    rewrites = RewriteQuery(since=random.choice(versions), limit=random.choice([1, 50]))
    assert await mirror.bench.store.rewrites(account, rewrites) == await memory.rewrites(account, rewrites)
    for found in world.mine(account)[:3]:
        await same_log(mirror, memory, found.key, random.choice(versions), random.choice([1, 50]))


async def same_log(mirror: Mirror, memory: MemoryStore, key: ConversationKey, since: int, limit: int) -> None:
    assert await mirror.bench.store.changes(key, since, limit) == await memory.changes(key, since, limit)


async def empty(mirror: Mirror) -> None:
    assert mirror.bench.pool
    async with mirror.bench.pool.connection() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        await connection.execute(";".join(f"DELETE FROM {name}" for (name,) in tables))  # noqa: S608 - names of ours


def test_and_a_row_that_differs_is_told() -> None:
    world = moves.begun(Random(0))  # noqa: S311 - a test
    other = world.tables.draft()
    owner = other.accounts[ACCOUNTS[0]]
    other.accounts[owner.jid] = replace(owner, unread=1)
    assert differences(other, world.tables, ["accounts"]) == [(owner.jid, replace(owner, unread=1), owner)]
