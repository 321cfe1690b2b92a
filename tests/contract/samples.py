"""Rows for tests, valid as they are; a test names only what it is about."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sync.model.books import Books, Keys, Rule, Ruling, Writes
from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Account,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
    LastMessage,
)
from sync.model.device import Device, Lane, PushJob, PushKind, SealedToken
from sync.model.push import Environment
from sync.model.room import Affiliation, EntryKind, Room, RoomEntry, RoomMember
from sync.model.wishes import Allow, Encrypt, RoomWish, Wishes

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANN, EVE = "ann@example.org", "eve@example.org"
BOB, CAT, DAN = "bob@example.net", "cat@example.net", "dan@example.net"
WITH_BOB = ConversationKey(ANN, BOB)
TEA = "tea@rooms.example.org"  # a room of this server
IN_TEA = ConversationKey(ANN, TEA, Kind.GROUP)
OF_TEA = ConversationKey(TEA, TEA, Kind.GROUP)  # the index that its members share
STANZA = '<message xmlns="jabber:client"/>'


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def account(jid: str = ANN, **fields: Any) -> Account:
    return Account(**{"jid": jid, "version": 1000, "floor": 0} | fields)


def conversation(version: int = 1, peer: str = BOB, owner: str = ANN, **fields: Any) -> Conversation:
    key = ConversationKey(owner, peer)
    return Conversation(**{"key": key, "version": version, "activity_at": NOW} | fields)


def membership(version: int = 1, owner: str = ANN, **fields: Any) -> Conversation:
    """A conversation with the room."""
    return replace(conversation(version, TEA, owner, **fields), key=ConversationKey(owner, TEA, Kind.GROUP))


def message(rank: int = 1, key: ConversationKey = WITH_BOB, **fields: Any) -> IndexedMessage:
    values = {"direction": Direction.IN, "sent_at": NOW, "counted": True} | fields
    return IndexedMessage(conversation=key, rank=rank, **values)


def last(rank: int = 1, **fields: Any) -> LastMessage:
    values = {"stanza": STANZA, "message_id": "m", "archive_id": "a", "sent_at": NOW} | fields
    return LastMessage(rank=rank, **values)


def change(version: int, rank: int = 1, key: ConversationKey = WITH_BOB, **fields: Any) -> Change:
    values = {"kind": ChangeKind.CORRECTED, "target_id": "a", "stanza": STANZA} | fields
    return Change(conversation=key, version=version, target_rank=rank, **values)


def call(sid: str = "s1", peer: str = BOB, owner: str = ANN, **fields: Any) -> Call:
    values = {"state": CallState.RINGING, "version": 1, "proposed_at": NOW, "rings_until": after(60)}
    values |= {"caller": f"{peer}/phone", "stanza": STANZA, "media": ("audio",)}
    return Call(key=CallKey(owner, peer, sid), session_id=sid, **(values | fields))


def room(jid: str = TEA, **fields: Any) -> Room:
    return Room(jid=jid, **fields)


def member(owner: str = ANN, where: str = TEA, **fields: Any) -> RoomMember:
    values = {"affiliation": Affiliation.MEMBER, "present": False, "since": 0} | fields
    return RoomMember(room=where, account=owner, **values)


def entry(rank: int = 1, where: str = TEA, **fields: Any) -> RoomEntry:
    values = {"kind": EntryKind.MESSAGE, "at": NOW, "stanza": STANZA} | fields
    return RoomEntry(room=where, rank=rank, **values)


def token(name: str) -> SealedToken:
    return SealedToken(sha256(name.encode()).digest(), f"sealed {name}".encode())


SEALED_KEY = b"a sealed key"
WISHES = Wishes(
    muted=frozenset({BOB, CAT}),
    ignore_unknown=True,
    rooms=(RoomWish("tea@rooms.example.org", Allow.MENTIONED, "Ann"), RoomWish("pub@rooms.example.org", Allow.NEVER)),
    away=True,
    priority=True,
    jingle=True,
    encrypt=Encrypt(3000, SEALED_KEY),
)


def device(device_id: str = "phone", owner: str = ANN, **fields: Any) -> Device:
    values = {"app": "chat", "environment": Environment.SANDBOX, "alert_token": token(f"{owner} {device_id}")}
    values |= {"node": f"node of {device_id}", "secret_digest": b"secret", "enabled": True, "registered_at": NOW}
    return Device(account=owner, device_id=device_id, **(values | fields))


def job(name: str = "j1", owner: str = ANN, **fields: Any) -> PushJob:
    values = {"device_id": "phone", "lane": Lane.MESSAGES, "kind": PushKind.MESSAGE, "version": 5, "peer": BOB}
    values |= {"created_at": NOW, "not_before": NOW, "deadline": after(3600)}
    return PushJob(account=owner, job_id=job_id(name), **(values | fields))


def call_job(name: str = "j1", **fields: Any) -> PushJob:
    values = {"lane": Lane.CALLS, "kind": PushKind.CALL, "sid": "s1", "voip": True, "deadline": after(60)}
    return job(name, **(values | fields))


def job_id(name: str) -> str:
    return str(UUID(bytes=sha256(name.encode()).digest()[:16], version=4))


def storing(**rows: Any) -> Rule[None]:
    """A rule that stores these rows, whatever the books say."""
    return lambda _: Ruling(writes=Writes(**rows), value=None)


def seeing(what: Callable[[Books], Any] = lambda books: books) -> Rule[Any]:
    """A rule that changes nothing and tells what it saw."""
    return lambda books: Ruling(writes=Writes(), value=what(books))


def owned(*accounts: str, create: bool = True, **keys: Any) -> Keys:
    """Keys that lock these accounts (Ann's), with what else is asked for."""
    return Keys(accounts=frozenset(accounts or (ANN,)), create=create, **{k: frozenset(v) for k, v in keys.items()})
