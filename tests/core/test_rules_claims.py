"""Due jobs that are claimed, by hand: what goes with a push, and what was decided otherwise since it was queued."""

from datetime import datetime
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.conversation import Notify
from sync.model.device import PushJob, PushKind
from sync.model.wishes import Wishes
from sync.rules.claims import Claim, claim, newest, reason_not_to, unwanted_now, woken
from sync.rules.fold import Policies
from sync.rules.jobs import Case
from sync.rules.reasons import Why
from sync.rules.wishes import WakePolicy
from tests.contract.samples import (
    ANN,
    BOB,
    NOW,
    TEA,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    conversation,
    device,
    job,
    last,
    membership,
)

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
TALK, CALL = conversation(unread=1, last=last()), call()
FRIENDS, NO_BOB = Wishes(ignore_unknown=True), Wishes(muted=frozenset({BOB}))
MUTED, NEVER = {"muted_until": after(60)}, {"notify": Notify.NEVER}
NOTHING: dict[str, Any] = {}


def claimed(due: PushJob) -> list[Claim]:
    """Ann's job, claimed while one message of Bob is unread and he calls."""
    books = Books(
        now=NOW,
        accounts={ANN: account(unread=1)},
        devices={ANN: [device()]},
        jobs={ANN: [due]},
        conversations={WITH_BOB: TALK},
        calls={CALL.key: CALL},
    )
    return claim([due.job_id], {}, books, POLICIES).value.claims


@pytest.mark.parametrize(("joined", "told"), [(False, TALK), (True, None)])
def test_a_push_takes_its_conversation_along_where_it_is_of_one(joined: bool, told: object) -> None:
    """A publish at another maker's server may show its last message (docs/push.md §7)."""
    (one,) = claimed(job(peer="" if joined else BOB))
    assert one.conversation == told


@pytest.mark.parametrize(("due", "told"), [(call_job(voip=False), CALL), (job(), None)])
def test_a_push_takes_its_call_along(due: PushJob, told: object) -> None:
    (one,) = claimed(due)
    assert one.call == told


def test_what_is_not_due_yet_stays() -> None:
    assert claimed(job(not_before=after(1))) == []


@pytest.mark.parametrize(
    ("due", "version", "deadline"),
    [
        (job(), 9, 7200),
        (job(version=12, deadline=after(9000)), 12, 9000),
        (call_job(voip=False), 9, 60),  # no call rings for longer than it does
        (call_job(), 5, 60),  # a push of another sort takes nobody's place
        (job(kind=PushKind.TEST), 5, 3600),
    ],
)
def test_who_takes_the_place_of_an_unfetched_wake_says_what_it_said(due: PushJob, version: int, deadline: int) -> None:
    phone = device(woken_version=9, woken_at=NOW, woken_until=after(7200))
    found = newest(due, phone)
    assert (found.version, found.deadline) == (version, after(deadline))
    assert newest(due, device(woken_version=9, fetched_version=9, woken_until=after(7200))) == due


@pytest.mark.parametrize(("kind", "chased"), [(PushKind.SYNC, 3), (PushKind.MESSAGE, 2)])
def test_wakes_that_only_follow_another_are_counted(kind: PushKind, chased: int) -> None:
    phone = woken(device(chased=2, woken_version=3), job(kind=kind), after(1))
    assert (phone.chased, phone.woken_version) == (chased, 5)
    assert (phone.woken_at, phone.woken_until) == (after(1), after(3600))


@pytest.mark.parametrize(
    ("kind", "about", "wishes", "named", "why"),
    [
        (PushKind.CALL, NOTHING, FRIENDS, {"silent": True}, Why.IGNORE_UNKNOWN),
        (PushKind.CALL, NOTHING, FRIENDS, NOTHING, None),
        (PushKind.CALL, MUTED, Wishes(), NOTHING, Why.MUTED),
        (PushKind.MESSAGE, NOTHING, FRIENDS, {"collapse": "u"}, Why.IGNORE_UNKNOWN),
        (PushKind.MESSAGE, NOTHING, FRIENDS, {"collapse": "w"}, None),
        (PushKind.MESSAGE, NOTHING, Wishes(), {"collapse": "u"}, None),
        (PushKind.MESSAGE, MUTED, Wishes(), NOTHING, Why.MUTED),
        (PushKind.MESSAGE, MUTED | {"mentions": 1}, Wishes(), NOTHING, None),
        (PushKind.MESSAGE, NEVER | {"mentions": 1}, Wishes(), NOTHING, Why.NOTIFY_NEVER),
        (PushKind.MESSAGE, {"notify": Notify.ON_MENTION}, Wishes(), NOTHING, Why.NOT_MENTIONED),
        (PushKind.MESSAGE, {"notify": Notify.ON_MENTION, "mentions": 1}, Wishes(), NOTHING, None),
        (PushKind.MESSAGE, NOTHING, NO_BOB, NOTHING, Why.DEVICE_MUTED),
        (PushKind.INVITED, NOTHING, Wishes(), NOTHING, Why.ANSWERED),
        (PushKind.INVITED, {"invited_by": BOB}, Wishes(), NOTHING, None),
        (PushKind.SUBSCRIPTION, NOTHING, Wishes(), NOTHING, Why.ANSWERED),
        (PushKind.SUBSCRIPTION, {"requests_presence": True}, Wishes(), NOTHING, None),
        (PushKind.READ, MUTED | NEVER, NO_BOB, NOTHING, None),
        (PushKind.WITHDRAW, MUTED | NEVER, NO_BOB, NOTHING, None),
        (PushKind.REACTED, MUTED, Wishes(), NOTHING, Why.MUTED),
        (PushKind.REACTED, NEVER, Wishes(), NOTHING, Why.NOTIFY_NEVER),
        (PushKind.REACTED, NOTHING, NO_BOB, NOTHING, Why.DEVICE_MUTED),
        (PushKind.REACTED, NOTHING, Wishes(), NOTHING, None),
        (PushKind.CORRECTED, NEVER, Wishes(), NOTHING, None),
        (PushKind.CORRECTED, MUTED, Wishes(), NOTHING, Why.MUTED),
    ],
)
def test_what_is_not_wanted_any_more(
    kind: PushKind, about: dict[str, Any], wishes: Wishes, named: dict[str, Any], why: Why | None
) -> None:
    """PUSH §5, once more when it is about to leave; mentions are wanted here where the rest is muted."""
    case = Case(conversation(unread=1, **about), WakePolicy(muted_mentions=True), NOW)
    assert unwanted_now(job(kind=kind, **named), device(wishes=wishes), case, filtering=True) is why


@pytest.mark.parametrize(
    ("kind", "wanted", "why"),
    [
        (PushKind.MISSED, True, None),
        (PushKind.MISSED, False, Why.MUTED),
        (PushKind.REACTED, True, Why.MUTED),
        (PushKind.REACTED, False, Why.MUTED),
    ],
)
def test_missed_calls_of_the_muted_are_told_where_that_is_set(kind: PushKind, wanted: bool, why: Why | None) -> None:
    case = Case(conversation(**MUTED), WakePolicy(muted_calls=wanted), NOW)
    assert unwanted_now(job(kind=kind), device(), case, filtering=True) is why


@pytest.mark.parametrize(("filtering", "why"), [(True, None), (False, Why.SHOWS_ALL)])
def test_what_a_room_says_is_not_for_apps_that_show_everything(filtering: bool, why: Why | None) -> None:
    case = Case(membership(unread=1, private=True), WakePolicy(), NOW)
    assert unwanted_now(job(peer=TEA), device(), case, filtering=filtering) is why


@pytest.mark.parametrize(("fetched", "why"), [(None, None), (after(-1), None), (NOW, Why.FETCHED)])
def test_a_phone_that_has_asked_knows_that_it_rings_no_more(fetched: datetime | None, why: Why | None) -> None:
    due, phone = job(kind=PushKind.CALL_END), device(fetched_at=fetched, fetched_version=900)
    assert reason_not_to(due, phone, account(), (), Books(now=after(2))) is why


@pytest.mark.parametrize(("fetched", "why"), [(4, None), (5, Why.FETCHED), (6, Why.FETCHED)])
def test_what_was_fetched_is_not_sent(fetched: int, why: Why | None) -> None:
    assert reason_not_to(job(version=5), device(fetched_version=fetched), account(unread=1), (), Books(now=NOW)) is why


@pytest.mark.parametrize(("kind", "why"), [(PushKind.CALL, None), (PushKind.CALL_FALLBACK, Why.FETCHED)])
def test_a_phone_that_has_asked_rings_all_the_same_but_needs_no_alert(kind: PushKind, why: Why | None) -> None:
    due, phone = call_job(kind=kind, voip=False), device(fetched_at=after(1), fetched_version=900)
    assert reason_not_to(due, phone, account(), (), Books(now=after(2), calls={CALL.key: CALL})) is why
