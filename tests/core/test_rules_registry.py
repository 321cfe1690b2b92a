"""The device registry: who logs whom out, with a login and without; what leaves with a device; its wishes."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from sync.model.device import JobState, Route
from sync.model.errors import ItemNotFound
from sync.model.query import EnablePush
from sync.model.registry import LogOut, UnregisterPush
from sync.model.wishes import NO_WISHES
from sync.rules.devices import enable, log_out, unregister_named
from tests.contract.samples import ANN, EVE, NOW, WISHES, job, token
from tests.core.test_rules_devices import SERVICE, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


def three(registry: Registry) -> None:
    """Ann has a phone and a tablet, eve a phone; something is queued for each."""
    for owner, name in ((ANN, "phone"), (ANN, "tablet"), (EVE, "phone")):
        registry.register(name, owner, node=f"{owner} {name}")
        waits = job(f"{owner} {name}", owner, device_id=name)
        registry.store.tables.jobs[owner, waits.job_id] = waits


def queued(registry: Registry) -> list[tuple[str, str]]:
    jobs = registry.store.tables.jobs.values()
    return sorted((waits.account, waits.device_id) for waits in jobs if waits.state is JobState.QUEUED)


def log_others_out(registry: Registry, device_id: str = "", *nodes: str) -> Any:
    request = UnregisterPush(account=ANN, device_id=device_id, nodes=frozenset(nodes))
    return registry.transact(partial(unregister_named, request))


def test_a_lost_phone_is_logged_out_from_another(registry: Registry) -> None:
    three(registry)
    assert log_others_out(registry, "tablet", f"node {ANN} phone") == (f"node {ANN} phone",)
    assert (registry.of(), registry.of(EVE)) == (["tablet"], ["phone"])
    assert queued(registry) == [(ANN, "tablet"), (EVE, "phone")]
    (over,) = [waits for waits in registry.store.tables.jobs.values() if waits.state is JobState.DONE]
    assert (over.outcome, over.done_at) == ("suppressed:no-device", registry.store.clock.now())


def test_without_nodes_the_device_id_counts(registry: Registry) -> None:
    three(registry)
    assert log_others_out(registry, "tablet") == (f"node {ANN} tablet",)
    assert (registry.of(), registry.of(EVE)) == (["phone"], ["phone"])


def test_of_several_nodes_the_own_ones_go(registry: Registry) -> None:
    three(registry)
    nodes = [f"node {ANN} phone", f"node {ANN} tablet", f"node {EVE} phone", "nobody's"]
    assert log_others_out(registry, "x", *nodes) == tuple(nodes[:2])
    assert (registry.of(), registry.of(EVE)) == ([], ["phone"])


@pytest.mark.parametrize(("device_id", "nodes"), [("x", ()), ("phone", ("nobody's",)), ("", (f"node {EVE} phone",))])
def test_nobody_is_named_so(registry: Registry, device_id: str, nodes: tuple[str, ...]) -> None:
    three(registry)
    with pytest.raises(ItemNotFound):
        log_others_out(registry, device_id, *nodes)
    assert len(queued(registry)) == 3


@pytest.mark.parametrize(
    ("asked", "token_of", "secret", "gone"),
    [
        (LogOut(node=f"node {ANN} phone", secret="s"), None, b"secret", True),
        (LogOut(node=f"node {ANN} phone", secret="s"), None, b"guess", False),
        (LogOut(node="nobody's", secret="s"), None, b"secret", False),
        (LogOut(app="chat", token="t", secret="s"), f"{ANN} phone", b"secret", True),
        (LogOut(app="chat", token="t", secret="s"), f"{ANN} phone", b"guess", False),
        (LogOut(app="shop", token="t", secret="s"), f"{ANN} phone", b"secret", False),
        (LogOut(app="chat", token="t", secret="s"), "another", b"secret", False),
        (LogOut(app="chat", token="t", account=ANN), f"{ANN} phone", None, True),
        (LogOut(app="chat", token="t", account=EVE), f"{ANN} phone", None, False),
        (LogOut(app="chat", token="t"), f"{ANN} phone", None, False),
    ],
)
def test_without_a_login(
    registry: Registry, asked: LogOut, token_of: str | None, secret: bytes | None, gone: bool
) -> None:
    three(registry)
    digest = token(token_of).digest if token_of else None
    assert registry.transact(partial(log_out, asked, digest, secret)) is gone
    assert (registry.of(), registry.of(EVE)) == ((["tablet"] if gone else ["phone", "tablet"]), ["phone"])


def test_what_is_queued_for_whoever_makes_room_is_over(registry: Registry) -> None:
    registry.most = 2
    three(registry)
    registry.register("new")
    assert (registry.of(), registry.entered.crowded_out) == (["new", "tablet"], 1)
    registry.register("newer", EVE, alert=f"{ANN} tablet")
    assert (registry.of(), registry.entered.taken_over) == (["new"], 1)
    assert queued(registry) == [(EVE, "phone")]


def test_only_who_has_left_is_not_waited_for_any_more(registry: Registry) -> None:
    for name in ("phone", "tablet"):
        registry.enable(registry.register(name))
        registry.change(name, woken_version=9, woken_at=NOW)
    tables = registry.store.tables
    tables.accounts[ANN] = replace(tables.accounts[ANN], wakes_open=True)
    registry.unregister(f"{ANN} phone")
    assert registry.store.tables.accounts[ANN].wakes_open
    registry.unregister(f"{ANN} tablet")
    assert not registry.store.tables.accounts[ANN].wakes_open


def test_who_is_enabled_again_is_waited_for(registry: Registry) -> None:
    node = registry.register("phone")
    registry.change("phone", woken_version=9, woken_at=NOW)
    registry.enable(node)
    assert registry.store.tables.accounts[ANN].wakes_open


def test_a_new_enable_says_all_of_it_anew_and_disabling_forgets_it(registry: Registry) -> None:
    node = registry.register("phone")
    for wishes in (WISHES, NO_WISHES, WISHES):
        registry.transact(
            partial(enable, EnablePush(account=ANN, resource=None, jid=SERVICE, node=node, wishes=wishes), None)
        )
        assert registry.device("phone").wishes == wishes
    registry.register("phone")
    assert registry.device("phone").wishes == WISHES
    registry.disable(None)
    assert registry.device("phone").wishes == NO_WISHES


def test_devices_of_other_app_servers_are_not_ours_to_enable_and_disable(registry: Registry) -> None:
    node = registry.register("phone")
    registry.change("phone", route=Route.PUBLISH, enabled=True)
    registry.disable(None)
    assert registry.device("phone").enabled
    with pytest.raises(ItemNotFound):
        registry.enable(node)
