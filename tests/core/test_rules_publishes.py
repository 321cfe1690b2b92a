"""Publishes of servers that know nothing of us (XEP-0357 §7, PUSH §4): who may, what comes of it, and that it is sent.

The devices are Ann's and Eve's; the host of Ann is another server's, that of Eve is one that we have the feed of.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.books import Keys
from sync.model.device import Device, JobState, PushJob, PushKind, Route
from sync.model.errors import Forbidden, InternalServerError, ItemNotFound
from sync.model.event import Session, SessionState
from sync.model.notification import Notification, Published, Urgency
from sync.model.push import Environment, PushOutcome, Verdict
from sync.model.query import App
from sync.rules.claims import Claimed, claim
from sync.rules.fold import Policies
from sync.rules.outcomes import settle
from sync.rules.publishes import (
    EVERYBODY,
    Guest,
    Outcome,
    Terms,
    may_publish_to_tokens,
    publish,
    publish_to_token,
)
from sync.rules.wishes import WakePolicy
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import NOW, account, device, owned, storing, token

ANN, EVE = "ann@far.example", "eve@example.org"
SECRET = b"secret"
TERMS = Terms(fed={"example.org"}, served={"far.example"}, publishers={"push.example"}, apps={"chat", "plain"})
POLICY = WakePolicy(filtering_apps=frozenset({"chat"}))
POLICIES = Policies(wakes=POLICY)


class Service:
    """A registry with one phone each, on a store in memory."""

    def __init__(self, **fields: Any) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        found = [device(owner=ANN, node="n", **({"enabled": False} | fields)), device(owner=EVE, node="e")]
        owners = [account(owner, version=0, floor=0, devices=1) for owner in (ANN, EVE)]
        self.store.apply(owned(ANN, EVE), storing(accounts=owners, devices=found))

    def publish(
        self,
        by: str = "far.example",
        node: str = "n",
        secret: bytes | None = SECRET,
        urgency: Urgency = Urgency.MESSAGE,
        terms: Terms = TERMS,
    ) -> Outcome:
        told = Notification(publisher=by, node=node, urgency=urgency)
        keys = Keys(accounts=frozenset({ANN, EVE}), devices=True)
        return self.store.apply(keys, lambda books: publish(told, secret, terms, POLICY, books))

    def after(self, seconds: float) -> None:
        self.clock.instant += timedelta(seconds=seconds)

    @property
    def jobs(self) -> list[PushJob]:
        return sorted(self.store.tables.jobs.values(), key=lambda job: job.created_at)

    @property
    def phone(self) -> Device:
        return next(one for one in self.store.tables.devices.values() if one.account == ANN)

    def claim(self, *sessions: Session) -> list[PushJob]:
        ids = [job.job_id for job in self.jobs]
        keys = Keys(accounts=frozenset({ANN, EVE}), devices=True)
        found: Claimed = self.store.apply(keys, lambda books: claim(ids, {ANN: sessions}, books, POLICIES))
        return [one.job for one in found.claims]

    def answered(self, job: PushJob, verdict: Verdict = Verdict.ACCEPTED) -> None:
        keys = Keys(accounts=frozenset({ANN}), devices=True)
        self.store.apply(keys, partial(settle, job.job_id, ANN, PushOutcome(verdict=verdict), policies=POLICIES))


def due(jobs: Sequence[PushJob]) -> list[tuple[float, int, bool]]:
    """(seconds until due, further events that it speaks for, silent) of queued ones."""
    return [
        ((job.not_before - NOW).total_seconds(), job.joined, job.silent) for job in jobs if job.state is JobState.QUEUED
    ]


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


# ---- tokens as nodes (fpush) -----------------------------------------------------------------------------------------

GUEST = Guest(
    account="0f3c@sync.example.org",
    node="0f3c",
    token=token("a phone of Monal's"),
    app=App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True),
)


class Inn(Service):
    """A phone that never registered, beside two that did."""

    def knock(self, urgency: Urgency = Urgency.MESSAGE, guest: Guest = GUEST) -> Outcome:
        told = Notification(publisher="far.example", node="a token", urgency=urgency)
        keys = Keys(accounts=frozenset({guest.account, ANN, EVE}), create=True, devices=True)
        return self.store.apply(keys, lambda books: publish_to_token(told, guest, POLICY, books))

    @property
    def guests(self) -> list[Device]:
        return [one for one in self.store.tables.devices.values() if one.account == GUEST.account]

    def leave(self, verdict: Verdict = Verdict.ACCEPTED) -> None:
        keys = Keys(accounts=frozenset({GUEST.account}), devices=True)
        ids = [job.job_id for job in self.jobs]
        claimed: Claimed = self.store.apply(keys, lambda books: claim(ids, {}, books, POLICIES))
        for one in claimed.claims:
            rule = partial(settle, one.job.job_id, GUEST.account, PushOutcome(verdict=verdict), policies=POLICIES)
            self.store.apply(keys, rule)


def test_a_token_has_a_device_of_its_own_from_its_first_publish_on() -> None:
    inn = Inn()
    assert [inn.knock().published for _ in range(2)] == [Published.QUEUED, Published.JOINED]
    (guest,) = inn.guests
    assert (guest.enabled, guest.secret_digest, guest.app, guest.alert_token) == (True, b"", "chat", GUEST.token)
    owner = inn.store.tables.accounts[GUEST.account]
    assert (owner.devices, owner.unread) == (1, 0)
    inn.leave()
    assert [job.outcome for job in inn.jobs] == ["accepted"]
    inn.after(5)
    inn.knock()
    assert due(inn.jobs) == [(20, 0, False)]
    assert len(inn.guests) == 1


@pytest.mark.parametrize("secret", [None, b"", b"x" * 32])
def test_its_made_up_node_is_nobodys(secret: bytes | None) -> None:
    inn = Inn()
    inn.knock()
    keys = Keys(accounts=frozenset({GUEST.account}), devices=True)
    told = Notification(publisher="far.example", node=GUEST.node)
    with pytest.raises(Forbidden):
        inn.store.apply(keys, lambda books: publish(told, secret, TERMS, POLICY, books))


def test_a_token_that_registered_is_published_to_by_its_node() -> None:
    inn = Inn()
    inn.store.apply(owned(ANN), storing(devices=[replace(inn.phone, alert_token=GUEST.token)]))
    with pytest.raises(ItemNotFound):
        inn.knock()
    assert inn.guests == inn.jobs == []


def test_a_dead_token_is_no_node_for_a_day() -> None:
    inn = Inn()
    inn.knock()
    inn.leave(Verdict.DEAD_TOKEN)
    assert inn.guests == []
    for hours in (0, 23.9):
        inn.clock.instant = NOW + timedelta(hours=hours)
        with pytest.raises(ItemNotFound):
            inn.knock()
    inn.after(600)
    assert inn.knock().published is Published.QUEUED
    inn.leave(Verdict.DEAD_TOKEN)
    with pytest.raises(ItemNotFound):
        inn.knock()


def test_of_what_is_not_to_be_read_an_app_that_must_show_something_hears_nothing() -> None:
    inn, plain = Inn(), replace(GUEST, app=replace(GUEST.app, name="plain"))
    assert inn.knock(Urgency.REST, plain).published is Published.UNIMPORTANT
    assert inn.guests == []
    assert inn.knock(Urgency.REST).published is Published.QUEUED


@pytest.mark.parametrize(
    ("by", "may"),
    [
        *(("sync.far.example", True), ("sync.far.example/x", False), ("evilfar.example", False)),
        *(("far.example", True), (ANN, True), ("push.example", True), ("example.org", True)),
        *((f"{ANN}/phone", False), ("evil.example", False), ("", False), ("eve@evil.example", False)),
    ],
)
def test_who_may_publish_to_tokens(by: str, may: bool) -> None:
    assert may_publish_to_tokens(by, TERMS) is may


# ---- how urgent it is ------------------------------------------------------------------------------------------------


def test_what_is_not_to_be_read_waits_and_makes_no_sound() -> None:
    service = Service()
    service.publish(urgency=Urgency.REST)
    assert due(service.jobs) == [(20, 0, True)]
    service.after(5)
    service.publish()
    assert due(service.jobs) == [(5, 1, False)]
    assert service.jobs[0].deadline == NOW + timedelta(days=28, seconds=5)


def test_an_app_that_must_show_something_is_not_woken_for_nothing() -> None:
    service = Service(app="plain")
    assert service.publish(urgency=Urgency.REST) == Outcome(published=Published.UNIMPORTANT)
    assert service.jobs == []
    assert service.publish().published is Published.QUEUED


def test_a_call_waits_for_nothing_and_never_rings_by_itself() -> None:
    service = Service()
    service.publish()
    service.answered(service.claim()[0])
    service.after(2)
    service.publish()
    assert due(service.jobs) == [(20, 0, False)]
    service.publish(urgency=Urgency.CALL)
    assert due(service.jobs) == [(2, 1, False)]
    assert {(job.kind, job.voip) for job in service.jobs} == {(PushKind.MESSAGE, False)}


def test_what_the_vendor_refused_waits_for_its_time() -> None:
    service = Service()
    service.publish()
    service.answered(service.claim()[0], Verdict.THROTTLED)
    before = due(service.jobs)
    service.publish(urgency=Urgency.CALL)
    assert [at for at, _, _ in due(service.jobs)] == [at for at, _, _ in before]


# ---- whatever comes --------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(Urgency), st.sampled_from([SECRET, SECRET, SECRET, b"wrong", None])),
    st.tuples(st.just("by"), st.sampled_from(["far.example", ANN, f"{ANN}/x", "evil.example", "example.org"])),
    st.tuples(st.just("wait"), st.floats(0, 40)),
    st.tuples(st.just("send"), st.sampled_from([Verdict.ACCEPTED, Verdict.RETRY, Verdict.UNCERTAIN])),
)


@given(st.lists(STEPS, max_size=25), st.sampled_from(["chat", "plain"]))
def test_every_publish_that_is_taken_has_a_push_after_it_and_none_other_has(steps: list[Any], app: str) -> None:
    """A guaranteed trailing push; never more than one queued; never two within the interval, calls apart; no VoIP."""
    service = Service(app=app)
    sent: list[tuple[datetime, bool, int]] = []
    waiting = hurried = False
    for what, *more in steps:
        if what == "wait":
            service.after(more[0])
        elif what == "send":
            for job in service.claim():
                sent.append((service.clock.instant, hurried, job.attempts))
                waiting = hurried = False
                service.answered(job, more[0])
                waiting = waiting or bool(due(service.jobs))
        else:
            urgency, secret = more if what == "publish" else (Urgency.MESSAGE, SECRET)
            by = more[0] if what == "by" else "far.example"
            allowed = secret == SECRET and by in ("far.example", ANN)
            if not allowed:
                with pytest.raises(Forbidden):
                    service.publish(by, urgency=urgency, secret=secret)
                continue
            outcome = service.publish(by, urgency=urgency, secret=secret)
            assert (outcome.published is Published.UNIMPORTANT) == (app == "plain" and urgency is Urgency.REST)
            waiting = waiting or outcome.job is not None
            hurried = hurried or urgency is Urgency.CALL
        queued = due(service.jobs)
        assert len(queued) == waiting
        assert not any(job.voip for job in service.jobs)
    for (earlier, _, _), (later, for_a_call, attempts) in pairwise(sent):
        assert for_a_call or attempts > 1 or later - earlier >= POLICY.interval
