"""Messages: one meaning each, by the vectors; the serialiser: what it writes is read back as it was."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import Direction
from sync.protocol.names import CLIENT, XML, clark, local, namespace
from sync.protocol.serialise import parse, serialise
from sync.protocol.stanza import decode_message
from tests.core.protocol_vectors import load, plain, told, value_of


@pytest.mark.parametrize("vector", load("messages"))
def test_a_message_has_one_meaning(vector: Element) -> None:
    direction, room = Direction(vector.get("direction", "in")), vector.get("room")
    decoded = decode_message(vector[0], account="ann@ex.org", direction=direction, room=room)
    expected = value_of(vector)
    got = {key: plain(getattr(decoded, key)) for key in expected}
    assert told(got, expected) == expected


# ---- the serialiser ------------------------------------------------------------------------------------------------

_CHARACTERS = st.characters(
    exclude_categories=("Cs", "Cc"), include_characters="\t\n\r", exclude_characters="\ufffe\uffff"
)
TEXT = st.text(_CHARACTERS, max_size=12) | st.sampled_from(["", "&lt;", "]]>", "\r\n", " ", '"', "a\tb"])
_LOCAL = st.sampled_from(["body", "message", "x", "é", "a0", "stanza-id"])
_NAMESPACE = st.sampled_from(["", CLIENT, "urn:xmpp:sid:0", "urn:a&b", "http://q'uo\"te/"])
NAMES = st.builds(lambda ns, name: clark(ns, name) if ns else name, _NAMESPACE, _LOCAL)
ATTRIBUTES = st.dictionaries(NAMES | st.just(clark(XML, "lang")), TEXT, max_size=4)


def _element(tag: str, attributes: dict[str, str], text: str, children: list[tuple[Element, str]]) -> Element:
    element = Element(tag, attributes)
    element.text = text
    for child, tail in children:
        child.tail = tail
        element.append(child)
    return element


ELEMENTS = st.recursive(
    st.builds(_element, NAMES, ATTRIBUTES, TEXT, st.just([])),
    lambda inner: st.builds(_element, NAMES, ATTRIBUTES, TEXT, st.lists(st.tuples(inner, TEXT), max_size=4)),
    max_leaves=12,
)


def _whole(element: Element) -> object:
    children = [(_whole(child), child.tail or "") for child in element]
    return element.tag, dict(element.attrib), element.text or "", children


@given(ELEMENTS)
def test_what_is_written_is_read_back(element: Element) -> None:
    assert _whole(parse(serialise(element))) == _whole(element)


@given(ELEMENTS)
def test_elements_get_no_prefixes(element: Element) -> None:
    text = serialise(element)
    assert "<ns" not in text
    assert text.startswith(f"<{local(element.tag)}")
    assert (" xmlns=" in text.partition(">")[0]) >= bool(namespace(element.tag))


@pytest.mark.parametrize(
    "text",
    [
        '<message xmlns="jabber:client" xml:lang="en"><body>a &amp; b</body><x xmlns="urn:x"><y/></x></message>',
        '<a xmlns="urn:a"><b xmlns=""><c xmlns="urn:a"/></b></a>',
        '<a xmlns="urn:a" xmlns:a1="urn:b" k="1" a1:n="2"/>'.replace(
            'xmlns:a1="urn:b" k="1"', 'k="1" xmlns:a1="urn:b"'
        ),
    ],
)
def test_namespaces_are_declared_where_they_change(text: str) -> None:
    assert serialise(parse(text)) == text


def test_the_tail_of_the_root_is_not_its_own() -> None:
    element = parse("<a><b/>tail</a>")
    assert serialise(element[0]) == "<b/>"
    assert serialise(element) == "<a><b/>tail</a>"


def test_deep_stanzas_do_not_exhaust_the_stack() -> None:
    root = element = Element("a")
    for _ in range(20_000):
        element = SubElement(element, "a")
    element.text = "deep"
    assert serialise(root) == "<a>" * 20_001 + "deep" + "</a>" * 20_001


def test_comments_are_left_out() -> None:
    root = Element("a")
    root.append(ElementTree.Comment("no"))
    assert serialise(root) == "<a></a>"
