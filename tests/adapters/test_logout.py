"""Phones that leave without a login, over a real socket: what fits leaves, and nobody else learns anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from sync.adapters.http import MAX_POSTS, Pages, Post
from sync.adapters.sealing import Sealer
from sync.app.registry import posts
from sync.model.device import JobState
from sync.model.errors import StoreUnavailable
from sync.model.push import Environment
from sync.model.query import App, RegisterDevice
from sync.protocol.logout import MAX_BODY_BYTES
from sync.service.registration import Registrations
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, EVE, NOW, job

COMPONENT = "sync.example.org"
PATH, SISKINS = "/v1/unregister", f"/unregister-device/{COMPONENT}"
TOKEN, OTHER = "ab" * 32, "cd" * 32
CHAT = App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True)


class House:
    """The service's pages before a store in memory, in which ann has a phone and a tablet, and eve a phone."""

    def __init__(self) -> None:
        self.store: Any = MemoryStore(SetClock(NOW))
        self.observer = RecordingObserver()
        self.registrations = Registrations(
            component=COMPONENT,
            store=self.store,
            sealer=Sealer([Fernet.generate_key().decode()]),
            apps={"chat": CHAT, "beta": replace(CHAT, name="beta", environment=Environment.PRODUCTION)},
            random_name=iter(f"random{n}" for n in range(99)).__next__,
            observer=self.observer,
        )
        self.base, self.secret, self.node = "", "", ""

    async def furnish(self) -> None:
        await self.register(EVE, "phone", "ef" * 32)
        await self.register(ANN, "tablet", OTHER)
        made = await self.register(ANN, "phone", TOKEN)
        self.node, self.secret = made.node, made.secret

    async def register(self, account: str, device_id: str, token: str, app: str = "chat") -> Any:
        asked = RegisterDevice(account=account, resource="r", device_id=device_id, app=app, alert_token=token)
        return await self.registrations.register(asked)

    def of(self, account: str) -> list[str]:
        found = sorted(name for owner, name in self.store.tables.devices if owner == account)
        assert self.store.tables.accounts[account].devices == len(found)
        return found

    async def post(self, path: str, body: object, **more: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with aiohttp.ClientSession() as session, session.post(self.base + path, data=data, **more) as answer:
            return answer.status, await answer.json()


@pytest_asyncio.fixture(loop_scope="session")
async def house() -> AsyncIterator[House]:
    house = House()
    await house.furnish()
    pages = Pages(
        readiness=pytest.fail,
        survey=pytest.fail,
        exposition=bytes,
        content_type="text/plain",
        posts=posts(COMPONENT, house.registrations),
        post_bytes=MAX_BODY_BYTES,
    )
    house.base = f"http://127.0.0.1:{await pages.start('127.0.0.1', 0)}"
    yield house
    await pages.close()


def of_token(house: House, **changed: str) -> dict[str, str]:
    return {"provider": "chat", "device-token": TOKEN, "secret": house.secret} | changed


def of_siskin(**changed: str) -> dict[str, str]:
    return {"account": ANN, "provider": "chat", "device-token": TOKEN} | changed


DONE = (200, {"result": "success"})
NOTHING = (403, {"result": "failure", "error": "forbidden", "text": "Nothing fits that."})


async def test_by_node_and_secret(house: House) -> None:
    queued = job("a wake")
    house.store.tables.jobs[ANN, queued.job_id] = queued
    assert await house.post(PATH, {"node": house.node, "secret": house.secret}) == DONE
    assert (house.of(ANN), house.of(EVE)) == (["tablet"], ["phone"])
    assert house.store.tables.jobs[ANN, queued.job_id].state is JobState.DONE
    assert house.observer.told("token_removed") == [{"reason": "logged-out"}]


async def test_by_token_and_secret(house: House) -> None:
    assert await house.post(PATH, of_token(house, **{"device-token": TOKEN.upper()})) == DONE
    assert (house.of(ANN), house.of(EVE)) == (["tablet"], ["phone"])


async def test_as_siskin_does(house: House) -> None:
    assert await house.post(SISKINS, of_siskin()) == DONE
    assert house.of(ANN) == ["tablet"]


async def test_twice(house: House) -> None:
    body = {"node": house.node, "secret": house.secret}
    assert await house.post(PATH, body) == DONE
    assert await house.post(PATH, body) == NOTHING
    assert len(house.observer.told("token_removed")) == 1


async def test_what_does_not_fit_gets_one_answer_whatever_the_reason(house: House) -> None:
    """A node or token that nobody has, and one that is there with another's secret, or of another app or account."""
    bodies = [
        {"node": "nobody's", "secret": house.secret},
        {"node": house.node, "secret": "guess"},
        {"node": house.node, "secret": house.node},
        of_token(house, secret="guess"),
        of_token(house, provider="nothing"),
        of_token(house, provider="beta"),
        of_token(house, **{"device-token": OTHER}),
        of_token(house, **{"device-token": "12" * 32}),
    ]
    for body in bodies:
        assert await house.post(PATH, body) == NOTHING, body
    for account in (EVE, "", "ann", "nobody@example.org"):
        if account:
            assert await house.post(SISKINS, of_siskin(account=account)) == NOTHING
    assert await house.post(SISKINS, of_siskin(**{"device-token": OTHER}, account=EVE)) == NOTHING
    assert (house.of(ANN), house.of(EVE)) == (["phone", "tablet"], ["phone"])
    assert house.observer.told("token_removed") == []


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "JSON"),
        (b"[]", "JSON"),
        (b"null", "JSON"),
        (b"\xff", "JSON"),
        (b"{" * 5000, "JSON"),
        (b"[" * 8000, "JSON"),
        (b'{"secret": "x"}', "'node'"),
        (b'{"node": "n"}', "'secret'"),
        (b'{"node": "n", "secret": null}', "'secret'"),
        (b'{"node": "n", "secret": 5}', "'secret'"),
        (b'{"node": ["n"], "secret": "s"}', "'node'"),
        (b'{"node": "", "secret": "s"}', "'node'"),
        (b'{"node": "n", "node": "m", "secret": "s"}', "twice"),
        (b'{"node": "n", "secret": "s", "account": "a"}', "unknown key"),
        (b'{"node": "n", "provider": "chat", "secret": "s"}', "'provider'"),
        (b'{"provider": "chat", "secret": "s"}', "'device-token'"),
        (b'{"device-token": "' + TOKEN.encode() + b'", "secret": "s"}', "'provider'"),
        (b'{"provider": "chat", "device-token": "xy", "secret": "s"}', "'device-token'"),
        (b'{"node": "\\u0000", "secret": "s"}', "'node'"),
        (b'{"node": "\\ud800", "secret": "s"}', "'node'"),
        (json.dumps({"node": "x" * 1025, "secret": "s"}).encode(), "'node'"),
    ],
)
async def test_what_is_no_request_is_told_so(house: House, body: bytes, names: str) -> None:
    status, told = await house.post(PATH, body)
    assert (status, told["result"], told["error"]) == (400, "failure", "bad-request")
    assert names in told["text"]
    assert (await house.post(SISKINS, body))[0] == 400


async def test_nothing_is_decompressed(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may say that nonsense is compressed; it is no trouble of ours, and none for who reads the log."""
    status, told = await house.post(PATH, b"?", headers={"Content-Encoding": "gzip"}, compress=False)
    assert (status, told["error"]) == (400, "bad-request")
    assert not caplog.records


async def test_a_large_body_is_not_read(house: House) -> None:
    status, told = await house.post(PATH, b" " * (MAX_BODY_BYTES + 1))
    assert (status, told["error"]) == (413, "too-large")


async def test_the_store_is_away(house: House) -> None:
    async def away(_: str) -> frozenset[str]:
        raise StoreUnavailable("gone")

    house.store.node_owners = away
    status, told = await house.post(PATH, {"node": house.node, "secret": house.secret})
    assert (status, told["error"]) == (503, "internal-server-error")
    assert "gone" not in told["text"]


async def test_only_so_many_at_a_time() -> None:
    free, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def take(_: bytes) -> bool:
        begun.release()
        await free.wait()
        return True

    pages = Pages(
        readiness=pytest.fail, survey=pytest.fail, exposition=bytes, content_type="", posts=[Post("/p", take)]
    )
    url = f"http://127.0.0.1:{await pages.start('127.0.0.1', 0)}/p"
    async with aiohttp.ClientSession() as session:
        waiting = [asyncio.ensure_future(session.post(url)) for _ in range(MAX_POSTS)]
        for _ in waiting:
            await begun.acquire()
        async with session.post(url) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        free.set()
        assert [(await answer).status for answer in waiting] == [200] * MAX_POSTS
        assert (await session.post(url)).status == 200
    await pages.close()


async def test_without_an_app_nothing_is_posted() -> None:
    house = House()
    house.registrations._apps = {}
    assert posts(COMPONENT, house.registrations) == ()
