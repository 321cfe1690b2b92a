"""What the store in memory holds: its tables, how rows are stored in them, and what the schema would refuse.

`CHECKS` are the named constraints of schema.sql. The recount is by brute force and by definition: it shares nothing
with the statement that it is compared with.
"""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sync.model.books import LanePosition, LostHost, Quarantined, Unlisted, Writes
from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.model.call import Call, CallKey, CallState, CallStep
from sync.model.conversation import (
    Account,
    Base,
    Behind,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
)
from sync.model.device import Device, JobState, PushJob, PushKind
from sync.model.errors import TokenHeld, Uncommittable
from sync.model.jid import domain
from sync.model.room import EntryKind, Room, RoomEntry, RoomMember
from sync.ports import StreamMark
from sync.rules.times import instant


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
    rooms: dict[str, Room] = field(default_factory=dict)
    members: dict[tuple[str, str], RoomMember] = field(default_factory=dict)
    entries: dict[tuple[str, int], RoomEntry] = field(default_factory=dict)
    marks: dict[tuple[str, str, str], StreamMark] = field(default_factory=dict)
    bootstraps: dict[str, Bootstrap] = field(default_factory=dict)

    def draft(self) -> "Tables":
        """A copy to work on; rows are immutable."""
        return Tables(**{name: copy(getattr(self, name)) for name in self.__dataclass_fields__})


def _short(*keys: str | None) -> bool:
    return all(key is None or len(key.encode()) <= 128 for key in keys)


ABOUT_A_MESSAGE = (
    EntryKind.CORRECTED,
    EntryKind.RETRACTED,
    EntryKind.MODERATED,
    EntryKind.REACTED,
    EntryKind.DISPLAYED,
)

CHECKS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "accounts": {
        "account_is_bare": lambda a: a.jid != "" and "/" not in a.jid and len(a.jid.encode()) <= 3071,
        "account_epoch_counts": lambda a: a.epoch >= 1,
        "account_version_is_time": lambda a: 0 <= a.floor <= a.version,
        "account_counts": lambda a: (
            min(a.unread, a.mentions, a.unread_conversations, a.devices) >= 0
            and max(a.mentions, a.unread_conversations) <= a.unread
        ),
    },
    "conversations": {
        "conversation_peer_is_jid": lambda c: c.key.peer != "" and len(c.key.peer.encode()) <= 3071,
        "conversation_counts": lambda c: (
            0 <= c.base.mentions <= c.mentions <= c.unread
            and c.base.mentions <= c.base.unread <= c.unread
            and min(c.ringing, c.pinned) >= 0
        ),
        "conversation_base_is_behind": lambda c: c.base.unread == 0 or c.read.rank < c.base.rank,
        "conversation_rewritten_by_version": lambda c: max(c.rewritten, c.log_from) <= c.version,
    },
    "messages": {
        "message_own_is_not_unread": lambda m: not (m.direction is Direction.OUT and m.counted),
        "message_mention_counts": lambda m: m.counted or not (m.mention or m.mentions),
        "message_keys_are_short": lambda m: _short(m.message_key, m.origin_key, m.archive_key),
    },
    "changes": {
        "change_has_text": lambda c: c.kind in (ChangeKind.CORRECTED, ChangeKind.REACTED) or c.stanza is None,
    },
    "calls": {
        "call_sid_is_short": lambda c: _short(c.key.sid),
        "call_ringing_has_propose": lambda c: c.state is not CallState.RINGING or c.stanza is not None,
        "call_kind": lambda c: c.kind in (Kind.CHAT, Kind.GROUP),
        "call_rings_after_propose": lambda c: c.rings_until >= c.proposed_at,
    },
    "rooms": {
        "room_is_bare": lambda r: r.jid != "" and "/" not in r.jid and len(r.jid.encode()) <= 3071,
        "room_fanned_what_is_there": lambda r: r.fanned <= r.version,
    },
    "members": {"room_member_keys_are_short": lambda m: _short(m.occupant_id)},
    "entries": {
        "room_entry_message_has_stanza": lambda e: e.kind is not EntryKind.MESSAGE or e.stanza is not None,
        "room_entry_call_has_step": lambda e: (
            e.kind is not EntryKind.CALL
            or (e.step and e.target_id is not None and (e.step is not CallStep.PROPOSE or e.stanza is not None))
        ),
        "room_entry_change_has_target": lambda e: (
            e.kind not in ABOUT_A_MESSAGE or (e.target_rank is not None and e.target_id is not None)
        ),
    },
    "devices": {
        "device_id_is_short": lambda d: 0 < len(d.device_id.encode()) <= 1023,
        "device_failures_have_begun": lambda d: (d.failures > 0) is (d.failing_since is not None) and d.failures >= 0,
    },
    "jobs": {
        "push_job_attempted_has_left": lambda j: j.state is not JobState.ATTEMPTED or j.attempted_at is not None,
        "push_job_done_has_outcome": lambda j: (j.state is JobState.DONE) == (j.outcome is not None),
        "push_job_voip_is_call": lambda j: (
            not j.voip or j.kind is PushKind.TEST or (j.kind is PushKind.CALL and j.sid is not None)
        ),
    },
}

UNIQUE: dict[str, tuple[str, Callable[[Any], object]]] = {
    "conversation_by_version": ("conversations", lambda c: (c.key.account, c.version)),
    "push_job_voip_once": ("jobs", lambda j: (j.account, j.device_id, j.peer, j.sid) if j.voip and j.sid else None),
    "device_by_node": ("devices", lambda d: (d.account, d.node)),
}

KEPT_OF_A_MESSAGE = frozenset(IndexedMessage.__dataclass_fields__) - {"retracted"}
KEPT_OF_A_CALL = frozenset(Call.__dataclass_fields__) - {"state", "version", "answered_by", "continues"}
KEPT_OF_A_JOB = frozenset({"device_id", "lane", "kind", "sid", "voip", "queue"})


# ---- the recount ----------------------------------------------------------------------------------------------------


def unread_messages(tables: Tables, key: ConversationKey) -> list[IndexedMessage]:
    """What is in the index and unread, by rank: behind the read pointer and the base; of a room of this server what
    others wrote, as far as it was taken.
    """
    conversation = tables.conversations.get(key)
    if conversation is None:
        return []
    room = ConversationKey(key.peer, key.peer, Kind.GROUP)
    after = max(conversation.read.rank, conversation.base.rank)
    found = [
        message
        for (where, rank), message in tables.messages.items()
        if where == key or (where == room and message.author != key.account and rank <= conversation.taken)
        if message.counted and rank > after and key.kind in (Kind.GROUP, where.kind)
        if message.retracted is None or (where == room and message.retracted > conversation.taken)
    ]
    return sorted(found, key=lambda message: message.rank)


def means(message: IndexedMessage, account: str) -> bool:
    """True when the message mentions the account."""
    return message.mention or (message.conversation.account != account and account in message.mentions)


def counted(messages: list[IndexedMessage], account: str, base: Base) -> tuple[int, int]:
    """(unread, mentions) of these messages, and of the base."""
    return base.unread + len(messages), base.mentions + sum(means(message, account) for message in messages)


def recount(tables: Tables, key: ConversationKey) -> tuple[int, int]:
    """(unread, mentions) as they have to be: base plus index."""
    conversation = tables.conversations.get(key)
    return counted(unread_messages(tables, key), key.account, conversation.base if conversation else Base())


def behind(tables: Tables, key: ConversationKey, rank: int) -> Behind:
    """What is unread behind a rank."""
    conversation, messages = tables.conversations.get(key), unread_messages(tables, key)
    if conversation is None:
        return Behind(0, 0)
    base = conversation.base if rank < conversation.base.rank else Base()
    later = [message for message in messages if message.rank > rank]
    first = min((message.rank for message in messages if message.rank <= rank), default=None)
    return Behind(*counted(later, key.account, base), first)


# ---- what the statements do ----------------------------------------------------------------------------------------


def changed(old: Any, new: Any, kept: frozenset[str]) -> Any:
    """An upsert that leaves some columns as they were."""
    return new if old is None else replace(new, **{name: getattr(old, name) for name in kept})


def write_rooms(tables: Tables, out: Writes) -> None:
    tables.rooms |= {room.jid: room for room in out.rooms if room.jid in tables.rooms}
    for gone in out.unlisted:
        end_unlisted(tables, gone)
    tables.members |= {(member.room, member.account): member for member in out.members}
    for entry in out.entries:
        if (entry.room, entry.rank) in tables.entries:
            raise Uncommittable("room_entry_pkey")
        tables.entries[entry.room, entry.rank] = entry


def end_unlisted(tables: Tables, gone: Unlisted) -> None:
    for where, member in tables.members.items():
        if member.room == gone.room and member.until is None and member.listed != gone.listing:
            tables.members[where] = replace(member, until=gone.until)


def raise_epochs(tables: Tables, host: str, at_least: int) -> int:
    members = {m.account for m in tables.members.values() if host in (m.room, domain(m.room))}
    of_host = [account for jid, account in tables.accounts.items() if domain(jid) == host or jid in members]
    for account in of_host:
        version = max(account.version + 1, at_least)
        tables.accounts[account.jid] = replace(account, epoch=account.epoch + 1, version=version, floor=version)
    read_again(tables, host, at_least)
    return len(of_host)


GRACE = timedelta(seconds=2)  # from the first contact, or from a loss, to the first look
MARGIN = 300_000_000


def waiting(account: str, since: int) -> Bootstrap:
    return Bootstrap(account=account, since=since, due_at=instant(since) + GRACE)


def read_again(tables: Tables, host: str, now: int) -> None:
    """From the last good time on, or from where it was if that is further back."""
    good = max((mark.good for (name, _, _), mark in tables.marks.items() if name == domain(host)), default=0)
    for name, row in tables.bootstraps.items():
        if domain(name) == domain(host) and "@" in name and ("@" not in host or name == host):
            start = max((good or row.since) - MARGIN, 1)
            if row.state is not BootstrapState.DONE:
                start = min(start, row.rank or row.start)
            tables.bootstraps[name] = replace(
                waiting(name, row.since),
                due_at=instant(now) + GRACE,
                start=start,
                restored=row.restored,
                turn=row.turn + 1,
            )


def write_bootstraps(tables: Tables, rows: Iterable[Bootstrap]) -> None:
    for row in rows:
        known = tables.bootstraps.get(row.account)
        if known is not None and known.turn == row.turn:
            tables.bootstraps[row.account] = replace(row, since=known.since)


def lose(tables: Tables, lost: LostHost) -> None:
    raise_epochs(tables, lost.host, lost.version)
    if lost.keep is not None:
        for key in [key for key in tables.marks if key[0] == lost.host and key[1] != lost.keep]:
            del tables.marks[key]
        for position in [p for p in tables.positions if p.host == lost.host and p.stream != lost.keep]:
            del tables.positions[position]


def once_each(out: Writes) -> None:
    """A statement that would write a row twice is refused by Postgres."""
    written = (
        [account.jid for account in out.accounts],
        [conversation.key for conversation in out.conversations],
        [(message.conversation, message.rank) for message in out.messages],
        [call.key for call in out.calls],
        [(device.account, device.device_id) for device in out.devices],
        [(job.account, job.job_id) for job in out.jobs],
    )
    if any(len(set(keys)) < len(keys) for keys in written):
        raise Uncommittable("CardinalityViolationError")


def write(tables: Tables, out: Writes) -> None:
    once_each(out)
    for jid in out.deleted_accounts:
        forget_account(tables, jid)
    tables.accounts |= {account.jid: account for account in out.accounts if account.jid in tables.accounts}
    write_rooms(tables, out)
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
    write_bootstraps(tables, out.bootstraps)
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
    tables.members = {k: v for k, v in tables.members.items() if v.account != jid}
    tables.quarantine = {k: v for k, v in tables.quarantine.items() if v.account != jid}
    tables.bootstraps.pop(jid, None)


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
