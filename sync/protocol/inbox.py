"""Inbox (XEP-0430 0.2.0): what is asked, a message for each conversation, the `<fin/>` (docs/dialects.md §7).

The last message is a result of the archive (XEP-0313), under the original's ids: a correction with its new text, a
retracted message as its tombstone. Whose archive it is, the account's or the room's, says its stanza-id, the only one
in that name. What was not archived has no place there: such a conversation has an entry alone, as has one whose message
is too large.
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import LastMessage
from sync.model.errors import BadRequest, FeatureNotImplemented, ServiceUnavailable
from sync.model.query import InboxEntry, InboxPage, InboxPlace, InboxQuery
from sync.protocol import rsm
from sync.protocol.conversations import MAX_PREVIEW_BYTES, Space, archive_of, original, stamp, unnamed
from sync.protocol.cursor import decode_place, encode_place
from sync.protocol.fields import boolean
from sync.protocol.names import CLIENT, DELAY, FORWARD, INBOX, MAM, SID, clark

QUERY = clark(INBOX, "inbox")
MAX_ENTRIES = 200  # of a page; XEP-0430 §3.1 lets a server limit them
MAX_BYTES = 1024 * 1024  # of all last messages of a page
_ENTRY, _FIN, _MESSAGE = clark(INBOX, "entry"), clark(INBOX, "fin"), clark(CLIENT, "message")
_RESULT, _FORWARDED, _DELAY = clark(MAM, "result"), clark(FORWARD, "forwarded"), clark(DELAY, "delay")
_STANZA_ID = clark(SID, "stanza-id")


def decode_query(payload: Element, *, account: str, kind: str) -> InboxQuery:
    """The payload of an IQ of type `kind`. Attributes and elements that the XEP does not have are passed over."""
    if payload.tag != QUERY:
        raise ServiceUnavailable("Only 'inbox' can be asked.")
    if kind != "get":
        raise FeatureNotImplemented("An inbox cannot be set.")
    result_sets = payload.findall(rsm.SET)
    if len(result_sets) > 1:
        raise BadRequest("There is more than one result set.")
    paging = rsm.read(result_sets[0]) if result_sets else rsm.Paging()
    # XEP-0430 §3.1: defaults.
    messages = boolean(payload.get("messages", "true"), "messages")
    return InboxQuery(
        unread_only=boolean(payload.get("unread-only", "false"), "unread-only"),
        preview_bytes=MAX_PREVIEW_BYTES if messages else None,
        limit=MAX_ENTRIES if paging.limit is None else min(paging.limit, MAX_ENTRIES),
        after=decode_place(paging.after, account=account) if paging.after else None,
        before=decode_place(paging.before, account=account) if paging.before else None,
        # XEP-0059 §2.5: an empty `before` asks for the last page.
        at_end=paging.before == "",
    )


def messages(page: InboxPage, *, to: str, query_id: str) -> Iterator[Element]:
    """A message for each entry, in order, to the full JID that asked; `query_id` is the id of its IQ."""
    space = Space(MAX_BYTES)
    for item in page.items:
        key = item.key
        message = Element(_MESSAGE, {"from": key.account, "to": to})
        entry = SubElement(message, _ENTRY, {"jid": key.peer, "unread": str(item.unread)})
        if item.archive_id is not None:
            entry.set("id", item.archive_id)
        last = item.last
        if last is not None and last.archive_id is not None and space.takes(last.stanza):
            message.append(_result(item, last, last.archive_id, query_id))
        yield message


def _result(item: InboxEntry, last: LastMessage, archive_id: str, query_id: str) -> Element:
    archive = archive_of(item.key)
    said = unnamed(original(last), item.key.account, archive)
    SubElement(said, _STANZA_ID, {"by": archive, "id": archive_id})
    result = Element(_RESULT, {"queryid": query_id, "id": archive_id})
    forwarded = SubElement(result, _FORWARDED)
    SubElement(forwarded, _DELAY, {"stamp": stamp(last.sent_at)})
    forwarded.append(said)
    return result


def fin(page: InboxPage, *, account: str) -> Element:
    """The answer: counts of the whole inbox, and where the page lies in the list that was asked for."""
    counts = {"total": page.total, "unread": page.unread_conversations, "all-unread": page.unread}
    element = Element(_FIN, {name: str(count) for name, count in counts.items()})
    first, last = (encode_place(_place(page, page.items[i]), account=account) if page.items else None for i in (0, -1))
    element.append(rsm.write(first, last, page.count))
    return element


def _place(page: InboxPage, item: InboxEntry) -> InboxPlace:
    key = item.key
    return InboxPlace(newest=page.newest, version=item.version, activity=item.activity, peer=key.peer, kind=key.kind)
