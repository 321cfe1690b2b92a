"""The device registry (PUSH §4, DESIGN §3): one token one device, five devices, and who may enable what."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from sync.model.books import Books, Keys, Writes
from sync.model.device import Device, JobState, PushKind
from sync.model.errors import Forbidden, ItemNotFound, RequestError
from sync.model.push import Environment
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, UnregisterDevice
from sync.model.registry import LogOut, UnregisterPush
from sync.rules.devices import (
    MAX_DEVICES,
    Entered,
    NewPhone,
    bind,
    departed,
    disable,
    enable,
    fetched,
    log_out,
    register,
    unregister,
    unregister_named,
)
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, EVE, NOW, account, call_job, device, job, token

CHAT = App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True)
TRIAL = replace(CHAT, environment=Environment.PRODUCTION)
SERVICE = "sync.example.org"


class Registry:
    """The registry of Ann and Eve, on a store in memory."""

    entered: Entered

    def __init__(self) -> None:
        self.store, self.most = MemoryStore(SetClock(NOW)), MAX_DEVICES

    def transact(self, rule: Any) -> Any:
        return self.store.apply(Keys(accounts=frozenset({ANN, EVE}), create=True, devices=True), rule)

    def register(self, device_id: str, owner: str = ANN, app: App = CHAT, **made: str | None) -> str:
        request = RegisterDevice(
            account=owner,
            resource=f"res {device_id}",
            device_id=device_id,
            app=app.name,
            alert_token="",
            name="A phone",
        )
        alert, voip = made.get("alert") or f"{owner} {device_id}", made.get("voip")
        phone = NewPhone(
            alert_token=token(alert),
            voip_token=token(voip) if voip else None,
            node=f"node {made.get('node') or device_id}",
            secret_digest=b"secret",
        )
        self.store.clock.instant += timedelta(seconds=1)
        self.entered = self.transact(partial(register, request, app, phone, most=self.most))
        return self.entered.node

    def enable(self, node: str, owner: str = ANN, *, secret: bytes | None = b"secret", by: str | None = None) -> None:
        request = EnablePush(account=owner, resource=by, jid=SERVICE, node=node)
        self.transact(partial(enable, request, secret))

    def disable(self, node: str | None, owner: str = ANN) -> None:
        self.transact(partial(disable, DisablePush(account=owner, jid=SERVICE, node=node)))

    def unregister(self, alert: str, owner: str = ANN) -> None:
        request = UnregisterDevice(account=owner, app="chat", alert_token="")
        self.transact(partial(unregister, request, token(alert).digest))

    def fetched(self, resource: str, version: int) -> list[float]:
        return list(self.transact(partial(fetched, ANN, resource, version)))

    def of(self, owner: str = ANN) -> list[str]:
        """Device ids, and the count that the account keeps."""
        found = sorted(name for account, name in self.store.tables.devices if account == owner)
        assert self.store.tables.accounts[owner].devices == len(found)
        return found

    def device(self, device_id: str, owner: str = ANN) -> Device:
        return self.store.tables.devices[owner, device_id]

    def change(self, device_id: str, **fields: Any) -> None:
        self.store.tables.devices[ANN, device_id] = replace(self.device(device_id), **fields)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_new_phone_is_bound_and_not_enabled(registry: Registry) -> None:
    assert registry.register("phone") == "node phone"
    device = registry.device("phone")
    assert (device.bound_to, device.enabled, device.name) == ("res phone", False, "A phone")
    assert registry.of() == ["phone"]


def test_a_phone_that_registers_again_keeps_node_and_consent(registry: Registry) -> None:
    registry.enable(registry.register("phone"))
    assert registry.register("phone", node="another", alert="new", voip="v") == "node phone"
    device = registry.device("phone")
    assert (device.enabled, device.alert_token, device.voip_token) == (True, token("new"), token("v"))
    assert registry.of() == ["phone"]


def test_it_begins_without_wakes(registry: Registry) -> None:
    registry.register("phone")
    registry.change("phone", woken_version=9, woken_at=NOW)
    registry.register("phone")
    assert not registry.device("phone").wake_unfetched


@pytest.mark.parametrize("kinds", [("alert", "alert"), ("voip", "voip"), ("alert", "voip"), ("voip", "alert")])
def test_a_token_moves_to_the_account_that_registers_it(registry: Registry, kinds: tuple[str, str]) -> None:
    registry.register("phone", **{kinds[0]: "shared"})
    registry.register("phone", EVE, **{kinds[1]: "shared"})
    assert (registry.of(ANN), registry.of(EVE)) == ([], ["phone"])


def test_and_to_another_device_of_the_same_account(registry: Registry) -> None:
    registry.register("phone", alert="shared")
    registry.register("reinstalled", alert="shared")
    assert registry.of() == ["reinstalled"]


def test_another_environment_is_another_token(registry: Registry) -> None:
    registry.register("phone", alert="shared")
    registry.register("trial", app=TRIAL, alert="shared")
    assert registry.of() == ["phone", "trial"]


def test_the_oldest_of_too_many_leaves(registry: Registry) -> None:
    for n in range(MAX_DEVICES):
        registry.register(f"d{n}")
    registry.register("d0")
    registry.register("new")
    assert registry.of() == ["d0", "d2", "d3", "d4", "new"]


def test_a_phone_that_is_there_pushes_nobody_out(registry: Registry) -> None:
    for n in range(MAX_DEVICES):
        registry.register(f"d{n}")
    registry.register("d3")
    assert len(registry.of()) == MAX_DEVICES


def test_the_device_whose_token_moves_makes_room(registry: Registry) -> None:
    for n in range(MAX_DEVICES):
        registry.register(f"d{n}")
    registry.register("new", alert=f"{ANN} d2")
    assert registry.of() == ["d0", "d1", "d3", "d4", "new"]


def test_enabled_by_its_owner(registry: Registry) -> None:
    registry.enable(registry.register("phone"), by="web")
    assert (registry.device("phone").enabled, registry.device("phone").bound_to) == (True, "web")


def test_a_server_that_enables_binds_nobody(registry: Registry) -> None:
    registry.enable(registry.register("phone"), secret=None)
    assert (registry.device("phone").enabled, registry.device("phone").bound_to) == (True, "res phone")


def test_a_stranger_does_not_find_the_node(registry: Registry) -> None:
    node = registry.register("phone")
    with pytest.raises(ItemNotFound):
        registry.enable(node, EVE)
    assert not registry.device("phone").enabled


def test_a_wrong_secret_is_forbidden(registry: Registry) -> None:
    node = registry.register("phone")
    with pytest.raises(Forbidden):
        registry.enable(node, secret=b"guess")
    assert not registry.device("phone").enabled


@pytest.mark.parametrize(("node", "left"), [("node phone", ["tablet"]), (None, [])])
def test_disabled_by_node_or_altogether(registry: Registry, node: str | None, left: list[str]) -> None:
    for name in ("phone", "tablet"):
        registry.enable(registry.register(name))
    registry.disable(node)
    assert [name for name in registry.of() if registry.device(name).enabled] == left


def test_disabling_the_unknown(registry: Registry) -> None:
    with pytest.raises(ItemNotFound):
        registry.disable("node phone")
    registry.disable(None)


def test_a_question_that_names_the_node_binds_the_device(registry: Registry) -> None:
    registry.register("phone")
    registry.register("tablet")
    before = registry.device("phone"), registry.device("tablet")
    for resource in ("extension", "extension", "app"):
        owner = registry.transact(partial(bind, ANN, resource, "node phone"))
        assert owner == registry.store.tables.accounts[ANN]
        assert registry.device("phone") == replace(before[0], bound_to=resource)
    assert registry.device("tablet") == before[1]


def test_it_is_written_only_where_it_was_bound_otherwise(registry: Registry) -> None:
    registry.register("phone")
    phone, ann = registry.device("phone"), registry.store.tables.accounts[ANN]
    books = Books(now=NOW, accounts={ANN: ann}, devices={ANN: [phone]})
    assert bind(ANN, "app", "node phone", books).writes == Writes(devices=[replace(phone, bound_to="app")])
    assert bind(ANN, "res phone", "node phone", books).writes == Writes()


NEW = "new@example.org"


@pytest.mark.parametrize(("owner", "node"), [(ANN, "node of hers"), (EVE, "node phone"), (NEW, "node phone")])
def test_nobody_binds_what_is_not_there(registry: Registry, owner: str, node: str) -> None:
    registry.register("phone")
    registry.register("of hers", EVE)
    with pytest.raises(ItemNotFound):
        registry.transact(partial(bind, owner, "app", node))
    assert registry.device("phone").bound_to == "res phone"


def test_unregistered_by_its_token(registry: Registry) -> None:
    registry.register("phone", alert="u")
    registry.unregister("u")
    assert registry.of() == []
    assert registry.store.tables.tokens == {}


def test_only_by_its_owner(registry: Registry) -> None:
    registry.register("phone", alert="u")
    with pytest.raises(ItemNotFound):
        registry.unregister("u", EVE)
    assert registry.of() == ["phone"]


# ---- fetched --------------------------------------------------------------------------------------------------------


@pytest.fixture
def woken(registry: Registry) -> Registry:
    registry.enable(registry.register("phone"))
    registry.change("phone", woken_version=9, woken_at=NOW)
    registry.store.clock.instant = NOW + timedelta(seconds=3)
    tables = registry.store.tables
    tables.accounts[ANN] = replace(tables.accounts[ANN], wakes_open=True)
    return registry


@pytest.mark.parametrize(("version", "delays", "unfetched"), [(9, [3.0], False), (10, [3.0], False), (8, [], True)])
def test_a_fetch_proves_what_it_reaches(woken: Registry, version: int, delays: list[float], unfetched: bool) -> None:
    assert woken.fetched("res phone", version) == delays
    assert woken.device("phone").wake_unfetched is unfetched
    assert woken.store.tables.accounts[ANN].wakes_open is unfetched


def test_an_unbound_resource_proves_nothing(woken: Registry) -> None:
    assert woken.fetched("web", 99) == []
    assert woken.device("phone").wake_unfetched


def test_a_fetch_never_goes_back(woken: Registry) -> None:
    woken.fetched("res phone", 20)
    woken.fetched("res phone", 10)
    assert woken.device("phone").fetched_version == 20


@pytest.mark.parametrize(
    ("queued", "stays"),
    [
        (job(version=9), False),
        (job(version=10), True),
        (job(version=9, kind=PushKind.WITHDRAW), False),
        (call_job(version=9), True),
        (call_job(version=10, kind=PushKind.CALL_FALLBACK, voip=False), False),
        (job(version=9, device_id="tablet"), True),
    ],
)
def test_what_a_fetch_calls_off(woken: Registry, queued: Any, stays: bool) -> None:
    woken.store.tables.jobs[ANN, queued.job_id] = queued
    woken.fetched("res phone", 9)
    assert (woken.store.tables.jobs[ANN, queued.job_id].state is JobState.QUEUED) is stays


def test_a_fetch_ends_the_wakes_that_follow_each_other(woken: Registry) -> None:
    woken.change("phone", chased=2)
    woken.fetched("res phone", 9)
    assert woken.device("phone").chased == 0


@pytest.mark.parametrize(("state", "awaited"), [(JobState.QUEUED, True), (JobState.DONE, False)])
def test_a_fetch_leaves_what_rings_elsewhere(woken: Registry, state: JobState, awaited: bool) -> None:
    ring = call_job(device_id="tablet", kind=PushKind.CALL_FALLBACK, voip=False, state=state)
    woken.store.tables.jobs[ANN, ring.job_id] = ring
    woken.fetched("res phone", 9)
    assert woken.store.tables.accounts[ANN].wakes_open is awaited


def test_an_unknown_account_fetches_nothing() -> None:
    store = MemoryStore(SetClock(NOW))
    assert store.apply(Keys(accounts=frozenset({ANN}), devices=True), partial(fetched, ANN, "web", 9)) == []


# ---- what leaves ----------------------------------------------------------------------------------------------------


def test_what_is_queued_for_those_that_leave_is_over_at_every_account() -> None:
    mine, hers, stays = job("mine"), job("hers", EVE), job("stays", device_id="tablet")
    phones, tablet = [device(owner=owner) for owner in (ANN, EVE)], device("tablet")
    books = Books(
        now=NOW,
        accounts={ANN: account(devices=2), EVE: account(EVE, devices=1)},
        devices={ANN: [phones[0], tablet], EVE: [phones[1]]},
        jobs={ANN: [mine, stays], EVE: [hers]},
    )
    writes = departed(phones, books)
    assert [(one.job_id, one.outcome) for one in writes.jobs] == [
        (one.job_id, "suppressed:no-device") for one in (mine, hers)
    ]
    assert [(one.jid, one.devices) for one in writes.accounts] == [(ANN, 1), (EVE, 0)]
    assert writes.deleted_devices == [(ANN, "phone"), (EVE, "phone")]


@pytest.mark.parametrize(
    ("staying", "queued", "awaited"),
    [
        ({}, [], False),
        ({}, [job(device_id="tablet")], False),
        ({}, [call_job(device_id="tablet", kind=PushKind.CALL_FALLBACK)], True),
        ({}, [call_job(device_id="tablet", kind=PushKind.CALL_FALLBACK, state=JobState.DONE)], False),
        ({}, [call_job(kind=PushKind.CALL_FALLBACK)], False),
        ({"woken_version": 9}, [], True),
        ({"woken_version": 9, "enabled": False}, [], False),
        ({"woken_version": 9, "fetched_version": 9}, [], False),
    ],
)
def test_somebody_is_waited_for_while_one_that_stays_was_woken(
    staying: dict[str, Any], queued: list[Any], awaited: bool
) -> None:
    phone, tablet = device(woken_version=9), device("tablet", **staying)
    owner = account(devices=2, wakes_open=True)
    books = Books(now=NOW, accounts={ANN: owner}, devices={ANN: [phone, tablet]}, jobs={ANN: queued})
    (found,) = departed([phone], books).accounts
    assert found == replace(owner, devices=1, wakes_open=awaited)


PHONE = device(node="n", bound_to="res phone")
HERS = Books(now=NOW, accounts={ANN: account(devices=1)}, devices={ANN: [PHONE]})


@pytest.mark.parametrize(("woken_version", "opens"), [(0, False), (9, True)])
def test_who_is_enabled_is_waited_for_where_it_was_woken(woken_version: int, opens: bool) -> None:
    books = replace(HERS, devices={ANN: [replace(PHONE, woken_version=woken_version)]})
    writes = enable(EnablePush(account=ANN, resource=None, jid=SERVICE, node="n"), None, books).writes
    assert [one.wakes_open for one in writes.accounts] == [True] * opens


def test_who_cannot_prove_itself_changes_nothing_when_it_leaves() -> None:
    left = log_out(LogOut(account=ANN, node="n"), None, b"guess", HERS)
    assert (left.value, left.writes) == (False, Writes())


NO_NODE = "No device of this account is registered with this node."


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            partial(unregister, UnregisterDevice(account=ANN, app="chat", alert_token=""), b"?"),
            "No device is registered with this device-token.",
        ),
        (
            partial(unregister_named, UnregisterPush(account=ANN, device_id="?")),
            "None of this account's devices is named so.",
        ),
        (partial(enable, EnablePush(account=ANN, resource=None, jid=SERVICE, node="?"), None), NO_NODE),
        (
            partial(enable, EnablePush(account=ANN, resource=None, jid=SERVICE, node="n"), b"?"),
            "The secret does not fit the node.",
        ),
        (partial(disable, DisablePush(account=ANN, jid=SERVICE, node="?")), NO_NODE),
        (partial(bind, ANN, "app", "?"), NO_NODE),
    ],
)
def test_a_refusal_says_why(rule: Any, words: str) -> None:
    """RFC 6120 §8.3.2: the text of the error."""
    with pytest.raises(RequestError) as refused:
        rule(HERS)
    assert str(refused.value) == words
