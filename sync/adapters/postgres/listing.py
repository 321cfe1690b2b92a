"""The statements of conversation lists: one snapshot of the account's version, the rows of a page, their calls and
the count; and of conversations that are asked for by name.

The text depends only on which filters are there, so that the server keeps few plans. A list is ordered as `SortKey`
says; a later page, in either direction, leaves out what was bumped since page one: that comes with the next delta
(PROTOCOLS §2).
"""

from functools import lru_cache
from typing import Literal

from sync.model.query import ListQuery
from sync.protocol.conversations import MAX_PREVIEW_BYTES

Arguments = tuple[object, ...]
Part = Literal["first", "after", "before", "end"]

# Of conversation; what tells of its last message is chosen apart.
COLUMNS = (
    *("account", "peer", "kind", "version", "activity", "status", "pinned", "muted_until", "notify", "read_rank"),
    *("read_id", "displayed_rank", "displayed_id", "delivered_rank", "delivered_id", "unread", "mentions"),
    *("base_unread", "base_mentions", "base_rank", "marked_unread", "ringing", "rewritten", "log_from", "written"),
    *("requests_presence", "request_told_at", "invited_by", "private", "nick", "taken"),
    *("last_message_id", "last_archive_id", "last_sent_at", "last_retracted"),
)
SHOWN = ", ".join(f"c.{name}" for name in COLUMNS)

# What is not shown is not brought: anybody may send large messages, from as many addresses as there are.
MAX_BROUGHT_BYTES = 4 * 1024 * 1024  # last messages of an answer, which has space for a part of that
_SIZE = f"CASE WHEN octet_length(last_stanza) <= {MAX_PREVIEW_BYTES} THEN octet_length(last_stanza) END"
_BRINGS = f"octet_length(c.last_stanza) <= {MAX_PREVIEW_BYTES} AND c.brought <= {MAX_BROUGHT_BYTES}"

# Of conversation c. `message_mentioning` holds what its condition repeats, so unread messages that mention nobody cost
# nothing. A room's own index is asked for those that mean this account.
FIRST_MENTION = """
        SELECT found.id FROM (
            (SELECT m.rank, coalesce(m.archive_id, m.archive_key, m.message_key) AS id FROM message m
            WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
                AND m.rank > greatest(c.read_rank, c.base_rank)
                AND m.counted AND (m.mention OR m.mentions <> '{}') AND m.mention AND m.retracted IS NULL
            ORDER BY m.rank LIMIT 1)
            UNION ALL
            (SELECT m.rank, coalesce(m.archive_id, m.archive_key, m.message_key) FROM message m
            WHERE c.kind = 'group' AND (m.account, m.peer, m.kind) = (c.peer, c.peer, 'group')
                AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= c.taken
                AND m.counted AND (m.mention OR m.mentions <> '{}') AND (m.mention OR c.account = ANY (m.mentions))
                AND (m.retracted IS NULL OR m.retracted > c.taken) AND m.author IS DISTINCT FROM c.account
            ORDER BY m.rank LIMIT 1)
        ) AS found ORDER BY found.rank LIMIT 1"""


# Two may be proposed in one microsecond.
NEWEST_CALLS = "call.proposed_at DESC, call.version DESC, call.sid DESC"

# Of conversation c: what a list shows beside its row.
BESIDE = f"""
    CASE WHEN c.ringing > 0 THEN ARRAY(
        SELECT call FROM call WHERE (call.account, call.peer) = (c.account, c.peer) AND call.state = 'ringing'
            AND call.kind = c.kind
        ORDER BY {NEWEST_CALLS}) END AS calls,
    CASE WHEN c.mentions > 0 THEN ({FIRST_MENTION}) END AS mention_id"""  # noqa: S608 - pieces of ours, no input

# The conversations that are named by account, peer and kind.
NAMED = f"""
SELECT c.*, {BESIDE}
FROM unnest($1::text[], $2::text[], $3::text[]) AS named(account, peer, kind)
JOIN conversation c ON (c.account, c.peer, c.kind) = (named.account, named.peer, named.kind)"""  # noqa: S608 - as above


def page_statement(account: str, query: ListQuery) -> tuple[str, Arguments]:
    """The SQL and its arguments."""
    place = query.place
    arguments: list[object] = [account, query.since, query.limit]
    part: Part = "end" if query.at_end else "first"
    if place is not None:
        sort, part = place.sort, "after" if query.after else "before"
        arguments += [place.newest, not sort.ringing, -sort.pinned, -sort.activity, sort.peer, sort.kind]
    text = page_text(
        delta=query.since > 0,
        pinned_first=query.pinned_first,
        pinned=query.pinned,
        archived=query.archived,
        part=part,
    )
    return text, tuple(arguments)


@lru_cache(maxsize=144)  # all there are
def page_text(*, delta: bool, pinned_first: bool, pinned: bool | None, archived: bool | None, part: Part) -> str:
    """The statement for one combination of filters."""
    rules = ["c.account = $1", "c.version > $2"]
    if not delta:
        rules.append("c.status <> 'deleted'")
    if pinned is not None:
        rules.append("c.pinned > 0" if pinned else "c.pinned = 0")
    if archived is not None:
        rules.append("c.status = 'archived'" if archived else "c.status <> 'archived'")
    if part in ("after", "before"):
        rules.append("c.version <= $4")
    order = ["(c.ringing = 0)", "-c.pinned" if pinned_first else "0::bigint", "-c.activity", "c.peer", "c.kind"]
    place = "($5::boolean, $6::bigint, $7::bigint, $8::text, $9::text)"
    listed, nearest = ", ".join(order), ", ".join(order)
    if part in ("before", "end"):
        nearest = ", ".join(f"{one} DESC" for one in order)
    beside = {"after": f"WHERE ({listed}) > {place}", "before": f"WHERE ({listed}) < {place}"}.get(part, "")
    where = " AND ".join(rules)
    return f"""
WITH listed AS (SELECT * FROM conversation c WHERE {where}),
page AS (SELECT * FROM listed c {beside} ORDER BY {nearest} LIMIT $3::bigint),
sized AS (SELECT c.*, sum({_SIZE}) OVER (ORDER BY {listed} ROWS UNBOUNDED PRECEDING) AS brought FROM page c)
SELECT a.version AS newest, a.floor, (SELECT count(*) FROM listed) AS total, {SHOWN},
    CASE WHEN {_BRINGS} THEN c.last_rank END AS last_rank, CASE WHEN {_BRINGS} THEN c.last_stanza END AS last_stanza,
    {BESIDE}
FROM account a LEFT JOIN sized c ON true
WHERE a.jid = $1 ORDER BY {listed}"""  # noqa: S608 - pieces of ours, no input
