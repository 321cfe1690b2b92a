"""A simulated iPhone: it has two push tokens, sleeps, and when woken asks once what changed since it last knew.

Its app is written with the client library (`sync.client`) and keeps the library's cache, as text, between two wakes.
Like an app's notification extension it sends no presence: it comes, asks and goes. Refuses to know who woke it and what
the story expects.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sync.client import (
    Cache,
    Call,
    CallEnded,
    CallRings,
    Change,
    Conversation,
    ConversationChanged,
    Convsync,
    Device,
    Event,
    Happened,
    dumps,
    loads,
)
from sync.sandbox.demo.session import LOGIN_SECONDS, logged_in
from sync.sandbox.demo.story import StepFailed

PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """What one wake brought, in the order in which it was told; in milliseconds how long the login took, and the
    answer.
    """

    news: Sequence[Event]
    login: float
    answer: float

    @property
    def conversations(self) -> list[Conversation]:
        """Those that changed, in the order of the answer."""
        return [event.conversation for event in self.news if isinstance(event, ConversationChanged)]

    @property
    def changes(self) -> list[tuple[str, Change]]:
        """What happened to older messages, with the conversation's JID."""
        return [(told.key.jid, one) for told in self.news if isinstance(told, Happened) for one in told.changes]

    @property
    def ended(self) -> list[Call]:
        """Calls that do not ring any more."""
        return [event.call for event in self.news if isinstance(event, CallEnded)]

    @property
    def first_call(self) -> Call | None:
        """The call that was told of before anything else."""
        first = next(iter(self.news), None)
        return first.call if isinstance(first, CallRings) else None

    def of(self, jid: str) -> Conversation:
        """The conversation with this peer. Raises StepFailed when the answer does not have it."""
        for conversation in self.conversations:
            if conversation.jid == jid:
                return conversation
        raise StepFailed(f"The answer does not have the conversation with {jid}.")


class Phone:
    """`stored` and `device` are what it keeps between two wakes."""

    def __init__(self, jid: str, password: str, *, host: str, port: int, resource: str = "phone") -> None:
        self.jid = jid
        self.alert_token = "a" + secrets.token_hex(32)[1:]
        self.voip_token = "f" + secrets.token_hex(32)[1:]
        self.stored, self.device = dumps(Cache()), ""
        self._password, self._host, self._port, self._resource = password, host, port, resource

    async def set_up(self, *, component: str, app: str, contacts: Sequence[str]) -> Woken:
        """Make friends, register both tokens, enable pushes, learn the present state; then go offline."""
        began = time.monotonic()
        async with self._session() as (client, convsync):
            login = _ms(began)
            await _befriend(client, contacts)
            device: Device = await convsync.register_device(
                app, self.alert_token, voip_token=self.voip_token, component=component
            )
            await convsync.enable_push(device)
            self.device = device.node
            return await self._ask(convsync, login, at_least=None)

    async def wake(self, *, version: int | None) -> Woken:
        """Connect, ask for what is new, and go. `version`: of the push that woke it."""
        began = time.monotonic()
        async with self._session() as (_, convsync):
            return await self._ask(convsync, _ms(began), at_least=version)

    async def _ask(self, convsync: Convsync, login: float, *, at_least: int | None) -> Woken:
        began = time.monotonic()
        news = await convsync.sync(live=False, device=self.device, at_least=at_least)
        answer = _ms(began)
        self.stored = dumps(convsync.cache)
        return Woken(news=news, login=login, answer=answer)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[Any, Convsync]]:
        async with logged_in(
            f"{self.jid}/{self._resource}",
            self._password,
            host=self._host,
            port=self._port,
            plugins=("convsync",),
            config={"convsync": {"auto": False, "page_size": PAGE}},
        ) as client:
            convsync: Convsync = client.plugin["convsync"]
            convsync.cache = loads(self.stored)
            yield client, convsync


async def _befriend(client: Any, contacts: Sequence[str]) -> None:
    """Subscriptions both ways, which the contact grants: a call from a stranger would not ring."""
    changed = asyncio.Event()
    client.add_event_handler("roster_update", lambda _: changed.set())
    await client.get_roster()
    client.send_presence()  # without it no request of a contact comes; slixmpp grants it
    for contact in contacts:
        if client.client_roster[contact]["subscription"] != "both":
            client.send_presence_subscription(contact)
    async with asyncio.timeout(LOGIN_SECONDS):
        while any(client.client_roster[contact]["subscription"] != "both" for contact in contacts):
            changed.clear()
            await changed.wait()
    client.send_presence(ptype="unavailable")


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000
