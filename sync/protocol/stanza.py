"""What one message means for state: exactly one content, chosen by precedence.

Errors come first, then what is never traffic, then the steps of calls (before any storage hint), invitations,
retraction and moderation, correction, reactions, a body or an encrypted payload, and last markers and receipts: it is
worse to lose a message than a marker. What has no meaning is `Nothing` with one of a few fixed words. Only ids are read
here; whether they name anything is for the rules to find out, and who may do what with them, too. A fallback body
(XEP-0428) of a call, retraction or reaction is never a message.
"""

from typing import NamedTuple
from xml.etree.ElementTree import Element

from sync.model.call import CallStep
from sync.model.conversation import ENCRYPTED, Direction
from sync.model.event import (
    Body,
    Bounce,
    CallMessage,
    Content,
    Correction,
    Displayed,
    Nothing,
    Reaction,
    Receipt,
)
from sync.protocol import fallback, groupchat, invitations, mentions, retractions
from sync.protocol.fields import storable
from sync.protocol.names import (
    CALL_INVITES,
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
    OMEMO,
    OPENPGP,
    PUBSUB_EVENT,
    REACTIONS,
    RECEIPTS,
    RETRACT,
    RETRACT_FASTENED,
    RTP,
    SID,
    STANZAS,
    clark,
)
from sync.protocol.serialise import parse, serialise

__all__ = ["Decoded", "decode_message", "parse", "serialise"]

MESSAGE = clark(CLIENT, "message")
MAX_TEXT_CHARS = 2000
MAX_REACTIONS, MAX_REACTION_CHARS = 64, 64  # the longest emoji of Unicode, a family with skin tones, has 11
_REACTION = clark(REACTIONS, "reaction")
_DESCRIPTION = clark(RTP, "description")
_MEDIA = ("audio", "video")
# Conversations and its relatives name the messages so; a server need not send the payload back (§8.3.1).
_CALL_IDS = ("jm-propose-", "jm-proceed-")

# XEP-0482 §2, in the words of XEP-0353.
_INVITES: dict[str, CallStep] = {
    clark(CALL_INVITES, "invite"): CallStep.PROPOSE,
    clark(CALL_INVITES, "propose"): CallStep.PROPOSE,  # as it was called before there was a XEP; Dino's
    clark(CALL_INVITES, "accept"): CallStep.PROCEED,
    clark(CALL_INVITES, "reject"): CallStep.REJECT,
    clark(CALL_INVITES, "retract"): CallStep.RETRACT,
    clark(CALL_INVITES, "left"): CallStep.FINISH,
}
_WORDS: dict[str, CallStep] = {
    **{step.value: step for step in CallStep if step is not CallStep.YIELD},
    "accept": CallStep.PROCEED,
}
_STEPS: dict[str, CallStep] = {
    clark(namespace, word): step for namespace in (JMI, *JMI_LEGACY) for word, step in _WORDS.items()
} | _INVITES
_BOUNCING = (CallStep.PROPOSE, CallStep.PROCEED)  # without the one nobody is called, without the other nobody answers
_YES = ("true", "1")
_PAYLOADS = {clark(namespace, "encrypted"): clark(namespace, "payload") for namespace in OMEMO}

# RFC 6120 §8.3.3. The condition is kept in the change log: what is none of these is undefined-condition (§8.3.3.21).
_CONDITIONS = {
    clark(STANZAS, name): name
    for name in (
        *("bad-request", "conflict", "feature-not-implemented", "forbidden", "gone", "internal-server-error"),
        *("item-not-found", "jid-malformed", "not-acceptable", "not-allowed", "not-authorized", "policy-violation"),
        *("recipient-unavailable", "redirect", "registration-required", "remote-server-not-found"),
        *("remote-server-timeout", "resource-constraint", "service-unavailable", "subscription-required"),
        *("undefined-condition", "unexpected-request"),
    )
}

Found = dict[str, Element]


class Decoded(NamedTuple):
    """A message's content, the sender's claims about its ids, and whether it may leave a trace (XEP-0334).

    `room`: of an invitation, the room that it is to. `private`: it says that it is between occupants of a room.
    `found`: what there is to look for in it.
    """

    content: Content
    message_id: str | None
    origin_id: str | None
    stored: bool
    room: str | None
    private: bool
    found: Found


# What a child element is, for the one pass over a message's children. The first of a kind counts.
_KINDS: dict[str, str] = {
    **dict.fromkeys(_STEPS, "call"),
    **dict.fromkeys(_PAYLOADS, "omemo"),
    clark(MAM, "result"): "copy",
    clark(CARBONS, "sent"): "copy",
    clark(CARBONS, "received"): "copy",
    **dict.fromkeys(retractions.RETRACTS, "retract"),
    retractions.APPLY_TO: "apply-to",
    clark(RETRACT, "retracted"): "tombstone",
    clark(RETRACT_FASTENED, "retracted"): "tombstone",
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
    clark(CLIENT, "error"): "error",
    clark(SID, "origin-id"): "origin-id",
    groupchat.OCCUPANT_ID_TAG: "occupant-id",
    groupchat.DELAY_TAG: "delay",
    invitations.MUC_USER_X: "muc-user",
    invitations.CONFERENCE_X: "conference",
    mentions.REFERENCE_TAG: "mention",
    mentions.MENTION_TAG: "mention",
    mentions.REPLY_TAG: "reply",
    **dict.fromkeys(fallback.TAGS, "fallback"),
    clark(PUBSUB_EVENT, "event"): "event",
    clark(HINTS, "no-store"): "no-store",
    clark(HINTS, "no-permanent-store"): "no-store",
    **{clark(CHAT_STATES, name): "state" for name in ("active", "composing", "paused", "inactive", "gone")},
}
_BODY = clark(CLIENT, "body")
_KINDS[_BODY] = "body"


def decode_message(message: Element, *, account: str, direction: Direction, room: str | None = None) -> Decoded:
    """What a `jabber:client` message that the account received or sent means; `room`: the one that it was said in."""
    found: Found = {}
    text = ""
    for child in message:
        kind = _KINDS.get(child.tag)
        if kind is not None:
            if kind not in found:
                found[kind] = child
            if kind == "body" and not text and child.text:
                text = child.text
    content = _outright(message, found, direction, room)
    private = "muc-user" in found and invitations.is_private(found)
    asked: invitations.Asked | None = None
    if content is None:
        if room is None and ("conference" in found or "muc-user" in found):
            asked = invitations.decode_invitation(found, message.get("from") or account, private)
        if asked is not None and direction is Direction.IN:
            content = asked.invitation
        else:
            content = _told(message, found, text, account, room)
            if content is None:
                content = Nothing(next((why for kind, why in _OTHERWISE if kind in found), "empty"))
            asked = None
    origin = found.get("origin-id")
    return Decoded(
        content,
        message.get("id") or None,
        None if origin is None else origin.get("id") or None,
        "no-store" not in found,
        None if asked is None else asked.room,
        private,
        found,
    )


_OTHERWISE = (
    ("call", "call in a room"),  # XEP-0353 §1 is for calls between two
    *(("conference", "invitation"), ("omemo", "key transport"), ("tombstone", "tombstone"), ("event", "event")),
    *(("state", "state"), ("subject", "subject"), ("fallback", "fallback"), ("muc-user", "room")),
)


def _outright(message: Element, found: Found, direction: Direction, room: str | None) -> Content | None:
    """What is plain before anything is weighed."""
    kind = message.get("type")
    if kind == "error":
        return _bounce(message, found, direction, room)
    # PROTOCOLS §5: headlines, archive results and carbons are never traffic; nor is what no room said to a group.
    if kind == "headline" or (kind == "groupchat" and room is None):
        return Nothing(kind)
    if not found:
        return Nothing("empty")
    if "copy" in found:
        return Nothing("copy")
    if "call" in found and (room is None or found["call"].tag in _INVITES):
        return _call(message, found, room)
    return None


def _told(message: Element, found: Found, text: str, account: str, room: str | None) -> Content | None:
    """What is said, or said about a message, None for neither."""
    withdrawn = retractions.decode_retraction(found, message.get("from"), room)
    if withdrawn is not None:
        return withdrawn
    readable = _readable(message, found, text, room)
    if "replace" in found:
        return _correction(found, readable)
    if "reactions" in found:
        return _reaction(found["reactions"])
    if readable is not None:
        return readable
    if "displayed" in found:
        return _displayed(found["displayed"], account if room is None else room)
    if "receipt" in found:
        target = found["receipt"].get("id")
        return Receipt(target) if target else Nothing("receipt without id")
    return None


def _bounce(message: Element, found: Found, direction: Direction, room: str | None) -> Content:
    # An error that the account's own client sent is about somebody else's message.
    if direction is Direction.OUT:
        return Nothing("error sent")
    target = message.get("id") or None
    call = None
    step = found.get("call")
    if room is not None:
        pass
    elif step is not None and _STEPS[step.tag] in _BOUNCING:
        call = _session_id(message, found, None)
    elif step is None and target is not None and target.startswith(_CALL_IDS):
        call = target[len(_CALL_IDS[0]) :] or None
    error = found.get("error")
    named = () if error is None else (_CONDITIONS[child.tag] for child in error if child.tag in _CONDITIONS)
    return Bounce(target, call, next(iter(named), "undefined-condition"))


def _call(message: Element, found: Found, room: str | None) -> Content:
    element = found["call"]
    session_id = _session_id(message, found, room)
    # XEP-0353 §4: the id names the session; without one the step is about nothing.
    if not session_id:
        return Nothing("call without id")
    step = _STEPS[element.tag]
    migrated: str | None = None
    match step:
        case CallStep.REJECT | CallStep.RETRACT if _of(element, "tie-break") is not None:
            step = CallStep.YIELD
        case CallStep.FINISH if (successor := _of(element, "migrated")) is not None:
            migrated = successor.get("to") or None
    return CallMessage(step, session_id, _media(element) if step is CallStep.PROPOSE else (), migrated)


def _session_id(message: Element, found: Found, room: str | None) -> str | None:
    """XEP-0482 §3.1: an invite is named by its message, in a room by the id that the room gives it."""
    element, origin = found["call"], found.get("origin-id")
    if _STEPS[element.tag] is not CallStep.PROPOSE or element.tag not in _INVITES:
        return element.get("id") or None
    given = groupchat.stanza_ids(message, room) if room is not None else ()
    return next(iter(given), None) or (origin.get("id") if origin is not None else None) or message.get("id") or None


def _of(element: Element, name: str) -> Element | None:
    """The step's child of its own namespace."""
    return element.find(element.tag.partition("}")[0] + "}" + name)


def _media(element: Element) -> tuple[str, ...]:
    """XEP-0353 §3.1: what the descriptions say; XEP-0482 §2.1: attributes, sound unless it is said otherwise."""
    if element.tag in _INVITES:
        offered = {"audio": element.get("audio", "true"), "video": element.get("video", "false")}
        return tuple(name for name in _MEDIA if offered[name] in _YES)
    return tuple(dict.fromkeys(m for d in element.iterfind(_DESCRIPTION) if (m := d.get("media")) in _MEDIA))


def _readable(message: Element, found: Found, text: str, room: str | None) -> Body | None:
    """The message's text, None when there is nothing to read."""
    encrypted = found.get("omemo")
    if encrypted is not None:
        # XEP-0384: an element without a payload transports a key and is no message.
        if encrypted.find(_PAYLOADS[encrypted.tag]) is None:
            return None
    elif "encrypted" not in found:
        if not text:
            return None
        if "fallback" in found and fallback.only_stands_in(text, _fallbacks(message)):
            return None
        if room is None:
            return _SAID
        said = fallback.unquoted(text, _fallbacks(message)) if "fallback" in found else text
        return Body(mentions=mentions.decode_mentions(message, found, room), text=said[:MAX_TEXT_CHARS])
    if room is None:
        return _OPAQUE if encrypted is None else _SEALED[encrypted.tag]
    return Body(encrypted=True, mentions=mentions.decode_mentions(message, found, room))


_SAID, _OPAQUE = Body(), Body(encrypted=True)
_SEALED = {
    clark(namespace, "encrypted"): Body(encrypted=True, sealed=kind)
    for namespace, kind in zip(OMEMO, ENCRYPTED, strict=True)
}


def _fallbacks(message: Element) -> list[Element]:
    return [child for child in message if child.tag in fallback.TAGS]


def _correction(found: Found, readable: Body | None) -> Content:
    target = found["replace"].get("id")
    if not target:
        return Nothing("correction without id")
    # XEP-0308 §3: a correction carries the whole new content; an empty body is one, no body is none.
    if readable is None and ("body" not in found or "omemo" in found):
        return Nothing("correction without text")
    return Correction(target)


def _reaction(element: Element) -> Content:
    target = element.get("id")
    if not target:
        return Nothing("reaction without id")
    # XEP-0444 §5: what is no emoji, or was named before, may be ignored.
    emojis = dict.fromkeys(
        emoji
        for child in element.iterfind(_REACTION)
        if (emoji := (child.text or "").strip()) and len(emoji) <= MAX_REACTION_CHARS and storable(emoji)
    )
    return Reaction(target, tuple(emojis)[:MAX_REACTIONS])


def _displayed(element: Element, archive: str) -> Content:
    # PROTOCOLS §5: a stanza-id is trusted only with `by` = own bare JID, in rooms the room.
    ids = groupchat.stanza_ids(element, archive)
    target = element.get("id") or (ids[0] if ids else None)
    return Displayed(target, ids) if target else Nothing("marker without id")
