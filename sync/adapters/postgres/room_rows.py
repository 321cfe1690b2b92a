"""Rows ⇄ values of rooms, their members and entries."""

from sync.adapters.postgres.rows import Row, joined
from sync.model.call import CallStep
from sync.model.room import Affiliation, EntryKind, Room, RoomEntry, RoomMember, nick_key


def room(row: Row) -> Room:
    """A row of room."""
    return Room(
        jid=row["jid"],
        version=row["version"],
        fanned=row["fanned"],
        private=row["private"],
        destroyed=row["destroyed"],
        listing=row["listing"],
        called_at=row["called_at"],
    )


def room_row(value: Room) -> tuple[object, ...]:
    """In the order of write_rooms."""
    return value.jid, value.version, value.fanned, value.private, value.destroyed, value.listing, value.called_at


def member(row: Row) -> RoomMember:
    """A row of room_member."""
    return RoomMember(
        room=row["room"],
        account=row["account"],
        affiliation=Affiliation(row["affiliation"]),
        present=row["present"],
        since=row["since"],
        until=row["until"],
        nick=row["nick"],
        occupant_id=row["occupant_id"],
        listed=row["listed"],
    )


def member_row(value: RoomMember) -> tuple[object, ...]:
    """In the order of write_members."""
    return (
        value.room,
        value.account,
        value.affiliation,
        value.present,
        value.since,
        value.until,
        value.nick,
        nick_key(value.nick) if value.nick is not None else None,
        value.occupant_id,
        value.listed,
    )


def entry(row: Row) -> RoomEntry:
    """A row of room_entry."""
    values = dict(row)
    values |= {
        "kind": EntryKind(row["kind"]),
        "mentions": tuple(row["mentions"]),
        "target_mentions": tuple(row["target_mentions"]),
        "step": CallStep(row["step"]) if row["step"] is not None else None,
        "media": tuple(row["media"]),
    }
    return RoomEntry(**values)


def entry_row(value: RoomEntry) -> tuple[object, ...]:
    """In the order of write_entries."""
    return (
        value.room,
        value.rank,
        value.kind,
        value.at,
        value.only,
        value.author,
        value.sender,
        value.message_id,
        value.archive_id,
        joined(value.mentions),
        value.everybody,
        value.private,
        value.target_rank,
        value.target_id,
        value.target_counted,
        value.target_author,
        joined(value.target_mentions),
        value.target_everybody,
        value.stanza,
        value.past,
        value.counted,
        value.step,
        joined(value.media),
    )
