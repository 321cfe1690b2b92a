"""Calls (XEP-0353, XEP-0482): who may be ringing whom, and how it ended."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sync.model.conversation import ConversationKey, Kind
from sync.model.jid import bare

# XEP-0353 §6: a call of which nobody says that it is over is over after so long.
LASTS = timedelta(hours=24)


class CallStep(StrEnum):
    """XEP-0353 §3–5, XEP-0482 §2: one step of a call. `accept` is read as `proceed`, `invite` as `propose`, `left` as
    `finish`. `YIELD` is a `reject` or `retract` of the one of two crossing proposes that gives way (XEP-0353 §5.1).
    """

    PROPOSE = "propose"
    RINGING = "ringing"
    PROCEED = "proceed"
    REJECT = "reject"
    RETRACT = "retract"
    FINISH = "finish"
    YIELD = "yield"


class CallState(StrEnum):
    """Where a call stands, seen from one account."""

    RINGING = "ringing"  # incoming, waits for one of the account's devices
    OUTGOING = "outgoing"  # ours, waits for the peer
    ANSWERED = "answered"
    REJECTED = "rejected"  # declined on one of the account's devices
    MISSED = "missed"  # the caller hung up, or nobody answered in time
    CLOSED = "closed"  # ended before it could ring here, gave way to one that crossed it, or declined by the peer
    ENDED = "ended"
    UNDELIVERABLE = "undeliverable"

    @property
    def is_open(self) -> bool:
        """True while a later stanza may still change it."""
        return self in (CallState.RINGING, CallState.OUTGOING, CallState.ANSWERED)


@dataclass(frozen=True, slots=True)
class CallKey:
    """The key of a call: only this peer and the account's own devices may change the record. `sid` is `key_of` the
    session id.
    """

    account: str
    peer: str
    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one account. `kind`: with a peer, or into a room (`key.peer`) by one of its members.

    `session_id` is the id as it came; `caller` the proposing full JID, of a call of the account's own into a room the
    account; `media` audio and video as proposed; `rings_until` the end of ringing, counted from the server's time of
    the propose; `answered_by` the resource that took it, of either party, in a room the nickname of who came first
    (None: the account itself); `continues` the session id of the call that goes on in this one; `stanza` the propose,
    None for records made by a terminal stanza.
    """

    key: CallKey
    session_id: str
    state: CallState
    version: int
    proposed_at: datetime
    rings_until: datetime
    caller: str
    media: tuple[str, ...] = ()
    answered_by: str | None = None
    continues: str | None = None
    archive_id: str | None = None
    stanza: str | None = field(default=None, repr=False)
    kind: Kind = Kind.CHAT

    @property
    def conversation(self) -> ConversationKey:
        """The conversation that it belongs to."""
        return ConversationKey(self.key.account, self.key.peer, self.kind)

    def rings(self, now: datetime) -> bool:
        """True while a phone should ring for it."""
        return self.state is CallState.RINGING and self.rings_until > now

    @property
    def is_own(self) -> bool:
        """True where the account called."""
        return bare(self.caller) == self.key.account

    @property
    def over_at(self) -> datetime | None:
        """When it is over though nobody says so, None where it is already."""
        if self.state is CallState.RINGING:
            return self.rings_until
        return self.proposed_at + LASTS if self.state.is_open else None
