"""Housekeeping in memory, by definition and by brute force, over the tables of `MemoryStore`."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sync.model.conversation import Base, Conversation, ConversationKey, IndexedMessage, Kind, Status
from sync.model.device import JobState
from sync.ports import Retention, Trimmed
from sync.rules.retention import next_turn
from sync.rules.times import microseconds
from tests.contract.fakes_store import MemoryStore
from tests.contract.fakes_tables import Tables, means, refuse, unread_messages

BUSY = timedelta(minutes=1)


class MemoryHousekeeping:
    """Plays `Housekeeping`. `trim_at` is open to tests; who is not in it has no turn."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.trim_at: dict[str, datetime] = {}

    async def trim(self, now: datetime, retention: Retention, limit: int) -> Trimmed:
        return self.tidy(now, retention, limit)

    def tidy(self, now: datetime, retention: Retention, limit: int) -> Trimmed:
        """`trim` for tests without a loop."""
        due = sorted((at, jid) for jid, at in self.trim_at.items() if at <= now)[:limit]
        gone: Counter[str] = Counter()
        for _, jid in due:
            draft = self.store.tables.draft()
            cutter = Cutter(draft, now, retention, gone)
            done = cutter.room(jid) if jid in draft.rooms else cutter.account(jid)
            refuse(draft, self.store.tables)
            self.store.tables = draft
            self.trim_at[jid] = next_turn(jid, now, retention.every) if done else now + BUSY
        return Trimmed(turns=len(due), rows=dict(gone))


class Cutter:
    """One turn on a draft of the tables."""

    def __init__(self, tables: Tables, now: datetime, keep: Retention, gone: Counter[str]) -> None:
        self.tables, self.now, self.keep, self.gone = tables, now, keep, gone

    def rank(self, age: timedelta) -> int:
        return microseconds(self.now - age)

    def drop(self, table: str, name: str, which: Callable[[Any], bool]) -> list[Any]:
        """The values that go."""
        rows = getattr(self.tables, table)
        doomed = {where: row for where, row in rows.items() if which(row)}
        setattr(self.tables, table, {where: row for where, row in rows.items() if where not in doomed})
        self.gone[name] += len(doomed)
        return list(doomed.values())

    # ---- accounts ----

    def account(self, jid: str) -> bool:
        horizon = self.now - self.keep.horizon
        over = self.drop(
            "calls",
            "call",
            lambda c: c.key.account == jid and not c.state.is_open and c.version <= microseconds(horizon),
        )
        self.drop("jobs", "push_job", lambda j: j.account == jid and j.state is JobState.DONE and ended(j) <= horizon)
        dead = [c for c in self.tables.conversations.values() if c.key.account == jid and self.is_dead(c)]
        for conversation in dead:
            self.drop("messages", "message", lambda m, key=conversation.key: m.conversation == key)
            self.drop("changes", "change", lambda h, key=conversation.key: h.conversation == key)
            self.drop("conversations", "conversation", lambda c, key=conversation.key: c.key == key)
        for key in [key for key in self.tables.conversations if key.account == jid]:
            self.messages(key)
            self.changes(key)
            self.settle(key)
        owner = self.tables.accounts[jid]
        floor = max([owner.floor, *(row.version for row in (*over, *dead))])
        self.tables.accounts[jid] = replace(owner, floor=floor)
        return True

    def is_dead(self, conversation: Conversation) -> bool:
        return (
            conversation.status is Status.DELETED
            and conversation.version <= self.rank(self.keep.horizon)
            and not (conversation.unread or conversation.ringing)
            and not self.has_member(conversation.key)
        )

    def has_member(self, key: ConversationKey) -> bool:
        return (key.peer, key.account) in self.tables.members

    def messages(self, key: ConversationKey) -> None:
        conversation = self.tables.conversations[key]
        last = conversation.last.rank if conversation.last else None
        doomed = {m.rank for m in self.beyond(key) if may_go(m, last)}
        unread = [m for m in unread_messages(self.tables, key) if m.rank in doomed and m.conversation == key]
        self.drop("messages", "message", lambda m: m.conversation == key and m.rank in doomed)
        self.tables.conversations[key] = moved(conversation, unread)

    def beyond(self, key: ConversationKey) -> list[IndexedMessage]:
        """What is more or older than is kept."""
        end = self.end(key)
        return [m for m in self.tables.messages.values() if m.conversation == key and m.rank <= end]

    def end(self, key: ConversationKey) -> int:
        """The rank up to which messages are more or older than is kept."""
        most = max(self.keep.messages, 1)
        stays = max(min(self.keep.messages_at_least, most), 1)
        found = sorted((m.rank for m in self.tables.messages.values() if m.conversation == key), reverse=True)
        by_age = min(found[stays], self.rank(self.keep.message_age)) if len(found) > stays else 0
        return max(by_age, found[most] if len(found) > most else 0)

    def changes(self, key: ConversationKey) -> None:
        log = sorted((h.version for h in self.tables.changes.values() if h.conversation == key), reverse=True)
        old = self.rank(self.keep.change_age)
        doomed = [version for n, version in enumerate(log) if n >= self.keep.changes or version <= old]
        self.drop("changes", "change", lambda h: h.conversation == key and h.version in doomed)
        conversation = self.tables.conversations[key]
        self.tables.conversations[key] = replace(conversation, log_from=max([conversation.log_from, *doomed]))

    def settle(self, key: ConversationKey) -> None:
        """Who left a room keeps the count, not the index."""
        found = self.tables.conversations[key]
        if found.taken > found.read.rank and found.unread > found.base.unread and not self.has_member(key):
            newest = max((m.rank for m in unread_messages(self.tables, key)), default=found.taken)
            base = Base(unread=found.unread, mentions=found.mentions, rank=max(found.base.rank, newest))
            self.tables.conversations[key] = replace(found, base=base)

    # ---- rooms ----

    def room(self, jid: str) -> bool:
        key = ConversationKey(jid, jid, Kind.GROUP)
        last = max((m.rank for m in self.tables.messages.values() if m.conversation == key and m.counted), default=None)
        end = min(self.end(key), self.tables.rooms[jid].fanned)
        doomed = {m.rank for m in self.beyond(key) if m.rank <= end and may_go(m, last)}
        counting = end if last is None else min(end, last - 1)
        if self.is_on_its_way(jid, counting) and self.anybody_behind(jid, counting):
            return False
        for member, unread in list(self.of_members(jid)):
            going = [message for message in unread if message.rank in doomed]
            self.tables.conversations[member] = moved(self.tables.conversations[member], going)
        self.drop("messages", "message", lambda m: m.conversation == key and m.rank in doomed)
        return True

    def is_on_its_way(self, jid: str, rank: int) -> bool:
        """True while members have yet to learn what happened to messages up to a rank."""
        about = [e.target_rank for e in self.tables.entries.values() if e.room == jid and e.target_rank is not None]
        return any(target <= rank for target in about)

    def anybody_behind(self, jid: str, rank: int) -> bool:
        members = [self.tables.conversations[key] for key, _ in self.of_members(jid)]
        return any(max(c.read.rank, c.base.rank) < rank and c.unread > c.base.unread for c in members)

    def of_members(self, jid: str) -> Iterable[tuple[ConversationKey, list[IndexedMessage]]]:
        for room, account in self.tables.members:
            key = ConversationKey(account, jid, Kind.GROUP)
            if room == jid and key in self.tables.conversations:
                yield key, unread_messages(self.tables, key)


def may_go(message: IndexedMessage, last: int | None) -> bool:
    """The last message stays, and what counts behind it."""
    return last is None or message.rank < last or (message.rank > last and not message.counted)


def moved(conversation: Conversation, unread: list[IndexedMessage]) -> Conversation:
    """With these messages in its base in place of the index."""
    if not unread:
        return conversation
    base = Base(
        unread=conversation.base.unread + len(unread),
        mentions=conversation.base.mentions + sum(means(message, conversation.key.account) for message in unread),
        rank=max(conversation.base.rank, *(message.rank for message in unread)),
    )
    return replace(conversation, base=base)


def ended(job: Any) -> datetime:
    return max(at for at in (job.created_at, job.not_before, job.attempted_at) if at is not None)
