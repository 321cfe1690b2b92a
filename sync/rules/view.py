"""What a rule sees of one conversation before an event, and what it leaves behind.

A `View` is cut out of the transaction's books for one event; an `After` goes back into them. Account totals are
derived here, in one place, from the difference between the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sync.model.call import Call
from sync.model.conversation import (
    Account,
    Base,
    Behind,
    Change,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
    Pointer,
)
from sync.model.copies import replace
from sync.model.effect import Effect
from sync.model.event import MessageEvent
from sync.rules.times import next_version


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How calls ring. `ring` counts from the server's time of the propose; `fallback`: how long a VoIP push may stay
    without a fetch before an alert follows. `missed_counts`: a missed call makes its conversation unread.
    """

    ring: timedelta = timedelta(seconds=60)
    fallback: timedelta = timedelta(seconds=8)
    missed_counts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """What an operator may decide about the state itself. `sending_reads`: who writes has read what came before;
    XEP-0490 §3 holds that sending is not displaying, so it does not by default. `encrypted_apart`: what is encrypted by
    OMEMO goes into conversations of its own (`sync.rules.apart`); `were_apart`: some are there from when it did.
    """

    calls: CallPolicy = field(default_factory=CallPolicy)
    sending_reads: bool = False
    encrypted_apart: bool = False
    were_apart: bool = False

    @property
    def several(self) -> bool:
        """True where an account may have several conversations with one peer."""
        return self.encrypted_apart or self.were_apart


@dataclass(frozen=True, slots=True)
class Tally:
    """A message of that rank began to count, or ceased to (-1)."""

    rank: int
    unread: int
    mentions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Before an event.

    `found`: the messages of this conversation that bear one of the event's ids, and those that they are about.
    `beside`: of an item of an archive, those that other conversations with the same peer have.
    `behind`: for each rank found, what is unread behind it. `calls`: the account's calls with the event's session
    id. `lines`: of a propose, the peer's calls that are open; of a finish, the one in which the call goes on.
    """

    account: Account
    key: ConversationKey
    conversation: Conversation | None = None
    found: tuple[IndexedMessage, ...] = ()
    beside: tuple[IndexedMessage, ...] = ()
    behind: Mapping[int, Behind] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    lines: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """After an event: the account and the conversation as they are now, and the rows that were added or changed. No
    conversation: there was none, and the event is no reason to begin one. `erased`: ranks of messages whose texts in
    the change log go.
    """

    account: Account
    conversation: Conversation | None
    messages: tuple[IndexedMessage, ...] = ()
    tallies: tuple[Tally, ...] = ()
    changes: tuple[Change, ...] = ()
    calls: tuple[Call, ...] = ()
    erased: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What an event does: None as `after` means nothing, and `ignored` says why in a fixed word for the metrics."""

    after: After | None = None
    effects: tuple[Effect, ...] = field(default=())
    ignored: str | None = None


def ignore(why: str) -> Decision:
    """No effect, counted under `why`."""
    return Decision(ignored=why)


def is_own(event: MessageEvent) -> bool:
    """True for what one of the account's devices sent, to itself included."""
    return event.direction is Direction.OUT or event.to_self


def opened(before: View, version: int, at: datetime) -> Conversation:
    """The conversation to work on: the stored one, or a new one that starts at `at`."""
    return before.conversation or Conversation(key=before.key, version=version, activity_at=at)


def settled(before: View, conversation: Conversation) -> Account:
    """The account after this conversation changed: the conversation's version, and totals that follow from the
    difference.
    """
    was, account = before.conversation, before.account
    return replace(
        account,
        version=conversation.version,
        unread=account.unread + conversation.unread - (was.unread if was else 0),
        mentions=account.mentions + conversation.mentions - (was.mentions if was else 0),
        unread_conversations=account.unread_conversations
        + (conversation.unread > 0)
        - (was is not None and was.unread > 0),
    )


def reset(account: Account, now: datetime) -> Account:
    """The account in a new epoch: every token given out so far is too old (invariant 4)."""
    version = next_version(account, now)
    return replace(account, epoch=account.epoch + 1, version=version, floor=version)


def counts(conversation: Conversation, rank: int) -> bool:
    """True while a message of that rank is behind everything that was read or is counted without the index."""
    return rank > max(conversation.read.rank, conversation.base.rank)


def read_up_to(conversation: Conversation, pointer: Pointer, behind: Behind) -> Conversation:
    """The conversation read up to a pointer behind its base: what is left is what the index has behind it."""
    return replace(
        conversation,
        read=pointer,
        unread=behind.unread,
        mentions=behind.mentions,
        base=Base(),
        marked_unread=False,
    )


def cleared(conversation: Conversation) -> Conversation:
    """The conversation with nothing unread; what comes later counts from here."""
    taken_last = conversation.taken or conversation.version
    end = max(taken_last, conversation.read.rank, conversation.base.rank)
    return read_up_to(conversation, Pointer(end, conversation.read.id), NOTHING_BEHIND)


NOTHING_BEHIND = Behind(0, 0)


def version_for(before: View, now: datetime) -> int:
    """The version that a change made now gets."""
    return next_version(before.account, now)


def rank_of(event: MessageEvent, version: int) -> int:
    """The place of an event's message: that which the archive gives it, else the version at which it is taken."""
    return version if event.rank is None else event.rank


def wrote(message: IndexedMessage, event: MessageEvent) -> bool:
    """True when the message is by the event's sender. In a one-to-one chat there are two senders; in rooms XEP-0421
    tells them apart.
    """
    if event.kind is Kind.GROUP:
        return message.author is not None and message.author == event.author
    return message.direction is event.direction
