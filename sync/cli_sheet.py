"""How an account is shown: lists as columns for a terminal, or as plain values for a machine.

Decides form only. What it is given holds no text of a message and no secret; names and addresses are other people's
claims, so no control character of theirs reaches a terminal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sync.adapters.postgres.dossier import Sight
    from sync.model.event import Session

Row = Mapping[str, Any]
Cells = tuple[str, ...]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING = "–"


# ---- for machines ---------------------------------------------------------------------------------------------------


def as_json(sight: "Sight") -> dict[str, object]:
    """Everything of it, as values for `json` with `plain`. Versions and ranks stay microseconds since the epoch."""
    lists = {name: {"total": listed.total, "shown": listed.rows} for name, listed in sight.lists.items()}
    return {"account": sight.account or {"jid": sight.jid, "absent": True}, **lists}


def plain(value: object) -> str:
    """What `json` does not know. The driver gives 'infinity' as the far end of time without a time zone."""
    if isinstance(value, datetime):
        return "infinity" if value.tzinfo is None else value.isoformat()
    return str(value)


# ---- for a terminal -------------------------------------------------------------------------------------------------


def lines(sight: "Sight", now: datetime) -> Iterator[str]:
    """The sheet of an account. `now`: ages are counted from it."""
    yield printable(sight.jid)
    if sight.account is None:
        yield "  There is no such account yet, or no more; this is what is held on its address."
    else:
        yield from _account(sight.account)
    for name, (title, heads, cells) in LISTS.items():
        listed = sight.lists[name]
        if not listed.total:
            continue
        yield f"\n{title} ({listed.total})"
        head, *rows = columns(heads, [cells(row, now) for row in listed.rows])
        yield f"  {head}"
        for line, row in zip(rows, listed.rows, strict=True):
            yield f"  {line}"
            if name == "conversations":
                yield f"      {printable(_pointers(row))}"
        if more := listed.total - len(listed.rows):
            yield f"  … and {more} more (--all)"


def _account(row: Row) -> Iterator[str]:
    yield f"  version  {row['version']}  {at(row['version'])}   epoch {row['epoch']}"
    yield f"  floor    {row['floor']}  {at(row['floor'])}   older tokens start over"
    yield (
        f"  unread {row['unread']} in {row['unread_conversations']} conversations, mentions {row['mentions']}, "
        f"devices {row['devices']}{', a wake is unanswered' if row['wakes_open'] else ''}"
    )


def columns(heads: Cells, rows: Sequence[Cells]) -> Iterator[str]:
    """Rows under their heads, each column as wide as it must be."""
    table = [tuple(head.upper() for head in heads), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(heads))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def at(value: object) -> str:
    """An instant, or microseconds since the epoch, to the second in UTC."""
    if value is None or value == 0:
        return NOTHING
    if isinstance(value, datetime):
        return "for ever" if value.tzinfo is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    try:
        return f"{EPOCH + timedelta(microseconds=int(str(value))):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return str(value)


def age(value: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    if value is None:
        return NOTHING
    seconds = int((now - value).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"


def text(value: object) -> str:
    """A value that may be absent."""
    return NOTHING if value is None or value == "" else str(value)


def named(*words: tuple[object, str]) -> str:
    """The words whose condition holds."""
    return ", ".join(word for holds, word in words if holds) or NOTHING


# ---- who is online --------------------------------------------------------------------------------------------------


def sessions_as_json(sessions: "Sequence[Session] | None") -> list[dict[str, object]] | None:
    """By resource; None where it is not known, which is not nobody."""
    if sessions is None:
        return None
    return [{"resource": one.resource, "state": one.state.value, "acked_at": one.acked_at} for one in sessions]


def sessions_lines(sessions: "Sequence[Session] | None") -> Iterator[str]:
    """`acked`: up to when the client of a hibernated session is known to have had what was sent to it."""
    if sessions is None:
        yield "\nsessions: not known"
        return
    yield f"\nsessions ({len(sessions)})"
    if sessions:
        rows = [(one.resource, one.state.value, at(one.acked_at)) for one in sessions]
        yield from (f"  {line}" for line in columns(("resource", "state", "acked"), rows))


# ---- the lists ------------------------------------------------------------------------------------------------------


def _conversation(row: Row, _: datetime) -> Cells:
    flags = named(
        (row["marked_unread"], "marked unread"),
        (row["ringing"], f"ringing {row['ringing']}"),
        (row["pinned"], f"pinned {row['pinned']}"),
        (row["muted_until"], f"muted until {at(row['muted_until'])}"),
        (row["notify"], f"notify {row['notify']}"),
    )
    counts = str(row["unread"]), str(row["mentions"])
    return row["peer"], row["kind"], row["status"], *counts, at(row["activity"]), str(row["version"]), flags


def _pointers(row: Row) -> str:
    """Pointers and the last message: when, and by which ids; never what it says."""
    told = [
        f"{name} {at(row[f'{name}_rank'])} {row[f'{name}_id'] or ''}".rstrip()
        for name in ("read", "displayed", "delivered")
        if row[f"{name}_rank"]
    ]
    if row["last_rank"]:
        ids = [f"{sort} {row[f'last_{sort}_id']}" for sort in ("message", "archive") if row[f"last_{sort}_id"]]
        retracted = ["retracted"] if row["last_retracted"] else []
        told.append(" ".join(["last", at(row["last_sent_at"]), *ids, *retracted]))
    return " · ".join(told) or "nothing read, nothing said"


def _call(row: Row, now: datetime) -> Cells:
    media, taker = " ".join(row["media"]), text(row["answered_by"])
    return (
        row["peer"],
        row["state"],
        text(media),
        age(row["proposed_at"], now),
        at(row["rings_until"]),
        taker,
        row["session_id"],
    )


def _device(row: Row, now: datetime) -> Cells:
    enabled = named((row["enabled"], "enabled"), (not row["enabled"], "not enabled"), (row["voip"], "voip"))
    times = at(row["registered_at"]), age(row["woken_at"], now), age(row["fetched_at"], now)
    return row["device_id"], text(row["name"]), row["app"], row["environment"], enabled, text(row["bound_to"]), *times


def _job(row: Row, now: datetime) -> Cells:
    times = age(row["created_at"], now), at(row["not_before"]), at(row["deadline"])
    return row["kind"], row["device_id"], row["peer"], row["state"], str(row["attempts"]), *times


def _done(row: Row, now: datetime) -> Cells:
    what = row["outcome"], text(row["reason"])
    return row["kind"], row["device_id"], row["peer"], *what, str(row["attempts"]), age(row["created_at"], now)


def _room(row: Row, _: datetime) -> Cells:
    state = named(
        (row["present"], "present"), (row["until"], f"left {at(row['until'])}"), (row["destroyed"], "destroyed")
    )
    return row["room"], row["affiliation"], text(row["nick"]), state, at(row["since"])


def _position(row: Row, _: datetime) -> Cells:
    return row["stream"], row["shard"], str(row["lane"]), str(row["n"]), text(row["committed"]), text(row["seen"])


def _quarantined(row: Row, _: datetime) -> Cells:
    return at(row["quarantined_at"]), row["why"], row["host"], row["stream"], row["shard"], str(row["n"])


LISTS: Final[Mapping[str, tuple[str, Cells, Callable[[Row, datetime], Cells]]]] = {
    "conversations": (
        "Conversations, the newest first",
        ("peer", "kind", "status", "unread", "mentions", "activity", "version", "flags"),
        _conversation,
    ),
    "calls": ("Calls", ("peer", "state", "media", "proposed", "rings until", "answered by", "session"), _call),
    "devices": (
        "Devices",
        ("device", "name", "app", "environment", "pushes", "bound to", "registered", "last wake", "last fetch"),
        _device,
    ),
    "jobs": (
        "Pushes that are due or under way",
        ("kind", "device", "peer", "state", "attempts", "made", "not before", "deadline"),
        _job,
    ),
    "ledger": (
        "Pushes that are done, the newest first",
        ("kind", "device", "peer", "outcome", "reason", "attempts", "made"),
        _done,
    ),
    "rooms": ("Rooms of this server", ("room", "affiliation", "nick", "state", "since"), _room),
    "positions": (
        "Positions of its lane in the feed",
        ("stream", "shard", "lane", "n", "stream committed", "stream seen"),
        _position,
    ),
    "quarantine": ("Quarantined events", ("at", "why", "host", "stream", "shard", "n"), _quarantined),
}
