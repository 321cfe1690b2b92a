"""The statement of an inbox's page: its entries and the account's counts, out of one snapshot.

A page that follows another one has first what has not changed since the inbox was begun, and then, in the order in
which it did, what has: whoever goes on to the end holds the inbox as it was at the last page, though others wrote
meanwhile. A page that precedes another one is a matter of the present order: what is written to moves up, to where the
client is going. Only what an entry shows is read, and no message that is too large to be shown. Where encrypted chats
are kept apart, all with one peer are one entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sync.adapters.postgres import rows
from sync.model.conversation import LastMessage
from sync.model.query import InboxEntry, InboxPage, InboxQuery

Arguments = tuple[object, ...]
Part = Literal["first", "end", "before", "after", "changed"]

_ORDER = "-c.activity, c.peer, c.kind"
_REVERSED = "-c.activity DESC, c.peer DESC, c.kind DESC"
_PLACE = "($4::bigint, $5::text, $6::text)"
_IN_PAGE = f"c.part, CASE c.part WHEN 1 THEN c.version END, {_ORDER}"

# Of conversation c: corrections, retractions and reactions are in the archive as well.
_NEWEST = """(SELECT m.rank, coalesce(m.archive_id, m.archive_key) AS id FROM message m
            WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, {kind}) AND m.archive_key IS NOT NULL
            ORDER BY m.rank DESC LIMIT 1)
            UNION ALL
            (SELECT m.rank, coalesce(m.archive_id, m.archive_key) FROM message m
            WHERE c.kind = 'group' AND (m.account, m.peer, m.kind) = (c.peer, c.peer, 'group')
                AND m.rank <= c.taken AND m.archive_key IS NOT NULL
            ORDER BY m.rank DESC LIMIT 1)"""

# One entry for all conversations with a peer: what is deleted of them is not shown, and changes it. Of the newest last
# message, which is that of conversation l, only the rank is known before the page is.
_MERGED = """inbox AS MATERIALIZED (
    SELECT account, peer, CASE WHEN kind = 'group' THEN kind ELSE 'chat' END AS kind, max(version) AS version,
        max(activity) FILTER (WHERE status <> 'deleted') AS activity, sum(unread) AS unread, max(taken) AS taken,
        max(last_rank) FILTER (WHERE status <> 'deleted') AS last_rank,
        array_agg(kind) FILTER (WHERE status <> 'deleted') AS kinds
    FROM conversation WHERE account = $1 GROUP BY 1, 2, 3 HAVING bool_or(status <> 'deleted')
), """
_LAST = """LEFT JOIN LATERAL (
    SELECT * FROM conversation WHERE (account, peer, last_rank) = (c.account, c.peer, c.last_rank)
        AND kind = ANY (c.kinds) LIMIT 1) AS l ON true"""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the statement's text is made of: from where entries come, how they are counted, whose last message it is."""

    before: str
    listed: str
    total: str
    unread: str
    newest: str
    join: str
    last: str


PLAIN = Parts(
    before="",
    listed="conversation c WHERE c.account = $1 AND c.status <> 'deleted'",
    total="(SELECT count(*) FROM conversation WHERE account = $1 AND status <> 'deleted')",
    unread="a.unread_conversations",
    newest=f"SELECT found.id FROM ({_NEWEST.format(kind='c.kind')}) AS found",  # noqa: S608 - pieces of ours
    join="",
    last="c",
)
MERGED = Parts(
    before=_MERGED,
    listed="inbox c WHERE true",
    total="(SELECT count(*) FROM inbox)",
    unread="(SELECT count(*) FROM inbox WHERE unread > 0)",
    newest=f"""SELECT found.id FROM unnest(c.kinds) AS own(kind)
            CROSS JOIN LATERAL ({_NEWEST.format(kind="own.kind")}) AS found""",  # noqa: S608 - pieces of ours
    join=_LAST,
    last="l",
)


def inbox_statement(account: str, query: InboxQuery) -> tuple[str, Arguments]:
    """The SQL and its arguments."""
    arguments: list[object] = [account, query.limit, query.preview_bytes]
    part: Part = "end" if query.at_end else "first"
    if query.before is not None:
        part = "before"
        arguments += [-query.before.activity, query.before.peer, query.before.kind]
    elif query.after is not None and query.after.version > query.after.newest:
        part = "changed"
        arguments += [query.after.version]
    elif query.after is not None:
        part = "after"
        arguments += [-query.after.activity, query.after.peer, query.after.kind, query.after.newest]
    return inbox_text(part, unread_only=query.unread_only, merged=query.merged), tuple(arguments)


@lru_cache(maxsize=20)  # all there are
def inbox_text(part: Part, *, unread_only: bool, merged: bool) -> str:
    """The statement for one part of an inbox."""
    parts = MERGED if merged else PLAIN
    listed = f"FROM {parts.listed}"
    if unread_only:
        listed += " AND c.unread > 0"
    unchanged, changed = f"SELECT 0 AS part, c.* {listed}", f"SELECT 1 AS part, c.* {listed}"
    match part:
        case "first":
            page = f"{unchanged} ORDER BY {_ORDER} LIMIT $2"
        case "end":
            page = f"{unchanged} ORDER BY {_REVERSED} LIMIT $2"
        case "before":
            page = f"{unchanged} AND ({_ORDER}) < {_PLACE} ORDER BY {_REVERSED} LIMIT $2"
        case "changed":
            page = f"{changed} AND c.version > $4 ORDER BY c.version LIMIT $2"
        case "after":
            page = f"""SELECT * FROM (
                ({unchanged} AND c.version <= $7 AND ({_ORDER}) > {_PLACE} ORDER BY {_ORDER} LIMIT $2)
                UNION ALL ({changed} AND c.version > $7 ORDER BY c.version LIMIT $2)) AS c
                ORDER BY {_IN_PAGE} LIMIT $2"""  # noqa: S608 - pieces of ours, no input
    last = parts.last
    return f"""
WITH {parts.before}page AS ({page})
SELECT a.version AS newest, a.floor, a.unread AS all_unread, {parts.unread} AS unread_conversations,
    {parts.total} AS total, c.account, c.peer, c.kind, c.version, c.activity, c.unread,
    CASE WHEN c.last_rank IS NOT NULL THEN coalesce((
        {parts.newest} ORDER BY found.rank DESC LIMIT 1), {last}.last_archive_id) END AS archive_id,
    CASE WHEN octet_length({last}.last_stanza) <= $3::bigint THEN {last}.last_stanza END AS last_stanza,
    c.last_rank, {last}.last_message_id, {last}.last_archive_id, {last}.last_sent_at, {last}.last_retracted
FROM account a LEFT JOIN page c ON true {parts.join}
WHERE a.jid = $1 ORDER BY {_IN_PAGE}"""  # noqa: S608 - pieces of ours, no input


def inbox_page(query: InboxQuery, found: Sequence[rows.Row]) -> InboxPage:
    """The page that the statement's rows are; of an unknown account an empty one."""
    if not found:
        return InboxPage(query=query)
    first = found[0]
    return InboxPage(
        query=query,
        version=first["newest"],
        items=tuple(_entry(row) for row in found if row["peer"] is not None),
        total=first["total"],
        unread_conversations=first["unread_conversations"],
        unread=first["all_unread"],
        floor=first["floor"],
    )


def _entry(row: rows.Row) -> InboxEntry:
    last = None
    if row["last_stanza"] is not None:
        last = LastMessage(
            rank=row["last_rank"],
            stanza=row["last_stanza"],
            message_id=row["last_message_id"],
            archive_id=row["last_archive_id"],
            sent_at=row["last_sent_at"],
            retracted=row["last_retracted"],
        )
    return InboxEntry(
        key=rows.key(row),
        version=row["version"],
        activity=row["activity"],
        unread=row["unread"],
        archive_id=row["archive_id"],
        last=last,
    )
