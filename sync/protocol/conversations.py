"""Client Synchronization, answers: pages of conversations and live notices, as Xabber's clients read them.

Shows what the model holds and chooses nothing: which conversations, in which order, is the store's. A last message is
shown under the original's ids: a correction with its new text and without `<replace/>`, a retracted message as the
tombstone of XEP-0424. Ids by the account's own archive are written anew, so none that a sender put there passes.
"""

from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import LastMessage, Status
from sync.model.query import ConversationPage, Cursor, ListedConversation
from sync.protocol import rsm
from sync.protocol.cursor import encode_cursor, microseconds, sort_key
from sync.protocol.names import CLIENT, CORRECT, DELIVERY, JMI, MAM_TMP, RETRACT, REWRITE, SID, SYNC, clark
from sync.protocol.serialise import parse
from sync.protocol.synchronization import CONVERSATION, KINDS, QUERY

_METADATA = clark(SYNC, "metadata")
_MESSAGE = clark(CLIENT, "message")
_STANZA_ID, _ORIGIN_ID = clark(SID, "stanza-id"), clark(SID, "origin-id")
_ARCHIVED, _TIME = clark(MAM_TMP, "archived"), clark(DELIVERY, "time")
_REPLACE, _RETRACTED = clark(CORRECT, "replace"), clark(RETRACT, "retracted")
_BY_ARCHIVE = frozenset({_STANZA_ID, _ARCHIVED, _TIME})
_TYPES = {kind: name for name, kind in KINDS.items()}
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_page(page: ConversationPage, *, account: str, now: datetime) -> Element:
    """The answer to a list query: a `<query/>`."""
    query = Element(QUERY, {"stamp": str(page.newest)})
    for item in page.items:
        query.append(encode_conversation(item, account=account, now=now))
    first, last = (_cursor(page, page.items[i], account) if page.items else None for i in (0, -1))
    query.append(rsm.write(first, last, page.total))
    return query


def _cursor(page: ConversationPage, item: ListedConversation, account: str) -> str:
    sort = sort_key(item.conversation, pinned_first=page.query.pinned_first)
    return encode_cursor(Cursor(since=page.query.since, newest=page.newest, sort=sort), account=account)


def notice(item: ListedConversation, *, account: str, newest: int, now: datetime, request_id: str) -> Element:
    """A live notice: an IQ set of the account's bare JID, to be delivered to each of its sessions."""
    stanza = Element(clark(CLIENT, "iq"), {"type": "set", "from": account, "id": request_id})
    query = SubElement(stanza, QUERY, {"stamp": str(newest)})
    query.append(encode_conversation(item, account=account, now=now))
    return stanza


def encode_conversation(item: ListedConversation, *, account: str, now: datetime) -> Element:
    """One `<conversation/>`; a deleted one is a tombstone."""
    conversation = item.conversation
    element = Element(
        CONVERSATION,
        {
            "jid": conversation.key.peer,
            "type": _TYPES.get(conversation.key.kind, conversation.key.kind.value),
            "status": conversation.status.value,
            "stamp": str(microseconds(conversation.activity_at)),
        },
    )
    if conversation.status is Status.DELETED:
        return element
    element.set("thread", "")
    element.set("pinned", str(conversation.pinned))
    # PROTOCOLS §2: an absolute unix second, left out when over.
    if conversation.muted_until is not None and conversation.muted_until > now:
        element.set("mute", str((conversation.muted_until - _EPOCH) // _SECOND))
    main = SubElement(element, _METADATA, {"node": SYNC})
    displayed = conversation.displayed.id or "0"
    SubElement(main, clark(SYNC, "unread"), {"count": str(conversation.unread), "after": conversation.read.id or "0"})
    SubElement(main, clark(SYNC, "displayed"), {"id": displayed})
    # Receipts are not kept yet; what the peer displayed was delivered.
    SubElement(main, clark(SYNC, "delivered"), {"id": displayed})
    if conversation.last is not None:
        last = SubElement(main, clark(SYNC, "last-message"))
        last.append(_last_message(conversation.last, account))
    rewrite = SubElement(element, _METADATA, {"node": REWRITE})
    SubElement(rewrite, clark(REWRITE, "retract"), {"version": str(conversation.rewritten)})
    calls = SubElement(element, _METADATA, {"node": JMI})
    for call in item.calls:
        if call.stanza is not None and call.rings(now):
            SubElement(calls, clark(SYNC, "call")).append(
                _named(parse(call.stanza), account, call.archive_id, call.proposed_at)
            )
    return element


def _last_message(last: LastMessage, account: str) -> Element:
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
    return _named(message, account, last.archive_id, last.sent_at)


def _named(message: Element, account: str, archive_id: str | None, sent_at: datetime) -> Element:
    """The message with the ids and the time that the account's own archive gave it, and no others in its name."""
    for child in [c for c in message if c.tag in _BY_ARCHIVE and c.get("by", account) == account]:
        message.remove(child)
    if archive_id is not None:
        SubElement(message, _ARCHIVED, {"by": account, "id": archive_id})
        SubElement(message, _STANZA_ID, {"by": account, "id": archive_id})
    SubElement(message, _TIME, {"by": account, "stamp": stamp(sent_at)})
    return message


def stamp(instant: datetime) -> str:
    """XEP-0082, in microseconds: the clients order by it."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
