"""Our own dialect's `sync` and `call`: requests, answers, and the content that live notices share with them
(docs/protocol.md).

An answer ends early rather than grow without bound: a server ends the connection of a component whose stanza is larger
than it takes (Prosody: 512 kB), and anybody may send large messages, and name things at length. What has no space is
left out and said to be.
"""

from datetime import datetime
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from sync.model.call import Call
from sync.model.conversation import Account, Change, Status
from sync.model.delta import (
    MAX_STANZA_BYTES,
    CallQuery,
    DeltaItem,
    DeltaPage,
    DeltaToken,
    Filters,
    Reset,
    SyncRequest,
)
from sync.model.errors import BadRequest
from sync.model.query import ListedConversation
from sync.protocol.brief import MAX_PREVIEW, brief_element
from sync.protocol.conversations import MAX_PREVIEWS_BYTES, stamp
from sync.protocol.fields import boolean, natural, required
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.portrait import (
    CONVERSATION,
    call_element,
    change_elements,
    conversation_element,
    last_element,
    named,
)
from sync.protocol.quiet import quiet_element
from sync.protocol.serialise import width
from sync.protocol.strict import only, read_kind
from sync.protocol.synchronization import named_peer
from sync.protocol.token import decode_token, encode_token

SYNC = clark(CONVSYNC, "sync")
MAX_PAGE, DEFAULT_PAGE = 200, 100  # conversations of an answer
MAX_BYTES = 448 * 1024  # of an answer, with room for what it is wrapped in
MAX_ID_BYTES = 64 * 1024  # of a call's session id: as long as anybody may have made it
_NAMED = 512  # what the id and the time that a stanza is given take
_OURS = frozenset(
    clark(CONVSYNC, name) for name in ("changes", "change", "last", "read", "displayed", "delivered", "unread-mention")
)
_STATUSES = {status.value: status for status in (Status.ACTIVE, Status.ARCHIVED)}
_FILTERS = frozenset({"jid", "kind", "status", "unread", "pinned"})
_ASKED = frozenset({"token", "max", "messages", "changes", "preview", "live", "device", "at-least"}) | _FILTERS


def decode_sync(payload: Element, *, account: str) -> SyncRequest:
    """A `<sync/>` of an account. Raises BadRequest naming the attribute; ItemNotFound: a JID that nobody can have."""
    only(payload, _ASKED)
    given = payload.attrib
    return SyncRequest(
        token=decode_token(given["token"], account=account) if "token" in given else None,
        filters=_filters(payload),
        limit=min(natural(given.get("max", str(DEFAULT_PAGE)), "max"), MAX_PAGE),
        messages=boolean(given.get("messages", "true"), "messages"),
        changes=boolean(given.get("changes", "true"), "changes"),
        preview=min(natural(given["preview"], "preview"), MAX_PREVIEW) if "preview" in given else None,
        at_least=natural(given.get("at-least", "0"), "at-least"),
        device=required(payload, "device") if "device" in given else None,
        live=_flag(payload, "live"),
    )


def _filters(payload: Element) -> Filters:
    kind, status = payload.get("kind"), payload.get("status")
    if status is not None and status not in _STATUSES:
        raise BadRequest("'status' must be 'active' or 'archived'.")
    return Filters(
        peer=named_peer(payload) if "jid" in payload.attrib else None,
        kind=None if kind is None else read_kind(kind),
        status=None if status is None else _STATUSES[status],
        unread=_flag(payload, "unread"),
        pinned=_flag(payload, "pinned"),
    )


def _flag(payload: Element, name: str) -> bool | None:
    text = payload.get(name)
    return None if text is None else boolean(text, name)


def decode_call(payload: Element) -> CallQuery:
    """A `<call/>`. Raises as `decode_sync`."""
    only(payload, frozenset({"id", "jid"}))
    return CallQuery(
        session_id=required(payload, "id", MAX_ID_BYTES), peer=named_peer(payload) if "jid" in payload.attrib else None
    )


# ---- answers --------------------------------------------------------------------------------------------------------


class Budget:
    """What may still be put into an answer: bytes of stanzas, and bytes in all."""

    def __init__(self, *, stanzas: int = MAX_PREVIEWS_BYTES, whole: int = MAX_BYTES) -> None:
        self._stanzas, self._whole = stanzas, whole

    def takes(self, *stanzas: str) -> bool:
        """True where there is space for all of these stanzas, which then have it."""
        size = sum(len(stanza.encode()) for stanza in stanzas)
        if size > min(self._stanzas, MAX_STANZA_BYTES):
            return False
        self._stanzas -= size
        self._whole -= size
        return True

    def holds(self, element: Element) -> bool:
        """True where there is space for this element of ours, which then has it; its stanzas have theirs already."""
        size = weight(element)
        if size > self._whole:
            return False
        self._whole -= size
        return True


def weight(element: Element) -> int:
    """About the bytes that an element of our own takes, and seldom less, without the stanzas in it."""
    values = element.attrib.items()
    size = 2 * len(element.tag) + sum(len(name) + 4 + width(value) for name, value in values)
    return size + sum(weight(child) if child.tag in _OURS else _NAMED for child in element)


def encode_sync(
    page: DeltaPage, *, now: datetime, reset: Reset | None, preview: int | None = None
) -> tuple[Element, DeltaToken]:
    """The answer to `sync`, and the token in it. `preview` as in the request."""
    answer = Element(SYNC)
    shown = fill(answer, page, now=now, budget=Budget(), preview=preview)
    token = page.token(shown)
    answer.set("token", encode_token(token, account=page.owner.jid))
    answer.set("version", str(page.version))
    answer.set("time", stamp(now))
    if not page.is_last(shown):
        answer.set("more", "true")
    if reset is not None:
        answer.set("reset", reset.value)
    return answer, token


def fill(answer: Element, page: DeltaPage, *, now: datetime, budget: Budget, preview: int | None = None) -> int:
    """Put the content of a page into an answer or a notice: totals, quiet hours, calls, conversations. How many of the
    page's conversations found space; one does in any case.
    """
    answer.append(totals_element(page.owner))
    if (quiet := quiet_element(page.owner.quiet, now)) is not None:
        answer.append(quiet)
    for call in (*(call for call in page.ringing if call.rings(now)), *page.settled):
        element = shown_call(call, now=now, budget=budget)
        if budget.holds(element):
            answer.append(element)
    for shown, item in enumerate(page.items):
        element = _item(item, now=now, delta=page.query.since > 0, budget=budget, preview=preview)
        held = budget.holds(element)
        if held or not shown:
            answer.append(element)
        if not held:
            return max(shown, 1)
    return len(page.items)


def totals_element(owner: Account) -> Element:
    """The true badge: unread messages, mentions, and the conversations that have any."""
    totals = {"unread": owner.unread, "mentions": owner.mentions, "conversations": owner.unread_conversations}
    return Element(clark(CONVSYNC, "totals"), {name: str(count) for name, count in totals.items()})


def shown_call(call: Call, *, now: datetime, budget: Budget | None = None) -> Element:
    """A call; of one that rings the propose, too, where it has space."""
    budget = budget or Budget()
    rings = call.rings(now) and call.stanza is not None
    return call_element(call, now=now, message=rings and budget.takes(call.stanza or ""))


def _item(item: DeltaItem, *, now: datetime, delta: bool, budget: Budget, preview: int | None) -> Element:
    conversation = item.conversation
    if not item.matches:
        key = conversation.key
        return Element(CONVERSATION, named(key.peer, key.kind, conversation.version) | {"outside": "true"})
    listed = ListedConversation(conversation=conversation, mention_id=item.mention_id)
    element = conversation_element(listed, now=now, brief=preview is not None)
    if conversation.status is Status.DELETED:
        return element
    last = conversation.last
    if last is not None and preview is not None:
        brief = brief_element(conversation, last, preview)
        element.append(brief if budget.takes(escape(brief.text or "")) else last_element(conversation, None))
    elif item.left_out or last is not None:
        fits = last is not None and budget.takes(last.stanza)
        element.append(last_element(conversation, last if fits else None))
    if delta and item.changes != ():
        element.append(_changes(item.changes, budget))
    return element


def _changes(log: tuple[Change, ...] | None, budget: Budget) -> Element:
    element = Element(clark(CONVSYNC, "changes"))
    if log is not None and budget.takes(*(change.stanza or "" for change in log)):
        element.extend(change_elements(log))
        if weight(element) <= MAX_STANZA_BYTES:
            return element
    return Element(element.tag, {"reset": "true"})
