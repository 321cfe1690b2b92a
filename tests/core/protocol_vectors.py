"""Vectors: XML in, an expected value or XML out, each with the section that demands it (tests/vectors/*.xml).

A file is `<vectors>` with `<vector name=… section=…>`; its first child is the input. The expectation is the text of
`<value>` (JSON), the child of `<xml>`, or `<refused condition=… names=… application=…/>`.
"""

import dataclasses
import json
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.errors import RequestError
from sync.protocol.feed import FeedBatch, decode_feed
from sync.protocol.serialise import parse

FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str, kind: str | None = None) -> list[Any]:
    """The vectors of a file as pytest parameters, those of one kind when the file has several."""
    vectors = parse((FOLDER / f"{name}.xml").read_text()).findall("vector")
    found = [v for v in vectors if kind is None or v.get("kind") == kind]
    assert found, "no vectors"
    assert all(v.get("section") for v in found), "a vector without the section that it tests"
    return [pytest.param(vector, id=vector.get("name")) for vector in found]


def plain(value: object) -> Any:
    """A value as JSON would have it; dataclasses with their class's name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, list | tuple | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, frozenset) else value)]
    if isinstance(value, datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Element):
        return shape(value)
    return value


def shape(element: Element) -> Any:
    """What two equal elements have in common: names, attributes, text, children; not the white space between."""
    text = (element.text or "").strip()
    return [element.tag, dict(sorted(element.attrib.items())), text, [shape(child) for child in element]]


def fed(frame: Element, *, rooms: bool = False) -> FeedBatch:
    """The frame as it comes from the user host ex.org or the MUC host rooms.ex.org."""
    host, hosts = ("rooms.ex.org" if rooms else "ex.org"), frozenset({"ex.org", "ex.com"})
    return decode_feed(frame, host=host, rooms=rooms, hosts=hosts, muc_hosts=frozenset({"rooms.ex.org"}))


def of_rooms(vector: Element) -> bool:
    return vector.get("rooms") == "true"


def value_of(vector: Element) -> Any:
    return json.loads(vector.findtext("value", ""))


def xml_of(vector: Element) -> Any:
    expected = vector.find("xml")
    assert expected is not None
    return shape(expected[0])


def told(got: Any, expected: Any) -> Any:
    """What is said of what a vector asks for: it names only the fields that it is about, of lists every element."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return {key: told(got.get(key, "missing"), value) for key, value in expected.items()}
    if isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        return [told(one, other) for one, other in zip(got, expected, strict=True)]
    return got


def check(vector: Element, act: Any) -> None:
    """The act on the vector's input gives the value or is refused as the vector says."""
    refused = vector.find("refused")
    if refused is None:
        got, expected = plain(act(vector[0])), value_of(vector)
        assert told(got, expected) == expected
        return
    with pytest.raises(RequestError) as caught:
        act(vector[0])
    assert caught.value.condition == refused.get("condition")
    assert refused.get("names", "") in (caught.value.text or "")
    assert (caught.value.application or ("",))[0] == refused.get("application", "")
