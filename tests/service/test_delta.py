"""What the service makes of `sync` and `call`: how much it reads, whose device has fetched, and what it answers when
the account changes under its hands.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import pytest_asyncio

from sync.model.books import Keys, Rule
from sync.model.call import CallState
from sync.model.delta import DeltaPage, DeltaQuery
from sync.model.device import JobState
from sync.model.errors import BadRequest, ItemNotFound, StoreUnavailable
from sync.protocol.convsync import decode
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.serialise import parse
from sync.service.delta import Answer, Deltas
from sync.service.fetches import Fetches
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, BOB, CAT, EVE, account, after, call, conversation, device, job, job_id
from tests.contract.stores import Bench, in_memory

CONVERSATION = clark(CONVSYNC, "conversation")
AWAKE = {"devices": 1, "wakes_open": True}


class Counted:
    """A store that remembers what it was asked, and lets something happen before a page is read."""

    def __init__(self, stores: Bench) -> None:
        self.stores, self.asked = stores, list[str]()
        self.before: list[dict[str, Any]] = []  # rows to store before the next pages

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self.stores.store, name)

    async def transact(self, keys: Keys, rule: Rule[Any]) -> Any:
        self.asked.append("transact")
        return await self.stores.store.transact(keys, rule)

    async def delta(self, owner: str, query: DeltaQuery) -> DeltaPage | None:
        self.asked.append("delta")
        if self.before:
            await self.stores.put(**self.before.pop(0))
        return await self.stores.store.delta(owner, query)


class Desk:
    """`Deltas` over a counted store in memory."""

    def __init__(self, stores: Bench) -> None:
        self.stores, self.store, self.observer = stores, Counted(stores), RecordingObserver()
        fetches = Fetches(store=self.store, observer=self.observer)
        self.deltas = Deltas(store=self.store, clock=stores.clock, fetches=fetches)

    async def answer(self, attributes: str = "", *, owner: str = ANN, resource: str | None = "phone") -> Answer:
        request = decode(parse(f"<sync xmlns='{CONVSYNC}' {attributes}/>"), account=owner, kind="get")
        return await self.deltas.sync(owner, resource, request)  # type: ignore[arg-type]

    async def ask(self, attributes: str = "", **asker: Any) -> Element:
        self.store.asked.clear()
        answer = await self.answer(attributes, **asker)
        return answer.element

    async def token(self, attributes: str = "") -> str:
        return (await self.ask(attributes)).attrib["token"]

    async def settled(self) -> None:
        """Whatever goes on behind an answer is done."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk(in_memory())
    await desk.stores.put(
        accounts=[account(version=30, floor=5, unread=2, unread_conversations=1)],
        conversations=[conversation(10, BOB, unread=2), conversation(20, CAT), conversation(30, "dan@example.net")],
    )
    yield desk


def versions(answer: Element) -> list[int]:
    return [int(item.attrib["version"]) for item in answer.findall(CONVERSATION)]


# ---- how much is read ------------------------------------------------------------------------------------------------


async def test_nothing_new_is_one_primary_key_read(desk: Desk) -> None:
    token = await desk.token()
    for more in ("", "max='0'", "messages='false' changes='false'"):
        answer = await desk.ask(f"token='{token}' {more}")
        assert desk.store.asked == ["account"]
        assert (answer.get("token"), answer.get("version"), answer.get("more")) == (token, "30", None)
        assert [child.tag for child in answer] == [clark(CONVSYNC, "totals")]


async def test_with_filters_too(desk: Desk) -> None:
    token = await desk.token("unread='true'")
    await desk.ask(f"token='{token}' unread='true'")
    assert desk.store.asked == ["account"]


async def test_a_woken_phone_is_shown_the_calls_though_nothing_is_new(desk: Desk) -> None:
    """Its extension and its app ask with one token after the other, or with the same."""
    token = await desk.token()
    ringing = call("c1", state=CallState.RINGING, version=30)
    await desk.stores.put(calls=[ringing])
    assert [child.tag for child in await desk.ask(f"token='{token}'")] == [clark(CONVSYNC, "totals")]
    answer = await desk.ask(f"token='{token}' at-least='30'")
    assert [child.get("id") for child in answer] == [None, "c1"]
    assert (answer.get("token"), desk.store.asked) == (token, ["account", "delta"])


async def test_something_new_is_one_statement_more(desk: Desk) -> None:
    assert versions(await desk.ask("max='2'")) == [30, 20]
    assert desk.store.asked == ["account", "delta"]
    token = await desk.token("max='2'")
    assert versions(await desk.ask(f"token='{token}'")) == [10]
    assert desk.store.asked == ["account", "delta"]


async def test_nobody_is_asked_for_once(desk: Desk) -> None:
    answer = await desk.ask(owner=EVE)
    assert desk.store.asked == ["account"]
    assert (answer.get("version"), answer.get("reset"), versions(answer)) == ("0", None, [])
    token = answer.attrib["token"]
    assert (await desk.ask(f"token='{token}' at-least='7'", owner=EVE)).get("reset") == "future"
    # The first thing that happens to the account is not a loss.
    first = conversation(50, owner=EVE)
    await desk.stores.put(EVE, accounts=[account(EVE, version=50, floor=50)], conversations=[first])
    answer = await desk.ask(f"token='{token}'", owner=EVE)
    assert (answer.get("reset"), versions(answer)) == (None, [50])


# ---- an account that changes meanwhile -------------------------------------------------------------------------------


async def test_what_is_written_between_the_reads_is_told(desk: Desk) -> None:
    token = await desk.token()
    await desk.stores.put(accounts=[account(version=40, floor=5)], conversations=[conversation(40, BOB)])
    desk.store.before = [{"accounts": [account(version=50, floor=5)], "conversations": [conversation(50, CAT)]}]
    answer = await desk.ask(f"token='{token}'")
    assert (answer.get("version"), versions(answer)) == ("50", [50, 40])


@pytest.mark.parametrize("fields", [{"epoch": 2, "floor": 60, "version": 60}, {"floor": 50, "version": 50}])
async def test_an_epoch_that_is_raised_between_the_reads_is_noticed(desk: Desk, fields: dict[str, Any]) -> None:
    token = await desk.token()
    await desk.stores.put(accounts=[account(version=40, floor=5)], conversations=[conversation(40, BOB)])
    desk.store.before = [{"accounts": [account(**fields)]}]
    answer = await desk.ask(f"token='{token}'")
    assert desk.store.asked == ["account", "delta", "delta"]
    assert answer.get("reset") == ("epoch" if "epoch" in fields else "expired")
    assert versions(answer) == [40, 30, 20]


async def test_a_page_that_lost_its_beginning_starts_over(desk: Desk) -> None:
    token = await desk.token("max='1'")
    await desk.stores.put(accounts=[account(version=40, floor=35, epoch=2)])
    answer = await desk.ask(f"token='{token}' max='2'")
    assert (answer.get("reset"), answer.get("version"), versions(answer)) == ("epoch", "40", [30, 20])


async def test_an_account_that_goes_between_the_reads_has_nothing(desk: Desk) -> None:
    token = await desk.token()
    await desk.stores.put(accounts=[account(version=40, floor=5)])
    desk.store.before = [{"deleted_accounts": [ANN]}]
    answer = await desk.ask(f"token='{token}'")
    assert (answer.get("version"), versions(answer)) == ("0", [])


async def test_an_account_that_never_rests_starts_over_once(desk: Desk) -> None:
    token = await desk.token()
    await desk.stores.put(accounts=[account(version=40, floor=5)])
    changing = [{"floor": 45}, *({"floor": 50 + n, "epoch": n} for n in range(2, 30))]
    desk.store.before = [{"accounts": [account(version=90 + n, **fields)]} for n, fields in enumerate(changing)]
    answer = await desk.ask(f"token='{token}'")
    assert (answer.get("reset"), versions(answer)) == ("epoch", [30, 20, 10])
    assert desk.store.asked == ["account", "delta", "delta", "delta"]


# ---- devices ---------------------------------------------------------------------------------------------------------


async def woken(desk: Desk, bound_to: str | None = "phone", **fields: Any) -> None:
    """A phone was sent a wake at version 25, and another one is queued."""
    await desk.stores.put(
        accounts=[account(version=30, floor=5, **AWAKE)],
        devices=[device(bound_to=bound_to, woken_version=25, woken_at=after(-3), **fields)],
        jobs=[job(version=28)],
    )


async def fetched_version(desk: Desk) -> int:
    await desk.settled()
    [phone] = desk.stores.store.tables.devices.values()  # type: ignore[attr-defined]
    state = desk.stores.store.tables.jobs[ANN, job_id("j1")].state  # type: ignore[attr-defined]
    assert (state is JobState.DONE) == (phone.fetched_version >= 28)
    return int(phone.fetched_version)


@pytest.mark.parametrize(
    ("attributes", "version"),
    [
        ("", 30),
        ("max='3'", 30),
        ("messages='false'", 30),
        ("max='2'", 0),  # there is more to come
        ("max='0'", 0),
        ("unread='true'", 0),  # whatever else woke it was not told
        ("kind='chat'", 0),
    ],
)
async def test_a_device_has_fetched_when_it_was_told_everything(desk: Desk, attributes: str, version: int) -> None:
    await woken(desk)
    await desk.answer(attributes)
    assert await fetched_version(desk) == version
    assert bool(desk.observer.told("wake_to_fetch")) == bool(version)


async def test_it_has_with_the_last_page_too_and_when_nothing_is_new(desk: Desk) -> None:
    token = await desk.token()
    first = await desk.token("max='2'")
    await woken(desk)
    await desk.answer(f"token='{first}'")
    assert await fetched_version(desk) == 30
    await woken(desk)
    await desk.answer(f"token='{token}'")
    assert await fetched_version(desk) == 30


@pytest.mark.parametrize("resource", ["tablet", None])
async def test_another_session_proves_nothing(desk: Desk, resource: str | None) -> None:
    await woken(desk)
    await desk.answer(resource=resource)
    assert await fetched_version(desk) == 0


async def test_who_was_not_woken_costs_nothing(desk: Desk) -> None:
    await desk.stores.put(accounts=[account(version=30, floor=5, devices=1)], devices=[device(bound_to="phone")])
    await desk.ask()
    await desk.settled()
    assert desk.store.asked == ["account", "delta"]


async def test_a_device_that_is_named_is_bound_to_the_session(desk: Desk) -> None:
    await woken(desk, bound_to="old", node="n1")
    await desk.answer("device='n1'", resource="extension")
    assert await fetched_version(desk) == 30
    [phone] = desk.stores.store.tables.devices.values()  # type: ignore[attr-defined]
    assert phone.bound_to == "extension"


async def test_a_device_that_is_named_takes_the_place_of_the_first_read(desk: Desk) -> None:
    token = await desk.token()
    phone = device(bound_to="phone", node="n1")
    await desk.stores.put(accounts=[account(version=30, floor=5, devices=1)], devices=[phone])
    assert versions(await desk.ask(f"token='{token}' device='n1'")) == []
    assert desk.store.asked == ["transact", "delta"]


@pytest.mark.parametrize("owner", [ANN, EVE, "new@example.org"])
async def test_an_unknown_device_is_not_found(desk: Desk, owner: str) -> None:
    await desk.stores.put(
        ANN, EVE, accounts=[account(devices=1), account(EVE, devices=1)], devices=[device(node="hers", owner=EVE)]
    )
    with pytest.raises(ItemNotFound):
        await desk.answer(f"device='{'hers' if owner != EVE else 'n1'}'", owner=owner)


async def test_a_device_speaks_through_a_session(desk: Desk) -> None:
    await woken(desk, node="n1")
    with pytest.raises(BadRequest, match="'device'"):
        await desk.answer("device='n1'", resource=None)


async def test_a_fetch_that_cannot_be_recorded_is_no_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object) -> Any:
        raise StoreUnavailable

    await woken(desk)
    monkeypatch.setattr(desk.store, "transact", down)
    assert versions((await desk.answer()).element) == [30, 20, 10]
    await desk.settled()
    assert desk.observer.told("wake_to_fetch") == []


# ---- calls -----------------------------------------------------------------------------------------------------------


async def call_of(desk: Desk, attributes: str, owner: str = ANN) -> Element:
    request = decode(parse(f"<call xmlns='{CONVSYNC}' {attributes}/>"), account=owner, kind="get")
    return await desk.deltas.call(owner, request)  # type: ignore[arg-type]


async def test_a_call_by_its_id(desk: Desk) -> None:
    calls = [call(version=7), call(peer=CAT, version=9, state=CallState.ANSWERED, answered_by="web")]
    ours = replace(call("s2", state=CallState.OUTGOING, version=8), caller=f"{ANN}/desk")
    await desk.stores.put(calls=[*calls, ours])
    desk.store.asked.clear()
    found = [await call_of(desk, asked) for asked in ("id='s1'", f"id='s1' jid='{BOB}'", "id='s2'")]
    assert desk.store.asked == ["call"] * 3
    assert [(one.get("jid"), one.get("state"), one.get("by"), one.get("left")) for one in found] == [
        (CAT, "answered", "web", None),
        (BOB, "ringing", None, "60"),
        (BOB, "outgoing", None, None),
    ]


@pytest.mark.parametrize(("asked", "owner"), [("id='s2'", ANN), (f"id='s1' jid='{CAT}'", ANN), ("id='s1'", EVE)])
async def test_a_call_that_there_is_not(desk: Desk, asked: str, owner: str) -> None:
    await desk.stores.put(calls=[call()])
    with pytest.raises(ItemNotFound):
        await call_of(desk, asked, owner)
