"""What is asked of the module about the past (docs/feed.md §8): the names of accounts, what an account keeps about its
conversations, and pages of archives.

An item of an archive is read as the event that the feed would have told, by the same decoders; one that breaks the
protocol is left out and counted, its place in the archive stays. What the module answers must be about what was asked.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element

from sync.model.event import FeedPosition, MessageEvent, RoomMessageEvent
from sync.model.jid import bare, domain
from sync.protocol.feed import FrameError
from sync.protocol.fields import Refused, jid, number, storable
from sync.protocol.messages import decode_message_event
from sync.protocol.names import FEED, clark
from sync.protocol.pep import decode_pep
from sync.protocol.rooms import decode_room_message
from sync.protocol.stanza import MESSAGE

MAX_NAMES, MAX_ITEMS = 500, 50
_ACCOUNTS, _ACCOUNT, _ARCHIVE = clark(FEED, "accounts"), clark(FEED, "account"), clark(FEED, "archive")
_ITEM, _PEP, _EVENT = clark(FEED, "item"), clark(FEED, "pep"), clark(FEED, "event")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ID_CHARS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Some accounts of a host, sorted, or its rooms; `last`: there are none behind these."""

    jids: tuple[str, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class Item:
    """An item of an archive: its id, and its time in microseconds."""

    id: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of an account's archive, oldest first. `events` are those of its items that could be read; `left_out` says
    how many could not. `last`: the archive has none behind these.
    """

    items: tuple[Item, ...]
    events: tuple[MessageEvent, ...] = ()
    room_events: tuple[RoomMessageEvent, ...] = ()
    left_out: int = 0
    last: bool = False


# ---- requests -------------------------------------------------------------------------------------------------------


def accounts_request(after: str | None) -> Element:
    """Payload of an IQ get: the host's accounts behind one."""
    return Element(_ACCOUNTS, {"max": str(MAX_NAMES)} | ({"after": after} if after else {}))


def account_request(account: str) -> Element:
    """Payload of an IQ get: what an account keeps about its conversations."""
    return Element(_ACCOUNT, {"account": account})


def archive_request(account: str, *, start: int, end: int, after: str | None, limit: int) -> Element:
    """Payload of an IQ get: a page of an archive, between two times in microseconds, behind an item."""
    attributes = {"account": account, "start": str(start), "end": str(end), "max": str(min(limit, MAX_ITEMS))}
    return Element(_ARCHIVE, attributes | ({"after": after} if after else {}))


# ---- answers --------------------------------------------------------------------------------------------------------


def decode_accounts(answer: Element, *, host: str) -> Names:
    """The answer to `accounts_request`. Names of other hosts are left out. Raises FrameError."""
    _expect(answer, _ACCOUNTS)
    named = (jid(child.get("jid")) for child in answer.iterfind(_ACCOUNT))
    found = tuple(name for name in named if name and "@" in name and "/" not in name and domain(name) == host)
    return Names(jids=found, last=answer.get("last") == "true" or not found)


def decode_account(answer: Element, *, account: str, at: datetime) -> list[MessageEvent]:
    """The answer to `account_request`: the items of its own storage as events. Raises FrameError."""
    _expect(answer, _ACCOUNT)
    if answer.get("jid") != account:
        raise FrameError("'jid' is not the account.")
    events: list[MessageEvent] = []
    for child in answer.iterfind(_PEP):
        item = Element(_EVENT, child.attrib | {"action": "publish"})
        item.extend(child)
        with suppress(Refused):
            events.append(decode_pep(item, _nowhere(account), account, at))
    return events


def decode_archive(answer: Element, *, account: str, until: int, muc_hosts: Collection[str]) -> Page:
    """The answer to `archive_request` about an account, or about a room where its host is one of `muc_hosts`. What is
    newer than `until` comes by the feed: there the page ends, and the archive with it. Raises FrameError.
    """
    _expect(answer, _ARCHIVE)
    of_room = domain(account) in muc_hosts
    items: list[Item] = []
    events: list[MessageEvent] = []
    room_events: list[RoomMessageEvent] = []
    left_out = 0
    for child in answer.iterfind(_ITEM):
        item = _item(child)
        if item.at > until:
            break
        items.append(item)
        try:
            at = _EPOCH + timedelta(microseconds=item.at)
            if of_room:
                room_events.append(decode_room_message(_of_room(child, item), _nowhere(account), account, at))
            else:
                event = _of_account(child, item, account)
                events.append(decode_message_event(event, _nowhere(account), account, at, frozenset(muc_hosts)))
        except (Refused, OverflowError):
            left_out += 1
    whole = len(items) == sum(1 for _ in answer.iterfind(_ITEM))
    last = answer.get("last") == "true" or not whole or not items
    return Page(items=tuple(items), events=tuple(events), room_events=tuple(room_events), left_out=left_out, last=last)


def _expect(answer: Element, tag: str) -> None:
    if answer.tag != tag:
        raise FrameError("This is no answer to what was asked.")


def _nowhere(account: str) -> FeedPosition:
    """Events of the past have no position in a stream."""
    return FeedPosition(domain(account), "archive", "", 0)


def _item(element: Element) -> Item:
    identifier, at = element.get("id", ""), number(element.get("at", ""))
    if not identifier or len(identifier) > _MAX_ID_CHARS or not storable(identifier) or at is None:
        raise FrameError("An item has no 'id' or no 'at'.")
    return Item(identifier, at)


def _of_account(element: Element, item: Item, account: str) -> Element:
    """The item as the event that the feed would have told."""
    message = element.find(MESSAGE)
    if message is None:
        raise Refused("message")
    sender, to = bare(message.get("from") or account), bare(message.get("to") or account)
    attributes = {"direction": "out" if sender == account and to != account else "in", "archive-id": item.id}
    if sender == to == account:
        attributes["to-self"] = "true"
    return _event(message, attributes)


def _of_room(element: Element, item: Item) -> Element:
    message = element.find(MESSAGE)
    if message is None:
        raise Refused("message")
    author = element.get("author")
    return _event(message, {"archive-id": item.id} | ({"author": author} if author else {}))


def _event(message: Element, attributes: dict[str, str]) -> Element:
    event = Element(_EVENT, attributes)
    event.append(message)
    return event
