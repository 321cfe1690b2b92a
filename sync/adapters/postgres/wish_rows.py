"""A device's wishes ⇄ one jsonb value that has only what was asked for. The key is no part of it: it has a column of
its own, sealed.

Lists of filters may have 128 kB, and come with their device in each transaction of its account: long ones are read
once, and remembered by their text.
"""

import json
from functools import lru_cache
from typing import Any

from sync.model.wishes import NO_WISHES, Allow, Encrypt, RoomWish, Wishes

NONE = "{}"  # most devices
LONG = 1024  # what is shorter is read in no time
REMEMBERED = 64  # texts of up to 128 kB, and what was read of them


def wishes(text: str, sealed_key: bytes | None) -> Wishes:
    """The columns `wishes` and `push_key`."""
    if text == NONE:
        return NO_WISHES
    return _remembered(text, sealed_key) if len(text) >= LONG else _read(text, sealed_key)


def _read(text: str, sealed_key: bytes | None) -> Wishes:
    found = json.loads(text)
    rooms = found.get("rooms")
    return Wishes(
        muted=frozenset(found.get("muted", ())),
        ignore_unknown="ignore_unknown" in found,
        rooms=None if rooms is None else tuple(RoomWish(jid, Allow(allow), nick) for jid, allow, nick in rooms),
        away="away" in found,
        priority="priority" in found,
        jingle="jingle" in found,
        encrypt=None if sealed_key is None else Encrypt(found["max_bytes"], sealed_key),
    )


_remembered = lru_cache(maxsize=REMEMBERED)(_read)


def wishes_text(value: Wishes) -> str:
    """The column `wishes`."""
    held: dict[str, Any] = {
        name: True for name in ("ignore_unknown", "away", "priority", "jingle") if getattr(value, name)
    }
    if value.muted:
        held["muted"] = sorted(value.muted)
    if value.rooms is not None:
        held["rooms"] = [(wish.jid, wish.allow, wish.nick) for wish in value.rooms]
    if value.encrypt is not None:
        held["max_bytes"] = value.encrypt.max_bytes
    return json.dumps(held, separators=(",", ":")) if held else NONE
