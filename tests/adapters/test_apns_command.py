"""`convsync apns-simulator` as others use it: a command that makes its own key, and a sender that is not ours."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from sync.cli import cli
from tests.ports import free_port

APP = "org.example.chat"
ALERT, VOIP, GONE = "a" * 64, "f" * 64, "a" * 63 + "9"
NODE, CURL = shutil.which("node"), shutil.which("curl")


@asynccontextmanager
async def running(folder: Path, *options: str) -> AsyncIterator[tuple[str, str]]:
    """The command on free ports; the addresses of senders and of control."""
    argv = [sys.executable, "-m", "sync", "apns-simulator", "--port", "0", "--control-port", "0"]
    argv += ["--certificate-dir", str(folder), *options]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        words = (await process.stdout.readline()).decode().split()
        yield words[2], words[4]
    finally:
        process.terminate()
        assert await process.wait() == 0


async def spoken(*argv: str, env: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    async with asyncio.timeout(200):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def pushed(address: str, folder: Path, *pushes: tuple[str, str]) -> list[Any]:
    """What node's http2 was answered."""
    wanted = json.dumps([{"token": token, "type": kind} for token, kind in pushes])
    key, script = folder / "AuthKey_KEY0000001.p8", Path(__file__).parent / "apns_client.mjs"
    words = ("TEAM000001", "KEY0000001", APP, wanted)
    found: list[Any] = json.loads(
        await spoken(NODE or "", str(script), address, str(folder / "ca.pem"), str(key), *words)
    )
    return found


@pytest.mark.skipif(NODE is None, reason="node is not installed")
async def test_a_sender_that_is_not_ours_is_served(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps([{"token": GONE.upper(), "state": "unregistered", "timestamp": 1700000000000}]))
    folder = tmp_path / "apns"
    async with running(folder, "--tokens", str(tokens)) as (address, control), aiohttp.ClientSession() as session:
        alert, call, gone, nobody, crossed = await pushed(
            address, folder, (ALERT, "alert"), (VOIP, "voip"), (GONE, "alert"), ("b" * 64, "alert"), (ALERT, "voip")
        )
        assert (alert["status"], call["status"]) == (200, 200)
        assert (gone["status"], gone["reason"], gone["timestamp"]) == (410, "Unregistered", 1700000000000)
        assert (nobody["status"], nobody["reason"]) == (400, "BadDeviceToken")
        assert (crossed["status"], crossed["reason"]) == (400, "DeviceTokenNotForTopic")
        (hasty,) = await pushed(
            address, folder, (ALERT, "alert")
        )  # a new provider token, as a sender mints at its start
        assert (hasty["status"], hasty["reason"]) == (429, "TooManyProviderTokenUpdates")
        await session.post(f"{control}/reset")
        for fault in (
            {"kind": "status", "status": 429},
            {"kind": "split_body", "status": 503, "reason": "Shutdown"},
            {"kind": "rst_stream"},
        ):
            async with session.post(f"{control}/faults", json=fault) as answer:
                assert answer.status == 200
        slowed, split, reset, fine = await pushed(address, folder, *[(ALERT, "alert")] * 4)
        assert (slowed["status"], slowed["reason"]) == (429, "TooManyRequests")
        assert (split["status"], split["reason"]) == (503, "Shutdown")
        assert reset["error"] == "ERR_HTTP2_STREAM_ERROR"
        assert fine["status"] == 200
        await session.post(f"{control}/reset")
        (again,) = await pushed(address, folder, (GONE, "alert"))
        assert again["status"] == 410  # what was given at the start outlives a reset
    logged = [json.loads(line) for line in (folder / "apns.jsonl").read_text().splitlines()]
    assert [(line["status"], line["token"]) for line in logged] == [(410, GONE)]


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
async def test_curl_is_served(tmp_path: Path) -> None:
    if "HTTP2" not in await spoken(CURL or "", "--version"):
        pytest.skip("this curl has no HTTP/2")
    async with running(tmp_path) as (address, _):
        flags = ("-sS", "--http2", "--cacert", str(tmp_path / "ca.pem"), "-w", "\n%{http_version} %{http_code}")
        told = await spoken(CURL or "", *flags, "-d", "{}", f"{address}/3/device/{ALERT}")
    assert told.splitlines() == ['{"reason": "MissingProviderToken"}', "2 403"]


async def test_the_key_that_it_makes_is_kept_and_private(tmp_path: Path) -> None:
    async with running(tmp_path, "--key-id", "ABCDE12345"):
        key = tmp_path / "AuthKey_ABCDE12345.p8"
        assert key.stat().st_mode & 0o077 == 0
        first = key.read_bytes()
    async with running(tmp_path, "--key-id", "ABCDE12345"):
        assert key.read_bytes() == first


@pytest.mark.parametrize(
    ("option", "content", "sentence"),
    [
        ("--tokens", "{", "--tokens: {file} is no JSON."),
        ("--tokens", "{}", "--tokens: {file} must hold a list."),
        (
            "--tokens",
            '[{"token": "aa", "state": "asleep"}]',
            "--tokens: entry 0 of {file}: state: must be one of alive",
        ),
        ("--devices", '[{"id": "phone"}]', "--devices: entry 0 of {file}: "),
        (
            "--devices",
            '[{"id": "a", "app": "x", "alert_token": "aa"}, {"id": "b", "app": "x", "alert_token": "aa"}]',
            "--devices: {file}: alert_token: belongs to the device a.",
        ),
        ("--provider-key", "hush", "--provider-key: {file} holds no P-256 key (PEM), as ES256 needs."),
    ],
)
def test_what_it_cannot_begin_with(option: str, content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "told"
    file.write_text(content)
    argv = ["apns-simulator", "--certificate-dir", str(tmp_path), "--port", "0", "--control-port", "0"]
    result = CliRunner().invoke(cli, [*argv, option, str(file)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(sentence.format(file=file))
    assert "hush" not in result.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = str(taken.getsockname()[1])
        argv = ["apns-simulator", "--certificate-dir", str(tmp_path), "--port", port, "--control-port", "0"]
        result = CliRunner().invoke(cli, argv)
    assert result.exit_code == 1
    assert result.stderr.startswith("The simulator cannot run: ")
    assert result.stderr.lower().endswith("address already in use.\n")
