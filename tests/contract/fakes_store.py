"""The store, the feed's marks and leases in memory: what the ports promise, refusals of the schema included.

A transaction works on a draft that replaces the truth when the rule has ruled and no row is refused
(`tests.contract.fakes_tables`). Reads are made while nobody writes, so each is one snapshot.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sync.model.books import Books, Keys, Rule
from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import Account, ChangeKind, Conversation, ConversationKey, Kind, Status
from sync.model.delta import CallQuery, DeltaPage, DeltaQuery
from sync.model.device import JobState, Lane, PushJob
from sync.model.query import (
    ChangesPage,
    ConversationPage,
    InboxPage,
    InboxQuery,
    ListedConversation,
    ListQuery,
    RewritePage,
    RewriteQuery,
    SortKey,
)
from sync.model.room import Room, RoomMember, nick_key
from sync.ports import DueJob, StreamMark
from sync.rules.times import microseconds
from tests.contract.fakes_bootstrap import MemoryBootstraps
from tests.contract.fakes_delta import delta, newest_call, newest_calls
from tests.contract.fakes_inbox import inbox
from tests.contract.fakes_registry import MemoryRegistry
from tests.contract.fakes_rooms import MemoryRooms
from tests.contract.fakes_tables import Tables, behind, means, raise_epochs, refuse, unread_messages, waiting, write

T = TypeVar("T")


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant

    async def sleep(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


REWRITES = (ChangeKind.CORRECTED, ChangeKind.RETRACTED, ChangeKind.MODERATED)


class MemoryStore(MemoryRooms, MemoryBootstraps, MemoryRegistry):
    """Plays `Store`, `Rooms`, `Bootstraps` and `FeedMarks`. `tables` is open to tests."""

    def __init__(self, clock: SetClock) -> None:
        self.clock, self.tables = clock, Tables()
        self.stored: Callable[[Sequence[Account]], None] = lambda _: None  # told after each commit
        self._lock = asyncio.Lock()

    # ---- transactions --------------------------------------------------------------------------------------------

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        async with self._lock:
            await asyncio.sleep(0)
            return self.apply(keys, rule)

    def apply(self, keys: Keys, rule: Rule[T]) -> T:
        """`transact` for tests without a loop."""
        draft = self.tables.draft()
        ruling = rule(self._books(draft, keys))
        write(draft, ruling.writes)
        refuse(draft, self.tables)
        self.tables = draft
        self.stored(ruling.writes.accounts)
        return ruling.value

    def _books(self, tables: Tables, keys: Keys) -> Books:
        if keys.create:
            for jid in keys.accounts - set(tables.accounts):
                made = microseconds(self.clock.now())
                tables.accounts[jid] = Account(jid=jid, version=made, floor=made)
                tables.bootstraps.setdefault(jid, waiting(jid, made))
            for jid in keys.rooms - set(tables.rooms):
                tables.rooms[jid] = Room(jid=jid)
                tables.bootstraps.setdefault(jid, waiting(jid, microseconds(self.clock.now())))
        books = Books(now=self.clock.now())
        books.positions = picked(tables.positions, keys.positions)
        books.rooms = picked(tables.rooms, keys.rooms)
        books.accounts = picked(tables.accounts, keys.accounts)
        peers = {(key.account, key.peer) for key in keys.lines}
        lines = {
            (k.account, k.sid) for k, c in tables.calls.items() if c.state.is_open and (k.account, k.peer) in peers
        }
        keys = replace(keys, calls=keys.calls | lines)
        books.calls = {key: call for key, call in tables.calls.items() if (key.account, key.sid) in keys.calls}
        wanted = {*keys.conversations, *(call.conversation for call in books.calls.values())}
        books.conversations = picked(tables.conversations, wanted)
        for (key, _), message in tables.messages.items():
            ids = {message.message_key, message.origin_key, message.archive_key} - {None}
            sought = (key, message.archive_key) in keys.archived or (key, message.rank) in keys.places
            if sought or any((key, i) in keys.ids for i in ids):
                books.messages.setdefault(key, []).append(message)
        for key, found in books.messages.items():
            about = {(key, message.about) for message in found} - {(key, message.rank) for message in found}
            found.extend(picked(tables.messages, about).values())
        asked = {place for key in keys.behind for place in ranks_found(key, keys, books)}
        books.behind = {(key, rank): behind(tables, key, rank) for key, rank in asked | keys.marks}
        books.members = {where: member for where, member in tables.members.items() if wanted_member(member, keys)}
        if keys.devices:
            # The feed passes over accounts without devices; who comes for a job sees what devices left behind.
            owners = {a.jid for a in books.accounts.values() if a.devices or not keys.create}
            for device in tables.devices.values():
                if device.account in owners:
                    books.devices.setdefault(device.account, []).append(device)
            for job in tables.jobs.values():
                if job.account in owners and (job.state is not JobState.DONE or (job.account, job.sid) in keys.calls):
                    books.jobs.setdefault(job.account, []).append(job)
        return books

    # ---- reads ---------------------------------------------------------------------------------------------------

    async def account(self, jid: str) -> Account | None:
        return self.tables.accounts.get(jid)

    async def page(self, account: str, query: ListQuery) -> ConversationPage:
        return self.listed(account, query)

    def listed(self, account: str, query: ListQuery) -> ConversationPage:
        """`page` for tests without a loop."""
        owner = self.tables.accounts.get(account)
        if owner is None:
            return ConversationPage(query=query, newest=query.since, items=(), total=0)
        found = [c for c in self.tables.conversations.values() if c.key.account == account and asked_for(c, query)]
        found.sort(key=lambda c: place(sort_key(c, query)))
        items = tuple(self._listed(c) for c in page_of(found, query))
        newest = query.place.newest if query.place else owner.version
        return ConversationPage(query=query, newest=newest, items=items, total=len(found), floor=owner.floor)

    async def inbox(self, account: str, query: InboxQuery) -> InboxPage:
        return inbox(self.tables, account, query)

    async def delta(self, account: str, query: DeltaQuery) -> DeltaPage | None:
        return delta(self.tables, account, query, self._mention)

    async def call(self, account: str, query: CallQuery) -> Call | None:
        return newest_call(self.tables, account, query)

    def _ringing(self, key: ConversationKey) -> tuple[Call, ...]:
        calls = [c for c in self.tables.calls.values() if c.conversation == key]
        return newest_calls(c for c in calls if c.state is CallState.RINGING)

    def _mention(self, c: Conversation) -> str | None:
        mentions = [m for m in unread_messages(self.tables, c.key) if means(m, c.key.account)]
        return mentions[0].archive_id or mentions[0].message_key if mentions and c.mentions else None

    async def changes(self, key: ConversationKey, since: int, limit: int) -> ChangesPage:
        conversation = self.tables.conversations.get(key)
        if conversation is None:
            return ChangesPage()
        log = sorted(self.tables.changes.items())
        found = tuple(c for (_, version), c in log if c.conversation == key and version > since)
        if len(found) > limit or since < conversation.log_from:
            return ChangesPage(version=conversation.version, reset=True)
        return ChangesPage(version=conversation.version, changes=found)

    async def conversations(self, keys: Sequence[ConversationKey]) -> Sequence[ListedConversation]:
        found = [self.tables.conversations[key] for key in keys if key in self.tables.conversations]
        return [self._listed(conversation) for conversation in found]

    def _listed(self, c: Conversation) -> ListedConversation:
        return ListedConversation(conversation=c, calls=self._ringing(c.key), mention_id=self._mention(c))

    async def rewrites(self, account: str, query: RewriteQuery) -> RewritePage:
        owner = self.tables.accounts.get(account)
        if owner is None:
            return RewritePage(newest=query.since, changes=())
        log = sorted(self.tables.changes.items())
        since = [c for (jid, version), c in log if jid == account and version > query.since]
        changes = tuple(c for c in since if c.kind in REWRITES)
        of_owner = [c for c in self.tables.conversations.values() if c.key.account == account]
        torn = {c.key: c.rewritten for c in of_owner if min(c.version, c.rewritten, c.log_from) > query.since}
        if len(changes) <= query.limit:
            invalid = tuple(sorted(torn.items(), key=lambda item: item[1]))
            return RewritePage(newest=owner.version, changes=changes, invalidated=invalid)
        newest = {change.conversation: change.version for change in changes} | torn
        many = tuple(sorted(newest.items(), key=lambda item: item[1]))
        return RewritePage(newest=owner.version, changes=(), invalidated=many)

    async def token_owners(self, app: str, environment: str, digests: Sequence[bytes]) -> frozenset[str]:
        holders = [self.tables.tokens.get((app, environment, digest)) for digest in digests]
        return frozenset(holder[0] for holder in holders if holder)

    async def node_owners(self, node: str) -> frozenset[str]:
        return frozenset(device.account for device in self.tables.devices.values() if device.node == node)

    def _queued(self, lanes: Sequence[int], held: Collection[str] = ()) -> list[PushJob]:
        queued = [job for job in self.tables.jobs.values() if job.state is JobState.QUEUED and job.lane in lanes]
        return [job for job in queued if job.queue not in held]

    async def due_jobs(
        self, now: datetime, lanes: Sequence[int], limit: int, held: Collection[str] = ()
    ) -> Sequence[DueJob]:
        due = [job for job in self._queued(lanes, held) if job.not_before <= now]
        return [named(job) for job in sorted(due, key=lambda job: (job.lane, job.not_before))[:limit]]

    async def next_job_at(self, lanes: Sequence[int], held: Collection[str] = ()) -> datetime | None:
        return min((job.not_before for job in self._queued(lanes, held)), default=None)

    async def overdue_jobs(self, now: datetime, queues: Collection[str], limit: int) -> Sequence[DueJob]:
        calls = [job for job in self._queued([Lane.CALLS]) if job.queue in queues]
        return [named(job) for job in calls if max(job.not_before, job.deadline) <= now][:limit]

    async def abandoned_jobs(self, before: datetime, limit: int) -> Sequence[DueJob]:
        left = [(job.attempted_at, job) for job in self.tables.jobs.values() if job.state is JobState.ATTEMPTED]
        old = sorted(((at, job.job_id, job) for at, job in left if at and at < before))
        return [named(job) for _, _, job in old[:limit]]

    async def queue_depth(self, now: datetime) -> Mapping[int, tuple[int, float]]:
        found: dict[int, tuple[int, float]] = {}
        for job in self._queued(range(10)):
            if job.not_before <= now:
                jobs, oldest = found.get(job.lane, (0, 0.0))
                found[job.lane] = jobs + 1, max(oldest, (now - job.not_before).total_seconds())
        return found

    async def expired_calls(self, now: datetime, limit: int) -> Sequence[CallKey]:
        found = ((call.over_at, call.key) for call in self.tables.calls.values())
        due = sorted((over_at, astuple(key), key) for over_at, key in found if over_at is not None and over_at <= now)
        return [key for _, _, key in due[:limit]]

    # ---- the feed's marks ----------------------------------------------------------------------------------------

    async def marks(self, host: str) -> Sequence[StreamMark]:
        return [mark for (name, _, _), mark in self.tables.marks.items() if name == host]

    async def mark(self, host: str, marks: Sequence[StreamMark]) -> None:
        for new in marks:
            key = (host, new.stream, new.shard)
            old = self.tables.marks.get(key, new)
            most = {name: max(getattr(old, name), getattr(new, name)) for name in ("committed", "seen", "good")}
            self.tables.marks[key] = replace(new, **most)

    async def forget(self, host: str, streams: Sequence[str]) -> None:
        for key in [key for key in self.tables.marks if key[0] == host and key[1] in streams]:
            del self.tables.marks[key]
        for position in [p for p in self.tables.positions if p.host == host and p.stream in streams]:
            del self.tables.positions[position]

    async def raise_epochs(
        self, host: str, now: datetime, *, marks: Sequence[StreamMark] = (), forget: Sequence[str] = ()
    ) -> int:
        raised = raise_epochs(self.tables, host, microseconds(now))
        for mark in marks:
            key = (host, mark.stream, mark.shard)
            known = self.tables.marks.get(key, mark)
            self.tables.marks[key] = replace(mark, good=max(known.good, mark.good))
        await self.forget(host, forget)
        return raised


class MemoryLeases:
    """Plays `Leases`; its time is the clock's."""

    def __init__(self, clock: SetClock, seconds: float) -> None:
        self._clock, self._length = clock, timedelta(seconds=seconds)
        self._held: dict[str, tuple[str, datetime]] = {}

    async def acquire(self, name: str, holder: str) -> bool:
        owner, until = self._held.get(name, (holder, self._clock.now()))
        if owner != holder and until >= self._clock.now():
            return False
        self._held[name] = holder, self._clock.now() + self._length
        return True

    async def release(self, name: str, holder: str) -> None:
        if self._held.get(name, ("",))[0] == holder:
            del self._held[name]


# ---- what the statements do ----------------------------------------------------------------------------------------


def picked(table: Mapping[Any, T], keys: Iterable[Any]) -> dict[Any, T]:
    return {key: table[key] for key in keys if key in table}


def indexes(key: ConversationKey) -> list[ConversationKey]:
    """Whose message indexes count for a conversation: its own, and the room's."""
    return [key, ConversationKey(key.peer, key.peer, Kind.GROUP)][: 1 + (key.kind is Kind.GROUP)]


def ranks_found(key: ConversationKey, keys: Keys, books: Books) -> Iterable[tuple[ConversationKey, int]]:
    """What was looked up for this conversation; of a room's own index with what it is about."""
    yield from ((key, message.rank) for one in key.alike for message in books.messages.get(one, ()))
    for index in indexes(key)[1:]:
        for message in books.messages.get(index, ()):
            if any(message.bears(identifier) for where, identifier in keys.ids | keys.archived if where == key):
                yield from ((key, rank) for rank in (message.rank, message.about) if rank is not None)


def wanted_member(member: RoomMember, keys: Keys) -> bool:
    return (
        (member.room, member.account) in keys.members
        or (member.until is None and (member.room, nick_key(member.nick or "")) in keys.nicks)
        or (member.room, member.occupant_id) in keys.occupants
    )


def asked_for(c: Conversation, query: ListQuery) -> bool:
    return (
        c.version > query.since
        and (query.since > 0 or c.status is not Status.DELETED)
        and (query.pinned is None or (c.pinned > 0) is query.pinned)
        and (query.archived is None or (c.status is Status.ARCHIVED) is query.archived)
        and (query.place is None or c.version <= query.place.newest)
    )


def page_of(found: Sequence[Conversation], query: ListQuery) -> Sequence[Conversation]:
    """The page out of the whole list, in its order."""
    limit = len(found) if query.limit is None else query.limit
    if query.at_end:
        return found[max(0, len(found) - limit) :]
    if query.before is not None:
        above = [c for c in found if place(sort_key(c, query)) < place(query.before.sort)]
        return above[max(0, len(above) - limit) :]
    behind = [c for c in found if query.after is None or place(sort_key(c, query)) > place(query.after.sort)]
    return behind[:limit]


def sort_key(c: Conversation, query: ListQuery) -> SortKey:
    pinned = c.pinned if query.pinned_first else 0
    activity = microseconds(c.activity_at)
    return SortKey(ringing=c.ringing > 0, pinned=pinned, activity=activity, peer=c.key.peer, kind=c.key.kind)


def place(sort: SortKey) -> tuple[object, ...]:
    return not sort.ringing, -sort.pinned, -sort.activity, sort.peer, sort.kind


def named(job: PushJob) -> DueJob:
    return DueJob(
        account=job.account,
        job_id=job.job_id,
        lane=job.lane,
        peer=job.peer,
        about=job.about,
        sid=job.sid,
        queue=job.queue,
    )
