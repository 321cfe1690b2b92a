"""What an entry of a room that this server keeps does to one member's conversation with that room.

The entry was decided once (`sync.rules.rooms`); here it only counts or does not, for this member. The ranks are the
room's: `Conversation.taken` says which entries are part of it already, so that a repeated fan-out changes nothing.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from sync.model.conversation import (
    Base,
    Change,
    ChangeKind,
    Conversation,
    Kind,
    LastMessage,
    Pointer,
    Status,
)
from sync.model.effect import (
    Effect,
    MessageArrived,
    MessageCorrected,
    MessageReacted,
    MessageWithdrawn,
    ReadElsewhere,
)
from sync.model.jid import resource
from sync.model.room import EntryKind, RoomEntry, RoomMember
from sync.rules.calls import after_of, as_one
from sync.rules.index import envelope_of
from sync.rules.markers import read_to
from sync.rules.messages import reopened
from sync.rules.room_calls import having, left, told
from sync.rules.times import microseconds
from sync.rules.view import (
    NOTHING_BEHIND,
    After,
    Conduct,
    Decision,
    Tally,
    View,
    cleared,
    counts,
    ignore,
    opened,
    read_up_to,
    settled,
    version_for,
)

CHANGES = {
    EntryKind.CORRECTED: ChangeKind.CORRECTED,
    EntryKind.RETRACTED: ChangeKind.RETRACTED,
    EntryKind.MODERATED: ChangeKind.MODERATED,
    EntryKind.REACTED: ChangeKind.REACTED,
}


def concerns(member: RoomMember, entry: RoomEntry) -> bool:
    """True when the entry is for this member."""
    if entry.only is not None and entry.only != member.account:
        return False
    return member.since < entry.rank and (member.until is None or entry.rank <= member.until)


def deliver(before: View, member: RoomMember, entry: RoomEntry, conduct: Conduct, now: datetime) -> Decision:
    """What the entry does to the member's conversation."""
    conversation = before.conversation
    if conversation is not None and entry.rank <= conversation.taken:
        return ignore("taken")
    if conversation is not None and conversation.taken < (since := first_behind(conversation, member, entry)):
        before = replace(before, conversation=resumed(conversation, since))
    decision = by_kind(before, member, entry, conduct, now)
    return replace(decision, effects=()) if entry.past else decision


def by_kind(before: View, member: RoomMember, entry: RoomEntry, conduct: Conduct, now: datetime) -> Decision:
    """Each kind's own rule."""
    match entry.kind:
        case EntryKind.MESSAGE:
            return message(before, member, entry, conduct, now)
        case EntryKind.CORRECTED | EntryKind.RETRACTED | EntryKind.MODERATED | EntryKind.REACTED:
            return change(before, member, entry, now)
        case EntryKind.CALL:
            return told(before, member, entry, conduct.calls, now)
        case EntryKind.DISPLAYED:
            return displayed(before, entry, now)
        case EntryKind.JOINED:
            return joined(before, entry, now)
        case EntryKind.LEFT | EntryKind.GONE | EntryKind.DESTROYED:
            return parted(before, entry, conduct, now)
        case _:
            assert_never(entry.kind)


def first_behind(conversation: Conversation, member: RoomMember, entry: RoomEntry) -> int:
    """The rank behind which the conversation takes entries. Of a room of which it has none yet, a bookmark or marker
    made it: what was said before the first entry it takes passed it by, as long as the server had shown no account.
    """
    return member.since if conversation.taken else entry.rank - 1


def resumed(conversation: Conversation, since: int) -> Conversation:
    """The conversation of a member that belongs again, behind `since`: what was unread stays so, what was said
    meanwhile does not count.
    """
    if conversation.read.rank < since:
        if conversation.unread:
            base = Base(unread=conversation.unread, mentions=conversation.mentions, rank=since)
            conversation = replace(conversation, base=base)
        else:
            conversation = replace(conversation, read=Pointer(since, conversation.read.id))
    return replace(conversation, taken=since)


def message(before: View, member: RoomMember, entry: RoomEntry, conduct: Conduct, now: datetime) -> Decision:
    """A message to read, but for who wrote it. Whoever is woken for it is woken for a version that is not below its
    rank, though that be of the room's clock.
    """
    version = max(version_for(before, now), entry.rank)
    mine = entry.author == member.account
    # What was said before the first message that the member takes is not unread.
    conversation = before.conversation or Conversation(
        key=before.key, version=version, activity_at=entry.at, read=Pointer(entry.rank - 1)
    )
    counted = entry.counted and not mine and counts(conversation, entry.rank)
    if not entry.counted and not conversation.unread:
        conversation = replace(
            conversation, read=Pointer(entry.rank, entry.archive_id)
        )  # said before the first contact
    newest = not entry.past or conversation.last is None or entry.at >= conversation.last.sent_at
    put_away = entry.past and microseconds(entry.at) <= conversation.version and before.conversation is not None
    mention = counted and (entry.everybody or member.account in entry.mentions)
    conversation = replace(
        conversation,
        version=version,
        activity_at=max(conversation.activity_at, entry.at),
        status=conversation.status if put_away else reopened(conversation, now),
        unread=conversation.unread + counted,
        mentions=conversation.mentions + mention,
        written=conversation.written or mine,
        private=entry.private,
        # The invitation may be told after the joining: they come in different streams.
        invited_by=None if mine or member.present else conversation.invited_by,
        nick=member.nick or conversation.nick,
        taken=entry.rank,
        last=last_message(entry) if newest else conversation.last,
    )
    if mine and conduct.sending_reads:
        conversation = read_up_to(conversation, Pointer(entry.rank, entry.archive_id), NOTHING_BEHIND)
    after = After(
        account=settled(before, conversation),
        conversation=conversation,
        tallies=(Tally(entry.rank, 1, mention),) if counted else (),
    )
    if not counted:
        return Decision(after=after)
    # Who belongs to a room knows it.
    arrived = MessageArrived(conversation=before.key, version=version, known=True, sessions=(), mention=mention)
    return Decision(after=after, effects=(arrived,))


def last_message(entry: RoomEntry) -> LastMessage:
    """The entry as the conversation's newest message."""
    return LastMessage(
        rank=entry.rank,
        stanza=entry.stanza or "",
        message_id=entry.message_id,
        archive_id=entry.archive_id,
        sent_at=entry.at,
    )


def change(before: View, member: RoomMember, entry: RoomEntry, now: datetime) -> Decision:
    """Something happened to a message: corrected, taken back, reacted to."""
    conversation, target = before.conversation, entry.target_rank
    if conversation is None or target is None:
        return ignore("unknown-target")
    version = version_for(before, now)
    kind = CHANGES[entry.kind]
    mine = entry.target_author == member.account
    counted = entry.target_counted and not mine
    unread = counted and counts(conversation, target) and target <= conversation.taken
    conversation = replace(conversation, version=version, taken=entry.rank, private=entry.private)
    if kind is not ChangeKind.REACTED:
        conversation = replace(rewritten(conversation, entry, target), rewritten=version)
    after = After(account=before.account, conversation=conversation)
    effects: tuple[Effect, ...] = ()
    if kind is ChangeKind.REACTED:
        if mine and entry.author != member.account:
            effects = (MessageReacted(conversation=before.key, version=version, sessions=()),)
    elif kind is ChangeKind.CORRECTED:
        if unread:
            effects = (MessageCorrected(conversation=before.key, version=version, target_rank=target, sessions=()),)
    else:
        mention = entry.target_everybody or member.account in entry.target_mentions
        if unread:
            conversation = replace(
                conversation, unread=conversation.unread - 1, mentions=conversation.mentions - mention
            )
        tallies = (Tally(target, -1, -mention),) if counted else ()
        after = replace(after, conversation=conversation, tallies=tallies, erased=(target,))
        if counted:
            effects = (MessageWithdrawn(conversation=before.key, version=version, target_rank=target),)
    after = replace(
        after, account=settled(before, conversation), changes=(logged(before, kind, version, entry, target),)
    )
    return Decision(after=after, effects=effects)


def logged(before: View, kind: ChangeKind, version: int, entry: RoomEntry, target: int) -> Change:
    """The entry in the conversation's change log."""
    return Change(
        conversation=before.key,
        version=version,
        kind=kind,
        target_rank=target,
        target_id=entry.target_id or "",
        author=entry.sender if kind in (ChangeKind.REACTED, ChangeKind.MODERATED) else None,
        stanza=entry.stanza if kind in (ChangeKind.CORRECTED, ChangeKind.REACTED) else None,
    )


def rewritten(conversation: Conversation, entry: RoomEntry, target: int) -> Conversation:
    """The preview after a correction or withdrawal of the last message."""
    last = conversation.last
    if last is None or last.rank != target:
        return conversation
    sender = entry.sender or entry.room
    if entry.kind is EntryKind.CORRECTED:
        return replace(
            conversation, last=replace(last, stanza=entry.stanza or envelope_of(sender, Kind.GROUP, entry.message_id))
        )
    tombstone = envelope_of(sender, Kind.GROUP, entry.message_id)
    return replace(conversation, last=replace(last, stanza=tombstone, retracted=True))


def displayed(before: View, entry: RoomEntry, now: datetime) -> Decision:
    """The member's own marker. Given again it must be no news to a conversation that its owner has marked as unread
    since.
    """
    conversation = before.conversation
    if conversation is None or entry.target_rank is None:
        return ignore("unknown-target")
    taken = replace(before, conversation=replace(conversation, taken=entry.rank))
    return read_to(taken, Pointer(entry.target_rank, entry.target_id), None, now)


def joined(before: View, entry: RoomEntry, now: datetime) -> Decision:
    """There for the first time, or again."""
    conversation = before.conversation
    if conversation is None:
        return ignore("joined")
    version = version_for(before, now)
    conversation = replace(
        conversation,
        version=version,
        taken=entry.rank,
        private=entry.private,
        nick=resource(entry.sender or "") or conversation.nick,
    )
    return Decision(after=After(account=settled(before, conversation), conversation=conversation))


def parted(before: View, entry: RoomEntry, conduct: Conduct, now: datetime) -> Decision:
    """In the room no more: its calls are over, and perhaps there is nothing left to read."""
    if before.conversation is None:
        return ignore("gone")
    ended = left(having(before, before.conversation, entry), entry, conduct.calls, now) if before.calls else []
    if entry.kind is EntryKind.LEFT:
        return as_one(ended) if ended else ignore("left")
    return as_one([*ended, gone(after_of(before, ended[-1]) if ended else before, entry, now)])


def gone(before: View, entry: RoomEntry, now: datetime) -> Decision:
    """Shut out, or the room destroyed: nobody can read there any more, so nothing is unread. A conversation with a
    room that is no more is deleted; with one that is closed to the member it is put away.
    """
    conversation = opened(before, before.account.version, entry.at)
    version = version_for(before, now)
    was_unread = conversation.unread
    first = conversation.read.rank + 1
    status = Status.ARCHIVED if conversation.status is not Status.DELETED else Status.DELETED
    if entry.kind is EntryKind.DESTROYED:
        status = Status.DELETED
    conversation = cleared(replace(conversation, taken=entry.rank))
    conversation = replace(conversation, version=version, status=status, invited_by=None)
    after = After(account=settled(before, conversation), conversation=conversation)
    effects: tuple[Effect, ...] = ()
    if was_unread:
        effects = (ReadElsewhere(conversation=before.key, version=version, first_rank=first, resource=None),)
    return Decision(after=after, effects=effects)
