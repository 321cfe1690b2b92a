"""Housekeeping on a real Postgres: what a turn reads, how much it drops at once, and with others at the same rows."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from sync.adapters.postgres import housekeeping
from sync.adapters.postgres.housekeeping import OPEN, PostgresHousekeeping
from sync.adapters.postgres.pool import SETTINGS
from sync.adapters.postgres.statements import sql, written
from sync.model.conversation import Base
from sync.model.errors import Uncommittable
from tests.contract.conftest import emptied_database, postgres, shared_database  # noqa: F401 - fixtures
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_tables import recount
from tests.contract.houses import KEEP, ago, in_house
from tests.contract.samples import ANN, BOB, EVE, NOW, WITH_BOB, account, after, conversation, last, message
from tests.contract.stores import Bench

MANY = """
INSERT INTO account (jid, version, floor) SELECT 'user' || n || '@example.org', 1000, 0 FROM generate_series(1, 20) n;
INSERT INTO conversation (account, peer, kind, version, activity, status, unread, taken)
SELECT jid, 'peer' || n || '@example.net', 'chat', n, n, 'active', 10, 0 FROM account, generate_series(1, 20) n;
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at)
SELECT account, peer, kind, n, false, true, now() FROM conversation, generate_series(1, 10) n;
INSERT INTO change (account, version, peer, kind, what, target_rank, target_id)
SELECT account, version, peer, kind, 'retracted', 1, 'm' FROM conversation;
INSERT INTO call (account, peer, sid, session_id, state, version, proposed_at, rings_until, caller)
SELECT account, peer, 's' || version, '', 'missed', version, now(), now(), '' FROM conversation;
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, created_at, not_before, deadline,
    state, outcome)
SELECT account, gen_random_uuid(), 'd', 3, 'missed', 1, peer, now(), now(), now(), 'done', 'accepted' FROM call;
INSERT INTO room (jid) SELECT 'room' || n || '@rooms.example.org' FROM generate_series(1, 50) n;
INSERT INTO room_member (room, account, affiliation, present, since)
SELECT room.jid, account.jid, 'member', false, 0 FROM room, account;
ANALYZE"""
ONE = "user7@example.org"
LATE = "9999-01-01T00:00:00+00:00"


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(child for below in node.get("Plans", ()) for child in nodes(below))]


@pytest.mark.parametrize(
    ("name", "arguments", "most"),
    [
        ("too_much", (ONE, "", "", 200, 5, 1, 5, 5, 5, 3), {"conversation": 20, "message": 20 * 20, "change": 40}),
        ("anything_old", (ONE, OPEN, 0, LATE), {"call": 20, "push_job": 20}),
        ("trim_calls", (ONE, OPEN, 1000, 99), {"call": 40}),
        ("trim_jobs", (ONE, LATE, 99), {"push_job": 40}),
        ("trim_messages", (ONE, ["peer1@example.net"], ["chat"], [5], 99), {"message": 10, "conversation": 2}),
        ("trim_changes", (ONE, ["peer1@example.net"], ["chat"], [5], 99), {"change": 2, "conversation": 1}),
    ],
)
async def test_a_turn_reads_one_accounts_rows(
    database: str, name: str, arguments: tuple[Any, ...], most: dict[str, int]
) -> None:
    """Rows that were looked at, the ones dropped included; nothing is read from end to end."""
    connection = await asyncpg.connect(database, server_settings=SETTINGS)
    await connection.execute(MANY)
    kinds = [kind.name for kind in (await connection.prepare(sql(name))).get_parameters()]
    values = ", ".join(f"{literal(value)}::{kind_of(kind)}" for value, kind in zip(arguments, kinds, strict=True))
    await connection.execute(f"PREPARE explained AS {sql(name)}")
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT json) EXECUTE explained({values})")
    await connection.close()
    scans = [
        node for node in nodes(json.loads(found)[0]["Plan"]) if "Relation Name" in node and "Scan" in node["Node Type"]
    ]
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"]
    for table, rows in most.items():
        of_table = [node for node in scans if node["Relation Name"] == table]
        looked = sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in of_table)
        assert 0 < looked <= rows, table


@pytest.mark.parametrize("name", [name for file, name, _ in written() if file == "housekeeping.sql"])
async def test_every_index_is_entered_by_its_account(database: str, name: str) -> None:
    """Also where a room or a peer would do as well: among all accounts' conversations it would be looked for."""
    connection = await asyncpg.connect(database, server_settings=SETTINGS)
    await connection.execute(MANY)
    count = len((await connection.prepare(sql(name))).get_parameters())
    await connection.execute(f"PREPARE explained AS {sql(name)}")
    found = await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE explained({', '.join(['NULL'] * count)})")
    await connection.close()
    entered = [node["Index Cond"] for node in nodes(json.loads(found)[0]["Plan"]) if "Index Cond" in node]
    assert not [by for by in entered if not by.lstrip("(").startswith(("account =", "jid =", "room =", "trim_at <="))]


def literal(value: object) -> str:
    if isinstance(value, list):
        return "'{" + ",".join(map(str, value)) + "}'"
    return f"'{value}'"


def kind_of(name: str) -> str:
    """asyncpg's name of an array type as SQL."""
    return f"{name[1:]}[]" if name.startswith("_") else name


def backlog(count: int) -> dict[str, Any]:
    messages = [message(ago(1) + n) for n in range(count)]
    talk = conversation(ago(0), unread=count, last=last(messages[-1].rank))
    return {"accounts": [account(version=ago(0))], "conversations": [talk], "messages": messages}


async def test_a_big_backlog_goes_in_several_turns(postgres: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(housekeeping, "ROWS_AT_ONCE", 20)
    monkeypatch.setattr(housekeeping, "ROWS_A_TURN", 50)
    house = in_house(postgres)
    await house.put(**backlog(165))
    went = [(await house.tidy()).rows]
    for second in (1, 2, 3):
        went.append(dict((await house.keeping.trim(after(second), KEEP, 1)).rows))
        found = await house.conversation(WITH_BOB)  # counted right in between, too
    assert went == [{"message": 60}, {"message": 60}, {"message": 40}, {}]
    assert found.base == Base(unread=160, rank=ago(1) + 159)


async def test_a_turn_that_fails_keeps_nobody_else_from_theirs(postgres: Bench) -> None:  # noqa: F811
    house = in_house(postgres)
    await house.put(**backlog(9))
    await house.put(accounts=[account(EVE, version=ago(0))])
    assert postgres.pool
    async with postgres.pool.connection() as connection:
        await connection.execute("ALTER TABLE conversation ADD CONSTRAINT spoilt CHECK (base_unread = 0)")
    await house.turn_at(EVE, after(1))
    with pytest.raises(Uncommittable):
        await house.tidy(ANN)
    assert (await house.keeping.trim(after(2), KEEP, 9)).turns == 1
    async with postgres.pool.connection() as connection:
        await connection.execute("ALTER TABLE conversation DROP CONSTRAINT spoilt")
    assert (await house.conversation(WITH_BOB)).base == Base()


async def test_whoever_is_busy_is_passed_over(postgres: Bench) -> None:  # noqa: F811
    house = in_house(postgres)
    await house.put(**backlog(9))
    assert postgres.pool
    async with postgres.pool.connection() as connection, connection.transaction():
        await connection.execute(sql("hold_accounts"), [ANN])
        async with asyncio.timeout(60):
            await house.turn_at(EVE, NOW)
            assert (await house.keeping.trim(after(86400 * 400), KEEP, 9)).turns == 0


async def test_several_tidy_while_messages_come(postgres: Bench) -> None:  # noqa: F811
    """Writers under the account's lock, and two who tidy at once: the counters stay true, and nobody is stuck."""
    house = in_house(postgres)
    await house.put(**backlog(30))
    assert postgres.pool
    other = PostgresHousekeeping(postgres.pool, RecordingObserver())

    async def write() -> None:
        for n in range(60):
            rank = ago(1) + 1000 + n
            await asyncio.sleep(0.002)
            async with postgres.pool.connection() as connection, connection.transaction():  # type: ignore[union-attr]
                await connection.execute(sql("hold_accounts"), [ANN])
                await connection.execute(ARRIVES, ANN, BOB, rank)

    async def tidy(who: Any) -> None:
        for _ in range(40):
            await house.turn_at(ANN, NOW - timedelta(days=1))
            await who.trim(NOW, replace(KEEP, messages=3), 2)

    async with asyncio.timeout(200):
        await asyncio.gather(write(), tidy(house.keeping), tidy(other))
    tables = await house.tables()
    found = tables.conversations[WITH_BOB]
    assert (found.unread, found.mentions) == recount(tables, WITH_BOB) == (90, 0)
    assert found.base.unread > 50


ARRIVES = """
WITH came AS (
    INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at)
    VALUES ($1, $2, 'chat', $3, false, true, now())
)
UPDATE conversation SET unread = unread + 1, last_rank = $3 WHERE (account, peer, kind) = ($1, $2, 'chat')"""
