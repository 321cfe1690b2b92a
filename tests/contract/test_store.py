"""What every Store promises (sync/ports.py): the in-memory one, and Postgres."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sync.model.books import Books, Keys, LanePosition, Quarantined, Ruling
from sync.model.call import CallState
from sync.model.conversation import ChangeKind, ConversationKey, Direction, Kind, Pointer, Status
from sync.model.device import JobState, Lane, PushJob, PushKind
from sync.model.errors import ItemNotFound, TokenHeld, Uncommittable
from sync.model.event import FeedPosition
from sync.model.push import Environment
from sync.model.query import Cursor, ListQuery, RewriteQuery
from sync.rules.times import FOR_EVER, microseconds
from tests.contract.fakes_store import sort_key
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    DAN,
    EVE,
    NOW,
    STANZA,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    change,
    conversation,
    device,
    job,
    job_id,
    last,
    message,
    owned,
    seeing,
    storing,
    token,
)
from tests.contract.stores import Bench

LANE = "example.org", "stream", "main", 3
ALL = owned(create=False, conversations=[WITH_BOB], unread_of=[WITH_BOB])


async def jobs_of(stores: Bench, *calls: tuple[str, str]) -> list[object]:
    books = await stores.store.transact(Keys(accounts=frozenset({ANN}), devices=True, calls=frozenset(calls)), seeing())
    return sorted(books.jobs.get(ANN, []), key=lambda found: found.job_id)


# ---- transact -------------------------------------------------------------------------------------------------------


async def test_an_account_is_made_where_asked_for(stores: Bench) -> None:
    books = await stores.store.transact(owned(ANN, EVE), seeing())
    made = microseconds(NOW)  # tokens of an earlier account of that name are too old
    assert books.accounts == {jid: account(jid, version=made, floor=made) for jid in (ANN, EVE)}
    assert await stores.store.account(ANN) == account(ANN, version=made, floor=made)


async def test_and_not_otherwise(stores: Bench) -> None:
    books = await stores.store.transact(owned(create=False), seeing())
    assert books.accounts == {}
    assert await stores.store.account(ANN) is None


async def test_the_rule_sees_the_instant_of_its_transaction(stores: Bench) -> None:
    stores.clock.instant = after(7)
    assert await stores.store.transact(owned(), seeing(lambda books: books.now)) == after(7)


async def test_a_rule_that_raises_leaves_no_trace(stores: Bench) -> None:
    def refuses(_: Books) -> Ruling[None]:
        raise ItemNotFound

    with pytest.raises(ItemNotFound):
        await stores.store.transact(owned(), refuses)
    assert await stores.store.account(ANN) is None


async def test_an_account_comes_back_as_it_was_stored(stores: Bench) -> None:
    stored = account(epoch=3, floor=7, unread=5, unread_conversations=2, devices=1, wakes_open=True)
    await stores.put(accounts=[stored])
    assert await stores.store.account(ANN) == stored


@pytest.mark.parametrize("muted_until", [None, after(60), FOR_EVER])
async def test_a_conversation_comes_back_as_it_was_stored(stores: Bench, muted_until: object) -> None:
    stored = conversation(9, status=Status.ARCHIVED, pinned=2**60, muted_until=muted_until, read=Pointer(3, "a3"))
    stored = replace(stored, displayed=Pointer(4, "a4"), unread=2, ringing=1, rewritten=8, last=last(5, retracted=True))
    await stores.put(conversations=[conversation(1)])
    await stores.put(conversations=[stored])
    assert (await stores.store.transact(ALL, seeing())).conversations == {WITH_BOB: stored}


@pytest.mark.parametrize("direction", Direction)
async def test_a_message_is_found_by_each_of_its_ids(stores: Bench, direction: Direction) -> None:
    keys = {"message_key": "m", "origin_key": "o", "archive_key": "a", "archive_id": "a"}
    stored = message(5, direction=direction, counted=False, **keys)
    await stores.put(messages=[stored, message(6, message_key="other")])
    for identifier in ("m", "o", "a"):
        books = await stores.store.transact(owned(ids=[(WITH_BOB, identifier)]), seeing())
        assert books.messages == {WITH_BOB: [stored]}


async def test_a_long_archive_id_is_kept_whole(stores: Bench) -> None:
    stored = message(5, archive_key="sha256:00", archive_id="x" * 3000)
    await stores.put(messages=[stored])
    books = await stores.store.transact(owned(ids=[(WITH_BOB, "sha256:00")]), seeing())
    assert books.messages == {WITH_BOB: [stored]}


async def test_archived_looks_at_archive_ids_only(stores: Bench) -> None:
    await stores.put(messages=[message(5, message_key="x"), message(6, archive_key="x", archive_id="x")])
    books = await stores.store.transact(owned(archived=[(WITH_BOB, "x")]), seeing())
    assert [found.rank for found in books.messages[WITH_BOB]] == [6]


async def test_an_id_is_looked_up_in_its_own_conversation(stores: Bench) -> None:
    elsewhere = [ConversationKey(ANN, CAT), ConversationKey(EVE, BOB), ConversationKey(ANN, BOB, Kind.GROUP)]
    keys = {"message_key": "x", "archive_key": "y", "archive_id": "y"}
    await stores.put(ANN, EVE, messages=[message(5, key, **keys) for key in elsewhere])
    lookups = [(WITH_BOB, "x"), (WITH_BOB, "y")]
    assert (await stores.store.transact(owned(ids=lookups, archived=lookups), seeing())).messages == {}


async def test_of_a_known_message_only_its_retraction_is_stored(stores: Bench) -> None:
    await stores.put(messages=[message(5, message_key="m")])
    await stores.put(messages=[message(5, message_key="m", counted=False, retracted=True)])
    books = await stores.store.transact(owned(ids=[(WITH_BOB, "m")]), seeing())
    assert books.messages[WITH_BOB] == [message(5, message_key="m", retracted=True)]


async def test_unread_are_counted_standing_messages_behind_the_pointer(stores: Bench) -> None:
    read, own = message(3), message(4, direction=Direction.OUT, counted=False)
    await stores.put(
        conversations=[conversation(9, read=Pointer(3, "a3"))],
        messages=[message(7), read, own, message(5), message(6, retracted=True)],
    )
    assert (await stores.store.transact(ALL, seeing())).unread == {WITH_BOB: [5, 7]}


async def test_nothing_is_unread_where_nothing_is(stores: Bench) -> None:
    assert (await stores.store.transact(ALL, seeing())).unread == {WITH_BOB: []}


async def test_a_call_brings_its_conversation_along(stores: Bench) -> None:
    stored = call(media=("audio", "video"), answered_by="phone", archive_id="a", state=CallState.ANSWERED)
    others = [call("s2"), call(owner=EVE), call(peer=CAT, media=(), stanza=None, state=CallState.CLOSED)]
    await stores.put(ANN, EVE, calls=[stored, *others], conversations=[conversation(1), conversation(2, CAT)])
    books = await stores.store.transact(owned(calls=[(ANN, "s1")]), seeing())
    assert books.calls == {found.key: found for found in (stored, others[2])}
    assert {key.peer for key in books.conversations} == {BOB, CAT}


async def test_of_a_known_call_the_state_changes(stores: Bench) -> None:
    await stores.put(calls=[call()])
    await stores.put(calls=[call(state=CallState.ANSWERED, version=7, answered_by="web")])
    books = await stores.store.transact(owned(calls=[(ANN, "s1")]), seeing())
    assert list(books.calls.values()) == [call(state=CallState.ANSWERED, version=7, answered_by="web")]


async def test_positions(stores: Bench) -> None:
    lane, other = LanePosition(*LANE), LanePosition("example.org", "stream", "main", 4)
    await stores.put(positions={lane: 5})
    await stores.put(positions={lane: 8})
    books = await stores.store.transact(owned(positions=[lane, other]), seeing())
    assert books.positions == {lane: 8}


async def test_a_quarantined_event_is_kept_once(stores: Bench) -> None:
    aside = Quarantined(position=FeedPosition("example.org", "s", "main", 1), account=ANN, why="x", event="<event/>")
    await stores.put(quarantined=[aside])
    await stores.put(quarantined=[aside])


# ---- what the schema refuses ----------------------------------------------------------------------------------------

REFUSED = {
    "account_counts": {"accounts": [account(unread=1, unread_conversations=2)]},
    "account_version_is_time": {"accounts": [account(version=5, floor=6)]},
    "conversation_counts": {"conversations": [conversation(unread=-1)]},
    "conversation_rewritten_by_version": {"conversations": [conversation(1, rewritten=2)]},
    "conversation_by_version": {"conversations": [conversation(1), conversation(1, CAT)]},
    "message_own_is_not_unread": {"messages": [message(direction=Direction.OUT)]},
    "message_keys_are_short": {"messages": [message(message_key="x" * 129)]},
    "change_retraction_has_no_text": {"changes": [change(1, kind=ChangeKind.RETRACTED)]},
    "change_pkey": {"changes": [change(1), change(1, 2)]},
    "call_ringing_has_propose": {"calls": [call(stanza=None)]},
    "call_rings_after_propose": {"calls": [call(rings_until=after(-1))]},
    "device_by_node": {"devices": [device(node="n"), device("tablet", node="n")]},
    "push_job_done_has_outcome": {"jobs": [job(state=JobState.DONE)]},
    "push_job_voip_is_call": {"jobs": [job(voip=True)]},
    "push_job_voip_once": {"jobs": [call_job("one"), call_job("two", version=9)]},
}


@pytest.mark.parametrize("constraint", REFUSED)
async def test_impossible_rows_are_refused_by_name(stores: Bench, constraint: str) -> None:
    with pytest.raises(Uncommittable) as refused:
        await stores.put(**REFUSED[constraint])
    assert refused.value.name == constraint
    assert await stores.store.account(ANN) is None


async def test_what_no_column_can_hold_is_refused(postgres: Bench) -> None:
    with pytest.raises(Uncommittable):
        await postgres.put(conversations=[conversation(pinned=2**64)])


async def test_text_that_no_column_can_hold_is_refused(postgres: Bench) -> None:
    with pytest.raises(Uncommittable):
        await postgres.put(conversations=[conversation(last=last(stanza="\0"))])


async def test_an_account_with_a_resource_is_refused(stores: Bench) -> None:
    with pytest.raises(Uncommittable, match="account_is_bare"):
        await stores.store.transact(owned("ann@example.org/web"), seeing())


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


# ---- rewrites -------------------------------------------------------------------------------------------------------


async def rewritten(stores: Bench) -> None:
    cat = ConversationKey(ANN, CAT)
    log = [change(10), change(20, 2, cat, target_id="b"), change(30, kind=ChangeKind.RETRACTED, stanza=None)]
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


async def test_texts_of_corrections_are_erased(stores: Bench) -> None:
    await stores.put(accounts=[account()], changes=[change(10), change(20), change(30, 2)])
    await stores.put(erased=[(WITH_BOB, 1)])
    page = await stores.store.rewrites(ANN, RewriteQuery(since=0))
    assert [found.stanza for found in page.changes] == [None, None, STANZA]


async def test_a_correction_and_its_retraction_in_one_transaction_leave_no_text(stores: Bench) -> None:
    await stores.put(accounts=[account()], changes=[change(10)], erased=[(WITH_BOB, 1)])
    assert [found.stanza for found in (await stores.store.rewrites(ANN, RewriteQuery(since=0))).changes] == [None]


# ---- jobs and calls that time makes due -----------------------------------------------------------------------------

BOTH = (Lane.CALLS, Lane.MESSAGES)


async def names(stores: Bench, lanes: tuple[int, ...] = BOTH, at: float = 0, limit: int = 9) -> list[int]:
    return [due.lane for due in await stores.store.due_jobs(after(at), lanes, limit)]


async def queued(stores: Bench) -> None:
    later, update = job("later", not_before=after(5)), job("update", lane=Lane.UPDATES)
    done, left = {"state": JobState.DONE, "outcome": "accepted"}, {"state": JobState.ATTEMPTED, "attempted_at": NOW}
    await stores.put(jobs=[job("now"), later, update, call_job("call"), job("done", **done), job("left", **left)])


@pytest.mark.parametrize(
    ("lanes", "at", "limit", "found"),
    [
        (BOTH, 0, 9, [1, 2]),
        (BOTH, 5, 9, [1, 2, 2]),
        (BOTH, 5, 2, [1, 2]),
        (BOTH, -1, 9, []),
        ((Lane.UPDATES,), 0, 9, [3]),
    ],
)
async def test_due_jobs_by_lane(stores: Bench, lanes: tuple[int, ...], at: int, limit: int, found: list[int]) -> None:
    await queued(stores)
    assert await names(stores, lanes, at, limit) == found


async def test_a_due_job_says_which_rows_it_needs(stores: Bench) -> None:
    await stores.put(jobs=[call_job()])
    [due] = await stores.store.due_jobs(NOW, [Lane.CALLS], 1)
    assert (due.account, due.job_id, due.peer, due.sid) == (ANN, call_job().job_id, BOB, "s1")


async def test_when_the_next_job_is_due(stores: Bench) -> None:
    assert await stores.store.next_job_at(BOTH) is None
    await stores.put(jobs=[job("b", not_before=after(9)), job("a", not_before=after(5)), job("u", lane=Lane.UPDATES)])
    assert await stores.store.next_job_at(BOTH) == after(5)


async def test_abandoned_jobs(stores: Bench) -> None:
    left = [job(f"{n}", state=JobState.ATTEMPTED, attempted_at=after(n)) for n in (1, 2, 3)]
    await stores.put(jobs=[*left, job("queued")])
    found = await stores.store.abandoned_jobs(after(3), 9)
    assert [due.job_id for due in found] == [left[0].job_id, left[1].job_id]
    assert len(await stores.store.abandoned_jobs(after(3), 1)) == 1


async def test_the_depth_of_the_queue(stores: Bench) -> None:
    await queued(stores)
    depth = await stores.store.queue_depth(after(4))
    assert {lane: (jobs, float(age)) for lane, (jobs, age) in depth.items()} == {1: (1, 4.0), 2: (1, 4.0), 3: (1, 4.0)}


async def test_expired_calls(stores: Bench) -> None:
    calls = [call("s1", rings_until=after(2)), call("s2", rings_until=after(1)), call("s3", rings_until=after(3))]
    await stores.put(calls=[*calls, call("s4", state=CallState.MISSED, rings_until=NOW)])
    assert [key.sid for key in await stores.store.expired_calls(after(2), 9)] == ["s2", "s1"]
    assert [key.sid for key in await stores.store.expired_calls(after(2), 1)] == ["s2"]


async def test_a_job_comes_back_as_it_was_stored(stores: Bench) -> None:
    full = {"silent": True, "collapse": "w", "target_rank": 3, "attempts": 2, "repeat": 1, "reason": "Shutdown"}
    stored = job(**full, state=JobState.ATTEMPTED, attempted_at=after(1))
    await stores.put(accounts=[account(devices=1)], jobs=[stored])
    assert await jobs_of(stores) == [stored]


async def test_a_job_that_changed_comes_back_changed(stores: Bench) -> None:
    await stores.put(accounts=[account(devices=1)], jobs=[job()])
    moved = job(version=9, peer="", silent=True, collapse="u", target_rank=4, not_before=after(1), deadline=after(99))
    moved = replace(moved, repeat=2, attempts=1)
    await stores.put(jobs=[moved])
    assert await jobs_of(stores) == [moved]


async def test_books_hold_open_jobs_and_all_of_the_call(stores: Bench) -> None:
    ended = {"state": JobState.DONE, "outcome": "accepted"}
    await stores.put(accounts=[account(devices=1)], jobs=[job("a"), job("b", **ended), call_job("c", **ended)])
    assert len(await jobs_of(stores)) == 1
    assert len(await jobs_of(stores, (ANN, "s1"))) == 2


async def test_the_feed_passes_over_accounts_without_devices(stores: Bench) -> None:
    await stores.put(jobs=[job()])
    books = await stores.store.transact(replace(owned(), devices=True), seeing())
    assert books.jobs == {}


async def test_a_job_outlives_its_device_until_it_is_claimed(stores: Bench) -> None:
    await stores.put(accounts=[account(devices=0)], jobs=[job()])
    assert await jobs_of(stores) == [job()]


# ---- devices --------------------------------------------------------------------------------------------------------

SANDBOX = ("chat", Environment.SANDBOX)


async def test_a_device_comes_back_as_it_was_stored(stores: Bench) -> None:
    stored = device(voip_token=token("v"), name="Ann's", bound_to="web", woken_version=3, woken_at=NOW, enabled=False)
    stored = replace(stored, fetched_version=2, fetched_at=after(1))
    await stores.put(accounts=[account(devices=1)], devices=[device()])
    await stores.put(devices=[stored])
    books = await stores.store.transact(replace(owned(), devices=True), seeing())
    assert books.devices == {ANN: [stored]}
    assert books.devices[ANN][0].alert_token.sealed == stored.alert_token.sealed


async def test_a_token_belongs_to_who_registered_it_last(stores: Bench) -> None:
    shared = token("shared")
    ann, eve = device(alert_token=shared, voip_token=token("v")), device(owner=EVE, voip_token=shared)
    await stores.put(ANN, EVE, devices=[ann], retokened=[ann])
    await stores.put(ANN, EVE, devices=[eve], retokened=[eve], deleted_devices=[(ANN, "phone")])
    assert await stores.store.token_owners(*SANDBOX, [token("v").digest, shared.digest]) == {EVE}
    assert await stores.store.token_owners("chat", Environment.PRODUCTION, [shared.digest]) == frozenset()


async def test_a_token_that_somebody_else_holds_is_refused(stores: Bench) -> None:
    ann, eve = device(), device(owner=EVE, alert_token=device().alert_token)
    await stores.put(ANN, EVE, devices=[ann], retokened=[ann])
    with pytest.raises(TokenHeld):
        await stores.put(ANN, EVE, devices=[eve], retokened=[eve])
    assert await stores.store.token_owners(*SANDBOX, [ann.alert_token.digest]) == {ANN}


async def test_a_device_that_left_holds_no_token(stores: Bench) -> None:
    await stores.put(devices=[device()], retokened=[device()])
    await stores.put(deleted_devices=[(ANN, "phone")])
    assert await stores.store.token_owners(*SANDBOX, [device().alert_token.digest]) == frozenset()


async def test_a_new_token_lets_the_old_one_go(stores: Bench) -> None:
    renewed = device(alert_token=token("new"))
    await stores.put(devices=[device()], retokened=[device()])
    await stores.put(devices=[renewed], retokened=[renewed])
    assert await stores.store.token_owners(*SANDBOX, [device().alert_token.digest]) == frozenset()
    assert await stores.store.token_owners(*SANDBOX, [token("new").digest]) == {ANN}


async def test_one_token_may_serve_alerts_and_calls(stores: Bench) -> None:
    twice = device(voip_token=device().alert_token)
    await stores.put(devices=[twice], retokened=[twice])
    assert await stores.store.token_owners(*SANDBOX, [device().alert_token.digest]) == {ANN}


# ---- the end of an account ------------------------------------------------------------------------------------------


async def test_a_deleted_account_takes_everything_along(stores: Bench) -> None:
    rows = {"conversations": [conversation()], "messages": [message(message_key="m")], "changes": [change(1)]}
    rows |= {"calls": [call()], "devices": [device()], "jobs": [job()]}
    await stores.put(accounts=[account(devices=1)], **rows)
    await stores.put(deleted_accounts=[ANN])
    assert await stores.store.account(ANN) is None
    seen = await stores.store.transact(
        replace(owned(conversations=[WITH_BOB], ids=[(WITH_BOB, "m")], calls=[(ANN, "s1")]), devices=True), seeing()
    )
    assert (seen.conversations, seen.messages, seen.calls, seen.devices, seen.jobs) == ({}, {}, {}, {}, {})
    assert await stores.store.due_jobs(NOW, BOTH, 9) == []
    assert await stores.store.token_owners(*SANDBOX, [device().alert_token.digest]) == frozenset()


async def test_others_stay(stores: Bench) -> None:
    await stores.put(ANN, EVE, conversations=[conversation(owner=EVE)])
    await stores.put(ANN, EVE, deleted_accounts=[ANN])
    assert (await stores.store.page(EVE, ListQuery())).total == 1


async def test_a_muted_conversation_stays_muted(stores: Bench) -> None:
    await stores.put(accounts=[account()], conversations=[conversation(muted_until=FOR_EVER)])
    [item] = (await stores.store.page(ANN, ListQuery())).items
    assert item.conversation.muted(NOW + timedelta(days=100_000))


async def test_no_kind_of_push_is_unknown_to_the_schema(stores: Bench) -> None:
    made = [job(kind.value, kind=kind, sid="s1") for kind in PushKind]
    await stores.store.transact(owned(), storing(jobs=made))


# ---- a ring that is claimed at once --------------------------------------------------------------------------------


async def queued_ring(stores: Bench) -> PushJob:
    """A queued VoIP job of a device, and its account at version 5."""
    ring = job(kind=PushKind.CALL, lane=Lane.CALLS, voip=True, sid="s1", peer=BOB, version=5)
    await stores.put(ANN, accounts=[account(ANN, version=5, devices=1)], devices=[device()], jobs=[ring])
    return ring


def attempted(ring: PushJob) -> PushJob:
    return replace(ring, state=JobState.ATTEMPTED, attempts=1, attempted_at=NOW)


async def test_a_ring_is_claimed_once_with_what_follows(stores: Bench) -> None:
    ring = await queued_ring(stores)
    follow = replace(ring, job_id=job_id("follow"), kind=PushKind.CALL_FALLBACK, voip=False)
    assert await stores.store.claim_ring(attempted(ring), 5, [follow])
    assert not await stores.store.claim_ring(attempted(ring), 5, [follow])
    assert sorted(await jobs_of(stores, (ANN, "s1")), key=str) == sorted([attempted(ring), follow], key=str)
    owner = await stores.store.account(ANN)
    assert owner is not None
    assert owner.wakes_open


async def test_a_ring_is_not_claimed_when_the_account_has_moved(stores: Bench) -> None:
    ring = await queued_ring(stores)
    assert not await stores.store.claim_ring(attempted(ring), 4, [])
    assert await jobs_of(stores, (ANN, "s1")) == [ring]


async def test_a_ring_that_was_tried_is_not_claimed_at_once(stores: Bench) -> None:
    ring = await queued_ring(stores)
    await stores.put(jobs=[replace(ring, attempts=1)])
    assert not await stores.store.claim_ring(attempted(ring), 5, [])
