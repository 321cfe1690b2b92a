"""What a room says about a message that it passes on: its id there, who wrote it, whether it is history.

All of it is the room's word, which the room must strip from what its occupants send; a room that does not know one of
the extensions lets an occupant write it. So nothing here may be taken for a name of somebody else: an occupant-id that
reads like an address in the room, or like the account itself, is not one.
"""

from hashlib import sha256
from xml.etree.ElementTree import Element

from sync.model.jid import bare, domain
from sync.protocol.fields import claim, storable
from sync.protocol.mentions import MAX_OCCUPANT_ID_CHARS
from sync.protocol.names import CLIENT, DELAY, OCCUPANT_ID, SID, clark
from sync.protocol.serialise import serialise

STANZA_ID, OCCUPANT_ID_TAG, DELAY_TAG = (
    clark(SID, "stanza-id"),
    clark(OCCUPANT_ID, "occupant-id"),
    clark(DELAY, "delay"),
)
_MESSAGE = clark(CLIENT, "message")


def stanza_ids(element: Element, by: str) -> tuple[str, ...]:
    """The ids that `by` gave, of a message or of a marker's target (XEP-0359 §5: others may be forged)."""
    return tuple(
        identifier
        for child in element.iterfind(STANZA_ID)
        if child.get("by") == by and (identifier := child.get("id")) and storable(identifier)
    )


def occupant_id(found: dict[str, Element], room: str, account: str | None = None) -> str | None:
    """XEP-0421: who wrote the message, whatever it is called now."""
    element = found.get("occupant-id")
    identifier = None if element is None else claim(element.get("id"), MAX_OCCUPANT_ID_CHARS)
    if identifier is None or identifier == account or bare(identifier) == room:
        return None
    return identifier


def is_history(found: dict[str, Element], room: str) -> bool:
    """XEP-0045 §7.2.14: sent again to somebody who came into the room."""
    delay = found.get("delay")
    return delay is not None and bare(delay.get("from", "")) in (room, domain(room))


def derived_id(message: Element) -> str:
    """An id for a message that has none: the same for the copies that the sessions of an account get."""
    # Written without what a server on the way, or the room, says of one copy alone.
    one = Element(_MESSAGE, {name: value for name, value in message.items() if name != "to"})
    one.text = message.text
    one.extend(child for child in message if child.tag not in (STANZA_ID, DELAY_TAG))
    return "derived:" + sha256(serialise(one).encode(errors="replace")).hexdigest()
