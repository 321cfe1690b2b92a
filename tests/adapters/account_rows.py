"""An account with something in every table, for tests of what an operator does with one."""

from typing import Any

import asyncpg

from sync.adapters.postgres.migrate import VERSION
from sync.model.books import LanePosition, Quarantined
from sync.model.call import CallState
from sync.model.conversation import ConversationKey
from sync.model.device import JobState
from sync.model.event import FeedPosition
from sync.model.jid import lane
from sync.model.room import EntryKind
from sync.ports import Watcher
from sync.rules.times import FOR_EVER
from tests.contract.samples import (
    BOB,
    CAT,
    NOW,
    OF_TEA,
    TEA,
    WISHES,
    account,
    call,
    call_job,
    change,
    conversation,
    device,
    entry,
    job,
    last,
    member,
    membership,
    message,
    owned,
    room,
    storing,
    token,
)
from tests.contract.stores import Bench

TEXT = "<message xmlns='jabber:client'><body>the secret of {}</body></message>"
EVIL_NAME = "Phone\x1b[2J"


async def fill(bench: Bench, owner: str, n: int) -> None:
    """Everything that may be held on `owner`, and its counters right; `n` tells owners apart."""
    said = [message(1, OF_TEA, author=BOB), message(2, OF_TEA, author=BOB, mention=True)]
    await bench.store.transact(owned(rooms={TEA}), storing(rooms=[room(version=500)], messages=said))
    await bench.store.transact(owned(owner, rooms={TEA}), storing(**rows_of(owner, n)))
    await bench.watches.put(Watcher(owner, "web", 12, 11))


def rows_of(owner: str, n: int) -> dict[str, Any]:
    with_bob = ConversationKey(owner, BOB)
    text = TEXT.format(owner)
    phone = device(
        owner=owner,
        node=f"node {n}",
        voip_token=token(f"{owner} voip"),
        name=EVIL_NAME,
        woken_at=NOW,
        bound_to="phone",
        wishes=WISHES,
    )
    where = FeedPosition(host="example.org", stream=f"s{n}", shard="main", n=7)
    ids = {"message_id": f"m{n}", "archive_id": f"a{n}"}
    return {
        "accounts": [account(owner, unread=4, mentions=2, unread_conversations=2, devices=1)],
        "conversations": [
            conversation(
                10,
                owner=owner,
                unread=2,
                mentions=1,
                ringing=1,
                pinned=3,
                muted_until=FOR_EVER,
                last=last(2, stanza=text, **ids),
            ),
            conversation(11, CAT, owner),
            membership(12, owner, unread=2, mentions=1, taken=3),
        ],
        "messages": [
            message(1, with_bob, archive_key=f"{n}1"),
            message(2, with_bob, archive_key=f"{n}2", mention=True),
            message(3, with_bob, archive_key=f"{n}3", retracted=True),
            message(n * 100, OF_TEA, archive_key=f"r{n}", author=owner),
        ],
        "changes": [change(13, key=with_bob, stanza=text)],
        "calls": [
            call(owner=owner, stanza=text),
            call("s2", owner=owner, state=CallState.MISSED, stanza=None),
        ],
        "devices": [phone],
        "retokened": [phone],
        "jobs": [
            job(f"{owner} 1", owner),
            call_job(f"{owner} 2", owner=owner, state=JobState.DONE, outcome="accepted", attempted_at=NOW),
        ],
        "members": [member(owner, nick=f"nick of {owner}", since=1)],
        "entries": [entry(n * 100, author=owner, stanza=text), entry(n * 100 + 1, kind=EntryKind.JOINED, only=owner)],
        "positions": {LanePosition.of(where, lane(owner)): 7},
        "quarantined": [Quarantined(position=where, account=owner, why="malformed", event=text)],
    }


async def installed(dsn: str) -> str:
    """The database, as `convsync schema` leaves it."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", VERSION)
    await connection.close()
    return dsn
