"""Histories of the device registry: whatever phones, people and thieves do, a token belongs to one device, nobody has
more devices than allowed, the books balance, and who has left is owed nothing.
"""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sync.model.books import Keys, Rule
from sync.model.device import Device, JobState
from sync.model.errors import Forbidden, ItemNotFound
from sync.model.push import Environment
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, UnregisterDevice
from sync.model.registry import LogOut, UnregisterPush
from sync.rules.devices import (
    NewPhone,
    disable,
    enable,
    fetched,
    log_out,
    register,
    unregister,
    unregister_named,
)
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, EVE, NOW, WISHES, job, token

MOST = 3
ACCOUNTS, TOKENS = (ANN, EVE), "tuvwxyz"
CHAT = App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True)
APPS = (CHAT, replace(CHAT, name="shop", environment=Environment.PRODUCTION))

accounts, names, tokens = st.sampled_from(ACCOUNTS), st.sampled_from("abcdef"), st.sampled_from(TOKENS)
picks = st.integers(0, 99)


def secret_of(node: str) -> bytes:
    return f"secret of {node}".encode()


class Registry(RuleBasedStateMachine):
    """Devices by (account, device id) in the store's tables; `nodes`: those that were given out, and to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.made = MemoryStore(SetClock(NOW)), 0
        self.nodes: dict[str, tuple[str, str]] = {}
        self.transact(lambda books: fetched(ANN, "", 0, books))

    def transact(self, made: Rule[object]) -> object:
        self.store.clock.instant += timedelta(seconds=1)
        return self.store.apply(Keys(accounts=frozenset(ACCOUNTS), create=True, devices=True), made)

    def some(self, pick: int) -> Device:
        found = self.store.tables.devices
        return found[sorted(found)[pick % len(found)]]

    def has_devices(self) -> bool:
        return bool(self.store.tables.devices)

    # ---- what happens ----------------------------------------------------------------------------------------------

    @rule(account=accounts, name=names, app=st.sampled_from(APPS), alert=tokens, voip=tokens | st.none())
    def register(self, account: str, name: str, app: App, alert: str, voip: str | None) -> None:
        self.made += 1
        node = f"n{self.made}"
        former = self.store.tables.devices.get((account, name))
        phone = NewPhone(
            alert_token=token(alert),
            voip_token=token(voip) if voip else None,
            node=node,
            secret_digest=secret_of(former.node if former else node),
        )
        asked = RegisterDevice(account=account, resource=f"res {name}", device_id=name, app=app.name, alert_token="")
        before = len(self.store.tables.devices)
        entered = self.transact(partial(register, asked, app, phone, most=MOST))
        device = self.store.tables.devices[account, name]
        assert entered.node == device.node == (former.node if former else node)  # type: ignore[attr-defined]
        assert device.enabled == bool(former and former.enabled)
        gone = entered.taken_over + entered.crowded_out  # type: ignore[attr-defined]
        assert len(self.store.tables.devices) == before + (former is None) - gone
        self.nodes[device.node] = account, name

    @precondition(has_devices)
    @rule(pick=picks, by=accounts)
    def enable(self, pick: int, by: str) -> None:
        device = self.some(pick)
        asked = EnablePush(account=by, resource="res x", jid="", node=device.node, wishes=WISHES)
        try:
            self.transact(partial(enable, asked, secret_of(device.node)))
        except ItemNotFound:
            assert by != device.account
        else:
            assert by == device.account
            assert self.store.tables.devices[by, device.device_id].wishes == WISHES

    @precondition(has_devices)
    @rule(pick=picks)
    def guess(self, pick: int) -> None:
        device, before = self.some(pick), self.store.tables
        try:
            self.transact(
                partial(enable, EnablePush(account=device.account, resource=None, jid="", node=device.node), b"guess")
            )
        except Forbidden:
            assert self.store.tables.devices == before.devices
        else:
            raise AssertionError("a guessed secret enabled a device")

    @rule(account=accounts)
    def disable_all(self, account: str) -> None:
        self.transact(partial(disable, DisablePush(account=account, jid="")))
        assert not any(d.enabled or d.wishes.encrypt for (o, _), d in self.store.tables.devices.items() if o == account)

    @rule(account=accounts, alert=tokens, app=st.sampled_from(APPS))
    def unregister(self, account: str, alert: str, app: App) -> None:
        asked = UnregisterDevice(account=account, app=app.name, alert_token="")
        there = [d for d in self.store.tables.devices.values() if (d.account, d.app) == (account, app.name)]
        there = [device for device in there if device.alert_token == token(alert)]
        try:
            self.transact(partial(unregister, asked, token(alert).digest))
        except ItemNotFound:
            assert not there
        else:
            assert there

    @rule(by=accounts, picked=st.lists(picks, max_size=3), name=names)
    def log_others_out(self, by: str, picked: list[int], name: str) -> None:
        """By nodes of anybody's: only the own ones go. Without nodes by device id."""
        nodes = {self.some(pick).node for pick in picked} if self.has_devices() else set()
        before = dict(self.store.tables.devices)
        mine = {d.node for (owner, i), d in before.items() if owner == by and (d.node in nodes if nodes else i == name)}
        try:
            gone = self.transact(
                partial(unregister_named, UnregisterPush(account=by, device_id=name, nodes=frozenset(nodes)))
            )
        except ItemNotFound:
            assert not mine
        else:
            assert set(gone) == mine  # type: ignore[call-overload]
        assert {d.node for d in before.values()} - {d.node for d in self.store.tables.devices.values()} == mine

    @precondition(has_devices)
    @rule(pick=picks, knows=st.booleans(), by_node=st.booleans(), other=tokens)
    def log_out_without_login(self, pick: int, knows: bool, by_node: bool, other: str) -> None:
        device = self.some(pick)
        held = device.alert_token.digest
        asked = LogOut(node=device.node, secret="") if by_node else LogOut(app=device.app, token="", secret="")
        secret = secret_of(device.node) if knows else secret_of(other)
        gone = self.transact(partial(log_out, asked, None if by_node else held, secret))
        assert gone is knows
        assert ((device.account, device.device_id) in self.store.tables.devices) is not knows

    @precondition(has_devices)
    @rule(pick=picks)
    def wake(self, pick: int) -> None:
        """One push has left, and another waits."""
        self.made += 1
        device, tables = self.some(pick), self.store.tables
        woken = replace(device, woken_version=self.made, woken_at=NOW, enabled=True)
        tables.devices[device.account, device.device_id] = woken
        waits = job(f"j{self.made}", device.account, device_id=device.device_id, version=self.made)
        tables.jobs[device.account, waits.job_id] = waits
        tables.accounts[device.account] = replace(tables.accounts[device.account], wakes_open=True)

    # ---- what holds ------------------------------------------------------------------------------------------------

    @invariant()
    def a_token_belongs_to_one_device(self) -> None:
        held = Counter(
            (device.app, device.environment, digest)
            for device in self.store.tables.devices.values()
            for digest in {held.digest for held in (device.alert_token, device.voip_token) if held}
        )
        assert set(held.values()) <= {1}
        assert held.keys() == self.store.tables.tokens.keys()

    @invariant()
    def the_books_balance(self) -> None:
        tables = self.store.tables
        for account in ACCOUNTS:
            mine = [device for (owner, _), device in tables.devices.items() if owner == account]
            assert tables.accounts[account].devices == len(mine) <= MOST
            if any(device.enabled and device.wake_unfetched for device in mine):
                assert tables.accounts[account].wakes_open

    @invariant()
    def who_has_left_is_owed_nothing(self) -> None:
        tables = self.store.tables
        for waits in tables.jobs.values():
            there = (waits.account, waits.device_id) in tables.devices
            assert there or (waits.state, waits.outcome) == (JobState.DONE, "suppressed:no-device")

    @invariant()
    def a_node_is_one_phones_for_ever(self) -> None:
        for where, device in self.store.tables.devices.items():
            assert self.nodes[device.node] == where


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
