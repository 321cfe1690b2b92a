"""An operator beside a running service: a test push that the phone fetches, and why it rang and was left alone."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.system.box import Box, eventually


async def said(box: Box, *arguments: str) -> Any:
    argv = [sys.executable, "-m", "sync", *arguments, "--json", "--config", str(box.data / "convsync.toml")]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.one_server
async def test_a_test_push_is_fetched_and_calls_are_explained(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    bob.call("propose", ann.account, "seen")  # ann looks at it: no push

    async def quiet() -> bool:
        return [job["outcome"] for job in await box.jobs(ann.account)] == ["suppressed:attentive"]

    await eventually(quiet)
    await ann.close()
    test = asyncio.ensure_future(said(box, "push-test", ann.account, "--wait", "60"))
    (push,) = await box.pushed(phone.token, kind="test")
    await box.fetched(ann)
    (report,) = await test
    assert (report["accepted"], report["status"], report["job"]) == (True, 200, push["payload"]["x"]["n"])
    assert 0 < report["fetched_seconds"] < 60
    bob.write(ann.account, "hello")
    (wake,) = await box.pushed(phone.token, kind="message")
    assert wake["payload"]["x"]["a"] == push["payload"]["x"]["a"]  # the same tag as in every push of the account
    await box.settled(ann.account)
    (device,) = (await said(box, "explain", ann.account))["devices"]
    told = {(one["kind"], one["outcome"]) for one in device["pushes"]}
    assert {("call", "suppressed:attentive"), ("test", "accepted"), ("message", "accepted")} <= told
    assert device["pushes"][0]["lane"] == "calls"
    assert "hello" not in json.dumps(device)
    assert phone.token not in json.dumps(device)
