"""A last message that is shown as it is stored is shown as one that was taken apart and put together."""

from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import Conversation, ConversationKey, Kind, LastMessage
from sync.model.query import ListedConversation
from sync.protocol import conversations, portrait
from sync.protocol.conversations import as_stored, encode_conversation
from sync.protocol.names import CLIENT, CORRECT, DELAY, DELIVERY, MAM_TMP, SID, clark
from sync.protocol.serialise import parse, serialise, written

ANN, TEA, AT = "ann@ex.org", "tea@rooms.ex.org", datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
WORDS = st.sampled_from(["", "a1", "m1", ANN, TEA, "ex.net", 'x"/><evil a="', "a&b", "é", "<", " id=", "\n"])
TAGS = st.sampled_from([
    *(clark(SID, name) for name in ("stanza-id", "origin-id")),
    *(clark(CLIENT, name) for name in ("body", "thread", "message", "delay", "time")),
    *(clark(CORRECT, "replace"), clark(DELAY, "delay"), clark(MAM_TMP, "archived"), clark(DELIVERY, "time")),
    clark("urn:x", "stanza-id"),
])  # fmt: skip
NAMES = st.sampled_from(["id", "by", "from", "stamp", "{http://www.w3.org/XML/1998/namespace}id"])


@st.composite
def elements(draw: st.DrawFn, depth: int = 1) -> Element:
    element = Element(draw(TAGS), draw(st.dictionaries(NAMES, WORDS, max_size=3)))
    element.text = draw(WORDS)
    if depth:
        element.extend(draw(st.lists(elements(depth - 1), max_size=2)))
    return element


@st.composite
def lasts(draw: st.DrawFn) -> LastMessage:
    """What may be stored: mostly with the archive's id at its end, and with anything before."""
    archive, archive_id = draw(st.sampled_from((ANN, TEA))), draw(st.sampled_from(("a1", "a2", "a&b", 'a"b', "é")))
    message_id = draw(st.none() | st.sampled_from(("m1", "m2", "m&1")))
    stanza = Element(clark(CLIENT, "message"), {"from": "bob@ex.net/p"} | ({"id": message_id} if message_id else {}))
    stanza.attrib |= draw(st.dictionaries(st.just("{http://www.w3.org/XML/1998/namespace}id"), WORDS, max_size=1))
    SubElement(stanza, clark(CLIENT, "body")).text = draw(WORDS)
    stanza.extend(draw(st.lists(elements(), max_size=2)))
    if draw(st.integers(0, 4)):
        names = {"by": archive, "id": archive_id}
        turned = dict(reversed(names.items())) if draw(st.booleans()) else names
        SubElement(stanza, clark(SID, "stanza-id"), turned)
    return LastMessage(
        rank=1,
        stanza=serialise(stanza),
        message_id=draw(st.sampled_from((message_id, message_id, message_id, None, "m1"))),
        archive_id=draw(st.sampled_from((archive_id, archive_id, archive_id, None, "a1"))),
        sent_at=AT,
        retracted=not draw(st.integers(0, 9)),
    )


def shown(last: LastMessage, kind: Kind) -> tuple[str, str]:
    """In our own dialect and in Client Synchronization."""
    key = ConversationKey(ANN, TEA if kind is Kind.GROUP else "bob@ex.net", kind)
    conversation = Conversation(key=key, version=1, activity_at=AT, last=last)
    listed = encode_conversation(ListedConversation(conversation=conversation), account=ANN, now=AT)
    return serialise(portrait.last_element(conversation, last)), serialise(listed)


@given(last=lasts(), kind=st.sampled_from((Kind.CHAT, Kind.GROUP)))
def test_it_is_the_same(last: LastMessage, kind: Kind) -> None:
    straight = shown(last, kind)
    with pytest.MonkeyPatch.context() as patch:
        for module in (portrait, conversations):
            patch.setattr(module, "as_stored", lambda *_: None)
        assert shown(last, kind) == straight
    for text in straight:
        assert serialise(parse(text)) == text


STORED = (
    '<message xmlns="jabber:client" from="bob@ex.net/p" to="ann@ex.org" type="chat" id="m1"><body>a &lt; b</body>'
    '<origin-id xmlns="urn:xmpp:sid:0" id="m1"/>'
)
OWN_ID = '<stanza-id xmlns="urn:xmpp:sid:0" by="ann@ex.org" id="a1"/></message>'


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (STORED + OWN_ID, True),
        (STORED + OWN_ID.replace('by="ann@ex.org" id="a1"', 'id="a1" by="ann@ex.org"'), True),
        (STORED + OWN_ID.replace("a1", "a2"), False),
        (STORED + OWN_ID.replace("ann@", "bob@"), False),
        (STORED + OWN_ID.removesuffix("</message>") + OWN_ID, False),
        (STORED + f"<x>{OWN_ID.removesuffix('</message>')}</x></message>", False),
        (STORED + '<stanza-id xmlns="urn:xmpp:sid:0" by="ex.net" id="x"/>' + OWN_ID, False),
        (STORED + '<delay xmlns="urn:xmpp:delay" stamp="2001-01-01T00:00:00Z"/>' + OWN_ID, False),
        (STORED + '<replace xmlns="urn:xmpp:message-correct:0" id="m0"/>' + OWN_ID, False),
        (STORED.replace(' id="m1"><body>', ' id="m2"><body>') + OWN_ID, False),
        (STORED.replace(' id="m1"><body>', "><body>") + OWN_ID, False),
        (STORED.replace(' id="m1"><body>', ' xml:id="m1"><body>') + OWN_ID, False),
        (STORED + "</message>", False),
    ],
)
def test_what_is_taken_as_it_is(text: str, taken: bool) -> None:
    last = LastMessage(rank=1, stanza=text, message_id="m1", archive_id="a1", sent_at=AT)
    assert (as_stored(last, ANN) is not None) is taken


def test_a_text_in_a_tree_is_written_as_it_is_and_comments_are_not() -> None:
    root = Element("{urn:a}root")
    root.append(written('<b xmlns="urn:b"/>'))
    SubElement(root, "{urn:a}c")
    assert serialise(root) == '<root xmlns="urn:a"><b xmlns="urn:b"/><c/></root>'
