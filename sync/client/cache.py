"""What a client knows of its account, and what a page or notice makes of it: `apply(cache, item)`.

Pure: no I/O, no clock, no waiting; a cache is a value and never changes. The events of a step are what a client has to
be told, calls first; who applies them in order knows what the cache knows. `ask` says that something is missing which
the client has to ask for.

How the position is kept. `version` is up to where everything is here, and `token` goes on from there, or from further
back. A list that came in pages, newest first, and is not at its end is a `chain`: its pages go on with the chain's
token, and at its end the version is the chain's, or that of the live notices that came meanwhile (`ahead`). Rows have
versions of their own, so that a page or notice that comes twice, or late, changes nothing.
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
    QuietChanged,
    StartedOver,
    TotalsChanged,
)
from sync.client.values import GONE, Call, CallKey, Conversation, Key, Notice, Page, Quiet, Removed, Row, Totals

MAX_ENDED_CALLS = 50  # as many as an answer tells of; they keep a late page from making one ring again
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Chain(NamedTuple):
    """A list that is not at its end: the version that is known at its end, and the token of its next page."""

    version: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """An account as a client knows it; `Cache()` knows nothing.

    `removed`: the versions at which conversations were removed, as long as a late page could still show them.
    `totals_at`: the version that the totals and `quiet` belong to. `ahead`: see above, 0 = none. `untold`: calls that
    ring, of which nobody was told since the cache was read from a file.
    """

    version: int = 0
    token: str | None = None
    chain: Chain | None = None
    ahead: int = 0
    conversations: Mapping[Key, Conversation] = field(default_factory=dict)
    removed: Mapping[Key, int] = field(default_factory=dict)
    calls: Mapping[CallKey, Call] = field(default_factory=dict)
    totals: Totals | None = None
    totals_at: int = 0
    quiet: Quiet | None = None
    untold: frozenset[CallKey] = frozenset()

    @property
    def head(self) -> int:
        """Up to where everything is here once the chain has come to its end."""
        return max(self.version, self.ahead, 0 if self.chain is None else self.chain.version)

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
    cache, told = _rung(cache, page)
    cache, counted = _counted(cache, page)
    return Step(cache, (*told, *counted))


def silence(cache: Cache, key: CallKey) -> Step:
    """A call does not ring here any more, whatever late answers say: its time is up, or the user has dealt with it."""
    call = cache.calls.get(key)
    if call is None or not call.rings:
        return Step(cache)
    gone = replace(call, state=GONE, age=0, left=0)
    return Step(replace(cache, calls={**cache.calls, key: gone}, untold=cache.untold - {key}), (CallEnded(gone),))


def _page(cache: Cache, page: Page) -> Step:
    if not page.first and (cache.chain is None or cache.chain.token != page.asked):
        return Step(cache, ask=True)  # a page of a list that this client is not in the middle of
    over: tuple[Event, ...] = ()
    head = cache.head
    if page.whole:
        if page.reset is not None or cache.conversations or cache.token is not None or cache.chain is not None:
            over = (StartedOver(page.reset or ""),)
        # Versions of another epoch say nothing about this one.
        ringing = {key: replace(call, version=0) for key, call in cache.calls.items() if call.rings}
        cache = Cache(calls=ringing, untold=cache.untold, quiet=cache.quiet)
    cache, told = _rung(cache, page)
    cache, changed = _rows(cache, page.rows)
    if page.first:
        # No answer from here on is older than this one.
        cache = replace(cache, removed={key: at for key, at in cache.removed.items() if at > page.version})
    cache, counted = _counted(cache, page)
    # A notice that came before a list, and is newer, was dropped with the rest.
    return Step(_moved(cache, page), (*told, *over, *changed, *counted), ask=page.whole and page.version < head)


def _moved(cache: Cache, page: Page) -> Cache:
    """Where the client is after this page."""
    if page.version < cache.version or (page.version == cache.version and page.more):
        return cache  # it is late: live notices were faster
    if page.more:
        return replace(cache, chain=Chain(page.version, page.token))
    return replace(cache, version=max(page.version, cache.ahead), token=page.token, chain=None, ahead=0)


def _notice(cache: Cache, notice: Notice) -> Step:
    if notice.version <= cache.head:
        return Step(cache)
    # A call rings whatever else is missing.
    cache, told = _rung(cache, notice)
    known = cache.token is not None or cache.chain is not None
    if notice.more or notice.token is None or not known or notice.previous > cache.head:
        return Step(cache, tuple(told), ask=True)
    cache, changed = _rows(cache, notice.rows)
    cache, counted = _counted(cache, notice)
    if cache.chain is not None:
        cache = replace(cache, ahead=notice.version)
    else:
        cache = replace(cache, version=notice.version, token=notice.token)
    return Step(cache, (*told, *changed, *counted))


# ---- parts of an answer ---------------------------------------------------------------------------------------------


def _rung(cache: Cache, item: Page | Notice) -> tuple[Cache, list[Event]]:
    """The calls as they are now. A notice with content, and the first page of an answer that has something new, name
    all that ring; an answer that has nothing new need not name any, and what rang rings on.
    """
    calls, untold, rings, ended = dict(cache.calls), set(cache.untold), list[Event](), list[Event]()
    for call in item.calls:
        before = calls.get(call.key)
        # What is gone here does not ring again because somebody else has not heard of it yet.
        if before is not None and before.version >= call.version + (before.state != GONE):
            continue
        calls[call.key] = call
        if call.rings and (before is None or not before.rings or call.key in untold):
            rings.append(CallRings(call))
        elif not call.rings and (before is None or before.state != call.state):
            ended.append(CallEnded(call))
        untold.discard(call.key)
    if item.first if isinstance(item, Page) else not item.more:
        named = {call.key for call in item.calls}
        news = item.version > cache.version
        for call in [call.at(item.time) for call in calls.values() if call.rings and call.key not in named]:
            over = (news and call.version <= item.version) or (item.time is not None and not call.left)
            if over:
                calls[call.key] = replace(call, state=GONE, version=call.version or item.version, age=0, left=0)
                ended.append(CallEnded(calls[call.key]))
            elif call.key in untold:
                calls[call.key] = call
                rings.append(CallRings(call))
            untold.discard(call.key)
    return replace(cache, calls=_pruned(calls), untold=frozenset(untold)), [*rings, *ended]


def _pruned(calls: dict[CallKey, Call]) -> dict[CallKey, Call]:
    over = _newest_first(call for call in calls.values() if not call.rings)[MAX_ENDED_CALLS:]
    for call in over:
        del calls[call.key]
    return calls


def _newest_first(calls: Iterable[Call]) -> list[Call]:
    return sorted(calls, key=lambda call: (call.version, call.key), reverse=True)


def _rows(cache: Cache, rows: Iterable[Row | Removed]) -> tuple[Cache, list[Event]]:
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
        if news or row.reload:
            events.append(Happened(key, news, row.reload))
    return replace(cache, conversations=conversations, removed=removed), events


def _counted(cache: Cache, item: Page | Notice) -> tuple[Cache, list[Event]]:
    if item.totals is None or item.version < cache.totals_at:
        return cache, []
    events: list[Event] = [] if item.totals == cache.totals else [TotalsChanged(item.totals)]
    if item.quiet != cache.quiet:
        events.append(QuietChanged(item.quiet))
    return replace(cache, totals=item.totals, totals_at=item.version, quiet=item.quiet), events
