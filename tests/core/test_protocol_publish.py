"""Publishes to app servers that are not ours, and their answers (XEP-0357 §§7, 8)."""

import base64
import json
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sync.adapters.encryption import aes_128_gcm
from sync.model.errors import BadRequest, Refused
from sync.model.publish import About, AppServer, Cipher, Notice
from sync.model.push import Verdict
from sync.model.query import EnablePush
from sync.protocol import forms, publish
from sync.protocol.push import decode_push
from sync.protocol.serialise import serialise
from tests.core.protocol_vectors import load, plain, shape, value_of, xml_of

NODE = "yxs32uqsflafdk3iuqo"
KEY = b"0123456789abcdef"


def notice_of(vector: Element) -> Notice:
    said: dict[str, Any] = json.loads(vector.findtext("told", ""))
    if "about" in said:
        said["about"] = About(said["about"])
    said["media"] = tuple(said.get("media", ()))
    return Notice(**said)


# ---- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("publish", "publish"))
def test_publishes(vector: Element) -> None:
    options = tuple((var, tuple(values)) for var, values in json.loads(vector.findtext("options", "[]")))
    server = AppServer("push-5.client.example", NODE, options)
    cipher = Cipher(b"0123456789ab", b"\xff\xfe{}") if vector.get("cipher") else None
    priority = vector.get("priority") == "true"
    sent = publish.publish(server, notice_of(vector), cipher=cipher, says_priority=priority)
    assert shape(sent) == xml_of(vector)
    if cipher is not None:
        assert "juliet" not in serialise(sent)  # xeps.tigase.net §4.4: no unencrypted data is forwarded


@pytest.mark.parametrize("vector", load("publish", "letter"))
def test_letters(vector: Element) -> None:
    assert json.loads(publish.letter(notice_of(vector), 3000)) == value_of(vector)


TEXTS = st.text(max_size=400) | st.text(alphabet='"\\\n\x00é€🜚', max_size=400)


@given(text=TEXTS, size=st.integers(min_value=256, max_value=3000))
def test_of_a_long_text_the_beginning_fits(text: str, size: int) -> None:
    """xeps.tigase.net §4.2: "cutout end of the body to obey specified size"."""
    told = Notice(about=About.CHAT, sender="bob@ex.org", text=text)
    letter = publish.letter(told, size)
    cipher = aes_128_gcm(KEY, letter)
    assert len(base64.b64encode(cipher.text)) <= size - publish.HEADER_BYTES
    said = json.loads(letter)
    assert said == {"unread": 1, "sender": "bob@ex.org", "type": "chat"} | (
        {"message": said["message"]} if text else {}
    )
    assert text.startswith(said.get("message", ""))


@pytest.mark.parametrize("size", range(256, 280))
def test_it_fills_the_size_and_no_more(size: int) -> None:
    letter = publish.letter(Notice(about=About.CHAT, sender="bob@ex.org", text="x" * 5000), size)
    assert size - publish.HEADER_BYTES - 4 < len(base64.b64encode(aes_128_gcm(KEY, letter).text))
    assert len(base64.b64encode(aes_128_gcm(KEY, letter).text)) <= size - publish.HEADER_BYTES


def test_a_text_that_fits_is_whole() -> None:
    told = Notice(about=About.CHAT, sender="bob@ex.org", text="é" * 500)
    assert json.loads(publish.letter(told, 3000))["message"] == "é" * 500


@given(
    server=st.builds(
        AppServer,
        jid=st.text(),
        node=st.text(),
        options=st.lists(st.tuples(st.text(), st.lists(st.text()).map(tuple))).map(tuple),
    )
)
def test_what_is_kept_of_an_app_server(server: AppServer) -> None:
    assert publish.read(publish.written(server)) == server


def test_secrets_are_in_no_representation() -> None:
    server = AppServer("push.example", "a-token", (("secret", ("s3",)),))
    told = Notice(sender="bob@ex.org", body="Tea?", text="Tea!", nickname="Bob", sid="s1")
    for word in ("a-token", "s3", "bob", "Tea", "Bob", "s1"):
        assert word not in repr((server, told))


# ---- encryption ------------------------------------------------------------------------------------------------------


def siskin(key: bytes, iv: str, encrypted: str) -> dict[str, Any]:
    """What the client does: the tag is the last 16 bytes (MartinOMEMO, AES_GCM_Engine.decrypt with `auth` nil)."""
    found: dict[str, Any] = json.loads(AESGCM(key).decrypt(base64.b64decode(iv), base64.b64decode(encrypted), None))
    return found


@given(text=st.text(max_size=100))
def test_a_client_reads_what_was_encrypted_for_it(text: str) -> None:
    told = Notice(about=About.CHAT, sender="bob@ex.org/phone", text=text)
    cipher = aes_128_gcm(KEY, publish.letter(told, 3000))
    sent = publish.publish(AppServer("push.example", NODE), told, cipher=cipher, says_priority=False)
    element = next(sent.iter("{tigase:push:encrypt:0}encrypted"))
    said = siskin(KEY, element.attrib["iv"], element.text or "")
    assert (said["sender"], said.get("message", "")) == ("bob@ex.org", text)
    assert len(base64.b64decode(element.attrib["iv"])) == 12
    with pytest.raises(InvalidTag):
        siskin(KEY[::-1], element.attrib["iv"], element.text or "")


def test_every_payload_has_its_own_vector() -> None:
    """NIST SP 800-38D §8: one vector twice under one key gives both texts away."""
    assert len({aes_128_gcm(KEY, b"{}").iv for _ in range(100)}) == 100


@pytest.mark.parametrize("length", [0, 15, 17, 24, 32])
def test_other_keys_are_none(length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        aes_128_gcm(bytes(length), b"{}")


# ---- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("publish", "answer"))
def test_answers(vector: Element) -> None:
    answer = Element("{jabber:component:accept}iq", {"type": "error"})
    answer.append(Element("{http://jabber.org/protocol/pubsub}pubsub"))
    answer.append(vector[0])
    condition = vector[0][0].tag.rpartition("}")[2]
    outcome = publish.refused(Refused(condition, answer))
    assert [outcome.verdict, outcome.reason] == value_of(vector)
    assert (outcome.status, outcome.dead_since_at) == (None, None)


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ("not-connected", Verdict.NOT_SENT),
        ("disconnected", Verdict.UNCERTAIN),
        ("no-answer", Verdict.UNCERTAIN),
    ],
)
def test_no_answer_is_no_refusal(condition: str, verdict: Verdict) -> None:
    outcome = publish.refused(Refused(condition))
    assert (outcome.verdict, outcome.reason) == (verdict, condition)


@pytest.mark.parametrize("vector", load("publish", "removed"))
def test_removals(vector: Element) -> None:
    assert publish.removed(vector[0]) == value_of(vector)


@pytest.mark.parametrize("vector", load("publish", "excerpt"))
def test_excerpts(vector: Element) -> None:
    found = publish.excerpt(serialise(vector[0]))
    assert (None if found is None else [found.sender, found.body]) == plain(value_of(vector))


def test_an_excerpt_is_short() -> None:
    found = publish.excerpt(f"<message xmlns='jabber:client' from='b@c'><body>{'é' * 9000}</body></message>")
    assert found is not None
    assert found.body == "é" * (publish.MAX_TEXT_BYTES // 2)


# ---- what a client gives with its node -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({f"f{n}": ("x",) for n in range(31)}, True),
        ({f"f{n}": ("x",) for n in range(32)}, False),
        ({"secret": ("é" * 500,)}, True),
        ({"other": ("é" * 2000,)}, True),
        ({"other": ("é" * 2100,)}, False),
        ({"other": ("x",) * 4200}, False),
        ({"x" * 4200: ()}, False),
    ],
)
def test_options_are_bounded(fields: dict[str, tuple[str, ...]], fits: bool) -> None:
    kind = ("FORM_TYPE", ("http://jabber.org/protocol/pubsub#publish-options",))
    enable = Element("{urn:xmpp:push:0}enable", {"jid": "push.example", "node": "n"})
    enable.append(forms.result([kind, *fields.items()]))
    if fits:
        asked = decode_push(enable, kind="set", sender="ann@ex.org/web")
        assert isinstance(asked, EnablePush)
        assert asked.options == (kind, *fields.items())
    else:
        with pytest.raises(BadRequest, match="too long"):
            decode_push(enable, kind="set", sender="ann@ex.org/web")
