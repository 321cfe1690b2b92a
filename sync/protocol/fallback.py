"""Which part of a body is said, and which only stands in for what the stanza says otherwise (XEP-0428).

Whoever understands what a fallback is for may take it as if it were not there. We understand reactions, retractions,
markers and calls: a body that is nothing but a fallback for one of them is no message. Fallbacks for files, places or
encryption stand in for something that is a message, so they leave it one. A reply's quotation was said by another.
"""

from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element

from sync.protocol.fields import number
from sync.protocol.names import FALLBACKS, REPLY, clark

TAGS = tuple(clark(namespace, "fallback") for namespace in FALLBACKS)
_BODIES = {clark(namespace, "body") for namespace in FALLBACKS}
_FAR = 2**63
_REPLY_FAMILY = REPLY.rpartition(":")[0]
# Namespaces without their version: a fallback is most useful for the versions that we do not know yet.
_NO_MESSAGE = {
    "urn:xmpp:reactions",
    "urn:xmpp:message-retract",
    "urn:xmpp:message-moderate",
    "urn:xmpp:fasten",
    "urn:xmpp:chat-markers",
    "urn:xmpp:receipts",
    "urn:xmpp:jingle-message",
    "urn:xmpp:jingle:jingle-message",
    "urn:xmpp:call-invites",
    "http://jabber.org/protocol/chatstates",
}


def only_stands_in(text: str, fallbacks: Iterable[Element]) -> bool:
    """True when nothing of the body is left without the fallbacks for what is no message."""
    return not _without(text, fallbacks, lambda family: family in _NO_MESSAGE).strip()


def unquoted(text: str, fallbacks: Iterable[Element]) -> str:
    """The body without what a reply quotes (XEP-0461 §3.1)."""
    return _without(text, fallbacks, lambda family: family == _REPLY_FAMILY)


def _family(namespace: str) -> str:
    head, _, version = namespace.rpartition(":")
    return head if version.isdigit() else namespace


def _without(text: str, fallbacks: Iterable[Element], meant: Callable[[str], bool]) -> str:
    cuts: list[tuple[int, int]] = []
    for fallback in fallbacks:
        if not meant(_family(fallback.get("for", ""))):
            continue
        # XEP-0428 §2.2: without children it is for the whole of every body.
        if not len(fallback):
            return ""
        cuts += [_region(child) for child in fallback if child.tag in _BODIES]
    if not cuts:
        return text
    kept, at = [], 0
    for start, end in sorted(cuts):
        if start > at:
            kept.append(text[at:start])
        at = max(at, end)
    kept.append(text[at:])
    return "".join(kept)


def _region(body: Element) -> tuple[int, int]:
    """Code points (XEP-0426), the end not included. What is no number cuts nothing: it is worse to lose words."""
    start, end = number(body.get("start", "0")), number(body.get("end", str(_FAR - 1)))
    return (0, 0) if start is None or end is None or end < start else (start, end)
