"""The cursors between two pages, as clients carry them: `<first>`, `<last>`, `after`, `before`. One sort for a Client
Synchronization list, one for an inbox.

Opaque to clients, url-safe text: a check over account and content, a version octet, the numbers, the peer. The check
is no secret: it refuses what was cut, altered or given to another account, and someone who forges one on purpose only
chooses where in his own list to begin. Whatever cannot be read is `item-not-found` (XEP-0059 §2.2), never a guess.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sync.model.conversation import ENCRYPTED, Conversation, Kind
from sync.model.errors import ItemNotFound
from sync.model.jid import MAX_JID_BYTES
from sync.model.query import Cursor, InboxPlace, SortKey

_LIST, _INBOX = 1, 2  # the version octet
_NUMBERS = struct.Struct(">qq?qqBB")  # since, newest, ringing, pinned, activity, kind, filters
_PLACE = struct.Struct(">qqqB")  # newest, version, activity, kind
_CHECK_BYTES = 8
_KINDS = (Kind.CHAT, Kind.GROUP, *ENCRYPTED)
_WISHES = (None, False, True)
# The filters of a list as a number: the three fields of `Cursor` by it.
_FILTERS = tuple((first, pinned, archived) for first in (False, True) for pinned in _WISHES for archived in _WISHES)
_MAX_CHARS = (1 + _CHECK_BYTES + _NUMBERS.size + MAX_JID_BYTES) * 4 // 3 + 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REFUSAL = "'after' or 'before' names no item of this list."


def microseconds(instant: datetime) -> int:
    """Since the epoch; exact, where `datetime.timestamp` rounds."""
    return (instant - _EPOCH) // _MICROSECOND


def sort_key(conversation: Conversation, *, pinned_first: bool) -> SortKey:
    """Where a conversation stands in a list."""
    return SortKey(
        ringing=conversation.ringing > 0,
        pinned=conversation.pinned if pinned_first else 0,
        activity=microseconds(conversation.activity_at),
        peer=conversation.key.peer,
        kind=conversation.key.kind,
    )


def encode_cursor(cursor: Cursor, *, account: str) -> str:
    """The cursor as text, for this account only."""
    sort, filters = cursor.sort, _FILTERS.index((cursor.pinned_first, cursor.pinned, cursor.archived))
    kind = _KINDS.index(sort.kind)
    numbers = _NUMBERS.pack(cursor.since, cursor.newest, sort.ringing, sort.pinned, sort.activity, kind, filters)
    return _text(bytes([_LIST]) + numbers + sort.peer.encode(), account)


def decode_cursor(text: str, *, account: str) -> Cursor:
    """The cursor that `encode_cursor` made for this account; anything else is ItemNotFound."""
    try:
        content = _content(text)
        numbers, peer = content[1 : 1 + _NUMBERS.size], content[1 + _NUMBERS.size :].decode()
        since, newest, ringing, pinned, activity, kind, filters = _NUMBERS.unpack(numbers)
        sort = SortKey(ringing=ringing, pinned=pinned, activity=activity, peer=peer, kind=_KINDS[kind])
        first, only_pinned, archived = _FILTERS[filters]
    except (ValueError, IndexError, struct.error):
        raise ItemNotFound(_REFUSAL) from None
    cursor = Cursor(since=since, newest=newest, sort=sort, pinned_first=first, pinned=only_pinned, archived=archived)
    if not peer or "\0" in peer or min(since, newest, pinned, activity) < 0:
        raise ItemNotFound(_REFUSAL)
    # Version, check and spelling (base64 has several of the same octets) in one comparison: only what we give out.
    if encode_cursor(cursor, account=account) != text:
        raise ItemNotFound(_REFUSAL)
    return cursor


def encode_place(place: InboxPlace, *, account: str) -> str:
    """The id of an inbox's entry as text, for this account only."""
    numbers = _PLACE.pack(place.newest, place.version, place.activity, _KINDS.index(place.kind))
    return _text(bytes([_INBOX]) + numbers + place.peer.encode(), account)


def decode_place(text: str, *, account: str) -> InboxPlace:
    """The place that `encode_place` made for this account; anything else is ItemNotFound."""
    try:
        content = _content(text)
        numbers, peer = content[1 : 1 + _PLACE.size], content[1 + _PLACE.size :].decode()
        newest, version, activity, kind = _PLACE.unpack(numbers)
        place = InboxPlace(newest=newest, version=version, activity=activity, peer=peer, kind=_KINDS[kind])
    except (ValueError, IndexError, struct.error):
        raise ItemNotFound(_REFUSAL) from None
    if not peer or "\0" in peer or min(newest, version, activity) < 0 or encode_place(place, account=account) != text:
        raise ItemNotFound(_REFUSAL)
    return place


def _text(content: bytes, account: str) -> str:
    check = sha256(account.encode() + b"\0" + content).digest()[:_CHECK_BYTES]
    return urlsafe_b64encode(check + content).rstrip(b"=").decode()


def _content(text: str) -> bytes:
    """What follows the check, or ValueError."""
    if len(text) > _MAX_CHARS or not text.isascii():
        raise ValueError
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))[_CHECK_BYTES:]
