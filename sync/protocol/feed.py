"""The feed (docs/feed.md): batches in; acks, subscriptions and requests to the module out.

A frame that breaks the protocol is refused as a whole (`FrameError`): its events have no position that could be
trusted. An event that breaks it is `Malformed` on its own, and its neighbours live. The component trusts nothing that
it can check: the account must be of the host that the stream belongs to, and what goes to the store must be storable.
Namespaces are compared, JIDs are not prepared: servers hand them over normalised.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import Direction
from sync.model.errors import BadRequest
from sync.model.event import (
    AccountEvent,
    AccountState,
    Event,
    FeedPosition,
    GapEvent,
    GapReason,
    Malformed,
    MessageEvent,
    Session,
    SessionChange,
    SessionEvent,
    SessionState,
)
from sync.model.jid import MAX_JID_BYTES, bare, domain
from sync.protocol.fields import number, storable
from sync.protocol.names import FEED, clark
from sync.protocol.serialise import serialise
from sync.protocol.stanza import MESSAGE, decode_message

FRAME, STARTED = clark(FEED, "feed"), clark(FEED, "started")
_EVENT, _SESSIONS, _S = clark(FEED, "event"), clark(FEED, "sessions"), clark(FEED, "s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_STREAM_CHARS = 128  # a stream id is part of a key
_STATES = {state.value: state for state in SessionState}
_CHANGES = {change.value: change for change in SessionChange}
_ACCOUNT_STATES = {state.value: state for state in AccountState}
_GAP_REASONS = {reason.value: reason for reason in GapReason}
_DIRECTIONS = {direction.value: direction for direction in Direction}


class FrameError(BadRequest):
    """A frame that breaks docs/feed.md; nothing of it can be taken."""


class _Refused(Exception):
    """Why one event is malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedBatch:
    """Consecutive events of one stream; `head` > `last` says that more is behind. `behind`: how many events are still
    to come, those of later streams included; None where the module does not say.
    """

    host: str
    stream: str
    shard: str
    last: int
    head: int
    behind: int | None
    events: tuple[Event, ...]


def decode_feed(frame: Element, *, host: str) -> FeedBatch:
    """A `<feed/>` that came from `host`. Raises FrameError."""
    if frame.tag != FRAME:
        raise FrameError("'feed' is missing.")
    stream, shard = key(frame, "stream"), key(frame, "shard")
    last, head = count(frame, "last"), count(frame, "head")
    behind = count(frame, "behind") if "behind" in frame.attrib else None
    events: list[Event] = []
    expected = None
    for child in frame:
        if child.tag != _EVENT:
            continue
        n = count(child, "n")
        # §3: events are consecutive.
        if expected is not None and n != expected:
            raise FrameError("'n' does not follow its predecessor.")
        expected = n + 1
        events.append(_event(child, FeedPosition(host, stream, shard, n)))
    # §3: last is the n of the last event here, head the newest of the stream.
    if expected is None or expected - 1 != last or head < last:
        raise FrameError("'last' and 'head' do not fit the events.")
    return FeedBatch(host=host, stream=stream, shard=shard, last=last, head=head, behind=behind, events=tuple(events))


def count(element: Element, attribute: str) -> int:
    """A number of the frame, or FrameError naming it."""
    value = number(element.get(attribute, ""))
    if value is None:
        raise FrameError(f"'{attribute}' is not a number.")
    return value


def key(element: Element, attribute: str) -> str:
    """A stream or shard id, or FrameError naming the attribute."""
    value = element.get(attribute, "")
    if not value or len(value) > _MAX_STREAM_CHARS or not storable(value):
        raise FrameError(f"'{attribute}' is missing or too long.")
    return value


def _event(element: Element, position: FeedPosition) -> Event:
    if element.get("kind") == "gap":
        return _gap(element, position)
    try:
        account = _account(element, position.host)
    except _Refused as refused:
        # A foreign account must not be touched, not even to raise its epoch: the event names none.
        return _malformed(element, position, "", refused)
    try:
        at = _instant(element)
        kind = element.get("kind")
        if kind == "message":
            return _message(element, position, account, at)
        if kind == "session":
            return _session(element, position, account, at)
        if kind == "account":
            state = _ACCOUNT_STATES.get(element.get("state", ""))
            if state is None:
                raise _Refused("state")
            return AccountEvent(position=position, account=account, at=at, state=state)
        raise _Refused("kind")
    except _Refused as refused:
        return _malformed(element, position, account, refused)


def _gap(element: Element, position: FeedPosition) -> Event:
    # §5: the host itself, and always the first of its stream.
    try:
        reason = _GAP_REASONS.get(element.get("reason", ""))
        if reason is None or element.get("account") != position.host or position.n != 1:
            raise _Refused("gap")
        return GapEvent(position=position, account=position.host, at=_instant(element), reason=reason)
    except _Refused as refused:
        return _malformed(element, position, "", refused)


def _malformed(element: Element, position: FeedPosition, account: str, refused: _Refused) -> Malformed:
    xml = serialise(element).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return Malformed(position=position, account=account, why=str(refused), xml=xml)


def _jid(value: str | None, why: str) -> str:
    # RFC 7622 §3.1 bounds a JID; len() is checked first because a character is at least a byte.
    if not value or len(value) > MAX_JID_BYTES or not storable(value):
        raise _Refused(why)
    if not value.isascii() and len(value.encode()) > MAX_JID_BYTES:
        raise _Refused(why)
    return value


def _account(element: Element, host: str) -> str:
    account = _jid(element.get("account"), "account")
    user, at, _ = account.partition("@")
    if not at or not user or "/" in account:
        raise _Refused("account")
    # §5, domain rule: the account's domain is the host of the stream.
    if domain(account) != host:
        raise _Refused("domain")
    return account


def _instant(element: Element) -> datetime:
    at = number(element.get("at", ""))
    if at is None:
        raise _Refused("at")
    try:
        return _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        raise _Refused("at") from None


def _session(element: Element, position: FeedPosition, account: str, at: datetime) -> SessionEvent:
    change = _CHANGES.get(element.get("state", ""))
    if change is None:
        raise _Refused("state")
    resource = _jid(element.get("resource"), "resource")
    return SessionEvent(position=position, account=account, at=at, resource=resource, change=change)


def _message(element: Element, position: FeedPosition, account: str, at: datetime) -> MessageEvent:
    attributes = element.attrib
    direction = _DIRECTIONS.get(attributes.get("direction", ""))
    if direction is None:
        raise _Refused("direction")
    resource, archive_id = attributes.get("resource") or None, attributes.get("archive-id") or None
    if resource is not None:
        _jid(resource, "resource")
    if archive_id is not None and not storable(archive_id):
        raise _Refused("archive-id")
    message: Element | None = None
    sessions: tuple[Session, ...] = ()
    for child in element:
        if child.tag == MESSAGE:
            message = child
        elif child.tag == _SESSIONS:
            sessions = _sessions_of(child)
    if message is None:
        raise _Refused("message")
    peer, sender = _parties(message, account, direction, resource)
    stanza = serialise(message)
    if not storable(stanza):
        raise _Refused("characters")
    content, message_id, origin_id, stored = decode_message(message, account=account, direction=direction)
    return MessageEvent(
        position=position,
        account=account,
        at=at,
        direction=direction,
        peer=peer,
        sender=sender,
        content=content,
        stanza=stanza,
        resource=resource,
        archive_id=archive_id,
        message_id=message_id,
        origin_id=origin_id,
        known=attributes.get("known") == "true",
        to_self=attributes.get("to-self") == "true",
        stored=stored,
        sessions=sessions,
    )


def _parties(message: Element, account: str, direction: Direction, resource: str | None) -> tuple[str, str]:
    """The peer's bare JID and the sender's full JID."""
    sender, to = message.get("from"), message.get("to")
    if direction is Direction.IN:
        # RFC 6120 §8.1.2.1: without `from` a stanza is from the account itself.
        sender = _jid(sender, "from") if sender else account
        return bare(sender), sender
    if sender is None:
        sender = f"{account}/{resource}" if resource else account
    # An `out` event is by one of the account's own sessions; nobody else's words may be taken for it.
    elif bare(_jid(sender, "from")) != account:
        raise _Refused("from")
    # RFC 6120 §10.3.1: without `to` a message is for the account's own bare JID.
    return (bare(_jid(to, "to")) if to else account), sender


def _sessions_of(element: Element) -> tuple[Session, ...]:
    # A state of a later version of the module is a session that this version cannot rate: left out, not refused.
    return tuple(
        Session(resource, state)
        for s in element.iterfind(_S)
        if (state := _STATES.get(s.get("state", ""))) is not None and (resource := s.get("r")) and storable(resource)
    )


# ---- to the module -------------------------------------------------------------------------------------------------


def ack(stream: str, n: int) -> Element:
    """§4: payload of a message: everything up to n is committed."""
    return Element(clark(FEED, "ack"), {"stream": stream, "n": str(n)})


def subscribe(committed: Iterable[tuple[str, int]]) -> Element:
    """§2: payload of an IQ set: for each known stream the last committed n."""
    element = Element(clark(FEED, "subscribe"), {"versions": "1", "buckets": "0-255"})
    for stream, n in committed:
        SubElement(element, clark(FEED, "stream"), {"id": stream, "n": str(n)})
    return element


def deliver(stanza: Element, *, account: str, resource: str | None = None) -> Element:
    """§8: payload of an IQ set: write a `jabber:client` stanza to one session, or to all available ones."""
    element = Element(clark(FEED, "deliver"), {"account": account})
    if resource is not None:
        element.set("resource", resource)
    element.append(stanza)
    return element


def sessions_request() -> Element:
    """§8: payload of an IQ get: every session of the host."""
    return Element(_SESSIONS)
