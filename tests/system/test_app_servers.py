"""Push by app servers of other makers (XEP-0357): a client names one, Convsync publishes to it for the user.

The app server here is a session that answers publishes, as it is told; it reads encrypted payloads as Siskin does.
"""

import base64
import json
import secrets
import xml.etree.ElementTree as ET
from contextlib import suppress
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.system.box import Box, eventually
from tests.system.person import DATA, PUBSUB, PUSH, Person, form, name
from tests.system.xmpp_client import StanzaError

OPTIONS = {"FORM_TYPE": "http://jabber.org/protocol/pubsub#publish-options", "secret": "s3", "pushModule": "default"}
ENCRYPT, PRIORITY = "tigase:push:encrypt:0", "tigase:push:priority:0"
KEY = b"0123456789abcdef"
WISHES = (
    f"<encrypt xmlns='{ENCRYPT}' alg='aes-128-gcm' max-size='3000'>{base64.b64encode(KEY).decode()}</encrypt>"
    f"<priority xmlns='{PRIORITY}'/><jingle xmlns='tigase:push:jingle:0'/>"
)


class Publish:
    """One publish that came in."""

    def __init__(self, iq: ET.Element) -> None:
        self.sender = iq.get("from")
        pubsub = iq.find(f"{{{PUBSUB}}}pubsub")
        assert pubsub is not None
        publish = pubsub.find(f"{{{PUBSUB}}}publish")
        assert publish is not None
        self.node = publish.get("node")
        notification = publish.find(f"{{{PUBSUB}}}item/{{{PUSH}}}notification")
        assert notification is not None
        self.summary = fields(notification.find(f"{{{DATA}}}x"))
        self.options = fields(pubsub.find(f"{{{PUBSUB}}}publish-options/{{{DATA}}}x"))
        self.priority = notification.findtext(f"{{{PRIORITY}}}priority")
        self.encrypted = notification.find(f"{{{ENCRYPT}}}encrypted")
        self.text = ET.tostring(iq, encoding="unicode")

    @property
    def letter(self) -> dict[str, Any]:
        """The payload, as the client reads it."""
        assert self.encrypted is not None
        iv, text = base64.b64decode(self.encrypted.attrib["iv"]), base64.b64decode(self.encrypted.text or "")
        found: dict[str, Any] = json.loads(AESGCM(KEY).decrypt(iv, text, None))
        return found


def fields(x: ET.Element | None) -> dict[str, str]:
    found = [] if x is None else x.findall(f"{{{DATA}}}field")
    return {field.get("var", ""): field.findtext(f"{{{DATA}}}value") or "" for field in found}


class AppServer(Person):
    """A session that takes publishes."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.publishes: list[Publish] = []
        self.refusals: list[tuple[str, str]] = []  # type and condition, in the order in which they are used
        self.mute = False

    def on_element(self, element: ET.Element) -> None:
        if name(element) != "iq" or element.find(f"{{{PUBSUB}}}pubsub") is None or element.get("type") != "set":
            super().on_element(element)
            return
        self.publishes.append(Publish(element))
        address = f"to={quoteattr(element.get('from', ''))} id={quoteattr(element.get('id', ''))}"
        if self.mute:
            return
        if not self.refusals:
            self.send(f"<iq type='result' {address}/>")
            return
        kind, condition = self.refusals.pop(0)
        error = f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        self.send(f"<iq type='error' {address}><error type='{kind}'>{error}</error></iq>")

    async def told(self, many: int = 1, node: str | None = None) -> list[Publish]:
        """So many publishes (of a node), once they are there."""

        async def look() -> list[Publish]:
            found = [one for one in self.publishes if node in (None, one.node)]
            assert len(found) >= many, len(found)
            return found

        return await eventually(look)


async def app_server(box: Box) -> AppServer:
    jid = box.account()
    password = next(a["password"] for a in box.ready["accounts"] if a["jid"] == jid)
    found = await AppServer.connect(f"{jid}/push", password, box.ready["c2s"]["port"])
    box.joins(found)
    return found


async def enable(owner: Person, server: str, node: str, inner: str = "", options: dict[str, str] | None = None) -> None:
    given = form(OPTIONS if options is None else options)
    await owner.iq(
        "set", f"<enable xmlns='{PUSH}' jid={quoteattr(server)} node={quoteattr(node)}>{given}{inner}</enable>"
    )


async def away(box: Box, inner: str = "") -> tuple[Person, Person, AppServer, str]:
    """Two friends; the first has push at an app server, and nobody is online there."""
    ann, bob = await box.friends("phone", "desk")
    server, node = await app_server(box), secrets.token_hex(16)
    await enable(ann, server.jid, node, inner)
    await ann.close()
    return ann, bob, server, node


async def rows(box: Box, account: str) -> list[dict[str, Any]]:
    return await box.sql("SELECT * FROM device WHERE account = $1", account)


# ---- what is published -----------------------------------------------------------------------------------------------


async def test_a_message_to_somebody_who_is_away_is_published(box: Box) -> None:
    """XEP-0357 §7, with mod_cloud_notify's defaults: no sender, no text, the client's options given back."""
    ann, bob, server, node = await away(box)
    bob.write(ann.account, "the tea is getting cold")
    (told,) = await server.told()
    assert (told.sender, told.node) == (box.ready["component"], node)
    assert told.summary == {
        "FORM_TYPE": "urn:xmpp:push:summary",
        "message-count": "1",
        "last-message-body": "New Message!",
    }
    assert (told.options, told.priority, told.encrypted) == (OPTIONS, None, None)
    assert "tea" not in told.text
    assert bob.account not in told.text
    await box.settled(ann.account)
    (job,) = await box.jobs(ann.account)
    assert (job["kind"], job["outcome"], job["voip"]) == ("message", "accepted", False)


async def test_nobody_is_told_while_the_client_looks(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    server = await app_server(box)
    await enable(ann, server.jid, "n1")
    bob.write(ann.account, "you see this")
    await ann.fresh()
    await box.settled(ann.account)
    assert server.publishes == []


async def test_what_only_the_client_reads(box: Box) -> None:
    """xeps.tigase.net, "Encrypted Push Notifications" §4.4."""
    ann, bob, server, _ = await away(box, WISHES)
    bob.write(ann.account, "the tea is getting cold")
    (told,) = await server.told()
    assert told.letter == {"unread": 1, "sender": bob.account, "type": "chat", "message": "the tea is getting cold"}
    assert (told.summary, told.priority) == ({}, "high")
    assert told.encrypted is not None
    assert told.encrypted.get("type") is None
    assert "tea" not in told.text
    assert bob.account not in told.text


async def test_a_call_rings_through_an_app_server(box: Box) -> None:
    """mod_cloud_notify_encrypted: type='voip' outside, sid and media inside, the caller's full JID; once."""
    ann, bob, server, _ = await away(box, WISHES)
    bob.call("propose", ann.account, "call-1")
    (told,) = await server.told()
    assert told.encrypted is not None
    assert told.encrypted.get("type") == "voip"
    expected = {"unread": 1, "sender": bob.jid, "type": "call", "sid": "call-1", "media": ["audio"]}
    assert told.letter == expected
    bob.call("retract", ann.account, "call-1")
    missed = (await server.told(2))[1]
    assert (missed.letter["type"], missed.letter["sender"]) == ("chat", bob.account)
    assert missed.encrypted is not None
    assert missed.encrypted.get("type") is None
    await box.settled(ann.account)
    outcomes = [(job["kind"], job["voip"], job["outcome"]) for job in await box.jobs(ann.account)]
    assert outcomes == [("call", True, "accepted"), ("missed", False, "accepted")]
    assert len(server.publishes) == 2


async def test_a_call_is_something_new_to_clients_that_know_no_calls(box: Box) -> None:
    ann, bob, server, _ = await away(box)
    bob.call("propose", ann.account, "call-1")
    (told,) = await server.told()
    assert told.summary["last-message-body"] == "New Message!"
    assert "call-1" not in told.text


# ---- what comes back -------------------------------------------------------------------------------------------------


async def test_a_node_that_is_no_more_is_left_at_once(box: Box) -> None:
    ann, bob, server, _ = await away(box)
    server.refusals = [("cancel", "item-not-found")]
    bob.write(ann.account, "one")
    await server.told()
    await eventually(lambda: none_left(box, ann.account))
    bob.write(ann.account, "two")
    await bob.ping()
    await box.settled(ann.account)
    assert len(server.publishes) == 1
    assert [job["outcome"] for job in await box.jobs(ann.account)] == ["dead-token"]


async def none_left(box: Box, account: str) -> bool:
    assert await rows(box, account) == []
    return True


async def test_wait_is_waited_and_never_counted(box: Box) -> None:
    ann, bob, server, _ = await away(box)
    server.refusals = [("wait", "resource-constraint")]
    bob.write(ann.account, "one")
    await server.told(2)
    await box.settled(ann.account)
    (device,) = await rows(box, ann.account)
    assert (device["failures"], device["failing_since"]) == (0, None)
    assert [job["outcome"] for job in await box.jobs(ann.account)] == ["accepted"]


async def test_refusals_are_counted_until_one_is_taken(box: Box) -> None:
    ann, bob, server, _ = await away(box)
    server.refusals = [("auth", "forbidden")]
    bob.write(ann.account, "one")
    await server.told()
    await box.settled(ann.account)
    (device,) = await rows(box, ann.account)
    assert device["failures"] == 1
    bob.write(ann.account, "two")
    await server.told(2)
    await box.settled(ann.account)
    (device,) = await rows(box, ann.account)
    assert (device["failures"], device["failing_since"]) == (0, None)


async def test_sixteen_refusals_in_three_days_are_enough(box: Box) -> None:
    ann, bob, server, _ = await away(box)
    await box.sql(
        "UPDATE device SET failures = 15, failing_since = now() - interval '73 hours' WHERE account = $1", ann.account
    )
    server.refusals = [("cancel", "not-allowed")]
    bob.write(ann.account, "one")
    await server.told()
    await eventually(lambda: none_left(box, ann.account))


async def test_an_app_server_takes_its_node_back(box: Box) -> None:
    """XEP-0357 §8."""
    ann, _, server, node = await away(box)
    eve = await app_server(box)
    gone = f"<pubsub xmlns='{PUBSUB}' node='{node}'><affiliation jid='{ann.account}' affiliation='none'/></pubsub>"
    eve.message(box.ready["component"], gone, kind="normal")
    await eve.ping()
    assert len(await rows(box, ann.account)) == 1  # a node of somebody else
    server.message(box.ready["component"], gone, kind="normal")
    await eventually(lambda: none_left(box, ann.account))


async def test_an_app_server_that_says_nothing_holds_up_nobody(box: Box) -> None:
    """It is there and does not answer. What is told elsewhere leaves meanwhile; silence never counts."""
    ann, bob = await box.friends("phone", "desk")
    mute, server = await app_server(box), await app_server(box)
    mute.mute = True
    await enable(ann, mute.jid, "n1")
    await enable(ann, server.jid, "n2")
    await ann.close()
    bob.write(ann.account, "one")
    await mute.told()
    await server.told()
    bob.write(ann.account, "two")
    await server.told(2)

    async def look() -> bool:
        """Until the first one has had its time."""
        reasons = {job["reason"]: job["state"] for job in await box.jobs(ann.account)}
        assert reasons.get("no-answer") == "queued", reasons
        return True

    await eventually(look, seconds=60)
    silent = [device for device in await rows(box, ann.account) if device["app"] == mute.jid]
    assert [device["failures"] for device in silent] == [0]


async def test_an_address_that_leads_nowhere_costs_nothing_else(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    server = await app_server(box)
    await enable(ann, "push.nowhere.invalid", "n1")
    await enable(ann, server.jid, "n2")
    await ann.close()
    bob.write(ann.account, "one")
    await server.told()
    assert len(await rows(box, ann.account)) == 2


# These look like addresses to us.
MALFORMED = ("x" * 1100, "x" * 1000, "a@b.example/\u2028", "\u202e", "-.-", "a&b@c.example", "\U0001f4a5.example")


async def test_an_address_that_is_none_harms_nobody(box: Box) -> None:
    """Whatever the server thinks of it: the component stays connected, and the others are told."""
    ann, bob = await box.friends("phone", "desk")
    server, before = await app_server(box), box.component_connections()
    await enable(ann, server.jid, "good")
    await ann.close()
    for number, jid in enumerate(MALFORMED):
        ann = await box.person(ann.account, "phone")
        with suppress(StanzaError):
            await enable(ann, jid, f"n{number}")
        await enable(ann, server.jid, "good")
        await ann.close()
        bob.write(ann.account, f"number {number}")
        await server.told(number + 1)
    assert box.component_connections() == before


# ---- enabling --------------------------------------------------------------------------------------------------------


async def test_disabled_is_disabled(box: Box) -> None:
    ann = await box.person(resource="phone")
    await enable(ann, "push.example.org", "n1")
    await enable(ann, "push.example.org", "n2")
    await enable(ann, "Push.Example.com", "n1")
    await ann.iq("set", f"<disable xmlns='{PUSH}' jid='push.example.com' node='n1'/>")
    assert {row["app"] for row in await rows(box, ann.account)} == {"push.example.org"}
    with pytest.raises(StanzaError) as caught:
        await ann.iq("set", f"<disable xmlns='{PUSH}' jid='push.example.com' node='n1'/>")
    assert caught.value.condition == "item-not-found"
    await ann.iq("set", f"<disable xmlns='{PUSH}' jid='push.example.org'/>")
    assert await rows(box, ann.account) == []


async def test_five_devices_and_no_more(box: Box) -> None:
    ann = await box.person(resource="phone")
    for number in range(7):
        await enable(ann, "push.example.org", f"the-node-{number}", WISHES, OPTIONS | {"secret": "eruio234vzxc2kla-91"})
    found = await rows(box, ann.account)
    assert len(found) == 5
    # What a client gave is nowhere in plain words.
    for word in ("the-node", "eruio234", base64.b64encode(KEY).decode(), KEY.decode()):
        assert word not in repr(found)


async def test_whom_nobody_can_name(box: Box) -> None:
    ann = await box.person(resource="phone")
    host, component = box.ready["domain"], box.ready["component"]
    for jid in (host, host.upper(), f"ann@{component}", f"{component}/x", component.upper(), ann.account, ann.jid):
        with pytest.raises(StanzaError) as caught:
            await enable(ann, jid, "n1")
        assert caught.value.condition == "bad-request", jid
    with pytest.raises(StanzaError) as caught:
        await enable(ann, "push.example.org", "n1", options=OPTIONS | {"more": "x" * 5000})
    assert caught.value.condition == "bad-request"
    with pytest.raises(StanzaError) as caught:
        await ann.iq("set", f"<enable xmlns='{PUSH}' jid='push.example.org'/>")
    assert caught.value.condition == "bad-request"
    with pytest.raises(StanzaError) as caught:
        await enable(ann, "push.example.org", "n1", f"<encrypt xmlns='{ENCRYPT}' alg='aes-128-gcm'>c2hvcnQ=</encrypt>")
    assert caught.value.condition == "bad-request"
    assert await rows(box, ann.account) == []
