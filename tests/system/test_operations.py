"""What operators meet: a stop under traffic, a part that is missing, a second process, a wrong secret, logs.

Further components are started beside the sandbox's own, from its configuration with something changed, and take over
when the sandbox's is killed (`standby`). How fast is measured by `python -m bench takeover`, not here.
"""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.box import Box, eventually
from tests.system.company import Company
from tests.system.standby import READY, SECONDS, WAITS, promote, standby


async def test_a_second_component_waits_and_takes_over(box: Box, tmp_path: Path) -> None:
    async with standby(box, tmp_path) as other:
        await other.until(WAITS)
        await promote(box, other)
        await other.until(READY)
        ann, bob = await box.friends("phone", "desk")
        bob.write(ann.account, "to the second")
        await bob.ping()
        assert [item.body for item in (await ann.sync()).items] == ["to the second"]
    assert other.process.returncode == 0


async def test_a_graceful_stop_under_traffic_loses_nothing(box: Box, tmp_path: Path) -> None:
    async with standby(box, tmp_path) as other:
        await promote(box, other)
        await other.until(READY)
        company = Company(box, "graceful")
        await company.gather()

        async def stop() -> None:
            other.process.terminate()
            assert await asyncio.wait_for(other.process.wait(), SECONDS) == 0, other.said()
            await box.whole(SECONDS)

        await company.talk(stop)
        await company.check()
    assert "was not released" not in other.said()


async def test_a_component_that_hangs_past_its_lease_comes_back_as_the_second(box: Box, tmp_path: Path) -> None:
    async with standby(box, tmp_path) as other:
        company = Company(box, "two at once")
        await company.gather()

        async def hang() -> None:
            try:
                await promote(box, other, signal.SIGSTOP)
                await other.until(READY)
            finally:
                box.signal("component", signal.SIGCONT)

            async def steps_back() -> bool:
                _, said = await box.conditions()
                return WAITS in json.dumps(said)

            await eventually(steps_back, SECONDS)
            other.process.terminate()
            assert await asyncio.wait_for(other.process.wait(), SECONDS) == 0, other.said()
            await box.whole(SECONDS)

        await company.talk(hang)
        await company.check()


@pytest.mark.one_server
async def test_without_postgres_there_is_one_clear_sentence(box: Box, tmp_path: Path) -> None:
    async with standby(box, tmp_path, (r"(127\.0\.0\.1:)\d+(/postgres)", rf"\g<1>{free_port()}\2")) as other:
        assert await asyncio.wait_for(other.process.wait(), 20) == 1
    assert "[postgres] dsn: the database does not answer" in other.said()
    assert "Traceback" not in other.said()


@pytest.mark.one_server
async def test_without_redis_everything_goes_on(box: Box, tmp_path: Path) -> None:
    async with standby(
        box, tmp_path, (r'(\[redis\]\nurl = ")[^"]*', rf"\g<1>redis://127.0.0.1:{free_port()}")
    ) as other:
        await promote(box, other)
        await other.until(READY)
        ann, bob = await box.friends("phone", "desk")
        phone = await box.phone(ann)
        await ann.close()
        bob.write(ann.account, "hello")
        bob.call("propose", ann.account, "ring")
        await box.pushed(phone.token)
        await box.pushed(str(phone.voip))
        app = await box.person(ann.account, "phone", presence=False)
        assert (await app.sync()).calls == ["ring"]


async def test_a_wrong_secret_is_named_and_tried_again(box: Box, tmp_path: Path) -> None:
    async with standby(box, tmp_path, (r'(\[component\][^\[]*secret = ")[^"]*', r"\g<1>not the secret")) as other:
        await promote(box, other)
        await other.until("not-authorized")
        before = box.component_connections()

        async def tried_again() -> bool:
            return box.component_connections() > before + 1

        await eventually(tried_again)
        assert (await other.conditions())["status"] == 503
    assert other.said().count("no connection to the server") == 1
    assert "not the secret" not in other.said()


@pytest.mark.one_server
async def test_ready_says_when_postgres_is_away_and_back(box: Box) -> None:
    pid = box.signal("postgres", signal.SIGKILL)

    async def away() -> bool:
        status, said = await box.conditions()
        assert status == 503
        return "the database does not answer" in json.dumps(said)

    await eventually(away, 5)
    await box.wait(lambda ready: ready["pids"]["postgres"] != pid)
    await box.whole()


async def test_no_log_holds_a_secret_or_a_word_that_was_said(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    await ann.close()
    bob.write(ann.account, "the harbour at seven")
    await box.pushed(phone.token)
    await box.fault(kind="status", token=phone.voip, status=403, reason="Forbidden")
    bob.call("propose", ann.account, "secret-call")
    await bob.ping()
    for part in ("component", "postgres", "redis"):
        await box.killed(part)
        bob.write(ann.account, "the harbour at eight")
        await bob.ping()
    known = json.loads((box.data / "sandbox.json").read_text())
    words = {known[key] for key in ("postgres_password", "redis_password", "component_secret", "sealing_key")}
    words |= set(known["accounts"].values()) | {phone.secret, phone.node, "the harbour", "secret-call"}
    words |= {push["token"] for push in box.pushes(status=None)} | phone.tokens | {"PRIVATE KEY"}
    for log in (*(box.data / "logs").iterdir(), box.server_log):
        text = log.read_text(errors="replace")
        assert not [word for word in words if word in text], log.name
