"""Messages that are withdrawn, by their senders (XEP-0424) or by the room (XEP-0425), in all forms that are deployed.

XEP-0424 since 0.4 has `<retract id=…/>`; before, it was fastened to its target by XEP-0422. Moderation stands inside
the former since 0.3, and around it before. Rooms send both for the sake of clients: the current form is looked at
first. Whose message the target is, is for the rules to find out.
"""

from xml.etree.ElementTree import Element

from sync.model.event import Content, Moderation, Nothing, Retraction
from sync.protocol.fields import jid
from sync.protocol.names import FASTEN, MODERATE, MODERATE_FASTENED, RETRACT, RETRACT_FASTENED, clark

RETRACTS = (clark(RETRACT, "retract"), clark(RETRACT_FASTENED, "retract"))
APPLY_TO = clark(FASTEN, "apply-to")
_MODERATED = (clark(MODERATE, "moderated"), clark(MODERATE_FASTENED, "moderated"))


def decode_retraction(found: dict[str, Element], sender: str | None, room: str | None) -> Content | None:
    """What is withdrawn; None where nothing is (a fastening may be of any other kind)."""
    retract = found.get("retract")
    if retract is not None:
        return _withdrawn(retract.get("id"), _first(retract, _MODERATED), sender, room)
    fastened = found.get("apply-to")
    if fastened is None:
        return None
    moderated = _first(fastened, _MODERATED)
    # XEP-0425 0.2 §3: what a moderator did stands inside; only a retraction changes a message.
    retract = _first(fastened if moderated is None else moderated, RETRACTS)
    if retract is None:
        return None if moderated is None else Nothing("moderation")
    return _withdrawn(fastened.get("id"), moderated, sender, room)


def _first(element: Element, tags: tuple[str, ...]) -> Element | None:
    return next((child for child in element if child.tag in tags), None)


def _withdrawn(target: str | None, moderated: Element | None, sender: str | None, room: str | None) -> Content:
    if moderated is None:
        return Retraction(target) if target else Nothing("retraction without id")
    # XEP-0425 §5: only what comes from the room itself is legitimate; in a one-to-one chat nobody may moderate.
    if room is None or sender != room:
        return Nothing("moderation")
    return Moderation(target, jid(moderated.get("by"))) if target else Nothing("moderation without id")
