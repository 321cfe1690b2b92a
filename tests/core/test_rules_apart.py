"""Encrypted chats apart, by hand: places that all conversations with a peer share, and how far all of them are read."""

from dataclasses import replace

import pytest

from sync.model.books import Books
from sync.model.conversation import ENCRYPTED, Base, Behind, ConversationKey, Direction, Kind, Pointer
from sync.model.event import Body, Displayed, FeedPosition, MessageEvent
from sync.rules.apart import read_everywhere
from sync.rules.history import known_places, occupied
from sync.rules.properties import END, read_by_all
from sync.rules.view import Conduct, View
from tests.contract.samples import ANN, BOB, IN_TEA, NOW, WITH_BOB, account, conversation, message

SEALED = replace(WITH_BOB, kind=Kind.OMEMO_2)
EVENT = MessageEvent(
    position=FeedPosition("example.org", "s", "main", 1),
    account=ANN,
    at=NOW,
    direction=Direction.IN,
    peer=BOB,
    sender=f"{BOB}/phone",
    content=Body(),
    stanza="<message/>",
    archive_id="a2",
)


def test_keys_of_one_peer() -> None:
    assert [key.kind for key in WITH_BOB.alike] == [Kind.CHAT, *ENCRYPTED]
    assert all(key.alike == WITH_BOB.alike and key.plain == WITH_BOB for key in WITH_BOB.alike)
    assert (IN_TEA.alike, IN_TEA.plain) == ((IN_TEA,), IN_TEA)


def test_a_room_is_no_encrypted_chat() -> None:
    room = ConversationKey(ANN, BOB, Kind.GROUP)
    assert (room.alike, room.plain) == ((room,), room)


@pytest.mark.parametrize(
    ("apart", "were", "several"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_where_there_may_be_several(apart: bool, were: bool, several: bool) -> None:
    assert Conduct(encrypted_apart=apart, were_apart=were).several is several


def test_a_place_is_taken_in_whatever_conversation_it_is() -> None:
    """A correction may go to any of them: it must not meet another message there."""
    books = Books(now=NOW, messages={SEALED: [message(5, key=SEALED, archive_key="a1")]})
    assert occupied([replace(EVENT, rank=5)], books) == {(WITH_BOB, 5)}
    assert occupied([replace(EVENT, rank=6)], books) == frozenset()
    assert occupied([replace(EVENT, rank=5, archive_id="a1")], books) == frozenset()  # it is that one


def test_what_is_known_is_known_of_the_peer() -> None:
    found = [message(5, key=SEALED, archive_key="a1"), message(6, key=SEALED)]
    books = Books(now=NOW, messages={SEALED: found, WITH_BOB: [message(7, archive_key="a2")]})
    assert known_places(books).value == {(WITH_BOB, "a1"): 5, (WITH_BOB, "a2"): 7}


@pytest.mark.parametrize(
    ("unread", "base", "oldest", "told"),
    [
        (0, Base(), None, "a9"),
        (1, Base(), 4, "a3"),
        (1, Base(), 3, "a2"),
        (1, Base(), 12, "a9"),
        (2, Base(unread=1, rank=5), 12, "a2"),  # who knows where it was
    ],
)
def test_how_far_all_are_read(unread: int, base: Base, oldest: int | None, told: str) -> None:
    sealed = replace(conversation(2, unread=unread, base=base, read=Pointer(2, "a2")), key=SEALED)
    plain = conversation(1, read=Pointer(9, "a9"))
    old = replace(conversation(3, read=Pointer(3, "a3")), key=replace(WITH_BOB, kind=Kind.AXOLOTL))
    books = Books(now=NOW, behind={(SEALED, END): Behind(0, 0, oldest)})
    found = read_by_all(plain, {one.key: one for one in (plain, sealed, old)}, books)
    assert found is not None
    assert found.read.id == told


@pytest.mark.parametrize(
    "event",
    [
        replace(EVENT, content=Displayed("a1")),  # the peer's
        replace(EVENT, content=Displayed("a1"), direction=Direction.OUT),  # XEP-0333
        replace(EVENT, content=Displayed("a1"), direction=Direction.OUT, stanza="", stored=False),
        replace(EVENT, content=Displayed("a1"), direction=Direction.OUT, stanza="", blocked=True),
        replace(EVENT, content=Displayed("a1"), direction=Direction.OUT, stanza="", kind=Kind.GROUP),
        replace(EVENT, content=Displayed("a8"), direction=Direction.OUT, stanza=""),
        replace(EVENT, direction=Direction.OUT, stanza=""),
    ],
)
def test_what_reads_one_conversation_only(event: MessageEvent) -> None:
    view = View(account=account(), key=SEALED, found=(message(5, key=SEALED, archive_key="a1", archive_id="a1"),))
    assert read_everywhere(event, view) == ()
    mark = replace(EVENT, content=Displayed("a1"), direction=Direction.OUT, stanza="", kind=Kind.OMEMO_2)
    assert {key.kind: pointer for key, pointer in read_everywhere(mark, view)} == {
        kind: Pointer(5, "a1") for kind in (Kind.CHAT, Kind.OMEMO_1, Kind.AXOLOTL)
    }
