"""What Xabber's clients ask when they start, besides what is served: each request gets its answer at once, from the
component where the namespace is delegated, from the server where it is not (docs/dialects.md §1).
"""

import asyncio
import xml.etree.ElementTree as ET

import pytest

from tests.system.asking import is_set, refused
from tests.system.box import Box
from tests.system.person import CHAT, DATA, MAM, REWRITE, SYNC

XABBER = "https://xabber.com/protocol"
OLD_CHAT = f"{SYNC}#chat"  # how versions of 2021 to 2023 call a plain chat
NOT_SERVED = ("service-unavailable", "feature-not-implemented")
# Type of the IQ, to whom, payload, conditions; none: it is answered.
ASKED: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "devices": ("get", "account", f"<query xmlns='{XABBER}/devices#items'/>", NOT_SERVED),
    "devices, of the host": ("get", "host", f"<query xmlns='{XABBER}/devices#items'/>", NOT_SERVED),
    "a device of its own": ("set", "host", f"<register xmlns='{XABBER}/devices'><device/></register>", NOT_SERVED),
    "tokens": ("get", "account", f"<query xmlns='{XABBER}/auth-tokens#items'/>", NOT_SERVED),
    "archived chats": ("get", "account", f"<query xmlns='{XABBER}/archive'/>", NOT_SERVED),
    "favorites": ("get", "host", f"<query xmlns='{XABBER}/favorites'/>", NOT_SERVED),
    "delivery": ("set", "account", f"<query xmlns='{XABBER}/delivery'/>", NOT_SERVED),
    "retractions of encrypted chats": ("get", "", f"<query xmlns='{REWRITE}' version='0' type='encrypted'/>", ()),
    "retractions for the first time": ("get", "", f"<query xmlns='{REWRITE}'/>", ()),
    "rewrites of a chat from now on": ("set", "", f"<activate xmlns='{REWRITE}' version='0'/>", NOT_SERVED),
    "the deletion of a chat, formerly": (
        "set", "account", f"<delete xmlns='{SYNC}'><conversation jid='a@localhost'/></delete>", NOT_SERVED
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
async def test_each_request_gets_an_answer(what: str, box: Box) -> None:
    ann = await box.person()
    kind, to, payload, conditions = ASKED[what]
    addresses = {"account": ann.account, "host": ann.domain, "": None}
    asked = ann.iq(kind, payload, to=addresses[to])
    if conditions:
        await refused(asked, *conditions)
    else:
        await asked


@pytest.mark.parametrize("field", ["conversation-type", f"{{{XABBER}/archive}}filter_encrypted"])
async def test_an_archive_query_with_tags_is_answered_by_the_server(field: str, box: Box) -> None:
    """Clients put these fields in only where the server announces them, which none does that we stand beside."""
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    fields = "".join(
        f"<field var='{var}'><value>{value}</value></field>"
        for var, value in (("FORM_TYPE", MAM), (field, CHAT), ("with", bob.account))
    )
    payload = f"<query xmlns='{MAM}'><x xmlns='{DATA}' type='submit'>{fields}</x></query>"
    (told,) = await asyncio.gather(ann.iq("set", payload), return_exceptions=True)
    assert isinstance(told, ET.Element) or getattr(told, "condition", "") in ("bad-request", *NOT_SERVED), told
    announced = await ann.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=ann.account)
    assert XABBER + "/archive" not in ET.tostring(announced, encoding="unicode")


async def test_a_client_starts_as_it_does_beside_its_own_server(box: Box) -> None:
    """Feature of the stream, list before presence, presence, delta, edits; then a set, and the others' notice."""
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    web = await box.person(ann.account, "xabber-web", presence=False)
    assert web.features.find(f"{{{SYNC}}}synchronization") is not None
    assert web.features.find(f"{{{XABBER}/devices}}devices") is None
    first = await web.sync(most=60)
    await web.available()
    bob.write(ann.account, "two")
    await bob.ping()
    assert [(item.jid, item.body, item.unread) for item in (await web.sync(first.stamp)).items] == [
        (bob.account, "two", 2)
    ]
    assert (await web.rewrites(0))[0] == []
    for kind, pinned in ((CHAT, "5"), (OLD_CHAT, "6")):
        conversation = f"<conversation jid='{bob.account}' type='{kind}' pinned='{pinned}'/>"
        await web.iq("set", f"<query xmlns='{SYNC}'>{conversation}</query>", to=ann.account)
        told = await ann.wait_for(lambda e, pinned=pinned: is_set(e) and e[0][0].get("pinned") == pinned, past=True)
        assert told[0][0].get("type") == CHAT
