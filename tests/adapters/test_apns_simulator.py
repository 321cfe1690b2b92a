"""The simulator as a process: its command, its control port, its log, and what outlives a restart."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from h2.connection import H2Connection

from sync.adapters.apns import ApnsApp, ApnsGate
from sync.model.push import Environment, Verdict
from sync.sandbox.apns.certificates import ensure
from sync.sandbox.apns.control import serve
from tests.contract.apns_server import ALERT, APP, KEY, TEAM, Apns, alert, apns, new_key, voip
from tests.contract.fakes_push import MemoryProviderTokens


class Control:
    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base, self.session = base, session

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(f"{self.base}/{path}", data=data) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.base}/{path}") as answer:
            return await answer.json()


async def allowed(http2: H2Connection, streams: int) -> None:
    """Wait until the server has announced that many streams."""
    async with asyncio.timeout(5):
        while http2.remote_settings.max_concurrent_streams != streams:  # noqa: ASYNC110 - hyper-h2 has no event for it
            await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


@pytest.fixture
async def control(server: Apns) -> AsyncIterator[Control]:
    runner, port = await serve(server.simulator, "127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Control(f"http://127.0.0.1:{port}", session)
    await runner.cleanup()


async def test_a_log_line_says_what_arrived_and_what_was_answered(server: Apns) -> None:
    push = voip(expiration=0)
    async with server.gate() as gate:
        await gate.send(push)
    line = server.log()[0]
    assert line.pop("t") > 1_700_000_000
    assert line == {
        "status": 200,
        "reason": None,
        "token": push.token,
        "topic": f"{APP}.voip",
        "push_type": "voip",
        "priority": 10,
        "expiration": 0,
        "collapse_id": None,
        "apns_id": push.apns_id,
        "payload": {"x": {"k": "call"}},
    }


async def test_faults_are_posted_and_reset(server: Apns, control: Control) -> None:
    async with server.gate() as gate:
        fault = {"kind": "status", "status": 410, "reason": "Unregistered", "timestamp": 1, "times": 2}
        assert (await control.post("faults", fault))[0] == 200
        assert (await gate.send(alert())).reason == "Unregistered"
        assert [line["reason"] for line in await control.get("log")] == ["Unregistered"]
        await control.post("reset", {})
        assert await control.get("log") == []
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert (await control.get("stats"))["requests"] == 1


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("faults", b"{", "JSON"),
        ("faults", {"kind": "flood"}, "kind"),
        ("faults", {"kind": "slow", "seconds": []}, "seconds"),
        ("tokens", {"token": "aa", "state": "tired"}, "state"),
        ("tokens", {"state": "alive"}, "token"),
        ("tokens", {"token": "aa", "state": "expired", "timestamp": "now"}, "timestamp"),
    ],
)
async def test_what_makes_no_sense_is_answered_400(control: Control, path: str, body: Any, field: str) -> None:
    status, answer = await control.post(path, body)
    assert status == 400
    assert field in answer["error"]


async def test_tokens_are_told(server: Apns, control: Control) -> None:
    told = {"token": ALERT, "state": "unregistered", "timestamp": 1_700_000_000_000}
    assert (await control.post("tokens", told))[0] == 200
    async with server.gate() as gate:
        assert (await gate.send(alert())).dead_since_at is not None


async def test_one_stream_until_a_provider_token_is_accepted(server: Apns) -> None:
    async with server.gate() as gate:
        connection = next(iter(gate._lines.values()))._current
        assert connection is not None
        await allowed(connection._h2, 1)
        await gate.send(alert())
        await allowed(connection._h2, 1000)


async def test_a_client_without_http2_is_turned_away(server: Apns) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    assert await reader.read() == b""
    writer.close()


def test_certificates_are_kept(tmp_path: Path) -> None:
    first = ensure(tmp_path).ca.read_bytes()
    assert ensure(tmp_path).ca.read_bytes() == first
    assert (tmp_path / "server.key").stat().st_mode & 0o077 == 0
    (tmp_path / "server.pem").unlink()
    assert ensure(tmp_path).ca.read_bytes() != first


async def test_the_command_serves_until_it_is_stopped_and_keeps_log_and_certificates(tmp_path: Path) -> None:
    key, public = new_key()
    (tmp_path / "public.pem").write_bytes(public)
    command = f"--port 0 --control-port 0 --log {tmp_path}/apns.jsonl --certificate-dir {tmp_path}/tls --app {APP} "
    command += f"--provider-key {tmp_path}/public.pem --team-id {TEAM} --key-id {KEY}"
    tokens = MemoryProviderTokens(key.mint, lambda: datetime.now(UTC))
    for _ in range(2):
        argv = [sys.executable, "-m", "sync.sandbox.apns", *command.split()]
        process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().split()[2]
        app = ApnsApp(
            name="chat",
            bundle_id=APP,
            environment=Environment.PRODUCTION,
            server=address,
            ca_file=tmp_path / "tls" / "ca.pem",
        )
        gate = ApnsGate([app], tokens)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        await gate.close()
        process.terminate()
        assert await process.wait() == 0
    assert len((tmp_path / "apns.jsonl").read_text().splitlines()) == 2
