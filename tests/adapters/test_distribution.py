"""Could the database be distributed by account? Every statement is looked at in its plan: which rows of the distributed
tables it scans, and what binds them to an account, or room.

One account, or room, is one shard. A batch is bound row by row to those that it names. What is neither is an exception,
and every exception is named below and in docs/wide.md with its reason; so is none that is not one any more.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres.delta import delta_text
from sync.adapters.postgres.listing import NAMED, page_text
from sync.adapters.postgres.pool import SETTINGS
from sync.adapters.postgres.statements import sql, statements
from tests.adapters.test_statements import DELTAS, MANY, PAGES, nodes, plan
from tests.conftest import TEMPLATE, PostgresServer

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "deploy" / "citus" / "distribute.sql"
DISTRIBUTED = dict(re.findall(r"create_distributed_table\('(\w+)', '(\w+)'", SCRIPT.read_text()))  # table → by what
EVERYWHERE = set(re.findall(r"create_reference_table\('(\w+)'", SCRIPT.read_text()))  # few rows, on every node
OF_ROOMS = {"room", "room_member", "room_entry"}
NAMES = r"(?:\(?\w+\)?\.(?:account|jid|room)|unnest(?:_\d+)?\.unnest)\b"  # a row of a batch, or of a table beside it

TIME = "found by time: asked of every shard, as queues and timers are"
HOST = "all of a host: after a loss, or by hand"
OWNER = "asks whose it is: every shard"
ROOM = "an account and a room: two shards"
LOCK = "locks rows of several shards at once, which Citus refuses"
PLACE = "removes rows by their place in the table"
EXCEPTIONS = {
    **dict.fromkeys(("account_to_trim", "room_to_trim", "expired_calls", "pending_rooms", "due_bootstraps"), TIME),
    **dict.fromkeys(("due_jobs", "next_job_at", "overdue_jobs", "abandoned_jobs", "queue_depth"), TIME),
    **dict.fromkeys(("raise_epochs", "raise_epochs_of_room", "read_again", "count_bootstraps", "were_apart"), HOST),
    **dict.fromkeys(("watch_bootstraps", "count_bootstraps_of", "watchers"), HOST),
    **dict.fromkeys(("node_owners", "drop_tokens", "export_device_tokens"), OWNER),
    **dict.fromkeys(("delete_device_tokens_of", "held_on"), OWNER),
    **dict.fromkeys(("show_rooms", "export_room_memberships", "delete_room_members_of"), ROOM),
    **dict.fromkeys(("export_room_messages", "export_room_entries", "members_behind", "move_into_base"), ROOM),
    **dict.fromkeys(("read_behind", "recount", "read_rows", "settle", "too_much"), ROOM),
    **dict.fromkeys(("lock", "hold_accounts", "move_watchers"), LOCK),
    **dict.fromkeys(("trim_messages", "trim_changes", "trim_calls", "trim_jobs", "bury"), PLACE),
}
LISTS = [*(page_text(**page) for page in PAGES), NAMED]  # the newest message of a room is the room's
DELTA_TEXTS = [delta_text(**chosen) for chosen in DELTAS]


def bound(node: dict[str, Any]) -> str:
    """How a scan of a distributed table is bound: `one`, `each`, or what there is in place of it."""
    said = " ".join(str(node.get(key, "")) for key in ("Index Cond", "Recheck Cond", "Filter"))
    key = rf"(?<![\w.]){DISTRIBUTED[node['Relation Name']]}\b(?!\.)"
    if re.search(rf"{key} = [^()]*(?:\([^()]*\))?\)+ OR ", said):  # or something else
        return f"{node['Relation Name']}: {said.strip()}"
    if re.search(rf"{key} = \$\d", said):
        return "one"
    row = re.search(rf"{key} = (?:ANY \(\$|{NAMES})|{NAMES} = {key}", said)
    return "each" if row else f"{node['Relation Name']}: {said.strip() or node['Node Type']}"


async def reach(connection: asyncpg.Connection, text: str) -> set[str]:
    """`one` and `each` for what stays in the shards that it names; what does not is told in words."""
    whole = nodes(json.loads(await plan(connection, text))[0]["Plan"])
    scans = [node for node in whole if node.get("Relation Name") in DISTRIBUTED and "Scan" in node["Node Type"]]
    found = {bound(node) for node in scans}
    tables = {node["Relation Name"] for node in whole if node.get("Relation Name") in DISTRIBUTED}
    if tables & OF_ROOMS and tables - OF_ROOMS - {"message", "bootstrap"}:  # which rooms have, too
        found.add("rooms and accounts")
    if "FOR UPDATE" in text and "one" not in found:
        found.add("locks")
    return found


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
async def test_a_statement_stays_in_its_shards_or_is_named(filled: asyncpg.Connection, name: str) -> None:
    beyond = await reach(filled, sql(name)) - {"one", "each"}
    assert bool(beyond) == (name in EXCEPTIONS), beyond


async def test_a_delta_stays_in_its_shard(filled: asyncpg.Connection) -> None:
    for text in DELTA_TEXTS:
        beyond = await reach(filled, text) - {"one", "each"}
        assert all(one.startswith("message: ((account = c.peer)") for one in beyond), beyond


async def test_a_list_leaves_its_shard_for_messages_of_rooms_only(filled: asyncpg.Connection) -> None:
    for text in LISTS:
        for one in await reach(filled, text) - {"one", "each"}:
            assert one.startswith(("message: ((account = c.peer)", "message: ((account = c_1.peer)")), one


def test_every_exception_is_in_the_manual() -> None:
    text = (REPOSITORY / "docs" / "wide.md").read_text()
    assert [name for name in EXCEPTIONS if f"`{name}`" not in text] == []
    assert set(EXCEPTIONS) <= set(statements())


async def test_the_script_distributes_every_table_by_a_column_of_its_primary_key(filled: asyncpg.Connection) -> None:
    """And of every unique index, without which Citus would refuse it."""
    tables = await filled.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {name for (name,) in tables} == {*DISTRIBUTED, *EVERYWHERE}
    unique = await filled.fetch(
        "SELECT c.relname AS name, ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = i.indexrelid) AS columns "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE i.indisunique AND n.nspname = 'public'"
    )
    assert {row["name"] for row in unique} >= set(DISTRIBUTED)
    for row in unique:
        assert row["name"] in EVERYWHERE or DISTRIBUTED[row["name"]] in row["columns"], row


async def test_this_test_knows_what_leaves_its_shard(filled: asyncpg.Connection) -> None:
    assert await reach(filled, "SELECT * FROM message WHERE account = $1") == {"one"}
    assert await reach(filled, "SELECT * FROM account WHERE jid = ANY ($1::text[])") == {"each"}
    assert await reach(filled, "SELECT * FROM account WHERE jid = ANY ($1::text[]) FOR UPDATE") == {"each", "locks"}
    (everywhere,) = await reach(filled, "SELECT * FROM conversation WHERE version = $1")
    assert everywhere.startswith("conversation: ")
    both = "SELECT * FROM room_member m JOIN conversation c USING (account) WHERE m.room = $1"
    assert "rooms and accounts" in await reach(filled, both)
