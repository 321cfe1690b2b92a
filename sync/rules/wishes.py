"""What the owner of an account wants to be woken for (XEP-0492, PUSH §5), and what one device does (the filters of its
`<enable/>`, `sync.model.wishes`): the operator's settings, each conversation's own, the device's.

A filter can only leave out. The one exception is a room of which the owner has said nothing: there the device's word
stands in place of the default.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sync.model.conversation import Conversation, Kind, Notify
from sync.model.jid import bare
from sync.model.wishes import NO_WISHES, Allow, Wishes
from sync.rules.quiet import Zones, no_zones
from sync.rules.reasons import Why

_ALLOWED = {Allow.ALWAYS: Notify.ALWAYS, Allow.MENTIONED: Notify.ON_MENTION}


@dataclass(frozen=True, slots=True, kw_only=True)
class WakePolicy:
    """How often a phone is woken. `coalesce` after a fetched wake, `interval` after an unfetched one; `repeats`:
    waits before an unfetched wake is sent again, to filtering devices only. `filtering_apps`: apps that drop what
    they are told to drop (com.apple.developer.usernotifications.filtering). `muted_mentions`, `muted_calls`: those wake
    though the conversation is muted. `reactions`: to the author's own messages are told. `zones`
    finds the time zone of somebody's quiet hours.
    """

    coalesce: timedelta = timedelta(seconds=1)
    interval: timedelta = timedelta(seconds=20)
    repeats: tuple[timedelta, ...] = (timedelta(seconds=60), timedelta(minutes=10))
    ring_unknown: bool = False
    muted_mentions: bool = False
    muted_calls: bool = False
    reactions: bool = False
    filtering_apps: frozenset[str] = frozenset()
    zones: Zones = no_zones


def unwanted(
    conversation: Conversation,
    policy: WakePolicy,
    now: datetime,
    *,
    mention: bool,
    wishes: Wishes = NO_WISHES,
    filtering: bool = True,
) -> Why | None:
    """Why a message of a conversation, a mention or another one, does not wake its owner by a device; None = it does.
    By default private rooms tell everything, public ones mentions. An app without the filtering entitlement shows
    whatever it gets: of a room it is told mentions, and the rest only where somebody asked for it.
    """
    if conversation.muted(now) and not (mention and policy.muted_mentions):
        return Why.MUTED
    if conversation.notify is Notify.NEVER:
        return Why.NOTIFY_NEVER
    if bare(conversation.key.peer) in wishes.muted:
        return Why.DEVICE_MUTED
    group = conversation.key.kind is Kind.GROUP
    allow = wishes.allows(conversation.key.peer) if group else None
    if allow is Allow.NEVER or (allow is Allow.MENTIONED and not mention):
        return Why.DEVICE_ROOM
    asked = conversation.notify or (_ALLOWED[allow] if allow is not None else None)
    if (asked or default_of(conversation)) is Notify.ON_MENTION and not mention:
        return Why.NOT_MENTIONED
    return Why.SHOWS_ALL if group and not (mention or filtering or asked) else None


def default_of(conversation: Conversation) -> Notify:
    """What holds where nobody has said anything."""
    public = conversation.key.kind is Kind.GROUP and not conversation.private
    return Notify.ON_MENTION if public else Notify.ALWAYS
