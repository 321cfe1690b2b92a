"""App servers that are not ours: who is registered there, what they are told, and when they are given up."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.books import Books
from sync.model.device import Device, Route
from sync.model.errors import ItemNotFound
from sync.model.push import PushOutcome, Verdict
from sync.model.query import DisablePush, EnablePush
from sync.model.wishes import NO_WISHES
from sync.rules.app_servers import device_id_of, disable, enable, give_up
from sync.rules.publish_budget import PublishPolicy, counted
from tests.contract.samples import ANN, NOW, SEALED_KEY, WISHES, account, after, device, token

PUSH = "push.example.org"
ID = device_id_of(PUSH, "n1")


def published(**fields: Any) -> Device:
    values = {"route": Route.PUBLISH, "app": PUSH, "node": ID} | fields
    return device(values.pop("device_id", ID), **values)


def books(*devices: Device, now: datetime = NOW) -> Books:
    return Books(now=now, accounts={ANN: account(devices=len(devices))}, devices={ANN: list(devices)})


# ---- registrations ---------------------------------------------------------------------------------------------------


def enabling(**fields: Any) -> EnablePush:
    return EnablePush(**{"account": ANN, "resource": "web", "jid": PUSH, "node": "n1"} | fields)


def test_enabling_makes_a_device() -> None:
    writes = enable(enabling(wishes=WISHES), token("t"), books(), most=5).writes
    (made,) = writes.devices
    assert (made.route, made.app, made.device_id, made.node) == (Route.PUBLISH, PUSH, ID, ID)
    assert (made.enabled, made.bound_to, made.wishes, made.registered_at) == (True, "web", WISHES, NOW)
    assert (made.alert_token, made.voip_token, made.queue) == (token("t"), None, f"publish:{PUSH}")
    assert (writes.deleted_devices, writes.retokened) == ([], [])  # its node may be that of other accounts, too
    assert [owner.devices for owner in writes.accounts] == [1]


def test_what_a_node_is_called_stays_secret() -> None:
    assert "n1" not in device_id_of(PUSH, "n1")
    assert len({device_id_of(PUSH, "n1"), device_id_of(PUSH, "n2"), device_id_of("push.example", "org\0n1")}) == 3


def test_enabling_again_renews_it() -> None:
    former = published(woken_version=7, woken_at=NOW, fetched_version=3, failures=4, failing_since=NOW, wishes=WISHES)
    writes = enable(enabling(resource="phone"), token("new"), books(former, now=after(60)), most=5).writes
    renewed = replace(former, bound_to="phone", registered_at=after(60), alert_token=token("new"), wishes=NO_WISHES)
    assert writes.devices == [renewed]  # every enable says all of its wishes anew
    assert [owner.devices for owner in writes.accounts] == [1]


def test_a_phone_that_took_its_name_gives_way() -> None:
    phone = device(ID, voip_token=token("v"), woken_version=7)
    writes = enable(enabling(), token("t"), books(phone), most=5).writes
    assert [(made.route, made.voip_token, made.woken_version) for made in writes.devices] == [(Route.PUBLISH, None, 0)]
    assert [owner.devices for owner in writes.accounts] == [1]


def test_the_oldest_device_leaves() -> None:
    """PUSH §4: five devices of an account, as mod_cloud_notify's push_max_devices."""
    others = [device(f"d{n}", registered_at=after(n)) for n in (3, 1, 4, 2, 5)]
    writes = enable(enabling(), token("t"), books(*others), most=5).writes
    assert writes.deleted_devices == [(ANN, "d1")]
    assert [owner.devices for owner in writes.accounts] == [5]
    writes = enable(enabling(), token("t"), books(*others), most=3).writes
    assert writes.deleted_devices == [(ANN, "d1"), (ANN, "d2"), (ANN, "d3")]
    assert [owner.devices for owner in writes.accounts] == [3]


def test_a_thousand_nodes_are_five_devices() -> None:
    held: dict[str, Device] = {}
    for n in range(1000):
        asked = enabling(jid="victim@example.net", node=f"n{n}")
        writes = enable(asked, token(f"t{n}"), books(*held.values(), now=after(n)), most=5).writes
        for _, gone in writes.deleted_devices:
            del held[gone]
        held |= {made.device_id: made for made in writes.devices}
        assert writes.accounts[0].devices == len(held) <= 5


def test_disabling_one_node() -> None:
    other = published(device_id=device_id_of(PUSH, "n2"))
    gone = disable(DisablePush(account=ANN, jid=PUSH, node="n1"), books(published(), other, device())).writes
    assert gone.deleted_devices == [(ANN, ID)]
    assert [owner.devices for owner in gone.accounts] == [2]


def test_disabling_all_of_an_app_server() -> None:
    """XEP-0357 §6: without a node. Phones that registered with us are not meant, nor other app servers."""
    second, third = published(device_id=device_id_of(PUSH, "n2")), published(device_id="x", app="push.example.net")
    phone = device(app=PUSH)
    gone = disable(DisablePush(account=ANN, jid=PUSH), books(published(), second, third, phone)).writes
    assert gone.deleted_devices == [(ANN, ID), (ANN, second.device_id)]
    assert disable(DisablePush(account=ANN, jid="push.example.com"), books(phone)).value == 0


def test_disabling_what_is_not_there() -> None:
    with pytest.raises(ItemNotFound):
        disable(DisablePush(account=ANN, jid=PUSH, node="n2"), books(published()))


def test_an_app_server_takes_its_node_back() -> None:
    ruling = give_up(ANN, ID, books(published(), device()))
    assert (ruling.value, ruling.writes.deleted_devices) == (1, [(ANN, ID)])
    assert give_up(ANN, "phone", books(published(), device())).value == 0  # no device of ours


@pytest.mark.parametrize(
    ("fields", "rings"),
    [
        ({}, False),
        ({"voip_token": token("v")}, True),
        ({"route": Route.PUBLISH}, False),
        ({"route": Route.PUBLISH, "wishes": WISHES}, True),
        ({"route": Route.PUBLISH, "wishes": replace(WISHES, jingle=False)}, False),
        ({"route": Route.PUBLISH, "wishes": replace(WISHES, encrypt=None)}, False),
        ({"wishes": WISHES}, False),
    ],
)
def test_what_can_ring(fields: dict[str, Any], rings: bool) -> None:
    assert device(**fields).rings is rings
    assert WISHES.encrypt is not None
    assert WISHES.encrypt.sealed_key == SEALED_KEY


# ---- refusals --------------------------------------------------------------------------------------------------------

POLICY = PublishPolicy()
REFUSED, ACCEPTED = PushOutcome(verdict=Verdict.REJECTED), PushOutcome(verdict=Verdict.ACCEPTED)


def after_all(outcomes: list[tuple[PushOutcome, float]], policy: PublishPolicy = POLICY) -> Device | None:
    """The device after answers, each so many hours after the one before."""
    found: Device | None = published()
    now = NOW
    for outcome, hours in outcomes:
        now += timedelta(hours=hours)
        assert found is not None
        found = counted(found, outcome, policy, now)
        if found is None:
            return None
    return found


def test_sixteen_refusals_are_not_enough() -> None:
    """PUSH §4: a budget of 16, and at least 72 hours of failure."""
    held = after_all([(REFUSED, 0.1)] * 100)
    assert held is not None
    assert (held.failures, held.failing_since) == (100, NOW + timedelta(hours=0.1))
    assert after_all([(REFUSED, 30)] * 15) is not None
    assert after_all([(REFUSED, 30)] * 16) is None
    assert after_all([(REFUSED, 71.9)] + [(REFUSED, 0)] * 14 + [(REFUSED, 72)]) is None


def test_an_acceptance_forgives() -> None:
    held = after_all([*[(REFUSED, 30)] * 15, (ACCEPTED, 1), *[(REFUSED, 30)] * 15])
    assert held is not None
    assert held.failures == 15


VERDICTS = st.sampled_from([PushOutcome(verdict=verdict) for verdict in Verdict])


@given(st.lists(st.tuples(VERDICTS, st.floats(min_value=0, max_value=48)), max_size=80))
def test_only_refusals_in_a_row_end_it(outcomes: list[tuple[PushOutcome, float]]) -> None:
    """Given up exactly where a run of refusals, whatever was put off or unanswered between them, has 16 of them over
    72 hours.
    """
    run: list[datetime] = []
    now, held = NOW, published()
    for outcome, hours in outcomes:
        now += timedelta(hours=hours)
        if outcome.verdict is Verdict.ACCEPTED:
            run = []
        elif outcome.verdict is Verdict.REJECTED:
            run.append(now)
        next_ = counted(held, outcome, POLICY, now)
        over = outcome.verdict is Verdict.REJECTED and len(run) >= 16 and now - run[0] >= timedelta(hours=72)
        assert (next_ is None) is over
        if next_ is None:
            return
        held = next_
        assert (held.failures, held.failing_since) == (len(run), run[0] if run else None)
