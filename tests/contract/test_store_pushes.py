"""What every Store promises of jobs, devices, and what time makes due: the in-memory one, and Postgres."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books, Keys, Ruling, Writes
from sync.model.call import CallState
from sync.model.conversation import Kind
from sync.model.device import JobState, Lane, PushKind, Route
from sync.model.errors import TokenHeld
from sync.model.push import Environment
from sync.model.wishes import Allow, RoomWish, Wishes
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    NOW,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    device,
    job,
    job_id,
    owned,
    seeing,
    storing,
    token,
)
from tests.contract.stores import Bench

BOTH = (Lane.CALLS, Lane.MESSAGES)


async def jobs_of(stores: Bench, *calls: tuple[str, str]) -> list[object]:
    books = await stores.store.transact(Keys(accounts=frozenset({ANN}), devices=True, calls=frozenset(calls)), seeing())
    return sorted(books.jobs.get(ANN, []), key=lambda found: found.job_id)


# ---- jobs and calls that time makes due -----------------------------------------------------------------------------


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
    assert (due.account, due.job_id, due.peer, due.about, due.sid) == (ANN, call_job().job_id, BOB, Kind.CHAT, "s1")


async def test_a_due_job_of_a_group_says_so(stores: Bench) -> None:
    left = job("left", about=Kind.AXOLOTL, state=JobState.ATTEMPTED, attempted_at=NOW)
    await stores.put(jobs=[job("queued", about=Kind.GROUP), left])
    found = [*await stores.store.due_jobs(NOW, BOTH, 9), *await stores.store.abandoned_jobs(after(1), 9)]
    assert [due.about for due in found] == [Kind.GROUP, Kind.AXOLOTL]


async def test_what_waits_in_a_held_queue_is_passed_over(stores: Bench) -> None:
    queued = [
        job(f"{queue} {n}", queue=queue, not_before=after(n)) for queue in ("apns:a", "apns:b", "") for n in (0, 5)
    ]
    await stores.put(jobs=[*queued, call_job("call", queue="apns:b", not_before=after(5))])
    found = await stores.store.due_jobs(after(5), BOTH, 9, ["apns:a", "nobody's"])
    assert [(due.lane, due.queue) for due in found][:1] == [(1, "apns:b")]
    assert sorted(due.queue for due in found) == ["", "", "apns:b", "apns:b", "apns:b"]
    assert {due.queue for due in await stores.store.due_jobs(NOW, BOTH, 9)} == {"", "apns:a", "apns:b"}
    assert len(await stores.store.due_jobs(after(5), BOTH, 1, ["apns:a"])) == 1
    assert await stores.store.due_jobs(after(5), BOTH, 9, ["", "apns:a", "apns:b"]) == []


async def test_when_the_next_job_outside_of_held_queues_is_due(stores: Bench) -> None:
    await stores.put(jobs=[job("a", queue="apns:a"), job("b", queue="apns:b", not_before=after(5))])
    assert await stores.store.next_job_at(BOTH, ["apns:a"]) == after(5)
    assert await stores.store.next_job_at(BOTH, ["apns:a", "apns:b"]) is None
    assert await stores.store.next_job_at([Lane.CALLS], []) is None


async def test_jobs_of_calls_that_have_no_time_left_in_some_queues(stores: Bench) -> None:
    late = {"queue": "apns:a", "deadline": after(60)}
    others = [call_job("elsewhere", queue="apns:b", sid="s2", voip=False), job("wake", **late)]
    left = call_job("left", sid="s3", state=JobState.ATTEMPTED, attempted_at=NOW, **late)
    await stores.put(jobs=[call_job("late", **late), left, *others])
    assert await stores.store.overdue_jobs(after(59), ["apns:a"], 9) == []
    [found] = await stores.store.overdue_jobs(after(60), ["apns:a"], 9)
    assert (found.job_id, found.sid, found.queue) == (job_id("late"), "s1", "apns:a")


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


async def test_calls_that_nobody_ends_are_over_after_a_day(stores: Bench) -> None:
    states = (CallState.OUTGOING, CallState.ANSWERED, CallState.ENDED, CallState.MISSED)
    old = [
        call(state.value, state=state, proposed_at=after(n), rings_until=after(60)) for n, state in enumerate(states)
    ]
    await stores.put(calls=[*old, call("s1", proposed_at=after(86300), rings_until=after(86399.5))])
    assert [key.sid for key in await stores.store.expired_calls(after(86399), 9)] == []
    assert [key.sid for key in await stores.store.expired_calls(after(86400), 9)] == ["s1", "outgoing"]
    assert [key.sid for key in await stores.store.expired_calls(after(86401), 9)] == ["s1", "outgoing", "answered"]


async def test_books_hold_the_open_calls_with_a_peer_and_all_of_theirs(stores: Bench) -> None:
    calls = [call(state.value, state=state) for state in CallState] + [
        call("other", peer=CAT),
        call("eve's", owner=EVE),
    ]
    ended = {"state": JobState.DONE, "outcome": "accepted"}
    jobs = [call_job("a", sid="ringing", **ended), call_job("b", sid="missed", **ended)]
    await stores.put(accounts=[account(devices=1)], calls=calls, jobs=jobs)
    wanted = Keys(accounts=frozenset({ANN}), lines=frozenset({WITH_BOB}), devices=True)
    books = await stores.store.transact(wanted, seeing())
    assert {key.sid for key in books.calls} == {"ringing", "outgoing", "answered"}
    assert [job.sid for job in books.jobs[ANN]] == ["ringing"]


async def test_a_job_comes_back_as_it_was_stored(stores: Bench) -> None:
    full = {"silent": True, "collapse": "w", "target_rank": 3, "attempts": 2, "repeat": 1, "reason": "Shutdown"} | {
        "queue": "apns:a"
    }
    stored = job(**full, about=Kind.GROUP, state=JobState.ATTEMPTED, attempted_at=after(1))
    await stores.put(accounts=[account(devices=1)], jobs=[stored])
    assert await jobs_of(stores) == [stored]


async def test_a_job_that_changed_comes_back_changed(stores: Bench) -> None:
    await stores.put(accounts=[account(devices=1)], jobs=[job()])
    moved = job(version=9, peer="", silent=True, collapse="u", target_rank=4, not_before=after(1), deadline=after(99))
    moved = replace(moved, about=Kind.GROUP, repeat=2, attempts=1)
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


async def test_no_kind_of_push_is_unknown_to_the_schema(stores: Bench) -> None:
    made = [job(kind.value, kind=kind, sid="s1") for kind in PushKind]
    await stores.store.transact(owned(), storing(jobs=made))


# ---- devices --------------------------------------------------------------------------------------------------------

SANDBOX = ("chat", Environment.SANDBOX)


async def test_a_device_comes_back_as_it_was_stored(stores: Bench) -> None:
    stored = device(voip_token=token("v"), name="Ann's", bound_to="web", woken_version=3, woken_at=NOW, enabled=False)
    stored = replace(stored, fetched_version=2, fetched_at=after(1), failures=2, failing_since=NOW, route=Route.PUBLISH)
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


async def test_who_has_a_node(stores: Bench) -> None:
    await stores.put(devices=[device(node="n1"), device("tablet", node="n2"), device("phone", EVE, node="n3")])
    assert await stores.store.node_owners("n2") == {ANN}
    assert await stores.store.node_owners("n3") == {EVE}
    assert await stores.store.node_owners("n4") == frozenset()
    await stores.put(devices=[device("phone", EVE, node="n2")])
    assert await stores.store.node_owners("n2") == {ANN, EVE}


# ---- what a push leaves at a device ---------------------------------------------------------------------------------


LISTS = Wishes(rooms=tuple(RoomWish(f"room{n}@rooms.example.org", Allow.MENTIONED, "Ann") for n in range(1000)))
LEFT = {
    "bound_to": "phone",
    "woken_version": 7,
    "woken_at": after(1),
    "woken_until": after(99),
    "chased": 2,
    "fetched_version": 6,
    "fetched_at": after(2),
    "failures": 3,
    "failing_since": after(3),
}


@pytest.mark.parametrize("more", [{}, {"name": "Ann's"}, {"enabled": False}, {"wishes": replace(LISTS, away=True)}])
async def test_whatever_changes_at_a_device_is_stored_and_all_else_stays(stores: Bench, more: dict[str, Any]) -> None:
    before = [device(wishes=LISTS), device("tablet", wishes=LISTS, voip_token=token("v"))]
    await stores.put(devices=before, retokened=before)

    def pushed(books: Books) -> Ruling[None]:
        phone = next(one for one in books.devices[ANN] if one.device_id == "phone")
        return Ruling(writes=Writes(devices=[replace(phone, **LEFT, **more)]), value=None)

    keys = Keys(accounts=frozenset({ANN}), devices=True)
    await stores.store.transact(keys, pushed)
    books = await stores.store.transact(keys, seeing())
    found = sorted(books.devices[ANN], key=lambda one: one.device_id)
    assert found == [replace(before[0], **LEFT, **more), before[1]]
