"""Whatever was said, read, retracted and trimmed in whatever order: every counter is its base plus a recount of the
index, and Postgres trims what memory trims. The moves are this test's own, as simple as the model lets them be.
"""

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import Base, Conversation, ConversationKey, Direction, Kind, Pointer, Status
from sync.model.room import EntryKind, RoomEntry
from sync.ports import Retention
from sync.rules.times import microseconds
from tests.contract.fakes_housekeeping import MemoryHousekeeping
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_tables import Tables, behind, recount
from tests.contract.houses import DAY, House, in_house
from tests.contract.samples import (
    ANN,
    BOB,
    EVE,
    NOW,
    OF_TEA,
    TEA,
    WITH_BOB,
    account,
    change,
    conversation,
    entry,
    last,
    member,
    membership,
    message,
    room,
)
from tests.contract.stores import Bench

KEEPS = [
    Retention(messages=3, messages_at_least=1, message_age=2 * DAY, changes=2, change_age=3 * DAY, horizon=4 * DAY),
    Retention(messages=6, messages_at_least=3, message_age=4 * DAY, changes=3, change_age=9 * DAY, horizon=2 * DAY),
    Retention(messages=1, messages_at_least=1, message_age=90 * DAY, changes=0, change_age=DAY, horizon=30 * DAY),
]
MOVES = ("hear", "write", "react", "take_back", "read", "say", "take_back_in_room", "read_room", "fan", "fan_some")
MOVES += ("leave", "join", "delete", "trim", "trim", "wait")
Move = tuple[str, int, bool]


class World:
    """Ann with Bob, and both Ann and Eve in a room, in memory. A move has a number that chooses, and a flag."""

    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.keeping = MemoryHousekeeping(self.store)
        self.tables.accounts = {jid: account(jid) for jid in (ANN, EVE)}
        self.tables.rooms[TEA] = room()
        self.tables.members = {(TEA, jid): member(jid) for jid in (ANN, EVE)}
        for stored in (conversation(), membership(2, ANN), membership(1, EVE)):
            self.tables.conversations[stored.key] = stored

    @property
    def tables(self) -> Tables:
        return self.store.tables

    def make(self, move: Move) -> None:
        name, number, flag = move
        self.clock.instant += DAY / 4
        getattr(self, name)(number, flag)
        self.hold()

    def hold(self) -> None:
        """What has to be true. Who left a room is told no more, and counts as before."""
        for key, found in self.tables.conversations.items():
            if key.kind is Kind.CHAT or (TEA, key.account) in self.tables.members:
                assert (found.unread, found.mentions) == recount(self.tables, key), key

    # ---- moves ----

    def change(self, key: ConversationKey, **fields: Any) -> Conversation:
        """The conversation at a new version, and its owner with it."""
        owner = self.tables.accounts[key.account]
        version = max(owner.version + 1, microseconds(self.clock.now()))
        self.tables.accounts[key.account] = replace(owner, version=version)
        found = self.tables.conversations.get(key) or Conversation(key=key, version=0, activity_at=self.clock.now())
        self.tables.conversations[key] = replace(found, version=version, **fields)
        return self.tables.conversations[key]

    def hear(self, number: int, flag: bool) -> None:
        found = self.change(WITH_BOB, status=Status.ACTIVE)
        counts = {"unread": found.unread + 1, "mentions": found.mentions + flag}
        self.tables.conversations[WITH_BOB] = replace(found, **counts, last=last(found.version))
        self.tables.messages[WITH_BOB, found.version] = message(found.version, mention=flag)

    def write(self, number: int, flag: bool) -> None:
        found = self.change(WITH_BOB, status=Status.ACTIVE)
        self.tables.conversations[WITH_BOB] = replace(found, last=last(found.version))
        sent = message(found.version, direction=Direction.OUT, counted=False)
        self.tables.messages[WITH_BOB, found.version] = sent

    def react(self, number: int, flag: bool) -> None:
        found = self.change(WITH_BOB)
        self.tables.messages[WITH_BOB, found.version] = message(found.version, counted=False)
        self.tables.changes[ANN, found.version] = change(found.version, stanza=None)

    def pick(self, key: ConversationKey, number: int) -> Any:
        found = [m for (where, _), m in sorted(self.tables.messages.items(), key=lambda row: row[0][1]) if where == key]
        return found[number % len(found)] if found else None

    def take_back(self, number: int, flag: bool) -> None:
        target = self.pick(WITH_BOB, number)
        if target is None or target.retracted:
            return
        found = self.change(WITH_BOB)
        self.tables.messages[WITH_BOB, target.rank] = replace(target, retracted=found.version)
        if target.counted and target.rank > max(found.read.rank, found.base.rank):
            counts = {"unread": found.unread - 1, "mentions": found.mentions - target.mention}
            self.tables.conversations[WITH_BOB] = replace(found, **counts)

    def read(self, number: int, flag: bool, key: ConversationKey = WITH_BOB, index: ConversationKey = WITH_BOB) -> None:
        target, found = self.pick(index, number), self.tables.conversations.get(key)
        if target is None or found is None or target.rank <= found.read.rank:
            return
        if found.base.unread and target.rank <= found.base.rank:
            return
        left = behind(self.tables, key, target.rank)
        self.change(key, read=Pointer(target.rank, "a"), unread=left.unread, mentions=left.mentions, base=Base())

    def delete(self, number: int, flag: bool) -> None:
        if WITH_BOB in self.tables.conversations:
            found = self.change(WITH_BOB, status=Status.DELETED, unread=0, mentions=0, base=Base())
            self.tables.conversations[WITH_BOB] = replace(found, read=Pointer(found.version))

    def enter(self, kind: EntryKind, **fields: Any) -> int:
        """Something happens in the room."""
        found = self.tables.rooms[TEA]
        rank = max(found.version + 1, microseconds(self.clock.now()))
        self.tables.rooms[TEA] = replace(found, version=rank)
        self.tables.entries[TEA, rank] = entry(rank, kind=kind, **fields)
        return rank

    def say(self, number: int, flag: bool) -> None:
        author, meant = (ANN, EVE, BOB)[number % 3], (ANN,) if flag else ()
        rank = self.enter(EntryKind.MESSAGE, author=author, mentions=meant)
        self.tables.messages[OF_TEA, rank] = message(rank, OF_TEA, author=author, mentions=meant)

    def take_back_in_room(self, number: int, flag: bool) -> None:
        target = self.pick(OF_TEA, number)
        if target is not None and not target.retracted:
            about = {"target_rank": target.rank, "target_id": "a", "target_author": target.author}
            rank = self.enter(EntryKind.RETRACTED, **about, target_mentions=target.mentions)
            self.tables.messages[OF_TEA, target.rank] = replace(target, retracted=rank)

    def read_room(self, number: int, flag: bool) -> None:
        key = ConversationKey((ANN, EVE)[flag], TEA, Kind.GROUP)
        target = self.pick(OF_TEA, number)
        known = target is not None and target.rank <= self.tables.conversations[key].taken
        if known and (TEA, key.account) in self.tables.members:
            self.read(number, flag, key, OF_TEA)

    def fan(self, number: int, flag: bool) -> None:
        for jid in (ANN, EVE):
            self.deliver(jid)
        self.tables.rooms[TEA] = replace(self.tables.rooms[TEA], fanned=self.tables.rooms[TEA].version)
        self.tables.entries = {}

    def fan_some(self, number: int, flag: bool) -> None:
        self.deliver((ANN, EVE)[flag])

    def deliver(self, jid: str) -> None:
        if (TEA, jid) in self.tables.members:
            for _, one in sorted(self.tables.entries.items()):
                self.take(ConversationKey(jid, TEA, Kind.GROUP), one)

    def take(self, key: ConversationKey, one: RoomEntry) -> None:
        found = self.tables.conversations[key]
        if one.rank <= found.taken:
            return
        unread, mentions = found.unread, found.mentions
        if one.kind is EntryKind.MESSAGE:
            counted = one.author != key.account
            unread, mentions = unread + counted, mentions + (counted and key.account in one.mentions)
            found = replace(found, last=last(one.rank))
        elif one.target_author != key.account and one.target_rank is not None:
            counted = max(found.read.rank, found.base.rank) < one.target_rank <= found.taken
            unread, mentions = unread - counted, mentions - (counted and key.account in one.target_mentions)
        self.change(key, unread=unread, mentions=mentions, last=found.last, taken=one.rank)

    def leave(self, number: int, flag: bool) -> None:
        self.fan(number, flag)
        self.tables.members.pop((TEA, ANN), None)

    def join(self, number: int, flag: bool) -> None:
        if (TEA, ANN) not in self.tables.members:
            self.fan(number, flag)
            rank = self.tables.rooms[TEA].version
            self.tables.members[TEA, ANN] = member(since=rank)
            key = ConversationKey(ANN, TEA, Kind.GROUP)
            found = self.tables.conversations[key]
            base = Base(unread=found.unread, mentions=found.mentions, rank=rank) if found.unread else Base()
            self.change(key, taken=rank, base=base, read=found.read if found.unread else Pointer(rank))

    def wait(self, number: int, flag: bool) -> None:
        self.clock.instant += number * DAY

    def trim(self, number: int, flag: bool) -> None:
        self.keeping.trim_at = dict.fromkeys((TEA, ANN, EVE) if flag else (ANN,), self.clock.now())
        before = {key: (c.unread, c.mentions, c.version) for key, c in self.tables.conversations.items()}
        self.keeping.tidy(self.clock.now(), KEEPS[number % len(KEEPS)], 9)
        for key, found in self.tables.conversations.items():
            assert (found.unread, found.mentions, found.version) == before[key]


moves = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 12), st.booleans()), min_size=30, max_size=80)


@given(moves)
def test_counters_are_base_and_recount(made: list[Move]) -> None:
    world = World()
    for move in made:
        world.make(move)


def test_and_a_base_left_out_would_be_noticed() -> None:
    world = World()
    for move in [("hear", 0, False)] * 9 + [("trim", 0, False)]:
        world.make(move)
    found = world.tables.conversations[WITH_BOB]
    world.tables.conversations[WITH_BOB] = replace(found, base=Base())
    assert recount(world.tables, WITH_BOB) != (found.unread, found.mentions)


async def test_postgres_trims_what_memory_trims(postgres: Bench) -> None:
    """Random worlds as they are, trimmed at once by both; rows are compared whole."""
    house = in_house(postgres)
    for seed in range(60):
        world, random = World(), Random(seed)  # noqa: S311 - a test
        for _ in range(random.randrange(10, 90)):
            world.make((random.choice(MOVES), random.randrange(13), random.random() < 0.5))
        await empty(house)
        await house.put(**rows_of(world.tables))
        now, keep = world.clock.now(), random.choice(KEEPS)
        for jid in (TEA, ANN, EVE):
            world.keeping.trim_at[jid] = now
            await house.turn_at(jid, now)
        expected = world.keeping.tidy(now, keep, 9)
        found = await house.keeping.trim(now, keep, 9)
        assert {table: n for table, n in found.rows.items() if n} == {t: n for t, n in expected.rows.items() if n}, seed
        # Putting an account there is its first contact; it is not trimmed.
        assert replace(await house.tables(), bootstraps={}) == world.tables, seed


async def empty(house: House) -> None:
    assert house.bench.pool
    async with house.bench.pool.connection() as connection:
        tables = ("account", "conversation", "message", "change", "call", "room", "room_member", "room_entry")
        await connection.execute(";".join(f"DELETE FROM {table}" for table in tables))  # noqa: S608


def rows_of(tables: Tables) -> dict[str, Any]:
    names = ("accounts", "conversations", "messages", "changes", "rooms", "members", "entries")
    return {name: list(getattr(tables, name).values()) for name in names}
