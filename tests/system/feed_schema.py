"""Holds elements of the feed against docs/feed.rng, with lxml: whichever server sent them."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from lxml import etree

SCHEMA = Path(__file__).parents[2] / "docs" / "feed.rng"
FEED = "{urn:convsync:feed:0}"


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def elements(stanzas: Iterable[ET.Element]) -> Iterator[ET.Element]:
    """The children of stanzas that are the feed's; in an error the one that explains it."""
    for stanza in stanzas:
        for child in (*stanza, *(c for error in stanza.iterfind("{*}error") for c in error)):
            if (child.tag.startswith(FEED) and stanza.get("type") != "error") or child.tag.endswith(
                "unsupported-version"
            ):
                yield child


def faults(element: ET.Element) -> list[str]:
    """What the schema has against an element; nothing is good."""
    text = ET.tostring(element)
    schema = _schema()
    if schema.validate(etree.fromstring(text)):
        return []
    return [f"{schema.error_log.last_error}: {text.decode()[:500]}"]
