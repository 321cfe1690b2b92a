"""Locks and loads the rows of a transaction, in the one order that every writer keeps (invariant 10).

Locking and reading are separate statements: under READ COMMITTED each statement sees what was committed before it
began, so what is read after the lock is the newest there is.
"""

from sync.adapters.postgres import rows
from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import sql
from sync.model.books import Books, Keys, LanePosition
from sync.model.conversation import ConversationKey
from sync.ports import Clock


async def books(connection: Connection, keys: Keys, clock: Clock) -> Books:
    """The rows that `keys` name, locked."""
    found = Books(now=clock.now())
    await positions(connection, keys, found)
    await accounts(connection, keys, found)
    # The instant of the transaction is taken under the lock: a version must not be older than what the lock waited for.
    found.now = clock.now()
    wanted = set(keys.conversations)
    if keys.calls:
        for row in await connection.fetch(sql("read_calls"), *columns(keys.calls, 2)):
            call = rows.call(row)
            found.calls[call.key] = call
            wanted.add(ConversationKey(call.key.account, call.key.peer))
    await conversations(connection, keys, wanted, found)
    if keys.devices:
        await devices(connection, keys, found)
    return found


async def positions(connection: Connection, keys: Keys, found: Books) -> None:
    """The lanes' positions; a lane without one is at zero."""
    if not keys.positions:
        return
    where = [(p.host, p.stream, p.shard, p.lane) for p in keys.positions]
    for row in await connection.fetch(sql("lock_positions"), *columns(where, 4)):
        found.positions[LanePosition(row["host"], row["stream"], row["shard"], row["lane"])] = row["n"]


async def accounts(connection: Connection, keys: Keys, found: Books) -> None:
    """The accounts, made where asked for."""
    if not keys.accounts:
        return
    names = sorted(keys.accounts)
    locked = await connection.fetch(sql("lock_accounts"), names)
    if keys.create and len(locked) < len(names):
        # Only the first event of an account comes here. The second round may meet another transaction's locks out of
        # order; the database then ends one of the two, and it runs again.
        await connection.execute(sql("create_accounts"), names)
        locked = await connection.fetch(sql("lock_accounts"), names)
    for row in locked:
        found.accounts[row["jid"]] = rows.account(row)


async def conversations(connection: Connection, keys: Keys, wanted: set[ConversationKey], found: Books) -> None:
    """The conversations, and of their message indexes what was asked for."""
    if wanted:
        for row in await connection.fetch(sql("read_conversations"), *columns(map(parts, wanted), 3)):
            found.conversations[rows.key(row)] = rows.conversation(row)
    for name, ids in (("read_messages", keys.ids), ("read_archived", keys.archived)):
        if ids:
            lookups = [(*parts(conversation), identifier) for conversation, identifier in ids]
            for row in await connection.fetch(sql(name), *columns(lookups, 4)):
                found.messages.setdefault(rows.key(row), []).append(rows.message(row))
    if keys.unread_of:
        found.unread = {key: [] for key in keys.unread_of}
        for row in await connection.fetch(sql("read_unread"), *columns(map(parts, keys.unread_of), 3)):
            found.unread[rows.key(row)] = row["ranks"] or []


async def devices(connection: Connection, keys: Keys, found: Books) -> None:
    """Devices and jobs. The feed, which makes accounts, passes over those without devices, as most are; whoever comes
    for a job must find it, also when its device has left.
    """
    owners = [account.jid for account in found.accounts.values() if account.devices or not keys.create]
    if not owners:
        return
    for row in await connection.fetch(sql("read_devices"), owners):
        found.devices.setdefault(row["account"], []).append(rows.device(row))
    calls = [(account, sid) for account, sid in keys.calls if account in set(owners)]
    for row in await connection.fetch(sql("read_jobs"), owners, *columns(calls, 2)):
        found.jobs.setdefault(row["account"], []).append(rows.job(row))


def parts(key: ConversationKey) -> tuple[str, str, str]:
    """A conversation's key as columns."""
    return key.account, key.peer, key.kind
