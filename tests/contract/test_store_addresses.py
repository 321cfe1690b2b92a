"""Addresses of every character meet real columns: what memory holds, Postgres holds."""

import pytest

from sync.model.query import ListQuery
from sync.rules.fold import Policies, take
from sync.rules.wanted import keys
from tests.contract.stores import Bench
from tests.core.addresses import from_anybody


@pytest.mark.parametrize("kind", ["chat", "groupchat"])
async def test_addresses_of_every_character(stores: Bench, kind: str) -> None:
    events = from_anybody(kind)
    report = await stores.store.transact(keys(events), lambda books: take(events, books, Policies()))
    account = await stores.store.account("ann@ex.org")
    assert account is not None
    assert account.unread > 700
    page = await stores.store.page("ann@ex.org", ListQuery(limit=5000))
    assert sum(item.conversation.unread for item in page.items) == account.unread
    assert account.unread_conversations == len([item for item in page.items if item.conversation.unread])
    again = await stores.store.transact(keys(events), lambda books: take(events, books, Policies()))
    assert (report.taken, again.taken, again.repeated) == (len(events), 0, len(events))
    assert await stores.store.account("ann@ex.org") == account
