"""The feed (docs/feed.md): batches in; acks, subscriptions and requests to the module out.

A frame that breaks the protocol is refused as a whole (`FrameError`): its events have no position that could be
trusted. An event that breaks it is `Malformed` on its own, and its neighbours live. The component trusts nothing that
it can check: the account must be of the host that the stream belongs to, and what goes to the store must be storable.
What an event of each kind holds is read by `messages`, `rooms`, `pep` and `contacts`.
Namespaces are compared, JIDs are not prepared: servers hand them over normalised.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement

from sync.model.conversation import ConversationKey, Kind
from sync.model.errors import BadRequest
from sync.model.event import (
    AccountEvent,
    AccountState,
    Event,
    FeedPosition,
    GapEvent,
    GapReason,
    Malformed,
    SessionChange,
    SessionEvent,
)
from sync.model.jid import domain
from sync.protocol.contacts import decode_blocklist, decode_subscription
from sync.protocol.fields import Refused, address, moment, number, resource_part, storable
from sync.protocol.messages import decode_message_event
from sync.protocol.names import FEED, clark
from sync.protocol.pep import decode_pep
from sync.protocol.rooms import decode_members, decode_room, decode_room_message
from sync.protocol.serialise import serialise

FRAME, STARTED = clark(FEED, "feed"), clark(FEED, "started")
_EVENT, _SESSIONS = clark(FEED, "event"), clark(FEED, "sessions")
_MAX_STREAM_CHARS = 128  # a stream id is part of a key
_CHANGES = {change.value: change for change in SessionChange}
_ACCOUNT_STATES = {state.value: state for state in AccountState}
_GAP_REASONS = {reason.value: reason for reason in GapReason}


class FrameError(BadRequest):
    """A frame that breaks docs/feed.md; nothing of it can be taken."""


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


def decode_feed(
    frame: Element,
    *,
    host: str,
    rooms: bool = False,
    hosts: frozenset[str] = frozenset(),
    muc_hosts: frozenset[str] = frozenset(),
) -> FeedBatch:
    """A `<feed/>` that came from `host`, which keeps `rooms` or accounts. `hosts` are the component's user hosts, whose
    accounts a room may name; `muc_hosts` those whose rooms speak for themselves. Raises FrameError.
    """
    if frame.tag != FRAME:
        raise FrameError("'feed' is missing.")
    stream, shard = key(frame, "stream"), key(frame, "shard")
    last, head = count(frame, "last"), count(frame, "head")
    behind = count(frame, "behind") if "behind" in frame.attrib else None
    reach = _Reach(rooms, hosts, muc_hosts)
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
        events.append(_event(child, FeedPosition(host, stream, shard, n), reach))
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


class _Reach(NamedTuple):
    """What a host's stream may speak of."""

    rooms: bool
    hosts: frozenset[str]
    muc_hosts: frozenset[str]


def _event(element: Element, position: FeedPosition, reach: _Reach) -> Event:
    if element.get("kind") == "gap":
        return _gap(element, position)
    try:
        account = _account(element, position.host)
    except Refused as refused:
        # A foreign account must not be touched, not even to raise its epoch: the event names none.
        return _malformed(element, position, "", refused)
    try:
        at = _instant(element)
        if reach.rooms:
            return _of_room(element, position, account, at, reach)
        return _of_account(element, position, account, at, reach)
    except Refused as refused:
        return replace(_malformed(element, position, account, refused), room=reach.rooms)


def _of_account(element: Element, position: FeedPosition, account: str, at: datetime, reach: _Reach) -> Event:
    match element.get("kind"):
        case "message":
            return decode_message_event(element, position, account, at, reach.muc_hosts)
        case "session":
            return _session(element, position, account, at)
        case "pep":
            return decode_pep(element, position, account, at)
        case "subscription":
            return decode_subscription(element, position, account, at)
        case "blocklist":
            return decode_blocklist(element, position, account, at)
        case "account":
            state = _ACCOUNT_STATES.get(element.get("state", ""))
            if state is None:
                raise Refused("state")
            return AccountEvent(position=position, account=account, at=at, state=state)
        case _:
            raise Refused("kind")


def _of_room(element: Element, position: FeedPosition, room: str, at: datetime, reach: _Reach) -> Event:
    match element.get("kind"):
        case "room-message":
            return decode_room_message(element, position, room, at)
        case "room-members":
            return decode_members(element, position, room, at, reach.hosts)
        case "room":
            return decode_room(element, position, room, at)
        case _:
            raise Refused("kind")


def _gap(element: Element, position: FeedPosition) -> Event:
    # §5: the host itself, and always the first of its stream.
    try:
        reason = _GAP_REASONS.get(element.get("reason", ""))
        if reason is None or element.get("account") != position.host or position.n != 1:
            raise Refused("gap")
        return GapEvent(position=position, account=position.host, at=_instant(element), reason=reason)
    except Refused as refused:
        return _malformed(element, position, "", refused)


def _malformed(element: Element, position: FeedPosition, account: str, refused: Refused) -> Malformed:
    xml = serialise(element).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return Malformed(position=position, account=account, why=str(refused), xml=xml)


def _account(element: Element, host: str) -> str:
    account = address(element.get("account"), "account")
    user, at, _ = account.partition("@")
    if not at or not user or "/" in account:
        raise Refused("account")
    # §5, domain rule: the account's domain is the host of the stream.
    if domain(account) != host:
        raise Refused("domain")
    return account


def _instant(element: Element) -> datetime:
    at = moment(element.get("at"))
    if at is None:
        raise Refused("at")
    return at


def _session(element: Element, position: FeedPosition, account: str, at: datetime) -> SessionEvent:
    change = _CHANGES.get(element.get("state", ""))
    if change is None:
        raise Refused("state")
    resource = resource_part(element.get("resource"), "resource")
    # §5: only a session that hibernates has a time up to which its client had everything.
    acked = moment(element.get("acked")) if change is SessionChange.HIBERNATED else None
    return SessionEvent(position=position, account=account, at=at, resource=resource, change=change, acked_at=acked)


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


def delivered(answer: Element) -> int:
    """§8: to how many sessions a `deliver` was written, by its answer."""
    found = answer.find(clark(FEED, "delivered"))
    return 0 if found is None else number(found.get("sessions", "")) or 0


def displayed(key: ConversationKey, place: str) -> Element:
    """§8.3: payload of an IQ set: the account has read the conversation up to the message with this id in the archive,
    which in rooms is the room's (XEP-0490 §4.2).
    """
    by = key.peer if key.kind is Kind.GROUP else key.account
    return Element(clark(FEED, "displayed"), {"account": key.account, "jid": key.peer, "id": place, "by": by})


def sessions_request() -> Element:
    """§8: payload of an IQ get: every session of the host."""
    return Element(_SESSIONS)
