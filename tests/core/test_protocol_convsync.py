"""Our own dialect: properties in batches, change logs, one conversation; what is refused, and by which name."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest

from sync.model.conversation import Change, ChangeKind, Conversation, ConversationKey, Kind, Notify, Pointer, Status
from sync.model.errors import BadRequest, PolicyViolation, RequestError
from sync.model.query import ChangesPage, ChangesQuery, ListedConversation
from sync.model.quiet import FOR_EVER, Hours, Quiet
from sync.protocol import convsync, portrait
from sync.protocol.names import CONVSYNC, clark
from tests.core.protocol_vectors import check, load, shape, xml_of

ANN = "ann@ex.org"
BOB, TEA = ConversationKey(ANN, "bob@ex.net"), ConversationKey(ANN, "tea@rooms.ex.org", Kind.GROUP)
AT = datetime(2025, 11, 21, 1, 19, 50, 1, UTC)
NEW = Conversation(key=BOB, version=9, activity_at=AT)
IN_TEA = replace(NEW, key=TEA, version=12)
FULL = replace(
    NEW,
    status=Status.ARCHIVED,
    pinned=5,
    muted_until=AT + timedelta(seconds=1),
    notify=Notify.ON_MENTION,
    read=Pointer(1, "a1"),
    displayed=Pointer(2, "a2"),
    delivered=Pointer(3, "a3"),
    unread=3,
    mentions=1,
    marked_unread=True,
    requests_presence=True,
)
INVITED = replace(IN_TEA, invited_by="bob@ex.net/p", muted_until=datetime.max.replace(tzinfo=UTC))
CORRECTION = (
    "<message xmlns='jabber:client' from='bob@ex.net/p' id='m2'><body>see you soon</body>"
    "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/></message>"
)
REACTION = (
    "<message xmlns='jabber:client' from='bob@ex.net/p' id='m3'>"
    "<reactions xmlns='urn:xmpp:reactions:0' id='a4'><reaction>👍</reaction></reactions></message>"
)


def decode(payload: Element, *, kind: str) -> convsync.Request:
    return convsync.decode(payload, account=ANN, kind=kind)


def _change(version: int, kind: ChangeKind, target_id: str, **values: Any) -> Change:
    return Change(conversation=BOB, version=version, kind=kind, target_rank=1, target_id=target_id, **values)


LOG = (
    _change(39, ChangeKind.CORRECTED, "a1", stanza=CORRECTION),
    _change(40, ChangeKind.RETRACTED, "a2"),
    _change(41, ChangeKind.MODERATED, "a3", author="tea@rooms.ex.org/Mod"),
    _change(42, ChangeKind.REACTED, "a4", author="bob@ex.net/p", stanza=REACTION),
    _change(43, ChangeKind.FAILED, "m4", detail="remote-server-not-found"),
    _change(44, ChangeKind.CALL_ENDED, "c1", detail="missed"),
)


def _shown(conversation: Conversation, mention: str | None = None) -> Element:
    return portrait.conversation_element(ListedConversation(conversation=conversation, mention_id=mention), now=AT)


def _log(**page: Any) -> Element:
    return convsync.encode_changes(ChangesQuery(peer=BOB.peer), ChangesPage(version=44, **page), version=44)


ANSWERS = {
    "set": lambda: convsync.encode_set([NEW, IN_TEA]),
    "conversation with everything": lambda: _shown(FULL, "a4"),
    "new conversation": lambda: _shown(NEW),
    "room that the account is invited to": lambda: _shown(INVITED),
    "deleted conversation": lambda: _shown(replace(FULL, status=Status.DELETED)),
    "changes": lambda: _log(changes=LOG),
    "no changes": _log,
    "reset": lambda: _log(reset=True),
}


@pytest.mark.parametrize("vector", load("convsync", "set"))
def test_sets(vector: Element) -> None:
    check(vector, lambda payload: decode(payload, kind="set"))


@pytest.mark.parametrize("vector", load("convsync", "get"))
def test_gets(vector: Element) -> None:
    check(vector, lambda payload: decode(payload, kind="get"))


@pytest.mark.parametrize("vector", load("convsync", "answer"))
def test_answers(vector: Element) -> None:
    assert shape(ANSWERS[str(vector.get("name"))]()) == xml_of(vector)


def test_a_mute_is_shown_while_it_lasts() -> None:
    assert _shown(replace(NEW, muted_until=AT)).get("muted-until") is None


def _set(*conversations: dict[str, str]) -> Element:
    payload = Element(convsync.SET)
    for attributes in conversations:
        SubElement(payload, portrait.CONVERSATION, attributes)
    return payload


@pytest.mark.parametrize(("many", "refused"), [(100, False), (101, True), (20_000, True)])
def test_a_set_is_bounded(many: int, refused: bool) -> None:
    payload = _set(*({"jid": f"user{n}@ex.net", "pinned": "1"} for n in range(many)))
    if not refused:
        assert len(decode(payload, kind="set")) == many  # type: ignore[arg-type]
        return
    with pytest.raises(PolicyViolation, match="100"):
        decode(payload, kind="set")


@pytest.mark.parametrize(("stanzas", "reset"), [(4, False), (5, True)])
def test_an_answer_that_is_too_large_starts_over(stanzas: int, reset: bool) -> None:
    """A server ends the connection of a component that sends larger stanzas than it takes."""
    text = f"<message xmlns='jabber:client'><body>{'é' * 31_000}</body></message>"
    log = tuple(_change(n, ChangeKind.CORRECTED, "a1", stanza=text) for n in range(1, stanzas + 1))
    answer = _log(changes=log)
    assert (answer.get("reset") == "true", len(answer)) == (reset, 0 if reset else stanzas)


GOOD = {
    "jid": "bob@ex.net",
    "kind": "chat",
    "if-version": "1",
    "pinned": "1",
    "muted": "60",
    "muted-until": "2026-03-04T05:06:07Z",
    "status": "active",
    "marked-unread": "true",
    "notify": "always",
    "since": "1",
    "max": "1",
}
BAD = [
    "",
    " ",
    "-1",
    "1.5",
    "1e3",
    "9" * 30,
    "9" * 5000,
    "١",
    "x",
    "None",
    "\0",
    "\ud800",
    "é" * 4000,
    "TRUE",
    "chat\n",
]
REQUESTS = {
    convsync.SET: ("kind", "if-version", "pinned", "muted", "muted-until", "status", "marked-unread", "notify"),
    convsync.CHANGES: ("kind", "since", "max"),
    portrait.CONVERSATION: ("kind",),
}


@pytest.mark.parametrize("value", BAD, ids=lambda value: ascii(value)[:12])
@pytest.mark.parametrize(("tag", "name"), [(tag, name) for tag, names in REQUESTS.items() for name in names])
def test_every_attribute_is_read_strictly_and_refused_by_name(tag: str, name: str, value: str) -> None:
    attributes = {"jid": GOOD["jid"], "pinned": "1"} if tag == convsync.SET else {"jid": GOOD["jid"]}
    payload = _set(attributes | {name: value}) if tag == convsync.SET else Element(tag, attributes | {name: value})
    with pytest.raises(BadRequest, match=f"'{name}'") as caught:
        decode(payload, kind="set" if tag == convsync.SET else "get")
    assert value not in str(caught.value.text).replace(name, "") or len(value) < 5


@pytest.mark.parametrize("tag", REQUESTS)
def test_every_attribute_but_the_jid_may_be_absent(tag: str) -> None:
    kind = "set" if tag == convsync.SET else "get"
    attributes = {"jid": "bob@ex.net"} | ({"status": "active"} if kind == "set" else {})
    decode(_set(attributes) if kind == "set" else Element(tag, attributes), kind=kind)
    del attributes["jid"]
    with pytest.raises(BadRequest, match="'jid'"):
        decode(_set(attributes) if kind == "set" else Element(tag, attributes), kind=kind)


@pytest.mark.parametrize("jid", ["\0", "\ud800", "b" * 4000, "é" * 2000])
@pytest.mark.parametrize("tag", REQUESTS)
def test_a_jid_that_nobody_has_is_not_found(tag: str, jid: str) -> None:
    kind = "set" if tag == convsync.SET else "get"
    with pytest.raises(RequestError) as caught:
        decode(_set({"jid": jid, "pinned": "1"}) if kind == "set" else Element(tag, {"jid": jid}), kind=kind)
    assert caught.value.condition == "item-not-found"


@pytest.mark.parametrize("name", ["a" * 33, "é", "{urn:x}<b>", "a b"])
def test_a_name_that_is_no_name_is_not_repeated(name: str) -> None:
    with pytest.raises(BadRequest, match="An attribute is not known"):
        decode(Element(convsync.CHANGES, {"jid": "bob@ex.net", name: "1"}), kind="get")
    payload = Element(convsync.CHANGES, {"jid": "bob@ex.net"})
    SubElement(payload, clark(CONVSYNC, name) if "{" not in name else name)
    with pytest.raises(BadRequest, match="An element is not known"):
        decode(payload, kind="get")


@pytest.mark.parametrize(
    ("quiet", "said"),
    [
        (None, {}),
        (Quiet(until=AT), {}),
        (Quiet(until=FOR_EVER, calls=True), {"until": "forever", "calls": "true"}),
        (
            Quiet(until=AT + timedelta(hours=1), hours=Hours(time(22), time(7, 30), "Europe/Berlin")),
            {"until": "2025-11-21T02:19:50.000001Z", "from": "22:00", "to": "07:30", "zone": "Europe/Berlin"},
        ),
    ],
)
def test_the_answer_to_quiet_hours_is_what_holds_from_now_on(quiet: Quiet | None, said: dict[str, str]) -> None:
    answer = convsync.encode_quiet(quiet, now=AT)
    assert [dict(child.items()) for child in answer] == ([said] if said else [])
