"""Properties of conversations, set and told by Client Synchronization."""

import xml.etree.ElementTree as ET

import pytest

from tests.system.asking import is_set, refused
from tests.system.box import Box
from tests.system.person import Person


def notices(person: Person) -> list[ET.Element]:
    """Live notices that this session was sent."""
    return [element for element in person.received if is_set(element)]


# ---- properties ------------------------------------------------------------------------------------------------------


PROPERTIES = {
    "pinned": ({"pinned": "1763600000000"}, lambda item: item.pinned == "1763600000000"),
    "unpinned": ({"pinned": "0"}, lambda item: item.pinned == "0"),
    "muted for ever": ({"mute": "0"}, lambda item: int(item.mute) > 2**33),
    "muted a while": ({"mute": "3600"}, lambda item: item.mute is not None),
    "unmuted": ({"mute": ""}, lambda item: item.mute is None),
    "archived": ({"status": "archived"}, lambda item: item.status == "archived"),
    "several": ({"status": "archived", "pinned": "7"}, lambda item: (item.status, item.pinned) == ("archived", "7")),
}


@pytest.mark.one_server
@pytest.mark.parametrize("what", PROPERTIES)
async def test_a_property_is_set_and_the_other_resource_is_told(what: str, box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    other = await box.person(ann.account, "other")
    asleep = await box.person(ann.account, "asleep", presence=False)
    bob.write(ann.account, "one")
    await bob.ping()
    stamp = (await ann.sync()).stamp
    properties, holds = PROPERTIES[what]
    if what.startswith("un"):
        await ann.set(bob.account, pinned="5", mute="0")
        await other.wait_for(is_set, past=True)
        other.received.clear()
    await ann.set(bob.account, **properties)
    told = await other.wait_for(is_set, past=True)
    assert told.get("from") == ann.account
    (item,) = told[0]
    assert item.get("jid") == bob.account
    delta = await ann.sync(stamp)
    assert holds(delta.items[0])
    assert told[0].get("stamp") == str(delta.stamp)
    assert notices(ann) == notices(asleep) == []


async def test_deleted_is_a_tombstone_in_the_delta_and_comes_back_where_it_was_read(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    last = ""
    for text in ("one", "two"):
        last = bob.write(ann.account, text)
    await bob.ping()
    ann.displayed(bob.account, last)
    await ann.ping()
    read = (await ann.sync()).items[0]
    assert read.unread == 0
    stamp = (await ann.sync()).stamp
    await ann.set(bob.account, status="deleted")
    assert (await ann.sync()).items == []
    delta = await ann.sync(stamp)
    assert [(item.jid, item.status, item.unread) for item in delta.items] == [(bob.account, "deleted", None)]
    await refused(ann.set(bob.account, pinned="1"), "item-not-found")
    bob.write(ann.account, "three")
    await bob.ping()
    (back,) = (await ann.sync(delta.stamp)).items
    assert (back.status, back.unread, back.read_to, back.body) == ("active", 1, read.read_to, "three")


@pytest.mark.one_server
async def test_what_cannot_be_set(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    await ann.sync()
    await refused(ann.set("nobody@localhost", pinned="1"), "item-not-found")
    await refused(ann.set(bob.account), "bad-request")
    for bad in ({"pinned": "-1"}, {"pinned": "x"}, {"mute": "-5"}, {"mute": "9" * 50}, {"status": "gone"}):
        await refused(ann.set(bob.account, **bad), "bad-request")
    # All or nothing.
    await refused(ann.set(bob.account, pinned="5", status="gone"), "bad-request")
    assert (await ann.sync()).items[0].pinned == "0"
