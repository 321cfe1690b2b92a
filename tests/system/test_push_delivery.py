"""What an operator and a user notice when Apple refuses our key, and when it is back."""

from typing import Any

import pytest

from tests.system.box import Box, eventually
from tests.system.phones import home

pytestmark = pytest.mark.one_server


async def notes(box: Box) -> dict[str, Any]:
    _, found = await box.conditions()
    return {name: why for name, why in found.get("notes", {}).items() if name.startswith("push:")}


async def test_a_refused_key_is_said_and_what_waits_goes_out_by_itself(box: Box) -> None:
    ann, bob, phone = await home(box)
    queue = f"apns:{box.ready['apns']['app']}"
    await box.fault(kind="status", status=403, reason="InvalidProviderToken", token=phone.token)
    bob.write(ann.account, "hello")

    async def stopped() -> bool:
        return bool(await notes(box))

    await eventually(stopped)
    assert await notes(box) == {f"push:{queue}": "pushes wait: credentials (InvalidProviderToken)"}
    assert await box.metric("convsync_breaker_open") == 1
    status, _ = await box.conditions()
    assert status == 200  # everything else is served
    bob.call("propose", ann.account, "a call in the meantime")
    (ring,) = await box.pushed(str(phone.voip), seconds=15)  # the first that is tried again
    assert ring["push_type"] == "voip"
    await box.pushed(phone.token)
    assert (await notes(box), await box.metric("convsync_breaker_open")) == ({}, 0)
    jobs = {(job["kind"], job["voip"]): job["attempts"] for job in await box.jobs(ann.account)}
    assert jobs["call", True] == 1  # it waited untouched
    assert len(box.pushes(str(phone.voip), status=None)) == 1
    devices = await box.sql("SELECT voip_token IS NOT NULL AS whole FROM device WHERE account = $1", ann.account)
    assert devices == [{"whole": True}]
