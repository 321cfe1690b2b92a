"""Inboxes while many write, read, call, delete: on a real Postgres whoever pages to the end holds the truth, and is
told nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from sync.model.books import Keys
from sync.model.conversation import ConversationKey, Status
from sync.model.errors import ItemNotFound
from sync.model.query import InboxEntry, InboxPage, InboxPlace, InboxQuery, SetProperties
from sync.rules.properties import set_properties
from tests.adapters.test_store_concurrency import ACCOUNTS, CLUB, PEERS, WRITERS, Crowd

PREVIEW = 64 * 1024


class Walker:
    """A client that pages through an inbox in one direction, and goes on from where it was."""

    def __init__(self, crowd: Crowd, account: str, limit: int, *, unread_only: bool = False) -> None:
        self.crowd, self.account = crowd, account
        self.query = InboxQuery(limit=limit, unread_only=unread_only, preview_bytes=PREVIEW)
        self.place: InboxPlace | None = None
        self.told: list[InboxEntry] = []

    @property
    def held(self) -> dict[ConversationKey, InboxEntry]:
        """What was told last of each."""
        return {item.key: item for item in self.told}

    async def down(self) -> None:
        """To where nothing is behind."""
        while (page := await self.ask(after=self.place)).items:
            self.take(page, -1, page.items)

    async def up(self) -> None:
        """From the end, to where nothing is in front."""
        while (page := await self.ask(before=self.place, at_end=self.place is None)).items:
            self.take(page, 0, page.items[::-1])

    async def ask(
        self, *, after: InboxPlace | None = None, before: InboxPlace | None = None, at_end: bool = False
    ) -> InboxPage:
        query = InboxQuery(
            limit=self.query.limit,
            unread_only=self.query.unread_only,
            preview_bytes=PREVIEW,
            after=after,
            before=before,
            at_end=at_end,
        )
        return await self.crowd.store.inbox(self.account, query)

    def take(self, page: InboxPage, index: int, items: tuple[InboxEntry, ...]) -> None:
        """Take these items, and go on from that one."""
        item = page.items[index]
        self.place = InboxPlace(
            newest=page.newest, version=item.version, activity=item.activity, peer=item.key.peer, kind=item.key.kind
        )
        self.told += items


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(database: str) -> AsyncIterator[Crowd]:
    made = Crowd(database)
    await made.pool.open()
    yield made
    await made.pool.close()


async def truth(crowd: Crowd, account: str, *, unread_only: bool = False) -> dict[ConversationKey, InboxEntry]:
    page = await crowd.store.inbox(account, InboxQuery(limit=99, preview_bytes=PREVIEW, unread_only=unread_only))
    assert len(page.items) == page.count
    return {item.key: item for item in page.items}


async def removing(crowd: Crowd) -> None:
    """Delete a conversation, now and then: the next message brings it back."""
    while crowd.writing:
        account = crowd.random.choice(ACCOUNTS)
        key = ConversationKey(account, crowd.random.choice(PEERS))
        request = SetProperties(peer=key.peer, status=Status.DELETED)
        wanted = Keys(accounts=frozenset({account}), conversations=frozenset({key}))
        try:
            await crowd.store.transact(wanted, partial(set_properties, account, [request]))
        except ItemNotFound:
            await asyncio.sleep(0)


@pytest.mark.parametrize("unread_only", [False, True])
async def test_whoever_pages_to_the_end_holds_the_truth(crowd: Crowd, unread_only: bool) -> None:
    walkers = [Walker(crowd, one, limit, unread_only=unread_only) for one in ACCOUNTS for limit in (1, 2, 3, 50)]

    async def walk(walker: Walker) -> None:
        while crowd.writing:
            await walker.down()

    writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
    await asyncio.sleep(0)  # let the writers begin
    await asyncio.gather(removing(crowd), *map(walk, walkers))
    await writers
    for walker in walkers:
        await walker.down()
        now = await truth(crowd, walker.account, unread_only=unread_only)
        assert {key: item for key, item in walker.held.items() if key in now} == now
        versions = [(item.key, item.version) for item in walker.told]
        assert len(versions) == len(set(versions))
    assert sum(len(walker.told) for walker in walkers) > 10 * len(walkers)


async def test_backwards_and_then_what_changed_is_the_truth(crowd: Crowd) -> None:
    """Who begins at the end sees what moves up, as long as events are in time; the rest is behind where it began."""
    walkers = [Walker(crowd, one, limit) for one in ACCOUNTS for limit in (1, 2)]
    begun: dict[Walker, tuple[InboxPlace, set[ConversationKey]]] = {}

    async def walk(walker: Walker) -> None:
        while crowd.writing:
            if walker not in begun and (page := await walker.ask(at_end=True)).items:
                before = {
                    key for key, item in (await truth(crowd, walker.account)).items() if item.version <= page.newest
                }
                walker.take(page, -1, page.items[::-1])
                begun[walker] = walker.place, before
                walker.take(page, 0, ())
            await walker.up()

    writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
    await asyncio.sleep(0)
    await asyncio.gather(*map(walk, walkers))
    await writers
    for walker in walkers:
        await walker.up()
        walker.place, there = begun[walker]
        assert walker.held.keys() >= there
        await walker.down()
        assert walker.held == await truth(crowd, walker.account)
    assert any(key.peer == CLUB for walker in walkers for key in walker.held)
