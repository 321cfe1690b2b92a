"""What clients are sent, held against the schema of its dialect: docs/convsync.rng for our own,
tests/vectors/dialects.rng for the others.

`sent` finds the stanzas for clients in what the component writes; `wrapped` makes one of a bare answer of a vector.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache

from lxml import etree

from sync.protocol.names import CLIENT, FEED, INBOX, REWRITE, REWRITE_NOTIFY, SYNC, clark, namespace
from tests.core import convsync_schema
from tests.core.protocol_vectors import FOLDER

DIALECTS = {SYNC, REWRITE, REWRITE_NOTIFY, INBOX}
_IQ, _MESSAGE = clark(CLIENT, "iq"), clark(CLIENT, "message")
_DELIVER, _FORWARDED = clark(FEED, "deliver"), clark("urn:xmpp:forward:0", "forwarded")


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(FOLDER / "dialects.rng"))


def sent(stanza: ET.Element) -> Iterator[ET.Element]:
    """The stanzas for clients in a stanza of the component: what is delivered, and answers to delegated requests."""
    for path in (_DELIVER, f"./*/{_FORWARDED}"):
        for envelope in stanza.iterfind(path):
            yield from envelope


def faults(stanza: ET.Element) -> list[str]:
    """What the schema has against a stanza for a client; nothing is good. Errors, and what has no schema, are good."""
    if stanza.get("type") == "error" or not len(stanza):
        return []
    if convsync_schema.is_ours(stanza[0]):
        return convsync_schema.faults(stanza)
    if namespace(stanza[0].tag) not in DIALECTS:
        return []
    text = ET.tostring(stanza)
    if _schema().validate(etree.fromstring(text)):
        return []
    return [f"{_schema().error_log.last_error}: {text.decode()[:600]}"]


def wrapped(answer: ET.Element) -> list[ET.Element]:
    """A vector's answer as clients are sent it; several where it has several, none where it is a part of one."""
    if answer.tag == "all":
        return list(answer)
    if answer.tag in (_IQ, _MESSAGE):
        return [answer] if len(answer) and namespace(answer[0].tag) in DIALECTS else []
    iq = ET.Element(_IQ, {"type": "result", "id": "x"})
    if answer.tag == clark(SYNC, "conversation"):
        ET.SubElement(iq, clark(SYNC, "query"), {"stamp": "1"}).append(answer)
    else:
        iq.append(answer)
    return [iq]
