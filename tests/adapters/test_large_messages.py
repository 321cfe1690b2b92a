"""A list brings no more out of the database than it shows: anybody may send large messages, from many addresses."""

from dataclasses import replace

from sync.adapters.postgres.listing import MAX_BROUGHT_BYTES
from sync.model.query import ListQuery
from sync.protocol.conversations import MAX_PREVIEW_BYTES, encode_page
from sync.protocol.serialise import serialise
from tests.contract.samples import ANN, NOW, WITH_BOB, account, change, conversation, last
from tests.contract.stores import on_postgres


def said(size: int) -> str:
    """A message of so many bytes."""
    frame = "<message xmlns='jabber:client' from='a@b/c' id='i' type='chat'><body>{}</body></message>"
    return frame.format("x" * (size - len(frame) + 2))


async def test_a_list_of_large_messages_brings_few_of_them(database: str) -> None:
    async with on_postgres(database) as stores:
        sizes = [MAX_PREVIEW_BYTES + 1, *[MAX_PREVIEW_BYTES] * 200, 500]
        rows = [
            conversation(n + 1, f"p{n:03}@example.net", last=last(stanza=said(size))) for n, size in enumerate(sizes)
        ]
        await stores.put(ANN, accounts=[account(version=1000)], conversations=rows)
        page = await stores.store.page(ANN, ListQuery(limit=None))
        assert len(page.items) == len(sizes)
        brought = [item.conversation.last.stanza for item in page.items if item.conversation.last is not None]
        assert sum(map(len, brought)) <= MAX_BROUGHT_BYTES
        assert max(map(len, brought)) == MAX_PREVIEW_BYTES
        shown = serialise(encode_page(page, account=ANN, now=NOW))
        assert shown.count("<last-message") >= 3


async def test_a_list_of_usual_messages_brings_all_of_them(database: str) -> None:
    async with on_postgres(database) as stores:
        rows = [conversation(n + 1, f"p{n:03}@example.net", last=last(stanza=said(600))) for n in range(300)]
        rows.append(replace(conversation(400), key=WITH_BOB, last=None))
        await stores.put(ANN, accounts=[account(version=1000)], conversations=rows)
        page = await stores.store.page(ANN, ListQuery(limit=None))
        assert sum(item.conversation.last is not None for item in page.items) == 300


async def test_a_change_log_that_no_answer_takes_is_not_brought(database: str) -> None:
    async with on_postgres(database) as stores:
        texts = [said(MAX_PREVIEW_BYTES)] * 4
        rows = [change(n + 2, n + 1, stanza=text) for n, text in enumerate(texts)]
        await stores.put(ANN, accounts=[account(version=9)], conversations=[conversation(9)], changes=rows)
        page = await stores.store.changes(WITH_BOB, 1, 10)
        assert (page.reset, len(page.changes)) == (False, 4)
        await stores.put(ANN, changes=[change(8, 5, stanza="<message/>")])
        page = await stores.store.changes(WITH_BOB, 1, 10)
        assert (page.version, page.reset, page.changes) == (9, True, ())
        page = await stores.store.changes(WITH_BOB, 2, 10)
        assert (page.reset, len(page.changes)) == (False, 4)
