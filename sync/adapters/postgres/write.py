"""Writes what a rule decided: one statement for each table that changed, whole batches as arrays."""

from collections.abc import Iterable, Sequence

from sync.adapters.postgres import rows
from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import STATE_TABLES, sql
from sync.model.books import Writes


async def writes(connection: Connection, out: Writes) -> None:
    """All of it, accounts first (invariant 10)."""
    if out.deleted_accounts:
        await delete_accounts(connection, out.deleted_accounts)
    await batch(connection, "write_accounts", map(rows.account_row, out.accounts))
    await batch(connection, "write_conversations", map(rows.conversation_row, out.conversations))
    await batch(connection, "write_messages", map(rows.message_row, out.messages))
    await batch(connection, "write_changes", map(rows.change_row, out.changes))
    await batch(connection, "erase_changes", ((key.account, key.peer, key.kind, rank) for key, rank in out.erased))
    await batch(connection, "write_calls", map(rows.call_row, out.calls))
    await devices(connection, out)
    await batch(connection, "write_jobs", map(rows.job_row, out.jobs))
    await batch(
        connection, "write_positions", ((p.host, p.stream, p.shard, p.lane, n) for p, n in out.positions.items())
    )
    await batch(
        connection,
        "write_quarantine",
        (
            (q.position.host, q.position.stream, q.position.shard, q.position.n, q.account, q.why, q.event)
            for q in out.quarantined
        ),
    )


async def batch(connection: Connection, name: str, values: Iterable[Sequence[object]]) -> None:
    """One statement with its rows as parallel arrays; nothing when there are none."""
    found = columns(values, 0)
    if found:
        await connection.execute(sql(name), *found)


async def devices(connection: Connection, out: Writes) -> None:
    """Devices that left, then those that came or changed, with the tokens that they hold now."""
    await batch(connection, "drop_tokens", out.deleted_devices)
    await batch(connection, "delete_devices", out.deleted_devices)
    if not out.devices:
        return
    held = {  # by token: a phone may give the same one for alerts and calls
        (device.app, device.environment, token.digest): (device.account, device.device_id)
        for device in out.devices
        for token in (device.alert_token, device.voip_token)
        if token is not None
    }
    await batch(connection, "write_devices", map(rows.device_row, out.devices))
    await batch(connection, "drop_tokens", ((device.account, device.device_id) for device in out.devices))
    await batch(connection, "claim_tokens", ((*token, *holder) for token, holder in held.items()))


async def delete_accounts(connection: Connection, accounts: list[str]) -> None:
    """Everything that is held on these accounts."""
    for table in STATE_TABLES:
        await connection.execute(sql(f"delete_{table}s_of"), accounts)
    await connection.execute(sql("delete_accounts"), accounts)
