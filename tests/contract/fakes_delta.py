"""Deltas of the store in memory: what `Store.delta` and `Store.call` promise, in the words of their queries."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from sync.model.call import Call, CallState
from sync.model.conversation import Change, Conversation, Status, key_of
from sync.model.delta import MAX_CALLS, MAX_CHANGES, MAX_STANZA_BYTES, CallQuery, DeltaItem, DeltaPage, DeltaQuery
from sync.model.jid import bare
from tests.contract.fakes_tables import Tables

Mention = Callable[[Conversation], str | None]


def delta(tables: Tables, account: str, query: DeltaQuery, mention: Mention) -> DeltaPage | None:
    owner = tables.accounts.get(account)
    if owner is None:
        return None
    mine = [c for c in tables.conversations.values() if c.key.account == account]
    found = sorted((c for c in mine if asked_for(c, query)), key=lambda c: -c.version)
    calls = [call for call in tables.calls.values() if call.key.account == account and query.begins]
    ringing = [call for call in calls if call.state is CallState.RINGING]
    settled = [call for call in calls if query.since and call.version > query.since and has_settled(call)]
    return DeltaPage(
        query=query,
        owner=owner,
        ringing=newest_calls(ringing)[:MAX_CALLS],
        settled=tuple(sorted(settled, key=lambda call: (call.version, call.key.sid), reverse=True)[:MAX_CALLS]),
        items=tuple(item(tables, c, query, mention) for c in found[: query.limit]),
        more=len(found) > query.limit,
    )


def newest_calls(calls: Iterable[Call]) -> tuple[Call, ...]:
    """Two may be proposed in one microsecond."""
    return tuple(sorted(calls, key=lambda call: (call.proposed_at, call.version, call.key.sid), reverse=True))


def has_settled(call: Call) -> bool:
    return call.state is not CallState.RINGING and bare(call.caller) != call.key.account


def asked_for(c: Conversation, query: DeltaQuery) -> bool:
    in_range = query.since < c.version and (query.below is None or c.version < query.below)
    if query.since:
        return in_range and query.filters.concern(c)
    return in_range and query.filters.match(c) and c.status is not Status.DELETED


def item(tables: Tables, c: Conversation, query: DeltaQuery, mention: Mention) -> DeltaItem:
    matches = c.status is Status.DELETED or query.filters.match(c)
    if not matches or c.status is Status.DELETED:
        return DeltaItem(conversation=replace(c, last=None), matches=matches)
    size = len(c.last.stanza.encode()) if c.last else 0
    brings = query.messages and size <= MAX_STANZA_BYTES
    return DeltaItem(
        conversation=c if brings else replace(c, last=None),
        mention_id=mention(c),
        left_out=query.messages and not brings,
        changes=log(tables, c, query),
    )


def log(tables: Tables, c: Conversation, query: DeltaQuery) -> tuple[Change, ...] | None:
    if not query.since or not query.changes:
        return ()
    entries = [change for _, change in sorted(tables.changes.items(), key=lambda entry: entry[0][1])]
    entries = [change for change in entries if change.conversation == c.key and change.version > query.log]
    size = sum(len((change.stanza or "").encode()) for change in entries)
    if c.log_from > query.log or len(entries) > MAX_CHANGES or size > MAX_STANZA_BYTES:
        return None
    return tuple(entries)


def newest_call(tables: Tables, account: str, query: CallQuery) -> Call | None:
    named = [
        call for key, call in tables.calls.items() if (key.account, key.sid) == (account, key_of(query.session_id))
    ]
    found = [call for call in named if query.peer in (None, call.key.peer)]
    return max(found, key=lambda call: call.version, default=None)
