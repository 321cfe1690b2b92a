"""Typed values out of attributes and form fields, refused in words that name the field.

The refusal says which field is wrong and never repeats what it held: error texts go over the wire.
"""

from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest

MAX_NUMBER = 2**63 - 1  # what a bigint column holds
MAX_FIELD_BYTES = 1024  # names, nodes and secrets: longer than any that clients use, short enough for an index row


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
