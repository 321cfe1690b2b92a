"""The statements on a real database: that they can be planned, by which index, and how much they read."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres.delta import delta_statement, delta_text
from sync.adapters.postgres.listing import COLUMNS, NAMED, page_text
from sync.adapters.postgres.pool import SETTINGS
from sync.adapters.postgres.statements import STATE_TABLES, sql, statements, together, written
from sync.model.delta import MAX_CHANGES, DeltaQuery, Filters
from tests.conftest import TEMPLATE, PostgresServer

PAGES = [
    dict(zip(("delta", "pinned_first", "pinned", "archived", "part"), combination, strict=True))
    for combination in itertools.product(
        (False, True), (False, True), (None, False, True), (None, False, True), ("first", "end", "before", "after")
    )
]
_CHOSEN = ("delta", "begins", "peer", "kind", "status", "unread", "pinned")
DELTAS = [
    dict(zip(_CHOSEN, combination, strict=True))
    for combination in itertools.product(*[(False, True)] * 5, *[(None, False, True)] * 2)
]


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


async def test_every_delta_can_be_prepared(installed: asyncpg.Connection) -> None:
    for chosen in DELTAS:
        await installed.prepare(delta_text(**chosen))


async def test_a_delta_tells_everything_of_a_conversation(installed: asyncpg.Connection) -> None:
    found = await installed.fetch(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = 'conversation'"
    )
    assert sorted(name for (name,) in found) == sorted((*COLUMNS, "last_rank", "last_stanza"))


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
WHOLE = {
    # all accounts of a host, or of its rooms: after a loss, not in daily work
    "raise_epochs": {"account", "account_pkey", "room_member_pkey"},
    "pending_rooms": {"room_to_fan"},  # holds what is pending, and no more
    "were_apart": {"conversation_apart"},  # holds what is kept apart, and the first one says enough
}


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
SELECT account, peer, 's' || version, '', CASE WHEN version % 10 = 0 THEN 'answered' ELSE 'missed' END, 1, now(), now(),
    ''
FROM conversation;
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
INSERT INTO bootstrap (account, since, due_at, state)
SELECT 'user' || n || '@host' || n % 20, 1, now(), CASE WHEN n % 10 = 0 THEN 'waiting' ELSE 'done' END
FROM generate_series(1, 5000) n;
INSERT INTO watcher (account, resource, told, log) SELECT jid, 'r' || n, 1, 1 FROM account, generate_series(1, 50) n;
INSERT INTO feed_position (host, stream, shard, lane, n)
SELECT 'host', 'stream' || s, 'main', l, 1 FROM generate_series(1, 20) s, generate_series(0, 15) l;
ANALYZE"""


async def plan(connection: asyncpg.Connection, text: str) -> str:
    """The generic plan of a statement, as JSON text."""
    count = max(n for n in range(40) if f"${n}" in text or n == 0)
    await connection.execute(f"PREPARE explained AS {text}")
    try:
        nulls = f"({', '.join(['NULL'] * count)})" if count else ""
        return str(await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE explained{nulls}"))
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


async def test_named_conversations_go_by_index(filled: asyncpg.Connection) -> None:
    assert await scanned(filled, NAMED) <= {"call_deadline"}  # as for pages


async def test_pages_go_by_index(filled: asyncpg.Connection) -> None:
    for page in PAGES:
        assert await scanned(filled, page_text(**page)) <= {"call_deadline"}  # holds what rings now, and no more


async def test_a_delta_goes_by_version(filled: asyncpg.Connection) -> None:
    page = page_text(delta=True, pinned_first=True, pinned=None, archived=None, part="first")
    assert "conversation_by_version" in await plan(filled, page)


async def test_deltas_go_by_index(filled: asyncpg.Connection) -> None:
    """What changed is found by version, of everything the newest, and the calls that have settled by theirs."""
    for chosen in DELTAS:
        text = delta_text(**chosen)
        assert await scanned(filled, text) <= {"call_deadline"}, chosen  # as for pages
        found = await plan(filled, text)
        assert chosen["peer"] or "conversation_by_version" in found, chosen
        assert ("call_settled" in found) == (chosen["delta"] and chosen["begins"]), chosen


async def test_this_test_knows_a_scan(installed: asyncpg.Connection) -> None:
    assert await scanned(installed, "SELECT * FROM message WHERE sent_at = $1") == {"message"}


# ---- how much is read -----------------------------------------------------------------------------------------------

BACKLOG = """
INSERT INTO conversation (account, peer, kind, version, activity, status, unread, mentions, taken)
VALUES ('full@example.org', 'peer@example.net', 'chat', 1, 1, 'active', 50000, 1, 0),
    ('full@example.org', 'room@rooms.example.org', 'group', 2, 2, 'active', 50000, 1, 50000);
INSERT INTO account (jid, version, floor, unread, mentions, unread_conversations)
VALUES ('full@example.org', 2, 0, 100000, 2, 2);
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, mention)
SELECT 'full@example.org', 'peer@example.net', 'chat', n, false, true, now(), 'm' || n, n = 49000
FROM generate_series(1, 50000) n;
INSERT INTO message (account, peer, kind, rank, outgoing, counted, sent_at, message_key, mentions, author)
SELECT 'room@rooms.example.org', 'room@rooms.example.org', 'group', n, false, true, now(), 'm' || n,
    CASE WHEN n = 49000 THEN ARRAY['full@example.org'] ELSE '{}' END, 'other@example.org'
FROM generate_series(1, 50000) n;
ANALYZE"""
FULL = {"chat": "peer@example.net", "group": "room@rooms.example.org"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backlog(filled: asyncpg.Connection) -> asyncpg.Connection:
    """The same, and an account with 50,000 unread messages in a chat, and as many in a room of this server."""
    await filled.execute(BACKLOG)
    return filled


async def rows_read(connection: asyncpg.Connection, text: str, table: str, *arguments: str) -> float:
    """How many rows of a table a statement really looks at, the ones that it then drops included."""
    await connection.execute(f"PREPARE explained AS {text}")
    try:
        ran = f"EXPLAIN (ANALYZE, FORMAT json) EXECUTE explained({', '.join(arguments)})"
        whole = nodes(json.loads(await connection.fetchval(ran))[0]["Plan"])
    finally:
        await connection.execute("DEALLOCATE explained")
    scans = [node for node in whole if node.get("Relation Name") == table]
    assert scans, "the statement does not look at the table at all"
    return sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in scans)


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("rank", [1, 20])
async def test_counting_costs_what_is_newly_read(backlog: asyncpg.Connection, kind: str, rank: int) -> None:
    key = [f"'{{{value}}}'" for value in ("full@example.org", FULL[kind], kind, rank)]
    assert await rows_read(backlog, sql("read_behind"), "message", *key) == rank


QUEUES = """
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, created_at, not_before, deadline, queue)
SELECT 'u@example.org', gen_random_uuid(), 'd', 2, 'message', 1, '', now(), now() + interval '1 hour', now(), 'q' || n
FROM generate_series(1, 2000) n;
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, created_at, not_before, deadline, queue)
SELECT 'u@example.org', gen_random_uuid(), 'd', 2, 'message', 1, '', now(), now() - interval '1 hour', now(), 'busy'
FROM generate_series(1, 5000) n;
ANALYZE"""


async def test_queues_in_which_nothing_is_due_cost_nothing(filled: asyncpg.Connection) -> None:
    """And what waits in a queue that is held costs nothing either."""
    await filled.execute(QUEUES)
    lanes, held = "'{2,3}'", "'{busy}'"
    assert await rows_read(filled, sql("due_jobs"), "push_job", lanes, "now()", "64", "'{}'") == 64
    assert await rows_read(filled, sql("next_job_at"), "push_job", lanes, "'{}'") <= 2
    walked = await rows_read(filled, sql("due_jobs"), "push_job", lanes, "now()", "64", held)
    assert walked <= 64 + 2100  # the front, and one of each queue
    assert await rows_read(filled, sql("next_job_at"), "push_job", lanes, held) <= 2 + 2 * 2100
    await filled.execute("DELETE FROM push_job WHERE queue <> ''")


async def test_a_mention_is_found_among_many_messages(backlog: asyncpg.Connection) -> None:
    page = page_text(delta=False, pinned_first=False, pinned=None, archived=None, part="first")
    assert await rows_read(backlog, page, "message", "'full@example.org'", "0", "9") == len(FULL)
    assert [row["mention_id"] for row in await backlog.fetch(page, "full@example.org", 0, 9)] == ["m49000", "m49000"]


async def test_this_test_knows_many_rows(backlog: asyncpg.Connection) -> None:
    whole = "SELECT count(*) FROM message WHERE (account, peer, kind) = ($1, $2, $3) AND NOT mention"
    key = [f"'{value}'" for value in ("full@example.org", FULL["chat"], "chat")]
    assert await rows_read(backlog, whole, "message", *key) == 50000


CHANGED = """
INSERT INTO account (jid, version, floor) VALUES ('busy@example.org', 9000, 0);
INSERT INTO conversation (account, peer, kind, version, activity, status, last_rank, last_stanza, last_sent_at)
SELECT 'busy@example.org', 'peer' || n || '@example.net', 'chat', n, n, 'active', n, repeat('x', 3000), now()
FROM generate_series(1, 9000) n;
INSERT INTO change (account, version, peer, kind, what, target_rank, target_id)
SELECT account, version, peer, kind, 'retracted', 1, 'm' FROM conversation WHERE account = 'busy@example.org';
INSERT INTO change (account, version, peer, kind, what, target_rank, target_id)
SELECT 'busy@example.org', 10000 + n, 'peer9000@example.net', 'chat', 'retracted', 1, 'm'
FROM generate_series(1, 5000) n;
INSERT INTO call (account, peer, sid, session_id, state, version, proposed_at, rings_until, caller)
SELECT account, peer, 's', 's', 'missed', version, now(), now(), peer || '/p' FROM conversation
WHERE account = 'busy@example.org';
ANALYZE"""
UNREAD, PINNED = Filters(unread=True), Filters(pinned=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(filled: asyncpg.Connection) -> asyncpg.Connection:
    """The same, and an account with 9,000 conversations, each with a change and a call; one with 5,000 changes more."""
    await filled.execute(CHANGED)
    return filled


@pytest.mark.parametrize(
    ("query", "conversations", "changes", "calls"),
    [
        (DeltaQuery(limit=100, since=8990, log=8990), 10, 9 + MAX_CHANGES + 1, 10),
        (DeltaQuery(limit=100, since=8990, log=8990, changes=False), 10, 0, 10),
        (DeltaQuery(limit=3, since=8990, log=8990, below=8999, newest=9000), 4, 4, 0),
        (DeltaQuery(limit=3, since=8990, log=8980, filters=UNREAD), 4, 0, 10),
        (DeltaQuery(limit=3, since=8990, log=8990, filters=PINNED), 4, 3 + MAX_CHANGES + 1, 10),
        (DeltaQuery(limit=20, since=9000, log=9000), 0, 0, 0),
        (DeltaQuery(limit=20), 21, 0, 0),
        (DeltaQuery(limit=0), 1, 0, 0),
        (DeltaQuery(limit=20, filters=PINNED), 21, 0, 0),
    ],
)
async def test_a_delta_costs_what_changed(
    busy: asyncpg.Connection, query: DeltaQuery, conversations: int, changes: int, calls: int
) -> None:
    text, arguments = delta_statement("busy@example.org", query)
    given = [f"'{value}'" for value in arguments]
    assert await rows_read(busy, text, "account", *given) == 1
    assert await rows_read(busy, text, "conversation", *given) == conversations
    if query.begins:
        assert await rows_read(busy, text, "call", *given) == calls
    if query.since:
        assert await rows_read(busy, text, "change", *given) == changes
