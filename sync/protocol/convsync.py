"""Our own dialect, `urn:convsync:0`: properties set in batches, a conversation's change log, one conversation as it
stands (docs/dialects.md §3).

Stricter than the dialects of others, so that it can grow: an attribute or element that it does not know is refused by
name instead of being ignored. What exists, and whether versions agree, is for the store to say.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import Change, Conversation, Kind, Notify, Pointer, Status
from sync.model.errors import BadRequest, PolicyViolation, ServiceUnavailable
from sync.model.query import (
    ChangesPage,
    ChangesQuery,
    ConversationQuery,
    ListedConversation,
    Mute,
    MuteUntil,
    SetNotify,
    SetProperties,
    Unmute,
)
from sync.protocol.conversations import stamp
from sync.protocol.fields import boolean, instant, natural, number, required
from sync.protocol.names import CONVSYNC, XML, clark, local
from sync.protocol.serialise import parse
from sync.protocol.synchronization import FOR_EVER_SECONDS, named_peer, read_status

SET, CHANGES, CONVERSATION = (clark(CONVSYNC, name) for name in ("set", "changes", "conversation"))
MAX_CONVERSATIONS = 100  # of a set: one transaction under the account's lock
MAX_CHANGES = 500  # of an answer; a client that missed more loads the conversation anew
MAX_CHANGES_BYTES = 256 * 1024  # of an answer: servers end the connection of a component whose stanzas are too large

Request = tuple[SetProperties, ...] | ChangesQuery | ConversationQuery

_KINDS = {kind.value: kind for kind in Kind}
_NOTIFY: dict[str, Notify | None] = {notify.value: notify for notify in Notify} | {"default": None}
_NAME = frozenset({"jid", "kind"})
_MUTES = frozenset({"muted", "muted-until"})
_PROPERTIES = frozenset({"pinned", "status", "marked-unread", "notify", "read"}) | _MUTES
_SETTABLE = _NAME | _PROPERTIES | {"if-version"}
_LANG = clark(XML, "lang")  # XML 1.0 §2.12: allowed everywhere
_FOR_EVER = datetime.max.replace(tzinfo=UTC)
_SHOWABLE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


def decode(payload: Element, *, kind: str) -> Request:
    """The payload of an IQ of type `kind`. Raises BadRequest, ItemNotFound, PolicyViolation, ServiceUnavailable."""
    match kind, payload.tag:
        case "set", tag if tag == SET:
            return _set(payload)
        case "get", tag if tag == CHANGES:
            return _changes(payload)
        case "get", tag if tag == CONVERSATION:
            _only(payload, _NAME)
            return ConversationQuery(peer=named_peer(payload), kind=_kind(payload))
        case _:
            raise ServiceUnavailable("There is no such request.")


def _set(payload: Element) -> tuple[SetProperties, ...]:
    if len(payload) > MAX_CONVERSATIONS:
        raise PolicyViolation(f"At most {MAX_CONVERSATIONS} conversations can be set at once.")
    _only(payload, frozenset(), CONVERSATION)
    if not len(payload):
        raise BadRequest("'conversation' is missing.")
    requests = tuple(map(_properties, payload))
    if len({(request.peer, request.kind) for request in requests}) < len(requests):
        raise BadRequest("'jid' names a conversation twice.")
    return requests


def _properties(element: Element) -> SetProperties:
    _only(element, _SETTABLE)
    peer, kind = named_peer(element), _kind(element)
    given = element.attrib
    if not _PROPERTIES & given.keys():
        raise BadRequest("There is nothing to set.")
    if given.keys() >= _MUTES:
        raise BadRequest("'muted' and 'muted-until' exclude each other.")
    return SetProperties(
        peer=peer,
        kind=kind,
        pinned=natural(given["pinned"], "pinned") if "pinned" in given else None,
        mute=_mute(element),
        status=read_status(given["status"]) if "status" in given else None,
        marked_unread=boolean(given["marked-unread"], "marked-unread") if "marked-unread" in given else None,
        notify=_notify(given["notify"]) if "notify" in given else None,
        read=required(element, "read") if "read" in given else None,
        if_version=natural(given["if-version"], "if-version") if "if-version" in given else None,
    )


def _mute(element: Element) -> Mute | MuteUntil | Unmute | None:
    until, text = element.get("muted-until"), element.get("muted")
    if until is not None:
        return MuteUntil(instant(until, "muted-until"))
    if text is None:
        return None
    if text == "no":
        return Unmute()
    seconds = FOR_EVER_SECONDS if text == "forever" else number(text)
    if not seconds:
        raise BadRequest("'muted' must be a number of seconds from 1, 'forever' or 'no'.")
    return Mute(None if seconds >= FOR_EVER_SECONDS else timedelta(seconds=seconds))


def _notify(text: str) -> SetNotify:
    if text not in _NOTIFY:
        raise BadRequest("'notify' must be 'never', 'on-mention', 'always' or 'default'.")
    return SetNotify(_NOTIFY[text])


def _changes(payload: Element) -> ChangesQuery:
    _only(payload, _NAME | {"since", "max"})
    return ChangesQuery(
        peer=named_peer(payload),
        kind=_kind(payload),
        since=natural(payload.get("since", "0"), "since"),
        limit=min(natural(payload.get("max", str(MAX_CHANGES)), "max"), MAX_CHANGES),
    )


def _kind(element: Element) -> Kind:
    kind = _KINDS.get(element.get("kind", Kind.CHAT.value))
    if kind is None:
        raise BadRequest("'kind' must be 'chat' or 'group'.")
    return kind


def _only(element: Element, attributes: frozenset[str], child: str | None = None) -> None:
    """Refuse what the element should not have, by name where the name is one that may be repeated."""
    unknown = next((name for name in element.attrib if name not in attributes and name != _LANG), None)
    if unknown is not None:
        raise BadRequest(f"{_shown(unknown, 'An attribute')} is not known.")
    foreign = next((inner.tag for inner in element if inner.tag != child), None)
    if foreign is not None:
        raise BadRequest(f"{_shown(foreign, 'An element')} is not known.")


def _shown(name: object, otherwise: str) -> str:
    plain = local(name) if isinstance(name, str) else ""
    return f"'{plain}'" if _SHOWABLE.fullmatch(plain) else otherwise


# ---- answers --------------------------------------------------------------------------------------------------------


def encode_set(named: Iterable[Conversation]) -> Element:
    """The answer to a set: every conversation that was named, with the version that it has now."""
    answer = Element(SET)
    for conversation in named:
        SubElement(answer, CONVERSATION, _named(conversation.key.peer, conversation.key.kind, conversation.version))
    return answer


def encode_conversation(item: ListedConversation, *, now: datetime) -> Element:
    """The answer to a query for one conversation; of a deleted one, that it is."""
    conversation = item.conversation
    key = conversation.key
    element = Element(CONVERSATION, _named(key.peer, key.kind, conversation.version))
    element.set("status", conversation.status.value)
    element.set("activity", stamp(conversation.activity_at))
    if conversation.status is Status.DELETED:
        return element
    element.set("unread", str(conversation.unread))
    element.set("mentions", str(conversation.mentions))
    element.set("marked-unread", "true" if conversation.marked_unread else "false")
    element.set("pinned", str(conversation.pinned))
    element.set("notify", conversation.notify.value if conversation.notify else "default")
    if conversation.muted_until is not None and conversation.muted(now):
        for_ever = conversation.muted_until >= _FOR_EVER
        name, value = ("muted", "forever") if for_ever else ("muted-until", stamp(conversation.muted_until))
        element.set(name, value)
    if conversation.invited_by is not None:
        element.set("invited-by", conversation.invited_by)
    if conversation.requests_presence:
        element.set("requests-presence", "true")
    _pointer(element, "read", conversation.read)
    _pointer(element, "displayed", conversation.displayed)
    _pointer(element, "delivered", conversation.delivered)
    if item.mention_id is not None:
        SubElement(element, clark(CONVSYNC, "unread-mention"), {"id": item.mention_id})
    return element


def _pointer(element: Element, name: str, pointer: Pointer) -> None:
    if pointer.id is not None:
        SubElement(element, clark(CONVSYNC, name), {"id": pointer.id})


def encode_changes(query: ChangesQuery, page: ChangesPage, *, version: int) -> Element:
    """The answer to a query for a change log; `version` is the one to ask from next time."""
    answer = Element(CHANGES, _named(query.peer, query.kind, version))
    if page.reset or _bytes(page.changes) > MAX_CHANGES_BYTES:
        answer.set("reset", "true")
        return answer
    answer.extend(map(_change, page.changes))
    return answer


def _bytes(changes: Sequence[Change]) -> int:
    return sum(len(change.stanza.encode()) for change in changes if change.stanza is not None)


def _change(change: Change) -> Element:
    about = {"kind": change.kind.value, "id": change.target_id, "version": str(change.version)}
    about |= {name: text for name, text in (("by", change.author), ("detail", change.detail)) if text is not None}
    element = Element(clark(CONVSYNC, "change"), about)
    if change.stanza is not None:
        element.append(parse(change.stanza))
    return element


def _named(peer: str, kind: Kind, version: int) -> dict[str, str]:
    return {"jid": peer, "kind": kind.value, "version": str(version)}
