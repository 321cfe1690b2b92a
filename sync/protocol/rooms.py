"""Events of a MUC host's stream (docs/feed.md §5): what is said in a room, who belongs to it, that it is no more.

The domain rule was checked before: the account of each event is a room of that host. Members are accounts of the hosts
that the component serves; whoever else is named is left out, since a room may speak of them to nobody.
"""

from datetime import datetime
from xml.etree.ElementTree import Element

from sync.model.conversation import MAX_KEY_BYTES, Direction
from sync.model.event import (
    FeedPosition,
    Membership,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
)
from sync.model.jid import bare, domain
from sync.model.room import Affiliation, Departure
from sync.protocol.fields import Refused, address, claim, storable
from sync.protocol.groupchat import occupant_id
from sync.protocol.mentions import MAX_OCCUPANT_ID_CHARS
from sync.protocol.names import FEED, clark
from sync.protocol.serialise import serialise
from sync.protocol.stanza import MESSAGE, decode_message

MAX_MEMBERS = 1000  # of one event; the module sends at most 200
_MAX_NICK_CHARS = 1023  # RFC 7622 §3.4: a nickname is a resource
_M = clark(FEED, "m")
_AFFILIATIONS = {affiliation.value: affiliation for affiliation in Affiliation}
_DEPARTURES = {departure.value: departure for departure in Departure}


def decode_room_message(element: Element, position: FeedPosition, room: str, at: datetime) -> RoomMessageEvent:
    """Raises Refused."""
    archive_id = element.get("archive-id") or None
    if archive_id is not None and not storable(archive_id):
        raise Refused("archive-id")
    message = element.find(MESSAGE)
    if message is None or message.get("type") != "groupchat":
        raise Refused("message")
    sender = address(message.get("from"), "from")
    # A room passes on what is said in it under its own name.
    if bare(sender) != room:
        raise Refused("from")
    stanza = serialise(message)
    if not storable(stanza):
        raise Refused("characters")
    decoded = decode_message(message, account=room, direction=Direction.IN, room=room)
    return RoomMessageEvent(
        position=position,
        account=room,
        at=at,
        sender=sender,
        content=decoded.content,
        stanza=stanza,
        private=element.get("private") == "true",
        author=_author(element.get("author")),
        occupant_id=occupant_id(decoded.found, room),
        archive_id=archive_id,
        message_id=decoded.message_id,
        origin_id=decoded.origin_id,
        stored=decoded.stored,
    )


def _author(given: str | None) -> str | None:
    return bare(address(given, "author")) if given else None


def decode_members(
    element: Element, position: FeedPosition, room: str, at: datetime, hosts: frozenset[str]
) -> RoomMembersEvent:
    """Raises Refused."""
    # To cut a list short would put out of the room whoever is behind the cut.
    if len(element) > MAX_MEMBERS:
        raise Refused("members")
    members: dict[str, Membership] = {}
    for child in element:
        if child.tag != _M:
            continue
        account = bare(address(child.get("jid"), "member"))
        affiliation = _AFFILIATIONS.get(child.get("affiliation", ""))
        if affiliation is None:
            raise Refused("affiliation")
        if "@" in account and domain(account) in hosts:
            members[account] = _membership(child, account, affiliation)
    return RoomMembersEvent(
        position=position,
        account=room,
        at=at,
        members=tuple(members.values()),
        private=element.get("private") == "true",
        begin=element.get("begin") == "true",
        end=element.get("end") == "true",
    )


def _membership(element: Element, account: str, affiliation: Affiliation) -> Membership:
    return Membership(
        account=account,
        affiliation=affiliation,
        present=element.get("present") == "true",
        nick=claim(element.get("nick"), _MAX_NICK_CHARS),
        occupant_id=_occupant_id(element.get("occupant-id")),
        # A reason of a later version of the module is none.
        why=_DEPARTURES.get(element.get("why", "")),
    )


def _occupant_id(given: str | None) -> str | None:
    # It is a key: one of 128 letters that take more octets is nobody's whom we could find by it.
    found = claim(given, MAX_OCCUPANT_ID_CHARS)
    return found if found and len(found.encode()) <= MAX_KEY_BYTES else None


def decode_room(element: Element, position: FeedPosition, room: str, at: datetime) -> RoomDestroyedEvent:
    """Raises Refused."""
    if element.get("state") != "destroyed":
        raise Refused("state")
    return RoomDestroyedEvent(position=position, account=room, at=at)
