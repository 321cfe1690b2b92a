"""`urn:convsync:0` as XML, read with a client's eyes: answers and notices to values, wishes to requests.

Lenient where the server is strict: attributes and elements that are not known are passed over, so that a newer server
can say more. What must be there and is not, or is no number or time, is `BadAnswer` naming the field. Pure: no I/O.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.client import values
from sync.client.errors import BadAnswer
from sync.client.values import (
    FOR_EVER,
    Call,
    Change,
    Conversation,
    History,
    Last,
    Notice,
    Page,
    Quiet,
    Removed,
    Row,
    Settings,
    Totals,
)
from sync.protocol.names import CLIENT, CONVSYNC, DELAY, REACTIONS, RETRACT, SID, clark, local
from sync.protocol.serialise import serialise

SYNC, LIVE, SET, CHANGES, CONVERSATION, CALL, CHANGE, TOTALS, QUIET, LAST = (
    clark(CONVSYNC, name)
    for name in ("sync", "live", "set", "changes", "conversation", "call", "change", "totals", "quiet", "last")
)
MESSAGE, BODY = clark(CLIENT, "message"), clark(CLIENT, "body")
_STANZA_ID, _DELAY, _RETRACTED = clark(SID, "stanza-id"), clark(DELAY, "delay"), clark(RETRACT, "retracted")
_REACTION = clark(REACTIONS, "reaction")


# ---- requests -------------------------------------------------------------------------------------------------------


def encode_sync(attributes: Mapping[str, str | int | bool | None]) -> Element:
    """A `sync` request; attributes by their name on the wire, None = left out."""
    return Element(SYNC, _written(attributes))


def encode_set(wishes: Iterable[Settings]) -> Element:
    """A `set` request."""
    request = Element(SET)
    for wish in wishes:
        about: dict[str, str | int | bool | None] = {
            "jid": wish.jid,
            "kind": wish.kind,
            "if-version": wish.if_version,
            "pinned": wish.pinned,
            "status": wish.status,
            "marked-unread": wish.marked_unread,
            "notify": wish.notify,
            "read": wish.read,
        }
        SubElement(request, CONVERSATION, _written(about | _mute(wish.muted)))
    return request


def _mute(wish: timedelta | datetime | bool | None) -> dict[str, str | int | bool | None]:
    match wish:
        case None:
            return {}
        case bool():
            return {"muted": "forever" if wish else "no"}
        case timedelta():
            # Less than a second is one: 0 is refused, and nothing else is nearer to what was wished.
            return {"muted": max(1, round(wish.total_seconds()))}
        case datetime():
            return {"muted-until": _stamped(wish, "muted")}


def encode_quiet(quiet: Quiet | None) -> Element:
    """A `set` request of quiet hours; None = none any more."""
    request, wish = Element(SET), quiet or Quiet()
    until = "forever" if wish.until == FOR_EVER else None if wish.until is None else _stamped(wish.until, "until")
    about = {"until": until, "from": wish.begin, "to": wish.end, "zone": wish.zone, "calls": wish.calls or None}
    SubElement(request, QUIET, _written(about))
    return request


def _stamped(instant: datetime, name: str) -> str:
    if instant.tzinfo is None:
        raise ValueError(f"'{name}' must have a time zone.")
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def encode_changes(key: values.Key, *, since: int, most: int | None) -> Element:
    """A `changes` request."""
    return Element(CHANGES, _written({"jid": key.jid, "kind": key.kind, "since": since, "max": most}))


def encode_conversation(key: values.Key) -> Element:
    """A `conversation` request."""
    return Element(CONVERSATION, {"jid": key.jid, "kind": key.kind})


def encode_call(session: str, jid: str | None) -> Element:
    """A `call` request."""
    return Element(CALL, _written({"id": session, "jid": jid}))


def _written(attributes: Mapping[str, str | int | bool | None]) -> dict[str, str]:
    return {name: _word(value) for name, value in attributes.items() if value is not None}


def _word(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- answers --------------------------------------------------------------------------------------------------------


def decode_page(element: Element, *, asked: str | None, continued: bool) -> Page:
    """The answer to `sync`, with what had been asked."""
    time = _instant(element, "time")
    return Page(
        asked=asked,
        continued=continued,
        token=_text(element, "token"),
        version=_number(element, "version"),
        time=time,
        more=_flag(element, "more"),
        reset=element.get("reset"),
        totals=_totals(element),
        quiet=decode_quiet(element),
        calls=tuple(map(decode_call, element.iterfind(CALL))),
        rows=tuple(map(_row, element.iterfind(CONVERSATION))),
    )


def decode_notice(element: Element) -> Notice:
    """A `live` notice."""
    return Notice(
        previous=_number(element, "previous"),
        version=_number(element, "version"),
        token=element.get("token"),
        time=_instant(element, "time"),
        more=_flag(element, "more"),
        totals=_totals(element),
        quiet=decode_quiet(element),
        calls=tuple(map(decode_call, element.iterfind(CALL))),
        rows=tuple(map(_row, element.iterfind(CONVERSATION))),
    )


def decode_quiet(element: Element) -> Quiet | None:
    """The `quiet` in an answer; None where there is none."""
    found = element.find(QUIET)
    if found is None:
        return None
    return Quiet(
        until=FOR_EVER if found.get("until") == "forever" else _instant(found, "until"),
        begin=found.get("from"),
        end=found.get("to"),
        zone=found.get("zone"),
        calls=_flag(found, "calls"),
    )


def decode_set(element: Element) -> dict[values.Key, int]:
    """The answer to `set`: the version that each conversation has now."""
    return {_key(found): _number(found, "version") for found in element.iterfind(CONVERSATION)}


def decode_history(element: Element) -> History:
    """The answer to `changes`."""
    return History(
        key=_key(element),
        version=_number(element, "version"),
        changes=tuple(map(_change, element.iterfind(CHANGE))),
        reload=_flag(element, "reset"),
    )


def decode_call(element: Element) -> Call:
    """A `call`."""
    return Call(
        id=_text(element, "id"),
        jid=_text(element, "jid"),
        kind=element.get("kind", values.CHAT),
        state=_text(element, "state"),
        version=_number(element, "version", 0),
        sender=element.get("from"),
        media=tuple(element.get("media", "").split()),
        by=element.get("by"),
        continues=element.get("continues"),
        proposed_at=_instant(element, "proposed"),
        age=_number(element, "age", 0),
        left=_number(element, "left", 0),
        stanza=_stanza(element),
    )


def decode_conversation(element: Element) -> Conversation:
    """A `conversation`; of a deleted one what is told of it."""
    forever = element.get("muted") == "forever"
    return Conversation(
        jid=_text(element, "jid"),
        kind=element.get("kind", values.CHAT),
        version=_number(element, "version"),
        status=element.get("status", values.ACTIVE),
        activity=_instant(element, "activity"),
        unread=_number(element, "unread", 0),
        mentions=_number(element, "mentions", 0),
        marked_unread=_flag(element, "marked-unread"),
        pinned=_number(element, "pinned", 0),
        notify=element.get("notify", "default"),
        muted_until=values.FOR_EVER if forever else _instant(element, "muted-until"),
        invited_by=element.get("invited-by"),
        requests_presence=_flag(element, "requests-presence"),
        read=_pointer(element, "read"),
        displayed=_pointer(element, "displayed"),
        delivered=_pointer(element, "delivered"),
        unread_mention=_pointer(element, "unread-mention"),
        last=_last(element),
    )


def _row(element: Element) -> Row | Removed:
    outside = _flag(element, "outside")
    if outside or element.get("status") == values.DELETED:
        key = _key(element)
        return Removed(jid=key.jid, kind=key.kind, version=_number(element, "version"), outside=outside)
    changes = element.find(CHANGES)
    if changes is None:
        return Row(conversation=decode_conversation(element))
    return Row(
        conversation=decode_conversation(element),
        changes=tuple(map(_change, changes.iterfind(CHANGE))),
        reload=_flag(changes, "reset"),
    )


def _last(element: Element) -> Last | None:
    found = element.find(LAST)
    if found is None:
        return None
    message = found.find(MESSAGE)
    if message is None:
        return Last() if _flag(found, "left-out") else _brief(found, element)
    archived, delay = message.find(_STANZA_ID), message.find(_DELAY)
    return Last(
        stanza=serialise(message),
        id=message.get("id"),
        stanza_id=None if archived is None else archived.get("id"),
        sender=message.get("from"),
        sent_at=None if delay is None else _instant(delay, "stamp"),
        body=message.findtext(BODY),
        retracted=message.find(_RETRACTED) is not None,
    )


def _brief(found: Element, conversation: Element) -> Last:
    silent = _flag(found, "retracted") or _flag(found, "encrypted")
    return Last(
        id=found.get("id"),
        stanza_id=found.get("stanza-id"),
        sender=found.get("from"),
        sent_at=_instant(found, "sent") or _instant(conversation, "activity"),
        body=None if silent else found.text or "",
        retracted=_flag(found, "retracted"),
        brief=True,
        encrypted=_flag(found, "encrypted"),
        cut=_flag(found, "cut"),
    )


def _change(element: Element) -> Change:
    message = element.find(MESSAGE)
    return Change(
        kind=_text(element, "kind"),
        id=_text(element, "id"),
        version=_number(element, "version"),
        by=element.get("by"),
        detail=element.get("detail"),
        stanza=_stanza(element),
        body=None if message is None else message.findtext(BODY),
        reactions=() if message is None else tuple(found.text or "" for found in message.iter(_REACTION)),
    )


def _totals(element: Element) -> Totals | None:
    found = element.find(TOTALS)
    if found is None:
        return None
    unread, mentions, conversations = (_number(found, name, 0) for name in ("unread", "mentions", "conversations"))
    return Totals(unread=unread, mentions=mentions, conversations=conversations)


def _stanza(element: Element) -> str | None:
    message = element.find(MESSAGE)
    return None if message is None else serialise(message)


def _key(element: Element) -> values.Key:
    return values.Key(_text(element, "jid"), element.get("kind", values.CHAT))


def _pointer(element: Element, name: str) -> str | None:
    found = element.find(clark(CONVSYNC, name))
    return None if found is None else found.get("id")


# ---- attributes -----------------------------------------------------------------------------------------------------


def _text(element: Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise BadAnswer(f"'{name}' of '{local(element.tag)}' is missing.")
    return value


def _number(element: Element, name: str, absent: int | None = None) -> int:
    value = element.get(name)
    if value is None and absent is not None:
        return absent
    if value is None or not (value.isascii() and value.isdigit()):
        raise BadAnswer(f"'{name}' of '{local(element.tag)}' is no number.")
    return int(value)


def _flag(element: Element, name: str) -> bool:
    return element.get(name) in ("true", "1")


def _instant(element: Element, name: str) -> datetime | None:
    value = element.get(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadAnswer(f"'{name}' of '{local(element.tag)}' is no time.") from None
