"""Holds stanzas of `urn:convsync:0` against docs/convsync.rng, with lxml: whoever wrote or sent them.

The schema describes whole stanzas: a request and its answer may have one name. `wrapped` puts a bare payload into the
stanza that it belongs into.
"""

import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

from lxml import etree

from sync.protocol.names import CLIENT, CONVSYNC, clark, namespace

SCHEMA = Path(__file__).parents[2] / "docs" / "convsync.rng"
LIVE = clark(CONVSYNC, "live")


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def faults(stanza: ET.Element) -> list[str]:
    """What the schema has against a stanza; nothing is good."""
    text = ET.tostring(stanza)
    schema = _schema()
    if schema.validate(etree.fromstring(text)):
        return []
    return [f"{schema.error_log.last_error}: {text.decode()[:500]}"]


def wrapped(payload: ET.Element, kind: str = "result") -> ET.Element:
    """The payload in an IQ of this type; a live notice in its headline."""
    name, kind = ("message", "headline") if payload.tag == LIVE else ("iq", kind)
    stanza = ET.Element(clark(CLIENT, name), {"type": kind, "id": "x"})
    stanza.append(payload)
    return stanza


def is_ours(element: ET.Element) -> bool:
    """True for elements of the namespace."""
    return namespace(element.tag) == CONVSYNC
