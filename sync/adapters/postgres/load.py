"""Loads the rows of a transaction, under the locks of the one order that every writer keeps (invariant 10).

Locking and reading are separate statements: under READ COMMITTED each statement sees what was committed before it
began, so what is read after the lock is the newest there is.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

from sync.adapters.postgres import push_rows, room_rows, rows
from sync.adapters.postgres.pool import Connection
from sync.adapters.postgres.rows import columns
from sync.adapters.postgres.statements import sql
from sync.model.books import Books, Keys, LanePosition
from sync.model.conversation import Behind, ConversationKey, Kind
from sync.ports import Clock
from sync.rules.times import microseconds


class Missing(Exception):
    """A row that is to be locked is not there yet, or was not when the others were locked: only the first event of an
    account, a room or a lane meets this.
    """


def locks(keys: Keys) -> Sequence[Sequence[object]]:
    """What `lock` takes: the lanes' positions, rooms and accounts."""
    return [*columns(lanes(keys), 4), sorted(keys.rooms), sorted(keys.accounts)]


async def books(connection: Connection, keys: Keys, clock: Clock, held: int) -> Books:
    """The rows that `keys` name; so many of them are locked. Raises `Missing`."""
    # The instant of the transaction is taken under the lock: a version must not be older than what the lock waited for.
    found = Books(now=clock.now())
    await named_rows(connection, keys, found, held)
    await what_is_behind(connection, keys, found)
    return found


async def create(connection: Connection, keys: Keys, clock: Clock) -> None:
    """Make the rows that are missing, outside of any transaction: each statement commits by itself and holds no lock
    for which another writer, that locks in order, could be waiting. A row that stays without content harms nobody.
    """
    await connection.execute(sql("create_positions"), *columns(lanes(keys), 4))
    if keys.create:
        await connection.execute(sql("create_rooms"), sorted(keys.rooms), microseconds(clock.now()))
        await connection.execute(sql("create_accounts"), sorted(keys.accounts), microseconds(clock.now()))


def lanes(keys: Keys) -> list[tuple[str, str, str, int]]:
    """The lanes' positions as columns."""
    return [(p.host, p.stream, p.shard, p.lane) for p in keys.positions]


async def named_rows(connection: Connection, keys: Keys, found: Books, held: int) -> None:
    """Positions (one that is not there is at zero), rooms and accounts, and what the locks protect: conversations,
    messages by id, calls, devices and jobs, members of rooms.
    """
    where = lanes(keys)
    rooms, names = list(keys.rooms), list(keys.accounts)
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
        whose_devices(keys),
        *(column for wanted in (keys.members, keys.nicks, keys.occupants) for column in columns(wanted, 2)),
        *columns([(key.account, key.peer) for key in keys.lines], 2),
        *columns(where, 4),
        rooms,
        names,
    )
    missing = keys.create and len(read["rooms"]) + len(read["accounts"]) < len(rooms) + len(names)
    # What somebody made between the lock and the look is seen and not locked: two could write it at once.
    unlocked = len(read["positions"]) + len(read["rooms"]) + len(read["accounts"]) > held
    if missing or unlocked or len(read["positions"]) < len(where):
        raise Missing
    for row in filter(itemgetter("n"), read["positions"]):
        found.positions[LanePosition(row["host"], row["stream"], row["shard"], row["lane"])] = row["n"]
    for row in read["rooms"]:
        found.rooms[row["jid"]] = room_rows.room(row)
    for row in read["accounts"]:
        found.accounts[row["jid"]] = rows.account(row)
    for row in read["conversations"]:
        found.conversations[rows.key(row)] = rows.conversation(row)
    for call in map(rows.call, read["calls"]):
        found.calls[call.key] = call
    for message in map(rows.message, read["messages"]):
        found.messages.setdefault(message.conversation, []).append(message)
    if keys.places:
        at = columns([(*parts(key), rank) for key, rank in keys.places], 4)
        for message in map(rows.message, await connection.fetch(sql("read_places"), *at)):
            found.messages.setdefault(message.conversation, []).append(message)
    for device in map(rows.device, read["devices"]):
        found.devices.setdefault(device.account, []).append(device)
    for job in map(push_rows.job, read["jobs"]):
        found.jobs.setdefault(job.account, []).append(job)
    for member in map(room_rows.member, read["members"]):
        found.members[member.room, member.account] = member


async def what_is_behind(connection: Connection, keys: Keys, found: Books) -> None:
    """What is unread behind the marks and behind the messages that were found, if anything is unread at all."""
    wanted = {*keys.marks, *ranks_found(keys, found)}
    found.behind = dict.fromkeys(wanted, Behind(0, 0))
    counted = [(*parts(key), rank) for key, rank in wanted if may_be_unread(key, keys, found)]
    if not counted:
        return
    for row in await connection.fetch(sql("read_behind"), *columns(counted, 4)):
        found.behind[rows.key(row), row["rank"]] = Behind(row["unread"], row["mentions"], row["first"])


def ranks_found(keys: Keys, found: Books) -> Iterator[tuple[ConversationKey, int]]:
    """The ranks of the messages that were looked up, in the conversations of `behind` that they count for: a place in
    one with a peer is a place in all with that peer.

    A room's index serves all of its members: a message counts for those who asked for it, with what it is about. Many
    members' markers in one batch would otherwise be counted for one another.
    """
    asking: dict[tuple[str, str], list[ConversationKey]] = {}
    for key, identifier in keys.ids | keys.archived:
        if key.kind is Kind.GROUP and key in keys.behind:
            asking.setdefault((key.peer, identifier), []).append(key)
    alike: dict[ConversationKey, list[ConversationKey]] = {}
    for key in keys.behind:
        alike.setdefault(key.plain, []).append(key)
    for where, messages in found.messages.items():
        if asked := alike.get(where.plain):
            yield from ((key, message.rank) for key in asked for message in messages)
        elif where.kind is Kind.GROUP and where.account == where.peer:
            for message in messages:
                ids = (message.message_key, message.origin_key, message.archive_key)
                for key in {key for name in ids if name is not None for key in asking.get((where.peer, name), ())}:
                    yield from ((key, rank) for rank in (message.rank, message.about) if rank is not None)


def may_be_unread(key: ConversationKey, keys: Keys, found: Books) -> bool:
    """False for what was loaded and has nothing unread."""
    conversation = found.conversations.get(key)
    return conversation.unread > 0 if conversation else key not in keys.conversations


def whose_devices(keys: Keys) -> str:
    """Whose devices and jobs are read. The feed, which makes accounts, passes over those without devices, as most
    are; whoever comes for a job must find it, also when its device has left.
    """
    if not keys.devices:
        return "none"
    return "some" if keys.create else "all"


def parts(key: ConversationKey) -> tuple[str, str, str]:
    """A conversation's key as columns."""
    return key.account, key.peer, key.kind
