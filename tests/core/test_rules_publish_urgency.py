"""Publishes of other servers: how urgent each is, tokens in place of nodes, and random ones."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.books import Keys
from sync.model.device import Device, PushKind
from sync.model.errors import Forbidden, ItemNotFound
from sync.model.notification import Notification, Published, Urgency
from sync.model.push import Environment, PushOutcome, Verdict
from sync.model.query import App
from sync.rules.claims import Claimed, claim
from sync.rules.outcomes import settle
from sync.rules.publishes import (
    Guest,
    Outcome,
    may_publish_to_tokens,
    publish,
    publish_to_token,
)
from tests.contract.samples import NOW, owned, storing, token
from tests.core.publishing import ANN, EVE, POLICIES, POLICY, SECRET, TERMS, Service, due

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

    def leave(self, verdict: Verdict = Verdict.ACCEPTED, since: datetime | None = None) -> None:
        keys = Keys(accounts=frozenset({GUEST.account}), devices=True)
        ids = [job.job_id for job in self.jobs]
        claimed: Claimed = self.store.apply(keys, lambda books: claim(ids, {}, books, POLICIES))
        for one in claimed.claims:
            outcome = PushOutcome(verdict=verdict, dead_since_at=since)
            rule = partial(settle, one.job.job_id, GUEST.account, outcome, policies=POLICIES)
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


def test_a_token_that_died_long_after_its_first_publish_is_dead_for_a_day_and_stays_so() -> None:
    """410 names an instant. A publish is no registration that could be newer."""
    inn = Inn()
    inn.knock()
    inn.leave()
    died = NOW + timedelta(hours=40)
    for days in (2, 4, 6):
        inn.clock.instant = NOW + timedelta(days=days)
        inn.knock()
        inn.leave(Verdict.DEAD_TOKEN, died)
        assert inn.guests == []
        with pytest.raises(ItemNotFound):
            inn.knock()


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


def test_calls_without_end_have_the_pace_of_wakes_that_were_fetched() -> None:
    service, sent = Service(), 0
    for _ in range(100):
        service.publish(urgency=Urgency.CALL)
        for job in service.claim():
            sent += 1
            service.answered(job)
        service.after(0.1)
    assert sent == 10
    assert len(due(service.jobs)) == 1


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
    """A guaranteed trailing push; never more than one queued; never two within the interval, nor of calls within a
    second; no VoIP.
    """
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
        assert attempts > 1 or later - earlier >= (POLICY.coalesce if for_a_call else POLICY.interval)
