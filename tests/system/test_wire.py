"""What the component writes on its wire while everything happens: every stanza is read by ejabberd's codec and means
the same to it, whichever server it is written to, is as the schema of its dialect has it, and declares no namespace
twice.
"""

import re
from collections import Counter
from xml.etree.ElementTree import Element

import pytest

from sync.protocol.names import CONVSYNC, namespace
from sync.protocol.serialise import parse, serialise
from tests.core.dialect_schema import DIALECTS, sent
from tests.core.dialect_schema import faults as schema_faults
from tests.proofs.codec import Codec, faults
from tests.system.box import Box
from tests.system.dialects import OWN, delta
from tests.system.inbox import inbox
from tests.system.lively import Circle
from tests.system.person import COMMANDS, REWRITE, SYNC
from tests.system.requests import FILES, requests
from tests.system.tap import Splitter, tapped
from tests.system.test_request_vectors import known, outcome

MOVES = 90
PAYLOADS = {
    f"{{{SYNC}}}query",
    f"{{{REWRITE}}}query",
    f"{{{REWRITE}#notify}}replace",
    f"{{{REWRITE}#notify}}retract-message",
    "{urn:xmpp:inbox:1}fin",
    "{urn:xmpp:inbox:1}entry",
    f"{{{OWN}}}set",
    f"{{{OWN}}}conversation",
    f"{{{OWN}}}changes",
    f"{{{OWN}}}sync",
    f"{{{OWN}}}live",
    "{http://jabber.org/protocol/disco#info}query",
    "{http://jabber.org/protocol/disco#items}query",
    "{jabber:iq:version}query",
    f"{{{COMMANDS}}}command",
    "{urn:convsync:feed:0}subscribe",
    "{urn:convsync:feed:0}ack",
    "{urn:convsync:feed:0}account",
    "{urn:convsync:feed:0}archive",
    "{jabber:component:accept}error",
    "{jabber:client}error",
}
DECLARED = re.compile(r"<([^\s/>]+)((?:\s+[^\s=/>]+=\"[^\"]*\")*)\s*(/?)>|</[^>]+>")


def payloads(stanza: Element) -> Counter[str]:
    """What a stanza carries, through its envelopes."""
    return Counter(element.tag for element in stanza.iter())


async def everything(box: Box, seed: int) -> None:
    """Traffic, questions in every dialect, the vectors' requests, a device and its push."""
    circle = await Circle.meet(box, seed)
    ann = circle.ann
    watching = await box.person(ann.account, "watching")
    await delta(watching, live="true")
    phone = await box.person(ann.account, "phone")
    await box.phone(phone)
    await circle.live(MOVES, 3)
    await circle.settle()
    before, friend = (await ann.sync()).stamp, circle.friends[0]
    for change in (friend.retract, lambda to, sent: friend.correct(to, sent, "corrected")):
        change(ann.account, friend.write(ann.account, "a mistake"))
        await friend.ping()
    await ann.sync(most=2)
    await inbox(ann, most=3)
    await delta(ann, max=2)
    await ann.rewrites(before)
    asker = await known(box)
    for file in FILES:
        for request in requests(file).values():
            await outcome(asker, request, box.ready["component"])


async def test_every_stanza_on_the_wire(box: Box, codec: Codec) -> None:
    async with tapped(box) as tap:
        await everything(box, seed=5)
        written = list(tap.stanzas)
    assert len(written) > 300
    seen, held = Counter[str](), set[str]()
    for text in written:
        assert (fault := faults(codec, text)) is None, fault
        stanza = parse(text)
        seen += payloads(stanza)
        for client in sent(stanza):
            assert schema_faults(client) == []
            held |= {child.tag for child in client}
        assert text == serialise(stanza), "not in the shortest form"
        assert repeated(text) == [], text[:1500]
    assert {tag for tag in PAYLOADS if tag not in seen} == set()
    assert {tag for tag in PAYLOADS if namespace(tag) in {*DIALECTS, CONVSYNC}} <= held


def repeated(text: str) -> list[str]:
    """Namespaces that are declared where they hold already."""
    found, stack = [], [""]
    for match in DECLARED.finditer(text):
        name, attributes, empty = match.groups()
        if name is None:
            stack.pop()
            continue
        own = re.search(r"\sxmlns=\"([^\"]*)\"", attributes)
        if own is not None and own[1] == stack[-1]:
            found.append(f"{name} {own[1]}")
        if not empty:
            stack.append(stack[-1] if own is None else own[1])
    return found


# ---- that the tap and the check see what there is --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_tap_splits_a_stream_wherever_it_is_cut(size: int) -> None:
    stanzas = ["<a x='>'/>", "<b>é&gt;<b/></b>", "<handshake>00</handshake>", '<c y="/>" />', "<d><e><f/></e>t</d>"]
    stream = f"<?xml version='1.0'?><s:s xmlns:s='s'>{' '.join(stanzas)}</s:s>".encode()
    kept: list[str] = []
    splitter = Splitter(kept)
    for begin in range(0, len(stream), size):
        splitter.feed(stream[begin : begin + size])
    assert kept == stanzas


def test_a_namespace_that_is_declared_twice_is_seen() -> None:
    assert repeated('<a xmlns="x"><b xmlns="y"/><c xmlns="x"/></a>') == ["c x"]
    assert repeated('<a xmlns="x"><b xmlns="y"><c xmlns="x"/></b><d/></a>') == []
