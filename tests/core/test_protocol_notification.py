"""Publishes of other servers (XEP-0357 §7): who publishes what to which node, and what is refused."""

from copy import deepcopy
from xml.etree.ElementTree import Element

import pytest

from sync.model.errors import BadRequest, FeatureNotImplemented
from sync.model.notification import Urgency
from sync.model.publish import About, AppServer, Cipher, Notice
from sync.protocol import commands, disco
from sync.protocol.names import PUBLISH_OPTIONS
from sync.protocol.notification import decode_notification, revoked
from sync.protocol.publish import publish
from sync.protocol.serialise import parse, serialise
from tests.core.protocol_vectors import check, load, shape


@pytest.mark.parametrize("vector", load("notifications"))
def test_publishes(vector: Element) -> None:
    check(vector, lambda payload: decode_notification(payload, kind="set", sender="ex.net"))


@pytest.mark.parametrize("vector", load("notifications"))
def test_nothing_can_be_asked_for(vector: Element) -> None:
    with pytest.raises(FeatureNotImplemented):
        decode_notification(vector[0], kind="get", sender="ex.net")


@pytest.mark.parametrize("vector", load("notifications"))
def test_what_was_said_to_the_user_is_not_kept(vector: Element) -> None:
    try:
        kept = repr(decode_notification(vector[0], kind="set", sender="ex.net"))
    except (BadRequest, FeatureNotImplemented) as refusal:
        kept = str(refusal)
    for said in ("New Message!", "bob@ex.net", "juliet", "Wherefore", "'s3'"):
        assert said not in kept


@pytest.mark.parametrize(("node", "secret"), [("x" * 1025, "s"), ("n", "é" * 600), ("a\0b", "s"), ("n", "\ud800")])
def test_what_cannot_be_a_node_or_a_secret_is_refused_unsaid(node: str, secret: str) -> None:
    payload = deepcopy(load("notifications")[0].values[0][0])
    payload[0].set("node", node)
    payload[1][0][1][0].text = secret
    with pytest.raises(BadRequest) as caught:
        decode_notification(payload, kind="set", sender="ex.net")
    assert caught.value.text == f"'{'node' if len(node) > 1 else 'secret'}' is too long or not a text."


def test_what_is_said_of_a_node_that_is_no_more() -> None:
    """XEP-0357 §8, its example."""
    expected = parse(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub' node='n1'>"
        "<affiliation jid='ann@ex.net' affiliation='none'/></pubsub>"
    )
    assert shape(revoked("n1", "ann@ex.net")) == shape(expected)


def test_clients_find_a_push_service() -> None:
    """XEP-0357 §4.2: "it MUST include an identity of "pubsub/push""; converse.js enables push only then."""
    said = disco.info(parse("<query xmlns='http://jabber.org/protocol/disco#info'/>"), commands=commands.NAMES)
    identities = {(one.get("category"), one.get("type")) for one in said if one.tag.endswith("}identity")}
    assert ("pubsub", "push") in identities
    assert "urn:xmpp:push:0" in {one.get("var") for one in said}


@pytest.mark.parametrize(
    ("notice", "sealed", "priority", "urgency"),
    [
        (Notice(about=About.CHAT, sender="bob@ex.net", body="New Message!"), False, False, Urgency.MESSAGE),
        (Notice(about=About.CHAT, sender="bob@ex.net", urgent=False), False, True, Urgency.REST),
        (Notice(about=About.CHAT, body="hi"), False, True, Urgency.MESSAGE),
        (Notice(requests=1), False, False, Urgency.MESSAGE),
        (Notice(about=About.CHAT, text="hi"), True, False, Urgency.MESSAGE),
        (Notice(about=About.CALL, sid="s1", media=("audio",)), True, True, Urgency.CALL),
    ],
)
def test_what_another_convsync_publishes_is_understood(
    notice: Notice, sealed: bool, priority: bool, urgency: Urgency
) -> None:
    options = (("FORM_TYPE", (PUBLISH_OPTIONS,)), ("secret", ("s3",)))
    cipher = Cipher(b"0123456789ab", b"{}") if sealed else None
    sent = publish(AppServer("sync.ex.org", "n1", options), notice, cipher=cipher, says_priority=priority)
    got = decode_notification(parse(serialise(sent)), kind="set", sender="sync.ex.net")
    assert (got.node, got.secret, got.urgency) == ("n1", "s3", urgency)
