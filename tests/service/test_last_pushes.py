"""Pushes that no rule of the queue makes: of an account that was removed; and wakes for phones that are not done."""

from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.device import JobState, PushKind, Route
from sync.model.event import AccountEvent, AccountState, FeedPosition
from sync.model.push import PushOutcome, PushType, Verdict
from sync.protocol.convsync import decode
from sync.protocol.serialise import parse
from sync.rules.farewell import TRIES
from sync.rules.fold import Policies, Report, take
from sync.rules.wanted import keys
from sync.rules.wishes import WakePolicy
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from sync.service.pusher import KNOWN
from tests.adapters.pushing import Desk, desk, phone
from tests.contract.apns_server import ALERT, APP, numbered
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_push import RecordingPushGate
from tests.contract.samples import ANN, BOB, CAT, NOW, account, after, conversation, device
from tests.contract.stores import in_memory

# ---- an account that is no more --------------------------------------------------------------------------------------


def office(*more: Any) -> tuple[Desk, RecordingPushGate]:
    doors = RecordingPushGate({"chat": APP, "other": APP})
    found = desk(doors)
    found.register(phone(found.clock.now()), *more)
    return found, doors


def removed(found: Desk) -> Report:
    """The server says that the account is gone; everything of it goes with the commit that takes this."""
    found.message("queued")
    position = FeedPosition("example.org", "stream", "main", 1)
    gone = AccountEvent(position=position, account=ANN, at=found.clock.now(), state=AccountState.DELETED)
    report: Report = found.store.apply(keys([gone]), lambda books: take([gone], books, found.policies))
    assert found.store.tables.accounts == {}
    return report


async def test_the_devices_of_a_removed_account_are_told_once() -> None:
    now = NOW
    off = phone(now, numbered(7), None, device_id="off", enabled=False)
    other = phone(now, numbered(8), None, device_id="other", route=Route.PUBLISH, app="push.example.com")
    found, doors = office(off, other)
    version = found.store.tables.accounts[ANN].version
    found.pusher.committed(removed(found))
    await found.quiet()
    (push,) = doors.sent
    assert (push.token, push.push_type, push.priority) == (ALERT, PushType.ALERT, 10)
    assert str(push.collapse_id).startswith("acct:")
    assert push.expiration == int(found.clock.now().timestamp()) + 7 * 24 * 3600
    said: Any = push.payload
    assert (said["x"]["k"], said["x"]["v"], said["aps"]["sound"]) == ("removed", version, "default")
    assert found.store.tables.jobs == {}


@pytest.mark.parametrize(("verdict", "tries"), [(Verdict.RETRY, TRIES), (Verdict.UNCERTAIN, 1), (Verdict.REJECTED, 1)])
async def test_what_was_not_taken_goes_a_few_times(verdict: Verdict, tries: int) -> None:
    found, doors = office()
    doors.outcome_of = lambda _: PushOutcome(verdict=verdict, status=503)
    found.pusher.committed(removed(found))
    await found.quiet()
    assert len(doors.sent) == tries


async def test_very_many_at_once_are_not_all_told(caplog: pytest.LogCaptureFixture) -> None:
    """An operator removes a host's accounts: what waits in no store must not fill the memory."""
    found, doors = office()
    report = removed(found)
    doors.released.clear()
    found.pusher.committed(replace(report, farewells=report.farewells * (KNOWN + 2)))
    assert len(found.pusher._sending) == KNOWN
    assert "not all of their devices are told" in caplog.text
    doors.released.set()
    await found.quiet()
    found.pusher.committed(report)
    await found.quiet()
    assert len(doors.sent) == KNOWN + 1


# ---- a phone that is not done ----------------------------------------------------------------------------------------


class Woken:
    """Ann's phone was woken, and there are three conversations."""

    def __init__(self, *, filtering: bool = True) -> None:
        self.stores = in_memory()
        self.tables: Any = self.stores.store
        apps = frozenset({"chat"}) if filtering else frozenset()
        policies = Policies(wakes=WakePolicy(filtering_apps=apps))
        fetches = Fetches(store=self.stores.store, observer=RecordingObserver(), policies=policies)
        self.deltas, self.fetches = Deltas(store=self.stores.store, clock=self.stores.clock, fetches=fetches), fetches

    async def begin(self) -> "Woken":
        woken = device(
            app="chat", bound_to="phone", enabled=True, woken_version=30, woken_at=NOW, woken_until=after(900)
        )
        rows = [conversation(10, BOB, unread=2), conversation(20, CAT), conversation(30, "dan@example.net")]
        owner = account(version=30, unread=2, unread_conversations=1, devices=1, wakes_open=True)
        await self.stores.put(accounts=[owner], conversations=rows, devices=[woken], retokened=[woken])
        return self

    async def ask(self, attributes: str) -> Element:
        request: Any = decode(parse(f"<sync xmlns='urn:convsync:0' {attributes}/>"), account=ANN, kind="get")
        answer = await self.deltas.sync(ANN, "phone", request)
        while self.fetches._recording:
            await next(iter(self.fetches._recording))
        return answer.element

    def queued(self) -> list[tuple[PushKind, float]]:
        jobs = self.tables.tables.jobs.values()
        return [(job.kind, (job.not_before - NOW).total_seconds()) for job in jobs if job.state is JobState.QUEUED]


async def test_a_woken_phone_that_asks_for_a_part_is_woken_again_unless_it_comes_to_the_end() -> None:
    woken = await Woken().begin()
    first = await woken.ask("max='1'")
    assert woken.queued() == [(PushKind.SYNC, 30)]
    second = await woken.ask(f"max='1' token='{first.get('token')}'")
    assert woken.queued() == [(PushKind.SYNC, 30)]
    await woken.ask(f"max='1' token='{second.get('token')}'")
    assert woken.queued() == []


@pytest.mark.parametrize("attributes", ["max='0'", "max='1' unread='true'", "max='3'", ""])
async def test_who_asks_for_something_else_or_for_all_is_not(attributes: str) -> None:
    woken = await Woken().begin()
    await woken.ask(attributes)
    assert woken.queued() == []


async def test_an_app_that_would_show_it_is_not() -> None:
    woken = await Woken(filtering=False).begin()
    await woken.ask("max='1'")
    assert woken.queued() == []


async def test_a_phone_that_never_comes_to_the_end_is_left_alone_in_the_end() -> None:
    woken = await Woken().begin()
    (key,) = woken.tables.tables.devices
    stored = woken.tables.tables.devices[key]
    await woken.stores.put(devices=[replace(stored, chased=10)])
    await woken.ask("max='1'")
    assert woken.queued() == []
