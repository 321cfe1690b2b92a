"""Inbox (XEP-0430): what is asked, what comes before the answer, the counts, and the places between two pages."""

from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import ConversationKey, Kind, LastMessage
from sync.model.errors import ItemNotFound
from sync.model.query import InboxEntry, InboxPage, InboxPlace, InboxQuery
from sync.protocol import inbox
from sync.protocol.cursor import decode_cursor, decode_place, encode_cursor, encode_place
from sync.protocol.names import INBOX, MAM, clark
from tests.core.protocol_vectors import check, load, shape, xml_of
from tests.core.test_protocol_synchronization import (
    ANN,
    AT,
    BOB,
    CORRECTION,
    CURSORS,
    FORGED,
    NUMBERS,
    SAID_IN_TEA,
    TEA,
    _last,
)

IN_TEA = ConversationKey(ANN, "tea@rooms.ex.org/Bob")
PRIVATE = LastMessage(
    rank=1,
    stanza=f"<message xmlns='jabber:client' from='{IN_TEA.peer}' to='{ANN}/web' type='chat' id='x'>"
    "<body>hi</body></message>",
    message_id="m1",
    archive_id="a1",
    sent_at=AT,
)
ACTIVITY = 1763687990000001


def _entry(key: ConversationKey = BOB, **fields: Any) -> InboxEntry:
    given_ = {"version": 5, "activity": ACTIVITY, "unread": 0} | fields
    return InboxEntry(key=key, **given_)


def _page(*items: InboxEntry, **fields: Any) -> InboxPage:
    counts = {"version": 9, "total": 120, "unread_conversations": 4, "unread": 17}
    return InboxPage(**{"query": InboxQuery(limit=9), "items": items} | counts | fields)


def _message(**fields: Any) -> Element:
    [message] = inbox.messages(_page(_entry(**fields)), to=f"{ANN}/web", query_id="i1")
    return message


ANSWERS = {
    "an entry and its message": lambda: _message(
        unread=5, archive_id="a9", last=_last(FORGED, message_id="m9", archive_id="a9")
    ),
    "an entry alone": lambda: _message(archive_id="a1"),
    "nothing is archived": lambda: _message(unread=1, last=_last("<body>hi</body>", archive_id=None)),
    "a corrected message": lambda: _message(unread=1, archive_id="a5", last=_last(CORRECTION)),
    "a retracted message": lambda: _message(archive_id="a6", last=_last("<body>secret</body>", retracted=True)),
    "a room": lambda: _message(key=TEA, unread=2, archive_id="r3", last=SAID_IN_TEA),
    "a private message of a room": lambda: _message(key=IN_TEA, unread=1, archive_id="a1", last=PRIVATE),
    "the last word": lambda: inbox.fin(_page(_entry(), _entry(key=TEA, version=9)), account=ANN),
    "the last word about unread ones": lambda: inbox.fin(
        _page(query=InboxQuery(limit=0, unread_only=True)), account=ANN
    ),
}


@pytest.mark.parametrize("vector", load("inbox"))
def test_queries(vector: Element) -> None:
    kind = vector.get("kind", "")
    check(vector, lambda payload: inbox.decode_query(payload, account=ANN, kind=kind))


@pytest.mark.parametrize("vector", load("inbox_answers"))
def test_answers(vector: Element) -> None:
    assert shape(ANSWERS[str(vector.get("name"))]()) == xml_of(vector)


def test_every_answer_is_a_vectors() -> None:
    assert ANSWERS.keys() == {parameter.id for parameter in load("inbox_answers")}


@pytest.mark.parametrize(
    ("kilobytes", "shown"), [((64,), [0]), ((63,), [1]), ((63,) * 17 + (1,), [1] * 16 + [0, 1])], ids=len
)
def test_what_a_page_may_take(kilobytes: tuple[int, ...], shown: list[int]) -> None:
    """One message of 64 kB, a megabyte in all."""
    items = [_entry(archive_id="a1", last=_last(f"<body>{'é' * 512 * size}</body>")) for size in kilobytes]
    messages = inbox.messages(_page(*items), to=f"{ANN}/web", query_id="i1")
    assert [len(message.findall(clark(MAM, "result"))) for message in messages] == shown


def test_messages_are_made_when_they_are_wanted() -> None:
    messages = inbox.messages(_page(_entry(), _entry(last=_last("<broken"), archive_id="a1")), to=ANN, query_id="i1")
    assert next(messages).find(clark(INBOX, "entry")) is not None


PLACES = st.builds(
    lambda newest, version, activity, peer, kind: InboxPlace(
        newest=newest, version=version, activity=activity, peer=peer, kind=kind
    ),
    NUMBERS, NUMBERS, NUMBERS,
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40), st.sampled_from(Kind),
)  # fmt: skip


@given(PLACES)
def test_a_place_comes_back_as_it_was(place: InboxPlace) -> None:
    text = encode_place(place, account=ANN)
    assert decode_place(text, account=ANN) == place
    assert text.replace("-", "").replace("_", "").isalnum()


@given(PLACES, st.data())
def test_a_place_that_was_touched_names_nothing(place: InboxPlace, data: st.DataObject) -> None:
    text = encode_place(place, account=ANN)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in "AZaz09-_=+/é" if c != text[at]]))
    for touched in (text[:at] + other + text[at + 1 :], text[:at], text + other):
        with pytest.raises(ItemNotFound):
            decode_place(touched, account=ANN)
    with pytest.raises(ItemNotFound):
        decode_place(text, account="eve@ex.org")


@given(st.text(max_size=60))
def test_what_is_no_place_names_nothing(text: str) -> None:
    with pytest.raises(ItemNotFound):
        decode_place(text, account=ANN)


@pytest.mark.parametrize("name", ["newest", "version", "activity"])
@pytest.mark.parametrize("number", [-1, -(2**63)])
def test_no_place_of_ours_has_numbers_below_0(name: str, number: int) -> None:
    good = InboxPlace(newest=9, version=8, activity=1, peer="bob@ex.net", kind=Kind.CHAT)
    with pytest.raises(ItemNotFound):
        decode_place(encode_place(replace(good, **{name: number}), account=ANN), account=ANN)  # type: ignore[arg-type]
    assert decode_place(encode_place(good, account=ANN), account=ANN) == good


@given(PLACES, CURSORS)
def test_each_list_has_places_of_its_own(place: InboxPlace, cursor: Any) -> None:
    with pytest.raises(ItemNotFound):
        decode_cursor(encode_place(place, account=ANN), account=ANN)
    with pytest.raises(ItemNotFound):
        decode_place(encode_cursor(cursor, account=ANN), account=ANN)
