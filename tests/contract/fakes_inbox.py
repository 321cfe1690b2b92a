"""Inboxes of the store in memory: what `Store.inbox` promises, in the words of its query."""

from dataclasses import replace

from sync.model.conversation import Conversation, ConversationKey, Status
from sync.model.query import InboxEntry, InboxPage, InboxPlace, InboxQuery
from sync.rules.times import microseconds
from tests.contract.fakes_tables import Tables


def inbox(tables: Tables, account: str, query: InboxQuery) -> InboxPage:
    owner = tables.accounts.get(account)
    if owner is None:
        return InboxPage(query=query)
    mine = [c for c in tables.conversations.values() if c.key.account == account]
    whole = merged(mine) if query.merged else [c for c in mine if c.status is not Status.DELETED]
    listed = sorted((c for c in whole if c.unread or not query.unread_only), key=place)
    return InboxPage(
        query=query,
        version=owner.version,
        items=tuple(entry(tables, c, query) for c in page(listed, query)),
        total=len(whole),
        unread_conversations=sum(c.unread > 0 for c in whole) if query.merged else owner.unread_conversations,
        unread=owner.unread,
        floor=owner.floor,
    )


def merged(mine: list[Conversation]) -> list[Conversation]:
    """One for all with a peer: what is shown of those that are not deleted, with the newest version of all."""
    found = []
    for key in {c.key.plain for c in mine}:
        alike = [c for c in mine if c.key.plain == key]
        shown = [c for c in alike if c.status is not Status.DELETED]
        if shown:
            lasts = [c.last for c in shown if c.last is not None]
            one = replace(
                shown[0],
                key=key,
                version=max(c.version for c in alike),
                activity_at=max(c.activity_at for c in shown),
                unread=sum(c.unread for c in shown),
                last=max(lasts, key=lambda last: last.rank, default=None),
            )
            found.append(one)
    return found


def page(listed: list[Conversation], query: InboxQuery) -> list[Conversation]:
    if query.at_end:
        return listed[max(0, len(listed) - query.limit) :]
    if query.before:
        above = [c for c in listed if place(c) < place_of(query.before)]
        return above[max(0, len(above) - query.limit) :]
    if query.after is None:
        return listed[: query.limit]
    begun, shown = query.after.newest, query.after.version
    unchanged = [c for c in listed if shown <= begun >= c.version and place(c) > place_of(query.after)]
    changed = sorted((c for c in listed if c.version > max(begun, shown)), key=lambda c: c.version)
    return (unchanged + changed)[: query.limit]


def place(c: Conversation) -> tuple[int, str, str]:
    return -microseconds(c.activity_at), c.key.peer, c.key.kind


def place_of(known: InboxPlace) -> tuple[int, str, str]:
    return -known.activity, known.peer, known.kind


def entry(tables: Tables, c: Conversation, query: InboxQuery) -> InboxEntry:
    most, last = query.preview_bytes, c.last
    shown = last if last and most is not None and len(last.stanza.encode()) <= most else None
    activity, archived = microseconds(c.activity_at), newest_id(tables, c, merged=query.merged)
    return InboxEntry(key=c.key, version=c.version, activity=activity, unread=c.unread, archive_id=archived, last=shown)


def newest_id(tables: Tables, c: Conversation, *, merged: bool) -> str | None:
    if c.last is None:
        return None
    keys = [key for key in (c.key.alike if merged else (c.key,)) if is_shown(tables, key)]
    known = [
        (message.rank, message.archive_id)
        for (key, rank), message in tables.messages.items()
        if message.archive_key is not None
        if key in keys or (key.account == key.peer == c.key.peer and key.kind is c.key.kind and rank <= c.taken)
    ]
    return max(known)[1] if known else c.last.archive_id


def is_shown(tables: Tables, key: ConversationKey) -> bool:
    return key in tables.conversations and tables.conversations[key].status is not Status.DELETED
