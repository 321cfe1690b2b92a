"""Edges of the fold that no feed shows: what is no message, what rings at once, what is unread amid a transaction."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books, LostHost, Quarantined
from sync.model.call import CallKey, CallState
from sync.model.conversation import (
    Behind,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
)
from sync.model.device import JobState, PushKind
from sync.model.event import AccountState, Event, GapEvent, GapReason, Malformed
from sync.rules.fold import Policies, Ring, take
from sync.rules.jobs import is_first_ring
from sync.rules.shelf import Shelf
from sync.rules.view import Tally
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    IN_TEA,
    NOW,
    OF_TEA,
    TEA,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    conversation,
    device,
    job,
    message,
)
from tests.core.edges import AT, ran
from tests.core.rule_feed import Feed

# ---- what is unread behind a message, within one transaction ---------------------------------------------------------


def shelf(key: ConversationKey, *ranks: int, **behind: Behind) -> Shelf:
    """A shelf with loaded messages, and what the store has counted behind some: `at3=Behind(…)`."""
    counted = {(key, int(name[2:])): found for name, found in behind.items()}
    return Shelf(Books(now=NOW, messages={key: [message(rank, key) for rank in ranks]}, behind=counted))


def tallied(key: ConversationKey, *tallies: Sequence[int], **behind: Behind) -> Shelf:
    found = shelf(key, 3, **behind)
    found.take([message(rank, key) for rank, *_ in tallies], key, [Tally(*values) for values in tallies])
    return found


def test_what_came_is_added_to_what_the_store_counted() -> None:
    found = tallied(WITH_BOB, (5, 1, 1), (6, 1, 0), (7, 1, 1), at3=Behind(4, 2, 2))
    assert found.behind(WITH_BOB, [3, 5, 6]) == {3: Behind(7, 4, 2), 5: Behind(2, 1, 5), 6: Behind(1, 1, 5)}


def test_what_was_taken_back_is_taken_off() -> None:
    found = tallied(WITH_BOB, (4, -1, -1), at3=Behind(4, 2, 2))
    assert found.behind(WITH_BOB, [3]) == {3: Behind(3, 1, 2)}


def test_only_what_counts_can_be_the_first() -> None:
    found = tallied(WITH_BOB, (5, 0, 0), (6, -1, 0), (7, 1, 0), (8, 1, 0))
    assert found.behind(WITH_BOB, [6, 7]) == {6: Behind(2, 0, None), 7: Behind(1, 0, 7)}


def test_what_the_store_has_not_counted_is_not_known() -> None:
    assert tallied(WITH_BOB, (5, 1, 0)).behind(WITH_BOB, [3, 5]) == {5: Behind(0, 0, 5)}


def test_of_a_room_of_this_server_the_rooms_own_index_says_what_was_loaded() -> None:
    found = shelf(OF_TEA, 3)
    assert found.behind(IN_TEA, [3, 4]) == {4: Behind(0, 0)}
    assert [one.rank for one in found.find(IN_TEA, ["m"])] == []


def test_what_a_message_is_about_is_found_with_it() -> None:
    first, correction = message(3, message_key="m"), message(5, message_key="c", about=3)
    stray = message(6, message_key="s", about=99)
    found = Shelf(Books(now=NOW, messages={WITH_BOB: [first, correction, stray]}))
    assert found.find(WITH_BOB, ["c"]) == (first, correction)
    assert found.find(WITH_BOB, ["s"]) == (stray,)
    assert found.find(replace(WITH_BOB, peer=CAT), ["m"]) == ()
    assert found.changed() == []


def test_what_changed_is_there_once_and_as_it_is_now() -> None:
    found = shelf(WITH_BOB, 3)
    first = message(3, counted=False)
    found.take([message(3, retracted=7)], WITH_BOB, ())
    found.take([first], WITH_BOB, ())
    assert found.changed() == [first]


# ---- the fold: what is no message ------------------------------------------------------------------------------------


def folded(event: Event, **rows: Any) -> Any:
    return take([event], Books(now=NOW, **rows), Policies())


FEED = Feed(lambda: NOW)


@pytest.mark.parametrize("reason", GapReason)
def test_a_gap_loses_the_host_and_a_full_one_its_other_streams(reason: GapReason) -> None:
    event = GapEvent(position=FEED.position(), account="example.org", at=NOW, reason=reason)
    keep = "stream" if reason is GapReason.FULL else None
    assert folded(event).writes.lost_hosts == [LostHost(host="example.org", version=AT, keep=keep)]


def test_a_deleted_account_takes_along_what_was_to_be_written() -> None:
    feed = Feed(lambda: NOW)
    events = [
        feed.event("in", ["m1"], {}),
        feed.event("call", ["propose", "s1"], {}),
        feed.event("react", ["m1", "x"], {}),
    ]
    events += [feed.event("in", ["m1"], {"own": "eve"}), feed.event("account", [AccountState.DELETED], {})]
    accounts = {ANN: account(), EVE: account(EVE)}
    writes = take(events, Books(now=NOW, accounts=accounts), Policies()).writes
    assert writes.deleted_accounts == [ANN]
    assert {one.jid for one in writes.accounts} == {EVE}
    assert {one.key.account for one in writes.conversations} == {EVE}
    assert {one.conversation.account for one in writes.messages} == {EVE}
    assert (writes.changes, writes.calls, writes.jobs) == ([], [], [])


def test_what_is_taken_back_in_the_batch_that_brought_it_is_never_written() -> None:
    feed = Feed(lambda: NOW)
    archived = ({"archive": f"a{n}", "text": "secret"} for n in range(9))
    events = [
        feed.event("in", ["m1"], next(archived)),
        feed.event("in", ["m2"], next(archived)),
        feed.event("correct", ["m1"], next(archived)),
        feed.event("correct", ["m2"], next(archived)),
        feed.event("retract", ["m1"], next(archived)),
    ]
    changes = take(events, Books(now=NOW, accounts={ANN: account()}), Policies()).writes.changes
    assert [(change.kind.value, change.stanza is None) for change in changes] == [
        ("corrected", True),
        ("corrected", False),
        ("retracted", True),
    ]


def test_one_that_is_created_or_deleted_unknown_changes_nothing_else() -> None:
    writes = folded(FEED.event("account", [AccountState.CREATED], {}), accounts={ANN: account()}).writes
    assert (writes.deleted_accounts, writes.accounts) == ([], [])
    assert folded(FEED.event("account", [AccountState.DELETED], {})).writes.deleted_accounts == [ANN]


def test_what_waits_for_somebody_who_is_blocked_now_ends() -> None:
    jobs = [
        job("j1"),
        job("j2"),
        job("j3", peer=CAT),
        job("j4", state=JobState.ATTEMPTED, attempts=1, attempted_at=NOW),
    ]
    event = FEED.event("block", [BOB], {})
    ruling = folded(event, accounts={ANN: account()}, jobs={ANN: jobs})
    assert {(one.job_id, one.state, one.outcome) for one in ruling.writes.jobs} == {
        (one.job_id, JobState.DONE, "suppressed:blocked") for one in jobs[:2]
    }
    assert ruling.value.suppressed == {"blocked": 2}
    assert folded(event, accounts={ANN: account()}).writes.jobs == []


@pytest.mark.parametrize("room", [False, True])
def test_what_cannot_be_read_is_kept_aside_and_whom_it_was_about_starts_over(room: bool) -> None:
    event = Malformed(position=FEED.position(), account=TEA if room else ANN, why="bad", xml="<x/>", room=room)
    writes = folded(event, accounts={ANN: account(epoch=4)}).writes
    assert writes.quarantined == [Quarantined(position=event.position, account=event.account, why="bad", event="<x/>")]
    assert writes.lost_hosts == ([LostHost(host=TEA, version=AT)] if room else [])
    assert writes.accounts == ([] if room else [account(epoch=5, version=AT, floor=AT)])


# ---- calls that ring at once -----------------------------------------------------------------------------------------


def test_a_new_call_rings_with_all_that_sending_it_takes() -> None:
    phones = [device("tablet", enabled=False), device("phone", voip_token=device().alert_token)]
    known = conversation(written=True)
    feed = Feed(lambda: NOW)
    events = [feed.event("call", ["propose", "s1"], {}), feed.event("in", ["m1"], {})]
    given = Books(now=NOW, accounts={ANN: account()}, conversations={known.key: known}, devices={ANN: phones})
    ruling = take(events, given, Policies())
    ringing = next(one for one in ruling.writes.jobs if one.kind is PushKind.CALL)
    (kept,) = ruling.writes.calls
    (owner,) = ruling.writes.accounts
    assert ruling.value.rings == [Ring(job=ringing, device=phones[1], account=owner, call=kept)]
    assert ruling.value.jobs == ruling.writes.jobs
    assert kept.key == CallKey(ANN, BOB, "s1")
    assert kept.state is CallState.RINGING


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({}, True),
        ({"kind": PushKind.CALL_FALLBACK}, False),
        ({"state": JobState.DONE, "outcome": "accepted"}, False),
        ({"attempts": 1}, False),
        ({"not_before": after(0.000001)}, False),
        ({"not_before": after(-1)}, True),
    ],
)
def test_only_what_rings_now_and_was_never_tried_rings_at_once(fields: dict[str, Any], first: bool) -> None:
    assert is_first_ring(call_job(**fields), NOW) is first


def test_a_call_that_is_gone_does_not_expire() -> None:
    assert call().key == CallKey(ANN, BOB, "s1")
    assert ran("call propose s1", "call retract s1", "wait 61", "expire").ignored == {"not-expired": 1}


def test_an_index_row_of_a_room_says_no_direction_of_its_own() -> None:
    tables = ran("members ann=member", "said m1 by=ann archive=a1").store.tables
    found: list[IndexedMessage] = list(tables.messages.values())
    assert [(one.direction, one.conversation.kind) for one in found] == [(Direction.IN, Kind.GROUP)]
