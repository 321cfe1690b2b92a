"""Typed values out of attributes and form fields, refused in words that name the field.

The refusal says which field is wrong and never repeats what it held: error texts go over the wire. A request is refused
by BadRequest; an event of the feed, which nobody waits for, by Refused.
"""

import re
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest
from sync.model.jid import MAX_JID_BYTES

MAX_NUMBER = 2**63 - 1  # what a bigint column holds
_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_FIELD_BYTES = 1024  # names, nodes and secrets: longer than any that clients use, short enough for an index row


class Refused(Exception):
    """Why one event of the feed is malformed."""


def number(text: str) -> int | None:
    """A natural number of ASCII digits up to `MAX_NUMBER`, else None: no sign, no space, no underscore."""
    if len(text) > 19 or not (text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return value if value <= MAX_NUMBER else None


def natural(text: str, field: str) -> int:
    """A natural number, or BadRequest naming the field."""
    value = number(text)
    if value is None:
        raise BadRequest(f"'{field}' must be a number from 0 to {MAX_NUMBER}.")
    return value


def boolean(text: str, field: str) -> bool:
    """XEP-0004 §3.3: a boolean is `true`, `false`, `1` or `0`; else BadRequest naming the field."""
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise BadRequest(f"'{field}' must be 'true' or 'false'.")


def instant(text: str, field: str) -> datetime:
    """A DateTime of XEP-0082 §3.2, or BadRequest naming the field."""
    refusal = BadRequest(f"'{field}' must be a time like 2026-01-02T03:04:05Z.")
    if not _DATETIME.fullmatch(text):
        raise refusal
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refusal from None


def moment(text: str | None) -> datetime | None:
    """Microseconds since the epoch as an instant; None for anything else."""
    microseconds = number(text or "")
    if microseconds is None:
        return None
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def storable(text: str) -> bool:
    """True for what a Postgres text column takes: no U+0000, no half of a surrogate pair."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(text: str, field: str, limit: int = MAX_FIELD_BYTES) -> str:
    """The text where it can be stored and is not longer than `limit` bytes; else BadRequest naming the field."""
    if not storable(text) or len(text) > limit or len(text.encode()) > limit:
        raise BadRequest(f"'{field}' is too long or not a text.")
    return text


def required(element: Element, attribute: str, limit: int = MAX_FIELD_BYTES) -> str:
    """An attribute that must be there and not be empty; else BadRequest naming it."""
    value = element.get(attribute)
    if not value:
        raise BadRequest(f"'{attribute}' is missing.")
    return short(value, attribute, limit)


def jid(text: str | None) -> str | None:
    """What may be a JID of the sort that servers hand over, else None. It is bounded and storable, not prepared."""
    return text if text and text[0] != "/" and _bounded(text) else None


def address(text: str | None, why: str) -> str:
    """A JID of an event, or Refused with `why`."""
    found = jid(text)
    if found is None:
        raise Refused(why)
    return found


def resource_part(text: str | None, why: str) -> str:
    """The resource of a session, or Refused with `why`."""
    if not text or not _bounded(text):
        raise Refused(why)
    return text


def _bounded(text: str) -> bool:
    # RFC 7622 §3.1 bounds a JID; len() is checked first because a character is at least a byte.
    if len(text) > MAX_JID_BYTES or not storable(text):
        return False
    return text.isascii() or len(text.encode()) <= MAX_JID_BYTES


def claim(text: str | None, limit: int) -> str | None:
    """A short text that somebody claims, None where it is empty, longer than `limit` characters or not storable."""
    return text if text and len(text) <= limit and storable(text) else None
