"""The `Rooms` port in memory."""

from collections.abc import Sequence
from dataclasses import replace

from sync.model.room import RoomEntry, RoomMember
from tests.contract.fakes_tables import Tables


class MemoryRooms:
    """Plays `Rooms` over the store's tables."""

    tables: Tables

    async def pending_rooms(self, limit: int) -> Sequence[str]:
        pending = [room for room in self.tables.rooms.values() if room.fanned < room.version]
        return [room.jid for room in sorted(pending, key=lambda room: room.fanned)][:limit]

    async def entries(self, room: str, after: int, limit: int) -> Sequence[RoomEntry]:
        found = [e for (name, rank), e in sorted(self.tables.entries.items()) if name == room and rank > after]
        return found[:limit]

    async def members(self, room: str, after: str, limit: int) -> Sequence[RoomMember]:
        fanned = self.tables.rooms[room].fanned if room in self.tables.rooms else 0
        found = [
            member
            for (name, account), member in sorted(self.tables.members.items())
            if name == room and account > after and (member.until is None or member.until > fanned)
        ]
        return found[:limit] if room in self.tables.rooms else []

    async def memberships(self, account: str, rooms: Sequence[str]) -> Sequence[RoomMember]:
        return [m for m in self.tables.members.values() if m.account == account and m.room in rooms]

    async def fanned(self, room: str, rank: int) -> None:
        if known := self.tables.rooms.get(room):
            members = self.tables.members.items()
            left = {where for where, m in members if m.room == room and m.until is not None and m.until <= rank}
            entries = self.tables.entries.items()
            self.tables.rooms[room] = replace(known, fanned=max(known.fanned, rank))
            self.tables.entries = {where: e for where, e in entries if where[0] != room or where[1] > rank}
            self.tables.members = {where: m for where, m in members if where not in left}
