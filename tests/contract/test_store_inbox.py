"""What every Store promises of inboxes: the in-memory one, and Postgres."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.conversation import ConversationKey, Kind, Status
from sync.model.query import InboxEntry, InboxPage, InboxPlace, InboxQuery, ListQuery
from sync.rules.times import microseconds
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    DAN,
    EVE,
    IN_TEA,
    OF_TEA,
    STANZA,
    TEA,
    WITH_BOB,
    account,
    after,
    conversation,
    last,
    membership,
    message,
)
from tests.contract.stores import Bench

FOE = "foe@example.net"
ORDER = ["bob", "cat", "tea", "dan", "foe"]


async def some(stores: Bench) -> None:
    """By activity as in ORDER, two of them at the same moment; another account's, and a deleted one."""
    await stores.put(
        ANN,
        EVE,
        accounts=[account(version=60, floor=5, unread=7, unread_conversations=2)],
        conversations=[
            conversation(50, BOB, activity_at=after(4), unread=3),
            conversation(40, CAT, activity_at=after(3), pinned=9),
            membership(30, activity_at=after(3)),
            conversation(20, DAN, activity_at=after(2), unread=4, status=Status.ARCHIVED),
            conversation(10, FOE, activity_at=after(1), ringing=1),
            conversation(60, "old@example.net", activity_at=after(9), status=Status.DELETED),
            conversation(55, BOB, owner=EVE, activity_at=after(9)),
        ],
    )


async def page_of(stores: Bench, limit: int = 9, **asked: Any) -> InboxPage:
    return await stores.store.inbox(ANN, InboxQuery(limit=limit, **asked))


def peers(page: InboxPage) -> list[str]:
    return [item.key.peer[:3] for item in page.items]


def place(page: InboxPage, index: int = -1) -> InboxPlace:
    item: InboxEntry = page.items[index]
    return InboxPlace(
        newest=page.newest, version=item.version, activity=item.activity, peer=item.key.peer, kind=item.key.kind
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ORDER),
        ({"limit": 2}, ORDER[:2]),
        ({"limit": 0}, []),
        ({"limit": 2, "at_end": True}, ORDER[-2:]),
        ({"limit": 0, "at_end": True}, []),
        ({"at_end": True}, ORDER),
        ({"unread_only": True}, ["bob", "dan"]),
        ({"unread_only": True, "limit": 1, "at_end": True}, ["dan"]),
    ],
)
async def test_newest_activity_first(stores: Bench, asked: dict[str, Any], found: list[str]) -> None:
    await some(stores)
    assert peers(await page_of(stores, **asked)) == found


@pytest.mark.parametrize(("unread_only", "count"), [(False, 5), (True, 2)])
@pytest.mark.parametrize("limit", [0, 1, 9])
async def test_the_whole_inbox_is_counted(stores: Bench, unread_only: bool, count: int, limit: int) -> None:
    await some(stores)
    page = await page_of(stores, limit, unread_only=unread_only)
    assert (page.total, page.unread_conversations, page.unread, page.count) == (5, 2, 7, count)
    assert (page.newest, page.floor) == (60, 5)


async def test_an_unknown_account_has_an_empty_inbox(stores: Bench) -> None:
    page = await page_of(stores)
    assert (page.items, page.total, page.newest, page.count) == ((), 0, 0, 0)


@pytest.mark.parametrize("unread_only", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_pages_make_the_inbox_in_both_directions(stores: Bench, limit: int, unread_only: bool) -> None:
    await some(stores)
    whole = peers(await page_of(stores, unread_only=unread_only))
    page, down = await page_of(stores, limit, unread_only=unread_only), []
    while page.items:
        down += peers(page)
        page = await page_of(stores, limit, unread_only=unread_only, after=place(page))
    page, up = await page_of(stores, limit, unread_only=unread_only, at_end=True), []
    while page.items:
        up = peers(page) + up
        page = await page_of(stores, limit, unread_only=unread_only, before=place(page, 0))
    assert down == up == whole


async def test_what_changes_meanwhile_follows_at_the_end_as_it_is_then(stores: Bench) -> None:
    await some(stores)
    gone = conversation(5, "gus@example.net", activity_at=after(0))
    await stores.put(conversations=[gone])
    first = await page_of(stores, 2)
    # Read elsewhere: one that was shown, one that was not. Written to: one that was not shown. Deleted, and new.
    await stores.put(
        accounts=[account(version=90, floor=5)],
        conversations=[
            conversation(90, BOB, activity_at=after(4)),
            conversation(85, DAN, activity_at=after(2)),
            conversation(80, FOE, activity_at=after(20), unread=1),
            replace(gone, version=75, status=Status.DELETED),
            conversation(70, EVE, activity_at=after(19)),
        ],
    )
    rest = await page_of(stores, after=place(first))
    assert [(item.key.peer[:3], item.version, item.unread) for item in rest.items] == [
        ("tea", 30, 0),
        ("eve", 70, 0),
        ("foe", 80, 1),
        ("dan", 85, 0),
        ("bob", 90, 0),
    ]
    assert rest.newest == 60
    second = await page_of(stores, 2, after=place(first))
    assert peers(second) == ["tea", "eve"]
    third = await page_of(stores, 2, after=place(second))
    assert peers(third) == ["foe", "dan"]
    assert peers(await page_of(stores, 2, after=place(third))) == ["bob"]
    assert peers(await page_of(stores, unread_only=True, after=place(first))) == ["foe"]


async def test_the_last_entry_of_all_is_a_place_from_which_to_ask_again(stores: Bench) -> None:
    await some(stores)
    end = place(await page_of(stores))
    assert peers(await page_of(stores, after=end)) == []
    await stores.put(
        accounts=[account(version=70, floor=5)], conversations=[conversation(70, CAT, activity_at=after(30))]
    )
    assert peers(await page_of(stores, after=end)) == ["cat"]


async def test_what_moved_up_is_found_backwards(stores: Bench) -> None:
    await some(stores)
    first = await page_of(stores, 2)
    await stores.put(
        accounts=[account(version=70, floor=5)], conversations=[conversation(70, FOE, activity_at=after(30))]
    )
    newer = await page_of(stores, before=place(first, 0))
    assert (peers(newer), newer.newest) == (["foe"], 70)
    assert peers(await page_of(stores, 1, before=place(first))) == ["bob"]


# ---- what an entry holds ---------------------------------------------------------------------------------------------


async def entry(stores: Bench, preview_bytes: int | None = 1000) -> InboxEntry:
    [item] = (await page_of(stores, preview_bytes=preview_bytes)).items
    return item


@pytest.mark.parametrize(
    ("most", "shown"), [(None, False), (len(STANZA) - 1, False), (len(STANZA), True), (100_000, True)]
)
async def test_the_last_message_where_it_is_asked_for_and_not_too_large(
    stores: Bench, most: int | None, shown: bool
) -> None:
    await stores.put(accounts=[account()], conversations=[conversation(last=last(5), unread=2)])
    found = await entry(stores, most)
    assert found.last == (last(5) if shown else None)
    assert (found.key, found.unread, found.archive_id) == (WITH_BOB, 2, "a")


@pytest.mark.parametrize("most", [None, 0])
async def test_a_tombstone_without_a_message_is_no_text(stores: Bench, most: int | None) -> None:
    gone = last(5, stanza="", retracted=True)
    await stores.put(accounts=[account()], conversations=[conversation(last=gone)])
    assert (await entry(stores, most)).last == (None if most is None else gone)


@pytest.mark.parametrize(("ranks", "newest"), [((), "a"), ((5,), "id-5"), ((5, 8), "id-8"), ((4,), "id-4")], ids=str)
async def test_the_newest_id_of_the_archive(stores: Bench, ranks: tuple[int, ...], newest: str) -> None:
    """A correction or a reaction is in the archive, behind the last message."""
    index = [message(rank, archive_key=f"id-{rank}", archive_id=f"id-{rank}") for rank in ranks]
    index += [message(9, message_key="never archived"), message(7, ConversationKey(ANN, CAT), archive_key="other")]
    await stores.put(accounts=[account()], conversations=[conversation(last=last(5))], messages=index)
    assert (await entry(stores)).archive_id == newest


async def test_a_long_id_is_told_as_it_is(stores: Bench) -> None:
    index = [message(5, archive_key="sha256:0", archive_id="long")]
    await stores.put(accounts=[account()], conversations=[conversation(last=last(5))], messages=index)
    assert (await entry(stores)).archive_id == "long"


async def test_where_nothing_was_said_there_is_no_id(stores: Bench) -> None:
    await stores.put(
        accounts=[account()], conversations=[conversation()], messages=[message(5, archive_key="x", archive_id="x")]
    )
    found = await entry(stores)
    assert (found.last, found.archive_id) == (None, None)


@pytest.mark.parametrize(("taken", "newest"), [(7, "id-6"), (8, "id-8")])
async def test_of_a_room_what_was_taken(stores: Bench, taken: int, newest: str) -> None:
    index = [message(rank, OF_TEA, archive_key=f"id-{rank}", archive_id=f"id-{rank}", author="x") for rank in (6, 8)]
    stored = membership(last=last(6, archive_id="id-6"), taken=taken)
    await stores.put(accounts=[account()], conversations=[stored], messages=index)
    found = await entry(stores)
    assert (found.key, found.archive_id) == (IN_TEA, newest)


async def test_a_chat_of_a_rooms_name_has_nothing_of_the_room(stores: Bench) -> None:
    index = [message(6, OF_TEA, archive_key="room's", archive_id="room's", author="x")]
    await stores.put(accounts=[account()], conversations=[conversation(1, TEA, last=last(5), taken=9)], messages=index)
    assert (await entry(stores)).archive_id == "a"


async def test_the_same_name_as_room_and_as_chat(stores: Bench) -> None:
    chat = conversation(20, TEA, activity_at=after(1))
    await stores.put(accounts=[account()], conversations=[chat, replace(membership(30), activity_at=after(1))])
    first = await page_of(stores, 1)
    second = await page_of(stores, 1, after=place(first))
    assert [item.key for page in (first, second) for item in page.items] == [chat.key, IN_TEA]


# ---- encrypted chats apart: one entry for all with a peer ------------------------------------------------------------

SEALED, OLD = (ConversationKey(ANN, BOB, kind) for kind in (Kind.OMEMO_2, Kind.AXOLOTL))


async def apart(stores: Bench) -> None:
    """With Bob a plain chat and two encrypted ones, with Cat an encrypted one alone, and a room."""
    of = {key: last(rank=rank, archive_id=f"a{rank}") for key, rank in ((WITH_BOB, 7), (SEALED, 9), (OLD, 8))}
    bob = [
        conversation(40, BOB, activity_at=after(3), unread=1, last=of[WITH_BOB]),
        replace(conversation(30, BOB, activity_at=after(5), unread=2, last=of[SEALED]), key=SEALED),
        replace(conversation(50, BOB, activity_at=after(1), last=of[OLD]), key=OLD),
    ]
    cat = replace(conversation(20, CAT, activity_at=after(4), unread=4), key=ConversationKey(ANN, CAT, Kind.OMEMO_1))
    messages = [
        message(rank, key=key, archive_key=f"a{rank}", archive_id=f"a{rank}")
        for rank, key in ((9, SEALED), (11, WITH_BOB))
    ]
    await stores.put(
        ANN,
        accounts=[account(version=60, floor=5, unread=7, unread_conversations=3)],
        conversations=[*bob, cat, membership(10, activity_at=after(2))],
        messages=messages,
    )


@pytest.mark.parametrize("limit", [1, 2, 9])
async def test_merged_pages_name_each_peer_once(stores: Bench, limit: int) -> None:
    await apart(stores)
    page, down = await page_of(stores, limit, merged=True), []
    while page.items:
        down += [(item.key.peer, item.key.kind, item.version, item.unread) for item in page.items]
        page = await page_of(stores, limit, merged=True, after=place(page))
    assert down == [(BOB, "chat", 50, 3), (CAT, "chat", 20, 4), (TEA, "group", 10, 0)]
    page, up = await page_of(stores, limit, merged=True, at_end=True), []
    while page.items:
        up = [item.key.peer for item in page.items] + up
        page = await page_of(stores, limit, merged=True, before=place(page, 0))
    assert up == [BOB, CAT, TEA]


async def test_a_merged_entry_shows_the_newest_of_all(stores: Bench) -> None:
    await apart(stores)
    page = await page_of(stores, merged=True, preview_bytes=9999)
    bob = page.items[0]
    assert bob.last is not None
    assert (bob.last.rank, bob.last.archive_id, bob.archive_id) == (9, "a9", "a11")
    assert (page.total, page.unread_conversations, page.unread, page.count) == (3, 2, 7, 3)
    unread = await page_of(stores, merged=True, unread_only=True)
    assert (peers(unread), unread.count) == (["bob", "cat"], 2)


async def test_what_is_deleted_of_a_peer_changes_its_entry(stores: Bench) -> None:
    await apart(stores)
    first = await page_of(stores, merged=True)
    found = {one.key: one for one in (await stores.store.page(ANN, ListQuery())).items for one in (one.conversation,)}
    gone = replace(found[SEALED], version=70, unread=0, status=Status.DELETED)
    await stores.put(accounts=[account(version=70, floor=5, unread=5, unread_conversations=2)], conversations=[gone])
    [bob] = (await page_of(stores, merged=True, after=place(first), preview_bytes=9999)).items
    assert (bob.version, bob.unread, bob.activity) == (70, 1, microseconds(after(3)))
    assert (bob.last and bob.last.rank, bob.archive_id) == (8, "a11")


async def test_a_peer_of_whom_all_is_deleted_has_no_entry(stores: Bench) -> None:
    await apart(stores)
    key = ConversationKey(ANN, CAT, Kind.OMEMO_1)
    gone = replace(conversation(61, CAT, status=Status.DELETED), key=key)
    await stores.put(accounts=[account(version=61, floor=5, unread=3, unread_conversations=2)], conversations=[gone])
    page = await page_of(stores, merged=True)
    assert (peers(page), page.total, page.unread_conversations) == (["bob", "tea"], 2, 1)
