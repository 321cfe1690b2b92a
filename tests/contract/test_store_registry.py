"""The device registry on every Store, the in-memory one and Postgres: what a list tells, and who leaves is gone."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet

from sync.adapters.sealing import Sealer
from sync.model.device import JobState, Lane
from sync.model.errors import BadRequest, Forbidden, ItemNotFound
from sync.model.push import Environment, Vendor
from sync.model.query import App, EnablePush, RegisterDevice, Registration, UnregisterDevice
from sync.model.registry import ListDevices, ListedDevice, LogOut, UnregisterPush
from sync.model.wishes import PushKey
from sync.service.registration import Registrations
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, EVE, NOW, account, after, device, job
from tests.contract.stores import Bench

COMPONENT = "sync.example.org"
CHAT = App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True)
SOLD = replace(CHAT, name="sold", environment=Environment.PRODUCTION)
SHOP = App(name="shop", bundle_id="org.example.shop", environment=Environment.PRODUCTION, filtering=False)
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


# ---- the list -------------------------------------------------------------------------------------------------------


def done(name: str, at: float, outcome: str, reason: str | None = None, owner: str = ANN, **more: Any) -> Any:
    left = {"state": JobState.DONE, "attempted_at": NOW, "done_at": after(at)}
    return job(name, owner, outcome=outcome, reason=reason, **(left | more))


async def test_a_list_tells_what_the_ledger_has_of_each_device(stores: Bench) -> None:
    phone, tablet = device("phone", registered_at=after(1)), device("tablet", registered_at=after(2), node="other")
    watch = device("watch", registered_at=after(1), node="third", enabled=False)
    jobs = [
        done("a", 10, "accepted"),
        done("b", 20, "accepted"),
        done("c", 5, "dead-token", "BadDeviceToken"),
        done("d", 30, "uncertain"),
        done("e", 15, "retry", "InternalServerError", device_id="tablet"),
        done("f", 99, "suppressed:muted", attempted_at=None),
        done("g", 99, "accepted", owner=EVE),
        job("h"),
        job("i", state=JobState.ATTEMPTED, attempted_at=NOW, reason="TooManyRequests"),
    ]
    hers = device(owner=EVE, node="of eve")
    await stores.put(ANN, EVE, accounts=[account(devices=3)], devices=[phone, tablet, watch, hers], jobs=jobs)
    assert list(await stores.store.devices(ANN)) == [
        ListedDevice(device=tablet, failed_at=after(15), reason="InternalServerError"),
        ListedDevice(device=phone, succeeded_at=after(20), failed_at=after(30), reason="uncertain"),
        ListedDevice(device=watch),
    ]
    assert list(await stores.store.devices("nobody@example.org")) == []


# ---- the registry through its service -------------------------------------------------------------------------------


class Desk:
    """The registry's service on a store, with two apps of one bundle id and one of another."""

    def __init__(self, stores: Bench, *apps: App, most: int = 5) -> None:
        self.stores, self.observer = stores, RecordingObserver()
        self.sealer = Sealer([Fernet.generate_key().decode()])
        self.registrations = Registrations(
            component=COMPONENT,
            store=stores.store,
            sealer=self.sealer,
            apps={app.name: app for app in apps or (CHAT, SOLD, SHOP)},
            random_name=iter(f"random{n}" for n in range(99)).__next__,
            observer=self.observer,
            most=most,
        )

    async def register(self, name: str, token: str, owner: str = ANN, **fields: Any) -> Registration:
        self.stores.clock.instant = after(self.stores.clock.instant.timestamp() - NOW.timestamp() + 1)
        made = {"app": "chat", "resource": f"res {name}", "device_id": name, "alert_token": token} | fields
        return await self.registrations.register(RegisterDevice(account=owner, **made))

    async def of(self, owner: str = ANN) -> list[str]:
        found = [listed.device.device_id for listed in await self.registrations.list(ListDevices(account=owner))]
        known = await self.stores.store.account(owner)
        assert known is not None
        assert known.devices == len(found)
        return found

    def removed(self) -> list[object]:
        return [told["reason"] for told in self.observer.told("token_removed")]


async def test_a_lost_phone_is_logged_out_and_what_waits_for_it_is_over(stores: Bench) -> None:
    desk = Desk(stores)
    lost = await desk.register("lost", "aa")
    await desk.register("new", "bb")
    await stores.put(jobs=[job("1", device_id="lost"), job("2", device_id="new")])
    assert await desk.of() == ["new", "lost"]
    asked = UnregisterPush(account=ANN, device_id="", nodes=frozenset({lost.node, "nobody's"}))
    assert await desk.registrations.unregister_named(asked) == (lost.node,)
    assert (await desk.of(), desk.removed()) == (["new"], ["unregistered"])
    waiting = await stores.store.due_jobs(after(60), [Lane.MESSAGES], 9)
    assert [due.job_id for due in waiting] == [job("2").job_id]
    with pytest.raises(ItemNotFound):
        await desk.registrations.unregister_named(asked)


async def test_a_token_goes_to_who_registers_it_last_and_the_oldest_makes_room(stores: Bench) -> None:
    desk = Desk(stores, CHAT, SOLD, most=2)
    for number, name in enumerate(("one", "two", "three")):
        await desk.register(name, f"a{number}")
    assert (await desk.of(), desk.removed()) == (["three", "two"], ["crowded-out"])
    await desk.register("phone", "a2", EVE)
    assert (await desk.of(), await desk.of(EVE)) == (["two"], ["phone"])
    await desk.register("sold", "a2", app="sold")  # another environment: another token
    assert (await desk.of(), await desk.of(EVE)) == (["sold", "two"], ["phone"])
    assert desk.removed() == ["crowded-out", "taken-over"]
    await desk.registrations.unregister(UnregisterDevice(account=ANN, app="chat", alert_token="a1"))
    assert (await desk.of(), desk.removed()[2:]) == (["sold"], ["unregistered"])


@pytest.mark.parametrize("by_token", [False, True])
async def test_out_without_a_login(stores: Bench, by_token: bool) -> None:
    desk = Desk(stores)
    made = await desk.register("phone", "aa")
    await desk.register("phone", "bb", EVE)
    name = {"app": "chat", "token": "aa"} if by_token else {"node": made.node}
    for wrong in ({"secret": "guess"}, {"secret": made.node}):
        assert not await desk.registrations.log_out(LogOut(**name, **wrong))
    assert not await desk.registrations.log_out(LogOut(node="nobody's", secret=made.secret))
    assert not await desk.registrations.log_out(LogOut(app="other", token="aa", secret=made.secret))
    assert (await desk.of(), desk.removed()) == (["phone"], [])
    assert await desk.registrations.log_out(LogOut(**name, secret=made.secret))
    assert (await desk.of(), await desk.of(EVE), desk.removed()) == ([], ["phone"], ["logged-out"])


async def test_the_key_of_a_wish_is_kept_sealed(stores: Bench) -> None:
    desk = Desk(stores)
    made = await desk.register("phone", "aa")
    asked = EnablePush(
        account=ANN, resource=None, jid=COMPONENT, node=made.node, secret=made.secret, push_key=PushKey(KEY, 3000)
    )
    assert KEY not in repr(asked)
    await desk.registrations.enable(asked)
    (listed,) = await stores.store.devices(ANN)
    encrypt = listed.device.wishes.encrypt
    assert encrypt is not None
    assert (encrypt.max_bytes, desk.sealer.open(encrypt.sealed_key)) == (3000, KEY)
    assert KEY.encode() not in encrypt.sealed_key
    assert "sealed" not in repr(listed)
    with pytest.raises(Forbidden):
        await desk.registrations.enable(replace(asked, secret="guess"))


@pytest.mark.parametrize(
    ("apps", "named", "found"),
    [
        ((CHAT,), None, "chat"),
        ((CHAT,), "org.example.chat", "chat"),
        ((CHAT, SOLD, SHOP), "org.example.shop", "shop"),
        ((CHAT, SOLD, SHOP), "sold", "sold"),
        ((CHAT,), "org.example.shop", ItemNotFound),
        ((CHAT, SHOP), None, BadRequest),
        ((CHAT, SOLD, SHOP), "org.example.chat", BadRequest),
    ],
)
async def test_which_app_is_meant(stores: Bench, apps: tuple[App, ...], named: str | None, found: Any) -> None:
    desk = Desk(stores, *apps)
    if not isinstance(found, str):
        with pytest.raises(found):
            await desk.register("phone", "aa", app=named)
        return
    await desk.register("phone", "aa", app=named)
    (listed,) = await stores.store.devices(ANN)
    assert listed.device.app == found


@pytest.mark.parametrize("vendor", [vendor for vendor in Vendor if vendor is not Vendor.APNS])
async def test_a_vendor_without_an_app_is_not_found(stores: Bench, vendor: Vendor) -> None:
    with pytest.raises(ItemNotFound):
        await Desk(stores).register("phone", "aa", app=None, vendor=vendor)
    assert await stores.store.account(ANN) is None
