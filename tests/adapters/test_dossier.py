"""One account on a real database: what is shown, counted anew, exported, deleted; and that others stay as they are."""

import asyncio
import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres import migrate
from sync.adapters.postgres.dossier import FORMAT, LIMITS, Absence, Dossier, NoSuchAccount, opened
from sync.model.conversation import Base, Conversation, ConversationKey, Direction, IndexedMessage, Kind, Pointer
from sync.model.room import EntryKind
from tests.adapters.account_rows import fill, installed
from tests.contract.samples import (
    ANN,
    BOB,
    EVE,
    NOW,
    OF_TEA,
    SEALED_KEY,
    TEA,
    account,
    conversation,
    device,
    entry,
    membership,
    message,
    owned,
    storing,
    token,
)
from tests.contract.stores import Bench, on_postgres

ACCOUNT_TABLES = (
    "SELECT table_name FROM information_schema.columns WHERE column_name = 'account' AND table_schema = 'public'"
)


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database: str) -> AsyncIterator[Bench]:
    """Ann and Eve, with something in every table."""
    await installed(database)
    async with on_postgres(database) as bench:
        await fill(bench, ANN, 1)
        await fill(bench, EVE, 2)
        yield bench


@pytest_asyncio.fixture(loop_scope="session")
async def dossier(bench: Bench, database: str) -> AsyncIterator[Dossier]:
    async with opened(database, connect_seconds=5) as dossier:
        yield dossier


@pytest_asyncio.fixture(loop_scope="session")
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def held(admin: asyncpg.Connection, jid: str) -> dict[str, list[str]]:
    """Every row of every table that names the account as its own, as text."""
    tables = [name for (name,) in await admin.fetch(ACCOUNT_TABLES)]
    found = {
        name: [row for (row,) in await admin.fetch(f"SELECT t::text FROM {name} t WHERE account = $1 ORDER BY 1", jid)]  # noqa: S608
        for name in tables
    }
    found["account"] = [row for (row,) in await admin.fetch("SELECT t::text FROM account t WHERE jid = $1", jid)]
    return found


# ---- show -----------------------------------------------------------------------------------------------------------


async def test_an_account_is_shown_with_everything_but_texts_and_tokens(dossier: Dossier) -> None:
    sight = await dossier.show(ANN)
    assert sight.account is not None
    assert sight.account["unread"] == 4
    totals = {name: listed.total for name, listed in sight.lists.items()}
    assert totals == {"conversations": 3, "calls": 2, "devices": 1, "jobs": 1, "ledger": 1, "rooms": 1} | {
        "positions": 1,
        "quarantine": 1,
    }
    said = repr(sight)
    assert "the secret of" not in said
    assert "sealed" not in said
    assert EVE not in said


async def test_a_list_is_bounded_and_says_how_long_it_is(bench: Bench, dossier: Dossier) -> None:
    many = [conversation(100 + n, f"p{n:03}@example.net") for n in range(60)]
    await bench.put(ANN, conversations=many)
    some, everything = await dossier.show(ANN), await dossier.show(ANN, everything=True)
    assert (len(some.lists["conversations"].rows), some.lists["conversations"].total) == (LIMITS["conversations"], 63)
    assert len(everything.lists["conversations"].rows) == 63


@pytest.mark.parametrize("ask", ["show", "delete", "exists"])
async def test_who_is_not_held_is_unknown(dossier: Dossier, ask: str) -> None:
    with pytest.raises(NoSuchAccount) as unknown:
        await getattr(dossier, ask)("nobody@example.org")
    assert unknown.value.why is Absence.UNKNOWN


@pytest.mark.parametrize("ask", ["show", "delete", "exists"])
async def test_a_room_is_no_account(dossier: Dossier, admin: asyncpg.Connection, ask: str) -> None:
    with pytest.raises(NoSuchAccount) as refused:
        await getattr(dossier, ask)(TEA)
    assert refused.value.why is Absence.ROOM
    assert (await held(admin, TEA))["message"]


async def test_what_is_held_without_an_account_is_shown_and_deleted(
    dossier: Dossier, admin: asyncpg.Connection
) -> None:
    await admin.execute("DELETE FROM account WHERE jid = $1", ANN)
    assert (await dossier.show(ANN)).account is None
    with pytest.raises(NoSuchAccount) as refused:
        await dossier.repair(ANN, NOW)
    assert refused.value.why is Absence.ROWLESS
    await dossier.delete(ANN)
    assert not any((await held(admin, ANN)).values())


async def test_a_database_without_our_schema_is_refused(empty_database: str) -> None:
    with pytest.raises(migrate.SchemaError, match="not installed"):
        async with opened(empty_database, connect_seconds=5):
            pass


# ---- repair ---------------------------------------------------------------------------------------------------------


async def test_what_is_right_is_left_alone(dossier: Dossier, admin: asyncpg.Connection) -> None:
    before = await held(admin, ANN)
    assert (await dossier.repair(ANN, NOW)).differences == ()
    assert await held(admin, ANN) == before


DAMAGE = {
    "UPDATE conversation SET unread = 9 WHERE account = $1 AND peer = 'bob@example.net'": {("unread", 9, 2)},
    "UPDATE conversation SET mentions = 0 WHERE account = $1 AND peer = 'bob@example.net'": {("mentions", 0, 1)},
    "UPDATE conversation SET unread = 5, mentions = 4 WHERE account = $1 AND kind = 'group'": {
        ("unread", 5, 2),
        ("mentions", 4, 1),
    },
    "UPDATE conversation SET ringing = 3 WHERE account = $1 AND peer = 'bob@example.net'": {("ringing", 3, 1)},
    "UPDATE account SET unread = 90, mentions = 80, unread_conversations = 7, devices = 5 WHERE jid = $1": {
        ("unread", 90, 4),
        ("mentions", 80, 2),
        ("unread conversations", 7, 2),
        ("devices", 5, 1),
    },
    "UPDATE account SET version = 5 WHERE jid = $1": {("version", 5, 12)},
    "DELETE FROM device WHERE account = $1": {("devices", 1, 0)},
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_mended_and_given_a_version(
    dossier: Dossier, admin: asyncpg.Connection, damage: str
) -> None:
    await admin.execute(damage, ANN)
    others = await held(admin, EVE)
    dry = await dossier.repair(ANN, NOW, dry=True)
    done = await dossier.repair(ANN, NOW)
    assert dry == done
    assert {(one.what, one.before, one.after) for one in done.differences} == DAMAGE[damage]
    assert (await dossier.repair(ANN, NOW)).differences == ()
    stored = await admin.fetchval("SELECT version FROM account WHERE jid = $1", ANN)
    assert stored == done.account.version > 1000
    assert await held(admin, EVE) == others


async def test_a_retraction_on_its_way_to_a_member_is_no_damage(bench: Bench, dossier: Dossier) -> None:
    gone = message(1, OF_TEA, author=BOB, retracted=150)
    told = entry(150, kind=EntryKind.RETRACTED, target_rank=1, target_id="a", target_counted=True)
    await bench.store.transact(owned(rooms={TEA}), storing(messages=[gone], entries=[told]))
    assert (await dossier.repair(ANN, NOW)).differences == ()
    taken = membership(900, unread=1, mentions=1, taken=150)
    await bench.put(
        ANN, conversations=[taken], accounts=[account(unread=3, mentions=2, unread_conversations=2, devices=1)]
    )
    assert (await dossier.repair(ANN, NOW)).differences == ()


async def test_a_repair_waits_for_the_account_and_sees_what_came_meanwhile(
    dossier: Dossier, admin: asyncpg.Connection
) -> None:
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("UPDATE account SET unread = 50 WHERE jid = $1", ANN)
    repair = asyncio.create_task(dossier.repair(ANN, NOW))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while not await admin.fetchval(waiting):  # noqa: ASYNC110 - nobody is told of a lock's queue
        await asyncio.sleep(0.01)
    assert not repair.done()
    await transaction.commit()
    assert [(one.before, one.after) for one in (await repair).differences] == [(50, 4)]


def randomly(seed: int) -> dict[str, Any]:
    """Conversations with counters that are made up, and a part of the index behind them."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    conversations: list[Conversation] = []
    messages: list[IndexedMessage] = []
    for n in range(12):
        key = ConversationKey(ANN, f"p{n}@example.net", dice.choice(list(Kind)))
        read, end = dice.randrange(5), dice.randrange(5, 12)
        base = dice.choice([Base(), Base(unread=dice.randrange(3), rank=read + 1 + dice.randrange(4))])
        unread = base.unread + dice.randrange(4)
        counters = {"unread": unread, "mentions": dice.randrange(unread + 1), "ringing": dice.randrange(2)}
        fields: dict[str, Any] = {"read": Pointer(read), "base": base, "taken": dice.choice([0, end, end])}
        conversations.append(Conversation(key=key, version=2000 + n, activity_at=NOW, **counters, **fields))
        index = (key, ConversationKey(key.peer, key.peer, Kind.GROUP))
        for where, rank in [(where, rank) for where in index for rank in range(1, 12)]:
            direction = Direction.IN if dice.random() < 0.8 else Direction.OUT
            counted = direction is Direction.IN and dice.random() < 0.7
            mentions = (ANN, EVE) if counted and dice.random() < 0.3 else ()
            traits: dict[str, Any] = {
                "direction": direction,
                "counted": counted,
                "retracted": 1 if dice.random() < 0.2 else None,
            }
            traits |= {"mention": counted and dice.random() < 0.3, "author": dice.choice([None, ANN, BOB, BOB])}
            messages.append(message(rank, where, mentions=mentions, **traits))
    return {"conversations": conversations, "messages": messages}


def oracle(one: Conversation, messages: list[IndexedMessage]) -> tuple[int, int]:
    """What the conversation's counters must be, by the words of the paper."""
    start = max(one.read.rank, one.base.rank)
    shared = ConversationKey(one.key.peer, one.key.peer, Kind.GROUP)
    counted = [m for m in messages if m.counted and not m.retracted and m.rank > start]
    own = [m for m in counted if m.conversation == one.key]
    common = [m for m in counted if m.conversation == shared and m.rank <= one.taken and m.author != one.key.account]
    common = common if one.key.kind is Kind.GROUP else []
    mentions = sum(m.mention for m in own) + sum(m.mention or one.key.account in m.mentions for m in common)
    return one.base.unread + len(own) + len(common), one.base.mentions + mentions


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_the_counters_were_they_are_the_recount_afterwards(
    bench: Bench, dossier: Dossier, admin: asyncpg.Connection, seed: int
) -> None:
    rows = randomly(seed)
    await bench.put(ANN, **rows)
    done = await dossier.repair(ANN, NOW)
    assert done.differences
    assert (await dossier.repair(ANN, NOW)).differences == ()
    stored = {
        (row["peer"], row["kind"]): (row["unread"], row["mentions"])
        for row in await admin.fetch("SELECT * FROM conversation WHERE account = $1", ANN)
    }
    for one in rows["conversations"]:
        assert stored[one.key.peer, one.key.kind] == oracle(one, rows["messages"])
    totals = await admin.fetchrow("SELECT * FROM account WHERE jid = $1", ANN)
    assert totals["unread"] == sum(unread for unread, _ in stored.values())
    assert totals["mentions"] == sum(mentions for _, mentions in stored.values())
    assert totals["version"] == max(one.version for one in done.conversations)


# ---- export ---------------------------------------------------------------------------------------------------------

TABLES = {  # section → table
    "conversations": "conversation",
    "messages": "message",
    "changes": "change",
    "calls": "call",
    "devices": "device",
    "device_tokens": "device_token",
    "pushes": "push_job",
    "bootstraps": "bootstrap",
    "watchers": "watcher",
    "room_memberships": "room_member",
    "quarantine": "quarantine",
}


async def exported(dossier: Dossier, jid: str = ANN) -> str:
    async with aclosing(dossier.export(jid, NOW)) as pieces:
        return "".join([piece async for piece in pieces])


async def test_an_export_has_every_row_of_the_account_and_of_nobody_else(
    dossier: Dossier, admin: asyncpg.Connection
) -> None:
    text = await exported(dossier)
    document = json.loads(text)
    assert (document["format"], document["account"]["jid"]) == (FORMAT, ANN)
    for table, rows in (await held(admin, ANN)).items():
        section = next((name for name, source in TABLES.items() if source == table), None)
        assert section is not None or table == "account"
        if section is not None:
            assert len(document[section]) == len(rows) > 0
            assert {row["account"] for row in document[section]} == {ANN}
    assert [row["author"] for row in document["room_messages"]] == [ANN]
    assert [(row["author"], row["only"]) for row in document["room_entries"]] == [(ANN, None), (None, ANN)]
    assert EVE not in text
    assert text.count("the secret of") == 5  # the last message, the change, the call, the room's entry, the quarantine


async def test_an_export_has_every_column(dossier: Dossier, admin: asyncpg.Connection) -> None:
    document = json.loads(await exported(dossier))
    for section, table in (TABLES | {"room_messages": "message", "room_entries": "room_entry"}).items():
        named = await admin.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = $1", table)
        assert set(document[section][0]) == {name for (name,) in named}


async def test_no_secret_leaves(dossier: Dossier) -> None:
    text = await exported(dossier)
    phone = json.loads(text)["devices"][0]
    assert (phone["alert_token"], phone["voip_token"], phone["secret_digest"]) == ("sealed", "sealed", "withheld")
    assert phone["push_key"] == "sealed"
    assert SEALED_KEY.hex() not in text
    for secret in (token(f"{ANN} phone"), token(f"{ANN} voip")):
        for part in (secret.sealed, secret.digest, b"secret"):
            assert part.hex() not in text
    assert "\\\\x" not in text  # how bytes look in JSON


async def test_an_export_is_one_snapshot(bench: Bench, dossier: Dossier) -> None:
    async with aclosing(dossier.export(ANN, NOW)) as pieces:
        begun = [await anext(pieces)]
        await bench.put(ANN, devices=[device("another")])
        text = "".join([*begun, *[piece async for piece in pieces]])
    assert [row["device_id"] for row in json.loads(text)["devices"]] == ["phone"]


async def test_an_empty_section_is_an_empty_list(dossier: Dossier, admin: asyncpg.Connection) -> None:
    await admin.execute("DELETE FROM change WHERE account = $1", ANN)
    assert json.loads(await exported(dossier))["changes"] == []


async def test_an_export_takes_no_memory_worth_mentioning(dossier: Dossier, admin: asyncpg.Connection) -> None:
    await admin.execute(
        "INSERT INTO change (account, version, peer, kind, what, target_rank, target_id, stanza) "
        "SELECT $1, 5000 + n, 'p', 'chat', 'corrected', 1, 'm', repeat('x', 20000) FROM generate_series(1, 1500) n",
        ANN,
    )
    tracemalloc.start()
    size = 0
    async with aclosing(dossier.export(ANN, NOW)) as pieces:
        async for piece in pieces:
            size += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 30_000_000
    assert peak < 6_000_000


async def test_an_export_needs_no_prepared_statements(bench: Bench, database: str) -> None:
    async with opened(database, connect_seconds=5, prepared=False) as plain:
        assert json.loads(await exported(plain))["account"]["jid"] == ANN


async def test_an_export_that_is_left_early_leaves_the_connection_usable(dossier: Dossier) -> None:
    async with aclosing(dossier.export(ANN, NOW)) as pieces:
        await anext(pieces)
    assert (await dossier.show(ANN)).account is not None


# ---- delete ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_left_of_a_deleted_account_and_nothing_is_missing_of_others(
    dossier: Dossier, admin: asyncpg.Connection
) -> None:
    before, others, rooms = await held(admin, ANN), await held(admin, EVE), await held(admin, TEA)
    assert all(before.values()), "a table that this test leaves empty is not tested"
    gone = await dossier.delete(ANN)
    assert gone == {table: len(rows) for table, rows in before.items()}
    assert not any((await held(admin, ANN)).values())
    assert await held(admin, EVE) == others
    assert await held(admin, TEA) == rooms
    assert await admin.fetchval("SELECT count(*) FROM room_entry WHERE author = $1", ANN) == 1  # the room's


async def test_deleted_is_unknown(dossier: Dossier) -> None:
    await dossier.delete(ANN)
    with pytest.raises(NoSuchAccount):
        await dossier.delete(ANN)


async def test_an_account_begins_anew_after_its_deletion(bench: Bench, dossier: Dossier) -> None:
    await dossier.delete(ANN)
    await bench.put(ANN, conversations=[conversation(1)])
    assert (await dossier.show(ANN)).lists["conversations"].total == 1
