"""Every status, reason and fault of PUSH §§2 and 7 against the simulator: what becomes of job, token, breaker and
connection. The table is `apns_faults.toml`.
"""

import asyncio
import logging
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.adapters.apns import ApnsGate
from sync.model.device import JobState, PushJob
from sync.protocol.apns import TABLE
from sync.sandbox.apns.faults import FaultKind
from tests.adapters.pushing import Desk, desk_at
from tests.contract.apns_server import ALERT, PATIENCE, VOIP, Apns, apns
from tests.passing import passes

ROWS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("apns_faults.toml").read_text())["fault"]
UNANSWERED = ({"kind": "silent"}, {"kind": "slow", "seconds": 3600})


def faults() -> list[Any]:
    """Each row for each of its reasons or codes."""
    found = []
    for row in ROWS:
        posts = [row["post"]]
        posts = [post | {"reason": reason} for post in posts for reason in row["posts"]] if "posts" in row else posts
        posts = [post | {"error_code": code} for post in posts for code in row["codes"]] if "codes" in row else posts
        for post in posts:
            told = " ".join(str(value) for key, value in post.items() if key != "times")
            found.append(pytest.param(row, post, id=f"{told}: {row['name']}" if "name" in row else told))
    return found


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither tokens nor what was sent, whatever came back."""
    caplog.set_level(logging.DEBUG)
    yield
    assert not any(secret in caplog.text for secret in (ALERT, VOIP, "bearer", "message.new", "eyJ"))


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


def became(made: PushJob) -> str | None:
    return "again" if made.state is JobState.QUEUED else made.outcome


def post(server: Apns, desk: Desk, row: dict[str, Any], fault: dict[str, Any]) -> None:
    if "timestamp" in row:
        registered = desk.device()
        assert registered is not None
        instant = registered.registered_at.timestamp() + (1 if row["timestamp"] == "newer" else -1)
        fault = fault | {"timestamp": int(instant * 1000)}
    server.fault(**fault)


async def checked(server: Apns, desk: Desk, row: dict[str, Any], made: PushJob, lane: str) -> None:
    """The push meets the fault, and what is left afterwards is as the table says."""
    assert isinstance(desk.gate, ApnsGate)
    opened = desk.gate.counts().opened
    sends = row.get("sends", row.get("wake_sends", 1) if lane == "messages" else 1)
    round_ = asyncio.ensure_future(desk.round(lane))
    if row.get("post") in UNANSWERED:
        await server.seen(sends)
        passes(PATIENCE.send_seconds)
    await round_
    assert became(desk.now(made)) == row["wake" if lane == "messages" else "call"]
    assert bool(desk.pusher.troubles()) is (row.get("breaker") == "open")
    assert server.simulator.stats()["requests"] == sends
    assert server.simulator.faults.waiting == max(row["post"].get("times", 1) - sends, 0)
    assert desk.now(made).attempts == 1
    # The next push finds a connection that works, the same one unless it had to go.
    server.simulator.faults.forget()
    again = desk.message("afterwards")
    if desk.device() is not None:
        desk.later(70)
        await desk.round("messages")
        assert desk.now(again).outcome == "accepted"
        assert desk.gate.counts().opened == opened + row.get("new", 0)


@pytest.mark.parametrize(("row", "fault"), faults())
async def test_a_wake(server: Apns, row: dict[str, Any], fault: dict[str, Any]) -> None:
    async with desk_at(server) as desk:
        server.simulator.reset()
        made = desk.message()
        post(server, desk, row, fault)
        await checked(server, desk, row, made, "messages")
        assert (desk.device() is None) is (row.get("token") == "dead")


@pytest.mark.parametrize(("row", "fault"), faults())
async def test_a_voip_push(server: Apns, row: dict[str, Any], fault: dict[str, Any]) -> None:
    async with desk_at(server) as desk:
        server.simulator.reset()
        made = desk.ring()
        post(server, desk, row, fault)
        began = desk.clock.now()
        await checked(server, desk, row, made, "calls")
        left = desk.device()
        assert left is not None
        assert (left.voip_token is None) is (row.get("token") == "dead")
        (alert,) = desk.alerts()
        assert (alert.not_before == began) is bool(row.get("alert"))


# ---- the table is whole ----------------------------------------------------------------------------------------------


def test_every_row_of_the_adapters_table_is_here() -> None:
    told = {
        (row["post"].get("status"), reason)
        for row in ROWS
        for reason in [*row.get("posts", ()), row["post"].get("reason")]
    }
    assert {(row.status, row.reason) for row in TABLE if row.reason is not None} <= told


def test_every_fault_of_the_simulator_is_here() -> None:
    # A connection that fails in its handshake has no push: test_apns_faults has it.
    assert {row["post"]["kind"] for row in ROWS} == set(FaultKind) - {FaultKind.TLS}


async def test_a_row_that_says_otherwise_would_be_noticed(server: Apns) -> None:
    async with desk_at(server) as desk:
        server.simulator.reset()
        made = desk.message()
        server.fault("status", status=400, reason="BadTopic")
        with pytest.raises(AssertionError):
            await checked(server, desk, {"wake": "again"}, made, "messages")
        await asyncio.sleep(0)
