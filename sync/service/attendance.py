"""Who is online, told twice: to `Presence`, and to those who keep something for each session."""

from collections.abc import Collection, Mapping, Sequence

from sync.model.event import Session, SessionEvent
from sync.ports import Presence
from sync.service.watch import Watchers


class Attendance:
    """`Presence`, of which the watchers hear, too: first it is known who is online, then who is told."""

    def __init__(self, presence: Presence, watchers: Watchers) -> None:
        self._presence, self._watchers = presence, watchers

    async def sessions(self, account: str) -> tuple[Session, ...] | None:
        """`Presence.sessions`."""
        return await self._presence.sessions(account)

    async def sessions_of(self, accounts: Collection[str]) -> Mapping[str, tuple[Session, ...] | None]:
        """`Presence.sessions_of`."""
        return await self._presence.sessions_of(accounts)

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        """`Presence.apply`."""
        await self._presence.apply(events)
        self._watchers.happened(events)

    async def reset(self, host: str, sessions: Mapping[str, Sequence[Session]]) -> None:
        """`Presence.reset`."""
        mark = self._watchers.mark
        await self._presence.reset(host, sessions)
        self._watchers.listed(host, sessions, mark)

    async def complete(self, host: str) -> bool:
        """`Presence.complete`."""
        return await self._presence.complete(host)

    async def close(self) -> None:
        """`Presence.close`."""
        await self._presence.close()
