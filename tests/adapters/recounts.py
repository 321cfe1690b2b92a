"""Counters, recounted by the database: statements of this test's own, by definition and without any cleverness."""

import asyncpg

# What is unread: in the conversation's own index, and of a room of this server in the room's, as far as it was taken.
UNREAD = """
SELECT c.account, c.peer, c.kind, c.unread, c.mentions, c.ringing, c.taken,
    c.base_unread + (
        SELECT count(*) FROM message m WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
        AND m.counted AND m.retracted IS NULL AND m.rank > c.read_rank AND m.rank > c.base_rank) + (
        SELECT count(*) FROM message m WHERE c.kind = 'group' AND m.account = c.peer AND m.peer = c.peer
        AND m.kind = 'group' AND m.author <> c.account AND m.counted AND coalesce(m.retracted > c.taken, true)
        AND m.rank > c.read_rank AND m.rank > c.base_rank AND m.rank <= c.taken) AS unread_found,
    c.base_mentions + (
        SELECT count(*) FROM message m WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind) AND m.mention
        AND m.counted AND m.retracted IS NULL AND m.rank > c.read_rank AND m.rank > c.base_rank) + (
        SELECT count(*) FROM message m WHERE c.kind = 'group' AND m.account = c.peer AND m.peer = c.peer
        AND m.kind = 'group' AND m.author <> c.account AND m.counted AND coalesce(m.retracted > c.taken, true)
        AND (m.mention OR array_position(m.mentions, c.account) IS NOT NULL)
        AND m.rank > c.read_rank AND m.rank > c.base_rank AND m.rank <= c.taken) AS mentions_found,
    (SELECT count(*) FROM call WHERE call.account = c.account AND call.peer = c.peer AND call.kind = c.kind
        AND call.state = 'ringing') AS ringing_found
FROM conversation c"""
# Who has left a room of this server counts on what it had: the room's index goes on without it, until the member has
# taken that it is back.
WRONG = f"""
SELECT * FROM ({UNREAD}) AS found
WHERE (unread, mentions, ringing) <> (unread_found, mentions_found, ringing_found) AND NOT (
    kind = 'group' AND EXISTS (SELECT FROM room WHERE jid = peer)
    AND NOT EXISTS (
        SELECT FROM room_member m WHERE m.room = peer AND m.account = found.account AND m.since <= found.taken))"""  # noqa: S608
TOTALS = """
SELECT a.* FROM account a JOIN (
    SELECT account, sum(unread) AS unread, sum(mentions) AS mentions, count(*) FILTER (WHERE unread > 0) AS many,
        max(version) AS version
    FROM conversation GROUP BY account) AS c ON c.account = a.jid
WHERE (a.unread, a.mentions, a.unread_conversations) <> (c.unread, c.mentions, c.many)
    OR a.version < c.version OR a.version < a.floor
    OR a.devices <> (SELECT count(*) FROM device d WHERE d.account = a.jid)"""
SAME_VERSION = "SELECT account, version FROM conversation GROUP BY account, version HAVING count(*) > 1"


async def wrong_rows(connection: asyncpg.Connection) -> list[dict[str, object]]:
    """Rows that do not balance."""
    found = [row for statement in (WRONG, TOTALS, SAME_VERSION) for row in await connection.fetch(statement)]
    return [dict(row) for row in found]
