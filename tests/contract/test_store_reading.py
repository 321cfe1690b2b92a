"""What every Store promises of a set that reads a conversation: counted as a recount would, all of it or nothing."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from sync.model.books import Keys
from sync.model.conversation import Account, Base, Conversation, Direction, IndexedMessage, Kind, Pointer, Status
from sync.model.device import JobState, PushKind
from sync.model.errors import Conflict, ItemNotFound
from sync.model.query import SetProperties
from sync.rules.fold import Policies
from sync.rules.properties import Settings, keys_of, set_properties
from sync.rules.wishes import WakePolicy
from tests.contract.fakes_tables import Tables, recount
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    IN_TEA,
    OF_TEA,
    TEA,
    WITH_BOB,
    conversation,
    device,
    membership,
    message,
    owned,
    seeing,
)
from tests.contract.stores import Bench

POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
TO_CAT = replace(WITH_BOB, peer=CAT)


def said(rank: int, key: Any = WITH_BOB, **fields: Any) -> IndexedMessage:
    return message(rank, key, archive_key=f"a{rank}", archive_id=f"a{rank}", **fields)


def counted(stored: Sequence[Conversation], messages: Sequence[IndexedMessage]) -> list[Conversation]:
    """With the counters that the index gives them."""
    tables = Tables(conversations={c.key: c for c in stored}, messages={(m.conversation, m.rank): m for m in messages})
    found = {key: recount(tables, key) for key in tables.conversations}
    return [replace(c, unread=found[c.key][0], mentions=found[c.key][1]) for c in stored]


async def put(stores: Bench, stored: Sequence[Conversation], messages: Sequence[IndexedMessage], **rows: Any) -> None:
    found = counted(stored, messages)
    owners = [
        Account(
            jid=owner,
            version=1000,
            floor=0,
            unread=sum(c.unread for c in found if c.key.account == owner),
            mentions=sum(c.mentions for c in found if c.key.account == owner),
            unread_conversations=sum(c.unread > 0 for c in found if c.key.account == owner),
            devices=sum(d.account == owner for d in rows.get("devices", ())),
        )
        for owner in {c.key.account for c in stored}
    ]
    await stores.put(*(o.jid for o in owners), accounts=owners, conversations=found, messages=list(messages), **rows)


async def read(stores: Bench, *requests: SetProperties, resource: str | None = "web") -> Settings:
    rule = partial(set_properties, ANN, requests, resource=resource, policies=POLICIES)
    return await stores.store.transact(keys_of(ANN, requests), rule)


async def state(stores: Bench, *keys: Any) -> list[tuple[int, int, str | None]]:
    """Unread, mentions and the read pointer of these conversations; the account's totals are their sums."""
    books = await stores.store.transact(owned(*{key.account for key in keys}, conversations=keys), seeing())
    for owner in books.accounts.values():
        mine = [c for c in books.conversations.values() if c.key.account == owner.jid]
        assert (owner.unread, owner.mentions) == (sum(c.unread for c in mine), sum(c.mentions for c in mine))
        assert owner.version >= max(c.version for c in mine)
    found = [books.conversations[key] for key in keys]
    return [(c.unread, c.mentions, c.read.id) for c in found]


def up_to(rank: int, peer: str = BOB, **fields: Any) -> SetProperties:
    return SetProperties(peer=peer, read=f"a{rank}", **fields)


CHAT = [said(2), said(3, mention=True), said(4, direction=Direction.OUT, counted=False), said(5), said(6, mention=True)]


@pytest.mark.parametrize(
    ("rank", "left"), [(2, (3, 2, "a2")), (3, (2, 1, "a3")), (4, (2, 1, "a4")), (5, (1, 1, "a5")), (6, (0, 0, "a6"))]
)
async def test_a_part_is_read(stores: Bench, rank: int, left: tuple[int, int, str]) -> None:
    await put(stores, [conversation()], CHAT)
    done = await read(stores, up_to(rank))
    assert [(c.key, c.read.id) for c in done.read] == [(WITH_BOB, f"a{rank}")]
    assert await state(stores, WITH_BOB) == [left]
    again = await read(stores, up_to(rank), up_to(2))
    assert (again.changed, again.read) == ((), ())
    assert await state(stores, WITH_BOB) == [left]
    gone = await read(stores, up_to(rank, status=Status.DELETED))
    assert (len(gone.changed), gone.read) == (1, ())


async def test_the_base_is_read_as_a_whole_or_not_at_all(stores: Bench) -> None:
    await put(stores, [conversation(base=Base(unread=10, mentions=4, rank=4))], CHAT)
    assert (await read(stores, up_to(3))).changed == ()
    assert await state(stores, WITH_BOB) == [(12, 5, None)]
    await read(stores, up_to(5))
    assert await state(stores, WITH_BOB) == [(1, 1, "a5")]


async def test_who_cannot_be_read_keeps_the_rest_from_being_set(stores: Bench) -> None:
    other = [said(7, TO_CAT), said(8, TO_CAT)]
    await put(stores, [conversation(), conversation(2, CAT)], [*CHAT, *other], devices=[device(woken_version=900)])
    good = up_to(6, status=Status.ARCHIVED)
    for bad, error in (
        (up_to(7), ItemNotFound),
        (up_to(9, CAT), ItemNotFound),
        (up_to(5, CAT), ItemNotFound),
        (up_to(8, CAT, kind=Kind.GROUP), ItemNotFound),
        (up_to(8, "nobody@example.net"), ItemNotFound),
        (up_to(8, CAT, if_version=1), Conflict),
    ):
        with pytest.raises(error):
            await read(stores, *([bad] if bad.peer == BOB else [good, bad]))
    assert await state(stores, WITH_BOB, TO_CAT) == [(4, 2, None), (2, 0, None)]
    assert await jobs(stores) == []
    done = await read(stores, good, up_to(7, CAT, if_version=2, pinned=3))
    assert [(c.key.peer, c.status, c.pinned) for c in done.named] == [(BOB, "archived", 0), (CAT, "active", 3)]
    assert await state(stores, WITH_BOB, TO_CAT) == [(0, 0, "a6"), (1, 0, "a7")]


async def jobs(stores: Bench) -> list[tuple[str, PushKind, JobState, int | None]]:
    books = await stores.store.transact(Keys(accounts=frozenset({ANN}), devices=True), seeing())
    return [(job.device_id, job.kind, job.state, job.target_rank) for job in books.jobs.get(ANN, [])]


async def test_the_phones_that_show_it_are_told_with_the_same_commit(stores: Bench) -> None:
    phones = [
        device("pad", woken_version=900, bound_to="pad"),
        device("web", woken_version=900, bound_to="web"),
        device("new", woken_version=1),
    ]
    await put(stores, [conversation()], CHAT, devices=phones)
    done = await read(stores, up_to(3))
    assert await jobs(stores) == [("pad", PushKind.READ, JobState.QUEUED, 2)]
    assert [job.device_id for job in done.report.jobs] == ["pad"]


async def test_a_room_is_read_by_one_member_alone(stores: Bench) -> None:
    room = [said(2, OF_TEA, author=BOB), said(3, OF_TEA, author=ANN), said(5, OF_TEA, author=BOB, mention=True)]
    of_eve = replace(IN_TEA, account=EVE)
    await put(
        stores, [membership(taken=9), membership(1, EVE, taken=9)], [*room, said(7, replace(OF_TEA, account=CAT))]
    )
    request = up_to(3, TEA, kind=Kind.GROUP)
    assert [c.read.rank for c in (await read(stores, request)).read] == [3]
    assert await state(stores, IN_TEA, of_eve) == [(1, 1, "a3"), (3, 1, None)]
    with pytest.raises(ItemNotFound):
        await read(stores, replace(request, read="a7"))
    with pytest.raises(ItemNotFound):
        await read(stores, replace(request, kind=Kind.CHAT))


async def test_a_chat_has_nothing_of_the_room_of_its_name(stores: Bench) -> None:
    await put(stores, [replace(membership(taken=9), key=replace(WITH_BOB, peer=TEA))], [said(2, OF_TEA, author=BOB)])
    with pytest.raises(ItemNotFound):
        await read(stores, up_to(2, TEA))


SORTS: tuple[dict[str, Any], ...] = ({}, {"mention": True}, {"counted": False}, {"retracted": 60})


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_reading_counts_as_a_recount_would(stores: Bench, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - not for secrets
    ranks = sorted(random.sample(range(2, 50), 25))
    index = [said(rank, **random.choice(SORTS)) for rank in ranks]
    start = conversation(read=Pointer(random.randrange(10), "a"))
    await put(stores, [start], index)
    furthest = start.read
    for target in random.sample(index, 8):
        await read(stores, up_to(target.rank))
        if target.rank > furthest.rank:
            furthest = Pointer(target.rank, target.archive_id)
        (expected,) = counted([replace(start, read=furthest)], index)
        assert await state(stores, WITH_BOB) == [(expected.unread, expected.mentions, furthest.id)]
