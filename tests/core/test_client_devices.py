"""The client library's devices: what the component tells is read as it is written, and what is not whole is refused."""

from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.client import BadAnswer, ListedDevice
from sync.client.devices import Devices
from sync.protocol.serialise import parse, serialise
from tests.core.protocol_vectors import load

COMPONENT = "sync.example.org"
ANSWERS = {str(one.id): one.values[0].find("xml")[0] for one in load("commands_answers")}


class Answered(Devices):
    """Plays the plugin: every request has the same answer."""

    timeout, attempts = 1.0, 1

    def __init__(self, answer: Element) -> None:
        self.answer, self.asked = answer, []
        self._requests: Any = self

    async def ask(self, kind: str, payload: Element, *, to: str, **_: float) -> Element:
        assert (kind, to) == ("set", COMPONENT)
        self.asked.append(payload)
        return parse(serialise(self.answer))


async def test_a_list_is_read_as_it_is_written() -> None:
    plugin = Answered(ANSWERS["a list of devices"])
    assert await plugin.devices(component=COMPONENT) == (
        ListedDevice(
            node="n1",
            device_id="d1",
            app="chat",
            enabled=True,
            name="Ann's phone",
            last_success=datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC),
            last_error="Unregistered",
            last_error_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        ListedDevice(node="n2", device_id="d2", app="beta", enabled=False),
    )
    (asked,) = plugin.asked
    assert (asked.get("node"), len(asked)) == ("list-push-registrations", 0)
    assert await Answered(ANSWERS["a list of none"]).devices(component=COMPONENT) == ()


async def test_who_is_logged_out_is_told() -> None:
    plugin = Answered(ANSWERS["logged out"])
    assert await plugin.log_out("n1", "n2", "n3", component=COMPONENT) == ("n1", "n2")
    (asked,) = plugin.asked
    assert [value.text for value in asked.iter("{jabber:x:data}value")] == ["n1", "n2", "n3"]


@pytest.mark.parametrize("gone", ["node", "device-id", "provider", "state"])
async def test_a_device_that_is_not_whole_is_no_answer(gone: str) -> None:
    text = serialise(ANSWERS["a list of devices"]).replace(f'<field var="{gone}"><', '<field var="x"><')
    with pytest.raises(BadAnswer):
        await Answered(parse(text)).devices(component=COMPONENT)


async def test_a_time_that_is_none_and_a_form_in_place_of_the_list() -> None:
    text = serialise(ANSWERS["a list of devices"]).replace("2026-01-02T01:04:05Z", "yesterday")
    for answer in (parse(text), ANSWERS["the form of unregister-push"]):
        with pytest.raises(BadAnswer):
            await Answered(answer).devices(component=COMPONENT)
