"""The statement of a delta's page: the account, its calls, the conversations that changed with their mentions and
change logs, all of one snapshot.

Conversations are found by their versions, newest first, so what is read follows what changed, and a page what it shows.
No text is brought that is too large to be shown, or of a conversation of which nothing else is told. The calls come
with the first row only. The text depends on which filters there are, so that the server keeps few plans.
"""

from collections.abc import Sequence
from functools import lru_cache

from sync.adapters.postgres import rows
from sync.adapters.postgres.listing import FIRST_MENTION, NEWEST_CALLS, SHOWN
from sync.model.delta import MAX_CALLS, MAX_CHANGES, MAX_STANZA_BYTES, DeltaItem, DeltaPage, DeltaQuery

Arguments = tuple[object, ...]

_FULL = "c.matches AND c.status <> 'deleted'"
_BRINGS = f"$3::boolean AND {_FULL} AND octet_length(c.last_stanza) <= {MAX_STANZA_BYTES}"
_RINGING = f"""ARRAY(
        SELECT call FROM call WHERE call.account = $1 AND call.state = 'ringing'
        ORDER BY {NEWEST_CALLS} LIMIT {MAX_CALLS})"""  # noqa: S608 - pieces of ours, no input
_SETTLED = f"""ARRAY(
        SELECT call FROM call
        WHERE call.account = $1 AND call.version > $4 AND call.state NOT IN ('ringing', 'outgoing')
            AND split_part(call.caller, '/', 1) <> call.account
        ORDER BY call.version DESC, call.sid DESC LIMIT {MAX_CALLS})"""  # noqa: S608 - as above
_LOG = f"""LEFT JOIN LATERAL (
    SELECT count(*) AS entries, coalesce(sum(octet_length(found.stanza)), 0) AS size,
        array_agg(found.change ORDER BY found.version) AS log
    FROM (
        SELECT change, change.version, change.stanza FROM change
        WHERE $6::boolean AND {_FULL} AND c.log_from <= $5
            AND (change.account, change.peer, change.kind) = (c.account, c.peer, c.kind) AND change.version > $5::bigint
        ORDER BY change.version LIMIT {MAX_CHANGES} + 1
    ) AS found
) AS told ON true"""  # noqa: S608 - as above
_WHOLE = f"c.log_from <= $5 AND told.entries <= {MAX_CHANGES} AND told.size <= {MAX_STANZA_BYTES}"


def delta_statement(account: str, query: DeltaQuery) -> tuple[str, Arguments]:
    """The SQL and its arguments. One row more than asked for says whether there are more."""
    filters = query.filters
    text = delta_text(
        delta=query.since > 0,
        begins=query.begins,
        peer=filters.peer is not None,
        kind=filters.kind is not None,
        status=filters.status is not None,
        unread=filters.unread,
        pinned=filters.pinned,
    )
    arguments: list[object] = [account, query.limit + 1, query.messages]
    if query.since:
        arguments += [query.since, query.log, query.changes]
    arguments += [value for value in (query.below, filters.peer, filters.kind, filters.status) if value is not None]
    return text, tuple(arguments)


@lru_cache(maxsize=256)
def delta_text(
    *, delta: bool, begins: bool, peer: bool, kind: bool, status: bool, unread: bool | None, pinned: bool | None
) -> str:
    """The statement for one combination of filters."""
    number = 6 if delta else 3
    rules = ["c.account = $1"]
    asked: list[str] = []
    if delta:
        rules.append("c.version > $4::bigint")
    for given, where, rule in (
        (not begins, rules, "c.version < ${}::bigint"),
        (peer, rules, "c.peer = ${}::text"),
        (kind, rules, "c.kind = ${}::text"),
        (status, asked, "c.status = ${}::text"),
    ):
        if given:
            number += 1
            where.append(rule.format(number))
    if unread is not None:
        asked.append("(c.unread > 0 OR c.marked_unread)" if unread else "c.unread = 0 AND NOT c.marked_unread")
    if pinned is not None:
        asked.append("c.pinned > 0" if pinned else "c.pinned = 0")
    matches = " AND ".join(asked) or "true"
    if not delta:
        # All but deleted ones; what does not match is nothing to this client yet.
        rules += ["c.status <> 'deleted'", *asked]
    calls = f"""
    CASE WHEN coalesce(c.place, 1) = 1 THEN {_RINGING} END AS ringing_calls,
    {f"CASE WHEN coalesce(c.place, 1) = 1 THEN {_SETTLED} END" if delta else "NULL"} AS settled_calls,"""
    log = f"NOT ({_WHOLE}) AS torn, CASE WHEN {_WHOLE} THEN told.log END AS log"
    return f"""
WITH page AS (
    SELECT c.*, c.status = 'deleted' OR {matches} AS matches, row_number() OVER (ORDER BY c.version DESC) AS place
    FROM conversation c WHERE {" AND ".join(rules)} ORDER BY c.version DESC LIMIT $2::bigint
)
SELECT a AS owner,{calls if begins else ""} {log if delta else "false AS torn, NULL AS log"},
    {SHOWN}, c.matches, CASE WHEN c.mentions > 0 AND {_FULL} THEN ({FIRST_MENTION}) END AS mention_id,
    CASE WHEN {_BRINGS} THEN c.last_rank END AS last_rank, CASE WHEN {_BRINGS} THEN c.last_stanza END AS last_stanza,
    $3 AND {_FULL} AND octet_length(c.last_stanza) > {MAX_STANZA_BYTES} AS left_out
FROM account a LEFT JOIN page c ON true {_LOG if delta else ""}
WHERE a.jid = $1 ORDER BY c.version DESC"""  # noqa: S608 - pieces of ours, no input


def delta_page(query: DeltaQuery, found: Sequence[rows.Row]) -> DeltaPage | None:
    """The page that the statement's rows are; None without any: there is no such account."""
    if not found:
        return None
    first = found[0]
    return DeltaPage(
        query=query,
        owner=rows.account(first["owner"]),
        ringing=tuple(map(rows.call, first["ringing_calls"] or ())) if query.begins else (),
        settled=tuple(map(rows.call, first["settled_calls"] or ())) if query.begins else (),
        items=tuple(_item(query, row) for row in found[: query.limit] if row["peer"] is not None),
        more=len(found) > query.limit and first["peer"] is not None,
    )


def _item(query: DeltaQuery, row: rows.Row) -> DeltaItem:
    changes = None if query.changes and row["torn"] else tuple(map(rows.change, row["log"] or ()))
    return DeltaItem(
        conversation=rows.conversation(row),
        matches=row["matches"],
        mention_id=row["mention_id"],
        left_out=bool(row["left_out"]),
        changes=changes if row["matches"] and row["status"] != "deleted" else (),
    )
