"""Events of the kind `message` (docs/feed.md §5): to which conversation a message belongs, and whose it is.

A message belongs to the peer's bare JID; a private message of a room to the occupant's full JID (XEP-0045 §7.5); an
invitation, and what is said in a room that this server does not keep, to the room. Rooms that it keeps speak in streams
of their own: what sessions see of them is not looked at.
"""

from datetime import datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sync.model.conversation import Direction, Kind
from sync.model.event import FeedPosition, MessageEvent, Nothing, Session, SessionState
from sync.model.jid import bare, domain
from sync.protocol import groupchat
from sync.protocol.fields import Refused, address, moment, resource_part, storable
from sync.protocol.names import FEED, clark
from sync.protocol.serialise import serialise
from sync.protocol.stanza import MESSAGE, Decoded, decode_message

_SESSIONS, _S = clark(FEED, "sessions"), clark(FEED, "s")
_STATES = {state.value: state for state in SessionState}
_DIRECTIONS = {direction.value: direction for direction in Direction}


class _Place(NamedTuple):
    """Where a message belongs, and what only rooms say of it."""

    peer: str
    kind: Kind
    archive_id: str | None
    message_id: str | None
    author: str | None = None
    replayed: bool = False


def decode_message_event(
    element: Element, position: FeedPosition, account: str, at: datetime, muc_hosts: frozenset[str]
) -> MessageEvent:
    """Raises Refused."""
    attributes = element.attrib
    direction = _DIRECTIONS.get(attributes.get("direction", ""))
    if direction is None:
        raise Refused("direction")
    resource, archive_id = attributes.get("resource") or None, attributes.get("archive-id") or None
    if resource is not None:
        resource_part(resource, "resource")
    if archive_id is not None and not storable(archive_id):
        raise Refused("archive-id")
    message, sessions = _children(element)
    other, sender = _parties(message, account, direction, resource)
    stanza = serialise(message)
    if not storable(stanza):
        raise Refused("characters")
    room = bare(other) if message.get("type") == "groupchat" else None
    decoded = decode_message(message, account=account, direction=direction, room=room)
    content = decoded.content
    if room is None:
        place = _between_two(message, decoded, other, archive_id, muc_hosts)
    else:
        place = _in_room(message, decoded, room, account, direction)
        # A room does not write to itself, and no account is one.
        if room == account or domain(room) in muc_hosts:
            content = Nothing("groupchat")
    return MessageEvent(
        position=position,
        account=account,
        at=at,
        direction=direction,
        peer=place.peer,
        sender=sender,
        content=content,
        stanza=stanza,
        kind=place.kind,
        resource=resource,
        archive_id=place.archive_id,
        message_id=place.message_id,
        origin_id=decoded.origin_id,
        author=place.author,
        known=attributes.get("known") == "true",
        blocked=attributes.get("blocked") == "true",
        to_self=attributes.get("to-self") == "true",
        replayed=place.replayed,
        stored=decoded.stored,
        sessions=sessions,
    )


def _children(element: Element) -> tuple[Element, tuple[Session, ...]]:
    message: Element | None = None
    sessions: tuple[Session, ...] = ()
    for child in element:
        if child.tag == MESSAGE:
            message = child
        elif child.tag == _SESSIONS:
            sessions = _sessions_of(child)
    if message is None:
        raise Refused("message")
    return message, sessions


def _parties(message: Element, account: str, direction: Direction, resource: str | None) -> tuple[str, str]:
    """The other party's JID as it stands there, and the sender's full JID."""
    sender, to = message.get("from"), message.get("to")
    if direction is Direction.IN:
        # RFC 6120 §8.1.2.1: without `from` a stanza is from the account itself.
        sender = address(sender, "from") if sender else account
        return sender, sender
    if sender is None:
        sender = f"{account}/{resource}" if resource else account
    # An `out` event is by one of the account's own sessions; nobody else's words may be taken for it.
    elif bare(address(sender, "from")) != account:
        raise Refused("from")
    # RFC 6120 §10.3.1: without `to` a message is for the account's own bare JID.
    return (address(to, "to") if to else account), sender


def _sessions_of(element: Element) -> tuple[Session, ...]:
    # A state of a later version of the module is a session that this version cannot rate: left out, not refused.
    return tuple(
        Session(resource, state, moment(s.get("acked")) if state is SessionState.HIBERNATED else None)
        for s in element
        if s.tag == _S
        and (state := _STATES.get(s.get("state", ""))) is not None
        and (resource := s.get("r"))
        and storable(resource)
    )


def _between_two(
    message: Element, decoded: Decoded, other: str, archive_id: str | None, muc_hosts: frozenset[str]
) -> _Place:
    peer, kind = bare(other), Kind.CHAT
    if decoded.room is not None:
        peer, kind = decoded.room, Kind.GROUP
    elif decoded.private:
        peer = other
    elif muc_hosts and domain(peer) in muc_hosts:
        # An occupant writes with a nickname; of the room itself only its errors are about what was said in it.
        if other == peer and message.get("type") == "error":
            kind = Kind.GROUP
        peer = other
    return _Place(peer, kind, archive_id, decoded.message_id)


def _in_room(message: Element, decoded: Decoded, room: str, account: str, direction: Direction) -> _Place:
    if direction is Direction.OUT:
        return _Place(room, Kind.GROUP, None, decoded.message_id, account)
    # The account's own archive need not hold what rooms say; ids of messages there are the room's (XEP-0045 §7.4).
    given = groupchat.stanza_ids(message, room)
    archive_id = given[0] if given else None
    message_id = decoded.message_id
    if archive_id is None and message_id is None:
        message_id = groupchat.derived_id(message)
    # XEP-0421 §3: who it is whatever it is called; without it only the nickname tells.
    author = groupchat.occupant_id(decoded.found, room, account) or message.get("from")
    return _Place(room, Kind.GROUP, archive_id, message_id, author, groupchat.is_history(decoded.found, room))
