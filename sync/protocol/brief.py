"""The beginning of a last message, for the row of a list: who, when, and so many characters of the text.

What a sender's client adds for other clients is not in it, and neither is quoted text (XEP-0428). A message that was
taken back or is encrypted has no text. Whoever wants the whole message has its id in the archive.
"""

from xml.etree.ElementTree import Element

from sync.model.conversation import Conversation, Kind, LastMessage
from sync.model.jid import bare
from sync.protocol import fallback
from sync.protocol.conversations import stamp
from sync.protocol.names import CLIENT, CONVSYNC, EME, LEGACY_PGP, OMEMO, OPENPGP, clark
from sync.protocol.serialise import parse

MAX_PREVIEW = 256  # characters
_LAST, _BODY = clark(CONVSYNC, "last"), clark(CLIENT, "body")
_OPAQUE = frozenset(
    (
        *(clark(namespace, "encrypted") for namespace in OMEMO),
        clark(OPENPGP, "openpgp"),
        clark(LEGACY_PGP, "x"),
        clark(EME, "encryption"),
    )
)


def brief_element(conversation: Conversation, last: LastMessage, most: int) -> Element:
    """`<last/>` with the first `most` characters. The sender is named where the conversation's `jid` does not say it,
    the time where `activity` does not.
    """
    element = Element(_LAST)
    if last.archive_id is not None:
        element.set("stanza-id", last.archive_id)
    elif last.message_id is not None:
        element.set("id", last.message_id)
    # A tombstone may have nothing left of its message.
    message = parse(last.stanza) if last.stanza else Element("message")
    sender, key = message.get("from"), conversation.key
    if sender is not None and (key.kind is Kind.GROUP or key.peer not in (sender, bare(sender))):
        element.set("from", sender)
    if last.sent_at != conversation.activity_at:
        element.set("sent", stamp(last.sent_at))
    if last.retracted:
        element.set("retracted", "true")
    elif any(child.tag in _OPAQUE for child in message):
        element.set("encrypted", "true")
    else:
        _put_text(element, message, most)
    return element


def _put_text(element: Element, message: Element, most: int) -> None:
    text = next((child.text for child in message if child.tag == _BODY and child.text), "")
    marked = [child for child in message if child.tag in fallback.TAGS]
    if marked:
        text = fallback.unquoted(text, marked)
    element.text = text[:most]
    if len(text) > most:
        element.set("cut", "true")
