"""Whatever happens between two pages, and to the token meanwhile: who reads to the end holds the truth, was told no
conversation twice within a chain, and knows of every change to what it shows, or that it has to load it anew.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sync.model.books import Books, Keys, Ruling, Writes
from sync.model.call import Call, CallState
from sync.model.conversation import Change, ChangeKind, Conversation, ConversationKey, Kind, Status
from sync.model.delta import Filters, SyncRequest
from sync.model.query import ListQuery
from sync.protocol.convsync import decode
from sync.rules.times import microseconds
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from tests.contract.delta_reader import DeltaReader
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore
from tests.contract.samples import ANN, BOB, CAT, DAN, STANZA, TEA, account, after, call, change, last
from tests.contract.stores import Bench, in_memory

KEYS = [ConversationKey(ANN, peer) for peer in (BOB, CAT, DAN, TEA)] + [ConversationKey(ANN, TEA, Kind.GROUP)]
READERS = [
    *({"limit": limit} for limit in (1, 2, 4, 200)),
    *({"limit": 2, "filters": Filters(**chosen)} for chosen in ({"kind": Kind.CHAT}, {"peer": TEA}, {"pinned": True})),
    {"limit": 1, "filters": Filters(unread=True)},
    {"limit": 2, "filters": Filters(status=Status.ACTIVE, unread=False)},
]
MOVES = ("say", "say", "edit", "edit", "mark", "remove", "ring", "settle", "bury", "trim", "restart", "nothing")
MOVES += ("read",) * 12
Move = tuple[str, int]


@dataclass
class World:
    """Ann's conversations, what happens to them, and readers. A move has a number that chooses."""

    bench: Bench

    def __post_init__(self) -> None:
        fetches = Fetches(store=self.bench.store, observer=RecordingObserver())
        self.deltas = Deltas(store=self.bench.store, clock=self.bench.clock, fetches=fetches)
        self.readers = [DeltaReader(ANN, **chosen) for chosen in READERS]
        self.log: list[Change] = []
        self.calls: dict[str, Call] = {}

    async def make(self, move: Move) -> None:
        name, number = move
        await getattr(self, name)(number)

    async def change(
        self, number: int, ruled: Callable[[Conversation, int], Writes | None], *, new: bool = False
    ) -> None:
        """Bump a conversation that is there, or a new one."""
        key = KEYS[number % len(KEYS)]

        def rule(books: Books) -> Ruling[Writes | None]:
            owner = books.accounts[ANN]
            version = max(owner.version + 1, microseconds(books.now))
            known = books.conversations.get(key)
            alive = known is not None and known.status is not Status.DELETED
            if not new and not alive:
                return Ruling(writes=Writes(), value=None)
            found = known or Conversation(key=key, version=0, activity_at=books.now)
            writes = ruled(replace(found, version=version), version)
            if writes is None:
                return Ruling(writes=Writes(), value=None)
            writes.accounts = [replace(owner, version=version)]
            return Ruling(writes=writes, value=writes)

        written = await self.bench.store.transact(Keys(accounts=frozenset({ANN}), conversations=frozenset({key})), rule)
        if written is not None:
            self.log += written.changes
            self.calls |= {one.session_id: one for one in written.calls}

    # ---- moves -----------------------------------------------------------------------------------------------------

    async def say(self, number: int) -> None:
        await self.change(
            number,
            lambda found, version: Writes(
                conversations=[replace(found, status=Status.ACTIVE, unread=found.unread + 1, last=last(version))]
            ),
            new=True,
        )

    async def edit(self, number: int) -> None:
        def ruled(found: Conversation, version: int) -> Writes:
            kind = (ChangeKind.CORRECTED, ChangeKind.REACTED, ChangeKind.RETRACTED)[number % 3]
            stanza = None if kind is ChangeKind.RETRACTED else STANZA
            return Writes(conversations=[found], changes=[change(version, key=found.key, kind=kind, stanza=stanza)])

        await self.change(number, ruled)

    async def mark(self, number: int) -> None:
        def ruled(found: Conversation, version: int) -> Writes:
            fields: dict[str, Any] = {"pinned": number % 3}
            if number % 2:
                fields = {"unread": 0, "marked_unread": number % 3 == 0}
            if number % 5 == 0:
                archived = found.status is Status.ARCHIVED
                fields = {"status": Status.ACTIVE if archived else Status.ARCHIVED}
            return Writes(conversations=[replace(found, **fields)])

        await self.change(number, ruled)

    async def remove(self, number: int) -> None:
        await self.change(
            number,
            lambda found, version: Writes(conversations=[replace(found, status=Status.DELETED, unread=0, pinned=0)]),
        )

    async def ring(self, number: int) -> None:
        def ruled(found: Conversation, version: int) -> Writes:
            ringing = call(f"c{len(self.calls)}", found.key.peer, version=version, rings_until=after(10**6))
            found = replace(found, ringing=found.ringing + 1, status=Status.ACTIVE)
            return Writes(conversations=[found], calls=[ringing])

        await self.change(number % 4, ruled, new=True)

    async def settle(self, number: int) -> None:
        ringing = [one for one in self.calls.values() if one.state is CallState.RINGING]
        if not ringing:
            return
        state = (CallState.MISSED, CallState.ANSWERED, CallState.REJECTED, CallState.ENDED)[number % 4]

        def ruled(found: Conversation, version: int) -> Writes:
            ended = replace(ringing[0], version=version, state=state, answered_by="tv" if number % 4 == 1 else None)
            return Writes(conversations=[replace(found, ringing=found.ringing - 1)], calls=[ended])

        where = ConversationKey(ANN, ringing[0].key.peer)
        await self.change(KEYS.index(where), ruled, new=True)

    async def bury(self, number: int) -> None:
        """Tombstones go, with their logs; who has not heard of them starts over."""
        if isinstance(self.bench.store, MemoryStore):
            tables = self.bench.store.tables
            dead = {key for key, c in tables.conversations.items() if c.status is Status.DELETED and not c.ringing}
            oldest = max((tables.conversations[key].version for key in dead), default=0)
            tables.conversations = {k: c for k, c in tables.conversations.items() if k not in dead}
            tables.changes = {k: c for k, c in tables.changes.items() if c.conversation not in dead}
            owner = tables.accounts[ANN]
            tables.accounts[ANN] = replace(owner, floor=max(owner.floor, oldest))
            return
        await self.run("""
            WITH dead AS (
                DELETE FROM conversation WHERE status = 'deleted' AND ringing = 0 RETURNING peer, kind, version),
            gone AS (DELETE FROM change USING dead WHERE (change.peer, change.kind) = (dead.peer, dead.kind))
            UPDATE account SET floor = greatest(floor, (SELECT max(version) FROM dead))""")

    async def trim(self, number: int) -> None:
        """A conversation's log goes, all or half of it."""
        key = KEYS[number % len(KEYS)]
        log = [one.version for one in self.log if one.conversation == key]
        if not log:
            return
        upto = log[len(log) // (1 + number % 2) - 1]
        if isinstance(self.bench.store, MemoryStore):
            tables = self.bench.store.tables
            if key in tables.conversations:
                found = tables.conversations[key]
                tables.conversations[key] = replace(found, log_from=max(found.log_from, upto))
            gone = {k for k, c in tables.changes.items() if c.conversation == key and c.version <= upto}
            tables.changes = {k: c for k, c in tables.changes.items() if k not in gone}
            return
        name = (key.peer, key.kind.value, upto)
        await self.run("DELETE FROM change WHERE (peer, kind) = ($1, $2) AND version <= $3", *name)
        await self.run("UPDATE conversation SET log_from = greatest(log_from, $3) WHERE (peer, kind) = ($1, $2)", *name)

    async def run(self, statement: str, *arguments: object) -> None:
        assert self.bench.pool
        async with self.bench.pool.connection() as connection:
            await connection.execute(statement, *arguments)

    async def restart(self, number: int) -> None:
        """A new epoch; seldom, or nobody would ever go on."""
        if number % 4 == 0:
            await self.bench.marks.raise_epochs("example.org", self.bench.clock.now())

    async def nothing(self, number: int) -> None:
        await self.bench.clock.sleep(1)

    async def read(self, number: int) -> bool:
        """One page for one of the readers."""
        reader = self.readers[number % len(self.readers)]
        request = decode(reader.ask(), account=ANN, kind="get")
        assert isinstance(request, SyncRequest)
        return reader.told((await self.deltas.sync(ANN, "desk", request)).element)

    # ---- what has to be true ---------------------------------------------------------------------------------------

    async def hold(self) -> None:
        """Everybody reads to the end, and then what is new, while nobody writes."""
        whole = await self.bench.store.page(ANN, ListQuery())
        for number, reader in enumerate(self.readers):
            while not await self.read(number):
                pass
            while not await self.read(number):
                pass
            shown = [c for item in whole.items if reader.filters.match(c := item.conversation)]
            assert reader.held == {(c.key.peer, c.key.kind.value): c.version for c in shown}, reader.filters
            assert [one for one in self.log if not reader.knows(one)] == [], reader.filters
            for one in self.calls.values():
                name = (one.key.peer, one.session_id)
                assert (name in reader.ringing) == (one.state is CallState.RINGING), one
                assert one.version <= reader.all_loaded or reader.calls.get(name) == one.state, one


async def lived(bench: Bench, moves: list[Move]) -> World:
    """A world after these moves."""
    await bench.put(accounts=[account()])
    world = World(bench)
    for move in moves:
        await world.make(move)
    await world.hold()
    return world


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 99)), min_size=20, max_size=80))
def test_who_reads_to_the_end_holds_the_truth(moves: list[Move]) -> None:
    asyncio.run(lived(in_memory(), moves))


async def test_and_so_on_postgres(postgres: Bench) -> None:
    random, resets = Random(5), set()  # noqa: S311 - a test
    for _ in range(12):
        moves = [(random.choice(MOVES), random.randrange(100)) for _ in range(random.randrange(40, 160))]
        world = await lived(postgres, moves)
        resets |= {reset for reader in world.readers for reset in reader.resets}
        await world.run("DELETE FROM conversation; DELETE FROM change; DELETE FROM call; DELETE FROM account")
    assert resets == {"epoch", "expired"}


def test_changes_of_what_was_bumped_while_a_chain_was_read_are_told() -> None:
    """The hole that a page's `since` alone would leave: said, edited, a page, said again, the other page."""

    async def told() -> list[set[int]]:
        world = World(in_memory())
        await world.bench.put(accounts=[account()])
        for number in (0, 1, 2):
            await world.say(number)
        while not await world.read(1):
            pass
        for move in (("edit", 0), ("say", 1), ("say", 2)):
            await world.make(move)
        assert not await world.read(1)
        await world.say(0)
        await world.hold()
        return [{version for _, version in reader.known} for reader in world.readers[:2]]

    assert asyncio.run(told())[1]
