"""Vectors of Rewrite's requests, of discovery, and of what commands are answered; that each kind of request and answer
has its vectors, and that answers are as the schemas have them. The same files are sent to real servers in
tests/system/test_request_vectors.py.
"""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.delta import DeltaItem
from sync.model.push import Vendor
from sync.model.query import Registration, RewritePage
from sync.model.registry import ListedDevice
from sync.protocol import commands, disco, rewrite
from sync.protocol.commands import AskForm, Command
from sync.protocol.live import encode_live, headline
from sync.protocol.names import CLIENT, COMMANDS, CONVSYNC, INBOX, PUSH, REWRITE, SYNC, clark
from tests.contract.samples import device
from tests.core import test_protocol_delta as delta
from tests.core.dialect_schema import faults, wrapped
from tests.core.protocol_vectors import check, load, shape, xml_of

COMPONENT, ONE = "sync.ex.org", Registration(node="n1", secret="s3")
DEVICES = (
    ListedDevice(
        device=device("d1", "ann@ex.org", node="n1", name="Ann's phone"),
        succeeded_at=datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=timezone(timedelta(hours=2))),
        failed_at=datetime(2026, 1, 1, tzinfo=UTC),
        reason="Unregistered",
    ),
    ListedDevice(device=device("d2", "ann@ex.org", node="n2", enabled=False, app="beta")),
)


def called(node: str) -> Command:
    return Command(node, "u7", AskForm("ann@ex.org"))


REGISTERING, UNREGISTERING = called(commands.REGISTER), called(commands.UNREGISTER)
OFFERED = commands.offered({Vendor.APNS})
ANSWERS = {
    "the form of register-device": lambda: commands.form(REGISTERING),
    "the form of unregister-device": lambda: commands.form(UNREGISTERING),
    "canceled": lambda: commands.canceled(REGISTERING),
    "unregistered": lambda: commands.unregistered(UNREGISTERING),
    "registered": lambda: commands.registered(
        REGISTERING, Registration(node="n1", secret="s3", features=("urn:a", "urn:b")), COMPONENT
    ),
    "registered without extensions": lambda: commands.registered(REGISTERING, ONE, COMPONENT),
    "the form of register-push-apns": lambda: commands.form(called("register-push-apns")),
    "registered by its older name": lambda: commands.registered(called("register-push-apns"), ONE, COMPONENT),
    "the form of unregister-push": lambda: commands.form(called(commands.UNREGISTER_PUSH), DEVICES),
    "the form of unregister-push, without devices": lambda: commands.form(called(commands.UNREGISTER_PUSH)),
    "logged out": lambda: commands.unregistered_named(called(commands.UNREGISTER_PUSH), ["n1", "n2"]),
    "a list of devices": lambda: commands.listed(called(commands.LIST), DEVICES),
    "a list of none": lambda: commands.listed(called(commands.LIST), ()),
}


def discovered(payload: Element) -> Element:
    if payload.tag == disco.INFO:
        return disco.info(payload, commands=OFFERED, providers=["org.example.chat"], version="0.1.0")
    if payload.tag == disco.ITEMS:
        return disco.items(payload, component=COMPONENT, commands=OFFERED)
    return disco.version("0.1.0")


@pytest.mark.parametrize("vector", [*load("rewrite", "get"), *load("rewrite", "set")])
def test_rewrite_requests(vector: Element) -> None:
    check(vector, lambda payload: rewrite.decode_query(payload, kind=vector.get("kind", "")))


@pytest.mark.parametrize("vector", load("rewrite", "answer"))
def test_rewrite_answers(vector: Element) -> None:
    assert shape(rewrite.result(RewritePage(newest=41, changes=()))) == xml_of(vector)


@pytest.mark.parametrize("vector", load("disco"))
def test_discovery(vector: Element) -> None:
    if vector.find("refused") is not None:
        check(vector, discovered)
        return
    assert shape(discovered(vector[0])) == xml_of(vector)


@pytest.mark.parametrize("vector", load("commands_answers"))
def test_answers_of_commands(vector: Element) -> None:
    assert shape(ANSWERS[str(vector.get("name"))]()) == xml_of(vector)


# ---- live notices --------------------------------------------------------------------------------------------------

LARGE = replace(delta.WITH_BOB, last=delta.said(delta.SAID.replace("see you soon", "x" * 9000)))
NOTICED = {
    "what has changed": delta.page(
        *(delta.NEW, delta.MENTIONED, DeltaItem(conversation=delta.GONE)),
        ringing=(delta.RINGING,),
        settled=(delta.TAKEN, delta.MISSED),
    ),
    "more than a notice takes": delta.page(delta.NEW, more=True),
    "too large for a notice": delta.page(*(DeltaItem(conversation=replace(LARGE, version=80 - n)) for n in range(9))),
}


@pytest.mark.parametrize("vector", load("live"))
def test_live_notices(vector: Element) -> None:
    now = delta.AT + timedelta(seconds=12.9)
    notice = encode_live(NOTICED[str(vector.get("name"))], now=now)
    message = headline(notice, account=delta.ANN, resource="web")
    assert faults(message) == []
    notice.set("token", "TOKEN")
    assert shape(message) == xml_of(vector)


# ---- answers and the schemas of their dialects ---------------------------------------------------------------------


def answers(*files: str) -> list[Any]:
    """The stanzas for clients in the expected answers of these files."""
    found = []
    for parameter in (one for file in files for one in load(file)):
        expected = parameter.values[0].find("xml")
        if expected is not None:
            found += [pytest.param(stanza, id=str(parameter.id)) for stanza in wrapped(expected[0])]
    return found


@pytest.mark.parametrize("stanza", answers("conversations", "rewrite", "inbox_answers"))
def test_answers_are_as_the_schema_has_them(stanza: Element) -> None:
    assert faults(stanza) == []


SPOILED = {
    "no stamp": ("query", "stamp", None),
    "a stamp that is no number": ("query", "stamp", "now"),
    "an unknown status": ("conversation", "status", "gone"),
    "an unknown type": ("conversation", "type", "urn:xabber:group"),
    "an attribute that nobody knows": ("conversation", "colour", "red"),
    "a count that is none": ("unread", "count", "-1"),
    "another node": ("metadata", "node", "urn:example:x"),
    "a time without its zone": ("time", "stamp", "2025-11-21T01:19:50"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_the_schema_refuses_what_is_otherwise(what: str) -> None:
    name, attribute, value = SPOILED[what]
    spoiled = deepcopy(answers("conversations")[0].values[0])
    element = next(one for one in spoiled.iter() if one.tag.endswith(f"}}{name}"))
    element.attrib.pop(attribute, None)
    if value is not None:
        element.set(attribute, value)
    assert faults(spoiled)


REQUESTS = {
    "synchronization": {f"{{{SYNC}}}query"},
    "rewrite": {f"{{{REWRITE}}}query", f"{{{REWRITE}}}retract-message"},
    "inbox": {f"{{{INBOX}}}inbox"},
    "convsync": {clark(CONVSYNC, name) for name in ("sync", "call", "set", "changes", "conversation")},
    "push": {f"{{{PUSH}}}enable", f"{{{PUSH}}}disable"},
    "commands": {f"{{{COMMANDS}}}command"},
    "disco": {disco.INFO, disco.ITEMS, disco.VERSION_QUERY},
}
ANSWERED = {
    "conversations": {clark(SYNC, "conversation"), clark(CLIENT, "iq"), "all"},
    "rewrite": {f"{{{REWRITE}}}query"},
    "inbox_answers": {clark(CLIENT, "message"), f"{{{INBOX}}}fin"},
    "convsync": {clark(CONVSYNC, name) for name in ("set", "changes", "conversation")},
    "delta": {clark(CONVSYNC, name) for name in ("sync", "call")},
    "live": {clark(CLIENT, "message")},
    "commands_answers": {f"{{{COMMANDS}}}command"},
    "disco": {disco.INFO, disco.ITEMS, disco.VERSION_QUERY},
}


@pytest.mark.parametrize("file", REQUESTS)
def test_each_kind_of_request_has_its_vectors(file: str) -> None:
    asked = {one.values[0][0].tag for one in load(file) if one.values[0].get("kind") != "answer"}
    assert REQUESTS[file] <= asked


@pytest.mark.parametrize("file", ANSWERED)
def test_each_kind_of_answer_has_its_vectors(file: str) -> None:
    answered = {one.values[0].find("xml")[0].tag for one in load(file) if one.values[0].find("xml") is not None}
    assert ANSWERED[file] <= answered
