"""Lists of Client Synchronization that nobody pages: an answer has an end, and says how it goes on."""

from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element

import pytest
import pytest_asyncio

from sync.model.query import ConversationPage, Cursor, ListedConversation, ListQuery
from sync.protocol.cursor import sort_key
from sync.protocol.names import RSM, SYNC, clark
from sync.protocol.serialise import parse
from sync.protocol.synchronization import MAX_LISTED
from sync.service.query import is_whole
from tests.contract.samples import ANN, account, conversation
from tests.contract.stores import in_memory
from tests.service.test_queries import Desk

MANY = MAX_LISTED + 30


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk(in_memory())
    rows = [conversation(n, f"p{n:05}@example.net") for n in range(1, MANY + 1)]
    await desk.stores.put(accounts=[account(version=MANY)], conversations=rows)
    yield desk


async def asked(desk: Desk, inner: str = "") -> Element:
    payload = parse(f"<query xmlns='{SYNC}'>{inner}</query>")
    return await desk.queries.conversations(ANN, "desk", payload)


def page(inner: str) -> str:
    return f"<set xmlns='{RSM}'>{inner}</set>"


def names(answer: Element) -> list[str | None]:
    return [row.get("jid") for row in answer.findall(clark(SYNC, "conversation"))]


def told(answer: Element, what: str) -> str:
    return answer.findtext(f".//{clark(RSM, what)}", "")


@pytest.mark.parametrize("inner", ["", page(""), page(f"<max>{MANY}</max>"), page(f"<max>{2**62}</max>")])
async def test_whoever_asks_for_everything_is_told_the_rest_by_pages(desk: Desk, inner: str) -> None:
    first = await asked(desk, inner)
    assert (len(names(first)), told(first, "count")) == (MAX_LISTED, str(MANY))
    rest = await asked(desk, page(f"<after>{told(first, 'last')}</after>"))
    assert (len(names(rest)), rest.get("stamp")) == (30, first.get("stamp"))
    assert len({*names(first), *names(rest)}) == MANY


async def test_from_behind_the_end_is_told_first(desk: Desk) -> None:
    last = await asked(desk, page("<before/>"))
    assert len(names(last)) == MAX_LISTED
    above = await asked(desk, page(f"<before>{told(last, 'first')}</before>"))
    assert names(above) + names(last) == names(await asked(desk)) + names(last)[-30:]


ITEM = ListedConversation(conversation=conversation(9))
PLACE = Cursor(since=0, newest=9, sort=sort_key(conversation(9), pinned_first=False))


@pytest.mark.parametrize(
    ("query", "shown", "total", "whole"),
    [
        (ListQuery(limit=2), 2, 2, True),
        (ListQuery(limit=2), 2, 3, False),
        (ListQuery(limit=2), 1, 1, True),
        (ListQuery(limit=0), 0, 1, False),
        (ListQuery(limit=0), 0, 0, True),
        (ListQuery(limit=2, after=PLACE), 2, 4, False),
        (ListQuery(limit=2, after=PLACE), 1, 3, True),
        (ListQuery(limit=2, at_end=True), 2, 3, False),
        (ListQuery(limit=2, at_end=True), 2, 2, False),
        (ListQuery(limit=3, at_end=True), 2, 2, True),
        (ListQuery(limit=2, before=PLACE), 1, 1, False),
        (ListQuery(limit=2, pinned=True), 1, 1, False),
        (ListQuery(limit=2, archived=False), 1, 1, False),
    ],
)
def test_when_a_client_has_been_told_everything(query: ListQuery, shown: int, total: int, whole: bool) -> None:
    found = ConversationPage(query=query, newest=9, items=(ITEM,) * shown, total=total)
    assert is_whole(found) is whole
