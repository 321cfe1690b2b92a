"""A device's wishes ⇄ one jsonb value that has only what was asked for. The key is no part of it: it has a column of
its own, sealed.
"""

import json
from typing import Any

from sync.model.wishes import NO_WISHES, Allow, Encrypt, RoomWish, Wishes

NONE = "{}"  # most devices


def wishes(text: str, sealed_key: bytes | None) -> Wishes:
    """The columns `wishes` and `push_key`."""
    if text == NONE:
        return NO_WISHES
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
