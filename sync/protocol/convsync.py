"""Our own dialect, `urn:convsync:0`: its requests, and the answers about properties set in batches and a conversation's
change log. Deltas and calls are in `delta`, what all of them show in `portrait` (docs/protocol.md).

Stricter than the dialects of others, so that it can grow: `strict`. What exists, and whether versions agree, is for the
store to say.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import Change, Conversation, Notify
from sync.model.delta import CallQuery, SyncRequest
from sync.model.errors import BadRequest, PolicyViolation, ServiceUnavailable
from sync.model.query import (
    ChangesPage,
    ChangesQuery,
    ConversationQuery,
    Mute,
    MuteUntil,
    SetNotify,
    SetProperties,
    SetQuiet,
    Unmute,
)
from sync.model.quiet import Quiet
from sync.protocol import delta
from sync.protocol.fields import boolean, instant, natural, number, required
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.portrait import CALL, CONVERSATION, change_elements, named
from sync.protocol.quiet import QUIET, quiet_element, read_quiet
from sync.protocol.strict import NAME, named_kind, only
from sync.protocol.synchronization import FOR_EVER_SECONDS, named_peer, read_status

SET, CHANGES = clark(CONVSYNC, "set"), clark(CONVSYNC, "changes")
MAX_CONVERSATIONS = 100  # of a set: one transaction under the account's lock
MAX_CHANGES = 500  # of an answer; a client that missed more loads the conversation anew
MAX_CHANGES_BYTES = 256 * 1024  # of an answer: servers end the connection of a component whose stanzas are too large

Request = tuple[SetProperties, ...] | SetQuiet | ChangesQuery | ConversationQuery | SyncRequest | CallQuery

_NOTIFY: dict[str, Notify | None] = {notify.value: notify for notify in Notify} | {"default": None}
_MUTES = frozenset({"muted", "muted-until"})
_PROPERTIES = frozenset({"pinned", "status", "marked-unread", "notify", "read"}) | _MUTES
_SETTABLE = NAME | _PROPERTIES | {"if-version"}


def decode(payload: Element, *, account: str, kind: str) -> Request:
    """The payload of an account's IQ of type `kind`. Raises BadRequest, ItemNotFound, PolicyViolation,
    ServiceUnavailable.
    """
    match kind, payload.tag:
        case "set", tag if tag == SET:
            return _set(payload)
        case "get", tag if tag == CHANGES:
            return _changes(payload)
        case "get", tag if tag == CONVERSATION:
            only(payload, NAME)
            return ConversationQuery(peer=named_peer(payload), kind=named_kind(payload))
        case "get", tag if tag == delta.SYNC:
            return delta.decode_sync(payload, account=account)
        case "get", tag if tag == CALL:
            return delta.decode_call(payload)
        case _:
            raise ServiceUnavailable("There is no such request.")


def _set(payload: Element) -> tuple[SetProperties, ...] | SetQuiet:
    if payload.find(QUIET) is not None:
        only(payload, frozenset(), QUIET)
        if len(payload) > 1:
            raise BadRequest("'quiet' is set once, and alone.")
        return SetQuiet(read_quiet(payload[0]))
    if len(payload) > MAX_CONVERSATIONS:
        raise PolicyViolation(f"At most {MAX_CONVERSATIONS} conversations can be set at once.")
    only(payload, frozenset(), CONVERSATION)
    if not len(payload):
        raise BadRequest("'conversation' is missing.")
    requests = tuple(map(_properties, payload))
    if len({(request.peer, request.kind) for request in requests}) < len(requests):
        raise BadRequest("'jid' names a conversation twice.")
    return requests


def _properties(element: Element) -> SetProperties:
    only(element, _SETTABLE)
    peer, kind = named_peer(element), named_kind(element)
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
    only(payload, NAME | {"since", "max"})
    return ChangesQuery(
        peer=named_peer(payload),
        kind=named_kind(payload),
        since=natural(payload.get("since", "0"), "since"),
        limit=min(natural(payload.get("max", str(MAX_CHANGES)), "max"), MAX_CHANGES),
    )


# ---- answers --------------------------------------------------------------------------------------------------------


def encode_set(conversations: Iterable[Conversation]) -> Element:
    """The answer to a set: every conversation that was named, with the version that it has now."""
    answer = Element(SET)
    for conversation in conversations:
        SubElement(answer, CONVERSATION, named(conversation.key.peer, conversation.key.kind, conversation.version))
    return answer


def encode_quiet(quiet: Quiet | None, *, now: datetime) -> Element:
    """The answer to a set of quiet hours: what holds from now on."""
    answer = Element(SET)
    found = quiet_element(quiet, now)
    answer.extend([] if found is None else [found])
    return answer


def encode_changes(query: ChangesQuery, page: ChangesPage, *, version: int) -> Element:
    """The answer to a query for a change log; `version` is the one to ask from next time."""
    answer = Element(CHANGES, named(query.peer, query.kind, version))
    if page.reset or _bytes(page.changes) > MAX_CHANGES_BYTES:
        answer.set("reset", "true")
        return answer
    answer.extend(change_elements(page.changes))
    return answer


def _bytes(changes: Sequence[Change]) -> int:
    return sum(len(change.stanza.encode()) for change in changes if change.stanza is not None)
