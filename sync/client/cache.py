"""What a client knows of its account, and what a page or notice makes of it: `apply(cache, item)`.

Pure: no I/O, no clock, no waiting; a cache is a value and never changes. The events of a step are what a client has to
be told, calls first; who applies them in order knows what the cache knows. `ask` says that something is missing which
the client has to ask for.

How the position is kept. `version` is up to where everything is here, and `token` goes on from there. A list that came
in pages, newest first, and is not at its end is a `chain`: its pages go on with the chain's token, and at its end the
version is the chain's. What live notices bring meanwhile lies behind it (`ahead`). Rows have versions of their own, so
that a page or notice that comes twice, or late, changes nothing.

A conversation that changes while a delta is paged, before its page was there, is told later with its changes since the
chain's version: those between the chain's beginning and that are told nowhere. Until the client has asked once after
the chain's end (`unsure`), a conversation that it knows only from before the chain is therefore to be loaded anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from sync.client.events import (
    CallEnded,
    CallRings,
    ConversationChanged,
    ConversationRemoved,
    Event,
    Happened,
    StartedOver,
    TotalsChanged,
)
from sync.client.values import GONE, Call, CallKey, Conversation, Key, Notice, Page, Removed, Row, Totals

MAX_ENDED_CALLS = 50  # as many as an answer tells of; they keep a late page from making one ring again
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Place(NamedTuple):
    """A version and the token that belongs to it."""

    version: int
    token: str


class Chain(NamedTuple):
    """A list that is not at its end: the version that is known at its end, the token of its next page, and the version
    since which it tells what changed; 0 = it lists everything.
    """

    version: int
    token: str
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """An account as a client knows it; `Cache()` knows nothing.

    `removed`: the versions at which conversations were removed, as long as a late page could still show them.
    `totals_at`: the version that the totals belong to. `unsure`: where the last delta of several pages began, until the
    client has asked again; 0 = it has.
    """

    version: int = 0
    token: str | None = None
    chain: Chain | None = None
    ahead: Place | None = None
    unsure: int = 0
    conversations: Mapping[Key, Conversation] = field(default_factory=dict)
    removed: Mapping[Key, int] = field(default_factory=dict)
    calls: Mapping[CallKey, Call] = field(default_factory=dict)
    totals: Totals | None = None
    totals_at: int = 0

    @property
    def head(self) -> int:
        """Up to where everything is here once the chain has come to its end."""
        return max(self.version, *(place.version for place in (self.chain, self.ahead) if place is not None), 0)

    @property
    def complete(self) -> bool:
        """True when a whole list was taken and no page is missing."""
        return self.token is not None and self.chain is None

    @property
    def ringing(self) -> tuple[Call, ...]:
        """The calls that ring, newest first."""
        return tuple(_newest_first(call for call in self.calls.values() if call.rings))

    def by_activity(self, status: str | None = None) -> list[Conversation]:
        """The conversations, newest activity first; `status`: only `active` or only `archived` ones."""
        found = [one for one in self.conversations.values() if status in (None, one.status)]
        return sorted(found, key=lambda one: (one.activity or _LONG_AGO, one.version), reverse=True)


@dataclass(frozen=True, slots=True)
class Step:
    """What became of a page or notice. `ask`: something is missing, ask with `sync`."""

    cache: Cache
    events: tuple[Event, ...] = ()
    ask: bool = False


def apply(cache: Cache, item: Page | Notice) -> Step:
    """Take an answer or a live notice."""
    return _page(cache, item) if isinstance(item, Page) else _notice(cache, item)


def glance(cache: Cache, page: Page) -> Step:
    """Take a first page that was asked for without conversations: calls and totals. The position stays, but where it
    starts over: then the whole list is still to come.
    """
    if page.reset is not None:
        return _page(cache, replace(page, more=True))
    calls, told = _calls(cache.calls, page.calls, all_at=page.version)
    cache, counted = _counted(replace(cache, calls=calls), page)
    return Step(cache, (*told, *counted))


def _page(cache: Cache, page: Page) -> Step:
    if not page.first and (cache.chain is None or cache.chain.token != page.asked):
        return Step(cache, ask=True)  # a page of a list that this client is not in the middle of
    over: tuple[Event, ...] = ()
    calls, head = cache.calls, cache.head
    if page.whole:
        if page.reset is not None or cache.conversations or cache.token is not None or cache.chain is not None:
            over = (StartedOver(page.reset or ""),)
        # Versions of another epoch say nothing about this one.
        calls = {key: replace(call, version=0) for key, call in calls.items() if call.rings}
        cache = Cache()
    calls, told = _calls(calls, page.calls, all_at=page.version if page.first else None)
    cache, changed = _rows(replace(cache, calls=calls), page.rows, unsure=cache.unsure)
    if page.first:
        # No answer from here on is older than this one.
        cache = replace(cache, removed={key: at for key, at in cache.removed.items() if at > page.version})
    cache, counted = _counted(cache, page)
    # A notice that came before a list that it is newer than was dropped with the rest.
    return Step(_moved(cache, page), (*told, *over, *changed, *counted), ask=page.whole and page.version < head)


def _moved(cache: Cache, page: Page) -> Cache:
    """Where the client is after this page."""
    known = cache.chain.version if page.first and cache.chain is not None else cache.version
    if page.version < known or (page.version == cache.version and page.more):
        return cache  # it is late: live notices, or another answer, were faster
    ahead = cache.ahead if cache.ahead is not None and cache.ahead.version > page.version else None
    since = cache.version if page.first else cache.chain.since if cache.chain is not None else 0
    if page.more:
        return replace(cache, chain=Chain(page.version, page.token, since), ahead=ahead)
    version, token = ahead or (page.version, page.token)
    unsure = 0 if page.first else since
    return replace(cache, version=version, token=token, chain=None, ahead=None, unsure=unsure)


def _notice(cache: Cache, notice: Notice) -> Step:
    if notice.version <= cache.head:
        return Step(cache)
    # A call rings whatever else is missing.
    calls, told = _calls(cache.calls, notice.calls)
    cache = replace(cache, calls=calls)
    known = cache.token is not None or cache.chain is not None
    if notice.more or notice.token is None or not known or notice.previous > cache.head:
        return Step(cache, tuple(told), ask=True)
    cache, changed = _rows(cache, notice.rows, unsure=cache.unsure if cache.chain is None else cache.chain.since)
    cache, counted = _counted(cache, notice)
    if cache.chain is None:
        cache = replace(cache, version=notice.version, token=notice.token)
    else:
        cache = replace(cache, ahead=Place(notice.version, notice.token))
    return Step(cache, (*told, *changed, *counted))


# ---- parts of an answer ---------------------------------------------------------------------------------------------


def _calls(
    known: Mapping[CallKey, Call], told: Iterable[Call], *, all_at: int | None = None
) -> tuple[dict[CallKey, Call], list[Event]]:
    """The calls as they are now. `all_at`: the version of an answer that names every call that rings; None = it names
    what changed.
    """
    calls, rings, ended = dict(known), list[Event](), list[Event]()
    named = set[CallKey]()
    for call in told:
        named.add(call.key)
        before = calls.get(call.key)
        if before is not None and before.version > call.version:
            continue
        calls[call.key] = call
        if call.rings and not (before is not None and before.rings):
            rings.append(CallRings(call))
        elif not call.rings and (before is None or before.state != call.state):
            ended.append(CallEnded(call))
    for key, call in known.items():
        if all_at is not None and call.rings and key not in named and call.version <= all_at:
            calls[key] = replace(call, state=GONE, version=all_at, age=0, left=0)
            ended.append(CallEnded(calls[key]))
    return _pruned(calls), [*rings, *ended]


def _pruned(calls: dict[CallKey, Call]) -> dict[CallKey, Call]:
    over = _newest_first(call for call in calls.values() if not call.rings)[MAX_ENDED_CALLS:]
    for call in over:
        del calls[call.key]
    return calls


def _newest_first(calls: Iterable[Call]) -> list[Call]:
    return sorted(calls, key=lambda call: (call.version, call.key), reverse=True)


def _rows(cache: Cache, rows: Iterable[Row | Removed], *, unsure: int) -> tuple[Cache, list[Event]]:
    conversations, removed, events = dict(cache.conversations), dict(cache.removed), list[Event]()
    for row in rows:
        key = row.key if isinstance(row, Removed) else row.conversation.key
        version = row.version if isinstance(row, Removed) else row.conversation.version
        before = conversations.get(key)
        if version <= removed.get(key, -1) or (before is not None and version <= before.version):
            continue
        if isinstance(row, Removed):
            removed[key] = version
            if before is not None:
                del conversations[key]
                events.append(ConversationRemoved(before, row.outside))
            continue
        removed.pop(key, None)
        conversations[key] = row.conversation
        events.append(ConversationChanged(row.conversation, before))
        news = tuple(change for change in row.changes if before is None or change.version > before.version)
        reload = row.reload or (before is not None and before.version <= unsure)
        if news or reload:
            events.append(Happened(key, news, reload))
    return replace(cache, conversations=conversations, removed=removed), events


def _counted(cache: Cache, item: Page | Notice) -> tuple[Cache, list[Event]]:
    if item.totals is None or item.version < cache.totals_at:
        return cache, []
    events: list[Event] = [] if item.totals == cache.totals else [TotalsChanged(item.totals)]
    return replace(cache, totals=item.totals, totals_at=item.version), events
