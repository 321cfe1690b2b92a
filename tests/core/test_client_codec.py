"""The client's codec: what it sends is by the schema and is read by the server as it was meant; what it reads are the
examples of the specification; what is broken is `BadAnswer` and nothing else.
"""

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.client import codec
from sync.client.cache import Cache, apply
from sync.client.errors import BadAnswer, Conflict, NotFound, RequestFailed, TryLater, failure
from sync.client.events import CallEnded, CallRings, ConversationChanged, ConversationRemoved, Happened
from sync.client.storage import dumps, loads
from sync.client.values import FOR_EVER, Key, Last, Notice, Page, Quiet, Removed, Row, Settings, Totals
from sync.model.query import Mute, MuteUntil, SetQuiet, Unmute
from sync.protocol import convsync
from sync.protocol.delta import decode_call, decode_sync
from sync.protocol.names import CLIENT, CONVSYNC, clark
from sync.protocol.quiet import read_quiet
from tests.core.convsync_schema import faults, wrapped

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BOB = Key("bob@example.net")
EARLIER, AT = datetime(2025, 11, 21, 1, tzinfo=UTC), datetime(2025, 11, 21, 1, 19, 50, tzinfo=UTC)


def examples(name: str) -> dict[str, ET.Element]:
    """The payloads of this name in answers and notices of the specification, by the stanza's id (notices: number)."""
    found = {}
    for block in re.findall(r"```xml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        for number, stanza in enumerate(ET.fromstring(f"<r xmlns='{CLIENT}'>{block}</r>")):  # noqa: S314
            payload = stanza.find(clark(CONVSYNC, name))
            if payload is not None and stanza.get("type") in ("result", "headline"):
                found[stanza.get("id") or f"{name}{len(found)}{number}"] = payload
    return found


# ---- requests --------------------------------------------------------------------------------------------------------


def test_a_sync_is_by_the_schema_and_is_read_as_it_was_meant() -> None:
    request = codec.encode_sync(
        {"max": 50, "messages": False, "live": True, "at-least": 7, "kind": "group", "unread": True, "jid": None}
    )
    assert faults(wrapped(request, "get")) == []
    read = decode_sync(request, account="ann@example.org")
    assert (read.limit, read.messages, read.changes, read.live, read.at_least) == (50, False, True, True, 7)
    assert (read.filters.kind, read.filters.unread, read.filters.peer) == ("group", True, None)
    assert faults(wrapped(codec.encode_sync({"token": None}), "get")) == []


@pytest.mark.parametrize(
    ("wish", "read"),
    [
        (True, Mute(None)),
        (False, Unmute()),
        (timedelta(hours=1), Mute(timedelta(hours=1))),
        (timedelta(milliseconds=3), Mute(timedelta(seconds=1))),
        (NOON.astimezone(timezone(timedelta(hours=2))), MuteUntil(NOON)),
        (None, None),
    ],
)
def test_muting_is_read_as_it_was_meant(wish: timedelta | datetime | bool | None, read: object) -> None:
    request = codec.encode_set([Settings(jid=BOB.jid, muted=wish, pinned=0)])
    assert faults(wrapped(request, "set")) == []
    (properties,) = convsync.decode(request, account="ann@example.org", kind="set")  # type: ignore[misc]
    assert properties.mute == read


def test_the_other_requests_are_by_the_schema_and_read_as_meant() -> None:
    wish = Settings(jid=BOB.jid, status="archived", marked_unread=False, notify="default", read="a1", if_version=4)
    request = codec.encode_set([wish, Settings(jid="tea@rooms.example.org", kind="group", pinned=3)])
    assert faults(wrapped(request, "set")) == []
    first, second = convsync.decode(request, account="ann@example.org", kind="set")  # type: ignore[misc]
    assert (first.read, first.if_version, first.marked_unread, first.status) == ("a1", 4, False, "archived")
    assert (second.peer, second.kind, second.pinned) == ("tea@rooms.example.org", "group", 3)
    for asked in (
        codec.encode_changes(BOB, since=3, most=None),
        codec.encode_conversation(Key("tea@rooms.example.org", "group")),
        codec.encode_call("sid", None),
        codec.encode_call("sid", BOB.jid),
    ):
        assert faults(wrapped(asked, "get")) == []
    assert decode_call(codec.encode_call("sid", None)).peer is None
    with pytest.raises(ValueError, match="zone"):
        codec.encode_set([Settings(jid=BOB.jid, muted=NOON.replace(tzinfo=None))])


# ---- answers: the examples of the specification ----------------------------------------------------------------------


def test_the_specifications_story_is_read_and_taken() -> None:
    pages = examples("sync")
    first = codec.decode_page(pages["s1"], asked=None, continued=False)
    assert (first.more, first.totals) == (True, Totals(unread=4, mentions=1, conversations=2))
    cache = apply(Cache(), first).cache
    tea = cache.conversations[Key("tea@rooms.example.org", "group")]
    assert (tea.notify, tea.unread_mention, tea.read, tea.pinned) == ("on-mention", "r71", "r70", 1763600000)
    assert tea.muted_until == datetime(2025, 11, 21, 6, tzinfo=UTC)
    assert tea.muted(datetime(2025, 11, 21, 5, tzinfo=UTC))
    assert not tea.muted(datetime(2025, 11, 21, 7, tzinfo=UTC))
    bob = cache.conversations[BOB]
    assert bob.last is not None
    assert (bob.last.body, bob.last.id, bob.last.stanza_id) == ("The train is late, start without me", "m9", "a420")
    assert bob.last.sent_at == datetime(2025, 11, 21, 1, 19, 50, 1, tzinfo=UTC)
    cache = apply(cache, codec.decode_page(pages["s2"], asked=first.token, continued=True)).cache
    carol = cache.conversations[Key("carol@example.com")]
    assert carol.last is not None
    assert (carol.last.left_out, carol.muted_until, carol.marked_unread) == (True, FOR_EVER, True)
    assert loads(dumps(cache)) == cache

    step = apply(cache, codec.decode_page(pages["s3"], asked=cache.token, continued=False))
    kinds = [type(event) for event in step.events]
    assert kinds[:2] == [CallRings, CallEnded]
    rings, ended = (event.call for event in step.events[:2])  # type: ignore[union-attr]
    assert (rings.jid, rings.media, rings.age, rings.left) == ("carol@example.com", ("audio", "video"), 12, 47)
    assert (ended.state, ended.by) == ("answered", "web")
    happened = [event for event in step.events if isinstance(event, Happened)]
    assert [[change.kind for change in event.changes] for event in happened] == [["corrected", "reacted"]]
    assert happened[0].changes[0].body == "The train is late, start with tea"
    assert happened[0].changes[1].reactions == ("👍",)
    # Dave was never told, so there is nobody to remove.
    assert ConversationRemoved not in kinds
    assert kinds.count(ConversationChanged) == 2
    # Nothing new: Carol's call rings on.
    quiet = apply(step.cache, codec.decode_page(pages["s4"], asked=step.cache.token, continued=False))
    assert quiet.events == ()
    assert [call.jid for call in quiet.cache.ringing] == ["carol@example.com"]


def test_the_specifications_notices_are_read() -> None:
    notices = [codec.decode_notice(found) for found in examples("live").values()]
    assert [(notice.more, len(notice.rows)) for notice in notices] == [(False, 1), (False, 1), (True, 0)]
    at = Cache(version=notices[0].previous, token="t")
    step = apply(at, notices[0])
    assert (step.cache.version, step.ask) == (notices[0].version, False)
    assert apply(step.cache, notices[1]).ask
    assert apply(replace_version(step.cache, notices[2].previous), notices[2]).ask


def replace_version(cache: Cache, version: int) -> Cache:
    return Cache(version=version, token=cache.token, conversations=cache.conversations)


def test_the_other_answers_of_the_specification_are_read() -> None:
    sets = examples("set")
    assert [(key.jid, version > 0) for key, version in codec.decode_set(sets["p1"]).items()] == [
        ("bob@example.net", True),
        ("tea@rooms.example.org", True),
    ]
    hours = {"begin": "22:00", "end": "07:00", "zone": "Europe/Berlin"}
    noon = datetime(2025, 11, 21, 12, tzinfo=UTC)
    assert codec.decode_quiet(sets["h1"]) == Quiet(calls=True, **hours)
    assert codec.decode_quiet(sets["h2"]) == Quiet(until=noon, **hours)
    assert codec.decode_quiet(sets["h4"]) is None
    assert codec.decode_page(examples("sync")["h3"], asked="t", continued=False).quiet == Quiet(until=noon, **hours)
    history = codec.decode_history(examples("changes")["c1"])
    assert (history.key, history.reload, len(history.changes)) == (BOB, False, 5)
    answer = examples("call")["k1"]
    call = codec.decode_call(answer)
    assert (call.state, call.rings, call.left, call.continues) == ("missed", False, 0, None)
    answer.set("continues", "s0")
    assert codec.decode_call(answer).continues == "s0"
    conversation = codec.decode_conversation(examples("conversation")["o1"])
    assert (conversation.key, conversation.read, conversation.last) == (BOB, "a431", None)
    filtered = codec.decode_page(examples("sync")["f2"], asked="t", continued=False)
    assert filtered.rows == (Removed(jid="carol@example.com", version=1763691900000002, outside=True),)


# ---- what is not as it should be -------------------------------------------------------------------------------------

NAMES = st.sampled_from(["sync", "live", "totals", "call", "conversation", "changes", "change", "last", "read", "more"])
VALUES = st.one_of(
    st.sampled_from(["", "0", "7", "-1", "٣", "1e3", "9" * 40, "true", "deleted", "ringing", "2026-01-01T00:00:00Z"]),
    st.sampled_from(["2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "forever", "chat"]),
    st.text(max_size=5),
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        [
            *("token", "version", "previous", "time", "more", "jid", "kind", "id", "state", "unread", "pinned", "by"),
            *("activity", "status", "muted-until", "proposed", "age", "left", "reset", "outside", "mentions"),
        ]
    ),
    VALUES,
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> ET.Element:
    element = ET.Element(clark(CONVSYNC, draw(NAMES)), draw(ATTRIBUTES))
    if depth:
        element.extend(draw(st.lists(elements(depth - 1), max_size=3)))
    return element


@given(elements())
def test_whatever_is_answered_is_read_or_is_a_bad_answer(element: ET.Element) -> None:
    for read in (
        lambda: codec.decode_page(element, asked="t", continued=False),
        lambda: codec.decode_notice(element),
        lambda: codec.decode_history(element),
        lambda: codec.decode_call(element),
        lambda: codec.decode_conversation(element),
        lambda: codec.decode_set(element),
    ):
        try:
            value = read()
        except BadAnswer as error:
            assert len(str(error)) < 80  # noqa: PT017 - what was wrong is not repeated
        else:
            if isinstance(value, Page | Notice):
                apply(Cache(version=3, token="t"), value)


def test_a_newer_server_may_say_more() -> None:
    page = examples("sync")["s2"]
    page.set("colour", "green")
    page.append(ET.Element(clark(CONVSYNC, "weather")))
    page[1].set("mood", "good")
    page[1].append(ET.Element(clark(CONVSYNC, "weather")))
    found = codec.decode_page(page, asked=None, continued=False)
    assert [row.conversation.jid for row in found.rows if isinstance(row, Row)] == ["carol@example.com"]


@pytest.mark.parametrize(
    ("condition", "kind", "found"),
    [
        ("conflict", "cancel", Conflict),
        ("item-not-found", "cancel", NotFound),
        ("resource-constraint", "wait", TryLater),
        ("internal-server-error", "wait", TryLater),
        ("undefined-condition", "cancel", RequestFailed),
    ],
)
def test_conditions_are_exceptions(condition: str, kind: str, found: type[RequestFailed]) -> None:
    error = failure(condition, kind, "It is so.")
    assert type(error) is found
    assert (error.condition, error.type, error.text) == (condition, kind, "It is so.")
    assert str(error) == f"{condition}: It is so."


@pytest.mark.parametrize(
    "quiet",
    [
        None,
        Quiet(until=FOR_EVER, calls=True),
        Quiet(until=datetime(2030, 1, 2, tzinfo=UTC), begin="22:00", end="07:30", zone="Europe/Berlin"),
    ],
)
def test_quiet_hours_arrive_as_they_were_meant(quiet: Quiet | None) -> None:
    """The client's request, read by the server, whose answer the client reads."""
    asked = convsync.decode(codec.encode_quiet(quiet), account="ann@example.org", kind="set")
    assert isinstance(asked, SetQuiet)
    assert codec.decode_quiet(convsync.encode_quiet(asked.quiet, now=datetime(2029, 1, 1, tzinfo=UTC))) == quiet


def test_quiet_hours_that_are_over_are_not_told() -> None:
    over = SetQuiet(read_quiet(codec.encode_quiet(Quiet(until=datetime(2030, 1, 2, tzinfo=UTC)))[0]))
    assert codec.decode_quiet(convsync.encode_quiet(over.quiet, now=datetime(2030, 1, 2, tzinfo=UTC))) is None
    with pytest.raises(ValueError, match="until"):
        codec.encode_quiet(Quiet(until=datetime(2030, 1, 2)))


def test_the_rows_of_a_list_are_read() -> None:
    page = codec.decode_page(examples("sync")["r1"], asked=None, continued=False)
    bob, tea, carol = (row.conversation for row in page.rows if isinstance(row, Row))
    at = datetime(2025, 11, 21, 1, 19, 50, 1, tzinfo=UTC)
    assert bob.last == Last(stanza_id="a420", sent_at=at, body="The train is late, s", brief=True, cut=True)
    assert (bob.unread, bob.mentions, bob.status, bob.pinned, bob.notify) == (3, 0, "active", 0, "default")
    assert tea.last is not None
    assert (tea.last.sender, tea.last.body, tea.last.left_out) == ("tea@rooms.example.org/Bob", "Ann, tea?", False)
    assert carol.last is not None
    assert carol.last.left_out
    cache = apply(Cache(), page).cache
    assert loads(dumps(cache)) == cache


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("<last id='m1'/>", Last(id="m1", sent_at=AT, body="", brief=True)),
        ("<last stanza-id='a1' retracted='true'/>", Last(stanza_id="a1", sent_at=AT, retracted=True, brief=True)),
        ("<last stanza-id='a1' encrypted='true'/>", Last(stanza_id="a1", sent_at=AT, encrypted=True, brief=True)),
        ("<last sent='2025-11-21T01:00:00Z'>hi</last>", Last(sent_at=EARLIER, body="hi", brief=True)),
        ("<last left-out='true'/>", Last()),
    ],
)
def test_the_beginning_of_a_last_message_is_read(last: str, expected: Last) -> None:
    about = "xmlns='urn:convsync:0' jid='b@x' version='1' activity='2025-11-21T01:19:50Z'"
    element = ET.fromstring(f"<conversation {about}>{last}</conversation>")  # noqa: S314
    assert codec.decode_conversation(element).last == expected
