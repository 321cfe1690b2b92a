"""What a client is told, as values: conversations, calls, totals, the pages and notices that bring them.

Frozen and comparable, without XML but for stanzas, which are kept as text under their own `jabber:client` namespace.
Times are aware and in UTC. Versions are whole numbers that only go up within an epoch of the account. Refuses to know
where values come from (`codec`), what they do to a cache (`cache`), and how they are stored (`storage`).
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

CHAT, GROUP = "chat", "group"
# OMEMO, where a server keeps that apart (`[conversations] encrypted_apart`): namespaces by kind.
ENCRYPTED = {"omemo-2": "urn:xmpp:omemo:2", "omemo-1": "urn:xmpp:omemo:1", "axolotl": "eu.siacs.conversations.axolotl"}
ACTIVE, ARCHIVED, DELETED = "active", "archived", "deleted"
RINGING = "ringing"
GONE = "gone"  # a call's state: it does not ring any more, and how it ended was not told
FOR_EVER = datetime.max.replace(tzinfo=UTC)


class Key(NamedTuple):
    """The name of a conversation: a peer's or a room's JID, and which of the two it is, or which encrypted chat."""

    jid: str
    kind: str = CHAT


class CallKey(NamedTuple):
    """The name of a call: the other party's bare JID and the session id. Two parties may choose one id."""

    jid: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The last message of a conversation, for its row in a list.

    `stanza` is the message as the archive has it, a corrected one with its new text; None where it was too large for
    the answer, or only its beginning was asked for (`brief`): load it from the archive. `id` is the original's message
    id, `stanza_id` its id in the archive; of a brief one that is archived only the latter is told. `sender` None: the
    conversation's `jid`. `retracted`: it was taken back, there is no text. `encrypted`: a brief one is, and so has
    none; `cut`: its text goes on.
    """

    stanza: str | None = field(default=None, repr=False)
    id: str | None = None
    stanza_id: str | None = None
    sender: str | None = None
    sent_at: datetime | None = None
    body: str | None = field(default=None, repr=False)
    retracted: bool = False
    brief: bool = False
    encrypted: bool = False
    cut: bool = False

    @property
    def left_out(self) -> bool:
        """There is a last message, and it was not in the answer."""
        return self.stanza is None and not self.brief


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation as it stands at `version`.

    `activity` orders a list, newest first. `muted_until` None = not muted, `FOR_EVER` = for ever. `notify`: `never`,
    `on-mention`, `always` or `default`. `read` names the message (by the archive's id, in rooms the room's) up to which
    the owner has read, `displayed` and `delivered` the peer's pointers, `unread_mention` the first unread message that
    mentions the owner. `marked_unread` is the owner's flag and counts nothing. `last` None: nothing was said yet, or it
    was not asked for.
    """

    jid: str
    kind: str = CHAT
    version: int = 0
    status: str = ACTIVE
    activity: datetime | None = None
    unread: int = 0
    mentions: int = 0
    marked_unread: bool = False
    pinned: int = 0
    notify: str = "default"
    muted_until: datetime | None = None
    invited_by: str | None = None
    requests_presence: bool = False
    read: str | None = None
    displayed: str | None = None
    delivered: str | None = None
    unread_mention: str | None = None
    last: Last | None = None

    @property
    def key(self) -> Key:
        return Key(self.jid, self.kind)

    def muted(self, now: datetime) -> bool:
        """True while the owner wants no notifications of it; `now` is aware."""
        return self.muted_until is not None and self.muted_until > now


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happened to a message, or in a conversation, that is no new message.

    `kind`: `corrected`, `retracted`, `moderated`, `reacted`, `failed` or `call-ended`. `id` names the message that it
    is about by the archive's id (in rooms the room's), else the message id; of a call it is the session id. `by`: who
    reacted or moderated. `detail`: the condition of an error, how a call ended. `stanza` is the correction or the
    reaction; `body` and `reactions` are read from it.
    """

    kind: str
    id: str
    version: int
    by: str | None = None
    detail: str | None = None
    stanza: str | None = field(default=None, repr=False)
    body: str | None = field(default=None, repr=False)
    reactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, seen from the account.

    `state`: `ringing`, `answered` (on resource `by`), `rejected`, `missed`, `closed`, `ended`, `undeliverable`, or
    `outgoing` for one's own; `gone` where it rings no more and how it ended was not told. `sender` is the caller's full
    JID. `age` and `left` are seconds, as the server counted them when it answered: since the call came, and until it
    stops to ring. `continues`: the session id of an earlier call of the same party that goes on in this one, and has
    ended. `stanza` is the propose. Of kind `group` it is a call into the room `jid`, by its occupant `sender`.
    """

    id: str
    jid: str
    state: str
    kind: str = CHAT
    version: int = 0
    sender: str | None = None
    media: tuple[str, ...] = ()
    by: str | None = None
    continues: str | None = None
    proposed_at: datetime | None = None
    age: int = 0
    left: int = 0
    stanza: str | None = field(default=None, repr=False)

    @property
    def key(self) -> CallKey:
        return CallKey(self.jid, self.id)

    @property
    def rings(self) -> bool:
        return self.state == RINGING

    def at(self, now: datetime | None) -> "Call":
        """The same call later, `now` by the server's clock: older, and with less left."""
        if now is None or self.proposed_at is None or not self.rings:
            return self
        age = max(0, int((now - self.proposed_at).total_seconds()))
        return replace(self, age=age, left=max(0, self.age + self.left - age))


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of the whole account: unread messages (the badge), those that mention its owner, conversations with any."""

    unread: int = 0
    mentions: int = 0
    conversations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """When the account wants to be left alone: no push goes out that can wait.

    `until`: do-not-disturb up to an instant, `FOR_EVER` = until it is ended. `begin`, `end` ("22:00", "07:30") and
    `zone` (an IANA name): the hours of every day. `calls`: calls ring all the same. What is None does not hold.
    """

    until: datetime | None = None
    begin: str | None = None
    end: str | None = None
    zone: str | None = None
    calls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A conversation in an answer or notice. `changes`: what happened in it, oldest first. `reload`: more happened than
    is told; what is kept of its messages is to be loaded from the archive anew.
    """

    conversation: Conversation
    changes: tuple[Change, ...] = ()
    reload: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A conversation that is not in the list any more: deleted, or (`outside`) not matching the filters any more."""

    jid: str
    kind: str = CHAT
    version: int = 0
    outside: bool = False

    @property
    def key(self) -> Key:
        return Key(self.jid, self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer to `sync`.

    `asked` is the token that was sent; `continued`: that token had been given with `more`. `version` is what the client
    knows once all pages are there; `token` goes on from this one. `reset`: why the client starts over (`epoch`,
    `expired`, `future`, `filter`), the page is then the first one of a full list.
    """

    token: str
    version: int
    asked: str | None = None
    continued: bool = False
    time: datetime | None = None
    more: bool = False
    reset: str | None = None
    totals: Totals | None = None
    quiet: Quiet | None = None
    calls: tuple[Call, ...] = ()
    rows: tuple[Row | Removed, ...] = ()

    @property
    def first(self) -> bool:
        """The first page of a list: it has all calls that ring."""
        return not self.continued or self.reset is not None

    @property
    def whole(self) -> bool:
        """Of a list of everything, not of what changed."""
        return self.reset is not None or (self.first and self.asked is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A live notice: what happened between two versions. `more`: too much to tell, ask. `token` goes on from it."""

    previous: int
    version: int
    token: str | None = None
    time: datetime | None = None
    more: bool = False
    totals: Totals | None = None
    quiet: Quiet | None = None
    calls: tuple[Call, ...] = ()
    rows: tuple[Row | Removed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The change log of one conversation up to `version`, oldest first. `reload`: load the conversation anew."""

    key: Key
    version: int
    changes: tuple[Change, ...] = ()
    reload: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A registered device: the component and node to enable pushes with, and the secret that proves it is one's own."""

    component: str
    node: str
    secret: str = field(repr=False)
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice:
    """A device of the account as the list of all has it. `node` names it to log it out; `last_error`: why the newest
    push that failed did.
    """

    node: str
    device_id: str
    app: str
    enabled: bool
    name: str | None = None
    last_success: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to set of one conversation; None = leave as it is.

    `muted`: a duration from now, an instant, True = for ever, False = not any more. `pinned`: larger is higher, 0
    unpins. `read`: read up to the message with this stanza-id. `if_version`: only if the conversation is still at it.
    """

    jid: str
    kind: str = CHAT
    pinned: int | None = None
    muted: timedelta | datetime | bool | None = None
    status: str | None = None
    marked_unread: bool | None = None
    notify: str | None = None
    read: str | None = None
    if_version: int | None = None
