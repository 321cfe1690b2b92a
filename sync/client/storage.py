"""A cache as JSON text and back, for an app that ends and starts again.

Calls that ring are kept, since a server does not name them in an answer without news; whoever reads the text is told of
them again by the first answer. What is not a text that this version wrote is `ValueError`: begin with an empty cache
then, which costs one full list.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any

from sync.client.cache import Cache, Chain
from sync.client.values import Call, Conversation, Key, Last, Quiet, Totals

FORMAT = 1


def dumps(cache: Cache) -> str:
    """The cache as text."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": cache.version,
            "token": cache.token,
            "chain": cache.chain,
            "ahead": cache.ahead,
            "conversations": [_plain(one) for one in cache.conversations.values()],
            "removed": [[*key, version] for key, version in cache.removed.items()],
            "calls": [_plain(call) for call in cache.calls.values()],
            "totals": None if cache.totals is None else _plain(cache.totals),
            "totals_at": cache.totals_at,
            "quiet": None if cache.quiet is None else _plain(cache.quiet),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def loads(text: str | bytes) -> Cache:
    """The cache of a text that `dumps` wrote. Raises ValueError for anything else."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError
        conversations = [_conversation(plain) for plain in found["conversations"]]
        calls = [_call(plain) for plain in found["calls"]]
        return Cache(
            version=_whole(found["version"]),
            token=found["token"],
            chain=_chain(found["chain"]),
            ahead=_whole(found["ahead"]),
            conversations={one.key: one for one in conversations},
            removed={Key(jid, kind): _whole(version) for jid, kind, version in found["removed"]},
            calls={call.key: call for call in calls},
            totals=None if found["totals"] is None else Totals(**found["totals"]),
            totals_at=_whole(found["totals_at"]),
            quiet=None if found["quiet"] is None else Quiet(**_with(found["quiet"], datetime.fromisoformat, "until")),
            untold=frozenset(call.key for call in calls if call.rings),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("This is no cache that this version can read.") from None


def _plain(value: Any) -> dict[str, Any]:
    """A value's fields, without those that are as they are by default."""
    found = {}
    for known in fields(value):
        content = getattr(value, known.name)
        if known.default is not MISSING and content == known.default:
            continue
        if isinstance(content, datetime):
            content = content.isoformat()
        found[known.name] = _plain(content) if isinstance(content, Last) else content
    return found


def _conversation(plain: dict[str, Any]) -> Conversation:
    plain = _with(plain, datetime.fromisoformat, "activity", "muted_until")
    return Conversation(**_with(plain, _last, "last"))


def _last(plain: dict[str, Any]) -> Last:
    return Last(**_with(plain, datetime.fromisoformat, "sent_at"))


def _call(plain: dict[str, Any]) -> Call:
    return Call(**_with(_with(plain, datetime.fromisoformat, "proposed_at"), tuple, "media"))


def _with(plain: dict[str, Any], made: Callable[[Any], Any], *names: str) -> dict[str, Any]:
    return plain | {name: made(plain[name]) for name in names if name in plain}


def _chain(plain: list[Any] | None) -> Chain | None:
    if plain is None:
        return None
    version, token = plain
    return Chain(_whole(version), str(token))


def _whole(number: object) -> int:
    if not isinstance(number, int):
        raise TypeError
    return number
