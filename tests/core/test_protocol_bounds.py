"""Whatever anybody claims at whatever length is cut, left out or refused; it is never an error of ours."""

from xml.etree.ElementTree import Element, SubElement

import pytest

from sync.model.conversation import Direction
from sync.model.event import (
    BlocklistEvent,
    Body,
    Bookmark,
    Displayed,
    Malformed,
    Mentions,
    MessageEvent,
    Reaction,
    RoomMembersEvent,
)
from sync.protocol.feed import decode_feed
from sync.protocol.names import FEED, MENTIONS, REACTIONS, clark
from sync.protocol.serialise import parse
from sync.protocol.stanza import decode_message
from tests.core.protocol_vectors import fed

ROOM = "tea@conf.ex.net"
SAID = f"<message xmlns='jabber:client' from='{ROOM}/Bob' to='ann@ex.org/TO' type='groupchat'><body>ok</body></message>"


def _one(event: Element, *, rooms: bool = False) -> object:
    event.set("n", "1")
    frame = Element(clark(FEED, "feed"), {"stream": "s1", "shard": "0", "last": "1", "head": "1"})
    frame.append(event)
    (decoded,) = fed(frame, rooms=rooms).events
    return decoded


def _event(kind: str, account: str = "ann@ex.org", **attributes: str) -> Element:
    return Element(clark(FEED, "event"), {"kind": kind, "account": account, "at": "1", **attributes})


def _said(text: str = SAID) -> MessageEvent:
    event = _event("message", direction="in")
    event.append(parse(text))
    decoded = _one(event)
    assert isinstance(decoded, MessageEvent)
    return decoded


def _meaning(message: Element, room: str | None = ROOM) -> object:
    return decode_message(message, account="ann@ex.org", direction=Direction.IN, room=room).content


# ---- ids ------------------------------------------------------------------------------------------------------------


def test_copies_for_several_sessions_get_one_id() -> None:
    """Where neither the room nor the sender gave one: what differs between the copies is not looked at."""
    one = _said().message_id
    assert one
    for other in (
        SAID.replace("/TO", "/other"),
        SAID.replace(" to='ann@ex.org/TO'", ""),
        SAID.replace("</message>", "<stanza-id xmlns='urn:xmpp:sid:0' by='ann@ex.org' id='a2'/></message>"),
        SAID.replace("</message>", f"<delay xmlns='urn:xmpp:delay' from='{ROOM}' stamp='x'/></message>"),
    ):
        assert _said(other).message_id == one


@pytest.mark.parametrize("change", [("/Bob", "/Carol"), ("ok", "OK"), ("</message>", "<thread>1</thread></message>")])
def test_other_messages_get_another(change: tuple[str, str]) -> None:
    assert _said(SAID.replace(*change)).message_id != _said().message_id


@pytest.mark.parametrize(
    "given",
    [" id='m1'", f"><stanza-id xmlns='urn:xmpp:sid:0' by='{ROOM}' id='s1'/"],
    ids=["by the sender", "by the room"],
)
def test_an_id_that_was_given_is_kept(given: str) -> None:
    said = _said(SAID.replace("type='groupchat'", f"type='groupchat'{given}"))
    assert "s1" in (said.archive_id or "") or said.message_id == "m1"
    assert not (said.message_id or "").startswith("derived:")


def test_ids_may_be_of_any_length() -> None:
    said = _said(SAID.replace("type='groupchat'", f"type='groupchat' id='{'m' * 100_000}'"))
    assert said.message_id == "m" * 100_000


@pytest.mark.parametrize("occupant_id", ["o" * 129, "a\0b", "", f"{ROOM}/Carol"])
def test_what_is_no_occupant_id_is_none(occupant_id: str) -> None:
    message = parse(SAID)
    SubElement(message, "{urn:xmpp:occupant-id:0}occupant-id", {"id": occupant_id})
    event = _event("message", direction="in")
    event.append(message)
    decoded = _one(event)
    assert isinstance(decoded, Malformed if "\0" in occupant_id else MessageEvent)
    assert isinstance(decoded, Malformed) or decoded.author == f"{ROOM}/Bob"


# ---- contents -------------------------------------------------------------------------------------------------------


def test_a_text_is_cut_after_the_quotation_is_out() -> None:
    """2,000 characters of what was said, not of what was quoted."""
    message = parse(
        "<message xmlns='jabber:client' type='groupchat'><body/><reply xmlns='urn:xmpp:reply:0' id='s1'/><fallback "
        "xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='3000'/></fallback></message>"
    )
    message[0].text = "q" * 3000 + "s" * 3000
    assert _meaning(message) == Body(mentions=Mentions(reply_to="s1"), text="s" * 2000)


def test_more_reactions_than_anybody_needs_are_cut() -> None:
    message = Element(clark("jabber:client", "message"))
    reactions = SubElement(message, clark(REACTIONS, "reactions"), {"id": "m1"})
    for n in range(65):
        SubElement(reactions, clark(REACTIONS, "reaction")).text = f"{n}"
    content = _meaning(message)
    assert isinstance(content, Reaction)
    assert content.emojis == tuple(f"{n}" for n in range(64))


@pytest.mark.parametrize(("count", "counts"), [(100, True), (101, False)])
def test_who_mentions_too_many_mentions_nobody(count: int, counts: bool) -> None:
    """XEP-0513 §3.6: all are ignored; the reply is not one of them."""
    message = parse("<message xmlns='jabber:client'><body>x</body><reply xmlns='urn:xmpp:reply:0' id='s1'/></message>")
    for n in range(count):
        SubElement(message, clark(MENTIONS, "mention"), {"occupantid": f"o{n}"})
    content = _meaning(message)
    assert isinstance(content, Body)
    assert content.mentions is not None
    assert (len(content.mentions.occupant_ids), content.mentions.reply_to) == (count if counts else 0, "s1")


def test_ten_thousand_fallback_ranges_are_no_work() -> None:
    message = parse("<message xmlns='jabber:client'><body/></message>")
    message[0].text = "ab" * 20_000
    fallback = SubElement(message, "{urn:xmpp:fallback:0}fallback", {"for": "urn:xmpp:reply:0"})
    for n in range(20_000, 0, -1):
        SubElement(fallback, "{urn:xmpp:fallback:0}body", {"start": f"{2 * n - 2}", "end": f"{2 * n - 1}"})
    content = _meaning(message)
    assert isinstance(content, Body)
    assert content.text == "b" * 2000


@pytest.mark.parametrize("bad", ["a\0b", "a\ud800b"])
def test_what_the_store_cannot_hold_is_left_out_of_pep(bad: str) -> None:
    """The stanza is not kept, so nothing else would find it."""
    for item, payload, by in (("tea@conf.ex.net", bad, ROOM), (bad, "s1", ROOM)):
        event = _event("pep", node="urn:xmpp:mds:displayed:0", item=item, action="publish")
        displayed = SubElement(event, "{urn:xmpp:mds:displayed:0}displayed")
        SubElement(displayed, "{urn:xmpp:sid:0}stanza-id", {"by": by, "id": payload})
        decoded = _one(event)
        assert isinstance(decoded, MessageEvent)
        assert not isinstance(decoded.content, Displayed)
    event = _event("pep", node="urn:xmpp:bookmarks:1", item=ROOM, action="publish")
    SubElement(SubElement(event, "{urn:xmpp:bookmarks:1}conference"), "{urn:xmpp:bookmarks:1}nick").text = bad
    decoded = _one(event)
    assert isinstance(decoded, MessageEvent)
    assert decoded.content == Bookmark()
    event = _event("blocklist")
    SubElement(event, clark(FEED, "block"), {"jid": bad})
    decoded = _one(event)
    assert isinstance(decoded, BlocklistEvent)
    assert not decoded.blocked


def test_an_item_that_is_too_long_for_a_jid_names_nobody() -> None:
    event = _event("pep", node="urn:xmpp:bookmarks:1", item="a@" + "b" * 3070, action="retract")
    decoded = _one(event)
    assert isinstance(decoded, MessageEvent)
    assert (decoded.peer, decoded.content.__class__.__name__) == ("ann@ex.org", "Nothing")


# ---- members --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "taken"), [(1000, True), (1001, False)])
def test_a_list_of_members_is_never_cut(count: int, taken: bool) -> None:
    """To cut one would put people out of the room."""
    event = _event("room-members", "tea@rooms.ex.org", begin="true", end="true")
    for n in range(count):
        SubElement(event, clark(FEED, "m"), {"jid": f"u{n}@ex.org", "affiliation": "member"})
    decoded = _one(event, rooms=True)
    assert isinstance(decoded, RoomMembersEvent if taken else Malformed)
    assert isinstance(decoded, RoomMembersEvent) or decoded.why == "members"


@pytest.mark.parametrize("bad", ["n" * 1024, "a\0b", "a\ud800b", ""])
def test_a_nickname_that_cannot_be_one_is_none(bad: str) -> None:
    event = _event("room-members", "tea@rooms.ex.org")
    attributes = {"jid": "ann@ex.org", "affiliation": "member", "nick": bad, "occupant-id": bad}
    SubElement(event, clark(FEED, "m"), attributes)
    decoded = _one(event, rooms=True)
    assert isinstance(decoded, RoomMembersEvent)
    assert (decoded.members[0].nick, decoded.members[0].occupant_id) == (None, None)


def test_without_hosts_nobody_is_a_member() -> None:
    """The default trusts no room with anybody's account."""
    event = _event("room-members", "tea@rooms.ex.org", n="1")
    SubElement(event, clark(FEED, "m"), {"jid": "ann@ex.org", "affiliation": "member"})
    frame = Element(clark(FEED, "feed"), {"stream": "s1", "shard": "0", "last": "1", "head": "1"})
    frame.append(event)
    (decoded,) = decode_feed(frame, host="rooms.ex.org", rooms=True).events
    assert isinstance(decoded, RoomMembersEvent)
    assert decoded.members == ()


@pytest.mark.parametrize(("occupant_id", "kept"), [("é" * 64, True), ("é" * 65, False), ("o" * 128, True)])
def test_an_occupant_id_of_a_member_is_a_key_of_128_octets(occupant_id: str, kept: bool) -> None:
    event = _event("room-members", "tea@rooms.ex.org")
    attributes = {"jid": "ann@ex.org", "affiliation": "member", "occupant-id": occupant_id}
    SubElement(event, clark(FEED, "m"), attributes)
    decoded = _one(event, rooms=True)
    assert isinstance(decoded, RoomMembersEvent)
    assert decoded.members[0].occupant_id == (occupant_id if kept else None)
