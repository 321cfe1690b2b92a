"""Presence and bus in this process's own memory: for one process without Redis, and for tests.

They pass the same contract as the Redis ones. What they know ends with the process, whose next start asks every host
anew; no other process sees it, so they are for deployments with one. Memory is bounded by the sessions online.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from sync.model.event import Session, SessionEvent
from sync.model.jid import domain
from sync.ports import Hint
from sync.rules.presence import becomes


class MemoryPresence:
    """`Presence` as a dictionary for each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, dict[str, Session]]] = {}

    async def sessions(self, account: str) -> tuple[Session, ...] | None:
        known = self._hosts.get(domain(account))
        if known is None:
            return None
        return tuple(sorted(known.get(account, {}).values(), key=lambda one: one.resource))

    async def sessions_of(self, accounts: Collection[str]) -> Mapping[str, tuple[Session, ...] | None]:
        return {account: await self.sessions(account) for account in accounts}

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        for event in events:
            known = self._hosts.get(domain(event.account))
            if known is None:
                continue  # a part of the truth is no truth: wait for `reset`
            sessions = known.setdefault(event.account, {})
            session = becomes(event)
            if session is not None:
                sessions[event.resource] = session
            else:
                sessions.pop(event.resource, None)
            if not sessions:
                del known[event.account]

    async def reset(self, host: str, sessions: Mapping[str, Sequence[Session]]) -> None:
        self._hosts[host] = {
            account: {one.resource: one for one in online}
            for account, online in sessions.items()
            if online and domain(account) == host
        }

    async def complete(self, host: str) -> bool:
        return host in self._hosts

    async def close(self) -> None:
        self._hosts.clear()


class MemoryBus:
    """`Bus` within one process: nothing can get lost."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[[Hint], None]]] = {}

    async def publish(self, topic: str, hint: Hint) -> None:
        loop = asyncio.get_running_loop()
        for callback in self._listeners.get(topic, ()):
            loop.call_soon(callback, dict(hint))

    async def subscribe(self, topic: str, callback: Callable[[Hint], None]) -> None:
        self._listeners.setdefault(topic, []).append(callback)

    async def close(self) -> None:
        self._listeners.clear()
