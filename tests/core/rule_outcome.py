"""The rows at the end of a vector, in a vector's words."""

import re
from typing import Any

from sync.model.call import Call
from sync.model.conversation import ENCRYPTED, Account, Conversation, Kind
from sync.model.device import JobState, PushJob
from sync.model.room import Room, RoomMember
from sync.rules.reasons import Why
from tests.contract.fakes_tables import Tables, recount
from tests.contract.samples import ANN, NOW
from tests.core.rule_feed import LONG


def rows(tables: Tables) -> dict[str, Any]:
    """All rows: `conversations`, `totals`, `changes` are Ann's, `members` what everybody has of the room tea."""
    listed = sorted(tables.conversations.values(), key=lambda c: c.key.peer)
    log = [change for _, change in sorted(tables.changes.items())]
    owner = tables.accounts.get(ANN)
    return {
        "conversations": {name(c): told(c) for c in listed if c.key.account == ANN},
        "members": {local(c.key.account): told(c) for c in listed if local(c.key.peer) == "tea"},
        "totals": [owner.unread, owner.unread_conversations, owner.devices] if owner else [],
        "mentions": owner.mentions if owner else 0,
        "wakes_open": bool(owner and owner.wakes_open),
        "changes": [[c.kind, short(c.target_id), text_of(c.stanza)] for c in log if c.conversation.account == ANN],
        "by": [[c.author or "", c.detail or ""] for c in log if c.conversation.account == ANN],
        "others": {
            local(jid): [[c.kind, c.target_id, text_of(c.stanza)] for c in log if c.conversation.account == jid]
            for jid in tables.accounts
            if jid != ANN
        },
        "calls": {call.key.sid: state_of(call) for call in tables.calls.values()},
        "hails": {f"{local(k.account)} {k.sid}": state_of(call) for k, call in tables.calls.items()},
        "jobs": sorted(line(job) for job in tables.jobs.values()),
        "lives": sorted(f"{job.kind} {job.device_id} {seconds(job.deadline)}" for job in tables.jobs.values()),
        "devices": sorted(name + (" voip" if d.voip_token else "") for (_, name), d in tables.devices.items()),
        "quarantined": [aside.why for aside in tables.quarantine.values()],
        "reset": bool(owner and owner.epoch > 1 and owner.floor == owner.version),
        "rooms": {local(room.jid): kept(room) for room in tables.rooms.values()},
        "belong": [f"{local(m.account)} {standing(m)}" for _, m in sorted(tables.members.items())],
        "entries": [f"{e.kind} {local(e.only or '')}".strip() for _, e in sorted(tables.entries.items())],
    }


def name(c: Conversation) -> str:
    """`bob`, of an encrypted chat that is kept apart `bob omemo-2`."""
    return local(c.key.peer) + (f" {c.key.kind}" if c.key.kind in ENCRYPTED else "")


def wrong(tables: Tables) -> list[str]:
    """What does not balance: a conversation with the recount of its index, an account with its conversations."""
    found = [
        f"{c.key}: {recount(tables, c.key)} is counted, not {c.unread, c.mentions}"
        for c in tables.conversations.values()
        if recount(tables, c.key) != (c.unread, c.mentions)
    ]
    return found + [f"{jid}: totals" for jid, owner in tables.accounts.items() if totals(owner) != sums(tables, jid)]


def totals(owner: Account) -> tuple[int, ...]:
    return owner.unread, owner.mentions, owner.unread_conversations


def sums(tables: Tables, jid: str) -> tuple[int, ...]:
    mine = [c for c in tables.conversations.values() if c.key.account == jid]
    return sum(c.unread for c in mine), sum(c.mentions for c in mine), sum(c.unread > 0 for c in mine)


def local(jid: str) -> str:
    """`bob`, of an occupant `tea/Bob`."""
    name, _, rest = jid.partition("@")
    _, slash, nick = rest.partition("/")
    return name + slash + nick


def short(identifier: str | None) -> str:
    return (identifier or "").replace(LONG, "~")


def text_of(xml: str | None) -> str:
    found = re.search("<body>(.*)</body>", xml or "")
    return found.group(1) if found else ""


def seconds(instant: Any) -> int:
    return round((instant - NOW).total_seconds())


def told(c: Conversation) -> dict[str, Any]:
    return {
        "unread": c.unread,
        "mentions": c.mentions,
        "marked": c.marked_unread,
        "base": c.base.unread,
        "status": c.status.value,
        "pinned": c.pinned,
        "muted": c.muted(NOW),
        "notify": c.notify.value if c.notify else "default",
        "read": short(c.read.id),
        "displayed": short(c.displayed.id),
        "delivered": short(c.delivered.id),
        "ringing": c.ringing,
        "activity": seconds(c.activity_at),
        "last": text_of(c.last.stanza) if c.last else "none",
        "tombstone": bool(c.last and c.last.retracted),
        "rewritten": c.rewritten > 0,
        "requests": c.requests_presence,
        "invited": c.invited_by or "",
        "private": c.private or False,
        "nick": c.nick or "",
        "group": c.key.kind is Kind.GROUP,
    }


def kept(room: Room) -> dict[str, Any]:
    return {
        "private": room.private,
        "destroyed": room.destroyed,
        "listing": room.listing is not None,
        "owes": room.fanned < room.version,
    }


def standing(member: RoomMember) -> str:
    """member, member+ while in the room, gone."""
    return member.affiliation.value + "+" * member.present if member.until is None else "gone"


def state_of(call: Call) -> str:
    after = f"after {call.continues}" if call.continues else None
    return " ".join(filter(None, [call.state.value, call.answered_by, after]))


def line(job: PushJob) -> str:
    """kind device outcome-or-state seconds, then what is special about it."""
    device = job.device_id if job.account == ANN else f"{local(job.account)}/{job.device_id}"
    state = job.outcome if job.state is JobState.DONE else job.state.value
    due = f"{(job.not_before - NOW).total_seconds():g}"
    flags = [name for name, on in (("voip", job.voip), ("silent", job.silent), ("joined", job.peer == "")) if on]
    again = [f"repeat={job.repeat}"] if job.repeat else []
    again += ["kept"] if job.reason == Why.QUIET else []
    return " ".join([job.kind, device, str(state), due, *filter(None, [job.collapse]), *flags, *again])


def agrees(expected: Any, found: Any) -> bool:
    """Every key that a vector names is as it says; what it does not name is its own affair."""
    if isinstance(expected, dict) and isinstance(found, dict):
        named = all(key in found and agrees(value, found[key]) for key, value in expected.items())
        return named and bool(expected) == bool(found)
    return bool(expected == found)
