"""Vectors of Rewrite's requests, of discovery, and of what commands are answered. The same files are sent to a real
server in tests/system/test_request_vectors.py.
"""

from xml.etree.ElementTree import Element

import pytest

from sync.model.query import Registration, RewritePage
from sync.protocol import commands, disco, rewrite
from sync.protocol.commands import AskForm, Command
from tests.core.protocol_vectors import check, load, shape, xml_of

REGISTERING, UNREGISTERING = (Command(node, "u7", AskForm()) for node in (commands.REGISTER, commands.UNREGISTER))
ANSWERS = {
    "the form of register-device": lambda: commands.form(REGISTERING),
    "the form of unregister-device": lambda: commands.form(UNREGISTERING),
    "canceled": lambda: commands.canceled(REGISTERING),
    "unregistered": lambda: commands.unregistered(UNREGISTERING),
    "registered": lambda: commands.registered(
        REGISTERING, Registration(node="n1", secret="s3", features=("urn:a", "urn:b"))
    ),
    "registered without extensions": lambda: commands.registered(REGISTERING, Registration(node="n1", secret="s3")),
}


def discovered(payload: Element) -> Element:
    if payload.tag == disco.INFO:
        return disco.info(payload, commands=commands.NAMES, version="0.1.0")
    if payload.tag == disco.ITEMS:
        return disco.items(payload, component="sync.ex.org", commands=commands.NAMES)
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
