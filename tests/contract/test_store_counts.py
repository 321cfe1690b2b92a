"""What every Store promises of counting: what is unread behind a rank, in chats and in rooms of this server."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.conversation import (
    Base,
    Behind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
    Pointer,
)
from tests.contract.fakes_tables import Tables, behind, recount
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    IN_TEA,
    OF_TEA,
    WITH_BOB,
    conversation,
    membership,
    message,
    owned,
    seeing,
)
from tests.contract.stores import Bench


def tables_of(stored: list[Conversation], messages: list[IndexedMessage]) -> Tables:
    """The rows, with counters that are right."""
    tables = Tables(conversations={c.key: c for c in stored}, messages={(m.conversation, m.rank): m for m in messages})
    for key, found in tables.conversations.items():
        unread, mentions = recount(tables, key)
        tables.conversations[key] = replace(found, unread=unread, mentions=mentions)
    return tables


async def indexed(stores: Bench, stored: Conversation, *messages: IndexedMessage) -> None:
    tables = tables_of([stored], list(messages))
    await stores.put(conversations=list(tables.conversations.values()), messages=list(messages))


async def loaded(stores: Bench, *keys: ConversationKey, **asked: Any) -> Books:
    """With the conversations, as a rule asks for them, and without."""
    books = await stores.store.transact(owned(conversations=keys, **asked), seeing())
    bare = await stores.store.transact(owned(**asked), seeing())
    assert books.behind == bare.behind
    return books  # type: ignore[no-any-return]


async def marked(stores: Bench, rank: int, key: ConversationKey = WITH_BOB) -> Behind:
    return (await loaded(stores, key, marks=[(key, rank)])).behind[key, rank]


CHAT = [message(2), message(3, mention=True), message(5), message(7, mention=True), message(9)]


@pytest.mark.parametrize(
    ("rank", "found"),
    [
        (0, Behind(5, 2)),
        (1, Behind(5, 2)),
        (2, Behind(4, 2, 2)),
        (3, Behind(3, 1, 2)),
        (6, Behind(2, 1, 2)),
        (9, Behind(0, 0, 2)),
        (99, Behind(0, 0, 2)),
    ],
)
async def test_what_is_unread_behind_a_rank(stores: Bench, rank: int, found: Behind) -> None:
    await indexed(stores, conversation(), *CHAT)
    assert await marked(stores, rank) == found


@pytest.mark.parametrize(("rank", "found"), [(3, Behind(3, 1)), (4, Behind(3, 1)), (5, Behind(2, 1, 5))])
async def test_what_was_read_is_read(stores: Bench, rank: int, found: Behind) -> None:
    await indexed(stores, conversation(read=Pointer(4, "a")), *CHAT)
    assert await marked(stores, rank) == found


async def test_only_standing_messages_that_count_are_unread(stores: Bench) -> None:
    own = message(3, direction=Direction.OUT, counted=False)
    await indexed(stores, conversation(), message(2, retracted=3), own, message(4), message(6))
    assert await marked(stores, 5) == Behind(1, 0, 4)


BASE = Base(unread=10, mentions=4, rank=5)


@pytest.mark.parametrize(
    ("rank", "found"), [(3, Behind(12, 5)), (5, Behind(2, 1)), (6, Behind(2, 1)), (7, Behind(1, 0, 7))]
)
async def test_the_base_is_read_as_a_whole(stores: Bench, rank: int, found: Behind) -> None:
    await indexed(stores, conversation(base=BASE, read=Pointer(1, "a")), *CHAT)
    assert await marked(stores, rank) == found


async def test_nothing_is_behind_in_a_conversation_that_is_not_there(stores: Bench) -> None:
    await stores.put(messages=CHAT)
    assert await marked(stores, 3) == Behind(0, 0)


# ---- behind what the lookups find -----------------------------------------------------------------------------------


async def test_behind_each_message_that_is_found(stores: Bench) -> None:
    found = [message(2, message_key="m"), message(4, origin_key="m"), message(6, archive_key="a", archive_id="a")]
    await indexed(stores, conversation(), *found, message(8, message_key="other"))
    lookups = {"ids": [(WITH_BOB, "m")], "archived": [(WITH_BOB, "a")]}
    books = await loaded(stores, WITH_BOB, behind=[WITH_BOB], **lookups)
    ranks = {2: Behind(3, 0, 2), 4: Behind(2, 0, 2), 6: Behind(1, 0, 2)}
    assert books.behind == {(WITH_BOB, rank): counts for rank, counts in ranks.items()}


async def test_nothing_is_counted_that_nobody_asks_for(stores: Bench) -> None:
    await indexed(stores, conversation(), message(2, message_key="m"))
    books = await loaded(stores, WITH_BOB, ids=[(WITH_BOB, "m")])
    assert books.behind == {}


async def test_each_member_has_its_own_count_of_a_room(stores: Bench) -> None:
    in_tea = replace(IN_TEA, account=EVE)
    index = [message(rank, OF_TEA, message_key=f"m{rank}", author=CAT) for rank in (2, 4, 6)]
    tables = tables_of([membership(taken=9), membership(1, EVE, taken=9, read=Pointer(2, "a"))], index)
    await stores.put(ANN, EVE, conversations=list(tables.conversations.values()), messages=index)
    lookups = [(key, "m4") for key in (IN_TEA, in_tea, OF_TEA)]
    books = await loaded(stores, IN_TEA, in_tea, behind=[IN_TEA, in_tea], ids=lookups)
    assert books.behind == {(IN_TEA, 4): Behind(1, 0, 2), (in_tea, 4): Behind(1, 0, 4)}


async def test_a_member_is_not_counted_what_others_ask_for(stores: Bench) -> None:
    index = [message(rank, OF_TEA, message_key=f"m{rank}", author=CAT) for rank in (2, 4, 6)]
    await indexed(stores, membership(taken=9), *index)
    lookups = [(IN_TEA, "m4"), (OF_TEA, "m4"), (OF_TEA, "m6"), (replace(IN_TEA, account=EVE), "m6")]
    books = await loaded(stores, IN_TEA, behind=[IN_TEA], ids=lookups)
    assert books.behind == {(IN_TEA, 4): Behind(1, 0, 2)}


async def test_what_a_message_of_a_room_is_about_is_counted_too(stores: Bench) -> None:
    index = [message(2, OF_TEA, author=CAT), message(4, OF_TEA, author=CAT)]
    correction = message(6, OF_TEA, author=CAT, counted=False, archive_key="a", archive_id="a", about=2)
    await indexed(stores, membership(taken=9), *index, correction)
    lookups = [(IN_TEA, "a"), (OF_TEA, "a")]
    books = await loaded(stores, IN_TEA, behind=[IN_TEA], archived=lookups)
    assert books.behind == {(IN_TEA, 2): Behind(1, 0, 2), (IN_TEA, 6): Behind(0, 0, 2)}


async def test_a_room_of_elsewhere_has_its_index_in_the_conversation(stores: Bench) -> None:
    await indexed(stores, membership(), message(2, IN_TEA, message_key="m"), message(4, IN_TEA))
    books = await loaded(stores, IN_TEA, behind=[IN_TEA], ids=[(IN_TEA, "m"), (OF_TEA, "m")])
    assert books.behind == {(IN_TEA, 2): Behind(1, 0, 2)}


# ---- rooms of this server -------------------------------------------------------------------------------------------

ROOM = [
    message(2, OF_TEA, author=BOB, mentions=(ANN, CAT)),
    message(3, OF_TEA, author=ANN),
    message(4, OF_TEA, author=BOB, mentions=(CAT,)),
    message(5, OF_TEA, author=None, mention=True),
    message(6, OF_TEA, author="occupant", mentions=(ANN,)),
]


@pytest.mark.parametrize(
    ("rank", "taken", "found"),
    [
        (1, 9, Behind(4, 3)),
        (2, 9, Behind(3, 2, 2)),
        (3, 9, Behind(3, 2, 2)),
        (4, 9, Behind(2, 2, 2)),
        (9, 9, Behind(0, 0, 2)),
        (4, 5, Behind(1, 1, 2)),
        (9, 5, Behind(0, 0, 2)),
        (9, 1, Behind(0, 0)),
    ],
)
async def test_a_member_counts_what_others_said_and_it_has_taken(
    stores: Bench, rank: int, taken: int, found: Behind
) -> None:
    await indexed(stores, membership(taken=taken), *ROOM)
    assert await marked(stores, rank, IN_TEA) == found


@pytest.mark.parametrize(("taken", "found"), [(7, Behind(1, 0, 2)), (8, Behind(1, 0))])
async def test_a_retraction_counts_when_it_was_taken(stores: Bench, taken: int, found: Behind) -> None:
    index = [message(2, OF_TEA, author=BOB, mention=True, retracted=8), message(6, OF_TEA, author=BOB)]
    await indexed(stores, membership(taken=taken), *index)
    assert await marked(stores, 5, IN_TEA) == found


async def test_a_chat_of_the_same_name_has_nothing_of_the_room(stores: Bench) -> None:
    private = replace(membership(taken=9), key=ConversationKey(ANN, OF_TEA.peer))
    await indexed(stores, private, *ROOM, message(2, private.key))
    assert await marked(stores, 9, private.key) == Behind(0, 0, 2)


# ---- by definition --------------------------------------------------------------------------------------------------


def random_life(random: Random) -> tuple[list[Conversation], list[IndexedMessage]]:
    """Two members' conversations with a room, and one with a peer."""

    def said(key: ConversationKey, rank: int) -> IndexedMessage:
        counted = random.random() < 0.8
        some = tuple(jid for jid in (ANN, EVE, CAT) if counted and key == OF_TEA and random.random() < 0.2)
        fields = {"counted": counted, "mention": counted and random.random() < 0.1, "mentions": some}
        fields |= {
            "retracted": random.choice([None, None, None, random.randrange(14)]),
            "author": random.choice([ANN, EVE, CAT, None]),
        }
        return message(rank, key, **fields)

    def standing() -> dict[str, Any]:
        read, rank = random.randrange(12), random.randrange(12)
        unread = random.randrange(4) if read < rank else 0
        base = Base(unread=unread, mentions=random.randint(0, unread), rank=rank)
        return {"read": Pointer(read, "a"), "base": base, "taken": random.randrange(14)}

    ranks = range(1, 13)
    messages = [said(key, rank) for key in (OF_TEA, IN_TEA, WITH_BOB) for rank in ranks if random.random() < 0.6]
    stored = [membership(1, **standing()), membership(1, EVE, **standing()), conversation(2, **standing())]
    return stored, messages


@pytest.mark.parametrize("seed", range(40))
async def test_the_statement_counts_as_the_definition_does(postgres: Bench, seed: int) -> None:
    stored, messages = random_life(Random(seed))  # noqa: S311 - the same lives every time
    tables = tables_of(stored, messages)
    await postgres.put(ANN, EVE, conversations=list(tables.conversations.values()), messages=messages)
    marks = [(key, rank) for key in tables.conversations for rank in range(14)]
    books = await loaded(postgres, *tables.conversations, marks=marks)
    assert books.behind == {(key, rank): behind(tables, key, rank) for key, rank in marks}


# ---- encrypted chats apart -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["ids", "archived"])
async def test_a_place_in_one_conversation_is_a_place_in_all_with_that_peer(stores: Bench, by: str) -> None:
    sealed, old = (replace(WITH_BOB, kind=kind) for kind in (Kind.OMEMO_2, Kind.AXOLOTL))
    said = [message(rank, key=key) for key, ranks in ((WITH_BOB, (2, 6)), (sealed, (3, 4, 9))) for rank in ranks]
    named = message(5, key=sealed, archive_key="here")
    chats = [replace(conversation(n), key=key) for n, key in enumerate((WITH_BOB, sealed, old), 1)]
    tables = tables_of([*chats, conversation(9, CAT)], [*said, named])
    await stores.put(conversations=list(tables.conversations.values()), messages=[*said, named])
    keys = (WITH_BOB, sealed, old)
    books = await loaded(stores, *keys, behind=keys, **{by: [(key, "here") for key in keys]})
    assert books.behind == {
        (WITH_BOB, 5): Behind(1, 0, 2),
        (sealed, 5): Behind(1, 0, 3),
        (old, 5): Behind(0, 0),
    }
    books = await loaded(stores, sealed, behind=[sealed], **{by: [(sealed, "here")]})
    assert books.behind == {(sealed, 5): Behind(1, 0, 3)}


async def test_the_oldest_that_is_unread_is_found_behind_no_matter_how_much(stores: Bench) -> None:
    await indexed(stores, conversation(1), *CHAT)
    assert await marked(stores, 2**63 - 1) == Behind(0, 0, 2)
