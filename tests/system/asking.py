"""What clients ask, and how it is refused, for several test files."""

import xml.etree.ElementTree as ET

import pytest

from tests.system.person import SYNC, name
from tests.system.xmpp_client import StanzaError


async def refused(asked: object, *conditions: str) -> None:
    with pytest.raises(StanzaError) as caught:
        await asked  # type: ignore[misc]
    assert caught.value.condition in conditions, caught.value


def is_set(element: ET.Element) -> bool:
    return name(element) == "iq" and element.get("type") == "set" and element[0].tag == f"{{{SYNC}}}query"
