"""Arbitrary elements: every decoder gives a value or refuses by a RequestError, and never fails in another way.

Half of the elements are grown from the names and values that decoders look for; the others are vectors with a few
things changed, so that they come far inside.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from xml.etree.ElementTree import Element

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sync.model.conversation import Direction
from sync.model.errors import RequestError
from sync.model.event import GapEvent, Malformed, RoomEvent
from sync.protocol import (
    commands,
    convsync,
    delegation,
    delta,
    disco,
    forms,
    inbox,
    names,
    portrait,
    rewrite,
    rsm,
    synchronization,
)
from sync.protocol.feed import FRAME
from sync.protocol.hello import HELLO, SESSIONS, decode_hello, decode_sessions
from sync.protocol.names import clark
from sync.protocol.notification import PUBSUB_QUERY, decode_notification
from sync.protocol.push import ENABLE, decode_push
from sync.protocol.stanza import MESSAGE, decode_message
from tests.core.protocol_vectors import fed, load

ANN, ROOM = "ann@ex.org", "tea@conf.ex.net"
QUIET = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
_WORDS = [
    "0",
    "1",
    "17",
    "-1",
    "true",
    "in",
    "out",
    "message",
    "session",
    "account",
    "active",
    "deleted",
    "set",
    "get",
    "submit",
    "chat",
    "error",
    "execute",
    "cancel",
    "@",
    "/",
    "@/",
    "١",
    "ann@ex.org",
    "ann@ex.org/web",
    "ex.org",
    "eve@ex.net",
    "FORM_TYPE",
    "pinned_first",
    "device-token",
    "register-device",
    "urn:xabber:chat",
    "tea@conf.ex.net",
    "tea@conf.ex.net/Bob",
    "tea@rooms.ex.org",
    "tea@rooms.ex.org/Bob",
    "rooms.ex.org",
    "groupchat",
    "normal",
    "headline",
    "pep",
    "subscription",
    "blocklist",
    "room",
    "room-message",
    "room-members",
    "gap",
    "publish",
    "retract",
    "mention",
    "xmpp:ann@ex.org",
    "xmpp:tea@conf.ex.net/Ann%00",
    "destroyed",
    "requested",
    "member",
    "banned",
    "forever",
    "on-mention",
    "2026-03-04T05:06:07Z",
    "phone",
    "client",
    "urn:xmpp:mentions:0#channel",
]
_BAD = ["", "9" * 19, "9" * 5000, "a\0b", "\ud800", "é" * 2000, "a1" * 32, names.SYNC, names.PUBLISH_OPTIONS]
VALUES = st.sampled_from(_WORDS + _BAD) | st.text(max_size=8)
KEYS = st.sampled_from(
    [
        "n",
        "kind",
        "account",
        "at",
        "direction",
        "state",
        "resource",
        "archive-id",
        "id",
        "type",
        "from",
        "to",
        "stream",
        "shard",
        "last",
        "head",
        "version",
        "host",
        "low",
        "high",
        "acked",
        "current",
        "jid",
        "node",
        "action",
        "var",
        "sessionid",
        "stamp",
        "pinned",
        "mute",
        "status",
        "less-than",
        "by",
        "media",
        "r",
        "access",
        "item",
        "peer",
        "author",
        "private",
        "affiliation",
        "present",
        "nick",
        "occupant-id",
        "occupantid",
        "why",
        "begin",
        "end",
        "start",
        "for",
        "uri",
        "anchor",
        "mentions",
        "if-version",
        "muted",
        "muted-until",
        "marked-unread",
        "notify",
        "since",
        "max",
        "identity-category",
        "identity-type",
        "client-type",
        "unread-only",
        "messages",
    ]
)
_NAMESPACES = [value for value in vars(names).values() if isinstance(value, str) and ":" in value]
_LOCALS = [
    "feed",
    "event",
    "message",
    "sessions",
    "s",
    "body",
    "query",
    "x",
    "field",
    "value",
    "set",
    "max",
    "after",
    "before",
    "conversation",
    "command",
    "enable",
    "disable",
    "iq",
    "delegation",
    "forwarded",
    "propose",
    "retract",
    "replace",
    "displayed",
    "stanza-id",
    "origin-id",
    "encrypted",
    "payload",
    "stream",
    "session",
    "moderated",
    "description",
    "reactions",
    "subject",
    "retracted",
    "apply-to",
    "reaction",
    "fallback",
    "reply",
    "reference",
    "mention",
    "noping",
    "occupant-id",
    "delay",
    "invite",
    "decline",
    "conference",
    "nick",
    "extensions",
    "notify",
    "always",
    "never",
    "m",
    "block",
    "unblock",
    "error",
    "received",
    "changes",
]
TAGS = st.builds(clark, st.sampled_from(_NAMESPACES), st.sampled_from(_LOCALS))


def _make(tag: str, attributes: dict[str, str], text: str, children: list[Element]) -> Element:
    made = Element(tag, attributes)
    made.text = text
    made.extend(children)
    return made


def grown(root: str) -> st.SearchStrategy[Element]:
    attributes = st.dictionaries(KEYS, VALUES, max_size=8)
    leaves = st.builds(_make, TAGS, attributes, VALUES, st.just([]))
    deeper = st.lists(leaves, max_size=3)
    inner = st.builds(_make, TAGS, attributes, VALUES, deeper)
    return st.builds(_make, st.just(root), attributes, VALUES, st.lists(inner, max_size=4))


@st.composite
def changed(draw: st.DrawFn, file: str) -> Element:
    root: Element = deepcopy(draw(st.sampled_from([parameter.values[0][0] for parameter in load(file)])))
    for _ in range(draw(st.integers(1, 3))):
        element = draw(st.sampled_from(list(root.iter())))
        match draw(st.sampled_from(["set", "unset", "text", "clone", "remove", "rename"])):
            case "set":
                element.set(draw(st.sampled_from(sorted(element.attrib)) if element.attrib else KEYS), draw(VALUES))
            case "unset" if element.attrib:
                element.attrib.pop(draw(st.sampled_from(sorted(element.attrib))))
            case "text":
                element.text = draw(VALUES)
            case "clone" if len(element):
                element.append(deepcopy(draw(st.sampled_from(list(element)))))
            case "remove" if len(element):
                element.remove(draw(st.sampled_from(list(element))))
            case "rename" if element is not root:
                element.tag = draw(TAGS)
    return root


@st.composite
def an_event(draw: st.DrawFn) -> Element:
    """An event out of a frame that was changed a little: of the kinds that the malformed ones do not reach."""
    frame = draw(changed("feed"))
    events = [element for element in frame.iter() if element.get("kind")]
    return draw(st.sampled_from(events)) if events else Element(clark(names.FEED, "event"))


Decode = Callable[[Element], object]
DECODERS: dict[str, tuple[str, str | None, Decode]] = {
    "feed": (FRAME, "feed", fed),
    "feed of rooms": (FRAME, "feed", lambda e: fed(e, rooms=True)),
    "hello": (HELLO, None, lambda e: decode_hello(e, host="ex.org")),
    "sessions": (SESSIONS, None, lambda e: decode_sessions(e, host="ex.org")),
    "message": (MESSAGE, "messages", lambda e: decode_message(e, account=ANN, direction=Direction.IN)),
    "message sent": (MESSAGE, "messages", lambda e: decode_message(e, account=ANN, direction=Direction.OUT)),
    "message in a room": (
        MESSAGE,
        "messages",
        lambda e: decode_message(e, account=ANN, direction=Direction.IN, room=ROOM),
    ),
    "delegated": (
        clark(names.COMPONENT, "iq"),
        "delegation",
        lambda e: delegation.account_of(delegation.unwrap(e)),
    ),
    "query": (synchronization.QUERY, "synchronization", lambda e: synchronization.decode_query(e, account=ANN)),
    "set": (synchronization.QUERY, "synchronization", synchronization.decode_set),
    "rewrite": (rewrite.QUERY, None, lambda e: rewrite.decode_query(e, kind="get")),
    "convsync set": (convsync.SET, "convsync", lambda e: convsync.decode(e, account=ANN, kind="set")),
    "convsync changes": (convsync.CHANGES, "convsync", lambda e: convsync.decode(e, account=ANN, kind="get")),
    "convsync sync": (delta.SYNC, "convsync", lambda e: convsync.decode(e, account=ANN, kind="get")),
    "convsync call": (portrait.CALL, "convsync", lambda e: convsync.decode(e, account=ANN, kind="get")),
    "convsync conversation": (portrait.CONVERSATION, None, lambda e: convsync.decode(e, account=ANN, kind="get")),
    "inbox": (inbox.QUERY, "inbox", lambda e: inbox.decode_query(e, account=ANN, kind="get")),
    "push": (ENABLE, "push", lambda e: decode_push(e, kind="set", sender=f"{ANN}/web")),
    "notification": (
        PUBSUB_QUERY,
        "notifications",
        lambda e: decode_notification(e, kind="set", sender="ex.net"),
    ),
    "command": (
        commands.COMMAND,
        "commands",
        lambda e: commands.decode_command(e, sender=f"{ANN}/web", request_id="i1"),
    ),
    "info": (disco.INFO, None, lambda e: disco.info(e, commands=commands.NAMES)),
    "items": (disco.ITEMS, None, lambda e: disco.items(e, component="sync.ex.org", commands=commands.NAMES)),
    "form": (forms.FORM, None, forms.read),
    "rsm": (rsm.SET, None, rsm.read),
}


def _try(decode: Decode, element: Element) -> None:
    try:
        decode(element)
        event("taken")
    except RequestError as refusal:
        event(f"refused: {refusal.condition}")


@pytest.mark.parametrize("decoder", DECODERS)
@QUIET
@given(data=st.data())
def test_grown_elements_are_taken_or_refused(decoder: str, data: st.DataObject) -> None:
    root, _, decode = DECODERS[decoder]
    _try(decode, data.draw(grown(root)))


@pytest.mark.parametrize("decoder", [name for name, (_, file, _) in DECODERS.items() if file])
@QUIET
@given(data=st.data())
def test_changed_vectors_are_taken_or_refused(decoder: str, data: st.DataObject) -> None:
    _, file, decode = DECODERS[decoder]
    assert file is not None
    _try(decode, data.draw(changed(file)))


@pytest.mark.parametrize("rooms", [False, True])
@QUIET
@given(events=st.lists(grown(clark(names.FEED, "event")) | changed("malformed") | an_event(), min_size=1, max_size=3))
def test_a_well_numbered_frame_is_always_taken(rooms: bool, events: list[Element]) -> None:
    """Whatever the events are: each is decoded or malformed, belongs to the host or to nobody, and can be stored."""
    host = "rooms.ex.org" if rooms else "ex.org"
    attributes = {"stream": "s", "shard": "0", "last": str(len(events)), "head": str(len(events))}
    frame = _make(FRAME, attributes, "", events)
    for n, element in enumerate(events, 1):
        element.tag = clark(names.FEED, "event")
        element.set("n", str(n))
    batch = fed(frame, rooms=rooms)
    assert [e.position.n for e in batch.events] == list(range(1, len(events) + 1))
    for taken in batch.events:
        event(type(taken).__name__)
        assert taken.account in ("", host) or taken.account.endswith(f"@{host}")
        assert isinstance(taken, RoomEvent | GapEvent | Malformed) is rooms or isinstance(taken, GapEvent | Malformed)
        for text in _texts(taken):
            assert "\0" not in text
            text.encode()


def _texts(value: object) -> Iterator[str]:
    """Every text that would be stored."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
