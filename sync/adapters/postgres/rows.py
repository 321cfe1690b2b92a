"""Rows ⇄ values. Records stay in this adapter."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sync.adapters.postgres.quiet_rows import quiet, quiet_text
from sync.adapters.postgres.wish_rows import wishes, wishes_text
from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Account,
    Base,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
    LastMessage,
    Notify,
    Pointer,
    Status,
)
from sync.model.device import Device, Route, SealedToken
from sync.model.push import Environment
from sync.model.registry import ListedDevice
from sync.rules.times import FOR_EVER, instant, microseconds

Row = Any  # asyncpg.Record has no types
Columns = Sequence[Sequence[object]]


def columns(rows: Iterable[Sequence[object]], width: int) -> Columns:
    """Rows as parallel arrays, one for each column."""
    return list(zip(*rows, strict=True)) or [()] * width


def joined(words: Iterable[str]) -> str:
    """Words without spaces as one text: arrays of arrays do not unnest by row."""
    return " ".join(words)


def key(row: Row) -> ConversationKey:
    """The key of the conversation that a row belongs to."""
    return ConversationKey(row["account"], row["peer"], Kind(row["kind"]))


def end(value: datetime | None) -> datetime | None:
    """An instant; asyncpg gives 'infinity' as the far end of time without a time zone."""
    return FOR_EVER if value is not None and value.tzinfo is None else value


def account(row: Row) -> Account:
    """A row of account."""
    return Account(
        jid=row["jid"],
        version=row["version"],
        floor=row["floor"],
        epoch=row["epoch"],
        unread=row["unread"],
        mentions=row["mentions"],
        unread_conversations=row["unread_conversations"],
        devices=row["devices"],
        wakes_open=row["wakes_open"],
        quiet=quiet(row["quiet"]),
    )


def account_row(value: Account) -> tuple[object, ...]:
    """In the order of write_accounts."""
    return (
        value.jid,
        value.epoch,
        value.version,
        value.floor,
        value.unread,
        value.mentions,
        value.unread_conversations,
        value.devices,
        value.wakes_open,
        quiet_text(value.quiet),
    )


def conversation(row: Row) -> Conversation:
    """A row of conversation."""
    last = None
    if row["last_rank"] is not None:
        last = LastMessage(
            rank=row["last_rank"],
            stanza=row["last_stanza"],
            message_id=row["last_message_id"],
            archive_id=row["last_archive_id"],
            sent_at=row["last_sent_at"],
            retracted=row["last_retracted"],
        )
    return Conversation(
        key=key(row),
        version=row["version"],
        activity_at=instant(row["activity"]),
        status=Status(row["status"]),
        pinned=row["pinned"],
        muted_until=end(row["muted_until"]),
        notify=Notify(row["notify"]) if row["notify"] is not None else None,
        read=Pointer(row["read_rank"], row["read_id"]),
        displayed=Pointer(row["displayed_rank"], row["displayed_id"]),
        delivered=Pointer(row["delivered_rank"], row["delivered_id"]),
        unread=row["unread"],
        mentions=row["mentions"],
        base=Base(unread=row["base_unread"], mentions=row["base_mentions"], rank=row["base_rank"]),
        marked_unread=row["marked_unread"],
        ringing=row["ringing"],
        rewritten=row["rewritten"],
        log_from=row["log_from"],
        written=row["written"],
        requests_presence=row["requests_presence"],
        request_told_at=row["request_told_at"],
        invited_by=row["invited_by"],
        private=row["private"],
        nick=row["nick"],
        taken=row["taken"],
        last=last,
    )


def conversation_row(value: Conversation) -> tuple[object, ...]:
    """In the order of write_conversations."""
    last = value.last
    return (
        value.key.account,
        value.key.peer,
        value.key.kind,
        value.version,
        microseconds(value.activity_at),
        value.status,
        value.pinned,
        value.muted_until,
        value.notify,
        value.read.rank,
        value.read.id,
        value.displayed.rank,
        value.displayed.id,
        value.delivered.rank,
        value.delivered.id,
        value.unread,
        value.mentions,
        value.base.unread,
        value.base.mentions,
        value.base.rank,
        value.marked_unread,
        value.ringing,
        value.rewritten,
        value.log_from,
        value.written,
        value.requests_presence,
        value.request_told_at,
        value.invited_by,
        value.private,
        value.nick,
        value.taken,
        last.rank if last else None,
        last.stanza if last else None,
        last.message_id if last else None,
        last.archive_id if last else None,
        last.sent_at if last else None,
        bool(last and last.retracted),
    )


def message(row: Row) -> IndexedMessage:
    """A row of message."""
    return IndexedMessage(
        conversation=key(row),
        rank=row["rank"],
        direction=Direction.OUT if row["outgoing"] else Direction.IN,
        sent_at=row["sent_at"],
        counted=row["counted"],
        mention=row["mention"],
        message_key=row["message_key"],
        origin_key=row["origin_key"],
        archive_key=row["archive_key"],
        archive_id=row["archive_id"] or row["archive_key"],
        retracted=row["retracted"],
        about=row["about"],
        author=row["author"],
        mentions=tuple(row["mentions"]),
    )


def message_row(value: IndexedMessage) -> tuple[object, ...]:
    """In the order of write_messages."""
    return (
        value.conversation.account,
        value.conversation.peer,
        value.conversation.kind,
        value.rank,
        value.direction is Direction.OUT,
        value.counted,
        value.mention,
        value.retracted,
        value.sent_at,
        value.message_key,
        value.origin_key,
        value.archive_key,
        value.archive_id if value.archive_id != value.archive_key else None,
        value.about,
        value.author,
        joined(value.mentions),
    )


def change(row: Row) -> Change:
    """A row of change."""
    return Change(
        conversation=key(row),
        version=row["version"],
        kind=ChangeKind(row["what"]),
        target_rank=row["target_rank"],
        target_id=row["target_id"],
        author=row["author"],
        detail=row["detail"],
        stanza=row["stanza"],
    )


def change_row(value: Change) -> tuple[object, ...]:
    """In the order of write_changes."""
    where = value.conversation
    return (
        where.account,
        value.version,
        where.peer,
        where.kind,
        value.kind,
        value.target_rank,
        value.target_id,
        value.author,
        value.detail,
        value.stanza,
    )


def call(row: Row) -> Call:
    """A row of call."""
    return Call(
        key=CallKey(row["account"], row["peer"], row["sid"]),
        session_id=row["session_id"],
        state=CallState(row["state"]),
        version=row["version"],
        proposed_at=row["proposed_at"],
        rings_until=row["rings_until"],
        caller=row["caller"],
        media=tuple(row["media"]),
        answered_by=row["answered_by"],
        continues=row["continues"],
        archive_id=row["archive_id"],
        stanza=row["stanza"],
        kind=Kind(row["kind"]),
    )


def call_row(value: Call) -> tuple[object, ...]:
    """In the order of write_calls."""
    return (
        value.key.account,
        value.key.peer,
        value.key.sid,
        value.session_id,
        value.state,
        value.version,
        value.proposed_at,
        value.rings_until,
        value.caller,
        joined(value.media),
        value.answered_by,
        value.continues,
        value.archive_id,
        value.stanza,
        value.kind,
    )


def device(row: Row) -> Device:
    """A row of device; its tokens stay sealed."""
    voip = SealedToken(row["voip_digest"], row["voip_token"]) if row["voip_token"] is not None else None
    return Device(
        account=row["account"],
        device_id=row["device_id"],
        app=row["app"],
        environment=Environment(row["environment"]),
        alert_token=SealedToken(row["alert_digest"], row["alert_token"]),
        voip_token=voip,
        node=row["node"],
        secret_digest=row["secret_digest"],
        name=row["name"],
        enabled=row["enabled"],
        bound_to=row["bound_to"],
        registered_at=row["registered_at"],
        woken_version=row["woken_version"],
        woken_at=row["woken_at"],
        fetched_version=row["fetched_version"],
        fetched_at=row["fetched_at"],
        wishes=wishes(row["wishes"], row["push_key"]),
        route=Route(row["route"]),
        failures=row["failures"],
        failing_since=row["failing_since"],
        woken_until=row["woken_until"],
        chased=row["chased"],
    )


def listed_device(row: Row) -> ListedDevice:
    """A row of devices_with_ledger."""
    return ListedDevice(
        device=device(row), succeeded_at=row["succeeded_at"], failed_at=row["failed_at"], reason=row["failure"]
    )


def device_row(value: Device) -> tuple[object, ...]:
    """In the order of write_devices."""
    voip = value.voip_token
    return (
        value.account,
        value.device_id,
        value.app,
        value.environment,
        value.alert_token.sealed,
        value.alert_token.digest,
        voip.sealed if voip else None,
        voip.digest if voip else None,
        value.node,
        value.secret_digest,
        value.name,
        value.enabled,
        value.bound_to,
        value.registered_at,
        value.woken_version,
        value.woken_at,
        value.fetched_version,
        value.fetched_at,
        wishes_text(value.wishes),
        value.wishes.encrypt.sealed_key if value.wishes.encrypt else None,
        value.route,
        value.failures,
        value.failing_since,
        value.woken_until,
        value.chased,
    )
