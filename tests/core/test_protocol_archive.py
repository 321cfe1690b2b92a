"""What the module says of the past (docs/feed.md §8.2), read: names, storage, pages of archives."""

from typing import Any

import pytest

from sync.model.conversation import Direction, Kind
from sync.model.event import Body, Bookmark, Displayed, Nothing
from sync.protocol import archive
from sync.protocol.archive import Item
from sync.protocol.feed import FrameError
from sync.protocol.names import BOOKMARKS, FEED, MDS
from sync.protocol.serialise import parse, serialise
from tests.contract.samples import ANN, BOB, NOW, TEA

ROOMS = frozenset({"rooms.example.org"})


def page(items: str, attributes: str = "", account: str = ANN, until: int = 10**16) -> archive.Page:
    answer = parse(f"<archive xmlns='{FEED}' {attributes}>{items}</archive>")
    return archive.decode_archive(answer, account=account, until=until, muc_hosts=ROOMS)


def item(
    sender: str, to: str, identifier: str = "a1", at: str = "1000000", inner: str = "<body>hi</body>", **more: str
) -> str:
    attributes = "".join(f" {name}='{value}'" for name, value in more.items())
    message = f"<message xmlns='jabber:client' from='{sender}' to='{to}' id='m1' type='chat'>{inner}</message>"
    return f"<item id='{identifier}' at='{at}'{attributes}>{message}</item>"


def test_requests() -> None:
    assert dict(archive.accounts_request(None).attrib) == {"max": "500"}
    assert archive.accounts_request(ANN).get("after") == ANN
    assert serialise(archive.account_request(ANN)) == f'<account xmlns="{FEED}" account="{ANN}"/>'
    asked = archive.archive_request(ANN, start=1, end=9, after="x", limit=70)
    assert dict(asked.attrib) == {"account": ANN, "start": "1", "end": "9", "after": "x", "max": "50"}


@pytest.mark.parametrize(
    ("sender", "to", "direction", "peer", "to_self"),
    [
        (f"{BOB}/phone", ANN, Direction.IN, BOB, False),
        (f"{ANN}/desk", f"{BOB}/phone", Direction.OUT, BOB, False),
        (f"{ANN}/desk", ANN, Direction.IN, ANN, True),
        ("rooms.example.org", ANN, Direction.IN, "rooms.example.org", False),
    ],
)
def test_whose_a_message_is(sender: str, to: str, direction: Direction, peer: str, to_self: bool) -> None:
    (event,) = page(item(sender, to)).events
    assert (event.direction, event.peer, event.to_self, event.archive_id) == (direction, peer, to_self, "a1")
    assert isinstance(event.content, Body)
    assert (event.account, event.sessions, event.known) == (ANN, (), False)


def test_a_page_has_its_items_in_order_whatever_can_be_read() -> None:
    found = page(item(BOB, ANN) + "<item id='a2' at='2000000'/>" + item(BOB, ANN, "a3", "3000000"), "last='true'")
    assert found.items == (Item("a1", 10**6), Item("a2", 2 * 10**6), Item("a3", 3 * 10**6))
    assert ([event.archive_id for event in found.events], found.left_out, found.last) == (["a1", "a3"], 1, True)


def test_what_is_newer_ends_the_archive() -> None:
    found = page(item(BOB, ANN) + item(BOB, ANN, "a2", "3000000"), until=2_000_000)
    assert ([event.archive_id for event in found.events], found.last) == (["a1"], True)


@pytest.mark.parametrize(("items", "last"), [("", True), (item(BOB, ANN), False)])
def test_an_empty_page_is_the_last_one(items: str, last: bool) -> None:
    assert page(items).last is last


@pytest.mark.parametrize(
    "items",
    [
        "<item at='1'/>",
        "<item id='a'/>",
        "<item id='a' at='-1'/>",
        "<item id='a' at='now'/>",
        f"<item id='{'a' * 1025}' at='1'/>",
        "<item id='a' at='99999999999999999999'/>",
    ],
)
def test_a_page_without_places_is_none(items: str) -> None:
    with pytest.raises(FrameError):
        page(items)


def test_a_time_beyond_all_time() -> None:
    assert page("<item id='a' at='9000000000000000000'/>").items == ()
    assert page("<item id='a' at='9000000000000000000'/>", until=2**63).left_out == 1


def test_a_room_has_its_authors() -> None:
    said = item(f"{TEA}/Bob", TEA, author=f"{ANN}/desk").replace("'chat'", "'groupchat'")
    (event,) = page(said, account=TEA).room_events
    assert (event.account, event.author, event.archive_id) == (TEA, ANN, "a1")
    assert page(said.replace(f" author='{ANN}/desk'", ""), account=TEA).room_events[0].author is None


def test_a_room_speaks_of_itself_only() -> None:
    assert page(item("den@rooms.example.org/Bob", TEA), account=TEA).left_out == 1


@pytest.mark.parametrize(
    "decode",
    [
        lambda answer: archive.decode_archive(answer, account=ANN, until=9, muc_hosts=ROOMS),
        lambda answer: archive.decode_account(answer, account=ANN, at=NOW),
        lambda answer: archive.decode_accounts(answer, host="example.org"),
    ],
)
def test_another_answer_is_none(decode: Any) -> None:
    with pytest.raises(FrameError):
        decode(parse(f"<sessions xmlns='{FEED}'/>"))


def test_names_of_the_host() -> None:
    inner = "".join(f"<account jid='{jid}'/>" for jid in (ANN, BOB, "example.org", f"{ANN}/desk", ""))
    found = archive.decode_accounts(parse(f"<accounts xmlns='{FEED}'>{inner}</accounts>"), host="example.org")
    assert (found.jids, found.last) == ((ANN,), False)
    assert archive.decode_accounts(parse(f"<accounts xmlns='{FEED}'/>"), host="example.org").last


def test_an_accounts_own_storage() -> None:
    mark = f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='a9'/>"
    inner = (
        f"<contact jid='{BOB}'/>"
        f"<pep node='{MDS}' item='{BOB}'><displayed xmlns='{MDS}'>{mark}</displayed></pep>"
        f"<pep node='{BOOKMARKS}' item='{TEA}'><conference xmlns='{BOOKMARKS}'><nick>A</nick></conference></pep>"
        "<pep node='elsewhere' item='x'/>"
        f"<pep node='{MDS}' item='{BOB}' resource=''/><pep node='{MDS}' item='{BOB}' resource='{'r' * 4000}'/>"
    )
    answer = parse(f"<account xmlns='{FEED}' jid='{ANN}'>{inner}</account>")
    marked, bookmark, other, empty = archive.decode_account(answer, account=ANN, at=NOW)
    assert (marked.peer, marked.kind, marked.content) == (BOB, Kind.CHAT, Displayed("a9", ("a9",)))
    assert (bookmark.peer, bookmark.kind, bookmark.content) == (TEA, Kind.GROUP, Bookmark(None, "A"))
    assert isinstance(other.content, Nothing)
    assert isinstance(empty.content, Nothing)
    with pytest.raises(FrameError):
        archive.decode_account(answer, account=BOB, at=NOW)
