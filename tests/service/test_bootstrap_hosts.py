"""First contact of a whole host, and of its rooms."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.bootstrap import BootstrapState
from sync.model.conversation import ConversationKey, Kind
from sync.model.errors import StoreUnavailable
from sync.rules.times import microseconds
from tests.contract.samples import ANN, NOW, TEA, member, owned, storing
from tests.service.archived import of_kind, refusing, talk
from tests.service.archives import HOST, ROOMS, House


async def test_a_host_is_listed_and_read() -> None:
    house = House()
    house.server.most = 2
    house.server.names = [f"user{n}@{HOST}" for n in range(5)] + ["strange@elsewhere.example", f"x@{HOST}/r"]
    talk(house, 1, "user3@" + HOST)
    await house.store.ask([HOST], NOW)
    users = [f"user{n}@{HOST}" for n in range(5)]
    await house.until(lambda: all(house.done(name) for name in [HOST, *users]))
    assert set(house.store.tables.accounts) == set(users)
    assert house.row(f"user3@{HOST}").restored == 1


def room(house: House, many: int) -> None:
    house.store.apply(owned(ANN, rooms={TEA}), storing(members=[member()]))
    for n in range(many):
        house.server.said(TEA, f"r{n}", house.ago(30) + n * 600_000_000, f"text {n}", f"{TEA}/Bob")


@pytest.mark.parametrize("many", [3, 50, 51, 2000])
async def test_of_a_room_the_newest_page_is_read(many: int) -> None:
    house = House()
    room(house, many)
    await house.until(lambda: house.done(TEA))
    entries = [entry for _, entry in sorted(house.store.tables.entries.items())]
    assert entries[-1].archive_id == f"r{many - 1}"
    assert 1 <= len(entries) <= 50
    assert {(entry.past, entry.counted) for entry in entries} == {(True, False)}
    assert house.owed == {TEA}
    assert len(of_kind(house, "archive")) < 30


async def test_what_a_room_lost_is_unread() -> None:
    house = House()
    room(house, 3)
    house.store.tables.bootstraps[TEA] = replace(house.row(TEA), turn=2, start=house.ago(40))
    for n in range(120):
        house.server.said(TEA, f"l{n}", microseconds(NOW) + n + 1, f"lost {n}", f"{TEA}/Bob")
    house.clock.instant = NOW.replace(minute=30)
    await house.until(lambda: house.done(TEA))
    counted = [entry.counted for _, entry in sorted(house.store.tables.entries.items())]
    assert counted == [False] * 3 + [True] * 120


async def test_a_room_whose_commit_stood_unseen_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    room(house, 3)
    transact, torn = house.store.transact, [True]

    async def cut(keys: Any, rule: Any) -> Any:
        done = await transact(keys, rule)
        if keys.rooms and torn:
            torn.clear()
            raise StoreUnavailable("ConnectionDoesNotExistError")
        return done

    monkeypatch.setattr(house.store, "transact", cut)
    await house.until(lambda: house.done(TEA))
    assert house.owed == {TEA}


async def test_a_room_that_is_gone() -> None:
    house = House()
    room(house, 0)
    house.server.refuse = refusing("archive", "item-not-found")
    await house.until(lambda: house.done(TEA))
    assert house.row(TEA).why == "no-account"


async def test_each_host_for_itself() -> None:
    house = House()
    room(house, 3)
    house.server.refuse = lambda asked: "forbidden" if asked.get("account") == TEA else None
    await house.until(house.done)
    assert house.row(TEA).state is BootstrapState.WAITING
    assert ConversationKey(ANN, TEA, Kind.GROUP) not in house.store.tables.conversations
    assert ROOMS in house.feeds
