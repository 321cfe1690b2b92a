"""Client Synchronization, requests: what Xabber's clients ask and set (docs/dialects.md).

Reads a query or a change of properties into the model's values and refuses, by the name of the field, what it cannot
take. Whether a stamp is still valid and whether the conversation exists is for the store to say. Answers are made in
`conversations`.
"""

from datetime import timedelta
from xml.etree.ElementTree import Element

from sync.model.conversation import ENCRYPTED, Kind, Status
from sync.model.errors import BadRequest, ItemNotFound, ServiceUnavailable
from sync.model.jid import MAX_JID_BYTES
from sync.model.query import Cursor, ListQuery, Mute, SetProperties, Unmute
from sync.protocol import forms, rsm
from sync.protocol.cursor import decode_cursor
from sync.protocol.fields import boolean, natural, storable
from sync.protocol.names import MUC, OMEMO, SYNC, XABBER_CHAT, clark

QUERY = clark(SYNC, "query")
CONVERSATION = clark(SYNC, "conversation")
# No client knows a type for standard rooms. Of a type that they do not know, Xabber's clients show list row, counters
# and preview as of a plain chat; its own group types would make them speak their group protocol to a room
# (docs/dialects.md §1). XEP-0045's namespace says what it is to everybody else. Encrypted chats that are kept apart
# have the namespace of their encryption as type.
KINDS = {XABBER_CHAT: Kind.CHAT, MUC: Kind.GROUP} | dict(zip(OMEMO, ENCRYPTED, strict=True))
TYPES = {kind: name for name, kind in KINDS.items()}
# What clients name, also by the name that a plain chat had before.
_KIND_OF = KINDS | {f"{SYNC}#chat": Kind.CHAT}
NO_CONVERSATION = "There is no such conversation."
_STATUSES = {status.value: status for status in Status}
_FLAGS = ("pinned_first", "filter_pinned", "filter_archived")
# The reference server takes fields in Clark notation only, its clients send bare names as well (PROTOCOLS §2).
_FLAG_OF = {spelling: flag for flag in _FLAGS for spelling in (flag, clark(SYNC, flag))}
# Of an answer, whatever is asked for. More follow behind `<last/>`; clients page by 25 or 60 (PROTOCOLS §2).
MAX_LISTED = 2000
# A longer mute is for ever: existing servers write "for ever" as a hundred years from now.
FOR_EVER_SECONDS = 3_170_980_000


def decode_query(payload: Element, *, account: str) -> ListQuery:
    """The payload of an IQ get. A continued list keeps the `since` of its first page, whatever stamp comes with it, and
    its filters: others than those name no place in it.
    """
    if payload.tag != QUERY:
        raise ServiceUnavailable("Only 'query' can be asked.")
    # PROTOCOLS §2: absent, '' or '0' = the full list.
    since = natural(payload.get("stamp") or "0", "stamp")
    flags = _flags(_only(payload, forms.FORM))
    result_set = _only(payload, rsm.SET)
    paging = rsm.Paging() if result_set is None else rsm.read(result_set)
    after = decode_cursor(paging.after, account=account) if paging.after else None
    before = decode_cursor(paging.before, account=account) if paging.before else None
    place = after or before
    if place is not None:
        _same_list(place, flags)
    return ListQuery(
        since=since if place is None else place.since,
        pinned_first=flags.get("pinned_first", False) if place is None else place.pinned_first,
        pinned=flags.get("filter_pinned") if place is None else place.pinned,
        archived=flags.get("filter_archived") if place is None else place.archived,
        limit=MAX_LISTED if paging.limit is None else min(paging.limit, MAX_LISTED),
        after=after,
        before=before,
        # XEP-0059 §2.5: an empty `before` asks for the last page.
        at_end=paging.before == "",
    )


def _same_list(place: Cursor, flags: dict[str, bool]) -> None:
    """Refuse filters that are not those of the list in which the place is; ones that are left out are."""
    begun = {"pinned_first": place.pinned_first, "filter_pinned": place.pinned, "filter_archived": place.archived}
    if any(begun[flag] != value for flag, value in flags.items()):
        raise ItemNotFound("'after' or 'before' names no item of a list with these filters.")


def _only(payload: Element, tag: str) -> Element | None:
    found = payload.findall(tag)
    if len(found) > 1:
        raise BadRequest("There is more than one form or result set.")
    return found[0] if found else None


def _flags(form: Element | None) -> dict[str, bool]:
    flags: dict[str, bool] = {}
    if form is None:
        return flags
    for var, values in forms.read(form).items():
        if var == forms.FORM_TYPE:
            if values != (SYNC,):
                raise BadRequest("'FORM_TYPE' is not the namespace of the query.")
            continue
        flag = _FLAG_OF.get(var)
        if flag is None:
            raise BadRequest("The form has an unknown field.")
        if flag in flags or len(values) != 1:
            raise BadRequest(f"'{flag}' must have one value.")
        flags[flag] = boolean(values[0], flag)
    return flags


def decode_set(payload: Element) -> SetProperties:
    """The payload of an IQ set: any number of properties of one conversation."""
    if payload.tag != QUERY:
        raise ServiceUnavailable("Only 'query' can be set.")
    conversations = payload.findall(CONVERSATION)
    if len(conversations) != 1:
        raise BadRequest("One 'conversation' must be named.")
    conversation = conversations[0]
    peer, kind = named_peer(conversation), conversation.get("type", XABBER_CHAT)
    # PROTOCOLS §2: an unknown conversation is item-not-found; of a type that we do not keep there is none.
    if kind not in _KIND_OF:
        raise ItemNotFound(NO_CONVERSATION)
    pinned, mute, status = (conversation.get(name) for name in ("pinned", "mute", "status"))
    if pinned is None and mute is None and status is None:
        raise BadRequest("There is nothing to set.")
    return SetProperties(
        peer=peer,
        kind=_KIND_OF[kind],
        pinned=None if pinned is None else natural(pinned, "pinned"),
        mute=None if mute is None else _mute(mute),
        status=None if status is None else read_status(status),
    )


def named_peer(element: Element) -> str:
    """The `jid` that an element names; one that no conversation can have is ItemNotFound."""
    peer = element.get("jid")
    if not peer:
        raise BadRequest("'jid' is missing.")
    if len(peer.encode(errors="replace")) > MAX_JID_BYTES or not storable(peer):
        raise ItemNotFound(NO_CONVERSATION)
    return peer


def _mute(text: str) -> Mute | Unmute:
    # PROTOCOLS §2: seconds from now, 0 = for ever, empty = unmute.
    if not text:
        return Unmute()
    seconds = natural(text, "mute")
    return Mute(None) if seconds == 0 or seconds >= FOR_EVER_SECONDS else Mute(timedelta(seconds=seconds))


def read_status(text: str) -> Status:
    """A status by its name, or BadRequest."""
    status = _STATUSES.get(text)
    if status is None:
        raise BadRequest("'status' must be 'active', 'archived' or 'deleted'.")
    return status
