"""The feed: frames, single malformed events among good ones, hello, and what goes to the module."""

from datetime import datetime
from xml.etree.ElementTree import Element

import pytest

from sync.model.conversation import ConversationKey, Kind
from sync.model.event import GapEvent, GapReason, Malformed, MessageEvent, Session, SessionEvent, SessionState
from sync.protocol import feed
from sync.protocol.feed import FeedBatch, FrameError, decode_feed
from sync.protocol.hello import decode_hello, decode_sessions, versions_of
from sync.protocol.names import FEED
from sync.protocol.serialise import parse, serialise
from sync.rules.presence import becomes
from tests.core.protocol_vectors import check, fed, load, of_rooms

GOOD = "<event n='{}' kind='account' account='ann@ex.org' at='1' state='created'/>"
GOOD_ROOM = "<event n='{}' kind='room' account='tea@rooms.ex.org' at='1' state='destroyed'/>"
HELLO = (
    "<hello xmlns='urn:convsync:feed:0' version='1' server='Prosody' server-version='0.12.3' module-version='0.1.0' "
    "host='ex.org' shard='0' ordered-archive='false'><stream id='s0' low='1201' high='1300' acked='1200'/>"
    "<stream id='s1' low='1' high='0' acked='0' current='true'/><regressed stream='s9'/>"
    "<session jid='ann@ex.org/phone' state='active'/><session jid='eve@ex.net/x' state='active'/></hello>"
)


def _frame(*events: str | Element) -> Element:
    text = f"<feed xmlns='{FEED}' stream='s1' shard='0' last='{len(events)}' head='{len(events)}'/>"
    frame = parse(text)
    for n, event in enumerate(events, 1):
        element = event
        if isinstance(event, str):
            element = parse(f"<x xmlns='{FEED}'>{event.format(n)}</x>")[0]
        assert isinstance(element, Element)
        element.set("n", str(n))
        frame.append(element)
    return frame


def _message(direction: str, attributes: str) -> MessageEvent:
    event = (
        "<event n='{}' kind='message' account='ann@ex.org' at='1' resource='web' direction='" + direction + "'>"
        "<message xmlns='jabber:client' " + attributes + "/></event>"
    )
    (decoded,) = decode_feed(_frame(event), host="ex.org").events
    assert isinstance(decoded, MessageEvent)
    return decoded


@pytest.mark.parametrize(
    ("attributes", "state", "acked"),
    [
        ("state='hibernated' acked='1763687990000001'", "hibernated", "2025-11-21T01:19:50.000001+00:00"),
        ("state='hibernated'", "hibernated", None),
        ("state='hibernated' acked='-1'", "hibernated", None),
        ("state='hibernated' acked='9223372036854775807'", "hibernated", None),
        ("state='active' acked='1763687990000001'", "active", None),
    ],
)
def test_a_session_that_hibernates_says_how_far_its_client_has_everything(
    attributes: str, state: str, acked: str | None
) -> None:
    """In hello, in the list of all sessions, in a session's event, and in what a message lists."""
    listed = parse(f"<sessions xmlns='{FEED}'><session jid='ann@ex.org/phone' {attributes}/></sessions>")
    (present,) = decode_sessions(listed, host="ex.org")
    heard = parse(HELLO.replace("<session jid='ann@ex.org/phone' state='active'/>", serialise(listed[0])))
    (greeted,) = decode_hello(heard, host="ex.org").sessions
    message = (
        "<event n='{}' kind='message' account='ann@ex.org' at='1' resource='web' direction='in'>"
        f"<sessions><s r='phone' {attributes}/></sessions>"
        "<message xmlns='jabber:client' from='bob@ex.net/x' type='chat' id='m1'><body>b</body></message></event>"
    )
    changed = f"<event n='{{}}' kind='session' account='ann@ex.org' at='1' resource='phone' {attributes}/>".replace(
        "'active'", "'available'"
    )
    told, change = decode_feed(_frame(message, changed), host="ex.org").events
    assert isinstance(told, MessageEvent)
    assert isinstance(change, SessionEvent)
    at = None if acked is None else datetime.fromisoformat(acked)
    expected = Session("phone", SessionState(state), at)
    assert present.session == greeted.session == told.sessions[0] == becomes(change) == expected


@pytest.mark.parametrize("vector", load("feed"))
def test_frames(vector: Element) -> None:
    check(vector, lambda frame: fed(frame, rooms=of_rooms(vector)))


@pytest.mark.parametrize("vector", load("malformed"))
def test_a_malformed_event_costs_only_itself(vector: Element) -> None:
    good = GOOD_ROOM if of_rooms(vector) else GOOD
    batch = fed(_frame(good, vector[0], good), rooms=of_rooms(vector))
    bad = [event for event in batch.events if isinstance(event, Malformed)]
    assert [(b.position.n, b.why, b.account) for b in bad] == [(2, vector.get("why"), vector.get("account"))]
    assert bad[0].xml == serialise(vector[0])
    assert bad[0].room is (of_rooms(vector) and bool(vector.get("account")))


@pytest.mark.parametrize("bad", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("where", ["account", "resource", "archive-id", "body", "id"])
def test_what_the_store_cannot_hold_is_malformed(bad: str, where: str) -> None:
    """Postgres: no U+0000 in a text, no half of a surrogate pair. Expat lets neither through; a bug might."""
    frame = _frame("<event n='{}' kind='message' account='ann@ex.org' at='1' direction='in'/>")
    message = parse("<message xmlns='jabber:client' from='bob@ex.net'><body/></message>")
    frame[0].append(message)
    if where == "body":
        message[0].text = bad
    elif where == "id":
        message.set("id", bad)
    else:
        frame[0].set(where, f"{bad}@ex.org" if where == "account" else bad)
    (event,) = decode_feed(frame, host="ex.org").events
    assert isinstance(event, Malformed)
    assert "\0" not in event.xml
    event.xml.encode()


def test_jids_are_bounded_in_bytes() -> None:
    """RFC 7622 §3.1: at most 3,071 octets."""
    frame = _frame(GOOD)
    frame[0].set("account", "é" * 1600 + "@ex.org")
    (event,) = decode_feed(frame, host="ex.org").events
    assert isinstance(event, Malformed)
    assert event.why == "account"


@pytest.mark.parametrize(
    ("direction", "attributes", "peer", "sender"),
    [
        ("in", "from='bob@ex.net/p' to='ann@ex.org'", "bob@ex.net", "bob@ex.net/p"),
        ("in", "from='ex.net'", "ex.net", "ex.net"),
        ("in", "", "ann@ex.org", "ann@ex.org"),
        ("out", "from='ann@ex.org/web' to='bob@ex.net/p'", "bob@ex.net", "ann@ex.org/web"),
        ("out", "to='bob@ex.net'", "bob@ex.net", "ann@ex.org/web"),
        ("out", "", "ann@ex.org", "ann@ex.org/web"),
    ],
)
def test_peer_and_sender(direction: str, attributes: str, peer: str, sender: str) -> None:
    event = _message(direction, attributes)
    assert (event.peer, event.sender) == (peer, sender)


def test_a_session_under_a_name_of_too_many_bytes_is_left_out() -> None:
    long = f"<session jid='{'é' * 2000}@ex.org/x' state='active'/>"
    heard = parse(HELLO.replace("</hello>", long + "</hello>"))
    assert [session.account for session in decode_hello(heard, host="ex.org").sessions] == ["ann@ex.org"]


def test_hello() -> None:
    hello = decode_hello(parse(HELLO), host="ex.org")
    assert [(s.id, s.low, s.high, s.acked, s.current) for s in hello.streams] == [
        ("s0", 1201, 1300, 1200, False),
        ("s1", 1, 0, 0, True),
    ]
    assert hello.regressed == ("s9",)
    assert [(s.account, s.session.resource) for s in hello.sessions] == [("ann@ex.org", "phone")]
    assert (hello.server, hello.ordered_archive, hello.rooms) == ("Prosody", False, False)


def test_hello_of_a_muc_host() -> None:
    assert decode_hello(parse(HELLO.replace("shard='0'", "shard='0' rooms='true'")), host="ex.org").rooms


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("version='1'", "version='2'"),
        ("host='ex.org'", "host='ex.net'"),
        ("low='1201'", "low='x'"),
        ("low='1201'", "low='1302'"),
        ("acked='0'", ""),
        ("<regressed stream='s9'/>", "<regressed/>"),
        ("<stream ", "<river "),
    ],
)
def test_a_hello_that_breaks_the_protocol_is_refused(part: str, instead: str) -> None:
    assert part in HELLO
    with pytest.raises(FrameError):
        decode_hello(parse(HELLO.replace(part, instead)), host="ex.org")


@pytest.mark.parametrize(
    ("flags", "current"), [("", [False, True]), ("current='true'", [True, True]), ("current='1'", [False, True])]
)
def test_each_node_of_a_cluster_may_have_a_current_stream(flags: str, current: list[bool]) -> None:
    hello = decode_hello(parse(HELLO.replace("acked='1200'", f"acked='1200' {flags}")), host="ex.org")
    assert [stream.current for stream in hello.streams] == current


def test_where_none_says_so_the_last_stream_is_current() -> None:
    hello = decode_hello(parse(HELLO.replace("current='true'", "")), host="ex.org")
    assert [stream.current for stream in hello.streams] == [False, True]


@pytest.mark.parametrize(
    ("versions", "found"),
    [("2", (2,)), ("3 2", (2, 3)), ("2,3", (2, 3)), ("two", ()), ("", ()), ("-1 2", (2,)), ("1 " * 99, (1,) * 16)],
)
def test_a_refusal_says_what_the_module_speaks(versions: str, found: tuple[int, ...]) -> None:
    condition = "<not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
    refusal = f"<iq type='error'><error type='cancel'>{condition}{{}}</error></iq>"
    unsupported = f"<unsupported-version xmlns='{FEED}' versions='{versions}'/>"
    assert versions_of(parse(refusal.format(unsupported))) == found
    assert versions_of(parse(refusal.format(""))) is None


def test_sessions() -> None:
    answer = "<sessions xmlns='urn:convsync:feed:0'><session jid='ann@ex.org/a/b' state='hibernated'/></sessions>"
    (present,) = decode_sessions(parse(answer), host="ex.org")
    assert (present.account, present.session.resource, present.session.state) == ("ann@ex.org", "a/b", "hibernated")


def test_to_the_module() -> None:
    stanza = parse("<iq xmlns='jabber:client' type='set' id='n1'/>")
    assert [
        serialise(feed.ack("s1", 18)),
        serialise(feed.subscribe([("s1", 1207)])),
        serialise(feed.deliver(stanza, account="ann@ex.org", resource="web")),
        serialise(feed.sessions_request()),
        serialise(feed.displayed(ConversationKey("ann@ex.org", "tea@rooms.ex.org/Bob"), "a'1")),
        serialise(feed.displayed(ConversationKey("ann@ex.org", "tea@rooms.ex.org", Kind.GROUP), "r1")),
    ] == [
        '<ack xmlns="urn:convsync:feed:0" stream="s1" n="18"/>',
        '<subscribe xmlns="urn:convsync:feed:0" versions="1" buckets="0-255"><stream id="s1" n="1207"/></subscribe>',
        '<deliver xmlns="urn:convsync:feed:0" account="ann@ex.org" resource="web">'
        '<iq xmlns="jabber:client" type="set" id="n1"/></deliver>',
        '<sessions xmlns="urn:convsync:feed:0"/>',
        """<displayed xmlns="urn:convsync:feed:0" account="ann@ex.org" jid="tea@rooms.ex.org/Bob" id="a'1" """
        'by="ann@ex.org"/>',
        '<displayed xmlns="urn:convsync:feed:0" account="ann@ex.org" jid="tea@rooms.ex.org" id="r1" '
        'by="tea@rooms.ex.org"/>',
    ]


def test_a_batch_is_a_value() -> None:
    frame = _frame(GOOD, GOOD)
    assert decode_feed(frame, host="ex.org") == decode_feed(frame, host="ex.org")
    assert isinstance(decode_feed(frame, host="ex.org"), FeedBatch)


GAP = "<event n='{}' kind='gap' account='ex.org' at='1' reason='torn'/>"


def test_a_gap_is_of_the_host() -> None:
    (event,) = decode_feed(_frame(GAP), host="ex.org").events
    assert isinstance(event, GapEvent)
    assert (event.account, event.reason) == ("ex.org", GapReason.TORN)


@pytest.mark.parametrize("wrong", [("torn", "bored"), ("ex.org", "ann@ex.org"), ("ex.org", "ex.net"), ("at='1'", "")])
def test_a_gap_that_is_none(wrong: tuple[str, str]) -> None:
    (event,) = decode_feed(_frame(GAP.replace(*wrong)), host="ex.org").events
    assert isinstance(event, Malformed)
    assert event.account == ""


def test_a_gap_is_the_first_of_its_stream() -> None:
    assert isinstance(decode_feed(_frame(GOOD, GAP), host="ex.org").events[1], Malformed)
