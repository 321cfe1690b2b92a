"""Publishes of servers that know nothing of us (XEP-0357 §7, PUSH §4): who may, what comes of it, and that it is sent.

The devices are Ann's and Eve's; the host of Ann is another server's, that of Eve is one that we have the feed of.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.device import JobState, PushKind, Route
from sync.model.errors import Forbidden, InternalServerError, ItemNotFound, RequestError
from sync.model.event import Session, SessionState
from sync.model.notification import Notification, Published, Urgency
from sync.model.push import Environment, Verdict
from sync.model.query import App
from sync.rules.publishes import (
    EVERYBODY,
    FORGOTTEN_AFTER,
    Guest,
    Outcome,
    parents,
    publish_to_token,
    wake,
    wake_of,
)
from sync.rules.times import microseconds
from sync.rules.wakes import MESSAGE_LIFE, UPDATE_LIFE
from tests.contract.samples import NOW, account, device, job, owned, storing, token
from tests.core.publishing import ANN, EVE, POLICY, TERMS, Service, due

# ---- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["far.example", ANN, "push.example", "sync.far.example", "a.b.far.example"])
def test_the_users_server_as_itself_or_for_the_user_and_who_is_trusted(by: str) -> None:
    assert Service().publish(by).published is Published.QUEUED


@pytest.mark.parametrize(
    "by",
    [
        *(f"{ANN}/phone", "bob@far.example", "far.example/x", "example.org", "evil.example", "evilfar.example", ""),
        *(
            "FAR.example",
            "far.example.evil.example",
            f"{ANN}@push.example",
            "push.example/x",
            "@far.example",
            EVE,
            "sync.far.example/x",
            "example",
            "eve@sync.far.example",
            "far.example.",
        ),
    ],
)
def test_nobody_else_whatever_it_knows(by: str) -> None:
    service = Service()
    with pytest.raises(Forbidden):
        service.publish(by)
    assert service.jobs == []
    assert not service.phone.enabled


@pytest.mark.parametrize("secret", [None, b"", b"secre", b"secret ", b"Secret", b"x" * 32])
def test_without_the_secret_nothing(secret: bytes | None) -> None:
    service = Service()
    with pytest.raises(Forbidden):
        service.publish(secret=secret)
    assert service.jobs == []
    assert not service.phone.enabled


def test_a_node_of_another_app_server_is_none_of_ours() -> None:
    """What we publish to elsewhere bears a name that somebody else gave it, the same as one of ours perhaps."""
    with pytest.raises(ItemNotFound):
        Service(route=Route.PUBLISH).publish()


@pytest.mark.parametrize("node", ["", "N", "n ", "node", "phone"])
def test_an_unknown_node_is_not_found(node: str) -> None:
    with pytest.raises(ItemNotFound):
        Service().publish(node=node)


@pytest.mark.parametrize(
    ("served", "taken"), [((), False), (("other.example",), False), (("far.example",), True), ((EVERYBODY,), True)]
)
@pytest.mark.parametrize("by", ["far.example", "push.example"])
def test_a_server_that_is_not_served_any_more_is_refused(served: tuple[str, ...], taken: bool, by: str) -> None:
    terms = replace(TERMS, served=frozenset(served))
    assert terms.admit("far.example") is taken
    if taken:
        assert Service().publish(by, terms=terms).published is Published.QUEUED
    else:
        with pytest.raises(Forbidden):
            Service().publish(by, terms=terms)


def test_an_app_that_is_not_configured_any_more_is_our_fault_and_passes() -> None:
    """PUSH §4: servers keep a registration on `wait`, and drop it on anything else."""
    with pytest.raises(InternalServerError) as caught:
        Service(app="gone").publish()
    assert caught.value.type == "wait"


# ---- what comes of it ------------------------------------------------------------------------------------------------


def test_a_publish_is_a_wake_without_a_version_that_enables_its_device() -> None:
    service = Service()
    outcome = service.publish()
    assert service.jobs == [outcome.job]
    (job,) = service.jobs
    assert (job.account, job.device_id, job.kind, job.version) == (ANN, "phone", PushKind.MESSAGE, 0)
    assert (job.peer, job.sid, job.voip, job.silent, job.collapse) == ("", None, False, False, "w")
    assert (job.not_before, job.deadline) == (NOW, NOW + timedelta(days=28))
    assert job.queue == service.phone.queue
    assert service.phone.enabled


def test_of_a_host_that_we_have_the_feed_of_it_is_taken_and_not_pushed_again() -> None:
    service = Service()
    assert service.publish("example.org", "e") == Outcome(published=Published.REDUNDANT)
    with pytest.raises(Forbidden):
        service.publish("example.org", "e", b"wrong")
    assert service.jobs == []


def test_a_burst_is_one_push_at_once_and_one_that_trails() -> None:
    service = Service()
    assert [service.publish().published for _ in range(3)] == [Published.QUEUED, Published.JOINED, Published.JOINED]
    (sent,) = service.claim()
    assert sent.joined == 2
    service.answered(sent)
    for _ in range(5):
        service.after(1)
        service.publish()
    assert due(service.jobs) == [(20, 4, False)]  # the interval of unfetched wakes: no fetch is seen
    service.after(14)
    assert service.claim() == []
    service.after(1)
    assert len(service.claim()) == 1


def test_each_push_has_a_row_of_its_own_in_the_ledger() -> None:
    service = Service()
    for _ in range(3):
        service.publish()
        (sent,) = service.claim()
        service.answered(sent)
        service.after(30)
    assert [job.outcome for job in service.jobs] == ["accepted"] * 3


def test_nothing_is_repeated_since_no_fetch_is_seen() -> None:
    service = Service()
    service.publish()
    service.answered(service.claim()[0])
    assert due(service.jobs) == []


def test_it_is_sent_though_nothing_is_unread_or_known_here() -> None:
    """Invariant 7 asks what is here; of this account nothing is."""
    service = Service(bound_to="phone")
    service.publish()
    assert len(service.claim(Session("phone", SessionState.ACTIVE))) == 1


def test_a_device_that_has_left_is_not_pushed() -> None:
    service = Service()
    service.publish()
    service.store.apply(owned(ANN), storing(deleted_devices=[(ANN, "phone")]))
    assert service.claim() == []
    assert [job.outcome for job in service.jobs] == ["suppressed:no-device"]
    with pytest.raises(ItemNotFound):
        service.publish()


def test_a_dead_token_takes_the_node_with_it() -> None:
    service = Service()
    service.publish()
    service.answered(service.claim()[0], Verdict.DEAD_TOKEN)
    with pytest.raises(ItemNotFound):
        service.publish()


# ---- words and edges ------------------------------------------------------------------------------------------------

GUEST = Guest(
    account="guest@token.example",
    node="n",
    token=token("t"),
    app=App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True),
)
TOLD = Notification(publisher="far.example", node="n", urgency=Urgency.MESSAGE)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"node": "?"}, "There is no such node."),
        ({"secret": b"guess"}, "The secret does not fit the node."),
        ({"by": "else.example"}, "Only the server of the node's owner may publish."),
    ],
)
def test_a_refusal_says_why(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as refused:
        Service().publish(**asked)
    assert str(refused.value) == words


def test_a_token_that_somebody_registered_is_no_node() -> None:
    books = Books(
        now=NOW,
        accounts={GUEST.account: account(GUEST.account, version=0)},
        devices={ANN: [device(owner=ANN, alert_token=token("t"))]},
    )
    with pytest.raises(ItemNotFound) as refused:
        publish_to_token(TOLD, GUEST, POLICY, books)
    assert str(refused.value) == "There is no such node."


def test_a_token_that_died_is_tried_again_after_a_day() -> None:
    died = microseconds(NOW)
    owner = account(GUEST.account, version=died, floor=0)
    late = NOW + FORGOTTEN_AFTER
    with pytest.raises(ItemNotFound) as refused:
        publish_to_token(TOLD, GUEST, POLICY, Books(now=late - timedelta(seconds=1), accounts={owner.jid: owner}))
    assert str(refused.value) == "There is no such node."
    writes = publish_to_token(TOLD, GUEST, POLICY, Books(now=late, accounts={owner.jid: owner})).writes
    assert [(one.devices, one.version > died) for one in writes.accounts] == [(1, True)]
    assert [(one.device_id, one.node) for one in writes.devices] == [("token", "n")]


@pytest.mark.parametrize(("publisher", "above"), [("a.b.c", ["b.c", "c"]), ("c", []), ("a@b.c", []), ("a.b/c.d", [])])
def test_who_is_above_a_host(publisher: str, above: list[str]) -> None:
    assert parents(publisher) == above


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, True),
        ({"state": JobState.ATTEMPTED}, False),
        ({"kind": PushKind.TEST}, False),
        ({"device_id": "tablet"}, False),
    ],
)
def test_which_wake_waits(fields: dict[str, Any], found: bool) -> None:
    waiting = job(owner=ANN, **fields)
    books = Books(now=NOW, jobs={ANN: [waiting]})
    assert wake_of(device(owner=ANN), books) == (waiting if found else None)


@pytest.mark.parametrize(("urgency", "life"), [(Urgency.REST, UPDATE_LIFE), (Urgency.MESSAGE, MESSAGE_LIFE)])
def test_how_long_a_publish_is_worth_something(urgency: Urgency, life: timedelta) -> None:
    assert wake(replace(TOLD, urgency=urgency), device(owner=ANN), POLICY, NOW).deadline == NOW + life
