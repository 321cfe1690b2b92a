"""Answers `sync` and `call` of our own dialect (docs/protocol.md).

Nothing new costs one primary-key read, everything else a second statement. What the token is worth is decided by the
account's row before that statement, and again by the row of its snapshot: an epoch that was raised in between is
noticed.
"""

from dataclasses import dataclass, field
from functools import partial
from xml.etree.ElementTree import Element

from sync.model.books import Keys
from sync.model.conversation import Account
from sync.model.delta import CallQuery, DeltaPage, DeltaToken, Reset, SyncRequest
from sync.model.errors import BadRequest, ItemNotFound
from sync.ports import Clock, Store
from sync.protocol import delta
from sync.rules.delta import begun, knows_all
from sync.rules.devices import bind
from sync.service.fetches import Fetches


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, the token in it, the version of the account that its chain of pages was begun at, and the one that the
    account has `reached` since.
    """

    element: Element = field(repr=False)
    token: DeltaToken
    version: int
    reached: int

    @property
    def whole(self) -> bool:
        """True where its client now has everything up to its version."""
        return self.token.since == self.version and not self.token.filters


class Deltas:
    """Deltas and calls, answered from the store."""

    def __init__(self, *, store: Store, clock: Clock, fetches: Fetches) -> None:
        self._store, self._clock, self._fetches = store, clock, fetches

    async def sync(self, account: str, resource: str | None, request: SyncRequest) -> Answer:
        """What is new since the request's token, newest first."""
        owner = await self._owner(account, resource, request.device)
        page, reset = await self._page(account, owner, request)
        element, token = delta.encode_sync(page, now=self._clock.now(), reset=reset, preview=request.preview)
        answer = Answer(element=element, token=token, version=page.version, reached=page.owner.version)
        if page.owner.wakes_open and resource is not None:
            if answer.whole:
                self._fetches.record(account, resource, page.version)
            elif request.limit and not token.filters:
                self._fetches.begin(account, resource, page.version)
        return answer

    async def _owner(self, account: str, resource: str | None, device: str | None) -> Account | None:
        """The account; the device that asks is bound to the session from now on."""
        if device is None:
            return await self._store.account(account)
        if not resource:
            raise BadRequest("A 'device' is bound to a session.")
        keys = Keys(accounts=frozenset({account}), devices=True)
        return await self._store.transact(keys, partial(bind, account, resource, device))

    async def _page(self, account: str, owner: Account | None, request: SyncRequest) -> tuple[DeltaPage, Reset | None]:
        nobody = Account(jid=account, version=0, floor=0, epoch=0)
        while True:  # reasons to start over only grow weightier, so it ends
            query, reset = begun(request, owner or nobody)
            if owner is None or (knows_all(query, owner) and not request.wakes):
                return DeltaPage(query=query, owner=owner or nobody), reset
            page = await self._store.delta(account, query)
            if page is not None and begun(request, page.owner) == (query, reset):
                return page, reset
            owner = None if page is None else page.owner

    async def call(self, account: str, query: CallQuery) -> Element:
        """One call as it stands."""
        call = await self._store.call(account, query)
        if call is None:
            raise ItemNotFound("There is no such call.")
        return delta.shown_call(call, now=self._clock.now())
