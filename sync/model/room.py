"""Rooms of this server (XEP-0045) and who belongs to them: what makes absent members learn of what is said.

A room has a version of its own, in microseconds and only going up like an account's; the ranks of its messages are
such versions. What happens in a room is committed once, as an entry, and then fanned out into the members'
conversations (`sync.rules.groups`).
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sync.model.call import CallStep
from sync.model.conversation import key_of


class Affiliation(StrEnum):
    """XEP-0045 §5.2."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    NONE = "none"
    OUTCAST = "outcast"

    @property
    def belongs(self) -> bool:
        """True for those who are told of messages though they be absent."""
        return self in (Affiliation.OWNER, Affiliation.ADMIN, Affiliation.MEMBER)


class Departure(StrEnum):
    """Why somebody is in the room no more."""

    LEFT = "left"
    KICKED = "kicked"
    BANNED = "banned"
    REMOVED = "removed"  # lost the affiliation that let it in


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room: `version` is the rank of its newest entry, `fanned` the newest one that every member has. `listing`:
    names the list of all members that has begun and is not complete yet. `called_at`: when somebody last invited into a
    call.
    """

    jid: str
    version: int = 0
    fanned: int = 0
    private: bool = False
    destroyed: bool = False
    listing: int | None = None
    called_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMember:
    """An account of this server that is affiliated with the room, or in it.

    It has the entries of rank above `since` up to `until` (None = it still belongs). `listed`: the list that last
    named it.
    """

    room: str
    account: str
    affiliation: Affiliation
    present: bool
    since: int
    until: int | None = None
    nick: str | None = None
    occupant_id: str | None = None
    listed: int = 0


class EntryKind(StrEnum):
    """What an entry tells the members."""

    MESSAGE = "message"
    CORRECTED = "corrected"
    RETRACTED = "retracted"
    MODERATED = "moderated"
    REACTED = "reacted"
    CALL = "call"  # a step of one
    DISPLAYED = "displayed"  # `only` its author: a read pointer
    JOINED = "joined"  # `only` the member
    LEFT = "left"  # `only` the member, while calls may be going on
    GONE = "gone"  # `only` the member, who may not come back by itself
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomEntry:
    """Something that happened in a room, with everything found out that is the same for all members.

    `only`: the one member that it concerns, None = all. `author` as in `IndexedMessage`, `sender` the occupant JID.
    `target_*` describe the message that a change is about: its rank, the id that names it to clients, whether it
    counts, who wrote it, whom it mentioned. `mentions` names accounts, `everybody` all of them. `past`: out of the
    room's archive, nobody is woken for it; `counted`: the members have the message unread.

    Of a call `step` says what is done, `target_id` is its session id, `media` of an invite what is offered,
    `everybody`: with this step the invite is over for all who have not answered. Of who goes, and of a room that does,
    `step` is a finish where calls may be going on.
    """

    room: str
    rank: int
    kind: EntryKind
    at: datetime
    only: str | None = None
    author: str | None = None
    sender: str | None = None
    message_id: str | None = None
    archive_id: str | None = None
    mentions: tuple[str, ...] = ()
    everybody: bool = False
    private: bool = False
    target_rank: int | None = None
    target_id: str | None = None
    target_counted: bool = False
    target_author: str | None = None
    target_mentions: tuple[str, ...] = ()
    target_everybody: bool = False
    stanza: str | None = field(default=None, repr=False)
    past: bool = False
    counted: bool = True
    step: CallStep | None = None
    media: tuple[str, ...] = ()


def nick_key(nick: str) -> str:
    """A nickname as it is compared with the words of a text: case is no difference."""
    return key_of(nick.casefold())
