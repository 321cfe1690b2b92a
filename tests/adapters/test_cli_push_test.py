"""`convsync push-test` against a running simulator: what arrives there, what is told, and what is in the ledger."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from click.testing import Result

from sync.adapters.sealing import Sealer
from sync.config import load
from sync.model.books import Keys
from sync.model.device import Device, SealedToken
from sync.model.push import Environment
from sync.rules.devices import fetched
from sync.sandbox.apns.registry import TokenRecord, TokenState
from tests.adapters.account_rows import installed
from tests.adapters.test_cli import configuration
from tests.adapters.test_cli_accounts import run
from tests.contract.apns_server import APP, KEY, TEAM, Apns, apns
from tests.contract.samples import ANN, account, device, owned, storing
from tests.contract.stores import Bench, on_postgres
from tests.system.box import eventually

ALERT, VOIP, TABLET = "a" * 64, "f" * 64, "a" * 63 + "1"
APPS = """
[[apns.apps]]
name = "{name}"
bundle_id = "{app}"
environment = "{environment}"
filtering = true
server = "localhost:{port}"
ca_file = "{ca}"
"""


@dataclass
class World:
    """Ann's phone and tablet, the simulators of both environments, and the ledger."""

    path: Path
    live: Apns
    sandbox: Apns
    bench: Bench
    admin: asyncpg.Connection

    async def test(self, *arguments: str, wait: str = "0") -> Result:
        return await run("push-test", ANN, *arguments, "--wait", wait, "--config", self.path)

    async def told(self, *arguments: str) -> list[Any]:
        result = await self.test(*arguments, "--json")
        found: list[Any] = json.loads(result.stdout)
        assert result.exit_code == (0 if all(one["accepted"] for one in found) else 1)
        assert ALERT not in result.output
        return found

    async def ledger(self) -> list[Any]:
        return [dict(row) for row in await self.admin.fetch("SELECT * FROM push_job ORDER BY created_at")]


@pytest_asyncio.fixture(loop_scope="session")
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    await installed(database)
    async with AsyncExitStack() as stack:
        live, sandbox = [await stack.enter_async_context(apns()) for _ in range(2)]
        # One team has one key: the other simulator is told the same one.
        sandbox.simulator.provider._public_key = live.simulator.provider._public_key
        key = tmp_path / "AuthKey.p8"
        key.write_text(live.key.pem)
        key.chmod(0o600)
        more = f'[apns]\nteam_id = "{TEAM}"\nkey_id = "{KEY}"\nkey_file = "{key}"\n'
        for name, one in (("production", live), ("sandbox", sandbox)):
            ca = tmp_path / f"{name}.pem"
            ca.write_bytes(one.ca_file.read_bytes())
            ca.chmod(0o600)
            more += APPS.format(name=f"chat-{name}", app=APP, environment=name, port=one.port, ca=ca)
        path = configuration(tmp_path, dsn=database, more=more)
        sealer = Sealer(load(path).secrets.ring)
        bench = await stack.enter_async_context(on_postgres(database))
        phones = [phone(sealer, "phone", ALERT, VOIP, bound_to="phone"), phone(sealer, "tablet", TABLET, enabled=False)]
        await bench.store.transact(owned(), storing(accounts=[account(devices=2)], devices=phones, retokened=phones))
        admin = await asyncpg.connect(database)
        stack.push_async_callback(admin.close)
        yield World(path, live, sandbox, bench, admin)


def phone(sealer: Sealer, name: str, alert: str, voip: str | None = None, **fields: Any) -> Device:
    alert_token, voip_token = (
        SealedToken(sealer.digest(text), sealer.seal(text)) if text else None for text in (alert, voip)
    )
    usual = {"app": "chat-production", "environment": Environment.PRODUCTION, "alert_token": alert_token}
    return device(name, **(usual | {"voip_token": voip_token} | fields))


async def test_an_alert_arrives_and_the_fetch_is_seen(world: World) -> None:
    asked = asyncio.ensure_future(world.test("--device", "phone", wait="20"))

    async def arrived() -> bool:
        return bool(world.live.accepted())

    await eventually(arrived)
    world.bench.clock.instant = datetime.now(UTC)
    keys = Keys(accounts=frozenset({ANN}), devices=True)
    await world.bench.store.transact(keys, partial(fetched, ANN, "phone", 1000))
    result = await asked
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  accepted: 200, after " in result.stdout
    assert "  fetched: the device asked " in result.stdout
    (push,) = world.live.log()
    (row,) = await world.ledger()
    assert (push["push_type"], push["payload"]["x"]["k"], push["payload"]["x"]["n"]) == (
        "alert",
        "test",
        push["apns_id"],
    )
    assert push["collapse_id"] == f"test:{push['payload']['x']['a']}"
    assert (str(row["job_id"]), row["kind"], row["state"], row["outcome"], row["status"]) == (
        push["apns_id"],
        "test",
        "done",
        "accepted",
        200,
    )
    told = (await run("explain", ANN, "--config", world.path)).stdout
    assert "an alert as a test, by an operator" in told
    assert "accepted by APNs (200); the device has asked since" in told


async def test_every_device_is_told_of(world: World) -> None:
    result = await world.test()
    assert result.stdout.count("  accepted: 200") == 2
    assert "not fetched within 0 s" in result.stdout
    assert "The device is not enabled (XEP-0357)" in result.stdout
    assert "fetched: cannot be told, the device is bound to no session" in result.stdout


async def test_a_voip_test_is_a_call_that_soon_is_over(world: World) -> None:
    (told,) = await world.told("--device", "phone", "--kind", "voip", "--ring-the-phone")
    (push,) = world.live.log()
    assert (told["accepted"], told["kind"], told["fetched_seconds"]) == (True, "voip", None)
    assert (push["push_type"], push["topic"], push["token"], push["expiration"]) == ("voip", f"{APP}.voip", VOIP, 0)
    assert {"k": "call", "m": "audio", "n": push["apns_id"]}.items() <= push["payload"]["x"].items()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--kind", "voip", "--device", "phone"], 2, "A VoIP push rings the phone: say --ring-the-phone as well.\n"),
        (["--ring-the-phone"], 2, "--ring-the-phone goes with --kind voip: an alert does not ring.\n"),
        (["--kind", "voip", "--ring-the-phone"], 2, f"{ANN} has several devices: say --device, which one is to ring: "),
        (["--kind", "voip", "--ring-the-phone", "--device", "tablet"], 1, "tablet has registered no VoIP token: "),
        (["--device", "wat\x1bch"], 1, f"{ANN} has no device wat�ch; there are: "),
    ],
)
async def test_nothing_is_sent_by_mistake(world: World, arguments: list[str], status: int, sentence: str) -> None:
    result = await world.test(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(sentence)
    assert world.live.log() == []
    assert await world.ledger() == []


async def test_whoever_has_no_device(world: World) -> None:
    result = await run("push-test", "nobody@example.org", "--config", world.path)
    assert (result.exit_code, result.stderr) == (
        1,
        "nobody@example.org has no device: nobody has registered one (docs/push.md).\n",
    )
    assert await world.admin.fetchval("SELECT count(*) FROM account WHERE jid = 'nobody@example.org'") == 0


async def test_an_environment_mix_up_is_named(world: World) -> None:
    mark(world.live, token=ALERT, state="other-environment")
    (told,) = await world.told("--device", "phone")
    assert (told["status"], told["reason"], told["outcome"]) == (400, "BadDeviceToken", "dead-token")
    assert told["meaning"].startswith("Environment mix-up: this is a token of sandbox, APNs took it there.")
    assert told["meaning"].endswith("it has to register for app chat-sandbox.")
    mark(world.sandbox, token=ALERT, state="other-environment")
    (told,) = await world.told("--device", "phone")
    assert "neither in production nor in sandbox" in told["meaning"]
    # A test removes no token, whatever APNs says.
    assert await world.admin.fetchval("SELECT count(*) FROM device WHERE account = $1", ANN) == 2


def mark(one: Apns, *, token: str, state: str) -> None:
    one.simulator.registry.tell(token, TokenRecord(state=TokenState(state)))


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ({"kind": "status", "status": 410, "reason": "Unregistered", "timestamp": 1}, "dead-token", "was removed"),
        ({"kind": "status", "status": 403, "reason": "InvalidProviderToken"}, "credentials", "does not take our key"),
        (
            {"kind": "status", "status": 403, "reason": "BadEnvironmentKeyIdInToken"},
            "credentials",
            "Environment mix-up",
        ),
        ({"kind": "status", "status": 400, "reason": "DeviceTokenNotForTopic"}, "dead-token", "bundle_id"),
        ({"kind": "status", "status": 429, "reason": "TooManyRequests"}, "throttled", None),
        ({"kind": "empty_body", "status": 500}, "retry", None),
        ({"kind": "not_json", "status": 503}, "retry", None),
        ({"kind": "rst_stream"}, "not-sent", "Nothing left"),
        ({"kind": "close"}, "uncertain", "no answer came"),
    ],
)
async def test_what_went_wrong_is_told(world: World, fault: dict[str, Any], outcome: str, words: str | None) -> None:
    world.live.fault(**fault)
    (told,) = await world.told("--device", "phone")
    assert (told["outcome"], told["accepted"]) == (outcome, False)
    assert (words or "") in (told["meaning"] or "")
    (row,) = await world.ledger()
    assert (row["state"], row["outcome"], row["status"]) == ("done", outcome, told["status"])
    assert await world.admin.fetchval("SELECT count(*) FROM device WHERE account = $1", ANN) == 2
