"""Client Synchronization, answers: pages of conversations and live notices, as Xabber's clients read them.

Shows what the model holds and chooses nothing: which conversations, in which order, is the store's. A last message is
shown under the original's ids: a correction with its new text and without `<replace/>`, a retracted message as the
tombstone of XEP-0424. Ids by the archive that keeps the message, the account's own or the room's, are written anew, so
none that a sender put there passes.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import ConversationKey, Kind, LastMessage, Status
from sync.model.query import ConversationPage, Cursor, ListedConversation
from sync.protocol import rsm
from sync.protocol.cursor import encode_cursor, microseconds, sort_key
from sync.protocol.names import CLIENT, CORRECT, DELIVERY, JMI, MAM_TMP, RETRACT, REWRITE, SID, SYNC, clark
from sync.protocol.serialise import is_plain, parse, width, written
from sync.protocol.synchronization import CONVERSATION, QUERY, TYPES

_METADATA = clark(SYNC, "metadata")
_MESSAGE, _PRESENCE = clark(CLIENT, "message"), clark(CLIENT, "presence")
_STANZA_ID, _ORIGIN_ID = clark(SID, "stanza-id"), clark(SID, "origin-id")
_ARCHIVED, _TIME = clark(MAM_TMP, "archived"), clark(DELIVERY, "time")
_REPLACE, _RETRACTED = clark(CORRECT, "replace"), clark(RETRACT, "retracted")
_BY_ARCHIVE = frozenset({_STANZA_ID, _ARCHIVED, _TIME})
_START = f'<message xmlns="{CLIENT}"'
_TO_LOOK_AT = re.compile("<(?:stanza-id|archived|time|delay|replace)[ />]")  # text and values have no `<`
_SECOND = timedelta(seconds=1)
# A server ends the connection of a component whose stanza is larger than it takes (Prosody: 512 kB), and anybody may
# send a large message. What does not fit is left out, the client loads it from the archive: a part of a message would
# be kept as the whole one.
MAX_PREVIEW_BYTES = 64 * 1024  # one last message, one ringing call
MAX_PREVIEWS_BYTES = 256 * 1024  # all of an answer
# Of an answer, with its previews: a fifth of what servers are set up to take (docs/admin.md). `MAX_LISTED` rows of the
# usual size need it; strangers may have addresses of 3 kB, and messages ids of any length.
MAX_LIST_BYTES = 3 * 1024 * 1024
_ROW_BYTES, _CALL_BYTES = 1000, 400  # what rows and calls take besides names, ids and messages
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def fitting(page: ConversationPage) -> ConversationPage:
    """The page with as many conversations as an answer has space for, those nearest to the place that was asked from
    (one in any case), and that many as its limit.
    """
    backwards = page.query.at_end or page.query.before is not None
    left = MAX_LIST_BYTES - MAX_PREVIEWS_BYTES
    for kept, item in enumerate(reversed(page.items) if backwards else page.items):
        left -= _row_bytes(item)
        if left < 0 and kept:
            items = page.items[-kept:] if backwards else page.items[:kept]
            return replace(page, query=replace(page.query, limit=kept), items=items)
    return page


def _row_bytes(item: ListedConversation) -> int:
    conversation = item.conversation
    key, last = conversation.key, conversation.last
    texts = [key.peer, conversation.read.id, conversation.displayed.id, conversation.delivered.id, item.mention_id]
    if conversation.requests_presence:
        texts.append(key.peer)
    if last is not None:
        texts += [archive_of(key)] * 3 + [last.archive_id] * 2 + [last.message_id]
    for call in item.calls:
        texts += [key.account] * 3 + [call.archive_id] * 2
    return _ROW_BYTES + _CALL_BYTES * len(item.calls) + sum(width(text) for text in texts if text)


def encode_page(page: ConversationPage, *, account: str, now: datetime) -> Element:
    """The answer to a list query: a `<query/>`."""
    query = Element(QUERY, {"stamp": str(page.newest)})
    space = Space()
    for item in page.items:
        query.append(encode_conversation(item, account=account, now=now, space=space))
    first, last = (_cursor(page, page.items[i], account) if page.items else None for i in (0, -1))
    query.append(rsm.write(first, last, page.total))
    return query


def _cursor(page: ConversationPage, item: ListedConversation, account: str) -> str:
    query = page.query
    cursor = Cursor(
        since=query.since,
        newest=page.newest,
        sort=sort_key(item.conversation, pinned_first=query.pinned_first),
        pinned_first=query.pinned_first,
        pinned=query.pinned,
        archived=query.archived,
    )
    return encode_cursor(cursor, account=account)


def notice(item: ListedConversation, *, account: str, newest: int, now: datetime, request_id: str) -> Element:
    """A live notice: an IQ set of the account's bare JID, to be delivered to each of its sessions."""
    stanza = Element(clark(CLIENT, "iq"), {"type": "set", "from": account, "id": request_id})
    query = SubElement(stanza, QUERY, {"stamp": str(newest)})
    query.append(encode_conversation(item, account=account, now=now))
    return stanza


class Space:
    """What the messages of an answer may still take."""

    def __init__(self, size: int = MAX_PREVIEWS_BYTES) -> None:
        self._left = size

    def takes(self, stanza: str) -> bool:
        """True where there is space for this stanza, which then has it."""
        size = len(stanza.encode())
        if size > min(self._left, MAX_PREVIEW_BYTES):
            return False
        self._left -= size
        return True


def encode_conversation(
    item: ListedConversation, *, account: str, now: datetime, space: Space | None = None
) -> Element:
    """One `<conversation/>`; a deleted one is a tombstone. What has no `space` is left out."""
    conversation, space = item.conversation, space or Space()
    key = conversation.key
    attributes = {"jid": key.peer, "type": TYPES[key.kind], "status": conversation.status.value}
    element = Element(CONVERSATION, attributes | {"stamp": str(microseconds(conversation.activity_at))})
    if conversation.status is Status.DELETED:
        return element
    element.set("thread", "")
    element.set("pinned", str(conversation.pinned))
    # PROTOCOLS §2: an absolute unix second, left out when over.
    if conversation.muted_until is not None and conversation.muted_until > now:
        element.set("mute", str((conversation.muted_until - _EPOCH) // _SECOND))
    element.append(_state(item, account, space))
    rewrite = SubElement(element, _METADATA, {"node": REWRITE})
    SubElement(rewrite, clark(REWRITE, "retract"), {"version": str(conversation.rewritten)})
    calls = SubElement(element, _METADATA, {"node": JMI})
    for call in item.calls:
        if call.stanza is not None and call.rings(now) and space.takes(call.stanza):
            stanza = _named(parse(call.stanza), account, archive_of(key), call.archive_id, call.proposed_at)
            SubElement(calls, clark(SYNC, "call")).append(stanza)
    if conversation.requests_presence:
        SubElement(element, _PRESENCE, {"type": "subscribe", "from": key.peer})
    return element


def _state(item: ListedConversation, account: str, space: Space) -> Element:
    """Counters, pointers and the last message. Where nothing was said yet there is no `<last-message/>`: clients then
    show an empty chat, while they would try to show an empty message.
    """
    conversation = item.conversation
    state = Element(_METADATA, {"node": SYNC})
    SubElement(state, clark(SYNC, "unread"), {"count": str(conversation.unread), "after": conversation.read.id or "0"})
    SubElement(state, clark(SYNC, "displayed"), {"id": conversation.displayed.id or "0"})
    SubElement(state, clark(SYNC, "delivered"), {"id": conversation.delivered.id or "0"})
    if item.mention_id is not None:
        SubElement(state, clark(SYNC, "unread-mention"), {"id": item.mention_id})
    if conversation.last is not None and space.takes(conversation.last.stanza):
        last = SubElement(state, clark(SYNC, "last-message"))
        last.append(_last_message(conversation.last, account, archive_of(conversation.key)))
    return state


def archive_of(key: ConversationKey) -> str:
    """Whose archive names the messages of a conversation: the account's own, in rooms the room's (XEP-0359 §3)."""
    return key.peer if key.kind is Kind.GROUP else key.account


def _last_message(last: LastMessage, account: str, archive: str) -> Element:
    head = as_stored(last, archive)
    if head is not None:
        by, at = f'by="{archive}" id="{last.archive_id}"', stamp(last.sent_at)
        named = f'<archived xmlns="{MAM_TMP}" {by}/><stanza-id xmlns="{SID}" {by}/>'
        return written(f'{head}{named}<time xmlns="{DELIVERY}" by="{archive}" stamp="{at}"/></message>')
    return _named(original(last), account, archive, last.archive_id, last.sent_at)


def as_stored(last: LastMessage, archive: str) -> str | None:
    """The stored text up to the archive's own stanza-id, where that is its end: such a message is shown as it is, with
    what the archive says of it behind. None where it has to be looked at: a tombstone, a correction, ids or times that
    somebody else put there.
    """
    text, archive_id = last.stanza, last.archive_id
    if last.retracted or archive_id is None or not is_plain(archive_id, archive, last.message_id or ""):
        return None
    for place in (f'by="{archive}" id="{archive_id}"', f'id="{archive_id}" by="{archive}"'):
        end = f'<stanza-id xmlns="{SID}" {place}/></message>'
        if text.endswith(end):
            head = text[: -len(end)]
            break
    else:
        return None
    start = head.partition(">")[0]
    named = ' id="' not in start if last.message_id is None else f' id="{last.message_id}"' in start
    return head if named and start.startswith(_START) and not _TO_LOOK_AT.search(head) else None


def original(last: LastMessage) -> Element:
    """The message that a preview shows, under the original's message id. Ids of archives in it are whatever the sender
    or a server wrote: `unnamed`.
    """
    # A tombstone may have nothing left of its message.
    stored = parse(last.stanza) if last.stanza else Element(_MESSAGE)
    message = Element(_MESSAGE, dict(stored.attrib))
    if last.retracted:
        # XEP-0424 §5: a tombstone keeps the addresses, its text is gone, and `stamp` must be there. The instant of the
        # retraction is not kept; the message's stands in.
        SubElement(message, _RETRACTED, {"stamp": stamp(last.sent_at)})
    else:
        # XEP-0308 §3: a correction has ids of its own; the message it shows is the original.
        corrected = stored.find(_REPLACE) is not None
        hidden = (_REPLACE, _ORIGIN_ID) if corrected else ()
        message.extend(child for child in stored if child.tag not in hidden)
    if last.message_id is None:
        message.attrib.pop("id", None)
    else:
        message.set("id", last.message_id)
    return message


def unnamed(message: Element, account: str, archive: str) -> Element:
    """The message without any id or time in the name of the archive or the account."""
    for child in [c for c in message if c.tag in _BY_ARCHIVE and c.get("by", account) in (account, archive)]:
        message.remove(child)
    return message


def _named(message: Element, account: str, archive: str, archive_id: str | None, sent_at: datetime) -> Element:
    """The message with the ids and the time that its archive gave it, and no others in the name of the archive or the
    account.
    """
    unnamed(message, account, archive)
    if archive_id is not None:
        SubElement(message, _ARCHIVED, {"by": archive, "id": archive_id})
        SubElement(message, _STANZA_ID, {"by": archive, "id": archive_id})
    SubElement(message, _TIME, {"by": archive, "stamp": stamp(sent_at)})
    return message


def stamp(instant: datetime) -> str:
    """XEP-0082, in microseconds: the clients order by it."""
    # strftime takes three times as long, and a list has hundreds of them.
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
