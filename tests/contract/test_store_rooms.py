"""What every Store and every Rooms promises of the rooms of this server: in memory, and on Postgres."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books, LostHost, Unlisted
from sync.model.call import CallStep
from sync.model.errors import Uncommittable
from sync.model.room import Affiliation, EntryKind, RoomEntry, nick_key
from tests.contract.samples import (
    ANN,
    CAT,
    DAN,
    EVE,
    NOW,
    TEA,
    account,
    after,
    entry,
    member,
    owned,
    room,
    seeing,
    storing,
)
from tests.contract.stores import Bench

CAKE = "cake@rooms.example.org"


async def put(stores: Bench, *rooms: str, **rows: Any) -> None:
    """Store rows of rooms as they are."""
    await stores.store.transact(owned(rooms=rooms or (TEA,)), storing(**rows))


async def loaded(stores: Bench, **keys: Any) -> Books:
    return await stores.store.transact(owned(create=False, **keys), seeing())  # type: ignore[no-any-return]


# ---- rooms ----------------------------------------------------------------------------------------------------------


async def test_a_room_is_made_where_asked_for(stores: Bench) -> None:
    books = await stores.store.transact(owned(rooms=[TEA, CAKE]), seeing())
    assert books.rooms == {jid: room(jid) for jid in (TEA, CAKE)}
    assert (await loaded(stores, rooms=[TEA])).rooms == {TEA: room()}


async def test_and_not_otherwise(stores: Bench) -> None:
    assert (await loaded(stores, rooms=[TEA])).rooms == {}


async def test_accounts_and_rooms_are_made_beside_known_ones(stores: Bench) -> None:
    await put(stores, rooms=[room(version=7)])
    books = await stores.store.transact(owned(ANN, EVE, rooms=[TEA, CAKE]), seeing())
    assert ({*books.accounts}, books.rooms) == ({ANN, EVE}, {TEA: room(version=7), CAKE: room(CAKE)})


async def test_a_room_comes_back_as_it_was_stored(stores: Bench) -> None:
    stored = room(version=9, fanned=8, private=True, destroyed=True, listing=7, called_at=NOW)
    await put(stores, rooms=[stored])
    assert (await loaded(stores, rooms=[TEA])).rooms == {TEA: stored}


@pytest.mark.parametrize(
    ("constraint", "rows"),
    [
        ("room_fanned_what_is_there", {"rooms": [room(version=5, fanned=6)]}),
        ("room_member_keys_are_short", {"members": [member(occupant_id="x" * 129)]}),
        ("room_entry_message_has_stanza", {"entries": [entry(stanza=None)]}),
        ("room_entry_call_has_step", {"entries": [entry(kind=EntryKind.CALL, target_id="a")]}),
        ("room_entry_call_has_step", {"entries": [entry(kind=EntryKind.CALL, step=CallStep.REJECT)]}),
        (
            "room_entry_call_has_step",
            {"entries": [entry(kind=EntryKind.CALL, step=CallStep.PROPOSE, target_id="a", stanza=None)]},
        ),
        ("room_entry_change_has_target", {"entries": [entry(kind=EntryKind.REACTED)]}),
        ("room_entry_pkey", {"entries": [entry(), entry()]}),
    ],
)
async def test_impossible_rows_are_refused_by_name(stores: Bench, constraint: str, rows: dict[str, Any]) -> None:
    with pytest.raises(Uncommittable, match=constraint):
        await put(stores, **rows)


async def test_a_room_with_a_nickname_is_refused(stores: Bench) -> None:
    with pytest.raises(Uncommittable, match="room_is_bare"):
        await stores.store.transact(owned(rooms=[f"{TEA}/ann"]), seeing())


# ---- members --------------------------------------------------------------------------------------------------------

FULL = member(affiliation=Affiliation.OWNER, present=True, since=3, until=9, nick="Änn", occupant_id="o", listed=4)


async def test_a_member_comes_back_as_it_was_stored(stores: Bench) -> None:
    await put(stores, members=[member()])
    await put(stores, members=[FULL])
    assert (await loaded(stores, members=[(TEA, ANN), (TEA, EVE)])).members == {(TEA, ANN): FULL}


async def test_members_are_found_by_nickname_whatever_its_case(stores: Bench) -> None:
    await put(stores, members=[member(nick="Änn"), member(EVE, nick="eve"), member(CAT, where=CAKE, nick="Änn")])
    books = await loaded(stores, nicks=[(TEA, nick_key("äNN")), (TEA, nick_key("nobody"))])
    assert [*books.members] == [(TEA, ANN)]


async def test_a_long_nickname_is_found(stores: Bench) -> None:
    await put(stores, members=[member(nick="N" * 500)])
    assert [*(await loaded(stores, nicks=[(TEA, nick_key("n" * 500))])).members] == [(TEA, ANN)]


async def test_who_left_is_not_called_by_the_nickname(stores: Bench) -> None:
    await put(stores, members=[member(nick="ann", until=5), member(EVE, nick="ann")])
    assert [*(await loaded(stores, nicks=[(TEA, "ann")])).members] == [(TEA, EVE)]


async def test_who_left_is_still_known_by_the_occupant_id(stores: Bench) -> None:
    await put(stores, members=[member(occupant_id="o", until=5), member(EVE, occupant_id="p"), member(CAT)])
    assert [*(await loaded(stores, occupants=[(TEA, "o"), (TEA, "x")])).members] == [(TEA, ANN)]


async def test_whom_a_list_does_not_name_belongs_no_more(stores: Bench) -> None:
    await put(stores, members=[member(listed=5), member(EVE, listed=4), member(CAT, listed=4, until=2)])
    await put(stores, members=[member(DAN, where=CAKE, listed=1)])
    await put(stores, unlisted=[Unlisted(room=TEA, listing=5, until=7)])
    assert [(m.account, m.until) for m in await stores.rooms.members(TEA, "", 9)] == [(ANN, None), (CAT, 2), (EVE, 7)]
    assert [m.until for m in await stores.rooms.memberships(DAN, [CAKE])] == [None]


async def test_whom_the_same_transaction_names_stays(stores: Bench) -> None:
    await put(stores, members=[member(listed=4), member(EVE, listed=4)])
    named = [member(listed=5), member(CAT, listed=1)]  # CAT came after the list
    await put(stores, members=named, unlisted=[Unlisted(room=TEA, listing=5, until=7)])
    found = await stores.rooms.members(TEA, "", 9)
    assert [(m.account, m.until) for m in found] == [(ANN, None), (CAT, None), (EVE, 7)]


# ---- entries --------------------------------------------------------------------------------------------------------


def whole(rank: int) -> RoomEntry:
    values = {"only": ANN, "author": CAT, "sender": f"{TEA}/cat", "message_id": "m", "at": after(1)}
    values |= {"archive_id": "a", "mentions": (ANN, EVE), "everybody": True, "private": True, "target_rank": 3}
    values |= {"target_id": "t", "target_counted": True, "target_author": EVE, "target_mentions": (CAT,)}
    values |= {"step": CallStep.FINISH, "media": ("audio", "video")}
    return entry(rank, kind=EntryKind.CORRECTED, target_everybody=True, **values)


async def test_entries_come_back_as_they_were_stored_oldest_first(stores: Bench) -> None:
    await put(stores, entries=[whole(5), entry(4), entry(6, where=CAKE)])
    assert list(await stores.rooms.entries(TEA, 0, 99)) == [entry(4), whole(5)]


@pytest.mark.parametrize(("after_rank", "limit", "ranks"), [(0, 2, [2, 4]), (2, 9, [4, 6]), (3, 1, [4]), (6, 9, [])])
async def test_entries_come_in_portions(stores: Bench, after_rank: int, limit: int, ranks: list[int]) -> None:
    await put(stores, entries=[entry(rank) for rank in (2, 4, 6)])
    assert [found.rank for found in await stores.rooms.entries(TEA, after_rank, limit)] == ranks


async def test_no_kind_of_entry_is_unknown_to_the_schema(stores: Bench) -> None:
    await put(stores, entries=[replace(whole(rank), kind=kind) for rank, kind in enumerate(EntryKind, 1)])
    assert [found.kind for found in await stores.rooms.entries(TEA, 0, 99)] == list(EntryKind)


# ---- the way to the members -----------------------------------------------------------------------------------------


async def test_rooms_are_pending_until_everybody_has_everything(stores: Bench) -> None:
    done = room("old@rooms.example.org", version=3, fanned=3)
    rooms = [room(version=9, fanned=8), room(CAKE, version=9, fanned=5), done]
    await put(stores, *(made.jid for made in rooms), rooms=rooms)
    assert list(await stores.rooms.pending_rooms(9)) == [CAKE, TEA]
    assert list(await stores.rooms.pending_rooms(1)) == [CAKE]
    await stores.rooms.fanned(CAKE, 9)
    assert list(await stores.rooms.pending_rooms(9)) == [TEA]


async def test_members_in_order_with_those_who_may_lack_entries(stores: Bench) -> None:
    members = [member(EVE), member(ANN, until=5), member(CAT, until=4), member(DAN, where=CAKE)]
    await put(stores, rooms=[room(version=9, fanned=4)], members=members)
    assert list(await stores.rooms.members(TEA, "", 9)) == [member(ANN, until=5), member(EVE)]
    assert list(await stores.rooms.members(TEA, "", 1)) == [member(ANN, until=5)]
    assert list(await stores.rooms.members(TEA, ANN, 9)) == [member(EVE)]
    assert list(await stores.rooms.members(TEA, EVE, 9)) == []


async def test_an_unknown_room_has_nobody(stores: Bench) -> None:
    assert (list(await stores.rooms.members(TEA, "", 9)), list(await stores.rooms.entries(TEA, 0, 99))) == ([], [])
    await stores.rooms.fanned(TEA, 5)
    assert (await loaded(stores, rooms=[TEA])).rooms == {}


async def test_what_an_account_is_to_rooms(stores: Bench) -> None:
    await put(stores, members=[member(), member(EVE), member(where=CAKE, until=2)])
    found = await stores.rooms.memberships(ANN, [TEA, CAKE, "x@rooms.example.org"])
    assert sorted(found, key=lambda m: m.room) == [member(where=CAKE, until=2), member()]
    assert list(await stores.rooms.memberships(ANN, [])) == []


async def test_what_everybody_has_goes(stores: Bench) -> None:
    entries, elsewhere = [entry(3), entry(5), entry(6)], [entry(1, where=CAKE)]
    members = [member(until=5), member(EVE, until=6), member(CAT), member(where=CAKE, until=1)]
    await put(stores, TEA, CAKE, rooms=[room(version=9)], entries=entries + elsewhere, members=members)
    await stores.rooms.fanned(TEA, 5)
    assert (await loaded(stores, rooms=[TEA])).rooms == {TEA: room(version=9, fanned=5)}
    assert list(await stores.rooms.entries(TEA, 0, 99)) == [entry(6)]
    assert [m.account for m in await stores.rooms.members(TEA, "", 9)] == [CAT, EVE]
    assert list(await stores.rooms.entries(CAKE, 0, 99)) == elsewhere
    assert [m.room for m in await stores.rooms.memberships(ANN, [TEA, CAKE])] == [CAKE]


async def test_what_everybody_has_does_not_shrink(stores: Bench) -> None:
    await put(stores, rooms=[room(version=9, fanned=7)])
    await stores.rooms.fanned(TEA, 5)
    assert (await loaded(stores, rooms=[TEA])).rooms == {TEA: room(version=9, fanned=7)}


@pytest.mark.parametrize("lost", [TEA, "rooms.example.org"])
async def test_members_of_a_room_that_lost_events_start_over(stores: Bench, lost: str) -> None:
    people = (ANN, EVE, CAT)
    await stores.put(*people, accounts=[account(jid) for jid in people])
    await put(stores, members=[member(), member(EVE, until=5)])
    await stores.put(*people, lost_hosts=[LostHost(host=lost, version=2000)])
    found = [await stores.store.account(jid) for jid in people]
    assert [(owner.epoch, owner.floor) for owner in found if owner] == [(2, 2000), (2, 2000), (1, 0)]


async def test_a_deleted_account_is_in_no_room(stores: Bench) -> None:
    await put(stores, accounts=[account()], members=[member(), member(EVE)])
    await put(stores, deleted_accounts=[ANN])
    assert [m.account for m in await stores.rooms.members(TEA, "", 9)] == [EVE]
