"""Devices of an account, on real servers: one is lost, the other logs it out, and it is pushed no more; then the other
leaves without a login. What a list says comes from the ledger.
"""

import base64
import json
import xml.etree.ElementTree as ET
from typing import Any

import aiohttp
import pytest

from sync.protocol.names import COMMANDS, DATA
from tests.system.asking import refused
from tests.system.box import Box, eventually
from tests.system.person import Person, Phone, form
from tests.system.test_pushes import token

FIELD, VALUE, ITEM = f"{{{DATA}}}field", f"{{{DATA}}}value", f"{{{DATA}}}item"


async def ask(person: Person, component: str, node: str, fields: dict[str, Any] | None = None) -> ET.Element:
    inner = "" if fields is None else form(fields)
    return await person.iq("set", f"<command xmlns='{COMMANDS}' node='{node}'>{inner}</command>", to=component)


async def listed(person: Person, component: str) -> list[dict[str, str]]:
    answer = await ask(person, component, "list-push-registrations")
    return [
        {field.get("var", ""): field.findtext(VALUE, "") for field in item.iter(FIELD)} for item in answer.iter(ITEM)
    ]


async def older(person: Person, component: str, hexadecimal: str, **fields: str) -> Phone:
    """`register-push-apns`, as mod_push's clients call it."""
    text = base64.b64encode(bytes.fromhex(hexadecimal)).decode()
    given = {"token": text} | {name.replace("_", "-"): value for name, value in fields.items()}
    got = await person.command("register-push-apns", given, to=component)
    assert got["jid"] == component
    return Phone(hexadecimal, None, got["node"], got["secret"])


async def test_a_lost_phone_is_logged_out_from_another_device(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    tablet = await box.person(ann.account, "tablet")
    component: str = box.ready["component"]
    lost = await box.phone(ann, voip=None, device_name="Lost phone")
    kept = await older(tablet, component, token(), device_id="tablet", device_name="Tablet")
    await tablet.enable(kept, component=component)
    for session in (ann, tablet):
        await session.close()

    bob.write(ann.account, "one")
    await box.pushed(lost.token)
    await box.pushed(kept.token)
    await box.settled(ann.account)

    tablet = await box.person(ann.account, "tablet")
    await tablet.sync()
    found = {one["device-name"]: one for one in await listed(tablet, component)}
    assert {name: (one["node"], one["state"]) for name, one in found.items()} == {
        "Lost phone": (lost.node, "enabled"),
        "Tablet": (kept.node, "enabled"),
    }
    assert all(one["last-success"] and "last-error" not in one for one in found.values())
    text = json.dumps(list(found.values()))
    assert not any(secret in text for phone in (lost, kept) for secret in (phone.token, phone.secret))

    # A generic client is shown what there is to log out; another account sees nothing of it, and removes nothing.
    choice = await ask(tablet, component, "unregister-push")
    assert {option.findtext(VALUE) for option in choice.iter(f"{{{DATA}}}option")} == {lost.node, kept.node}
    assert await listed(bob, component) == []
    await refused(ask(bob, component, "unregister-push", {"nodes": [lost.node, kept.node]}), "item-not-found")

    gone = await ask(tablet, component, "unregister-push", {"nodes": [lost.node, "nobody's"]})
    assert [value.text for value in gone.iter(VALUE)] == [lost.node]
    assert [one["device-name"] for one in await listed(tablet, component)] == ["Tablet"]
    await tablet.close()

    before = len(box.pushes(lost.token, status=None))
    bob.write(ann.account, "two")
    await box.pushed(kept.token, many=2)
    await box.settled(ann.account)
    assert len(box.pushes(lost.token, status=None)) == before
    assert {job["device_id"] for job in await box.jobs(ann.account) if job["state"] == "queued"} <= {"tablet"}

    # Without a login: a wrong secret changes nothing, the right one does.
    base, proof = box.ready["http"]["base"], {"node": kept.node, "secret": kept.secret}
    async with aiohttp.ClientSession() as http:
        for body, status in ((proof | {"secret": lost.secret}, 403), (proof, 200), (proof, 403)):
            async with http.post(f"{base}/v1/unregister", json=body) as answer:
                assert answer.status == status
    before = len(box.pushes(kept.token, status=None))
    bob.write(ann.account, "three")
    await bob.ping()

    async def arrived() -> bool:
        row = await box.conversation(ann.account, bob.account)
        return row is not None and row["unread"] == 3

    await eventually(arrived)
    await box.settled(ann.account)
    assert len(box.pushes(kept.token, status=None)) == before
    await box.sound(ann.account, bob.account)
    assert await box.metric("convsync_tokens_removed_total") >= 2


async def test_what_a_device_wishes_reaches_the_registry_through_the_server(box: Box) -> None:
    """Siskin's enable, with the account's key unreadable at rest; the next enable says all of it anew."""
    ann = await box.person(resource="phone")
    component: str = box.ready["component"]
    phone = await box.phone(ann)
    key = base64.b64encode(b"0123456789abcdef").decode()
    wishes = (
        "<muted xmlns='tigase:push:filter:muted:0'><item jid='eve@example.org'/></muted>"
        "<groupchat xmlns='tigase:push:filter:groupchat:0'>"
        "<room jid='tea@rooms.example.org' allow='mentioned' nick='Ann'/></groupchat>"
        "<priority xmlns='tigase:push:priority:0'/><jingle xmlns='tigase:push:jingle:0'/>"
        f"<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3000'>{key}</encrypt>"
    )
    start = f"<enable xmlns='urn:xmpp:push:0' jid='{component}' node='{phone.node}'"
    await ann.iq("set", f"{start} away='true'>{wishes}</enable>")
    (row,) = await box.sql(
        "SELECT wishes, push_key, row(device.*)::text AS text FROM device WHERE node = $1", phone.node
    )
    assert json.loads(row["wishes"]) == {
        "away": True,
        "priority": True,
        "jingle": True,
        "max_bytes": 3000,
        "muted": ["eve@example.org"],
        "rooms": [["tea@rooms.example.org", "mentioned", "Ann"]],
    }
    assert row["push_key"]
    assert key.encode() not in row["push_key"]
    assert key not in row["text"]
    for wrong in (wishes.replace(key, key[:-4]), wishes.replace("aes-128-gcm", "rot13")):
        await refused(ann.iq("set", f"{start}>{wrong}</enable>"), "bad-request")
    await ann.iq("set", f"{start}/>")
    (row,) = await box.sql("SELECT wishes, push_key FROM device WHERE node = $1", phone.node)
    assert (row["wishes"], row["push_key"]) == ("{}", None)


@pytest.mark.one_server
async def test_a_sixth_device_crowds_the_oldest_out(box: Box) -> None:
    ann = await box.person(resource="phone")
    component: str = box.ready["component"]
    for number in range(6):
        await older(ann, component, token(), device_id=f"d{number}")
    assert [one["device-id"] for one in await listed(ann, component)] == ["d5", "d4", "d3", "d2", "d1"]
    await refused(ask(ann, component, "register-push-fcm", {"token": "t"}), "item-not-found")
