"""Locks and loads the rows of a transaction, in the one order that every writer keeps (invariant 10).

Locking and reading are separate statements: under READ COMMITTED each statement sees what was committed before it
began, so what is read after the lock is the newest there is.
"""

from operator import itemgetter

from sync.adapters.postgres import rows
from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import sql
from sync.model.books import Books, Keys, LanePosition
from sync.model.conversation import ConversationKey
from sync.ports import Clock
from sync.rules.times import microseconds


async def books(connection: Connection, keys: Keys, clock: Clock) -> Books:
    """The rows that `keys` name, locked."""
    found = Books(now=clock.now())
    await lock(connection, keys, found, clock)
    # The instant of the transaction is taken under the lock: a version must not be older than what the lock waited for.
    found.now = clock.now()
    await named_rows(connection, keys, found)
    if keys.unread_of:
        found.unread = {key: [] for key in keys.unread_of}
        for row in await connection.fetch(sql("read_unread"), *columns(map(parts, keys.unread_of), 3)):
            found.unread[rows.key(row)] = row["ranks"] or []
    return found


async def lock(connection: Connection, keys: Keys, found: Books, clock: Clock) -> None:
    """The lanes' positions (one that is not there is at zero) and the accounts, made where asked for."""
    where = [(p.host, p.stream, p.shard, p.lane) for p in keys.positions]
    names = sorted(keys.accounts)
    locked = await connection.fetchrow(sql("lock"), *columns(where, 4), names)
    missing = keys.create and len(locked["accounts"]) < len(names)
    if missing or len(locked["positions"]) < len(where):
        # Only the first event of an account or a lane comes here. The second round may meet another transaction's locks
        # out of order; the database then ends one of the two, and it runs again.
        await connection.execute(sql("create_positions"), *columns(where, 4))
        if missing:
            await connection.execute(sql("create_accounts"), names, microseconds(clock.now()))
        locked = await connection.fetchrow(sql("lock"), *columns(where, 4), names)
    for row in filter(itemgetter("n"), locked["positions"]):
        found.positions[LanePosition(row["host"], row["stream"], row["shard"], row["lane"])] = row["n"]
    for row in locked["accounts"]:
        found.accounts[row["jid"]] = rows.account(row)


async def named_rows(connection: Connection, keys: Keys, found: Books) -> None:
    """What the locks protect: conversations, messages by id, calls, devices and jobs."""
    owners = owners_of_devices(keys, found)
    if not (keys.conversations or keys.calls or keys.ids or keys.archived or owners):
        return
    ids, archived = (
        [(*parts(conversation), identifier) for conversation, identifier in lookups]
        for lookups in (keys.ids, keys.archived)
    )
    read = await connection.fetchrow(
        sql("read_rows"),
        *columns(map(parts, keys.conversations), 3),
        *columns(keys.calls, 2),
        *columns(ids, 4),
        *columns(archived, 4),
        owners,
    )
    for row in read["conversations"]:
        found.conversations[rows.key(row)] = rows.conversation(row)
    for call in map(rows.call, read["calls"]):
        found.calls[call.key] = call
    for message in map(rows.message, read["messages"]):
        found.messages.setdefault(message.conversation, []).append(message)
    for device in map(rows.device, read["devices"]):
        found.devices.setdefault(device.account, []).append(device)
    for job in map(rows.job, read["jobs"]):
        found.jobs.setdefault(job.account, []).append(job)


def owners_of_devices(keys: Keys, found: Books) -> list[str]:
    """Whose devices and jobs are read. The feed, which makes accounts, passes over those without devices, as most
    are; whoever comes for a job must find it, also when its device has left.
    """
    if not keys.devices:
        return []
    return [account.jid for account in found.accounts.values() if account.devices or not keys.create]


def parts(key: ConversationKey) -> tuple[str, str, str]:
    """A conversation's key as columns."""
    return key.account, key.peer, key.kind
