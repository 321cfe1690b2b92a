"""Rewrite: which messages were edited or withdrawn since a version, told to Xabber's clients by headlines.

The events come from standard traffic (XEP-0308, XEP-0424, XEP-0425). Rewriting by IQ set would have to change the
server's archive and is not offered. A correction whose text is not kept cannot be told as one: its conversation is
invalidated, and the client loads it from the archive.
"""

from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import Change, ChangeKind, ConversationKey
from sync.model.errors import FeatureNotImplemented, ServiceUnavailable
from sync.model.query import RewritePage, RewriteQuery
from sync.protocol.conversations import MAX_PREVIEW_BYTES
from sync.protocol.fields import natural
from sync.protocol.names import CLIENT, CORRECT, REWRITE, REWRITE_NOTIFY, SID, clark, local, namespace
from sync.protocol.serialise import parse
from sync.protocol.synchronization import TYPES

QUERY = clark(REWRITE, "query")
MAX_EVENTS = 50  # PROTOCOLS §2: `less-than`, at most 50
_WITHDRAWN = (ChangeKind.RETRACTED, ChangeKind.MODERATED)
_HIDDEN = frozenset({clark(CORRECT, "replace"), clark(SID, "origin-id"), clark(SID, "stanza-id")})


def decode_query(payload: Element, *, kind: str) -> RewriteQuery:
    """The payload of an IQ of type `kind`; only get is served. No version = from the beginning."""
    if kind != "get":
        raise FeatureNotImplemented("Messages are rewritten by XEP-0308, XEP-0424 and XEP-0425 only.")
    if payload.tag != QUERY:
        raise ServiceUnavailable("Only 'query' can be asked.")
    since = natural(payload.get("version") or "0", "version")
    limit = natural(payload.get("less-than") or str(MAX_EVENTS), "less-than")
    return RewriteQuery(since=since, limit=min(limit, MAX_EVENTS))


def result(page: RewritePage) -> Element:
    """The answer: a `<query/>` with the version to ask from next time."""
    return Element(QUERY, {"version": str(page.newest)})


def headlines(page: RewritePage, *, account: str, to: str) -> tuple[Element, ...]:
    """The `jabber:client` messages to deliver before the answer, oldest event first."""
    events = [(version, key, None) for key, version in page.invalidated]
    retracted = {(c.conversation, c.target_rank) for c in page.changes if c.kind in _WITHDRAWN}
    out: list[tuple[int, ConversationKey, Change | None]] = list(events)
    for change in page.changes:
        if change.kind is ChangeKind.CORRECTED and not _tells(change.stanza):
            # The retraction of the same message follows: nothing is left to correct.
            if (change.conversation, change.target_rank) not in retracted:
                out.append((change.version, change.conversation, None))
        else:
            out.append((change.version, change.conversation, change))
    out.sort(key=lambda event: event[0])
    return tuple(_headline(account, to, version, key, change) for version, key, change in out)


def _tells(stanza: str | None) -> bool:
    """True for the text of a correction that is there, and small enough to be handed on (`MAX_PREVIEW_BYTES`)."""
    return stanza is not None and len(stanza.encode()) <= MAX_PREVIEW_BYTES


def _headline(account: str, to: str, version: int, key: ConversationKey, change: Change | None) -> Element:
    message = Element(clark(CLIENT, "message"), {"type": "headline", "from": account, "to": to})
    about = {"version": str(version), "conversation": key.peer, "type": TYPES[key.kind]}
    if change is None:
        SubElement(message, clark(REWRITE_NOTIFY, "invalidate"), about)
    elif change.stanza is None:
        # Of a moderated message: who did it, where the room says so.
        about |= {"id": change.target_id, "by": change.author or key.peer}
        SubElement(message, clark(REWRITE_NOTIFY, "retract-message"), about)
    else:
        replace = SubElement(message, clark(REWRITE_NOTIFY, "replace"), about | {"id": change.target_id})
        replace.append(_new_content(parse(change.stanza)))
    return message


def _new_content(correction: Element) -> Element:
    """The correction's content; like the `<message/>` around it, the body is in the namespace of the notice."""
    message = Element(clark(REWRITE_NOTIFY, "message"))
    for child in correction:
        if child.tag in _HIDDEN:
            continue
        if namespace(child.tag) == CLIENT:
            child.tag = clark(REWRITE_NOTIFY, local(child.tag))
        message.append(child)
    return message
