"""Entries of rooms on their way to the members: what is pending, for whom, and that it arrived."""

from collections.abc import Sequence
from contextlib import suppress

from sync.adapters.postgres import room_rows
from sync.adapters.postgres.pool import ATTEMPTS, RETRYABLE, Pool
from sync.adapters.postgres.statements import sql
from sync.model.errors import StoreUnavailable
from sync.model.room import RoomEntry, RoomMember


class PostgresRooms:
    """The `Rooms` port on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def pending_rooms(self, limit: int) -> Sequence[str]:
        """`Rooms.pending_rooms`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("pending_rooms"), limit)
        return [row["jid"] for row in found]

    async def entries(self, room: str, after: int, limit: int) -> Sequence[RoomEntry]:
        """`Rooms.entries`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("room_entries"), room, after, limit)
        return [room_rows.entry(row) for row in found]

    async def members(self, room: str, after: str, limit: int) -> Sequence[RoomMember]:
        """`Rooms.members`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("room_members"), room, after, limit)
        return [room_rows.member(row) for row in found]

    async def memberships(self, account: str, rooms: Sequence[str]) -> Sequence[RoomMember]:
        """`Rooms.memberships`."""
        async with self._pool.connection() as connection:
            found = await connection.fetch(sql("memberships"), account, list(rooms))
        return [room_rows.member(row) for row in found]

    async def fanned(self, room: str, rank: int) -> None:
        """`Rooms.fanned`."""
        for _ in range(ATTEMPTS):
            with suppress(*RETRYABLE):
                async with self._pool.connection() as connection:
                    await connection.execute(sql("fanned"), room, rank)
                return
        raise StoreUnavailable("retries")
