"""`convsync explain`: what it prints of a real ledger, what it refuses, and that it tells no secret."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from sync.cli_explain import instant
from sync.model.device import JobState
from sync.rules.times import microseconds
from tests.adapters.account_rows import fill, installed
from tests.adapters.test_cli import configuration
from tests.adapters.test_cli_accounts import run
from tests.contract.samples import ANN, BOB, CAT, EVE, NOW, call, call_job, device, job, message, owned, storing, token
from tests.contract.stores import on_postgres

SINCE = ("--since", "2026-01-02T03:04:00")
VERSION = microseconds(NOW)


@pytest_asyncio.fixture(loop_scope="session")
async def path(database: str, tmp_path: Path) -> AsyncIterator[Path]:
    """A component that has pushed Ann a call and a burst of messages, and left her tablet alone."""
    await installed(database)
    async with on_postgres(database) as bench:
        await fill(bench, ANN, 1)
        await fill(bench, EVE, 2)
        rang = call_job(
            f"{ANN} 2",
            state=JobState.DONE,
            attempts=1,
            attempted_at=NOW,
            done_at=NOW + timedelta(milliseconds=31),
            outcome="accepted",
            status=200,
        )
        quiet = call_job(
            "quiet",
            device_id="tab\x1blet",
            voip=False,
            state=JobState.DONE,
            outcome="suppressed:attentive",
            done_at=NOW,
        )
        burst = job("burst", version=VERSION + 2, joined=2, attempts=1, status=503, reason="Shutdown")
        tablet = device("tab\x1blet", node="n2", alert_token=token("tablet"))
        rows = {
            "jobs": [rang, quiet, burst],
            "devices": [tablet],
            "retokened": [tablet],
            "calls": [call("s9", CAT)],
            "messages": [message(VERSION + n) for n in range(4)],
        }
        await bench.store.transact(owned(), storing(**rows))
    yield configuration(tmp_path, dsn=database)


@pytest_asyncio.fixture(loop_scope="session")
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def test_it_is_told_why_calls_first(path: Path) -> None:
    result = await run("explain", ANN, *SINCE, "--config", path)
    assert (result.exit_code, result.stderr) == (0, "")
    phone = result.stdout[result.stdout.index("phone (Phone") :]
    ring = phone.index(f"call of {BOB} [calls]")
    assert ring < phone.index(f"message of {BOB} [messages]")
    for words in (
        "then: a VoIP push",
        "accepted by APNs (200); the device has not asked since (left 2026-01-02 03:04:05, after 31 ms)",
        "an alert; 2 later events joined it (coalesced)",
        "1 attempt failed (503 Shutdown); due: no worker has taken it yet",
        f"call of {CAT}: the ledger has no row",
        f"2 messages of {BOB}: coalesced into the push of 2026-01-02 03:04:05",
        f"1 message of {BOB}: the conversation was muted (as it is now)",
    ):
        assert words in phone, words
    tablet = result.stdout[: result.stdout.index("phone (Phone")] + phone[phone.find("tab") :]
    assert "then: no push: a session of the device was active" in tablet
    assert "\x1b" not in result.stdout
    assert EVE not in result.stdout


async def test_no_secret_is_told(path: Path, admin: asyncpg.Connection) -> None:
    told = [await run("explain", ANN, *SINCE, *more, "--config", path) for more in ([], ["--json"])]
    for row in await admin.fetch("SELECT alert_token, voip_token, alert_digest, secret_digest, node FROM device"):
        for secret in filter(None, row):
            text = secret if isinstance(secret, str) else secret.decode(errors="replace")
            hexed = "" if isinstance(secret, str) else secret.hex()
            assert not any(one in result.stdout for result in told for one in filter(None, (text, hexed)))
    assert not any("the secret of" in result.stdout for result in told)


async def test_machines_are_told_the_same(path: Path) -> None:
    found = json.loads((await run("explain", ANN, *SINCE, "--json", "--config", path)).stdout)
    assert (found["account"], found["pushes"]["total"]) == (ANN, 4)
    phone = next(one for one in found["devices"] if one["device"] == "phone")
    first = phone["pushes"][0]
    assert (first["kind"], first["lane"], first["voip"], first["outcome"], first["status"]) == (
        "call",
        "calls",
        True,
        "accepted",
        200,
    )
    assert first["seconds"] == pytest.approx(0.031)
    (tablet,) = [one for one in found["devices"] if one["device"] != "phone"]
    assert tablet["pushes"][0]["outcome"] == "suppressed:attentive"
    assert any("the ledger has no row" in one["why"][0] for one in tablet["without_push"])


async def test_one_device_and_a_later_time(path: Path) -> None:
    one = await run("explain", ANN, *SINCE, "--device", "tab\x1blet", "--config", path)
    assert "phone (Phone" not in one.stdout
    late = json.loads((await run("explain", ANN, "--since", "2026-02-01", "--json", "--config", path)).stdout)
    assert {push["state"] for device in late["devices"] for push in device["pushes"]} == {"queued"}  # open ones always


async def test_a_device_that_has_left_is_told_of(path: Path, admin: asyncpg.Connection) -> None:
    await admin.execute("DELETE FROM device WHERE account = $1 AND device_id = 'phone'", ANN)
    told = (await run("explain", ANN, *SINCE, "--config", path)).stdout
    assert "phone: not registered any more" in told
    assert "the device has left since" in told


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["nobody@example.org"], 1, "Nothing is held on nobody@example.org.\n"),
        ([ANN, "--device", "watch"], 1, f"{ANN} has no device watch, and nothing was pushed to it.\n"),
        (
            [ANN, "--since", "yester\x1bday"],
            2,
            "--since: 'yester�day' is no age (90s, 30min, 2h, 7d) and no instant.\n",
        ),
        ([f"{ANN}/phone"], 2, f"{ANN}/phone has a resource; an account is a bare JID such as ann@example.org.\n"),
    ],
)
async def test_what_cannot_be_told(path: Path, arguments: list[str], status: int, sentence: str) -> None:
    result = await run("explain", *arguments, "--config", path)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", sentence)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90s", datetime(2026, 1, 2, 3, 2, 35, tzinfo=UTC)),
        ("2h", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("9999999d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:00:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_since_when(text: str, found: datetime) -> None:
    assert instant(text, NOW) == found
