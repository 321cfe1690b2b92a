"""Rooms that this server keeps (XEP-0045): what is found out about an event once, for all members.

A room's event becomes an entry: the message itself, or what happened to one. Who may do what is decided here, against
the room's own index, where ids are the room's stanza-ids. `sync.rules.groups` says what an entry does to one member's
conversation.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

from sync.model.books import Unlisted
from sync.model.call import CallStep
from sync.model.conversation import ConversationKey, IndexedMessage, Kind, key_of
from sync.model.event import (
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Correction,
    Displayed,
    Invitation,
    Mentions,
    Moderation,
    Nothing,
    Reaction,
    Receipt,
    Retraction,
    RoomMessageEvent,
    Subscription,
)
from sync.model.jid import bare, resource
from sync.model.room import EntryKind, Room, RoomEntry, RoomMember, nick_key
from sync.rules.index import envelope_of, meant_by, original, row_of, was_taken
from sync.rules.mentions import nick_keys
from sync.rules.times import microseconds

Found = tuple[IndexedMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomView:
    """Before an event: the room, the messages of its index that the event names, and members that it may mean. `nicks`
    and `occupants`: who they are by `nick_key` and by occupant-id.
    """

    room: Room
    found: Found = ()
    members: Mapping[str, RoomMember] = field(default_factory=dict)
    nicks: Mapping[str, Collection[str]] = field(default_factory=dict)
    occupants: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAfter:
    """After an event: what is new or changed. `ignored`: why nothing is, in a fixed word for the metrics."""

    room: Room
    messages: tuple[IndexedMessage, ...] = ()
    entries: tuple[RoomEntry, ...] = ()
    members: tuple[RoomMember, ...] = ()
    unlisted: Unlisted | None = None
    ignored: str | None = None


def next_rank(room: Room, now: datetime) -> int:
    """The rank of the room's next entry: higher than every one before, whatever the clock does."""
    return max(room.version + 1, microseconds(now))


def said(before: RoomView, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """A message that the room sent to its occupants."""
    content = event.content
    if not event.stored and not isinstance(content, CallMessage):
        return nothing(before, "no-store")
    match content:
        case Body():
            return message(before, content, event, now)
        case Correction():
            return correction(before, content, event, now)
        case Retraction():
            return withdrawal(before, own(before, content.target, event), EntryKind.RETRACTED, event, now)
        case Moderation():
            # XEP-0425 §4: it comes from the room itself, else it is an attempt.
            if event.sender != event.account:
                return nothing(before, "not-the-room")
            return withdrawal(before, named(before, content.target), EntryKind.MODERATED, event, now)
        case Reaction():
            return reaction(before, content, event, now)
        case Displayed():
            return displayed(before, content, event, now)
        case CallMessage():
            return call(before, content, event, now)
        case Receipt() | Invitation() | Bookmark() | Subscription() | Bounce():
            return nothing(before, "not-in-rooms")
        case Nothing():
            return nothing(before, content.why)
        case _:
            assert_never(content)


def message(before: RoomView, content: Body, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """A message to read: it counts for everybody but its author."""
    if is_duplicate(before, event):
        return nothing(before, "duplicate")
    rank = next_rank(before.room, now)
    meant = content.mentions or Mentions()
    mentions = tuple(sorted(accounts_meant(before, meant, content.text) - {author_of(event)}))
    row = indexed(event, rank, min(event.at, now))
    if event.counted:
        row = replace(row, counted=True, mention=meant.everybody, mentions=mentions)
    entry = replace(
        entry_of(before, event, EntryKind.MESSAGE, rank, now),
        mentions=mentions,
        everybody=meant.everybody,
        stanza=event.stanza if event.archive_id else envelope_of(event.sender, Kind.GROUP, event.message_id),
    )
    return after(before, event, entry, row)


def correction(before: RoomView, content: Correction, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """XEP-0308 §4: only by the same sender, whom XEP-0421 tells in rooms."""
    if is_duplicate(before, event):
        return nothing(before, "duplicate")
    target = own(before, content.target, event)
    if target is None:
        return nothing(before, "unknown-target")
    if target.retracted is not None:
        return nothing(before, "retracted-target")
    rank = next_rank(before.room, now)
    row = replace(indexed(event, rank, min(event.at, now)), about=target.rank)
    entry = about(target, content.target, entry_of(before, event, EntryKind.CORRECTED, rank, now))
    return after(before, event, replace(entry, stanza=event.stanza if event.archive_id else None), row)


def withdrawal(
    before: RoomView, target: IndexedMessage | None, kind: EntryKind, event: RoomMessageEvent, now: datetime
) -> RoomAfter:
    """XEP-0424, XEP-0425: the message is gone for everybody."""
    if target is None:
        return nothing(before, "unknown-target")
    if target.retracted is not None:
        return nothing(before, "duplicate")
    rank = next_rank(before.room, now)
    row = replace(indexed(event, rank, min(event.at, now)), about=target.rank)
    claimed = event.content.target if isinstance(event.content, Retraction | Moderation) else ""
    entry = about(target, claimed, entry_of(before, event, kind, rank, now))
    if isinstance(event.content, Moderation):
        entry = replace(entry, sender=event.content.by or event.account)
    return after(before, event, entry, replace(target, retracted=rank), row)


def reaction(before: RoomView, content: Reaction, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """XEP-0444: never unread, never the last message."""
    if is_duplicate(before, event):
        return nothing(before, "duplicate")
    target = named(before, content.target)
    if target is None:
        return nothing(before, "unknown-target")
    if target.retracted is not None:
        return nothing(before, "retracted-target")
    rank = next_rank(before.room, now)
    row = indexed(event, rank, min(event.at, now))
    entry = about(target, content.target, entry_of(before, event, EntryKind.REACTED, rank, now))
    if not content.emojis:
        entry = replace(entry, target_author=None)  # taken back: the author need not hear of it
    return after(before, event, replace(entry, stanza=event.stanza if event.archive_id else None), row)


def displayed(before: RoomView, content: Displayed, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """XEP-0333: whoever displayed it has read the room so far. It concerns that member alone, if it is one of ours."""
    if event.author is None or event.author not in before.members:
        return nothing(before, "room-marker")
    target = place(before, (content.target, *content.stanza_ids))
    if target is None:
        return nothing(before, "unknown-target")
    rank = next_rank(before.room, now)
    entry = about(target, content.target, entry_of(before, event, EntryKind.DISPLAYED, rank, now))
    return after(before, event, replace(entry, only=event.author))


# ---- calls (XEP-0482) -----------------------------------------------------------------------------------------------


def call(before: RoomView, content: CallMessage, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """A step of a call. Invites are in the room's index, where the steps that follow find them by any of their ids."""
    if event.past:
        return nothing(before, "past-call")
    if is_duplicate(before, event):
        return nothing(before, "duplicate")
    return (
        invited(before, content, event, now) if content.step is CallStep.PROPOSE else step(before, content, event, now)
    )


def invited(before: RoomView, content: CallMessage, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """XEP-0482 §3.1: an invite is named by the id that the room gave it; where it gives none, by its sender's. In the
    index it is about itself, unlike any other message.
    """
    rank = next_rank(before.room, now)
    entry = replace(
        entry_of(before, event, EntryKind.CALL, rank, now),
        step=content.step,
        media=content.media,
        target_rank=rank,
        target_id=event.archive_id or content.session_id,
        stanza=event.stanza,
    )
    found = after(before, event, entry, replace(indexed(event, rank, entry.at), about=rank))
    return replace(found, room=replace(found.room, called_at=entry.at))


def step(before: RoomView, content: CallMessage, event: RoomMessageEvent, now: datetime) -> RoomAfter:
    """Who comes leaves a row beside the invite's; who leaves takes back its own, the caller that of the invite. Where
    none is left the invite is over, as when its caller takes it back.
    """
    target = named(before, content.session_id)
    if target is None or target.about != target.rank:
        return nothing(before, "unknown-call")
    author, rank = author_of(event), next_rank(before.room, now)
    if content.step in (CallStep.RETRACT, CallStep.YIELD) and target.author != author:
        return nothing(before, "not-the-caller")
    sid = target.archive_key or target.origin_key or target.message_key
    rows = [replace(indexed(event, rank, min(event.at, now)), about=target.rank, origin_key=sid)]
    over = content.step is CallStep.RETRACT
    if content.step is CallStep.FINISH:
        here = [row for row in before.found if row.retracted is None and target.rank in (row.rank, row.about)]
        rows = [replace(row, retracted=rank) for row in here if row.author == author]
        # The rows of those who came bear the id that the room gave: by another one they were not looked for.
        over = len(rows) == len(here) and key_of(content.session_id) == sid
    elif content.step is not CallStep.PROCEED:
        rows = []
    entry = replace(
        entry_of(before, event, EntryKind.CALL, rank, now),
        step=content.step,
        target_rank=target.rank,
        target_id=target.archive_id or sid,
        target_author=target.author,
        everybody=over,
    )
    return after(before, event, entry, *rows)


# ---- what they share ------------------------------------------------------------------------------------------------


def nothing(before: RoomView, why: str) -> RoomAfter:
    """No effect, counted under `why`."""
    return RoomAfter(room=before.room, ignored=why)


def after(before: RoomView, event: RoomMessageEvent, entry: RoomEntry, *rows: IndexedMessage) -> RoomAfter:
    """The room with an entry more."""
    room = replace(before.room, version=entry.rank, private=entry.private, destroyed=False)
    return RoomAfter(room=room, messages=rows, entries=(entry,))


def author_of(event: RoomMessageEvent) -> str:
    """Who said it: the account where it is known, else what tells occupants apart."""
    return event.author or event.occupant_id or event.sender


def entry_of(before: RoomView, event: RoomMessageEvent, kind: EntryKind, rank: int, now: datetime) -> RoomEntry:
    """The entry with what is common to all kinds."""
    return RoomEntry(
        room=event.account,
        rank=rank,
        kind=kind,
        at=min(event.at, now),
        author=author_of(event),
        sender=event.sender,
        message_id=event.message_id,
        archive_id=event.archive_id,
        private=before.room.private if event.past else event.private,
        past=event.past,
        counted=event.counted,
    )


def about(target: IndexedMessage, claimed: str, entry: RoomEntry) -> RoomEntry:
    """The entry with the message that it is about."""
    return replace(
        entry,
        target_rank=target.rank,
        target_id=target.archive_id or claimed,
        target_counted=target.counted,
        target_author=target.author,
        target_mentions=target.mentions,
        target_everybody=target.mention,
    )


def indexed(event: RoomMessageEvent, rank: int, at: datetime) -> IndexedMessage:
    """The event's entry in the room's index."""
    key = ConversationKey(event.account, event.account, Kind.GROUP)
    return replace(row_of(event, key, rank, at), author=author_of(event))


def is_duplicate(before: RoomView, event: RoomMessageEvent) -> bool:
    """True when this very message was taken before (docs/feed.md §7)."""
    return was_taken(before.found, event, lambda message: message.author == author_of(event))


def own(before: RoomView, target: str, event: RoomMessageEvent) -> IndexedMessage | None:
    """The newest message of the event's own author with that id, in its original form."""
    mine = tuple(found for found in before.found if found.author == author_of(event))
    return named(replace(before, found=mine), target)


def named(before: RoomView, target: str) -> IndexedMessage | None:
    """The newest message with that id, in its original form."""
    newest = max(meant_by(before.found, {key_of(target)}), key=lambda m: m.rank, default=None)
    return original(before.found, newest) if newest else None


def place(before: RoomView, targets: tuple[str, ...]) -> IndexedMessage | None:
    """The furthest message that bears one of these ids. In rooms a marker names the room's stanza-id (XEP-0333 §3): a
    place in the archive, be it a correction's.
    """
    keys = set(map(key_of, targets))
    found = [
        message if message.archive_key in keys else original(before.found, message)
        for message in meant_by(before.found, keys)
    ]
    return max(found, key=lambda message: message.rank, default=None)


def accounts_meant(before: RoomView, meant: Mentions, text: str) -> set[str]:
    """The members that a message means (`sync.rules.mentions`)."""
    answered = named(before, meant.reply_to) if meant.reply_to else None
    nicks = nick_keys(text) | {
        nick_key(nick) for o in meant.occupants if bare(o) == before.room.jid and (nick := resource(o))
    }
    found = before.members.keys() & set(meant.jids)
    # A transaction may have ten thousand members in its hands, and a thousand messages.
    for known, named_so in ((before.occupants, meant.occupant_ids), (before.nicks, nicks)):
        found.update(account for one in named_so if known for account in known.get(one, ()))
    if answered is not None and answered.author is not None and is_account(answered.author):
        found.add(answered.author)
    return found


def is_account(author: str) -> bool:
    """False for what tells occupants apart whose address the room does not say: nobody can be told by it."""
    return "@" in author and not {"/", " "} & set(author)
