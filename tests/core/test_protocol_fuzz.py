"""Arbitrary elements: every decoder gives a value or refuses by a RequestError, and never fails in another way.

Half of the elements are grown from the names and values that decoders look for; the others are vectors with a few
things changed, so that they come far inside.
"""

from collections.abc import Callable
from copy import deepcopy
from xml.etree.ElementTree import Element

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from protocol_vectors import load

from sync.model.conversation import Direction
from sync.model.errors import RequestError
from sync.model.event import Malformed
from sync.protocol import commands, delegation, disco, forms, names, rewrite, rsm, synchronization
from sync.protocol.feed import FRAME, decode_feed
from sync.protocol.hello import HELLO, SESSIONS, decode_hello, decode_sessions
from sync.protocol.names import clark
from sync.protocol.push import ENABLE, decode_push
from sync.protocol.stanza import MESSAGE, decode_message

ANN = "ann@ex.org"
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


Decode = Callable[[Element], object]
DECODERS: dict[str, tuple[str, str | None, Decode]] = {
    "feed": (FRAME, "feed", lambda e: decode_feed(e, host="ex.org")),
    "hello": (HELLO, None, lambda e: decode_hello(e, host="ex.org")),
    "sessions": (SESSIONS, None, lambda e: decode_sessions(e, host="ex.org")),
    "message": (MESSAGE, "messages", lambda e: decode_message(e, account=ANN, direction=Direction.IN)),
    "delegated": (
        clark(names.COMPONENT, "iq"),
        "delegation",
        lambda e: delegation.account_of(delegation.unwrap(e)),
    ),
    "query": (synchronization.QUERY, "synchronization", lambda e: synchronization.decode_query(e, account=ANN)),
    "set": (synchronization.QUERY, "synchronization", synchronization.decode_set),
    "rewrite": (rewrite.QUERY, None, lambda e: rewrite.decode_query(e, kind="get")),
    "push": (ENABLE, "push", lambda e: decode_push(e, kind="set", sender=f"{ANN}/web")),
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


@QUIET
@given(events=st.lists(grown(clark(names.FEED, "event")) | changed("malformed"), min_size=1, max_size=3))
def test_a_well_numbered_frame_is_always_taken(events: list[Element]) -> None:
    """Whatever the events are: each is decoded or malformed, belongs to the host or to nobody, and can be stored."""
    attributes = {"stream": "s", "shard": "0", "last": str(len(events)), "head": str(len(events))}
    frame = _make(FRAME, attributes, "", events)
    for n, element in enumerate(events, 1):
        element.tag = clark(names.FEED, "event")
        element.set("n", str(n))
    batch = decode_feed(frame, host="ex.org")
    assert [e.position.n for e in batch.events] == list(range(1, len(events) + 1))
    for taken in batch.events:
        assert taken.account == "" or taken.account.endswith("@ex.org")
        text = taken.xml if isinstance(taken, Malformed) else getattr(taken, "stanza", "")
        assert "\0" not in text
        text.encode()
