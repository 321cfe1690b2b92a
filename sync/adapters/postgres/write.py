"""Writes what a rule decided: one statement for each table that changed, whole batches as arrays, all in one round
trip.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from sync.adapters.postgres import bootstrap_rows, push_rows, room_rows, rows
from sync.adapters.postgres.feed import start_over
from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import STATE_TABLES, sql, together
from sync.model.books import Quarantined, Writes
from sync.model.device import Device
from sync.model.errors import TokenHeld

Rows = Iterable[Sequence[object]]


async def writes(connection: Connection, out: Writes, known: Mapping[str, Sequence[Device]] | None = None) -> None:
    """All of it, accounts first (invariant 10). `known`: devices as they are stored, by account: of those only what is
    not as it was.
    """
    touched, changed = sorted_out(out, known or {})
    if out.deleted_accounts:
        await delete_accounts(connection, out.deleted_accounts)
    # Before the members: what became of those that this transaction named stands in their rows.
    await one(connection, "end_unlisted", ((gone.room, gone.listing, gone.until) for gone in out.unlisted))
    await batches(
        connection,
        {
            "write_accounts": map(rows.account_row, out.accounts),
            "write_conversations": map(rows.conversation_row, out.conversations),
            "write_messages": map(rows.message_row, out.messages),
            "write_changes": map(rows.change_row, out.changes),
            "write_calls": map(rows.call_row, out.calls),
            "touch_devices": map(push_rows.touched_row, touched),
            "write_jobs": map(push_rows.job_row, out.jobs),
            "write_rooms": map(room_rows.room_row, out.rooms),
            "write_members": map(room_rows.member_row, out.members),
            "write_entries": map(room_rows.entry_row, out.entries),
            "write_positions": ((p.host, p.stream, p.shard, p.lane, n) for p, n in out.positions.items()),
            "write_quarantine": map(quarantined_row, out.quarantined),
        },
    )
    for lost in out.lost_hosts:
        await start_over(connection, lost.host, lost.version)
        if lost.keep is not None:
            for name in ("forget_other_streams", "forget_other_positions"):
                await connection.execute(sql(name), lost.host, lost.keep)
    await one(connection, "move_bootstraps", map(bootstrap_rows.bootstrap_row, out.bootstraps))
    # After the changes: what is erased may have come in this very transaction.
    await one(connection, "erase_changes", ((key.account, key.peer, key.kind, rank) for key, rank in out.erased))
    if out.deleted_devices or changed or out.retokened:
        await devices(connection, out, changed)


def sorted_out(out: Writes, known: Mapping[str, Sequence[Device]]) -> tuple[list[Device], list[Device]]:
    """The devices that were pushed to or have fetched and are else as they were, and the others. The others' tokens,
    names and filters are long; most writes are of the former.
    """
    stored = {(device.account, device.device_id): device for device in chain(*known.values())} if out.devices else {}
    gone, held = {*out.deleted_devices}, {(device.account, device.device_id) for device in out.retokened}
    touched: list[Device] = []
    changed: list[Device] = []
    for device in out.devices:
        key = device.account, device.device_id
        before = stored.get(key)
        plain = before is not None and key not in gone and key not in held and push_rows.is_touched(before, device)
        (touched if plain else changed).append(device)
    return touched, changed


async def batches(connection: Connection, values: Mapping[str, Rows]) -> None:
    """The named statements, those that have rows, each with its rows as parallel arrays, in one round trip."""
    names: list[str] = []
    arguments: list[Sequence[object]] = []
    for name, found in values.items():
        if arrays := columns(found, 0):
            names.append(name)
            arguments.extend(arrays)
    if names:
        await connection.execute(together(tuple(names)), *arguments)


def quarantined_row(value: Quarantined) -> tuple[object, ...]:
    """In the order of write_quarantine."""
    where = value.position
    return where.host, where.stream, where.shard, where.n, value.account, value.why, value.event


async def devices(connection: Connection, out: Writes, changed: Sequence[Device]) -> None:
    """Devices that left, then those that came or changed, with the tokens that they hold now."""
    await one(connection, "drop_tokens", out.deleted_devices)
    await one(connection, "delete_devices", out.deleted_devices)
    await one(connection, "write_devices", map(rows.device_row, changed))
    await one(connection, "drop_tokens", ((device.account, device.device_id) for device in out.retokened))
    held = {  # by token: a phone may give the same one for alerts and calls
        (device.app, device.environment, token.digest): (device.account, device.device_id)
        for device in out.retokened
        for token in (device.alert_token, device.voip_token)
        if token is not None
    }
    if not held:
        return
    tokens = [(*token, *holder) for token, holder in held.items()]
    if len(await connection.fetch(sql("claim_tokens"), *columns(tokens, 5))) < len(held):
        # Somebody registered it between the look at its owners and this transaction (`Store.token_owners`).
        raise TokenHeld


async def one(connection: Connection, name: str, found: Rows) -> None:
    """One statement with its rows."""
    await batches(connection, {name: found})


async def delete_accounts(connection: Connection, accounts: list[str]) -> dict[str, int]:
    """Everything that is held on these accounts; how many rows of each table went."""
    gone: dict[str, int] = {}
    for table, name in (*((table, f"delete_{table}s_of") for table in STATE_TABLES), ("account", "delete_accounts")):
        status: str = await connection.execute(sql(name), accounts)
        gone[table] = int(status.rpartition(" ")[2])
    return gone
