"""The rooms of one transaction: each room's event sees what the ones before it did.

Cuts a `RoomView` for each event and keeps what comes out of it. Decides nothing itself: `sync.rules.rooms` and
`sync.rules.membership` do.
"""

from collections import defaultdict
from dataclasses import replace
from typing import assert_never

from sync.model.books import Books, Unlisted, Writes
from sync.model.conversation import ConversationKey, Kind
from sync.model.event import Nothing, RoomDestroyedEvent, RoomEvent, RoomMembersEvent, RoomMessageEvent
from sync.model.room import RoomEntry, RoomMember, nick_key
from sync.rules import membership, rooms
from sync.rules.rooms import RoomAfter, RoomView
from sync.rules.shelf import Shelf
from sync.rules.wanted import wanted_ids


class Roster:
    """The members of one room that a transaction has loaded or made, by all that may name them."""

    def __init__(self) -> None:
        self.members: dict[str, RoomMember] = {}
        self.nicks: dict[str, set[str]] = defaultdict(set)
        self.occupants: dict[str, set[str]] = defaultdict(set)

    def put(self, member: RoomMember) -> None:
        """A member, new or changed."""
        old = self.members.get(member.account)
        for names, was, name in (
            (self.nicks, old and old.nick and nick_key(old.nick), member.nick and nick_key(member.nick)),
            (self.occupants, old and old.occupant_id, member.occupant_id),
        ):
            if was and was != name:
                names[was].discard(member.account)
            if name:
                names[name].add(member.account)
        self.members[member.account] = member


class Lobby:
    """The working state of a transaction's rooms."""

    def __init__(self, books: Books, shelf: Shelf) -> None:
        self._now = books.now
        self._rooms = dict(books.rooms)
        self._rosters: dict[str, Roster] = defaultdict(Roster)
        for member in books.members.values():
            self._rosters[member.room].put(member)
        self._shelf = shelf
        self._entries: list[RoomEntry] = []
        self._unlisted: list[Unlisted] = []
        self._dirty_rooms: set[str] = set()
        self._dirty_members: set[tuple[str, str]] = set()

    def take(self, event: RoomEvent) -> str | None:
        """One event; why it changed nothing, in a fixed word."""
        match event:
            case RoomMessageEvent(content=Nothing(why=why)):
                return why
            case RoomMessageEvent():
                key = ConversationKey(event.account, event.account, Kind.GROUP)
                found = self._shelf.find(key, wanted_ids(event))
                return self._keep(rooms.said(self._view(event.account, found), event, self._now))
            case RoomMembersEvent():
                return self._keep(membership.changed(self._view(event.account), event, self._now))
            case RoomDestroyedEvent():
                return self._keep(membership.destroyed(self._view(event.account), event, self._now))
            case _:
                assert_never(event)

    def lose(self, room: str) -> None:
        """An event of it was not understood. Perhaps it was part of a list: whom the rest does not name may belong."""
        known = self._rooms.get(room)
        if known is not None and known.listing is not None:
            self._rooms[room] = replace(known, listing=None)
            self._dirty_rooms.add(room)

    def leave(self, out: Writes) -> None:
        """What changed, into the rows to store."""
        out.rooms = [self._rooms[jid] for jid in self._dirty_rooms]
        out.members = [self._rosters[room].members[account] for room, account in self._dirty_members]
        out.entries, out.unlisted = self._entries, self._unlisted

    def _view(self, room: str, found: rooms.Found = ()) -> RoomView:
        roster = self._rosters[room]
        return RoomView(
            room=self._rooms[room],
            found=found,
            members=roster.members,
            nicks=roster.nicks,
            occupants=roster.occupants,
        )

    def _keep(self, after: RoomAfter) -> str | None:
        if after.ignored is not None:
            return after.ignored
        jid = after.room.jid
        self._rooms[jid] = after.room
        self._dirty_rooms.add(jid)
        self._entries.extend(after.entries)
        self._shelf.take(after.messages, ConversationKey(jid, jid, Kind.GROUP), ())
        for member in after.members:
            self._rosters[jid].put(member)
            self._dirty_members.add((jid, member.account))
        if after.unlisted is not None:
            self._unlisted.append(after.unlisted)
            self._end(after.unlisted)
        return None

    def _end(self, gone: Unlisted) -> None:
        """What the store does to members that no event of this transaction names, done to those that one does."""
        roster = self._rosters[gone.room]
        for account, member in roster.members.items():
            if member.until is None and member.listed != gone.listing:
                roster.members[account] = replace(member, until=gone.until)
                self._dirty_members.add((gone.room, account))
