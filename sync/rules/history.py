"""What an archive says becomes state by the same rules as what the feed says; nobody is woken for it.

A message of the archive takes its place by the archive's time (`ranked`), so that it interleaves rightly with what is
taken live. All conversations with one peer share their places, and the key of the plain chat stands for them: to which
of them an item belongs shows when it is taken (`sync.rules.apart`). What was archived before the first contact counts
as read, up to where a displayed marker of the account's own storage (XEP-0490) says otherwise. What came later and is
not known was lost, and is unread behind the read pointer. Calls, invitations and errors of the past are over; rooms
have archives of their own.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from sync.model.books import Books, Keys, Ruling, Writes
from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.model.conversation import Conversation, ConversationKey, Kind, Pointer, key_of
from sync.model.event import (
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Correction,
    Displayed,
    Invitation,
    MessageEvent,
    RoomMessageEvent,
    Subscription,
)
from sync.rules.apart import sealed_apart, was_known
from sync.rules.decide import decide
from sync.rules.fold import Fold, Policies
from sync.rules.index import envelope, is_duplicate, own_message, text_of
from sync.rules.times import instant, microseconds
from sync.rules.view import After, Conduct, Decision, View, ignore, is_own, opened, settled, version_for
from sync.rules.wanted import Wanted, places_of, wanted_ids

Place = tuple[ConversationKey, int]
SECOND = 1_000_000  # microseconds
Marked = Mapping[ConversationKey, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of an account's past: `since` is the rank of the first contact, `marked` the archive ids up to
    which its own storage says that conversations are read. Of what was deleted before the rank `horizon` nothing may be
    left to say so.
    """

    since: int
    horizon: int = 0
    marked: Marked = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Restored:
    """What became of a page. `gone`: there is no such account any more; `taken_places`: nothing was stored, since there
    are other messages at these places. `reached`: the time of a room's newest message so far (`timed`), microseconds.
    """

    messages: int = 0
    gone: bool = False
    taken_places: frozenset[Place] = frozenset()
    ignored: Counter[str] = field(default_factory=Counter)
    rooms: frozenset[str] = frozenset()
    reached: int = 0


def marked(events: Iterable[MessageEvent]) -> dict[ConversationKey, str]:
    """Up to which message of the archive each peer is read, by the account's own storage (XEP-0490)."""
    return {
        key_of_event(event): event.content.target
        for event in events
        if isinstance(event.content, Displayed) and event.kind is Kind.CHAT
    }


# ---- places ---------------------------------------------------------------------------------------------------------


def ranked(
    events: Sequence[MessageEvent],
    after: int,
    known: Mapping[tuple[ConversationKey, str], int],
    floors: Mapping[ConversationKey, int],
    taken: Collection[Place] = (),
    *,
    step: int,
) -> list[MessageEvent]:
    """The events with their ranks: the archive's time, higher than the one before, and in a conversation higher than
    what the archive has before it and is `known` (by conversation and archive key). `after`: the rank of the item
    before the first. `floors`: the highest rank of each conversation before these events. Never one of `taken`, from
    which they move on by `step`.
    """
    lowest = dict(floors)
    found: list[MessageEvent] = []
    for event in events:
        key = key_of_event(event)
        place = known.get((key, key_of(event.archive_id))) if event.archive_id else None
        after = rank = max(microseconds(event.at), after + 1)
        if place is None:
            rank = max(rank, lowest.get(key, 0) + 1)
            while (key, rank) in taken:
                rank += step
        lowest[key] = max(lowest.get(key, 0), rank if place is None else place)
        found.append(replace(event, rank=rank))
    return found


def highest(
    events: Iterable[MessageEvent], known: Mapping[tuple[ConversationKey, str], int]
) -> dict[ConversationKey, int]:
    """The floors behind these ranked events."""
    found: dict[ConversationKey, int] = {}
    for event in events:
        key = key_of_event(event)
        place = known.get((key, key_of(event.archive_id or "")), event.rank or 0)
        found[key] = max(found.get(key, 0), place)
    return found


def key_of_event(event: MessageEvent) -> ConversationKey:
    """The conversation of an event, or the one that stands for all with its peer."""
    return ConversationKey(event.account, event.peer, event.kind).plain


def known_keys(events: Iterable[MessageEvent], *, several: bool) -> Keys:
    """Which rows say what of these is known, and where it has its place."""
    events = list(events)
    archived = {
        (place, key_of(event.archive_id))
        for event in events
        if event.archive_id
        for place in (key_of_event(event).alike if several else (key_of_event(event),))
    }
    return Keys(accounts=frozenset(event.account for event in events), archived=frozenset(archived))


def known_places(books: Books) -> Ruling[dict[tuple[ConversationKey, str], int]]:
    """The rule that changes nothing and tells them."""
    found = {
        (key.plain, message.archive_key): message.rank
        for key, messages in books.messages.items()
        for message in messages
        if message.archive_key is not None
    }
    return Ruling(writes=Writes(), value=found)


# ---- pages ----------------------------------------------------------------------------------------------------------


def own_markers(events: Sequence[MessageEvent], conduct: Conduct) -> tuple[list[MessageEvent], list[MessageEvent]]:
    """The events without the account's own displayed markers, and those markers: they are taken in a transaction of
    their own, when what they name is stored and what is behind it can be counted. Where sending reads, what the account
    wrote is a marker, too.
    """
    markers = [event for event in events if isinstance(event.content, Displayed) and is_own(event)]
    rest = [event for event in events if not (isinstance(event.content, Displayed) and is_own(event))]
    if conduct.sending_reads:
        wrote = [event for event in rest if isinstance(event.content, Body) and is_own(event) and event.archive_id]
        newest = {(key_of_event(event), sealed_apart(event, conduct)): event for event in wrote}
        markers += [
            replace(event, content=Displayed(event.archive_id or "", (event.archive_id or "",)), archive_id=None)
            for event in newest.values()
        ]
    return rest, markers


def keys_of(events: Iterable[MessageEvent], past: Past, account: str, *, several: bool) -> Keys:
    """The rows that events of one account's archive may read or change."""
    wanted = Wanted(several=several)
    marks: set[Place] = set()
    places: set[Place] = set()
    for event in events:
        wanted.message(event)
        key = key_of_event(event)
        alike = key.alike if several else (key,)
        wanted.ids.update((one, identifier) for one in alike for identifier in ids_of(event, past))
        if isinstance(event.content, Body):
            marks.update((one, past.since) for one in (places_of(event) if several else alike))
        if event.rank is not None and not isinstance(event.content, Displayed):
            places.update((one, event.rank) for one in alike)
    return Keys(
        accounts=frozenset({account}),
        conversations=frozenset(wanted.conversations),
        ids=frozenset(wanted.ids),
        archived=frozenset(wanted.archived),
        behind=frozenset(wanted.behind),
        marks=frozenset(marks),
        places=frozenset(places),
    )


def ids_of(event: MessageEvent, past: Past) -> list[str]:
    """The ids by which an event of the archive finds messages. One that was taken live may lack its archive id."""
    found = wanted_ids(event)
    if event.message_id is not None:
        found.append(key_of(event.message_id))
    if (mark := past.marked.get(key_of_event(event))) is not None:
        found.append(key_of(mark))
    return found


def restore(
    events: Sequence[MessageEvent], past: Past, row: Bootstrap | None, books: Books, policies: Policies
) -> Ruling[Restored]:
    """The rule for events of one account's archive, in its order. With them goes the row with its new cursor."""
    if not books.accounts:
        return Ruling(writes=Writes(), value=Restored(gone=True))
    if taken := occupied(events, books):
        return Ruling(writes=Writes(), value=Restored(taken_places=taken))
    fold = Fold(books, policies)
    for event in events:
        rule = partial(recalled, past=past, conduct=policies.conduct, now=books.now)
        fold.recall(event, ids_of(event, past), past.since, rule)
    writes = fold.writes()
    known = {(key, message.rank) for key, messages in books.messages.items() for message in messages}
    new = sum((message.conversation, message.rank) not in known for message in writes.messages)
    if row is not None:
        writes.bootstraps = [replace(row, restored=row.restored + new)]
    return Ruling(writes=writes, value=Restored(messages=new, ignored=fold.report.ignored))


def occupied(events: Iterable[MessageEvent], books: Books) -> frozenset[Place]:
    """The places of these events at which there is another message. What is known has its own place already."""
    held = {(key.plain, message.archive_key) for key, messages in books.messages.items() for message in messages}
    wanted = {
        (key, event.rank)
        for event in events
        if event.rank is not None
        and event.archive_id is not None
        and ((key := key_of_event(event)), key_of(event.archive_id)) not in held
    }
    return frozenset(
        place
        for key, messages in books.messages.items()
        for message in messages
        if (place := (key.plain, message.rank)) in wanted
    )


def recalled(before: View, event: MessageEvent, past: Past, conduct: Conduct, now: datetime) -> Decision:
    """What one event of the archive does."""
    content = event.content
    if isinstance(content, CallMessage | Bounce | Invitation | Subscription):
        return ignore("past")
    if event.kind is Kind.GROUP and not isinstance(content, Displayed | Bookmark):
        return ignore("groupchat")
    if event.rank is not None:
        # Ranks that are given out later are higher than this one, whatever the clock does.
        before = replace(before, account=replace(before.account, version=max(before.account.version, event.rank)))
    if isinstance(content, Body):
        if was_known(before.found, event):
            return ignore("duplicate")
        if before.conversation is None and past.since < (event.rank or 0) <= past.horizon:
            return ignore("buried")  # it was known then, and the user has deleted it since
        before = replace(before, conversation=read_along(before, event, past, now))
    if isinstance(content, Correction) and is_duplicate(before, event):
        return shown_again(before, content, event, now)
    return decide(before, event, conduct, now)


def read_along(before: View, event: MessageEvent, past: Past, now: datetime) -> Conversation | None:
    """The conversation before a message of the archive. What was archived before the first contact is read: the
    pointer goes along with it, while nothing that it would pass is unread.
    """
    rank = event.rank or 0
    conversation = before.conversation
    if rank > past.since or is_behind_mark(before, past, rank):
        return conversation
    conversation = conversation or opened(before, version_for(before, now), min(event.at, now))
    later = before.behind.get(past.since)
    if rank <= conversation.read.rank or conversation.unread != (later.unread if later else 0):
        return conversation
    return replace(conversation, read=Pointer(rank, event.archive_id))


def is_behind_mark(before: View, past: Past, rank: int) -> bool:
    """True for what the archive has behind the message up to which the account's own storage says it has read."""
    mark = past.marked.get(before.key.plain)
    if mark is None:
        return False
    conversation = before.conversation
    if conversation is not None and conversation.read.id == mark:
        return rank > conversation.read.rank
    found = (*before.found, *before.beside)
    return any(message.archive_key == key_of(mark) and message.rank < rank for message in found)


def shown_again(before: View, content: Correction, event: MessageEvent, now: datetime) -> Decision:
    """A correction that was taken live, behind one that was missed: the newest one is what the preview shows (XEP-0308
    §3).
    """
    target, conversation = own_message(before, content.target, event), before.conversation
    if target is None or conversation is None or conversation.last is None or conversation.last.rank != target.rank:
        return ignore("duplicate")
    stanza = text_of(event) or envelope(event)
    if conversation.last.retracted or conversation.last.stanza == stanza:
        return ignore("duplicate")
    last = replace(conversation.last, stanza=stanza)
    conversation = replace(conversation, last=last, version=version_for(before, now))
    return Decision(after=After(account=settled(before, conversation), conversation=conversation))


# ---- progress -------------------------------------------------------------------------------------------------------


def moved(row: Bootstrap, last: tuple[str, int] | None, *, seen: int, until: int, limit: int) -> Bootstrap:
    """The row behind a page: `last` is the archive id and rank of its last item. An archive that goes on beyond `limit`
    items is gone on with in the middle of the time that is left, so that its newest part is reached.
    """
    if last is None:
        return row
    row = replace(row, after=last[0], rank=last[1], seen=row.seen + seen, attempts=0)
    if row.seen < limit:
        return row
    return replace(row, start=max((row.rank + until) // 2, row.rank + 1), after=None, seen=0)


def nearer(row: Bootstrap, end: str | None) -> Bootstrap | None:
    """The row after a step into the middle of the time that is left (`moved`) that found nothing: half as far, and in
    the end behind the item `end`, from which it went. None: it was no such step, and the archive is read.
    """
    if row.after is not None or not 0 < row.rank < row.start:
        return None
    if row.start - row.rank > SECOND:
        return replace(row, start=(row.rank + row.start) // 2)
    return replace(row, start=before(row.rank), after=end)


def before(rank: int) -> int:
    """An archive time that is not behind the item of that rank, whose own time may be a whole second."""
    return max(rank - SECOND, 1)


def finished(row: Bootstrap, why: str | None = None) -> Bootstrap:
    """The row of an archive that was read as far as there is something to read."""
    return replace(row, state=BootstrapState.DONE, why=why, attempts=0)


# ---- rooms of this server -------------------------------------------------------------------------------------------


def restore_room(
    events: Sequence[RoomMessageEvent], row: Bootstrap, reached: int, books: Books, policies: Policies
) -> Ruling[Restored]:
    """The rule for events of one room's archive: they become entries like any other, behind those that are there, but
    their place in time is their own, and nobody is woken.
    """
    if row.account not in books.rooms:
        return Ruling(writes=Writes(), value=Restored(gone=True))
    fold = Fold(books, policies)
    for event in timed(events, reached, books):
        reached = microseconds(event.at)
        fold.recall_room(replace(event, past=True, counted=reached > row.since))
    writes = fold.writes()
    new = len(writes.entries)
    writes.bootstraps = [replace(row, restored=row.restored + new)]
    restored = Restored(messages=new, ignored=fold.report.ignored, rooms=frozenset(fold.report.rooms), reached=reached)
    return Ruling(writes=writes, value=restored)


def timed(events: Iterable[RoomMessageEvent], reached: int, books: Books) -> list[RoomMessageEvent]:
    """The events of a room's archive with times in its order. Some archives keep whole seconds: what follows a message
    that was taken live in the same second came after it, though its time says before.
    """
    known = {
        message.archive_key: microseconds(message.sent_at) for found in books.messages.values() for message in found
    }
    found: list[RoomMessageEvent] = []
    for event in events:
        time = microseconds(event.at)
        if event.archive_id is not None:
            time = known.get(key_of(event.archive_id), time)
        if reached - SECOND < time <= reached:
            time = reached + 1
        reached = time
        found.append(replace(event, at=instant(time)))
    return found


def keys_of_room(events: Iterable[RoomMessageEvent], room: str) -> Keys:
    """The rows that events of one room's archive may read or change."""
    wanted = Wanted()
    for event in events:
        wanted.room_message(event)
    return Keys(
        ids=frozenset(wanted.ids),
        rooms=frozenset({room}),
        members=frozenset(wanted.members),
        nicks=frozenset(wanted.nicks),
        occupants=frozenset(wanted.occupants),
    )
