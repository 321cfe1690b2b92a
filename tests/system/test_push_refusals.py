"""What becomes of a push and of its device when Apple refuses, is down, or says nothing."""

import time

import pytest

from tests.system.box import Box, eventually
from tests.system.phones import back, fetched, home


async def devices(box: Box, account: str) -> int:
    return len(await box.sql("SELECT 1 FROM device WHERE account = $1", account))


@pytest.mark.one_server
@pytest.mark.parametrize(("age_seconds", "left"), [(-60, 0), (3600, 1)], ids=["newer", "older"])
async def test_410_counts_only_if_it_is_newer_than_the_registration(age_seconds: int, left: int, box: Box) -> None:
    ann, bob, phone = await home(box)
    at = int((time.time() - age_seconds) * 1000)
    await box.fault(kind="status", token=phone.token, status=410, reason="Unregistered", timestamp=at)
    bob.write(ann.account, "anyone there?")

    async def decided() -> bool:
        assert await devices(box, ann.account) == left
        return bool(box.pushes(phone.token, status=410))

    await eventually(decided)
    await box.settled(ann.account)
    assert await devices(box, ann.account) == left


@pytest.mark.one_server
async def test_a_bad_token_is_removed(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.fault(kind="status", token=phone.token, status=400, reason="BadDeviceToken")
    bob.write(ann.account, "hello")

    async def gone() -> bool:
        return await devices(box, ann.account) == 0

    await eventually(gone)


@pytest.mark.one_server
async def test_503_is_tried_again(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.fault(kind="status", token=phone.token, status=503, reason="ServiceUnavailable")
    bob.write(ann.account, "hello")
    await box.pushed(phone.token)
    assert [push["status"] for push in box.pushes(phone.token, status=None)] == [503, 200]


@pytest.mark.one_server
async def test_503_for_a_call_may_go_again_since_it_was_not_taken(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.fault(kind="status", token=phone.voip, status=503, reason="ServiceUnavailable")
    bob.call("propose", ann.account, "busy")
    await box.pushed(str(phone.voip))
    assert [push["status"] for push in box.pushes(str(phone.voip), status=None)] == [503, 200]


@pytest.mark.one_server
async def test_an_uncertain_call_is_not_rung_again_but_shown(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.fault(kind="close", token=phone.voip)
    bob.call("propose", ann.account, "uncertain")
    (push,) = await box.pushed(phone.token, kind="call")
    assert push["push_type"] == "alert"
    assert box.pushes(str(phone.voip)) == []
    (job,) = [job for job in await box.jobs(ann.account) if job["voip"]]
    assert (job["outcome"], job["attempts"]) == ("uncertain", 1)


@pytest.mark.one_server
async def test_a_component_that_dies_while_it_rings_does_not_ring_again(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.fault(kind="silent", token=phone.voip)
    bob.call("propose", ann.account, "killed")

    async def attempted() -> bool:
        return [job["state"] for job in await box.jobs(ann.account) if job["voip"]] == ["attempted"]

    await eventually(attempted)
    await box.killed("component")
    (push,) = await box.pushed(phone.token, kind="call", seconds=45)
    assert push["push_type"] == "alert"
    assert box.pushes(str(phone.voip)) == []


@pytest.mark.one_server
async def test_one_provider_token_over_a_restart(box: Box) -> None:
    ann, bob, phone = await home(box)
    bob.write(ann.account, "before")
    await box.pushed(phone.token)
    known, seen = await box.sql("SELECT * FROM provider_token"), (await box.apns())["provider_tokens"]
    await box.killed("component")
    await (await back(box, ann)).close()
    await fetched(box, ann)
    bob.write(ann.account, "after")
    await box.pushed(phone.token, many=2)
    assert (await box.apns())["provider_tokens"] == seen
    assert await box.sql("SELECT * FROM provider_token") == known
    assert len(known) == 1
