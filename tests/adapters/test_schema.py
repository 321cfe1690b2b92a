"""The schema on a real database: what it refuses, and that migrations lead to it."""

import asyncpg
import pytest

from sync.adapters.postgres import migrate

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
    "bootstrap": {"account": "'a@h'", "since": "1", "due_at": "now()"},
    "room": {"jid": "'tea@rooms.example.org'"},
    "room_member": {"room": "'r'", "account": "'a'", "affiliation": "'member'", "present": "false", "since": "1"},
    "room_entry": {"room": "'r'", "rank": "1", "kind": "'message'", "at": "now()", "stanza": "''"},
    "device": DEVICE,
    "device_token": TOKEN,
    "push_job": JOB,
    "lease": LEASE,
    "feed_position": POSITION,
    "feed_stream": STREAM,
    "watcher": {"account": "'a'", "resource": "'web'", "told": "5", "log": "5"},
}

BASE = {"unread": "2", "mentions": "2", "base_rank": "1", "base_unread": "1"}

REFUSED: list[tuple[str, str, dict[str, str]]] = [
    ("account", "account_is_bare", {"jid": "'ann@example.org/web'"}),
    ("account", "account_is_bare", {"jid": "''"}),
    ("account", "account_is_bare", {"jid": LONG}),
    ("account", "account_epoch_counts", {"epoch": "0"}),
    ("account", "account_version_is_time", {"floor": "6"}),
    ("account", "account_version_is_time", {"version": "-1", "floor": "-1"}),
    ("account", "account_counts", {"unread": "-1", "unread_conversations": "-1"}),
    ("account", "account_counts", {"unread": "1", "unread_conversations": "2"}),
    ("account", "account_counts", {"unread": "1", "mentions": "2"}),
    ("account", "account_counts", {"mentions": "-1"}),
    ("account", "account_counts", {"devices": "-1"}),
    ("account", "account_quiet_is_named", {"quiet": "'[]'"}),
    ("conversation", "conversation_peer_is_jid", {"peer": "''"}),
    ("conversation", "conversation_peer_is_jid", {"peer": LONG}),
    ("conversation", "conversation_kind", {"kind": "'room'"}),
    ("conversation", "conversation_status", {"status": "'gone'"}),
    ("conversation", "conversation_counts", {"unread": "-1"}),
    ("conversation", "conversation_notify", {"notify": "'sometimes'"}),
    ("conversation", "conversation_counts", {"unread": "1", "mentions": "2"}),
    ("conversation", "conversation_counts", {"mentions": "-1"}),
    ("conversation", "conversation_counts", BASE | {"base_unread": "3"}),
    ("conversation", "conversation_counts", BASE | {"base_mentions": "2"}),
    ("conversation", "conversation_counts", BASE | {"mentions": "0", "base_mentions": "1"}),
    ("conversation", "conversation_base_is_behind", {"unread": "1", "base_unread": "1"}),
    ("conversation", "conversation_counts", {"ringing": "-1"}),
    ("conversation", "conversation_counts", {"pinned": "-1"}),
    ("conversation", "conversation_rewritten_by_version", {"rewritten": "6"}),
    ("conversation", "conversation_rewritten_by_version", {"log_from": "6"}),
    ("conversation", "conversation_last_is_whole", {"last_rank": "1"}),
    ("conversation", "conversation_last_is_whole", {"last_rank": "1", "last_stanza": "''"}),
    ("message", "message_own_is_not_unread", {"outgoing": "true"}),
    ("message", "message_mention_counts", {"counted": "false", "mention": "true"}),
    ("message", "message_mention_counts", {"counted": "false", "mentions": "'{a}'"}),
    ("message", "message_keys_are_short", {"message_key": LONG}),
    ("message", "message_keys_are_short", {"origin_key": LONG}),
    ("message", "message_keys_are_short", {"archive_key": LONG}),
    ("change", "change_kind", {"kind": "'room'"}),
    ("change", "change_what", {"what": "'read'"}),
    ("change", "change_has_text", {"what": "'retracted'", "stanza": "'text'"}),
    ("change", "change_has_text", {"what": "'failed'", "stanza": "'text'"}),
    ("call", "call_sid_is_short", {"sid": LONG}),
    ("call", "call_state", {"state": "'lost'"}),
    ("call", "call_kind", {"kind": "'omemo-2'"}),
    ("call", "call_ringing_has_propose", {"state": "'ringing'"}),
    ("call", "call_rings_after_propose", {"rings_until": "now() - interval '1 second'"}),
    ("bootstrap", "bootstrap_state", {"state": "'begun'"}),
    ("bootstrap", "bootstrap_counts", {"restored": "-1"}),
    ("bootstrap", "bootstrap_counts", {"turn": "0"}),
    ("bootstrap", "bootstrap_failed_has_reason", {"state": "'failed'"}),
    ("room", "room_is_bare", {"jid": "'tea@rooms.example.org/ann'"}),
    ("room", "room_is_bare", {"jid": "''"}),
    ("room", "room_is_bare", {"jid": LONG}),
    ("room", "room_fanned_what_is_there", {"fanned": "1"}),
    ("room_member", "room_member_affiliation", {"affiliation": "'visitor'"}),
    ("room_member", "room_member_keys_are_short", {"nick_key": LONG}),
    ("room_member", "room_member_keys_are_short", {"occupant_id": LONG}),
    ("room_entry", "room_entry_kind", {"kind": "'subject'"}),
    ("room_entry", "room_entry_call_has_step", {"kind": "'call'", "target_id": "'a'"}),
    ("room_entry", "room_entry_message_has_stanza", {"stanza": "NULL"}),
    ("room_entry", "room_entry_change_has_target", {"kind": "'reacted'", "target_rank": "1"}),
    ("room_entry", "room_entry_change_has_target", {"kind": "'displayed'", "target_id": "'a'"}),
    ("device", "device_voip_is_whole", {"voip_token": "'x'"}),
    ("device", "device_environment", {"environment": "'test'"}),
    ("device", "device_wishes_are_named", {"wishes": "'[]'"}),
    ("device", "device_push_key_has_size", {"push_key": "'x'"}),
    ("device", "device_push_key_has_size", {"wishes": "'{\"max_bytes\": 3000}'"}),
    ("device", "device_route", {"route": "'post'"}),
    ("device", "device_failures_have_begun", {"failures": "1"}),
    ("device", "device_failures_have_begun", {"failing_since": "now()"}),
    ("device", "device_failures_have_begun", {"failures": "-1", "failing_since": "now()"}),
    ("device", "device_id_is_short", {"device_id": "''"}),
    ("device", "device_id_is_short", {"device_id": LONG}),
    ("device_token", "device_token_digest_is_sha256", {"digest": "'x'"}),
    ("push_job", "push_job_lane", {"lane": "4"}),
    ("push_job", "push_job_kind", {"kind": "'spam'"}),
    ("push_job", "push_job_about", {"about": "'somebody'"}),
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
    ("watcher", "watcher_resource_is_short", {"resource": "''"}),
    ("watcher", "watcher_resource_is_short", {"resource": LONG}),
    ("watcher", "watcher_told_is_version", {"log": "-1"}),
    ("watcher", "watcher_told_is_version", {"log": "6"}),
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
