"""What a rule sees of one conversation before an event, and what it leaves behind.

A `View` is cut out of the transaction's books for one event; an `After` goes back into them. Account totals are
derived here, in one place, from the difference between the two.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sync.model.call import Call
from sync.model.conversation import Account, Change, Conversation, ConversationKey, IndexedMessage
from sync.model.effect import Effect
from sync.rules.times import next_version


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How calls ring. `ring` counts from the server's time of the propose; `fallback`: how long a VoIP push may stay
    without a fetch before an alert follows.
    """

    ring: timedelta = timedelta(seconds=60)
    fallback: timedelta = timedelta(seconds=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Before an event.

    `found`: the messages of this conversation that bear one of the event's ids. `unread_ranks`: the ranks of its
    unread messages, ascending, None where the event cannot need them. `calls`: the account's calls with the event's
    session id.
    """

    account: Account
    key: ConversationKey
    conversation: Conversation | None = None
    found: tuple[IndexedMessage, ...] = ()
    unread_ranks: tuple[int, ...] | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """After an event: the account and the conversation as they are now, and the rows that were added or changed. No
    conversation: there was none, and the event is no reason to begin one.
    """

    account: Account
    conversation: Conversation | None
    messages: tuple[IndexedMessage, ...] = ()
    unread_ranks: tuple[int, ...] | None = None
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


def opened(before: View, version: int, at: datetime) -> Conversation:
    """The conversation to work on: the stored one, or a new one that starts at `at`."""
    return before.conversation or Conversation(key=before.key, version=version, activity_at=at)


def settled(before: View, conversation: Conversation) -> Account:
    """The account after this conversation changed: the conversation's version, and totals that follow from the
    difference.
    """
    was = before.conversation.unread if before.conversation else 0
    return replace(
        before.account,
        version=conversation.version,
        unread=before.account.unread + conversation.unread - was,
        unread_conversations=before.account.unread_conversations + (conversation.unread > 0) - (was > 0),
    )


def version_for(before: View, now: datetime) -> int:
    """The version that a change made now gets."""
    return next_version(before.account, now)
