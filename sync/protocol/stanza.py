"""What one message means for state: exactly one content, chosen by precedence.

Errors come first, then what is never traffic, then the steps of calls (before any storage hint), retraction,
correction, displayed marker, reactions, and last a body or an encrypted payload. What has no meaning is `Nothing`
with one of a few fixed words. Only ids are read here; whether they name anything is for the rules to find out, and
who may do what with them, too. A fallback body (XEP-0428) of a call, retraction or reaction is never a message.
"""

from collections.abc import Callable
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sync.model.conversation import Direction
from sync.model.event import (
    Body,
    Bounce,
    CallMessage,
    CallStep,
    Content,
    Correction,
    Displayed,
    Nothing,
    Retraction,
)
from sync.protocol.names import (
    CARBONS,
    CHAT_STATES,
    CLIENT,
    CORRECT,
    EME,
    HINTS,
    JMI,
    JMI_LEGACY,
    LEGACY_PGP,
    MAM,
    MARKERS,
    MODERATE,
    OMEMO,
    OPENPGP,
    REACTIONS,
    RECEIPTS,
    RETRACT,
    RTP,
    SID,
    clark,
)
from sync.protocol.serialise import parse, serialise

__all__ = ["Decoded", "decode_message", "parse", "serialise"]

MESSAGE = clark(CLIENT, "message")
_STANZA_ID = clark(SID, "stanza-id")
_DESCRIPTION = clark(RTP, "description")
_MODERATED = clark(MODERATE, "moderated")
_MEDIA = ("audio", "video")
# Conversations and its relatives name the message of a propose so; a server need not send the payload back (§8.3.1).
_PROPOSE_ID = "jm-propose-"

_STEPS: dict[str, CallStep] = {
    clark(namespace, name): step
    for namespace in (JMI, *JMI_LEGACY)
    for name, step in [*((step.value, step) for step in CallStep), ("accept", CallStep.PROCEED)]
}
_PAYLOADS = {clark(namespace, "encrypted"): clark(namespace, "payload") for namespace in OMEMO}


class Decoded(NamedTuple):
    """A message's content, the sender's claims about its ids, and whether it may leave a trace (XEP-0334)."""

    content: Content
    message_id: str | None
    origin_id: str | None
    stored: bool


# What a child element is, for the one pass over a message's children. The first of a kind counts.
_KINDS: dict[str, str] = {
    **dict.fromkeys(_STEPS, "call"),
    **dict.fromkeys(_PAYLOADS, "omemo"),
    clark(MAM, "result"): "copy",
    clark(CARBONS, "sent"): "copy",
    clark(CARBONS, "received"): "copy",
    clark(RETRACT, "retract"): "retract",
    clark(CORRECT, "replace"): "replace",
    clark(MARKERS, "displayed"): "displayed",
    clark(MARKERS, "acknowledged"): "displayed",  # XEP-0333 0.3: seen, and acted upon
    clark(MARKERS, "received"): "receipt",
    clark(RECEIPTS, "received"): "receipt",
    clark(REACTIONS, "reactions"): "reactions",
    clark(OPENPGP, "openpgp"): "encrypted",
    clark(LEGACY_PGP, "x"): "encrypted",
    clark(EME, "encryption"): "encrypted",
    clark(CLIENT, "subject"): "subject",
    clark(SID, "origin-id"): "origin-id",
    clark(HINTS, "no-store"): "no-store",
    clark(HINTS, "no-permanent-store"): "no-store",
    **{clark(CHAT_STATES, name): "state" for name in ("active", "composing", "paused", "inactive", "gone")},
}
_BODY = clark(CLIENT, "body")
_KINDS[_BODY] = "body"

Found = dict[str, Element]


def decode_message(message: Element, *, account: str, direction: Direction) -> Decoded:
    """What a `jabber:client` message that the account received or sent means."""
    found: Found = {}
    text = False
    for child in message:
        kind = _KINDS.get(child.tag)
        if kind is not None:
            if kind not in found:
                found[kind] = child
            if kind == "body" and child.text:
                text = True
    origin = found.get("origin-id")
    return Decoded(
        _content(message, found, text, account, direction),
        message.get("id") or None,
        None if origin is None else origin.get("id") or None,
        "no-store" not in found,
    )


def _content(message: Element, found: Found, text: bool, account: str, direction: Direction) -> Content:
    kind = message.get("type")
    if kind == "error":
        return _bounce(message, found, direction)
    # PROTOCOLS §5: headlines, group chat (version 1), archive results and carbons are never traffic.
    if kind in ("headline", "groupchat"):
        return Nothing(kind)
    if not found:
        return Nothing("empty")
    if "copy" in found:
        return Nothing("copy")
    for name, decode in _TARGETED:
        if name in found:
            return decode(found[name], account)
    readable = _readable(found, text)
    if "replace" in found:
        return _correction(found, readable)
    if "displayed" in found:
        return _displayed(found["displayed"], account)
    if "reactions" in found:
        return Nothing("reactions")
    if readable is not None:
        return readable
    # XEP-0384: an element without a payload transports a key and is no message.
    if "omemo" in found:
        return Nothing("key transport")
    return Nothing(next((name for name in ("receipt", "state", "subject") if name in found), "empty"))


def _bounce(message: Element, found: Found, direction: Direction) -> Content:
    # An error that the account's own client sent is about somebody else's message.
    if direction is Direction.OUT:
        return Nothing("error sent")
    target = message.get("id") or None
    call = None
    step = found.get("call")
    if step is not None and _STEPS[step.tag] is CallStep.PROPOSE:
        call = step.get("id") or None
    elif step is None and target is not None and target.startswith(_PROPOSE_ID):
        call = target.removeprefix(_PROPOSE_ID) or None
    return Bounce(target, call)


def _call(element: Element, _account: str) -> Content:
    session_id = element.get("id")
    # XEP-0353 §4: the id names the session; without one the step is about nothing.
    if not session_id:
        return Nothing("call without id")
    step = _STEPS[element.tag]
    media: tuple[str, ...] = ()
    if step is CallStep.PROPOSE:
        media = tuple(dict.fromkeys(m for d in element.iterfind(_DESCRIPTION) if (m := d.get("media")) in _MEDIA))
    return CallMessage(step, session_id, media)


def _retraction(element: Element, _account: str) -> Content:
    # XEP-0425: moderation is the room's; in a one-to-one chat nobody may retract for another.
    if element.find(_MODERATED) is not None:
        return Nothing("moderation")
    target = element.get("id")
    return Retraction(target) if target else Nothing("retraction without id")


_TARGETED: tuple[tuple[str, Callable[[Element, str], Content]], ...] = (("call", _call), ("retract", _retraction))


def _readable(found: Found, text: bool) -> Body | None:
    """The message's text, None when there is nothing to read."""
    encrypted = found.get("omemo")
    if encrypted is not None:
        return Body(encrypted=True) if encrypted.find(_PAYLOADS[encrypted.tag]) is not None else None
    if "encrypted" in found:
        return Body(encrypted=True)
    return Body() if text else None


def _correction(found: Found, readable: Body | None) -> Content:
    target = found["replace"].get("id")
    if not target:
        return Nothing("correction without id")
    # XEP-0308 §3: a correction carries the whole new content; an empty body is one, no body is none.
    if readable is None and ("body" not in found or "omemo" in found):
        return Nothing("correction without text")
    return Correction(target)


def _displayed(element: Element, account: str) -> Content:
    # PROTOCOLS §5: a stanza-id is trusted only with `by` = own bare JID.
    ids = tuple(i for child in element.iterfind(_STANZA_ID) if child.get("by") == account and (i := child.get("id")))
    target = element.get("id") or (ids[0] if ids else None)
    return Displayed(target, ids) if target else Nothing("marker without id")
