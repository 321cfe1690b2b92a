"""The world's roles: push services, the server's connection, presence, hints between processes, time, secrets."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from xml.etree.ElementTree import Element

from sync.model.event import Session, SessionEvent
from sync.model.push import PushOutcome, PushRequest


class PushGate(Protocol):
    """Sends pushes of one vendor. Never raises for what the vendor or the network does: that is an outcome."""

    async def send(self, request: PushRequest) -> PushOutcome:
        """Send once; answer within the gate's own time limit, at most 8 s: after 15 s a push without an outcome counts
        as abandoned. Cancelling the caller must not disturb other pushes.
        """
        ...

    async def close(self) -> None:
        """Finish what is in flight, within a limit, then close the connections."""
        ...


class ProviderTokens(Protocol):
    """The one APNs provider token of a key, shared by all processes (PUSH: one token, used for almost an hour)."""

    @property
    def minted_at(self) -> datetime | None:
        """Since when the token that was given last has been good; None before there is one."""
        ...

    async def current(self) -> str:
        """The token to use now; minted first when there is none or it is about to expire."""
        ...

    async def refused(self, token: str) -> bool:
        """APNs called `token` expired. Mint a new one unless another process has, or the old one is younger than 20
        minutes; True when `current` now gives another token."""
        ...

    def hold(self) -> None:
        """APNs says that tokens change too often: keep the present one for as long as it may be used."""
        ...


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """An aware instant in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


class Sealer(Protocol):
    """Keeps push tokens and secrets unreadable at rest."""

    def seal(self, text: str) -> bytes:
        """Encrypted."""
        ...

    def open(self, sealed: bytes) -> str:
        """Decrypted."""
        ...

    def digest(self, text: str) -> bytes:
        """32 bytes, the same for the same text and key; tells nothing about it."""
        ...


class Wire(Protocol):
    """The component's connection to the server."""

    def send(self, stanza: Element) -> None:
        """Write a stanza; dropped when there is no connection (what must not get lost is in the store)."""
        ...

    def request(self, iq: Element) -> Awaitable[Element]:
        """Send an IQ get or set at once, in order with everything else; what is awaited is its result, or `Refused`
        for an error or no answer in time.
        """
        ...

    async def room(self) -> None:
        """Returns when the server has taken what was sent, but for a little: who is going to say much waits for that.
        At once where there is no connection.
        """
        ...

    def pause(self) -> None:
        """Stop reading: the server's own queue fills up instead of our memory."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Presence(Protocol):
    """Who is online. It may forget everything at any moment and then says so; it never answers from what it knows to
    be torn.

    One writer for each host: the process that holds the host's feed. A lost write makes the host unknown until
    `reset`.
    """

    async def sessions(self, account: str) -> tuple[Session, ...] | None:
        """The account's sessions, by resource; () = offline for certain; None = not known: go by the event's own
        summary."""
        ...

    async def sessions_of(self, accounts: Collection[str]) -> Mapping[str, tuple[Session, ...] | None]:
        """`sessions` of each of them, in one round trip."""
        ...

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        """Take these changes, in the order given. Never raises; what cannot be written makes the host unknown."""
        ...

    async def reset(self, host: str, sessions: Mapping[str, Sequence[Session]]) -> None:
        """Replace all that is known of the host: every session by account, as its hello or `<sessions/>` lists them."""
        ...

    async def complete(self, host: str) -> bool:
        """False: the host is not known any more, ask it for its sessions and `reset`. The writer asks every few
        seconds, which also keeps what it wrote valid for the other processes."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


Hint = Mapping[str, str | int]


class Bus(Protocol):
    """Wakes other processes. Any hint may get lost: whoever listens also looks from time to time."""

    async def publish(self, topic: str, hint: Hint) -> None:
        """Tell everybody who listens, this process included. Never raises and never waits for a listener."""
        ...

    async def subscribe(self, topic: str, callback: Callable[[Hint], None]) -> None:
        """Call back with each hint; with an empty one when hints may have been missed, so: look for yourself.
        Callbacks return at once and do not raise. Returns when the subscription stands, or can only stand later.
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...
