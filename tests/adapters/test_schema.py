"""The schema and the statements on a real database: what is refused, what can be planned, and by which index."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres import migrate
from sync.adapters.postgres.listing import page_text
from sync.adapters.postgres.pool import SETTINGS
from sync.adapters.postgres.statements import STATE_TABLES, sql, statements, together, written
from tests.conftest import TEMPLATE, PostgresServer

PAGES = [
    dict(zip(("delta", "pinned_first", "pinned", "archived", "later"), combination, strict=True))
    for combination in itertools.product((False, True), (False, True), (None, False, True), (None, False, True), (0, 1))
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installed(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A connection, with the application's settings, to a database that nobody changes."""
    name = await postgres_server.create(TEMPLATE)
    connection = await asyncpg.connect(postgres_server.dsn(name), server_settings=SETTINGS)
    yield connection
    await connection.close()
    await postgres_server.drop(name)


# ---- statements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", statements())
async def test_every_statement_can_be_prepared(installed: asyncpg.Connection, name: str) -> None:
    await installed.prepare(sql(name))


def test_no_name_is_used_twice() -> None:
    names = [name for _, name, _ in written()]
    assert len(names) == len(set(names))


async def test_every_page_can_be_prepared(installed: asyncpg.Connection) -> None:
    for page in PAGES:
        await installed.prepare(page_text(**page))


async def test_all_writes_can_be_prepared_together(installed: asyncpg.Connection) -> None:
    writes = tuple(name for name in statements() if name.startswith("write_") and name != "write_marks")
    await installed.prepare(together(writes))


async def test_every_table_of_accounts_is_emptied_with_them(installed: asyncpg.Connection) -> None:
    found = await installed.fetch(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'account'"
    )
    assert {name for (name,) in found} == set(STATE_TABLES)


# ---- plans ----------------------------------------------------------------------------------------------------------

INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}
SMALL = {"feed_stream", "lease", "quarantine", "provider_token"}  # a row for each host, stream or key
WHOLE = {"raise_epochs": {"account", "account_pkey"}}  # all accounts of a host: after a loss, not in daily work


MANY = """
INSERT INTO account (jid, version, floor, devices)
SELECT 'user' || n || '@example.org', 1000, 0, 2 FROM generate_series(1, 50) n;
INSERT INTO conversation (account, peer, kind, version, activity, status, ringing)
SELECT jid, 'peer' || n || '@example.net', 'chat', n, n, 'active', 0 FROM account, generate_series(1, 100) n;
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, origin_key, archive_key)
SELECT account, peer, kind, n, false, true, now(), 'm' || n, 'o' || n, peer || n
FROM conversation, generate_series(1, 3) n;
INSERT INTO change (account, version, peer, kind, what, target_rank, target_id, stanza)
SELECT account, version, peer, kind, 'corrected', 1, 'm', '' FROM conversation;
INSERT INTO call (account, peer, sid, session_id, state, version, proposed_at, rings_until, caller)
SELECT account, peer, 's' || version, '', 'missed', 1, now(), now(), '' FROM conversation;
INSERT INTO device (account, device_id, app, environment, alert_token, alert_digest, node, secret_digest, registered_at)
SELECT jid, 'd' || n, 'chat', 'sandbox', '', '', 'n' || n, '', now() FROM account, generate_series(1, 2) n;
INSERT INTO device_token (app, environment, digest, account, device_id)
SELECT 'chat', 'sandbox', sha256((account || device_id)::bytea), account, device_id FROM device;
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, sid, created_at, not_before, deadline,
    state, attempted_at, outcome)
SELECT account, gen_random_uuid(), 'd1', 1 + n % 3, 'call', 1, peer, sid, now(), now(), now(), 'done', now(), 'accepted'
FROM call, generate_series(1, 3) n;
INSERT INTO room (jid, version, fanned)
SELECT 'room' || n || '@rooms.example.org', 2, 1 + n % 2 FROM generate_series(1, 50) n;
INSERT INTO room_member (room, account, affiliation, present, since, nick, nick_key, occupant_id)
SELECT room.jid, account.jid, 'member', false, 0, account.jid, account.jid, account.jid FROM room, account;
INSERT INTO room_entry (room, rank, kind, at) SELECT jid, n, 'joined', now() FROM room, generate_series(1, 50) n;
INSERT INTO feed_position (host, stream, shard, lane, n)
SELECT 'host', 'stream' || s, 'main', l, 1 FROM generate_series(1, 20) s, generate_series(0, 15) l;
ANALYZE"""


async def plan(connection: asyncpg.Connection, text: str) -> str:
    """The generic plan of a statement, as JSON text."""
    count = max(n for n in range(40) if f"${n}" in text or n == 0)
    await connection.execute(f"PREPARE explained AS {text}")
    try:
        nulls = ", ".join(["NULL"] * count)
        return str(await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE explained({nulls})"))
    finally:
        await connection.execute("DEALLOCATE explained")


def nodes(node: Any) -> list[dict[str, Any]]:
    children = [child for below in node.get("Plans", ()) for child in nodes(below)]
    return [node, *children]


async def scanned(connection: asyncpg.Connection, text: str) -> set[str]:
    """The tables and indexes that a statement reads from end to end."""
    whole = nodes(json.loads(await plan(connection, text))[0]["Plan"])
    tables = {node["Relation Name"] for node in whole if node["Node Type"] == "Seq Scan"}
    by_index = [node for node in whole if node["Node Type"] in INDEX_SCANS and "Index Cond" not in node]
    return tables | {node["Index Name"] for node in by_index}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A database in use, with statistics."""
    name = await postgres_server.create(TEMPLATE)
    connection = await asyncpg.connect(postgres_server.dsn(name), server_settings=SETTINGS)
    await connection.execute(MANY)
    yield connection
    await connection.close()
    await postgres_server.drop(name)


@pytest.mark.parametrize("name", statements())
async def test_statements_go_by_index(filled: asyncpg.Connection, name: str) -> None:
    assert await scanned(filled, sql(name)) - SMALL <= WHOLE.get(name, set())


async def test_pages_go_by_index(filled: asyncpg.Connection) -> None:
    for page in PAGES:
        assert await scanned(filled, page_text(**page)) <= {"call_deadline"}  # holds what rings now, and no more


async def test_a_delta_goes_by_version(filled: asyncpg.Connection) -> None:
    page = page_text(delta=True, pinned_first=True, pinned=None, archived=None, later=False)
    assert "conversation_by_version" in await plan(filled, page)


async def test_this_test_knows_a_scan(installed: asyncpg.Connection) -> None:
    assert await scanned(installed, "SELECT * FROM message WHERE sent_at = $1") == {"message"}


# ---- what is refused ------------------------------------------------------------------------------------------------

ACCOUNT = {"jid": "'ann@example.org'", "version": "5", "floor": "0"}
CONVERSATION = {
    "account": "'a'",
    "peer": "'b'",
    "kind": "'chat'",
    "version": "5",
    "activity": "1",
    "status": "'active'",
}
MESSAGE = {"account": "'a'", "peer": "'b'", "kind": "'chat'", "rank": "1", "outgoing": "false", "counted": "true"}
MESSAGE |= {"sent_at": "now()"}
CHANGE = {"account": "'a'", "version": "1", "peer": "'b'", "kind": "'chat'", "what": "'corrected'", "target_rank": "1"}
CHANGE |= {"target_id": "'m'"}
CALL = {"account": "'a'", "peer": "'b'", "sid": "'s'", "session_id": "'s'", "state": "'missed'", "version": "1"}
CALL |= {"proposed_at": "now()", "rings_until": "now()", "caller": "'b/c'"}
DEVICE = {"account": "'a'", "device_id": "'d'", "app": "'chat'", "environment": "'sandbox'", "alert_token": "'x'"}
DEVICE |= {"alert_digest": "'x'", "node": "'n'", "secret_digest": "'x'", "registered_at": "now()"}
TOKEN = {"app": "'chat'", "environment": "'sandbox'", "digest": "sha256('x')", "account": "'a'", "device_id": "'d'"}
JOB = {
    "account": "'a'",
    "job_id": "gen_random_uuid()",
    "device_id": "'d'",
    "lane": "1",
    "kind": "'call'",
    "version": "1",
}
JOB |= {"version": "1", "peer": "'b'", "created_at": "now()", "not_before": "now()", "deadline": "now()"}
LEASE = {"name": "'n'", "holder": "'h'", "generation": "1", "expires_at": "now()", "backend_pid": "1"}
LEASE |= {"backend_started_at": "now()"}
POSITION = {"host": "'h'", "stream": "'s'", "shard": "'m'", "lane": "1", "n": "1"}
STREAM = {"host": "'h'", "stream": "'s'", "shard": "'m'", "committed": "1", "seen": "1"}
LONG = "repeat('x', 4000)"

ROWS = {
    "account": ACCOUNT,
    "conversation": CONVERSATION,
    "message": MESSAGE,
    "change": CHANGE,
    "call": CALL,
    "device": DEVICE,
    "device_token": TOKEN,
    "push_job": JOB,
    "lease": LEASE,
    "feed_position": POSITION,
    "feed_stream": STREAM,
}

REFUSED: list[tuple[str, str, dict[str, str]]] = [
    ("account", "account_is_bare", {"jid": "'ann@example.org/web'"}),
    ("account", "account_is_bare", {"jid": "''"}),
    ("account", "account_is_bare", {"jid": LONG}),
    ("account", "account_epoch_counts", {"epoch": "0"}),
    ("account", "account_version_is_time", {"floor": "6"}),
    ("account", "account_version_is_time", {"version": "-1", "floor": "-1"}),
    ("account", "account_counts", {"unread": "-1", "unread_conversations": "-1"}),
    ("account", "account_counts", {"unread": "1", "unread_conversations": "2"}),
    ("account", "account_counts", {"devices": "-1"}),
    ("conversation", "conversation_peer_is_jid", {"peer": "''"}),
    ("conversation", "conversation_peer_is_jid", {"peer": LONG}),
    ("conversation", "conversation_kind", {"kind": "'room'"}),
    ("conversation", "conversation_status", {"status": "'gone'"}),
    ("conversation", "conversation_counts", {"unread": "-1"}),
    ("conversation", "conversation_counts", {"ringing": "-1"}),
    ("conversation", "conversation_counts", {"pinned": "-1"}),
    ("conversation", "conversation_rewritten_by_version", {"rewritten": "6"}),
    ("conversation", "conversation_last_is_whole", {"last_rank": "1"}),
    ("conversation", "conversation_last_is_whole", {"last_rank": "1", "last_stanza": "''"}),
    ("message", "message_own_is_not_unread", {"outgoing": "true"}),
    ("message", "message_keys_are_short", {"message_key": LONG}),
    ("message", "message_keys_are_short", {"origin_key": LONG}),
    ("message", "message_keys_are_short", {"archive_key": LONG}),
    ("change", "change_kind", {"kind": "'room'"}),
    ("change", "change_what", {"what": "'reacted'"}),
    ("change", "change_retraction_has_no_text", {"what": "'retracted'", "stanza": "'text'"}),
    ("call", "call_sid_is_short", {"sid": LONG}),
    ("call", "call_state", {"state": "'lost'"}),
    ("call", "call_ringing_has_propose", {"state": "'ringing'"}),
    ("call", "call_rings_after_propose", {"rings_until": "now() - interval '1 second'"}),
    ("device", "device_voip_is_whole", {"voip_token": "'x'"}),
    ("device", "device_environment", {"environment": "'test'"}),
    ("device", "device_id_is_short", {"device_id": "''"}),
    ("device", "device_id_is_short", {"device_id": LONG}),
    ("device_token", "device_token_digest_is_sha256", {"digest": "'x'"}),
    ("push_job", "push_job_lane", {"lane": "4"}),
    ("push_job", "push_job_kind", {"kind": "'spam'"}),
    ("push_job", "push_job_state", {"state": "'lost'", "attempted_at": "now()"}),
    ("push_job", "push_job_attempted_has_left", {"state": "'attempted'"}),
    ("push_job", "push_job_done_has_outcome", {"state": "'done'"}),
    ("push_job", "push_job_done_has_outcome", {"outcome": "'accepted'"}),
    ("push_job", "push_job_voip_is_call", {"voip": "true"}),
    ("push_job", "push_job_voip_is_call", {"voip": "true", "sid": "'s'", "kind": "'missed'"}),
    ("lease", "lease_generation_counts", {"generation": "0"}),
    ("feed_position", "feed_position_lane", {"lane": "16"}),
    ("feed_position", "feed_position_counts", {"n": "-1"}),
    ("feed_stream", "feed_stream_counts", {"committed": "2"}),
    ("feed_stream", "feed_stream_counts", {"committed": "-1"}),
]


def insert(table: str, row: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"  # noqa: S608 - ours


@pytest.mark.parametrize("table", ROWS)
async def test_the_rows_that_these_tests_spoil_are_good(installed: asyncpg.Connection, table: str) -> None:
    transaction = installed.transaction()
    await transaction.start()
    await installed.execute(insert(table, ROWS[table]))
    await transaction.rollback()


@pytest.mark.parametrize(("table", "constraint", "wrong"), REFUSED)
async def test_a_row_is_refused(
    installed: asyncpg.Connection, table: str, constraint: str, wrong: dict[str, str]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await installed.execute(insert(table, ROWS[table] | wrong))
    assert refused.value.constraint_name == constraint


async def test_every_check_is_tried(installed: asyncpg.Connection) -> None:
    found = await installed.fetch("SELECT conname FROM pg_constraint WHERE contype = 'c'")
    named = {name for (name,) in found if not name.startswith(("cardinal_number", "yes_or_no"))}
    assert {constraint for _, constraint, _ in REFUSED} == named


async def test_a_device_is_pushed_one_voip_for_a_call(installed: asyncpg.Connection) -> None:
    transaction = installed.transaction()
    await transaction.start()
    ring = insert("push_job", JOB | {"voip": "true", "sid": "'s'"})
    await installed.execute(ring)
    with pytest.raises(asyncpg.UniqueViolationError, match="push_job_voip_once"):
        await installed.execute(ring)
    await transaction.rollback()


# ---- migrations -----------------------------------------------------------------------------------------------------

CATALOGUE = """
SELECT 'column', table_name || '.' || column_name,
    data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'options', relname, array_to_string(reloptions, ' ') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
ORDER BY 1, 2"""


async def catalogue(dsn: str) -> list[tuple[str, ...]]:
    """What a schema consists of, without the order of columns: migrations append them."""
    connection = await asyncpg.connect(dsn)
    found = [tuple(row) for row in await connection.fetch(CATALOGUE)]
    await connection.close()
    return found


async def first_release(dsn: str) -> None:
    """A database at version 1. Until there is a migration that is schema.sql; the first migration to come brings the
    schema of version 1 along, beside this test.
    """
    assert not migrate.migrations(), "keep schema.sql of version 1 beside this test, and install that"
    connection = await asyncpg.connect(dsn)
    await connection.execute(migrate.schema_text())
    await connection.execute("INSERT INTO schema_version (version) VALUES (1)")
    await connection.close()


async def test_an_installation_is_schema_sql(database: str, empty_database: str) -> None:
    assert "was installed" in await migrate.install(empty_database)
    assert await catalogue(empty_database) == await catalogue(database)


async def test_migrations_lead_to_schema_sql(database: str, empty_database: str) -> None:
    await first_release(empty_database)
    await migrate.install(empty_database)
    assert await catalogue(empty_database) == await catalogue(database)


async def test_migrations_are_numbered_without_gaps() -> None:
    assert list(migrate.migrations()) == list(range(2, migrate.VERSION + 1))


async def test_a_second_installation_does_nothing(empty_database: str) -> None:
    await migrate.install(empty_database)
    assert "nothing to do" in await migrate.install(empty_database)


async def test_a_schema_of_the_future_is_left_alone(empty_database: str) -> None:
    await migrate.install(empty_database)
    connection = await asyncpg.connect(empty_database)
    await connection.execute("INSERT INTO schema_version (version) VALUES (999)")
    await connection.close()
    with pytest.raises(migrate.SchemaError, match="999"):
        await migrate.install(empty_database)
