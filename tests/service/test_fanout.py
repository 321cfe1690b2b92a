"""Rooms and what they owe: turns, whoever asks before its turn, what an earlier process left, what cannot be stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import pytest

from sync.model.books import Keys, Rule
from sync.model.errors import StoreUnavailable, Uncommittable
from sync.model.room import RoomEntry, RoomMember
from sync.rules.fold import Policies
from sync.service import fanout
from sync.service.fanout import FanOut
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_tables import recount
from tests.contract.samples import ANN, EVE, IN_TEA, NOW, STANZA, TEA, account, entry, member, owned, room, storing

CAKE = "cake@rooms.example.org"
T = TypeVar("T")
FAY = "fay@example.org"


class Moody(MemoryStore):
    """A store that refuses what it is told to, and says whom it served."""

    def __init__(self, clock: SetClock) -> None:
        super().__init__(clock)
        self.away = 0
        self.refused: frozenset[str] = frozenset()
        self.served: list[frozenset[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        if not keys.conversations:
            return await super().transact(keys, rule)
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        if self.refused & keys.accounts:
            raise Uncommittable("conversation_counts")
        self.served.append(keys.accounts)
        return await super().transact(keys, rule)


class Bench:
    """A fan-out on a store in memory with rooms and members."""

    def __init__(self) -> None:
        self.store, self.observer = Moody(SetClock(NOW)), RecordingObserver()
        self.fanout = FanOut(
            store=self.store,
            rooms=self.store,
            clock=self.store.clock,
            observer=self.observer,
            policies=Policies(),
            due=lambda _: None,
        )

    def put(self, where: str, members: Sequence[RoomMember], ranks: Sequence[int]) -> None:
        """A room with members and messages."""
        said = [entry(rank, where, author="dan@example.net", stanza=STANZA) for rank in ranks]
        rows = storing(
            rooms=[room(where, version=max(ranks))],
            members=members,
            entries=said,
            accounts=[account(m.account) for m in members],
        )
        self.store.apply(owned(*(m.account for m in members), rooms={where}), rows)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self.fanout.lead()
        task = asyncio.ensure_future(self.fanout.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def unread(self, owner: str = ANN, where: str = TEA) -> int:
        found = [
            c.unread for key, c in self.store.tables.conversations.items() if key.account == owner and key.peer == where
        ]
        return sum(found)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_an_earlier_process_left_is_paid(bench: Bench) -> None:
    bench.put(TEA, [member(ANN), member(EVE)], [5, 6])
    async with bench.at_work():
        await bench.fanout.settled()
    assert (bench.unread(ANN), bench.unread(EVE)) == (2, 2)
    assert not bench.store.tables.entries
    assert bench.store.tables.rooms[TEA].fanned == 6


async def test_who_does_not_lead_serves_nobody(bench: Bench) -> None:
    bench.put(TEA, [member()], [5])
    task = asyncio.ensure_future(bench.fanout.run())
    bench.fanout.lead()
    bench.fanout.step_back()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not bench.store.served
    task.cancel()


async def test_who_asks_is_served_before_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fay's chunk is the last one, and the pass is held up at the first."""
    monkeypatch.setattr(fanout, "CHUNK", 1)
    bench.put(TEA, [member(ANN), member(EVE), member(FAY)], [5])
    bench.store.gate.clear()
    async with bench.at_work():
        asked = asyncio.ensure_future(bench.fanout.catch_up(FAY))
        while not asked.done():
            bench.store.gate.set()
            await asyncio.sleep(0)
            bench.store.gate.clear()
            if bench.unread(FAY):
                break
        assert bench.unread(FAY) == 1
        bench.store.gate.set()
        await bench.fanout.settled()
    assert [bench.unread(name) for name in (ANN, EVE, FAY)] == [1, 1, 1]


async def test_who_asks_gets_every_entry_however_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "ENTRIES", 2)
    bench.put(TEA, [member()], range(5, 12))
    bench.fanout.lead()
    bench.fanout.owe([TEA])
    bench.fanout._known.set()
    await bench.fanout.catch_up(ANN)
    assert bench.unread() == 7
    assert recount(bench.store.tables, IN_TEA)[0] == 0  # the entries were put without an index


async def test_who_asks_again_is_not_given_it_again(bench: Bench) -> None:
    """A large room owes the others for a while; whoever has everything is neither locked nor served."""
    bench.put(TEA, [member(ANN), member(EVE)], [5, 6])
    bench.fanout.owe([TEA])
    bench.fanout._known.set()
    await bench.fanout.catch_up(ANN)
    await bench.fanout.catch_up(ANN)
    assert bench.store.served == [frozenset({ANN})]
    assert bench.unread() == 2


async def test_many_entries_go_to_few_members_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is some milliseconds of work, whatever it is made of."""
    monkeypatch.setattr(fanout, "WORK", 5)
    bench.put(TEA, [member(ANN), member(EVE), member(FAY)], [5, 6])
    bench.put(CAKE, [member(FAY, CAKE)], [5, 6, 7, 8, 9, 10])
    async with bench.at_work():
        await bench.fanout.settled()
    assert bench.store.served == [frozenset({ANN, EVE}), frozenset({FAY}), frozenset({FAY})]


async def test_rooms_take_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "ENTRIES", 1)
    bench.put(TEA, [member(ANN)], [5, 6])
    bench.put(CAKE, [member(EVE, CAKE)], [5, 6])
    async with bench.at_work():
        await bench.fanout.settled()
    assert bench.store.served == [frozenset({ANN}), frozenset({EVE})] * 2


async def test_the_database_away_delays_and_loses_nothing(bench: Bench) -> None:
    bench.put(TEA, [member()], [5])
    bench.store.away = 2
    async with bench.at_work():
        await bench.fanout.settled()
    assert bench.unread() == 1


async def test_one_member_that_cannot_be_stored_keeps_nobody_waiting(bench: Bench) -> None:
    bench.put(TEA, [member(ANN), member(EVE), member(FAY)], [5])
    bench.store.refused = frozenset({EVE})
    async with bench.at_work():
        await bench.fanout.settled()
    assert [bench.unread(name) for name in (ANN, EVE, FAY)] == [1, 0, 1]
    owner = bench.store.tables.accounts[EVE]
    assert (owner.epoch, owner.floor) == (2, owner.version)  # its clients load everything anew
    assert bench.observer.told("epoch_raised") == [{"why": "room-entry"}]


async def test_an_affiliation_without_an_account_gets_nothing(bench: Bench) -> None:
    bench.put(TEA, [member(ANN), member(EVE)], [5])
    del bench.store.tables.accounts[EVE]
    async with bench.at_work():
        await bench.fanout.settled()
    assert (bench.unread(ANN), bench.unread(EVE)) == (1, 0)
    assert EVE not in bench.store.tables.accounts


async def test_entries_for_one_member_touch_no_other(bench: Bench) -> None:
    bench.put(TEA, [member(ANN), member(EVE)], [5])
    tables = bench.store.tables
    only = entry(6, only=ANN, author="dan@example.net", stanza=STANZA)
    tables.entries = {(TEA, 6): only}
    async with bench.at_work():
        await bench.fanout.settled()
    assert bench.store.served == [frozenset({ANN})]


async def test_what_is_owed_while_a_room_is_served_is_paid_too(bench: Bench) -> None:
    bench.put(TEA, [member()], [5])
    bench.store.gate.clear()
    async with bench.at_work():
        for _ in range(5):
            await asyncio.sleep(0)
        bench.put(TEA, [member()], [6])
        bench.fanout.owe([TEA])
        bench.store.gate.set()
        await bench.fanout.settled()
    assert bench.unread() == 2


async def test_who_leads_again_answers_though_no_room_says_anything(bench: Bench) -> None:
    """The database was away for some seconds: the lease is lost, and taken again by the same process."""
    async with bench.at_work():
        await bench.fanout.settled()
        await asyncio.sleep(0)
        bench.fanout.step_back()
        bench.put(TEA, [member()], [5])  # by who led meanwhile
        bench.fanout.lead()
        async with asyncio.timeout(60):
            await bench.fanout.catch_up(ANN)
            await bench.fanout.settled()
    assert bench.unread() == 1


async def test_what_was_looked_up_in_an_earlier_reign_is_not_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.store.pending_rooms

    async def interrupted(limit: int) -> Sequence[str]:
        found = await real(limit)
        monkeypatch.setattr(bench.store, "pending_rooms", real)
        bench.fanout.step_back()
        bench.put(TEA, [member()], [5])
        bench.fanout.lead()
        return found

    monkeypatch.setattr(bench.store, "pending_rooms", interrupted)
    async with bench.at_work():
        await bench.fanout.settled()
    assert bench.unread() == 1


async def test_who_is_put_out_while_it_asks_gets_nothing_of_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put(TEA, [member()], [5])
    real = bench.store.entries

    async def meanwhile(where: str, after: int, limit: int) -> Sequence[RoomEntry]:
        """The room's lane commits that Ann is out, and what is said then."""
        monkeypatch.setattr(bench.store, "entries", real)
        said = [entry(7, author="dan@example.net", stanza=STANZA)]
        bench.store.apply(
            owned(ANN, rooms={TEA}), storing(rooms=[room(version=7)], members=[member(until=6)], entries=said)
        )
        return await real(where, after, limit)

    monkeypatch.setattr(bench.store, "entries", meanwhile)
    bench.fanout.owe([TEA])
    bench.fanout._known.set()
    await bench.fanout.catch_up(ANN)
    assert bench.unread() == 1
