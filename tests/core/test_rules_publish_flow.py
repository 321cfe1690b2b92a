"""Devices at app servers of other makers, in the rules that wake, ring and settle."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.books import Books, Writes
from sync.model.device import Device, JobState, PushJob, PushKind, Route
from sync.model.effect import (
    CallRings,
    Effect,
    Invited,
    MessageArrived,
    MessageCorrected,
    MessageReacted,
    MessageWithdrawn,
    ReadElsewhere,
)
from sync.model.event import Session, SessionState
from sync.model.push import PushOutcome, Verdict
from sync.rules.claims import claim
from sync.rules.fold import Policies
from sync.rules.jobs import Case, Phone, next_wake
from sync.rules.outcomes import settle
from sync.rules.publish_budget import SEALED, PublishPolicy
from sync.rules.wakes import plan
from sync.rules.wishes import WakePolicy
from tests.contract.samples import (
    ANN,
    IN_TEA,
    NOW,
    WISHES,
    WITH_BOB,
    account,
    after,
    call,
    call_job,
    conversation,
    device,
    job,
)

RINGING = replace(WISHES, muted=frozenset(), ignore_unknown=False, rooms=None)
POLICIES = Policies(wakes=WakePolicy(reactions=True), publish=PublishPolicy())
ON_WEB = (Session("web", SessionState.ACTIVE),)


def published(**fields: Any) -> Device:
    return device(**{"route": Route.PUBLISH, "app": "push.example.com"} | fields)


def planned(
    effect: Effect, phone: Device, policy: WakePolicy = POLICIES.wakes
) -> tuple[tuple[PushJob, ...], list[str]]:
    found = plan(effect, [Phone(device=phone, filtering=False)], Case(conversation(), policy, NOW))
    return found.jobs, list(found.suppressed)


# ---- waking ----------------------------------------------------------------------------------------------------------


def arrived(**fields: Any) -> MessageArrived:
    values = {"conversation": WITH_BOB, "version": 9, "known": True, "mention": False, "sessions": ()} | fields
    return MessageArrived(**values)


def test_a_message_wakes_at_once() -> None:
    ((made,), _) = planned(arrived(), published())
    assert (made.kind, made.not_before, made.queue) == (PushKind.MESSAGE, NOW, "publish:push.example.com")


def test_the_next_message_comes_within_a_second() -> None:
    """mod_cloud_notify gathers for one second, too. What such a client has fetched is not known."""
    woken = {"woken_version": 9, "woken_at": NOW}
    assert next_wake(published(**woken), WakePolicy(), after(0.2)) == after(1)
    assert next_wake(device(**woken), WakePolicy(), after(0.2)) == after(20)


def test_who_looks_is_not_told() -> None:
    assert planned(arrived(sessions=ON_WEB), published(bound_to="web")) == ((), ["attentive"])
    assert planned(arrived(sessions=ON_WEB), published(bound_to="phone"))[1] == []


SHOWN = [
    MessageCorrected(conversation=WITH_BOB, version=9, target_rank=1, sessions=()),
    MessageWithdrawn(conversation=WITH_BOB, version=9, target_rank=1),
    ReadElsewhere(conversation=WITH_BOB, version=9, first_rank=1, resource="desk"),
    MessageReacted(conversation=WITH_BOB, version=9, sessions=()),
]


@pytest.mark.parametrize("effect", SHOWN, ids=lambda effect: type(effect).__name__)
def test_what_would_only_change_a_notification_is_not_published(effect: Effect) -> None:
    """PUSH §5: only the rows marked ●, since each publish shows something."""
    jobs, why = planned(effect, published(woken_version=5))
    assert jobs == ()
    assert why


def test_an_invitation_is_published() -> None:
    ((made,), _) = planned(Invited(conversation=IN_TEA, version=9, known=True, sessions=()), published())
    assert made.kind is PushKind.INVITED


# ---- ringing ---------------------------------------------------------------------------------------------------------


def rings(known: bool = True) -> CallRings:
    return CallRings(call=call(), known=known, sessions=())


def test_a_call_rings_where_the_client_reads_calls() -> None:
    ((made,), _) = planned(rings(), published(wishes=RINGING))
    assert (made.kind, made.voip, made.silent, made.deadline) == (PushKind.CALL, True, False, call().rings_until)


@pytest.mark.parametrize("less", [{"jingle": False}, {"encrypt": None}])
def test_elsewhere_it_is_a_plain_notification(less: dict[str, Any]) -> None:
    ((made,), _) = planned(rings(), published(wishes=replace(RINGING, **less)))
    assert (made.kind, made.voip, made.silent) == (PushKind.CALL, False, False)


def test_a_stranger_does_not_ring() -> None:
    ((made,), _) = planned(rings(known=False), published(wishes=RINGING))
    assert (made.voip, made.silent) == (False, True)
    ((made,), _) = planned(rings(known=False), published(wishes=RINGING), WakePolicy(ring_unknown=True))
    assert made.voip


def test_phones_of_ours_show_no_call_without_the_entitlement() -> None:
    assert planned(rings(), device())[1] == ["no-filter"]


def claimed(made: PushJob, phone: Device) -> PushJob:
    """The job after its claim."""
    books = Books(
        now=after(1),
        accounts={ANN: account(devices=1, unread=1)},
        devices={ANN: [phone]},
        jobs={ANN: [made]},
        calls={call().key: call()},
        conversations={WITH_BOB: conversation(unread=1)},
    )
    (found,) = claim([made.job_id], {}, books, POLICIES).writes.jobs
    return found


def test_who_asks_for_no_calls_meanwhile_is_not_rung() -> None:
    assert claimed(call_job(), published(wishes=RINGING)).state is JobState.ATTEMPTED
    assert claimed(call_job(), published()).outcome == "suppressed:no-token"


@pytest.mark.parametrize("less", [{"jingle": False}, {"encrypt": None}])
def test_a_call_that_waited_in_the_queue_is_a_plain_notification_too(less: dict[str, Any]) -> None:
    elsewhere = published(wishes=replace(RINGING, **less))
    ((made,), _) = planned(rings(), elsewhere)
    assert claimed(made, elsewhere).state is JobState.ATTEMPTED
    assert claimed(made, device()).outcome == "suppressed:no-filter"


# ---- answers ---------------------------------------------------------------------------------------------------------

LEFT = {"state": JobState.ATTEMPTED, "attempts": 1, "attempted_at": after(1)}


def settled(outcome: PushOutcome, phone: Device, made: PushJob | None = None, policies: Policies = POLICIES) -> Writes:
    made = made or job(**LEFT)
    books = Books(
        now=after(2), accounts={ANN: account(devices=2)}, devices={ANN: [phone, device("other")]}, jobs={ANN: [made]}
    )
    return settle(made.job_id, ANN, outcome, books, policies).writes


def refused(reason: str = "forbidden") -> PushOutcome:
    return PushOutcome(verdict=Verdict.REJECTED, reason=reason)


def test_a_refusal_counts_and_is_not_sent_again() -> None:
    writes = settled(refused(), published())
    assert [(held.failures, held.failing_since) for held in writes.devices] == [(1, after(2))]
    assert [(done.state, done.outcome, done.reason) for done in writes.jobs] == [
        (JobState.DONE, "rejected", "forbidden")
    ]
    assert (writes.retokened, writes.deleted_devices) == ([], [])


def test_the_last_refusal_ends_it() -> None:
    long_failing = {"failures": 15, "failing_since": NOW - timedelta(hours=73)}
    writes = settled(refused(), published(**long_failing))
    assert writes.deleted_devices == [(ANN, "phone")]
    assert [owner.devices for owner in writes.accounts] == [1]
    patient = Policies(publish=PublishPolicy(max_errors=17))
    assert settled(refused(), published(**long_failing), policies=patient).deleted_devices == []


def test_phones_of_ours_count_nothing() -> None:
    assert settled(refused(), device()).devices == []


def test_an_acceptance_forgives_and_writes_nothing_else() -> None:
    accepted = PushOutcome(verdict=Verdict.ACCEPTED)
    writes = settled(accepted, published(failures=3, failing_since=NOW))
    assert [(held.failures, held.failing_since) for held in writes.devices] == [(0, None)]
    assert settled(accepted, published()).devices == []


def test_what_we_cannot_open_is_not_the_app_servers_fault() -> None:
    assert settled(refused(SEALED), published()).devices == []


@pytest.mark.parametrize("voip", [False, True])
def test_a_node_that_is_no_more_goes_whatever_was_sent(voip: bool) -> None:
    gone = PushOutcome(verdict=Verdict.DEAD_TOKEN, reason="item-not-found")
    made = call_job(**LEFT) if voip else job(**LEFT)
    writes = settled(gone, published(), made)
    assert (writes.deleted_devices, writes.devices) == ([(ANN, "phone")], [])
    # Enabled anew while the publish was under way: it is another one.
    writes = settled(gone, published(registered_at=after(1.5)), made)
    assert writes.deleted_devices == []


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.NOT_SENT, Verdict.UNCERTAIN])
def test_what_was_put_off_or_not_answered_goes_again(verdict: Verdict) -> None:
    writes = settled(PushOutcome(verdict=verdict, reason="no-answer"), published(failures=3, failing_since=NOW))
    assert [again.state for again in writes.jobs] == [JobState.QUEUED]
    assert writes.devices == []


@pytest.mark.parametrize(
    ("verdict", "phone", "state"),
    [
        (Verdict.UNCERTAIN, published(), JobState.DONE),
        (Verdict.RETRY, published(), JobState.QUEUED),
        (Verdict.UNCERTAIN, device(), JobState.QUEUED),
    ],
)
def test_who_never_answers_is_told_a_few_times(verdict: Verdict, phone: Device, state: JobState) -> None:
    """It may have shown them all."""
    outcome = PushOutcome(verdict=verdict, reason="no-answer")
    assert [one.state for one in settled(outcome, phone, job(**LEFT | {"attempts": 4})).jobs] == [JobState.QUEUED]
    assert [one.state for one in settled(outcome, phone, job(**LEFT | {"attempts": 5})).jobs] == [state]


def test_a_call_that_was_not_answered_never_rings_twice() -> None:
    writes = settled(PushOutcome(verdict=Verdict.UNCERTAIN), published(wishes=RINGING), call_job(**LEFT))
    assert [done.state for done in writes.jobs] == [JobState.DONE]
