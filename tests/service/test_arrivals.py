"""Who is met for the first time while a room speaks: its account is committed beside the room's entries, and it has
what was told after its own first event.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.books import Keys, Rule
from sync.model.event import FeedPosition, SessionChange, SessionEvent
from sync.model.jid import lane
from sync.model.room import RoomMember
from sync.rules.fold import Policies
from sync.service import arrivals
from sync.service.arrivals import Arrivals
from sync.service.fanout import FanOut
from sync.service.ingest import Ingest
from tests.contract.samples import ANN, EVE, NOW, STANZA, TEA, account, entry, member, owned, room, storing
from tests.service.test_fanout import CAKE, Bench, Moody

HOST = "example.org"
T = TypeVar("T")


class Host:
    """Plays the feed of the accounts' host, as far as it is asked."""

    def __init__(self) -> None:
        self.caught_up, self.missing_since = asyncio.Event(), math.inf
        self.caught_up.set()


class Guarded(Moody):
    """A store in which an account of the feed is not made before its time."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked, self.made = asyncio.Event(), asyncio.Event()
        self.begun, self.moved = asyncio.Event(), asyncio.Event()

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        if keys.create and ANN in keys.accounts:
            self.asked.set()
            await self.made.wait()
        elif keys.conversations:
            self.begun.set()
        done = await super().transact(keys, rule)
        self.moved.set()
        return done


class House(Bench):
    """A fan-out beside the lanes. Ann has no account."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Guarded = Guarded(self.store.clock)
        self.host: Any = Host()
        wire: Any = None  # nothing is paused
        self.ingest = Ingest(
            store=self.store,
            presence=MemoryPresence(),
            wire=wire,
            clock=self.store.clock,
            observer=self.observer,
            policies=Policies(),
            workers=2,
            batch=100,
            queue=1000,
            committed=lambda _: None,
            due=lambda _: None,
            owed=lambda _: None,
        )
        self.fanout = FanOut(
            store=self.store,
            rooms=self.store,
            clock=self.store.clock,
            observer=self.observer,
            policies=Policies(),
            due=lambda _: None,
            arrivals=Arrivals({HOST: self.host}, lambda: self.ingest),
        )
        self.say(TEA, 5)

    def say(self, where: str, rank: int, *others: RoomMember) -> None:
        """Something is said in a room of Ann and Eve, or of others. Nothing is known of Ann by that."""
        members = others or (member(ANN, where), member(EVE, where))
        rows = storing(
            rooms=[room(where, version=rank)],
            members=members,
            entries=[entry(rank, where, author="dan@example.net", stanza=STANZA)],
            accounts=[account(EVE)] if EVE not in self.store.tables.accounts else [],
        )
        self.store.apply(owned(EVE, rooms={where}), rows)

    def connects(self, owner: str = ANN, n: int = 1) -> None:
        """The feed tells of a first session."""
        position = FeedPosition(HOST, "s", "0", n)
        self.ingest.put(
            [SessionEvent(position=position, account=owner, at=NOW, resource="phone", change=SessionChange.BOUND)]
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        lanes = asyncio.ensure_future(self.ingest.run())
        try:
            async with super().at_work():
                yield
        finally:
            lanes.cancel()
            await asyncio.gather(lanes, return_exceptions=True)

    async def served(self, owner: str, where: str = TEA) -> None:
        """Until the member has something of the room."""
        async with asyncio.timeout(60):
            while not self.unread(owner, where):
                self.store.moved.clear()
                await self.store.moved.wait()

    async def met(self) -> None:
        """Until Ann has an account, and whoever waited for that has gone on."""
        self.store.made.set()
        await self.ingest.barrier(ANN)
        for _ in range(20):
            await asyncio.sleep(0)

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            await self.fanout.settled()


@pytest.fixture
def house() -> House:
    assert len({lane(ANN), lane(EVE)}) == 2
    return House()


async def test_whose_first_session_is_being_committed_has_what_the_room_says(house: House) -> None:
    house.connects()
    async with house.at_work():
        await house.store.asked.wait()
        await house.served(EVE)
        assert ANN not in house.store.tables.accounts
        house.store.made.set()
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (1, 1)
    assert not house.store.tables.entries
    assert not house.ingest.coming([ANN])


async def test_who_is_committed_the_moment_after_the_chunk_looked_has_it_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = house.store.transact

    async def looked(keys: Keys, rule: Rule[T]) -> T:
        done = await real(keys, rule)
        if keys.conversations:
            house.store.made.set()
            await house.ingest.barrier(ANN)
        return done

    house.connects()
    monkeypatch.setattr(house.fanout, "_commit", looked)
    async with house.at_work():
        await house.settled()
    assert house.unread(ANN) == 1


async def test_other_rooms_do_not_wait_for_it_and_its_own_keeps_the_order(house: House) -> None:
    house.connects()
    async with house.at_work():
        await house.served(EVE)
        house.say(TEA, 6)
        house.say(CAKE, 5, member(EVE, CAKE))
        house.fanout.owe([TEA, CAKE])
        await house.served(EVE, CAKE)
        assert (house.unread(ANN), house.unread(EVE)) == (0, 1)
        house.store.made.set()
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (2, 2)


async def test_who_is_met_meanwhile_and_asks_has_it_once(house: House) -> None:
    house.connects()
    async with house.at_work():
        await house.served(EVE)
        house.store.gate.clear()  # the room's turn comes later
        house.store.made.set()
        await house.ingest.barrier(ANN)
        asked = asyncio.ensure_future(house.fanout.catch_up(ANN))
        house.store.gate.set()
        await asked
        assert house.unread(ANN) == 1
        await house.settled()
    assert house.unread(ANN) == 1


async def test_a_lane_that_stands_still_is_not_waited_for_without_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "PATIENCE", 0.05)
    house.connects()
    async with house.at_work():
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (0, 1)
    assert not house.store.tables.entries


async def test_whom_nobody_expects_costs_nothing_more(house: House) -> None:
    house.connects(EVE)
    async with house.at_work():
        await house.settled()
    assert house.store.served == [frozenset({ANN, EVE})]
    assert ANN not in house.store.tables.accounts


async def test_what_a_host_kept_while_nobody_listened_comes_first(house: House) -> None:
    """Rooms are fetched before accounts: the first session was told before, and comes later."""
    house.store.made.set()
    house.host.caught_up.clear()
    async with house.at_work():
        await house.served(EVE)
        house.host.missing_since = monotonic()
        house.connects()
        house.host.caught_up.set()
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (1, 1)


async def test_a_host_that_does_not_catch_up_is_not_waited_for_without_end(house: House) -> None:
    house.host.caught_up.clear()
    house.host.missing_since = monotonic() - arrivals.PATIENCE
    async with house.at_work():
        await house.settled()
    assert house.store.served == [frozenset({ANN, EVE})]


async def test_the_database_away_at_the_end_delays_and_loses_nothing(house: House) -> None:
    house.connects()
    async with house.at_work():
        await house.served(EVE)
        house.store.away = 2
        house.store.made.set()
        await house.settled()
    assert house.unread(ANN) == 1


async def test_who_leads_next_owes_it(house: House) -> None:
    house.connects()
    async with house.at_work():
        await house.served(EVE)
        house.fanout.step_back()
        await house.met()
        assert house.store.tables.entries
        house.fanout.lead()
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (1, 1)
    assert not house.store.tables.entries


async def test_who_steps_back_in_the_middle_of_a_pass_leaves_it_to_the_next(house: House) -> None:
    house.connects()
    house.store.gate.clear()
    async with house.at_work():
        await house.store.begun.wait()
        house.fanout.step_back()
        house.store.gate.set()
        await house.served(EVE)
        await house.met()
        assert house.store.tables.entries
        house.fanout.lead()
        await house.settled()
    assert (house.unread(ANN), house.unread(EVE)) == (1, 1)
