"""Live notices to a client that is still reading a list: what it would have had of it, and not twice."""

import asyncio

from sync.model.delta import DeltaToken
from sync.protocol.token import decode_token
from tests.contract.samples import ANN, change, owned, storing
from tests.service.post import Post, answer
from tests.service.watching import paging, told_changes


async def test_who_reads_a_list_hears_of_the_changes_that_it_would_have_had(post: Post) -> None:
    """A conversation that is bumped while the client pages is on no later page, and its older changes neither."""
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    await paging(post, end=False, wish=True)
    for version in (200, 201):
        post.bump(version)
        await post.settled()
    assert [told_changes(one) for one in post.notices()] == [[60], [60]]
    await paging(post, end=True, reached=201)
    post.bump(202)
    await post.settled()
    assert told_changes(post.notices()[2]) == []
    assert post.rows_of() == [("web", 100, 50)]
    await post.watchers.keep()
    assert post.rows_of() == [("web", 202, 202)]


async def test_what_was_not_told_at_the_end_of_the_list_is_told_with_all_changes(post: Post) -> None:
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    await paging(post, end=False, wish=True)
    post.lines.silent[f"{ANN}/web"] = asyncio.Event()
    post.bump(150)
    await post.settled()
    post.bump(200)
    await paging(post, end=True, reached=200)
    post.lines.silent[f"{ANN}/web"].set()
    await post.settled()
    post.bump(201)
    await post.settled()
    assert [told_changes(one) for one in post.notices()] == [[60], [60], []]
    # The next notice may be lost: who asks with the token of this one is told the same.
    tokens = [decode_token(one.get("token", ""), account=ANN) for one in post.notices()]
    assert [(token.since, token.log) for token in tokens] == [(150, 50), (200, 50), (201, 201)]


async def test_a_list_that_is_read_anew_begins_with_its_own_changes(post: Post) -> None:
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    await post.follow()
    await paging(post, end=False)
    post.bump(200)
    await post.settled()
    assert told_changes(post.notices()[0]) == [60]


async def test_whoever_reads_everything_knows_no_older_changes(post: Post) -> None:
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    token = DeltaToken(epoch=1, newest=100, low=90)
    await post.watchers.answered(ANN, "web", True, answer(token))
    post.bump(200)
    await post.settled()
    assert told_changes(post.notices()[0]) == []


async def test_a_list_with_filters_settles_nothing(post: Post) -> None:
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    await paging(post, end=False, wish=True)
    token = DeltaToken(epoch=1, since=100, log=100, filters=b"12345678")
    await post.watchers.answered(ANN, "web", None, answer(token))
    post.bump(200)
    await post.settled()
    post.bump(201)
    await post.settled()
    assert [told_changes(one) for one in post.notices()] == [[60], [60]]


async def test_a_list_with_filters_begins_nothing_either(post: Post) -> None:
    await post.follow()
    token = DeltaToken(epoch=1, since=100, log=100, filters=b"12345678")
    await post.watchers.answered(ANN, "web", None, answer(token))
    post.store.apply(owned(ANN), storing(changes=[change(150)]))
    for version in (200, 201):
        post.bump(version)
        await post.settled()
    assert [told_changes(one) for one in post.notices()] == [[150], []]
