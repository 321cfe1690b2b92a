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
from sync.model.push import Environment as Side
from sync.model.push import Verdict
from sync.sandbox.apns.certificates import ensure
from sync.sandbox.apns.control import serve
from sync.sandbox.apns.senders import Environment, Senders
from tests.contract.apns_server import ALERT, APP, KEY, PATIENCE, TEAM, VOIP, Apns, alert, apns, new_key, voip
from tests.contract.fakes_push import MemoryProviderTokens


class Control:
    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base, self.session = base, session

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(f"{self.base}/{path}", data=data) as answer:
            return answer.status, await answer.json()

    async def status(self, path: str) -> int:
        async with self.session.get(f"{self.base}/{path}") as answer:
            return answer.status

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.base}/{path}") as answer:
            return await answer.json()


async def allowed(http2: H2Connection, streams: int) -> None:
    """Wait until the server has announced that many streams."""
    async with asyncio.timeout(60):
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
        ("tokens", {"token": "aa", "state": "alive", "limit": "few"}, "limit"),
        ("faults", {"kind": "tls", "token": "aa"}, "token"),
        ("faults", {"kind": "tls", "push_type": "voip"}, "push_type"),
        ("faults", {"kind": "tls", "reason": "mood"}, "reason"),
        ("faults", {"kind": "window"}, "bytes"),
        ("faults", {"kind": "window", "bytes": -1}, "bytes"),
        ("faults", {"kind": "max_streams"}, "streams"),
        ("faults", {"kind": "silent", "delivered": "perhaps"}, "delivered"),
        ("devices", b"[", "JSON"),
        ("devices", {"id": "other", "app": APP, "alert_token": "beef"}, "alert_token: belongs to the device phone"),
        ("devices", {"id": "other", "app": APP}, "alert_token"),
        ("devices/phone", {"online": "perhaps"}, "online"),
        ("devices/phone/report", {"did": "nothing"}, "did"),
        ("devices/phone/report", {"did": "removed", "push": "7"}, "push"),
        ("calls", {"call": "7", "state": "loud"}, "state"),
        ("certificates", {"app": APP, "environments": ["moon"]}, "environments"),
    ],
)
async def test_what_makes_no_sense_is_answered_400(control: Control, path: str, body: Any, field: str) -> None:
    await control.post("devices", {"id": "phone", "app": APP, "alert_token": "beef"})
    status, answer = await control.post(path, body)
    assert status == 400
    assert field in answer["error"]


async def test_a_device_that_was_not_described_is_not_found(control: Control) -> None:
    for path, body in (("devices/phone", {"online": True}), ("devices/phone/report", {"did": "rang", "call": "7"})):
        assert await control.post(path, body) == (404, {"error": "no such device"})
    assert await control.status("devices/phone") == 404


async def test_a_phone_sleeps_wakes_and_tells_what_it_did(server: Apns, control: Control) -> None:
    phone = {"id": "phone", "app": APP, "alert_token": ALERT, "voip_token": VOIP, "online": False, "filtering": True}
    assert await control.post("devices", phone) == (200, {})
    async with server.gate() as gate:
        for badge in (1, 2):
            wake = {"aps": {"alert": {"loc-key": "NEW"}, "mutable-content": 1, "badge": badge}}
            assert (await gate.send(alert(payload=wake))).verdict is Verdict.ACCEPTED
        asleep = await control.get("devices/phone")
        assert (asleep["shown"], len(asleep["stored"]), asleep["badge"]) == ([], 1, None)
        _, awake = await control.post("devices/phone", {"online": True})
        assert (awake["stored"], awake["badge"], awake["counts"]["replaced"]) == ([], 2, 1)
        (notification,) = awake["shown"]
        assert (notification["alert"], notification["aloud"], notification["changed"]) == (
            *({"loc-key": "NEW"}, True),
            False,
        )
        report = {"did": "changed", "push": notification["apns_id"], "alert": "Alice: hi"}
        assert (await control.post("devices/phone/report", report))[0] == 200
        await control.post("calls", {"call": "c-1", "state": "ringing"})
        for call in ("c-1", "c-2", "c-3", "c-4", "c-5"):
            if call != "c-1":
                await control.post("calls", {"call": call, "state": "ended"})
            assert (await gate.send(voip(payload={"x": {"c": call}}))).verdict is Verdict.ACCEPTED
        (told,) = await control.get("devices")
    assert (told["shown"][0]["alert"], told["calls"]) == ("Alice: hi", {"c-1": 1, "c-2": 1, "c-3": 1, "c-4": 1})
    assert (told["strikes"], told["voip_banned"], told["counts"]["withheld"]) == (3, True, 1)
    assert (told["rung_twice"], told["counts"]["accepted"], told["counts"]["delivered"]) == (0, 7, 5)
    await control.post("reset", {})
    assert await control.get("devices") == []


async def test_a_certificate_is_made_on_demand(control: Control) -> None:
    status, made = await control.post("certificates", {"app": APP})
    assert status == 200
    assert "BEGIN CERTIFICATE" in made["pem"]
    assert "PRIVATE KEY" in made["pem"]


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
    senders = Senders(tmp_path, Environment.PRODUCTION)
    mine = senders.file(APP).read_bytes()
    assert Senders(tmp_path, Environment.PRODUCTION).file(APP).read_bytes() == mine
    assert {(tmp_path / name).stat().st_mode & 0o077 for name in ("senders-ca.key", f"certificate-{APP}.pem")} == {0}
    senders.ca.unlink()
    assert Senders(tmp_path, Environment.PRODUCTION).file(APP).read_bytes() != mine
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
            environment=Side.PRODUCTION,
            server=address,
            ca_file=tmp_path / "tls" / "ca.pem",
        )
        gate = ApnsGate([app], tokens, limits=PATIENCE)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        await gate.close()
        process.terminate()
        assert await process.wait() == 0
    assert len((tmp_path / "apns.jsonl").read_text().splitlines()) == 2
