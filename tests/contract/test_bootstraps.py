"""What every Bootstraps promises (sync/ports/bootstrap.py): the in-memory one, and Postgres; and what the store and the
feed's marks do to its rows.
"""

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from sync.adapters.postgres.bootstrap import PostgresBootstraps
from sync.model.books import LostHost
from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.ports import Bootstraps, StreamMark
from sync.rules.times import microseconds
from tests.contract.fakes_store import MemoryStore
from tests.contract.samples import ANN, BOB, EVE, NOW, TEA, WITH_BOB, after, message, owned, seeing
from tests.contract.stores import Bench

HOST, ROOMS = "example.org", "rooms.example.org"
MADE = microseconds(NOW)
LATER = NOW + timedelta(days=1)


@pytest.fixture
def bootstraps(stores: Bench) -> Bootstraps:
    if stores.pool is not None:
        return PostgresBootstraps(stores.pool)
    return cast("MemoryStore", stores.store)


async def rows(bootstraps: Bootstraps, *hosts: str, now: object = LATER) -> dict[str, Bootstrap]:
    assert now is LATER
    return {row.account: row for row in await bootstraps.due(LATER, hosts or (HOST, ROOMS), 100)}


async def row(bootstraps: Bootstraps, account: str = ANN) -> Bootstrap:
    return (await rows(bootstraps))[account]


def fresh(account: str = ANN) -> Bootstrap:
    return Bootstrap(account=account, since=MADE, due_at=after(2))


async def test_an_account_is_made_with_its_row(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    await stores.put(ANN, EVE)
    assert await rows(bootstraps) == {ANN: fresh(), EVE: fresh(EVE)}


async def test_a_room_is_made_with_its_row(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.store.transact(owned(ANN, rooms={TEA}), seeing())
    assert await rows(bootstraps, ROOMS) == {TEA: fresh(TEA)}


async def test_it_is_due_a_moment_later(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    assert list(await bootstraps.due(after(1.9), [HOST], 10)) == []
    assert list(await bootstraps.due(after(2), ["elsewhere"], 10)) == []
    assert list(await bootstraps.due(after(2), [HOST], 0)) == []
    assert list(await bootstraps.due(after(2), [HOST], 10)) == [fresh()]


async def test_what_was_written_before_the_clock_was_set_back_is_due(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    yesterday = NOW - timedelta(days=1)
    assert list(await bootstraps.due(yesterday, [HOST], 10)) == [fresh()]


async def test_whoever_is_connected_is_met_once(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    await bootstraps.store(replace(fresh(), state=BootstrapState.DONE))
    assert await bootstraps.meet([ANN, EVE, EVE], NOW) == 1
    assert set(await rows(bootstraps)) == {EVE}
    assert await stores.store.account(EVE) is not None
    assert await bootstraps.meet([], NOW) == 0


async def test_a_page_moves_the_cursor_in_its_transaction(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    moved = replace(fresh(), after="a7", rank=9, start=3, seen=50, restored=40, attempts=1, due_at=after(9), why="w")
    await stores.put(ANN, messages=[message(5)], bootstraps=[moved])
    assert await row(bootstraps) == moved


async def test_what_was_asked_for_anew_is_not_moved_by_who_reads_it(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    reading = replace(fresh(), after="a7", rank=9, restored=3)
    await bootstraps.store(reading)
    assert await bootstraps.ask([ANN], after(60)) == [ANN]
    again = replace(fresh(), turn=2, due_at=after(60), restored=3)
    for late in (replace(reading, after="a8"), replace(reading, state=BootstrapState.DONE)):
        await bootstraps.store(late)
        await stores.put(ANN, bootstraps=[late])
        assert await row(bootstraps) == again


async def test_nobody_is_asked_for_who_is_not_known(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    assert list(await bootstraps.ask([EVE, TEA, BOB], NOW)) == []
    assert set(await rows(bootstraps)) == {ANN}


async def test_a_host_has_a_row_that_lists_it(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    await bootstraps.store(replace(fresh(), state=BootstrapState.DONE))
    assert await bootstraps.ask([HOST], NOW) == [HOST]
    host = await row(bootstraps, HOST)
    await bootstraps.enrol(replace(host, after=EVE, seen=2), [ANN, EVE], after(5), make=True)
    found = await rows(bootstraps)
    assert (found[HOST].after, found[HOST].seen) == (EVE, 2)
    assert (found[ANN].turn, found[ANN].due_at) == (2, after(5))
    assert await stores.store.account(EVE) is not None
    await bootstraps.enrol(replace(host, state=BootstrapState.DONE), [], after(6), make=True)
    assert set(await rows(bootstraps)) == {ANN, EVE}


async def test_a_host_of_rooms_lists_those_that_are_known(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.store.transact(owned(ANN, rooms={TEA}), seeing())
    await bootstraps.ask([ROOMS], NOW)
    await bootstraps.enrol(await row(bootstraps, ROOMS), [f"other@{ROOMS}", TEA], after(5), make=False)
    assert set(await rows(bootstraps, ROOMS)) == {ROOMS, TEA}
    assert (await row(bootstraps, TEA)).turn == 2


async def test_states_are_counted_without_hosts(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN, EVE)
    await bootstraps.ask([HOST], NOW)
    await bootstraps.store(replace(fresh(), state=BootstrapState.FAILED, why="w"))
    assert dict(await bootstraps.counts([HOST])) == {"failed": 1, "waiting": 1}
    assert dict(await bootstraps.counts(["elsewhere"])) == {}


async def test_an_account_that_is_deleted_has_no_row(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    await stores.put(ANN, deleted_accounts=[ANN])
    assert await rows(bootstraps) == {}
    await bootstraps.store(fresh())
    assert await rows(bootstraps) == {}


async def lose(stores: Bench, host: str, why: str) -> None:
    if why == "hello":
        await stores.marks.raise_epochs(host, after(100))
    else:
        await stores.put(ANN, lost_hosts=[LostHost(host=host, version=microseconds(after(100)), keep="new")])


@pytest.mark.parametrize("why", ["hello", "gap"])
async def test_after_a_loss_archives_are_read_from_the_last_good_time(
    stores: Bench, bootstraps: Bootstraps, why: str
) -> None:
    await stores.store.transact(owned(ANN, EVE, rooms={TEA}), seeing())
    for name in (ANN, EVE):
        await bootstraps.store(replace(fresh(name), state=BootstrapState.DONE, after="a", rank=7, restored=4))
    good = microseconds(after(3600))
    marks = [StreamMark(stream=name, shard="0", committed=1, seen=1, good=good - n) for n, name in enumerate("ab")]
    await stores.marks.mark(HOST, marks)
    await lose(stores, HOST, why)
    again = replace(fresh(), turn=2, start=good - 300_000_000, due_at=after(102), restored=4)
    assert await rows(bootstraps, HOST) == {ANN: again, EVE: replace(again, account=EVE)}
    assert await row(bootstraps, TEA) == fresh(TEA)


@pytest.mark.parametrize(("rank", "start"), [(0, 0), (9, 9)])
@pytest.mark.parametrize("state", [BootstrapState.WAITING, BootstrapState.FAILED])
async def test_whoever_is_not_done_begins_where_it_was(
    stores: Bench, bootstraps: Bootstraps, rank: int, start: int, state: BootstrapState
) -> None:
    await stores.put(ANN)
    await bootstraps.store(replace(fresh(), after="a" if rank else None, rank=rank, state=state, why="no-answer"))
    await stores.marks.mark(HOST, [StreamMark(stream="a", shard="0", committed=1, seen=1, good=MADE)])
    await lose(stores, HOST, "gap")
    assert (await row(bootstraps)).start == start


async def test_without_a_good_time_from_the_first_contact_on(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.put(ANN)
    await bootstraps.store(replace(fresh(), state=BootstrapState.DONE))
    await lose(stores, HOST, "gap")
    assert (await row(bootstraps)).start == MADE - 300_000_000


async def test_a_room_that_lost_something_alone(stores: Bench, bootstraps: Bootstraps) -> None:
    await stores.store.transact(owned(ANN, rooms={TEA, f"den@{ROOMS}"}), seeing())
    await lose(stores, TEA, "gap")
    assert (await row(bootstraps, TEA)).turn == 2
    assert {found.turn for name, found in (await rows(bootstraps)).items() if name != TEA} == {1}


async def test_good_times_do_not_go_back(stores: Bench) -> None:
    mark = StreamMark(stream="a", shard="0", committed=5, seen=5, good=9)
    await stores.marks.mark(HOST, [mark])
    await stores.marks.mark(HOST, [replace(mark, good=0)])
    assert list(await stores.marks.marks(HOST)) == [mark]
    await stores.marks.raise_epochs(HOST, NOW, marks=[replace(mark, committed=4, good=0)])
    assert list(await stores.marks.marks(HOST)) == [replace(mark, committed=4)]


async def test_messages_by_their_places(stores: Bench) -> None:
    await stores.put(ANN, messages=[message(5, archive_key="a"), message(6, archive_key="b")])
    books = await stores.store.transact(owned(ANN, places={(WITH_BOB, 5), (WITH_BOB, 7)}), seeing())
    assert [found.archive_key for found in books.messages[WITH_BOB]] == ["a"]
