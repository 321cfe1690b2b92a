"""Phones of a host that knows nothing of us, pushed because its server's own module publishes to our component
(XEP-0357): Prosody's mod_cloud_notify, ejabberd's mod_push.
"""

import asyncio
import secrets
from typing import Any

import pytest

from tests.system.box import Box, eventually
from tests.system.person import Person, Phone, form
from tests.system.xmpp_client import StanzaError

OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"


async def stranger(box: Box, resource: str = "phone") -> Person:
    """Somebody of the host abroad."""
    host = await box.abroad()
    return await box.person(f"{box.account().partition('@')[0]}@{host}", resource)


async def with_phone(box: Box) -> tuple[Person, Person, Phone]:
    """Two of the host abroad: one with a phone, registered here and enabled there, and offline; one who writes."""
    ann, bob = await stranger(box), await stranger(box, "desk")
    phone = await box.phone(ann)
    await ann.close()
    return ann, bob, phone


async def test_a_message_to_somebody_offline_is_pushed(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    bob.write(ann.account, "the secret plan")
    (push,) = await box.pushed(phone.token)
    assert push["push_type"] == "alert"
    payload = push["payload"]
    assert (payload["x"]["k"], payload["x"]["v"], payload["aps"]["sound"]) == ("message", 0, "default")
    said = str(push)
    assert not any(word in said for word in ("secret plan", bob.account, ann.account, "New", "body"))
    await box.settled(ann.account)
    (job,) = await box.jobs(ann.account)
    assert (job["kind"], job["version"], job["outcome"], job["peer"]) == ("message", 0, "accepted", "")
    (held,) = await box.sql("SELECT * FROM device WHERE account = $1", ann.account)
    assert held["enabled"]
    for table in ("conversation", "message", "change", "call"):
        assert await box.sql(f"SELECT FROM {table} WHERE account = $1", ann.account) == []
    await box.sound(ann.account)


@pytest.mark.without("ejabberd", "mod_push publishes nothing for what is not stored")
async def test_what_is_not_to_be_read_waits_for_something_that_is(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    bob.message(ann.account, "<composing xmlns='http://jabber.org/protocol/chatstates'/>")

    async def jobs() -> list[dict[str, Any]]:
        return await box.jobs(ann.account)

    (job,) = await eventually(jobs)
    assert job["silent"]
    assert (job["not_before"] - job["created_at"]).total_seconds() == 20
    bob.write(ann.account, "hello")
    (push,) = await box.pushed(phone.token)
    assert push["payload"]["aps"]["sound"] == "default"
    (job,) = await jobs()
    assert job["joined"] == 1


async def test_a_burst_is_two_pushes(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    for n in range(10):
        bob.write(ann.account, f"m{n}")
    await bob.ping()
    await box.pushed(phone.token)

    async def all_came() -> bool:
        jobs = await box.jobs(ann.account)
        return sum(1 + job["joined"] for job in jobs) == 10

    await eventually(all_came)
    assert len(box.pushes(phone.token)) == 1
    assert len(await box.jobs(ann.account)) <= 2


async def test_with_the_wrong_secret_nothing_is_pushed(box: Box) -> None:
    ann, bob = await stranger(box), await stranger(box, "desk")
    phone = await ann.register(component=box.ready["component"], app=box.ready["apns"]["app"])
    await ann.enable(phone, component=box.ready["component"], secret="wrong")
    await ann.close()
    before = await box.metric("convsync_publishes_received_total")
    bob.write(ann.account, "hello")

    async def came() -> bool:
        return await box.metric("convsync_publishes_received_total") > before

    await eventually(came)
    await box.settled(ann.account)
    assert await box.jobs(ann.account) == []


async def test_a_phone_that_has_left_is_not_pushed_and_its_server_is_told(box: Box) -> None:
    ann, bob = await stranger(box), await stranger(box, "desk")
    phone = await box.phone(ann)
    fields = {"provider": box.ready["apns"]["app"], "device-token": phone.token}
    await ann.command("unregister-device", fields, to=box.ready["component"])
    await ann.close()
    before = await box.metric("convsync_publishes_received_total")
    bob.write(ann.account, "hello")

    async def came() -> bool:
        return await box.metric("convsync_publishes_received_total") > before

    await eventually(came)
    assert await box.jobs(ann.account) == []
    if box.server == "ejabberd":  # which drops a registration at the first error that is not `wait`
        await eventually(lambda: dropped(box))


async def dropped(box: Box) -> bool:
    return "disabling push" in box.server_log.read_text(errors="replace")


async def test_a_dead_token_ends_the_registration(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    await box.fault(kind="status", token=phone.token, status=410, reason="Unregistered", timestamp=4_000_000_000_000)
    bob.write(ann.account, "hello")

    async def gone() -> bool:
        return await box.sql("SELECT FROM device WHERE account = $1", ann.account) == []

    await eventually(gone)
    bob.write(ann.account, "again")
    await bob.ping()
    await box.settled(ann.account)
    assert [job["outcome"] for job in await box.jobs(ann.account)] == ["dead-token"]


async def test_a_client_of_fpush_is_pushed_by_its_token(box: Box) -> None:
    """It registers nowhere: it enables the token itself, with the name of its app, as Monal does."""
    ann, bob = await stranger(box), await stranger(box, "desk")
    token, component = "a" + secrets.token_hex(32)[1:], box.ready["component"]
    options = form({"FORM_TYPE": OPTIONS, "pushModule": box.ready["apns"]["app"]})
    await ann.iq("set", f"<enable xmlns='urn:xmpp:push:0' jid='{component}' node='{token}'>{options}</enable>")
    await ann.close()
    bob.write(ann.account, "the secret plan")
    (push,) = await box.pushed(token)
    assert push["payload"]["x"]["k"] == "message"
    (device,) = await box.sql("SELECT * FROM device WHERE account LIKE '%@' || $1", component)
    assert token not in repr(device)
    await box.settled(device["account"])
    await box.sound(device["account"])
    # The app is removed: the token dies, and the node with it.
    await box.fault(kind="status", token=token, status=410, reason="Unregistered", timestamp=4_000_000_000_000)
    await box.sql("UPDATE device SET woken_at = NULL WHERE account = $1", device["account"])
    bob.write(ann.account, "again")

    async def gone() -> bool:
        return await box.sql("SELECT FROM device WHERE account = $1", device["account"]) == []

    await eventually(gone)
    before = await box.metric("convsync_publishes_received_total")
    bob.write(ann.account, "and again")

    async def came() -> bool:
        return await box.metric("convsync_publishes_received_total") > before

    await eventually(came)
    await box.settled(device["account"])
    assert len(box.pushes(token, status=None)) == 2


# ---- strangers -------------------------------------------------------------------------------------------------------


def publish(node: str, secret: str) -> str:
    options = form({"FORM_TYPE": OPTIONS, "secret": secret})
    return (
        f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>"
        "<notification xmlns='urn:xmpp:push:0'/></item></publish>"
        f"<publish-options>{options}</publish-options></pubsub>"
    )


@pytest.mark.one_server
async def test_a_client_publishes_to_nobody_not_even_to_itself(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    mine = await box.person(ann.account, "other")
    here = await box.person()
    for who in (bob, mine, here):
        for node, secret, condition in (
            (phone.node, phone.secret, "forbidden"),
            (phone.node, "guessed", "forbidden"),
            (secrets.token_urlsafe(24), phone.secret, "item-not-found"),
        ):
            with pytest.raises(StanzaError) as caught:
                await who.iq("set", publish(node, secret), to=box.ready["component"])
            assert caught.value.condition == condition
    assert await box.jobs(ann.account) == []


@pytest.mark.one_server
async def test_a_thousand_guesses_find_nothing_and_hurt_nobody(box: Box) -> None:
    ann, bob, phone = await with_phone(box)
    few = asyncio.Semaphore(100)  # at a time: of far more some would be told to wait, unread

    async def guess() -> str:
        async with few:
            with pytest.raises(StanzaError) as caught:
                await bob.iq("set", publish(secrets.token_urlsafe(24), "x"), to=box.ready["component"])
            return caught.value.condition

    assert set(await asyncio.gather(*(guess() for _ in range(1000)))) == {"item-not-found"}
    bob.write(ann.account, "hello")
    await box.pushed(phone.token)
