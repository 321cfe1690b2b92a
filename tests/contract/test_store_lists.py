"""What every Store promises of lists and change logs: the in-memory one, and Postgres."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.call import CallState
from sync.model.conversation import Base, Change, ChangeKind, ConversationKey, Direction, Kind, Pointer, Status
from sync.model.delta import DeltaQuery
from sync.model.query import ChangesPage, Cursor, ListQuery, RewriteQuery
from sync.rules.times import FOR_EVER
from tests.contract.fakes_store import sort_key
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    DAN,
    EVE,
    IN_TEA,
    NOW,
    OF_TEA,
    STANZA,
    TEA,
    WITH_BOB,
    account,
    after,
    call,
    change,
    conversation,
    membership,
    message,
)
from tests.contract.stores import Bench

# ---- page -----------------------------------------------------------------------------------------------------------


async def list_of(stores: Bench, **asked: object) -> list[str]:
    page = await stores.store.page(ANN, ListQuery(**asked))  # type: ignore[arg-type]
    return [item.conversation.key.peer[:3] for item in page.items]


async def some(stores: Bench) -> None:
    await stores.put(
        ANN,
        EVE,
        accounts=[account(version=50)],
        conversations=[
            conversation(10, BOB, activity_at=after(3)),
            conversation(20, CAT, activity_at=after(2), pinned=1),
            conversation(30, DAN, activity_at=after(1), pinned=2, status=Status.ARCHIVED),
            conversation(40, "old@example.net", status=Status.DELETED),
            conversation(50, "foe@example.net", ringing=1, activity_at=after(0)),
            conversation(50, BOB, owner=EVE),
        ],
        calls=[call(peer="foe@example.net")],
    )


@pytest.mark.parametrize(
    ("asked", "peers"),
    [
        ({}, ["foe", "bob", "cat", "dan"]),
        ({"pinned_first": True}, ["foe", "dan", "cat", "bob"]),
        ({"pinned": True}, ["cat", "dan"]),
        ({"pinned": False}, ["foe", "bob"]),
        ({"archived": True}, ["dan"]),
        ({"archived": False}, ["foe", "bob", "cat"]),
        ({"pinned": True, "archived": False, "pinned_first": True}, ["cat"]),
        ({"since": 20}, ["foe", "dan", "old"]),
        ({"since": 20, "archived": False}, ["foe", "old"]),
        ({"since": 50}, []),
        ({"limit": 2}, ["foe", "bob"]),
        ({"limit": 0}, []),
    ],
)
async def test_a_list_in_order(stores: Bench, asked: dict[str, object], peers: list[str]) -> None:
    await some(stores)
    assert await list_of(stores, **asked) == peers


@pytest.mark.parametrize(("asked", "total"), [({"limit": 0}, 4), ({"limit": 1}, 4), ({"since": 20, "limit": 0}, 3)])
async def test_the_whole_list_is_counted(stores: Bench, asked: dict[str, int], total: int) -> None:
    await some(stores)
    page = await stores.store.page(ANN, ListQuery(**asked))
    assert (page.total, page.newest) == (total, 50)


async def test_a_ringing_conversation_brings_its_calls_newest_first(stores: Bench) -> None:
    calls = [call("s1"), call("s2", proposed_at=after(1)), call("s3", state=CallState.MISSED), call("s1", peer=CAT)]
    await stores.put(accounts=[account()], conversations=[conversation(5, ringing=2)], calls=calls)
    [item] = (await stores.store.page(ANN, ListQuery())).items
    assert item.calls == (calls[1], calls[0])


async def test_of_calls_of_one_microsecond_the_later_one_is_newer(stores: Bench) -> None:
    calls = [call("s1", version=2), call("s3", version=1), call("s2", version=3)]
    await stores.put(accounts=[account()], conversations=[conversation(5, ringing=3)], calls=calls)
    [item] = (await stores.store.page(ANN, ListQuery())).items
    assert [found.key.sid for found in item.calls] == ["s2", "s1", "s3"]
    page = await stores.store.delta(ANN, DeltaQuery(limit=5))
    assert page is not None
    assert page.ringing == item.calls


async def test_an_unknown_account_has_nothing(stores: Bench) -> None:
    page = await stores.store.page(ANN, ListQuery(since=7))
    assert (page.items, page.total, page.newest) == ((), 0, 7)


@pytest.mark.parametrize("asked", [{}, {"pinned_first": True}, {"since": 5}, {"archived": False}])
@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_pages_make_the_list(stores: Bench, asked: dict[str, object], limit: int) -> None:
    await some(stores)
    await stores.put(conversations=[conversation(41, "eel@example.net", activity_at=after(3))])
    whole = await list_of(stores, **asked)
    query, found = ListQuery(**asked, limit=limit), []  # type: ignore[arg-type]
    while items := (page := await stores.store.page(ANN, query)).items:
        found += [item.conversation.key.peer[:3] for item in items]
        assert page.newest == 50
        sort = sort_key(items[-1].conversation, query)
        query = replace(query, after=Cursor(since=query.since, newest=page.newest, sort=sort))
    assert found == whole


@pytest.mark.parametrize("asked", [{}, {"pinned_first": True}, {"since": 5}, {"archived": False}, {"pinned": True}])
@pytest.mark.parametrize("limit", [1, 2, 3, None])
async def test_pages_from_the_end_make_the_list(stores: Bench, asked: dict[str, object], limit: int | None) -> None:
    await some(stores)
    await stores.put(conversations=[conversation(41, "eel@example.net", activity_at=after(3))])
    whole = await list_of(stores, **asked)
    query, found = ListQuery(**asked, limit=limit, at_end=True), []  # type: ignore[arg-type]
    while items := (page := await stores.store.page(ANN, query)).items:
        found[:0] = [item.conversation.key.peer[:3] for item in items]
        assert (page.newest, page.total) == (50, len(whole))
        sort = sort_key(items[0].conversation, query)
        query = replace(query, at_end=False, before=Cursor(since=query.since, newest=page.newest, sort=sort))
    assert found == whole


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("limit", [0, 1, 2, 9])
async def test_a_page_ends_right_in_front_of_a_row(stores: Bench, at: int, limit: int) -> None:
    await some(stores)
    items = (await stores.store.page(ANN, ListQuery())).items
    place = Cursor(since=0, newest=50, sort=sort_key(items[at].conversation, ListQuery()))
    page = await stores.store.page(ANN, ListQuery(limit=limit, before=place))
    assert (page.items, page.total) == (items[max(0, at - limit) : at], 4)
    behind = await stores.store.page(ANN, ListQuery(limit=limit, after=place))
    assert behind.items == items[at + 1 : at + 1 + limit]


@pytest.mark.parametrize("limit", [0, 1, 9])
async def test_the_last_page(stores: Bench, limit: int) -> None:
    await some(stores)
    whole = await list_of(stores)
    assert await list_of(stores, limit=limit, at_end=True) == whole[len(whole) - min(limit, 4) :]


@pytest.mark.parametrize("moved_to", [9, 1], ids=["to the top", "in its place"])
async def test_what_is_bumped_between_pages_backwards_waits_for_the_next_delta(stores: Bench, moved_to: int) -> None:
    await some(stores)
    query = ListQuery(limit=1, at_end=True)
    page = await stores.store.page(ANN, query)
    await stores.put(accounts=[account(version=60)], conversations=[conversation(60, BOB, activity_at=after(moved_to))])
    cursor = Cursor(since=0, newest=50, sort=sort_key(page.items[0].conversation, query))
    earlier = await stores.store.page(ANN, ListQuery(limit=9, before=cursor))
    assert [item.conversation.key.peer for item in earlier.items] == ["foe@example.net", CAT]
    assert (earlier.newest, earlier.total) == (50, 3)
    assert await list_of(stores, since=50) == ["bob"]


@pytest.mark.parametrize("moved_to", [9, 1], ids=["to the top", "in its place"])
async def test_what_is_bumped_between_pages_waits_for_the_next_delta(stores: Bench, moved_to: int) -> None:
    await some(stores)
    query = ListQuery(limit=2)
    page = await stores.store.page(ANN, query)
    bumped = conversation(60, DAN, activity_at=after(moved_to))
    await stores.put(accounts=[account(version=60)], conversations=[bumped])
    cursor = Cursor(since=0, newest=50, sort=sort_key(page.items[-1].conversation, query))
    later = await stores.store.page(ANN, replace(query, after=cursor))
    assert [item.conversation.key.peer for item in later.items] == [CAT]
    assert later.newest == 50
    assert await list_of(stores, since=50) == ["dan"]


async def test_a_muted_conversation_stays_muted(stores: Bench) -> None:
    await stores.put(accounts=[account()], conversations=[conversation(muted_until=FOR_EVER)])
    [item] = (await stores.store.page(ANN, ListQuery())).items
    assert item.conversation.muted(NOW + timedelta(days=100_000))


# ---- rewrites -------------------------------------------------------------------------------------------------------


async def rewritten(stores: Bench) -> None:
    cat = ConversationKey(ANN, CAT)
    log = [change(10), change(20, 2, cat, target_id="b"), change(30, kind=ChangeKind.RETRACTED, stanza=None)]
    others = (ChangeKind.REACTED, ChangeKind.FAILED, ChangeKind.CALL_ENDED)  # no part of this dialect
    log += [change(31 + n, kind=kind, stanza=None) for n, kind in enumerate(others)]
    await stores.put(accounts=[account(version=40)], changes=log)


async def test_rewrites_oldest_first(stores: Bench) -> None:
    await rewritten(stores)
    page = await stores.store.rewrites(ANN, RewriteQuery(since=10))
    assert [(found.version, found.stanza) for found in page.changes] == [(20, STANZA), (30, None)]
    assert (page.newest, page.invalidated) == (40, ())


@pytest.mark.parametrize("limit", [0, 2])
async def test_too_many_rewrites_invalidate(stores: Bench, limit: int) -> None:
    await rewritten(stores)
    page = await stores.store.rewrites(ANN, RewriteQuery(since=0, limit=limit))
    assert page.changes == ()
    assert page.invalidated == ((ConversationKey(ANN, CAT), 20), (WITH_BOB, 30))


async def test_just_as_many_do_not(stores: Bench) -> None:
    await rewritten(stores)
    assert len((await stores.store.rewrites(ANN, RewriteQuery(since=0, limit=3))).changes) == 3


@pytest.mark.parametrize("limit", [0, 50])
async def test_no_rewrites(stores: Bench, limit: int) -> None:
    await rewritten(stores)
    page = await stores.store.rewrites(ANN, RewriteQuery(since=30, limit=limit))
    assert (page.newest, page.changes, page.invalidated) == (40, (), ())


async def test_an_unknown_account_has_no_rewrites(stores: Bench) -> None:
    page = await stores.store.rewrites(ANN, RewriteQuery(since=3))
    assert (page.newest, page.changes, page.invalidated) == (3, (), ())


async def test_a_moderation_is_a_rewrite(stores: Bench) -> None:
    moderated = change(10, kind=ChangeKind.MODERATED, author="cat", stanza=None)
    await stores.put(accounts=[account()], changes=[moderated])
    assert (await stores.store.rewrites(ANN, RewriteQuery(since=0))).changes == (moderated,)


async def test_texts_of_corrections_are_erased(stores: Bench) -> None:
    await stores.put(accounts=[account()], changes=[change(10), change(20), change(30, 2)])
    await stores.put(erased=[(WITH_BOB, 1)])
    page = await stores.store.rewrites(ANN, RewriteQuery(since=0))
    assert [found.stanza for found in page.changes] == [None, None, STANZA]


async def test_a_correction_and_its_retraction_in_one_transaction_leave_no_text(stores: Bench) -> None:
    await stores.put(accounts=[account()], changes=[change(10)], erased=[(WITH_BOB, 1)])
    assert [found.stanza for found in (await stores.store.rewrites(ANN, RewriteQuery(since=0))).changes] == [None]


# ---- changes --------------------------------------------------------------------------------------------------------


async def logged(stores: Bench, **fields: Any) -> list[Change]:
    reacted = change(20, kind=ChangeKind.REACTED, author="cat")
    ended = change(30, 0, kind=ChangeKind.CALL_ENDED, target_id="s1", detail="missed", stanza=None)
    log = [change(10), reacted, ended]
    elsewhere = change(25, key=ConversationKey(ANN, CAT))
    await stores.put(accounts=[account()], conversations=[conversation(30, **fields)], changes=[*log[::-1], elsewhere])
    return log


@pytest.mark.parametrize(("since", "first"), [(0, 0), (9, 0), (10, 1), (25, 2), (30, 3)])
async def test_changes_of_a_conversation_oldest_first(stores: Bench, since: int, first: int) -> None:
    log = await logged(stores)
    assert await stores.store.changes(WITH_BOB, since, 3) == ChangesPage(version=30, changes=tuple(log[first:]))


@pytest.mark.parametrize(("since", "limit", "reset"), [(0, 2, True), (0, 3, False), (20, 0, True), (30, 0, False)])
async def test_too_many_changes_start_over(stores: Bench, since: int, limit: int, reset: bool) -> None:
    await logged(stores)
    page = await stores.store.changes(WITH_BOB, since, limit)
    assert (page.reset, page.changes == ()) == (reset, reset or since == 30)


@pytest.mark.parametrize(("since", "reset"), [(14, True), (15, False)])
async def test_changes_that_are_not_held_any_more_start_over(stores: Bench, since: int, reset: bool) -> None:
    await logged(stores, log_from=15)
    assert (await stores.store.changes(WITH_BOB, since, 9)).reset is reset


async def test_an_old_stamp_starts_over_though_nothing_is_held(stores: Bench) -> None:
    await stores.put(accounts=[account()], conversations=[conversation(9, log_from=5)])
    assert await stores.store.changes(WITH_BOB, 4, 9) == ChangesPage(version=9, reset=True)


async def test_an_unknown_conversation_has_no_changes(stores: Bench) -> None:
    assert await stores.store.changes(WITH_BOB, 0, 0) == ChangesPage()


async def test_a_deleted_conversation_keeps_its_log(stores: Bench) -> None:
    log = await logged(stores, status=Status.DELETED)
    assert await stores.store.changes(WITH_BOB, 25, 9) == ChangesPage(version=30, changes=(log[2],))


# ---- conversations by name ------------------------------------------------------------------------------------------


async def test_named_conversations_come_as_a_list_shows_them(stores: Bench) -> None:
    await some(stores)
    listed = {item.conversation.key: item for item in (await stores.store.page(ANN, ListQuery(since=1))).items}
    gone, foe = ConversationKey(ANN, "old@example.net"), ConversationKey(ANN, "foe@example.net")
    keys = [WITH_BOB, gone, foe, ConversationKey(ANN, "nobody@example.net"), IN_TEA]
    found = {item.conversation.key: item for item in await stores.store.conversations(keys)}
    assert found == {key: listed[key] for key in (WITH_BOB, gone, foe)}
    assert found[foe].calls == (call(peer="foe@example.net"),)


async def test_a_named_conversation_names_its_mention(stores: Bench) -> None:
    mention = message(5, OF_TEA, mention=True, message_key="m", author="cat")
    await stores.put(
        accounts=[account()], conversations=[membership(unread=1, mentions=1, taken=9)], messages=[mention]
    )
    [item] = await stores.store.conversations([IN_TEA])
    assert item.mention_id == "m"


async def test_kind_and_owner_are_part_of_the_name(stores: Bench) -> None:
    await some(stores)
    assert await stores.store.conversations([ConversationKey(ANN, BOB, Kind.GROUP), ConversationKey(EVE, CAT)]) == []
    assert await stores.store.conversations([]) == []


# ---- the first unread mention ---------------------------------------------------------------------------------------


async def mention_id(stores: Bench) -> str | None:
    [item] = (await stores.store.page(ANN, ListQuery())).items
    return item.mention_id


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ({"message_key": "m", "archive_key": "a", "archive_id": "a"}, "a"),
        ({"message_key": "m", "archive_key": "sha256:0", "archive_id": "long"}, "long"),
        ({"message_key": "m"}, "m"),
        ({}, None),
    ],
)
async def test_a_mention_is_named_by_its_archive_id(stores: Bench, ids: dict[str, str], found: str | None) -> None:
    await stores.put(conversations=[conversation(unread=1, mentions=1)], messages=[message(5, mention=True, **ids)])
    assert await mention_id(stores) == found


async def test_the_first_mention_is_unread_and_stands(stores: Bench) -> None:
    mentions = [message(rank, mention=True, message_key=f"m{rank}") for rank in (2, 4, 8, 9)]
    others = [message(6, mention=True, retracted=7, message_key="m6"), message(7, message_key="m7")]
    base = Base(unread=1, mentions=1, rank=5)
    stored = conversation(unread=4, mentions=3, read=Pointer(2, "a"), base=base)
    await stores.put(conversations=[stored], messages=mentions + others)
    assert await mention_id(stores) == "m8"


async def test_nobody_looks_where_no_mention_is_unread(stores: Bench) -> None:
    await stores.put(conversations=[conversation(unread=1)], messages=[message(5, mention=True, message_key="m")])
    assert await mention_id(stores) is None


async def test_a_mention_in_a_room_means_the_account_or_everybody(stores: Bench) -> None:
    said = {"author": "cat", "direction": Direction.IN}
    index = [
        message(2, OF_TEA, mention=True, message_key="own", author=ANN),
        message(3, OF_TEA, mentions=(EVE,), message_key="other's", **said),
        message(5, OF_TEA, mention=True, message_key="all", **said),
        message(4, OF_TEA, mentions=(EVE, ANN), message_key="ann", **said),
        message(6, IN_TEA, mention=True, message_key="later"),
    ]
    await stores.put(conversations=[membership(unread=4, mentions=3, taken=9)], messages=index)
    assert await mention_id(stores) == "ann"


async def test_a_mention_that_was_not_taken_yet_is_not_named(stores: Bench) -> None:
    index = [message(5, OF_TEA, mention=True, message_key="m", author="cat")]
    await stores.put(conversations=[membership(unread=1, mentions=1, taken=4)], messages=index)
    assert await mention_id(stores) is None


@pytest.mark.parametrize(("taken", "found"), [(7, "gone"), (8, "stands")])
async def test_a_retracted_mention_is_named_until_the_retraction_is_taken(
    stores: Bench, taken: int, found: str
) -> None:
    index = [
        message(2, OF_TEA, mention=True, message_key="gone", author="cat", retracted=8),
        message(4, OF_TEA, mention=True, message_key="stands", author="cat"),
    ]
    await stores.put(conversations=[membership(unread=2, mentions=2, taken=taken)], messages=index)
    assert await mention_id(stores) == found


async def test_a_room_says_nothing_in_a_chat_of_its_name(stores: Bench) -> None:
    index = [message(5, OF_TEA, mention=True, message_key="m", author="cat")]
    await stores.put(conversations=[conversation(1, TEA, unread=1, mentions=1, taken=9)], messages=index)
    assert await mention_id(stores) is None
