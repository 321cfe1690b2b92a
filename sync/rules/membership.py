"""Who belongs to a room (XEP-0045 §5): members though they be absent, others while they are there.

A listing names everybody; what it does not name does not belong any more. Joining is no event for the others, and
says something to a conversation only where there may be one: after an absence, or with an invitation.
"""

from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from sync.model.books import Unlisted
from sync.model.call import LASTS, CallStep
from sync.model.event import FeedPosition, Membership, RoomDestroyedEvent, RoomMembersEvent
from sync.model.room import Affiliation, Departure, EntryKind, Room, RoomEntry, RoomMember
from sync.rules.rooms import RoomAfter, RoomView, next_rank

# Who goes so may not come back by itself: there is nothing left for it to read.
SHUT_OUT = frozenset({Departure.BANNED, Departure.REMOVED})


def changed(before: RoomView, event: RoomMembersEvent, now: datetime) -> RoomAfter:
    """Affiliations or presence as they are now."""
    room = replace(before.room, private=event.private)
    if any(belongs(member) for member in event.members):
        room = replace(room, destroyed=False)  # somebody made it anew
    if event.begin:
        room = replace(room, listing=name_of_listing(event.position))
    members: list[RoomMember] = []
    entries: list[RoomEntry] = []
    for named in event.members:
        old = before.members.get(named.account)
        member, entry = taken(room, old, named, event, now)
        if member is not None and member != old:
            members.append(member)
        if entry is not None:
            entries.append(entry)
            room = replace(room, version=entry.rank)
    unlisted = None
    if event.end and room.listing is not None:
        unlisted = Unlisted(room=room.jid, listing=room.listing, until=room.version)
        room = replace(room, listing=None)
    return RoomAfter(room=room, entries=tuple(entries), members=tuple(members), unlisted=unlisted)


def taken(
    room: Room, old: RoomMember | None, named: Membership, event: RoomMembersEvent, now: datetime
) -> tuple[RoomMember | None, RoomEntry | None]:
    """One member, and what its conversation is told."""
    if old is None:
        if not belongs(named):
            return None, None
        fresh = member_of(room, named, since=room.version)
        # A listing of everybody tells nobody that it has joined.
        joined = None if room.listing is not None else told(room, named, EntryKind.JOINED, event, now)
        return fresh, joined
    member = replace(
        old,
        affiliation=named.affiliation,
        present=named.present,
        nick=named.nick or old.nick,
        occupant_id=named.occupant_id or old.occupant_id,
        listed=room.listing or old.listed,
    )
    if belongs(named) and old.until is not None:
        entry = told(room, named, EntryKind.JOINED, event, now)
        # From here on, whatever it has taken of its earlier membership: a pass may be under way with those entries, and
        # the gap must not come with them. The room's history has what it may have missed in that moment.
        return replace(member, since=entry.rank - 1, until=None), entry
    if belongs(named) or old.until is not None:
        return member, None
    if named.why in SHUT_OUT:
        entry = told(room, named, EntryKind.GONE, event, now)
        return replace(member, until=entry.rank), entry
    if may_call(room, event.at):  # else nothing of the room goes on anywhere
        entry = told(room, named, EntryKind.LEFT, event, now)
        return replace(member, until=entry.rank), entry
    return replace(member, until=room.version), None


def may_call(room: Room, at: datetime) -> bool:
    """True where some call into the room may not be over."""
    return room.called_at is not None and at - room.called_at < LASTS


def name_of_listing(position: FeedPosition) -> int:
    """A list's number, out of the position at which it begins: unlike that of any list before, whatever the clock did
    meanwhile. 63 bits, never 0.
    """
    where = f"{position.host}\0{position.stream}\0{position.shard}\0{position.n}"
    return int.from_bytes(sha256(where.encode()).digest()[:8], "big") >> 1 | 1


def belongs(named: Membership) -> bool:
    """True for whom the room's messages are meant: members though they be absent, others while they are there."""
    return named.affiliation.belongs or (named.present and named.affiliation is not Affiliation.OUTCAST)


def destroyed(before: RoomView, event: RoomDestroyedEvent, now: datetime) -> RoomAfter:
    """XEP-0045 §10.9: the room is no more, for anybody."""
    rank = next_rank(before.room, now)
    over = CallStep.FINISH if may_call(before.room, event.at) else None
    entry = RoomEntry(room=event.account, rank=rank, kind=EntryKind.DESTROYED, at=min(event.at, now), step=over)
    room = replace(before.room, version=rank, destroyed=True, listing=None)
    return RoomAfter(room=room, entries=(entry,), unlisted=Unlisted(room=room.jid, listing=rank, until=rank))


def member_of(room: Room, named: Membership, *, since: int) -> RoomMember:
    """Somebody who belongs from now on."""
    return RoomMember(
        room=room.jid,
        account=named.account,
        affiliation=named.affiliation,
        present=named.present,
        since=since,
        nick=named.nick,
        occupant_id=named.occupant_id,
        listed=room.listing or 0,
    )


def told(room: Room, named: Membership, kind: EntryKind, event: RoomMembersEvent, now: datetime) -> RoomEntry:
    """An entry for one member. Who is in the room no more is in no call there."""
    over = kind is not EntryKind.JOINED and may_call(room, event.at)
    return RoomEntry(
        room=room.jid,
        rank=next_rank(room, now),
        kind=kind,
        at=min(event.at, now),
        only=named.account,
        sender=f"{room.jid}/{named.nick}" if named.nick else None,
        private=event.private,
        step=CallStep.FINISH if over else None,
    )
