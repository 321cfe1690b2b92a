"""Counters against what they count: what differs, and the versions under which clients hear of it.

It decides which rows are wrong and what they become. Who counts, and how, it does not know: the numbers come in. A
changed conversation gets a version of its own (invariant 1), and the account the newest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from sync.model.conversation import Account, ConversationKey
from sync.rules.times import next_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a conversation counts."""

    unread: int = 0
    mentions: int = 0
    ringing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """A conversation's counters as they are stored, and as they were counted anew."""

    key: ConversationKey
    version: int
    stored: Counters
    counted: Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`what` says `before` and should say `after`; `conversation` None: of the account itself."""

    conversation: ConversationKey | None = None
    what: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What differs, and the rows as they become: the account, and those conversations that change."""

    differences: tuple[Difference, ...]
    account: Account
    conversations: tuple[Recount, ...] = ()


def repaired(account: Account, devices: int, found: Sequence[Recount], now: datetime) -> Repair:
    """Compare all conversations of an account, and the account with them. Nothing that is right gets a new version."""
    wrong = [one for one in found if one.stored != one.counted]
    right = replace(
        account,
        unread=sum(one.counted.unread for one in found),
        mentions=sum(one.counted.mentions for one in found),
        unread_conversations=sum(one.counted.unread > 0 for one in found),
        devices=devices,
        # A conversation that is newer than its account would be given out again and again.
        version=max((one.version for one in found), default=0),
    )
    if right.version <= account.version:
        right = replace(right, version=account.version)
    differences = tuple(
        [difference for one in wrong for difference in _differences(one.stored, one.counted, one.key)]
        + _differences(account, right, None)
    )
    if not differences:
        return Repair(differences=(), account=account)
    first = next_version(right, now)
    changed = tuple(replace(one, version=first + n) for n, one in enumerate(wrong))
    return Repair(
        differences=differences,
        account=replace(right, version=changed[-1].version if changed else first),
        conversations=changed,
    )


def _differences(
    before: Counters | Account, after: Counters | Account, key: ConversationKey | None
) -> list[Difference]:
    """Field by field."""
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before))
    return [
        Difference(conversation=key, what=name.replace("_", " "), before=was, after=becomes)
        for name, was, becomes in pairs
        if was != becomes
    ]
