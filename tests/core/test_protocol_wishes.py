"""What `<enable/>` and posts of phones may hold: the guide's examples are read, limits hold, and whatever else comes is
refused in words that repeat nothing of it.
"""

import json
import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.errors import BadRequest
from sync.model.registry import LogOut
from sync.model.wishes import Allow, PushKey, RoomWish, Wishes
from sync.protocol.logout import MAX_BODY_BYTES, decode_device_logout, decode_logout
from sync.protocol.serialise import parse
from sync.protocol.wishes import FEATURES, MAX_LISTED, MAX_LISTED_BYTES, decode_wishes

GUIDE = (Path(__file__).parents[2] / "docs/push.md").read_text(encoding="utf-8")
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
LISTS = {"muted": ("muted", "item"), "groupchat": ("groupchat", "room")}


def enable(inner: str = "", **attributes: str) -> Element:
    element = parse(f"<enable xmlns='urn:xmpp:push:0' jid='j' node='n'>{inner}</enable>")
    element.attrib.update(attributes)
    return element


# ---- the guide ------------------------------------------------------------------------------------------------------


def test_the_guides_enable_asks_for_all_of_it() -> None:
    examples = re.findall(r"^<enable .*?</enable>$", GUIDE, re.MULTILINE | re.DOTALL)
    (example,) = [text for text in examples if "filter:muted" in text]
    wishes, key = decode_wishes(parse(example))
    assert wishes == Wishes(
        muted=frozenset({"bob@example.org"}),
        ignore_unknown=True,
        rooms=(RoomWish("tea@rooms.example.org", Allow.MENTIONED, "Ann"),),
        priority=True,
        jingle=True,
    )
    assert key == PushKey(KEY, 3000)
    assert {namespace for namespace in FEATURES if namespace.endswith(":0")} == {
        child.tag[1:].partition("}")[0] for child in parse(example)
    }


def test_the_guides_posts_are_read() -> None:
    bodies = re.findall(r'\{"(?:node|provider|account)".*?\}', GUIDE)
    assert len(bodies) == 3
    named, tokened, siskins = (text.replace("a1b2…", "a1b2" * 16).encode() for text in bodies)
    assert decode_logout(named) == LogOut(node="NODE", secret="SECRET")
    assert decode_logout(tokened) == LogOut(app="example-chat", token="a1b2" * 16, secret="SECRET")
    assert decode_device_logout(siskins).account == "ann@example.org"


# ---- limits ---------------------------------------------------------------------------------------------------------


def listing(name: str, *jids: str) -> Element:
    element, child = LISTS[name]
    parent = enable()
    found = SubElement(parent, f"{{tigase:push:filter:{name}:0}}{element}")
    for jid in jids:
        SubElement(found, f"{{tigase:push:filter:{name}:0}}{child}", {"jid": jid, "allow": "always"})
    return parent


@pytest.mark.parametrize("name", LISTS)
def test_lists_have_an_end(name: str) -> None:
    decode_wishes(listing(name, *(f"n{n}@x" for n in range(MAX_LISTED))))
    with pytest.raises(BadRequest, match=f"'{name}'"):
        decode_wishes(listing(name, *(f"n{n}@x" for n in range(MAX_LISTED + 1))))
    with pytest.raises(BadRequest, match=f"'{name}'"):
        decode_wishes(listing(name, *(f"{n}{'é' * 1500}@x" for n in range(MAX_LISTED_BYTES // 3000 + 1))))


def test_other_namespaces_are_left_alone() -> None:
    wishes, key = decode_wishes(enable("<muted xmlns='urn:x'/><encrypt xmlns='urn:x'/><item jid='a@b'/>"))
    assert (wishes, key) == (Wishes(), None)


# ---- whatever else comes --------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40) | st.sampled_from([KEY, KEY[:-4], "3000"])


@given(key=texts, alg=texts | st.just("aes-128-gcm"), size=texts | st.none())
def test_a_key_is_one_or_none_and_is_never_repeated(key: str, alg: str, size: str | None) -> None:
    element = enable()
    encrypt = SubElement(element, "{tigase:push:encrypt:0}encrypt", {"alg": alg} | ({"max-size": size} if size else {}))
    encrypt.text = key
    found, told = None, ""
    try:
        _, found = decode_wishes(element)
    except BadRequest as refusal:
        told = str(refusal)
    assert len(key) < 8 or key not in told
    if found is None:
        return
    assert (found.text, KEY in repr(found)) == (key.strip(), False)
    assert 128 <= found.max_bytes <= 65_536


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("ab" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["node", "secret", "provider", "device-token", "account", "other"])


@given(st.dictionaries(keys, values, max_size=5) | values)
def test_a_post_is_read_or_refused(body: object) -> None:
    for decode in (decode_logout, decode_device_logout):
        try:
            found = decode(json.dumps(body).encode())
        except BadRequest:
            continue
        assert isinstance(body, dict)
        assert (found.node is None) == (found.app is not None and found.token is not None)
        assert (found.secret is None) == (found.account is not None)


@given(st.binary(max_size=200))
def test_bytes_are_no_post(body: bytes) -> None:
    for decode in (decode_logout, decode_device_logout):
        with pytest.raises(BadRequest):
            decode(body)


@pytest.mark.parametrize("body", [b"[" * MAX_BODY_BYTES, b'{"a":' * (MAX_BODY_BYTES // 5), b"9" * MAX_BODY_BYTES])
def test_what_costs_a_parser_most(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_logout(body)
