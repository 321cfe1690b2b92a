"""A list brings no more out of the database than it shows: anybody may send large messages, from many addresses."""

from dataclasses import replace

from sync.adapters.postgres.listing import MAX_BROUGHT_BYTES
from sync.model.query import ListQuery
from sync.protocol.conversations import MAX_PREVIEW_BYTES, encode_page
from sync.protocol.serialise import serialise
from tests.contract.samples import ANN, NOW, WITH_BOB, account, conversation, last
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
