"""How our own dialect shows conversations, changes and calls, in whatever answer or notice they stand."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.call import Call, CallState
from sync.model.conversation import Change, Conversation, Kind, LastMessage, Pointer, Status
from sync.model.query import ListedConversation
from sync.protocol.conversations import archive_of, as_stored, original, stamp, unnamed
from sync.protocol.names import CONVSYNC, DELAY, SID, clark
from sync.protocol.serialise import parse, written

CONVERSATION, CALL = clark(CONVSYNC, "conversation"), clark(CONVSYNC, "call")
_DELAY, _STANZA_ID = clark(DELAY, "delay"), clark(SID, "stanza-id")
DEFAULTS = {
    "status": "active",
    "unread": "0",
    "mentions": "0",
    "marked-unread": "false",
    "pinned": "0",
    "notify": "default",
}
_FOR_EVER = datetime.max.replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def named(peer: str, kind: Kind, version: int) -> dict[str, str]:
    """The attributes of a conversation that has this version."""
    return {"jid": peer, "kind": kind.value, "version": str(version)}


def conversation_element(item: ListedConversation, *, now: datetime, brief: bool = False) -> Element:
    """One conversation; of a deleted one, that it is. `brief`: without what is as it is by default."""
    conversation = item.conversation
    key = conversation.key
    element = Element(CONVERSATION, named(key.peer, key.kind, conversation.version))
    element.set("status", conversation.status.value)
    element.set("activity", stamp(conversation.activity_at))
    if conversation.status is Status.DELETED:
        return element
    element.set("unread", str(conversation.unread))
    element.set("mentions", str(conversation.mentions))
    element.set("marked-unread", "true" if conversation.marked_unread else "false")
    element.set("pinned", str(conversation.pinned))
    element.set("notify", conversation.notify.value if conversation.notify else "default")
    if brief:
        for name, value in DEFAULTS.items():
            if element.attrib[name] == value:
                del element.attrib[name]
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


def change_elements(changes: Iterable[Change]) -> Iterable[Element]:
    """Entries of a change log, in their order."""
    for change in changes:
        about = {"kind": change.kind.value, "id": change.target_id, "version": str(change.version)}
        about |= {name: text for name, text in (("by", change.author), ("detail", change.detail)) if text is not None}
        element = Element(clark(CONVSYNC, "change"), about)
        if change.stanza is not None:
            element.append(parse(change.stanza))
        yield element


def last_element(conversation: Conversation, last: LastMessage | None) -> Element:
    """`<last/>` with a conversation's last message under the original's ids; without one, that it has been left out."""
    element = Element(clark(CONVSYNC, "last"))
    if last is None:
        element.set("left-out", "true")
    else:
        account, archive = conversation.key.account, archive_of(conversation.key)
        head = as_stored(last, archive)
        if head is None:
            element.append(_archived(original(last), account, archive, last.archive_id, last.sent_at))
        else:
            named = f'<stanza-id xmlns="{SID}" by="{archive}" id="{last.archive_id}"/>'
            at = f'<delay xmlns="{DELAY}" from="{archive}" stamp="{stamp(last.sent_at)}"/>'
            element.append(written(f"{head}{named}{at}</message>"))
    return element


def call_element(call: Call, *, now: datetime, message: bool) -> Element:
    """A call; while it rings with its age and what is left of the ringing in whole seconds, and with `message` the
    propose.
    """
    key = call.key
    element = Element(CALL, {"id": call.session_id, "jid": key.peer, "state": call.state.value})
    if call.kind is not Kind.CHAT:
        element.set("kind", call.kind.value)
    if call.answered_by is not None:
        element.set("by", call.answered_by)
    element.set("from", call.caller)
    if call.continues is not None:
        element.set("continues", call.continues)
    if call.media:
        element.set("media", " ".join(call.media))
    element.set("version", str(call.version))
    element.set("proposed", stamp(call.proposed_at))
    if call.state is CallState.RINGING:
        element.set("age", str(max(0, (now - call.proposed_at) // _SECOND)))
        element.set("left", str(max(0, (call.rings_until - now) // _SECOND)))
        if message and call.stanza is not None:
            propose = parse(call.stanza)
            element.append(
                _archived(propose, key.account, archive_of(call.conversation), call.archive_id, call.proposed_at)
            )
    return element


def _archived(message: Element, account: str, archive: str, archive_id: str | None, sent_at: datetime) -> Element:
    """The message with the id and the time that its archive gave it, and no others in the name of the archive or the
    account.
    """
    unnamed(message, account, archive)
    for child in [c for c in message if c.tag == _DELAY and c.get("from", account) in (account, archive)]:
        message.remove(child)
    if archive_id is not None:
        SubElement(message, _STANZA_ID, {"by": archive, "id": archive_id})
    SubElement(message, _DELAY, {"from": archive, "stamp": stamp(sent_at)})
    return message
