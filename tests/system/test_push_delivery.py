"""What an operator and a user notice when Apple refuses our key, and when it is back."""

import asyncio
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
        """All of it at one moment: five seconds later it is tried again."""
        (status, _), said, is_open = await asyncio.gather(
            box.conditions(), notes(box), box.metric("convsync_breaker_open")
        )
        assert said == {f"push:{queue}": "pushes wait: credentials (InvalidProviderToken)"}
        assert is_open == 1
        return status == 200  # everything else is served

    await eventually(stopped)
    bob.call("propose", ann.account, "a call in the meantime")
    (ring,) = await box.pushed(str(phone.voip))  # the first that is tried again
    assert ring["push_type"] == "voip"
    await box.pushed(phone.token)

    async def goes_on() -> bool:
        assert (await notes(box), await box.metric("convsync_breaker_open")) == ({}, 0)
        return True

    await eventually(goes_on)
    jobs = {(job["kind"], job["voip"]): job["attempts"] for job in await box.jobs(ann.account)}
    assert jobs["call", True] == 1  # it waited untouched
    assert len(box.pushes(str(phone.voip), status=None)) == 1
    devices = await box.sql("SELECT voip_token IS NOT NULL AS whole FROM device WHERE account = $1", ann.account)
    assert devices == [{"whole": True}]
