"""What a device asked for with `<enable/>`: the extensions of XEP-0357 that Tigase's clients send (Siskin, Beagle).

Their namespaces are `tigase:push:…:0`; what each means is Tigase's, where servers differ: a client that lists rooms
wants no push of any other room (its own library leaves out the rooms that are never to be told). Every `<enable/>` says
all of it anew. Sources: sync/protocol/wishes.py.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Allow(StrEnum):
    """Which messages of a room are told."""

    ALWAYS = "always"
    MENTIONED = "mentioned"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RoomWish:
    """What is wanted of one room (bare JID); `nick` = whom a mention means, where the client said so."""

    jid: str
    allow: Allow
    nick: str | None = None


@dataclass(frozen=True, slots=True)
class PushKey:
    """The key that payloads are to be encrypted with, as it came: base64 of 16 bytes."""

    text: str = field(repr=False)
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Encrypt:
    """Payloads are to be encrypted with AES-128-GCM and to have at most `max_bytes`. `sealed_key` seals the text of the
    key, which is base64.
    """

    max_bytes: int
    sealed_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """`muted`: bare JIDs that nothing is told of. `ignore_unknown`: nothing of strangers. `rooms`: None = the client
    did not say; else rooms that are not among them are never told. `away`: pushes go out though the client is online,
    when it is away. `priority`: the payload is to say how urgent it is; `jingle`: it understands calls.
    """

    muted: frozenset[str] = frozenset()
    ignore_unknown: bool = False
    rooms: tuple[RoomWish, ...] | None = None
    away: bool = False
    priority: bool = False
    jingle: bool = False
    encrypt: Encrypt | None = None

    def allows(self, room: str) -> Allow | None:
        """Which messages of a room are wanted; None = the client did not say."""
        if self.rooms is None:
            return None
        return next((wish.allow for wish in self.rooms if wish.jid == room), Allow.NEVER)


NO_WISHES = Wishes()  # of most devices
