"""What phones are sent, seen by the APNs simulator: registration, wakes, calls, refusals, privacy (PUSH §4, §5).

That nothing is sent is checked in two ways: the ledger says that nothing is due any more, and the simulator's log has
nothing for the token.
"""

import asyncio
import json
import secrets
import signal
import time
from typing import Any

import pytest

from tests.system.asking import refused
from tests.system.box import Box, eventually
from tests.system.phones import back, fetched, home

GATHERED_SECONDS = 1  # what comes within it is announced by one push


def token(first: str = "a") -> str:
    return first + secrets.token_hex(32)[1:]


def kinds(pushes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(push["push_type"], push["payload"]["x"]["k"]) for push in pushes]


async def outcomes(box: Box, account: str, *wanted: tuple[str, str | None]) -> None:
    """Until the ledger holds these (kind, outcome), in the order of their making."""

    async def look() -> bool:
        assert [(job["kind"], job["outcome"]) for job in await box.jobs(account)] == list(wanted)
        return True

    await eventually(look)


# ---- registration ----------------------------------------------------------------------------------------------------


async def test_a_phone_registers_again_and_the_new_token_counts(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    old = await box.phone(ann)
    new = await box.phone(ann)
    assert new.node == old.node
    await ann.close()
    bob.write(ann.account, "hello")
    await box.pushed(new.token)
    assert box.pushes(old.token, status=None) == []


async def test_an_unregistered_phone_is_silent(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    app, component = box.ready["apns"]["app"], box.ready["component"]
    fields = {"provider": app, "device-token": phone.token}
    await ann.command("unregister-device", fields, to=component)
    await refused(ann.command("unregister-device", fields, to=component), "item-not-found")
    await ann.close()
    bob.write(ann.account, "hello")
    await bob.ping()
    await box.settled(ann.account)
    assert await box.jobs(ann.account) == []


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"device-token": "not hex"}, "bad-request"),
        ({"device-token": "ab"}, "bad-request"),
        ({"device-token": "a" * 300}, "bad-request"),
        ({"device-token": ""}, "bad-request"),
        ({"device-second-token": "g" * 64}, "bad-request"),
        ({"provider": "org.example.nobody"}, "item-not-found"),
        ({"colour": "blue"}, "bad-request"),
        ({"device-id": "x" * 100_000}, "bad-request"),
    ],
)
async def test_what_cannot_be_registered(fields: dict[str, str], condition: str, box: Box) -> None:
    ann = await box.person()
    good = {"provider": box.ready["apns"]["app"], "device-token": token()}
    asked = asyncio.ensure_future(ann.command("register-device", good | fields, to=box.ready["component"]))
    await asyncio.sleep(0)
    ann.send(" " * 250_000)
    await refused(asked, condition)


async def test_only_the_owner_with_the_secret_enables(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    component = box.ready["component"]
    phone = await ann.register(component=component, app=box.ready["apns"]["app"])
    await refused(ann.enable(phone, component=component, secret="wrong"), "forbidden")
    await refused(bob.enable(phone, component=component), "item-not-found")
    await ann.close()
    bob.write(ann.account, "not enabled")
    await bob.ping()
    await box.settled(ann.account)
    assert await box.jobs(ann.account) == []


async def test_a_token_belongs_to_who_registered_it_last(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "desk", "phone")
    phone = await box.phone(ann)
    await box.phone(carl, token=phone.token, voip=phone.voip)
    await ann.close()
    await carl.close()
    bob.write(ann.account, "for the former owner")
    bob.call("propose", ann.account, "former")
    await bob.ping()
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens, status=None) == []
    bob.write(carl.account, "for the owner")
    await box.pushed(phone.token)


# ---- wakes -----------------------------------------------------------------------------------------------------------


async def test_a_message_wakes_and_says_nothing(box: Box) -> None:
    ann, bob, phone = await home(box)
    bob.write(ann.account, "meet me at the harbour")
    (push,) = await box.pushed(phone.token)
    assert (push["push_type"], push["priority"], push["topic"]) == ("alert", 10, box.ready["apns"]["app"])
    assert push["payload"]["aps"]["mutable-content"] == 1
    assert push["expiration"] > time.time() + 27 * 86400
    said = json.dumps(push)
    assert not any(word in said for word in ("harbour", "@", ann.account.split("@")[0], bob.account.split("@")[0]))
    assert (await (await back(box, ann)).sync()).stamp >= push["payload"]["x"]["v"]


@pytest.mark.one_server
async def test_a_burst_is_one_push_at_once_and_at_most_one_more(box: Box) -> None:
    ann, bob, phone = await home(box)
    for number in range(20):
        bob.write(ann.account, f"burst {number}")
    await bob.ping()
    await box.pushed(phone.token)
    web = await box.person(ann.account, "web", presence=False)
    await web.fresh()  # all of them are committed
    await box.settled(ann.account)
    assert 1 <= len(box.pushes(phone.token, status=None)) <= 2
    # What waits announces the newest.
    waiting = [job for job in await box.jobs(ann.account) if job["state"] == "queued" and not job["repeat"]]
    (account,) = await box.sql("SELECT version FROM account WHERE jid = $1", ann.account)
    assert all(job["version"] == account["version"] for job in waiting)
    assert len(waiting) <= 1


@pytest.mark.one_server
async def test_a_fetch_makes_the_next_wake_immediate(box: Box) -> None:
    ann, bob, phone = await home(box)
    for number in range(1, 4):
        bob.write(ann.account, f"number {number}")
        await box.pushed(phone.token, many=number)
        app = await back(box, ann)
        await fetched(box, ann)
        await app.close()
    wakes = [job for job in await box.jobs(ann.account) if not job["repeat"]]
    waited = [(job["not_before"] - job["created_at"]).total_seconds() for job in wakes]
    assert len(waited) == 3
    assert max(waited) <= GATHERED_SECONDS  # not the 20 of an unfetched wake


async def test_no_push_for_a_muted_conversation(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    bob.write(ann.account, "before")
    await bob.ping()
    await ann.sync()
    await ann.set(bob.account, mute="0")
    phone = await box.phone(ann)
    await ann.close()
    bob.write(ann.account, "quietly")
    bob.call("propose", ann.account, "muted call")
    await bob.ping()
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens, status=None) == []
    assert (await (await back(box, ann)).sync()).items[0].unread == 2


async def test_no_push_for_a_phone_in_the_hand(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    bob.write(ann.account, "you see this")
    bob.call("propose", ann.account, "and hear this")
    await bob.ping()
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens, status=None) == []


async def test_a_desk_that_is_online_does_not_silence_the_phone(box: Box) -> None:
    ann, bob, phone = await home(box)
    await box.person(ann.account, "desk")
    bob.write(ann.account, "hello")
    bob.call("propose", ann.account, "ring")
    await box.pushed(phone.token)
    await box.pushed(str(phone.voip))


async def test_what_is_read_before_the_claim_is_not_announced(box: Box) -> None:
    ann, bob, phone = await home(box)
    desk = await box.person(ann.account, "desk")
    box.signal("component", signal.SIGSTOP)
    try:
        message = bob.write(ann.account, "read at once")
        await bob.ping()
        desk.displayed(bob.account, message)
        await desk.ping()
    finally:
        box.signal("component", signal.SIGCONT)
    await outcomes(box, ann.account, ("message", "suppressed:read"))
    assert box.pushes(*phone.tokens, status=None) == []


@pytest.mark.parametrize(
    ("what", "kind"),
    [("correct", "corrected"), ("retract", "withdraw"), ("read", "read")],
    ids=["edit", "take", "read"],
)
async def test_what_was_announced_is_corrected_withdrawn_or_read(what: str, kind: str, box: Box) -> None:
    ann, bob, phone = await home(box)
    message = bob.write(ann.account, "announced")
    await box.pushed(phone.token)
    await box.settled(ann.account)
    await (await back(box, ann)).close()
    await fetched(box, ann)
    if what == "read":
        desk = await box.person(ann.account, "desk")
        desk.displayed(bob.account, message)
    elif what == "correct":
        bob.correct(ann.account, message, "better")
    else:
        bob.retract(ann.account, message)
    pushes = await box.pushed(phone.token, many=2)
    assert kinds(pushes) == [("alert", "message"), ("alert", kind)]
    await box.settled(ann.account)
    if what == "retract":
        bob.retract(ann.account, message)
        await bob.ping()
        await box.settled(ann.account)
    assert len(box.pushes(phone.token, status=None)) == 2


async def test_what_was_never_announced_is_not_corrected_or_withdrawn(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    one, two = (bob.write(ann.account, text) for text in ("seen", "seen too"))
    await bob.ping()
    await ann.sync()
    await ann.close()
    bob.correct(ann.account, one, "changed")
    bob.retract(ann.account, two)
    await bob.ping()
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens, status=None) == []


# ---- calls -----------------------------------------------------------------------------------------------------------


async def test_a_call_rings_once_and_its_end_is_told(box: Box) -> None:
    ann, bob, phone = await home(box)
    bob.call("propose", ann.account, "call-1")
    bob.call("propose", ann.account, "call-1")
    (push,) = await box.pushed(str(phone.voip))
    assert (push["push_type"], push["expiration"], push["priority"]) == ("voip", 0, 10)
    assert push["topic"].endswith(".voip")
    assert set(push["payload"]) == {"x"}
    assert not any(word in json.dumps(push) for word in ("@", "call-1"))
    bob.call("retract", ann.account, "call-1")
    (missed,) = await box.pushed(phone.token, kind="missed")
    assert missed["payload"]["x"]["c"] == push["payload"]["x"]["c"]
    await box.settled(ann.account)
    assert len(box.pushes(str(phone.voip), status=None)) == 1


async def test_a_call_that_is_over_before_the_claim_does_not_ring(box: Box) -> None:
    ann, bob, phone = await home(box)
    box.signal("component", signal.SIGSTOP)
    try:
        bob.call("propose", ann.account, "short")
        bob.call("retract", ann.account, "short")
        await bob.ping()
    finally:
        box.signal("component", signal.SIGCONT)

    async def over() -> bool:
        calls = await box.sql("SELECT state FROM call WHERE account = $1", ann.account)
        return [call["state"] for call in calls] == ["missed"]

    await eventually(over)
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens, status=None) == []


async def test_the_other_phone_learns_that_the_call_was_answered(box: Box) -> None:
    ann, bob = await box.friends("one", "desk")
    one = await box.phone(ann)
    other = await box.person(ann.account, "two")
    two = await box.phone(other)
    await ann.close()
    await other.close()
    bob.call("propose", ann.account, "pick-up")
    await box.pushed(str(one.voip))
    await box.pushed(str(two.voip))
    app = await back(box, ann, "one")
    app.call("proceed", bob.jid, "pick-up")
    (end,) = await box.pushed(two.token, kind="callend")
    assert end["expiration"] <= time.time() + 61
    await box.settled(ann.account)
    assert "callend" not in [push["payload"]["x"]["k"] for push in box.pushes(one.token, status=None)]
    assert len(box.pushes(str(one.voip), str(two.voip), status=None)) == 2


async def test_a_phone_that_has_fetched_the_call_needs_no_alert_for_it(box: Box) -> None:
    ann, bob, phone = await home(box)
    app = await back(box, ann)  # there already, since a phone that is slow is sent an alert
    bob.call("propose", ann.account, "seen")
    await box.pushed(str(phone.voip))
    assert (await app.sync()).calls == ["seen"]
    await outcomes(box, ann.account, ("call", "accepted"), ("call-fallback", "suppressed:fetched"))
    assert box.pushes(phone.token, status=None) == []


async def test_a_strangers_call_does_not_ring(box: Box) -> None:
    ann, eve = await box.person(resource="phone"), await box.person()
    phone = await box.phone(ann)
    await ann.close()
    eve.call("propose", ann.account, "who is it")
    await eve.ping()
    await box.settled(ann.account)
    assert box.pushes(str(phone.voip), status=None) == []
    assert all("sound" not in push["payload"]["aps"] for push in box.pushes(phone.token))


async def test_a_phone_without_a_voip_token_gets_an_alert(box: Box) -> None:
    ann, bob, phone = await home(box, voip=None)
    bob.call("propose", ann.account, "alert me")
    (push,) = await box.pushed(phone.token, kind="call")
    assert push["push_type"] == "alert"
    assert push["collapse_id"].startswith("c:")
