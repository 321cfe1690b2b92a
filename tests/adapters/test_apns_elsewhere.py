"""Our sender against a server that is not ours: node's http2, with settings and answers that ours does not have."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sync.adapters.apns import ApnsApp, ApnsGate, GateLimits
from sync.model.push import Environment, PushOutcome, Verdict
from sync.sandbox.apns.certificates import ensure
from tests.contract.apns_server import APP, PATIENT, alert, new_key, numbered, voip
from tests.contract.fakes_push import MemoryProviderTokens

NODE = shutil.which("node")
SCRIPT = Path(__file__).parent / "apns_server.mjs"
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


class Elsewhere:
    """The server's side: what it saw."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output

    async def saw(self) -> Mapping[str, Any]:
        async with asyncio.timeout(60):
            seen: Mapping[str, Any] = json.loads(await self._output.readline())
        return seen


@asynccontextmanager
async def elsewhere(
    folder: Path, settings: Mapping[str, int] | None = None, **limits: Any
) -> AsyncIterator[tuple[ApnsGate, Elsewhere]]:
    """A gate to a server of node's in a process of its own."""
    files = ensure(folder)
    argv = [NODE or "", str(SCRIPT), str(files.chain), str(files.key), json.dumps(settings or {})]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, limit=2**24)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int(await process.stdout.readline())
        app = ApnsApp(
            name="chat",
            bundle_id=APP,
            environment=Environment.PRODUCTION,
            server=f"https://127.0.0.1:{port}",
            ca_file=files.ca,
        )
        tokens = MemoryProviderTokens(new_key()[0].mint, lambda: datetime.now(UTC))
        gate = ApnsGate([app], tokens, limits=GateLimits(**PATIENT | limits))
        await gate.open()
        yield gate, Elsewhere(process.stdout)
        await gate.close()
    finally:
        process.kill()
        await process.wait()


async def test_what_another_server_sees_of_a_push(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as (gate, server):
        push = voip(expiration=0)
        assert await gate.send(push) == PushOutcome(verdict=Verdict.ACCEPTED, status=200)
        seen = await server.saw()
    headers = seen["headers"]
    assert (headers[":method"], headers[":path"], headers[":scheme"]) == (
        *("POST", f"/3/device/{push.token}"),
        "https",
    )
    assert headers["authorization"].startswith("bearer ")
    assert {name: value for name, value in headers.items() if name.startswith("apns-")} == {
        "apns-topic": f"{APP}.voip",
        "apns-push-type": "voip",
        "apns-priority": "10",
        "apns-expiration": "0",
        "apns-id": push.apns_id,
    }
    assert seen["payload"] == push.payload


@pytest.mark.parametrize(
    ("deed", "verdict", "status", "reason"),
    [
        ("gone", Verdict.DEAD_TOKEN, 410, "Unregistered"),
        ("empty", Verdict.RETRY, 503, None),
        ("split", Verdict.THROTTLED, 429, "TooManyRequests"),
        ("long", Verdict.RETRY, 503, None),
        ("reset", Verdict.NOT_SENT, None, None),
        ("unseen", Verdict.NOT_SENT, None, None),
        ("cut", Verdict.UNCERTAIN, None, None),
        ("silent", Verdict.UNCERTAIN, None, None),
        ("bye", Verdict.ACCEPTED, 200, None),
    ],
)
async def test_what_another_server_answers(
    tmp_path: Path, deed: str, verdict: Verdict, status: int | None, reason: str | None
) -> None:
    async with elsewhere(tmp_path, send_seconds=2.0) as (gate, _):
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        outcome = await gate.send(alert(payload={"aps": {"alert": "x"}, "do": deed}))
        assert (outcome.verdict, outcome.status) == (verdict, status)
        assert reason is None or outcome.reason == reason
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_another_server_s_narrow_limits_are_kept(tmp_path: Path) -> None:
    """Three streams at once and windows of 100 bytes: node ends a connection that takes more."""
    big = {"aps": {"alert": "x" * 3_000}}
    narrow = {"maxConcurrentStreams": 3, "initialWindowSize": 100}
    async with elsewhere(tmp_path, narrow) as (gate, server):
        sends = [gate.send(alert(numbered(n), payload=big)) for n in range(30)]
        assert {outcome.verdict for outcome in await asyncio.gather(*sends)} == {Verdict.ACCEPTED}
        seen = {(await server.saw())["headers"][":path"] for _ in range(30)}
        assert (len(seen), gate.counts().opened) == (30, 1)
