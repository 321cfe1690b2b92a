"""The simulator serves finished senders that know nothing of it: @parse/node-apn and kalyke-apns."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.adapters.test_apns_command import ALERT, APP, GONE, VOIP, running, spoken

HERE = Path(__file__).parent
CALL = {"x": {"c": "call-1"}}


def node() -> str | None:
    """A node that runs @parse/node-apn, which `scripts/setup --tests` installs where there is one."""
    found = shutil.which("node")
    if found is None or not (HERE / "node" / "node_modules" / "@parse" / "node-apn").exists():
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return found if int(version[1:].split(".")[0]) >= 20 else None


NODE = node()
with_node_apn = pytest.mark.skipif(
    NODE is None, reason="@parse/node-apn is not installed: scripts/setup --tests does it where node 20 is"
)


async def by_node_apn(address: str, folder: Path, *pushes: dict[str, Any], certificate: Path | None = None) -> Any:
    """What @parse/node-apn made of it."""
    told = {"port": int(address.rpartition(":")[2]), "ca": str(folder / "ca.pem"), "app": APP, "pushes": pushes}
    if certificate is None:
        told |= {"key": str(folder / "AuthKey_KEY0000001.p8"), "team": "TEAM000001", "keyId": "KEY0000001"}
    else:
        told |= {"key": str(certificate)}
    return json.loads(await spoken(NODE or "", str(HERE / "node" / "apn_client.mjs"), json.dumps(told)))


async def by_kalyke(address: str, folder: Path, *pushes: tuple[str, str], certificate: Path | None = None) -> Any:
    """What kalyke-apns made of it."""
    told: dict[str, Any] = {"address": address, "app": APP, "pushes": pushes}
    if certificate is None:
        told |= {"key": str(folder / "AuthKey_KEY0000001.p8"), "team": "TEAM000001", "key_id": "KEY0000001"}
    else:
        told |= {"key": str(certificate)}
    environment = {**os.environ, "SSL_CERT_FILE": str(folder / "ca.pem")}
    argv = [sys.executable, "-W", "ignore", str(HERE / "kalyke_client.py"), json.dumps(told)]
    return json.loads(await spoken(*argv, env=environment))


@pytest.fixture
def told(tmp_path: Path) -> tuple[str, ...]:
    """Options of the command: a token that is gone, and a phone."""
    (tmp_path / "tokens.json").write_text(
        json.dumps([{"token": GONE, "state": "unregistered", "timestamp": 1700000000000}])
    )
    phone = {"id": "phone", "app": APP, "alert_token": ALERT, "voip_token": VOIP, "filtering": True, "grace": 600}
    (tmp_path / "devices.json").write_text(json.dumps([phone]))
    return ("--tokens", str(tmp_path / "tokens.json"), "--devices", str(tmp_path / "devices.json"))


@with_node_apn
async def test_node_apn(tmp_path: Path, told: tuple[str, ...]) -> None:
    async with running(tmp_path, *told) as (address, control), aiohttp.ClientSession() as session:
        await session.post(f"{control}/faults", json={"kind": "status", "status": 503, "token": "a" * 64})
        outcomes = await by_node_apn(
            *(address, tmp_path),
            {"token": ALERT, "type": "alert", "collapse": "w"},  # 503 at first: it tries again by itself
            {"token": ALERT, "type": "alert", "collapse": "w"},
            {"token": VOIP, "type": "voip", "payload": CALL},
            {"token": ALERT, "type": "background"},
            {"token": GONE, "type": "alert"},
            {"token": "b" * 64, "type": "alert"},
            {"token": ALERT, "type": "voip", "payload": CALL},
        )
        assert [one["sent"] for one in outcomes] == [1, 1, 1, 1, 0, 0, 0]
        assert [(one.get("status"), one.get("reason")) for one in outcomes[4:]] == [
            *((410, "Unregistered"), (400, "BadDeviceToken"), (400, "DeviceTokenNotForTopic"))
        ]
        assert outcomes[4]["timestamp"] == 1700000000000
        async with session.get(f"{control}/devices/phone") as answer:
            phone = await answer.json()
        assert (len(phone["shown"]), phone["shown"][0]["collapse_id"], phone["calls"]) == (1, "w", {"call-1": 1})
        assert (phone["counts"]["accepted"], phone["counts"]["delivered"], phone["waiting"]) == (4, 4, ["call-1"])
        async with session.get(f"{control}/stats") as answer:
            stats = await answer.json()
        assert (stats["connections_opened"], stats["provider_tokens"], stats["requests"]) == (1, 1, 8)


@with_node_apn
async def test_node_apn_with_a_certificate(tmp_path: Path, told: tuple[str, ...]) -> None:
    async with running(tmp_path, *told) as (address, control), aiohttp.ClientSession() as session:
        pushes: list[Any] = [{"token": ALERT, "type": "alert"}, {"token": VOIP, "type": "voip", "payload": CALL}]
        good = await by_node_apn(address, tmp_path, *pushes, certificate=tmp_path / f"certificate-{APP}.pem")
        assert [one["sent"] for one in good] == [1, 1]
        async with session.post(f"{control}/certificates", json={"app": APP, "environments": ["sandbox"]}) as answer:
            (tmp_path / "sandbox.pem").write_text((await answer.json())["pem"])
        (bad,) = await by_node_apn(address, tmp_path, pushes[0], certificate=tmp_path / "sandbox.pem")
        assert (bad["status"], bad["reason"]) == (403, "BadCertificateEnvironment")


async def test_kalyke_apns(tmp_path: Path, told: tuple[str, ...]) -> None:
    # It makes a new token for each push.
    async with running(tmp_path, *told, "--token-update-seconds", "0") as (address, control):
        pushes = ((ALERT, "alert"), (VOIP, "voip"), (GONE, "alert"), ("b" * 64, "alert"), (VOIP, "alert"))
        good, call, gone, nobody, crossed = await by_kalyke(address, tmp_path, *pushes)
        assert len(good["id"]) == len(call["id"]) == 36
        assert (gone["refused"], gone["timestamp"]) == ("Unregistered", 1700000000000)
        assert (nobody["refused"], crossed["refused"]) == ("BadDeviceToken", "DeviceTokenNotForTopic")
        async with aiohttp.ClientSession() as session, session.get(f"{control}/devices/phone") as answer:
            phone = await answer.json()
    assert (phone["shown"][0]["apns_id"], phone["shown"][0]["alert"]["title"]) == (good["id"], "hello")
    assert phone["calls"] == {"call-1": 1}


async def test_kalyke_apns_with_a_certificate_and_too_many_tokens(tmp_path: Path, told: tuple[str, ...]) -> None:
    async with running(tmp_path, *told) as (address, _):
        certificate = tmp_path / f"certificate-{APP}.pem"
        (call,) = await by_kalyke(address, tmp_path, (VOIP, "voip"), certificate=certificate)
        first, second = await by_kalyke(address, tmp_path, (ALERT, "alert"), (ALERT, "alert"))
    assert len(call["id"]) == len(first["id"]) == 36
    assert second["refused"] == "TooManyProviderTokenUpdates"
