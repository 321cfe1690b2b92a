"""The store, the feed's marks and leases in memory: what the ports promise, refusals of the schema included.

A transaction works on a draft that replaces the truth when the rule has ruled and every row passes `CHECKS`, which are
the named constraints of schema.sql. Reads are made while nobody writes, so each is one snapshot.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sync.model.books import Books, Keys, LanePosition, LostHost, Quarantined, Rule, Writes
from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Account,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Status,
)
from sync.model.device import Device, JobState, PushJob, PushKind
from sync.model.errors import TokenHeld, Uncommittable
from sync.model.jid import domain
from sync.model.query import ConversationPage, ListedConversation, ListQuery, RewritePage, RewriteQuery, SortKey
from sync.ports import DueJob, StreamMark
from sync.rules.times import microseconds

T = TypeVar("T")


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant

    async def sleep(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


@dataclass(slots=True, kw_only=True)
class Tables:
    """Everything that is stored, by primary key."""

    accounts: dict[str, Account] = field(default_factory=dict)
    conversations: dict[ConversationKey, Conversation] = field(default_factory=dict)
    messages: dict[tuple[ConversationKey, int], IndexedMessage] = field(default_factory=dict)
    changes: dict[tuple[str, int], Change] = field(default_factory=dict)
    calls: dict[CallKey, Call] = field(default_factory=dict)
    devices: dict[tuple[str, str], Device] = field(default_factory=dict)
    tokens: dict[tuple[str, str, bytes], tuple[str, str]] = field(default_factory=dict)
    jobs: dict[tuple[str, str], PushJob] = field(default_factory=dict)
    positions: dict[LanePosition, int] = field(default_factory=dict)
    quarantine: dict[tuple[str, str, str, int], Quarantined] = field(default_factory=dict)
    marks: dict[tuple[str, str, str], StreamMark] = field(default_factory=dict)

    def draft(self) -> "Tables":
        """A copy to work on; rows are immutable."""
        return Tables(**{name: copy(getattr(self, name)) for name in self.__dataclass_fields__})


def _short(*keys: str | None) -> bool:
    return all(key is None or len(key.encode()) <= 128 for key in keys)


def _whole(*parts: object) -> bool:
    return len({part is None for part in parts}) == 1


CHECKS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "accounts": {
        "account_is_bare": lambda a: a.jid != "" and "/" not in a.jid and len(a.jid.encode()) <= 3071,
        "account_epoch_counts": lambda a: a.epoch >= 1,
        "account_version_is_time": lambda a: 0 <= a.floor <= a.version,
        "account_counts": lambda a: a.unread >= a.unread_conversations >= 0 and a.devices >= 0,
    },
    "conversations": {
        "conversation_peer_is_jid": lambda c: c.key.peer != "" and len(c.key.peer.encode()) <= 3071,
        "conversation_counts": lambda c: c.unread >= 0 and c.ringing >= 0 and c.pinned >= 0,
        "conversation_rewritten_by_version": lambda c: c.rewritten <= c.version,
    },
    "messages": {
        "message_own_is_not_unread": lambda m: not (m.direction is Direction.OUT and m.counted),
        "message_keys_are_short": lambda m: _short(m.message_key, m.origin_key, m.archive_key),
    },
    "changes": {
        "change_retraction_has_no_text": lambda c: c.kind is not ChangeKind.RETRACTED or c.stanza is None,
    },
    "calls": {
        "call_sid_is_short": lambda c: _short(c.key.sid),
        "call_ringing_has_propose": lambda c: c.state is not CallState.RINGING or c.stanza is not None,
        "call_rings_after_propose": lambda c: c.rings_until >= c.proposed_at,
    },
    "devices": {"device_id_is_short": lambda d: 0 < len(d.device_id.encode()) <= 1023},
    "jobs": {
        "push_job_attempted_has_left": lambda j: j.state is not JobState.ATTEMPTED or j.attempted_at is not None,
        "push_job_done_has_outcome": lambda j: (j.state is JobState.DONE) == (j.outcome is not None),
        "push_job_voip_is_call": lambda j: not j.voip or (j.kind is PushKind.CALL and j.sid is not None),
    },
}

UNIQUE: dict[str, tuple[str, Callable[[Any], object]]] = {
    "conversation_by_version": ("conversations", lambda c: (c.key.account, c.version)),
    "push_job_voip_once": ("jobs", lambda j: (j.account, j.device_id, j.peer, j.sid) if j.voip else None),
    "device_by_node": ("devices", lambda d: (d.account, d.node)),
}

KEPT_OF_A_MESSAGE = frozenset(IndexedMessage.__dataclass_fields__) - {"retracted"}
KEPT_OF_A_CALL = frozenset(Call.__dataclass_fields__) - {"state", "version", "answered_by"}
KEPT_OF_A_JOB = frozenset({"device_id", "lane", "kind", "sid", "voip", "created_at"})


class MemoryStore:
    """Plays `Store` and `FeedMarks`. `tables` is open to tests."""

    def __init__(self, clock: SetClock) -> None:
        self.clock, self.tables = clock, Tables()
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
        return ruling.value

    def _books(self, tables: Tables, keys: Keys) -> Books:
        if keys.create:
            for jid in keys.accounts - set(tables.accounts):
                made = microseconds(self.clock.now())
                tables.accounts[jid] = Account(jid=jid, version=made, floor=made)
        books = Books(now=self.clock.now())
        books.positions = picked(tables.positions, keys.positions)
        books.accounts = picked(tables.accounts, keys.accounts)
        books.calls = {key: call for key, call in tables.calls.items() if (key.account, key.sid) in keys.calls}
        wanted = {*keys.conversations, *(ConversationKey(key.account, key.peer) for key in books.calls)}
        books.conversations = picked(tables.conversations, wanted)
        for (key, _), message in tables.messages.items():
            ids = {message.message_key, message.origin_key, message.archive_key} - {None}
            if any((key, i) in keys.ids for i in ids) or (key, message.archive_key) in keys.archived:
                books.messages.setdefault(key, []).append(message)
        books.unread = {key: unread_ranks(tables, key) for key in keys.unread_of}
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
        rest = [c for c in found if query.after is None or place(sort_key(c, query)) > place(query.after.sort)]
        items = tuple(ListedConversation(conversation=c, calls=self._ringing(c.key)) for c in rest[: query.limit])
        newest = query.after.newest if query.after else owner.version
        return ConversationPage(query=query, newest=newest, items=items, total=len(found))

    def _ringing(self, key: ConversationKey) -> tuple[Call, ...]:
        calls = [c for k, c in self.tables.calls.items() if (k.account, k.peer) == (key.account, key.peer)]
        return tuple(sorted((c for c in calls if c.state is CallState.RINGING), key=lambda c: c.proposed_at)[::-1])

    async def rewrites(self, account: str, query: RewriteQuery) -> RewritePage:
        owner = self.tables.accounts.get(account)
        if owner is None:
            return RewritePage(newest=query.since, changes=())
        log = sorted(self.tables.changes.items())
        changes = tuple(c for (jid, version), c in log if jid == account and version > query.since)
        if len(changes) <= query.limit:
            return RewritePage(newest=owner.version, changes=changes)
        newest = {change.conversation: change.version for change in changes}
        many = tuple(sorted(newest.items(), key=lambda item: item[1]))
        return RewritePage(newest=owner.version, changes=(), invalidated=many)

    async def token_owners(self, app: str, environment: str, digests: Sequence[bytes]) -> frozenset[str]:
        holders = [self.tables.tokens.get((app, environment, digest)) for digest in digests]
        return frozenset(holder[0] for holder in holders if holder)

    def _queued(self, lanes: Sequence[int]) -> list[PushJob]:
        return [job for job in self.tables.jobs.values() if job.state is JobState.QUEUED and job.lane in lanes]

    async def claim_ring(self, attempt: PushJob, version: int, follow: Sequence[PushJob]) -> bool:
        account = self.tables.accounts.get(attempt.account)
        key = attempt.account, attempt.job_id
        job = self.tables.jobs.get(key)
        if (
            account is None
            or account.version != version
            or job is None
            or job.state is not JobState.QUEUED
            or job.attempts
        ):
            return False
        claimed = replace(job, state=JobState.ATTEMPTED, attempts=1, attempted_at=attempt.attempted_at)
        self.tables.jobs = {(new.account, new.job_id): new for new in follow} | self.tables.jobs | {key: claimed}
        self.tables.accounts[account.jid] = replace(account, wakes_open=True)
        return True

    async def due_jobs(self, now: datetime, lanes: Sequence[int], limit: int) -> Sequence[DueJob]:
        due = [job for job in self._queued(lanes) if job.not_before <= now]
        return [named(job) for job in sorted(due, key=lambda job: (job.lane, job.not_before))[:limit]]

    async def next_job_at(self, lanes: Sequence[int]) -> datetime | None:
        return min((job.not_before for job in self._queued(lanes)), default=None)

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
        calls = [c for c in self.tables.calls.values() if c.state is CallState.RINGING and c.rings_until <= now]
        return [call.key for call in sorted(calls, key=lambda call: call.rings_until)[:limit]]

    # ---- the feed's marks ----------------------------------------------------------------------------------------

    async def marks(self, host: str) -> Sequence[StreamMark]:
        return [mark for (name, _, _), mark in self.tables.marks.items() if name == host]

    async def mark(self, host: str, marks: Sequence[StreamMark]) -> None:
        for new in marks:
            key = (host, new.stream, new.shard)
            old = self.tables.marks.get(key, new)
            furthest = replace(new, committed=max(old.committed, new.committed), seen=max(old.seen, new.seen))
            self.tables.marks[key] = furthest

    async def forget(self, host: str, streams: Sequence[str]) -> None:
        for key in [key for key in self.tables.marks if key[0] == host and key[1] in streams]:
            del self.tables.marks[key]
        for position in [p for p in self.tables.positions if p.host == host and p.stream in streams]:
            del self.tables.positions[position]

    async def raise_epochs(
        self, host: str, now: datetime, *, marks: Sequence[StreamMark] = (), forget: Sequence[str] = ()
    ) -> int:
        self.tables.marks |= {(host, mark.stream, mark.shard): mark for mark in marks}
        await self.forget(host, forget)
        return raise_epochs(self.tables, host, microseconds(now))


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


def unread_ranks(tables: Tables, key: ConversationKey) -> list[int]:
    """The recount: ranks of counted, standing messages behind the read pointer."""
    conversation = tables.conversations.get(key)
    read = conversation.read.rank if conversation else 0
    messages = [m for (k, _), m in tables.messages.items() if k == key and conversation]
    return sorted(m.rank for m in messages if m.counted and not m.retracted and m.rank > read)


def asked_for(c: Conversation, query: ListQuery) -> bool:
    return (
        c.version > query.since
        and (query.since > 0 or c.status is not Status.DELETED)
        and (query.pinned is None or (c.pinned > 0) is query.pinned)
        and (query.archived is None or (c.status is Status.ARCHIVED) is query.archived)
        and (query.after is None or c.version <= query.after.newest)
    )


def sort_key(c: Conversation, query: ListQuery) -> SortKey:
    pinned = c.pinned if query.pinned_first else 0
    activity = microseconds(c.activity_at)
    return SortKey(ringing=c.ringing > 0, pinned=pinned, activity=activity, peer=c.key.peer, kind=c.key.kind)


def place(sort: SortKey) -> tuple[object, ...]:
    return not sort.ringing, -sort.pinned, -sort.activity, sort.peer, sort.kind


def named(job: PushJob) -> DueJob:
    return DueJob(account=job.account, job_id=job.job_id, lane=job.lane, peer=job.peer, sid=job.sid)


def changed(old: Any, new: Any, kept: frozenset[str]) -> Any:
    """An upsert that leaves some columns as they were."""
    return new if old is None else replace(new, **{name: getattr(old, name) for name in kept})


def raise_epochs(tables: Tables, host: str, at_least: int) -> int:
    of_host = [account for jid, account in tables.accounts.items() if domain(jid) == host]
    for account in of_host:
        version = max(account.version + 1, at_least)
        tables.accounts[account.jid] = replace(account, epoch=account.epoch + 1, version=version, floor=version)
    return len(of_host)


def lose(tables: Tables, lost: LostHost) -> None:
    raise_epochs(tables, lost.host, lost.version)
    if lost.keep is not None:
        for key in [key for key in tables.marks if key[0] == lost.host and key[1] != lost.keep]:
            del tables.marks[key]
        for position in [p for p in tables.positions if p.host == lost.host and p.stream != lost.keep]:
            del tables.positions[position]


def write(tables: Tables, out: Writes) -> None:
    for jid in out.deleted_accounts:
        forget_account(tables, jid)
    tables.accounts |= {account.jid: account for account in out.accounts if account.jid in tables.accounts}
    tables.conversations |= {conversation.key: conversation for conversation in out.conversations}
    for message in out.messages:
        key = message.conversation, message.rank
        tables.messages[key] = changed(tables.messages.get(key), message, KEPT_OF_A_MESSAGE)
    for change in out.changes:
        where = change.conversation.account, change.version
        if where in tables.changes:
            raise Uncommittable("change_pkey")
        tables.changes[where] = change
    for lost in out.lost_hosts:
        lose(tables, lost)
    for where, change in tables.changes.items():
        if (change.conversation, change.target_rank) in set(out.erased):
            tables.changes[where] = replace(change, stanza=None)
    for call in out.calls:
        tables.calls[call.key] = changed(tables.calls.get(call.key), call, KEPT_OF_A_CALL)
    write_devices(tables, out)
    for job in out.jobs:
        tables.jobs[job.account, job.job_id] = changed(tables.jobs.get((job.account, job.job_id)), job, KEPT_OF_A_JOB)
    tables.positions |= out.positions
    for aside in out.quarantined:
        at = aside.position
        tables.quarantine.setdefault((at.host, at.stream, at.shard, at.n), aside)


def write_devices(tables: Tables, out: Writes) -> None:
    mine = {*out.deleted_devices, *((device.account, device.device_id) for device in out.retokened)}
    tables.tokens = {token: holder for token, holder in tables.tokens.items() if holder not in mine}
    for where in out.deleted_devices:
        tables.devices.pop(where, None)
    for device in out.devices:
        tables.devices[device.account, device.device_id] = device
    for device in out.retokened:
        for token in (device.alert_token, device.voip_token):
            holder = device.account, device.device_id
            if (
                token is not None
                and tables.tokens.setdefault((device.app, device.environment, token.digest), holder) != holder
            ):
                raise TokenHeld


def forget_account(tables: Tables, jid: str) -> None:
    tables.accounts.pop(jid, None)
    tables.conversations = {k: v for k, v in tables.conversations.items() if k.account != jid}
    tables.messages = {k: v for k, v in tables.messages.items() if k[0].account != jid}
    tables.changes = {k: v for k, v in tables.changes.items() if k[0] != jid}
    tables.calls = {k: v for k, v in tables.calls.items() if k.account != jid}
    tables.devices = {k: v for k, v in tables.devices.items() if k[0] != jid}
    tables.tokens = {k: v for k, v in tables.tokens.items() if v[0] != jid}
    tables.jobs = {k: v for k, v in tables.jobs.items() if k[0] != jid}
    tables.quarantine = {k: v for k, v in tables.quarantine.items() if v.account != jid}


def refuse(tables: Tables, before: Tables) -> None:
    """Raise what the database would say of the new rows."""
    for name, checks in CHECKS.items():
        old = getattr(before, name)
        for key, row in getattr(tables, name).items():
            if old.get(key) is not row:
                for constraint, holds in checks.items():
                    if not holds(row):
                        raise Uncommittable(constraint)
    for constraint, (name, of) in UNIQUE.items():
        values = [value for row in getattr(tables, name).values() if (value := of(row)) is not None]
        if len(values) != len(set(values)):
            raise Uncommittable(constraint)
