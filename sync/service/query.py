"""Answers what users ask about their conversations, and sets what they set (step 6 of the flow).

A query is answered after everything that arrived before it is committed (invariant 11), out of one snapshot. "Nothing
new" costs one primary-key read. A query by a device that was woken proves that the wake arrived.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from xml.etree.ElementTree import Element

from sync.model.books import Keys
from sync.model.conversation import Account, Conversation, ConversationKey, Kind
from sync.model.delta import CallQuery, SyncRequest
from sync.model.errors import BadRequest, ItemNotFound, StoreUnavailable
from sync.model.query import (
    EVERYTHING,
    ChangesQuery,
    ConversationPage,
    ConversationQuery,
    ListedConversation,
    ListQuery,
    RewritePage,
    SetProperties,
    SetQuiet,
)
from sync.ports import Clock, Observer, Store
from sync.protocol import conversations, convsync, portrait, rewrite, synchronization
from sync.rules.fold import Policies, Report
from sync.rules.properties import keys_of, set_properties
from sync.rules.quiet import keep_quiet
from sync.service.bridge import Bridge
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from sync.service.inbox import Inboxes
from sync.service.live import Live
from sync.service.watch import Watchers


class Queries:
    """The dialects' requests, answered from the store. `inbox`: those of XEP-0430. `due` is told of sets with pushes,
    `bridge` of what was read.
    """

    def __init__(
        self,
        *,
        store: Store,
        live: Live,
        watchers: Watchers,
        bridge: Bridge,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        due: Callable[[Report], None],
    ) -> None:
        self._store, self._live, self._watchers, self._clock = store, live, watchers, clock
        self._bridge, self._policies, self._due = bridge, policies, due
        self.inbox = Inboxes(store=store, live=live, merged=policies.conduct.several)
        self._fetches = Fetches(store=store, observer=observer, policies=policies)
        self.deltas = Deltas(store=store, clock=clock, fetches=self._fetches)

    async def conversations(self, account: str, resource: str | None, payload: Element) -> Element:
        """Client Synchronization, get: the list, or what changed."""
        query = synchronization.decode_query(payload, account=account)
        owner = await self._store.account(account)
        page = conversations.fitting(await self._page(account, owner, query))
        if owner is not None and owner.wakes_open and resource is not None:
            if is_whole(page):
                self._fetches.record(account, resource, page.newest)
            elif query.limit != 0 and query.before is None and (query.pinned, query.archived) == (None, None):
                self._fetches.begin(account, resource, page.newest)
        return conversations.encode_page(page, account=account, now=self._clock.now())

    async def _page(self, account: str, owner: Account | None, query: ListQuery) -> ConversationPage:
        if query.place is not None:
            # Begun in an earlier epoch, in a future that this database has lost, or what it lacks was dropped: the
            # client starts over (XEP-0059 §2.2).
            known = owner is not None and query.place.newest <= owner.version
            page = await self._store.page(account, query)
            if not known or query.whole_since < page.floor:
                raise ItemNotFound("The page to continue from is not there any more.")
            return page
        if owner is None:
            return ConversationPage(query=query, newest=0, items=(), total=0)
        if query.since == owner.version > 0:
            return ConversationPage(query=query, newest=owner.version, items=(), total=0)
        # PROTOCOLS §2: a stamp that is too old, or from a future that this database has lost.
        if query.since and not owner.floor <= query.since <= owner.version:
            query = replace(query, since=EVERYTHING)
        page = await self._store.page(account, query)
        if 0 < query.whole_since < page.floor:
            # The epoch was raised between the two reads.
            page = await self._store.page(account, replace(query, since=EVERYTHING))
        return page

    async def set(self, account: str, resource: str | None, payload: Element) -> None:
        """Client Synchronization, set: properties of one conversation; the other clients are told."""
        request = synchronization.decode_set(payload)
        try:
            await self._set(account, resource, [request])
        except ItemNotFound:
            # Xabber for iOS keeps a conversation of a type that it does not know as a plain chat, and names it so.
            if request.kind is not Kind.CHAT:
                raise
            await self._set(account, resource, [replace(request, kind=Kind.GROUP)])

    async def convsync(self, account: str, resource: str | None, payload: Element, kind: str) -> Element:
        """Our own dialect, get and set."""
        request = convsync.decode(payload, account=account, kind=kind)
        match request:
            case ChangesQuery():
                return await self._changes(account, request)
            case SyncRequest():
                return await self._sync(account, resource, request)
            case CallQuery():
                return await self.deltas.call(account, request)
            case ConversationQuery():
                found = await self._store.conversations([ConversationKey(account, request.peer, request.kind)])
                if not found:
                    raise ItemNotFound(synchronization.NO_CONVERSATION)
                return portrait.conversation_element(found[0], now=self._clock.now())
            case SetQuiet():
                return await self._quiet(account, request)
            case _:
                return convsync.encode_set(await self._set(account, resource, request))

    async def _sync(self, account: str, resource: str | None, request: SyncRequest) -> Element:
        """The answer, and from its snapshot on live notices, as the session wishes."""
        if request.live is not None and not resource:
            raise BadRequest("Live notices are sent to a session.")
        answer = await self.deltas.sync(account, resource, request)
        if resource:
            await self._watchers.answered(account, resource, request.live, answer)
        return answer.element

    async def _changes(self, account: str, query: ChangesQuery) -> Element:
        page = await self._store.changes(ConversationKey(account, query.peer, query.kind), query.since, query.limit)
        # Read after the log: an epoch that was raised meanwhile is noticed.
        owner = await self._store.account(account)
        version = page.version
        if owner is None or version is None:
            raise ItemNotFound(synchronization.NO_CONVERSATION)
        if query.since and not owner.floor <= query.since <= owner.version:
            page = replace(page, reset=True)
        return convsync.encode_changes(query, page, version=version)

    async def _quiet(self, account: str, request: SetQuiet) -> Element:
        """When the account wants to be left alone. What was kept for then may be due now."""
        rule = partial(keep_quiet, account, request.quiet, self._policies.wakes.zones)
        kept = await self._store.transact(Keys(accounts=frozenset({account}), devices=True), rule)
        if kept.jobs:
            self._due(Report(jobs=list(kept.jobs)))
        return convsync.encode_quiet(kept.quiet, now=self._clock.now())

    async def _set(
        self, account: str, resource: str | None, requests: Sequence[SetProperties]
    ) -> Sequence[Conversation]:
        """All of it or nothing; the conversations that were named, as they are now."""
        rule = partial(set_properties, account, requests, resource=resource, policies=self._policies)
        wanted = keys_of(account, requests, several=self._policies.conduct.several)
        done = await self._store.transact(wanted, rule)
        if done.report.jobs:
            self._due(done.report)
        self._bridge.publish(done.read)
        await self._tell(account, resource, done.changed)
        return done.named

    async def _tell(self, account: str, resource: str | None, changed: Sequence[Conversation]) -> None:
        """The account's other clients hear of properties that one of them has set, each conversation by itself: what a
        hundred of them last said could be more than a server takes in one stanza.
        """
        try:
            listed = await self._listed(changed)
        except StoreUnavailable:
            return  # it is set all the same; the other clients learn it from their next query
        now = self._clock.now()
        notices = [
            conversations.notice(
                item, account=account, newest=conversation.version, now=now, request_id=f"sync-{conversation.version}"
            )
            for conversation, item in zip(changed, listed, strict=True)
        ]
        await self._live.notices(account, notices, kind="synchronization", beside=resource)

    async def _listed(self, changed: Sequence[Conversation]) -> Sequence[ListedConversation]:
        """The conversations with the calls that ring in them, and the mentions that are unread."""
        more = [conversation.key for conversation in changed if conversation.ringing or conversation.mentions]
        found = await self._store.conversations(more) if more else ()
        known = {item.conversation.key: item for item in found}
        return [known.get(c.key) or ListedConversation(conversation=c) for c in changed]

    async def rewrites(self, account: str, resource: str | None, payload: Element, kind: str) -> Element:
        """Rewrite, get: headlines to the asking session, then the result."""
        query = rewrite.decode_query(payload, kind=kind)
        if not resource:
            raise BadRequest("Headlines are sent to a session.")
        page = await self._store.rewrites(account, query)
        # Read after the log: an epoch that was raised meanwhile is noticed.
        owner = await self._store.account(account)
        if owner is None:
            return rewrite.result(RewritePage(newest=0, changes=()))
        if query.since and not owner.floor <= query.since <= owner.version:
            # Nobody knows what that client has been told: all that was ever rewritten, to be loaded anew.
            page = await self._store.rewrites(account, replace(query, since=0, limit=0))
        # A client that stores the result's version never asks for these again.
        headlines = rewrite.headlines(page, account=account, to=f"{account}/{resource}")
        await self._live.hand_all(account, resource, headlines)
        return rewrite.result(page)


def is_whole(page: ConversationPage) -> bool:
    """True where the client has now been told everything: the last page of a list without filters. Who comes from
    behind may have begun anywhere.
    """
    query = page.query
    if query.pinned is not None or query.archived is not None or query.before is not None:
        return False
    if query.after is None and not query.at_end and len(page.items) == page.total:
        return True
    return query.limit is None or not page.total or len(page.items) < query.limit
