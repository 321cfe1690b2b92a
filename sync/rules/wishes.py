"""What the owner of an account wants to be woken for (XEP-0492, PUSH §5): the operator's settings, and each
conversation's own.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sync.model.conversation import Conversation, Kind, Notify


@dataclass(frozen=True, slots=True, kw_only=True)
class WakePolicy:
    """How often a phone is woken. `coalesce` after a fetched wake, `interval` after an unfetched one; `repeats`:
    waits before an unfetched wake is sent again, to filtering devices only. `filtering_apps`: apps that drop what
    they are told to drop (com.apple.developer.usernotifications.filtering). `muted_mentions`, `muted_calls`: those wake
    though the conversation is muted. `reactions`: to the author's own messages are told.
    """

    coalesce: timedelta = timedelta(seconds=1)
    interval: timedelta = timedelta(seconds=20)
    repeats: tuple[timedelta, ...] = (timedelta(seconds=60), timedelta(minutes=10))
    ring_unknown: bool = False
    muted_mentions: bool = False
    muted_calls: bool = False
    reactions: bool = False
    filtering_apps: frozenset[str] = frozenset()


def unwanted(conversation: Conversation, policy: WakePolicy, now: datetime, *, mention: bool) -> str | None:
    """Why a message of a conversation, a mention or another one, does not wake its owner; None = it does. By default
    private rooms tell everything, public ones mentions.
    """
    if conversation.muted(now) and not (mention and policy.muted_mentions):
        return "muted"
    wanted = conversation.notify
    if wanted is None:
        public = conversation.key.kind is Kind.GROUP and not conversation.private
        wanted = Notify.ON_MENTION if public else Notify.ALWAYS
    if wanted is Notify.NEVER:
        return "notify-never"
    return "not-mentioned" if wanted is Notify.ON_MENTION and not mention else None
