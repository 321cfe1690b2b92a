"""What the guides show besides our own dialect is true, too: stanzas of docs/dialects.md are of the dialects' schema
and can be asked, and no stanza of docs/clients is one that nothing here has read.
"""

from xml.etree.ElementTree import Element

import pytest

from sync.model.conversation import Direction
from sync.model.event import CallMessage, CallStep
from sync.protocol import commands, inbox, push
from sync.protocol.names import CLIENT, INBOX, REWRITE_NOTIFY, SYNC, clark, namespace
from sync.protocol.serialise import parse
from sync.protocol.stanza import decode_message
from tests.core.convsync_schema import is_ours
from tests.core.dialect_schema import faults, wrapped
from tests.core.test_protocol_documents import _BLOCK, DOCS, blocks

ANN = "ann@example.org"
GUIDES = sorted((DOCS / "clients").glob("*.md"))
INACTIVE = {"{urn:xmpp:csi:0}active", "{urn:xmpp:csi:0}inactive"}


def shown() -> list[Element]:
    """The stanzas of docs/dialects.md; what stands without the stanza around it is a part of Client Synchronization."""
    found = []
    for text in _BLOCK.findall((DOCS / "dialects.md").read_text()):
        alone = text.startswith("<conversation")
        for element in parse(f"<stream xmlns='{SYNC if alone else CLIENT}'>{text}</stream>"):
            found += wrapped(element) if alone else [element]
    return found


STANZAS = shown()


@pytest.mark.parametrize("stanza", [one for one in STANZAS if one.get("type") != "get"], ids=lambda one: one[0].tag)
def test_answers_of_the_page_are_of_the_schema(stanza: Element) -> None:
    assert faults(stanza) == []


def test_the_page_shows_each_dialect() -> None:
    assert {namespace(one[0].tag) for one in STANZAS} == {SYNC, REWRITE_NOTIFY, INBOX}


def test_the_page_s_requests_are_taken() -> None:
    asked = [one for one in STANZAS if one.get("type") == "get"]
    assert [inbox.decode_query(one[0], account=ANN, kind="get").limit for one in asked] == [20]


def test_each_stanza_of_the_guides_is_one_that_is_taken() -> None:
    """Ours are held to the schema in test_protocol_documents; of the others each kind has its reader."""
    read = set()
    for stanza in (stanza for guide in GUIDES for block in blocks(guide) for stanza in block):
        if stanza.tag in INACTIVE or any(map(is_ours, stanza.iter())):
            continue
        if stanza.tag == clark(CLIENT, "message"):
            step = decode_message(stanza, account=ANN, direction=Direction.OUT).content
            assert isinstance(step, CallMessage)
            assert step.step is CallStep.PROCEED
        elif stanza.get("type") == "set" and stanza[0].tag == commands.COMMAND:
            commands.decode_command(stanza[0], sender=f"{ANN}/phone", request_id="r1")
        elif stanza.get("type") == "set":
            push.decode_push(stanza[0], kind="set", sender=f"{ANN}/phone")
        else:
            assert stanza.get("type") == "result", stanza.get("id")
        read.add((stanza.get("id"), stanza.get("type")))
    assert read >= {("r1", "set"), ("r1", "result"), ("e1", "set"), ("e1", "result"), ("a1", "chat")}
