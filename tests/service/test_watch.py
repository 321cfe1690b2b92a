"""Live notices: who is told what, in which order, and what becomes of it when somebody goes, fails, or starts anew."""

import asyncio
from xml.etree.ElementTree import Element

import pytest

from sync.model.delta import DeltaToken
from sync.protocol.names import CLIENT, CONVSYNC, clark
from sync.protocol.token import decode_token
from tests.contract.samples import ANN, BOB, account, change, conversation, last, owned, storing
from tests.service.post import Post


def jids(notice: Element) -> list[str | None]:
    return [one.get("jid") for one in notice.iterfind(clark(CONVSYNC, "conversation"))]


# ---- what is told ----------------------------------------------------------------------------------------------------


async def test_a_session_is_told_what_changed_since_its_answer(post: Post) -> None:
    await post.follow()
    post.bump(200, last=last(200, stanza="<message xmlns='jabber:client' id='m2'><body>hello</body></message>"))
    await post.settled()
    (stanza,) = post.lines.handed
    assert stanza.tag == clark(CLIENT, "message")
    assert dict(stanza.items()) == {"type": "headline", "from": ANN, "to": f"{ANN}/web"}
    (notice,) = stanza
    assert notice.tag == clark(CONVSYNC, "live")
    assert set(notice.keys()) == {"previous", "version", "token", "time"}
    assert (notice.get("previous"), notice.get("version")) == ("100", "200")
    assert decode_token(notice.get("token", ""), account=ANN) == DeltaToken(epoch=1, since=200, log=200)
    assert [child.tag for child in notice] == [clark(CONVSYNC, name) for name in ("totals", "conversation")]
    assert jids(notice) == [BOB]
    assert notice.findtext(f".//{clark(CLIENT, 'body')}") == "hello"


async def test_notices_follow_each_other_without_a_hole(post: Post) -> None:
    await post.follow()
    for version in range(200, 210):
        post.bump(version)
        await post.settled()
    assert post.chain() == list(zip([100, *range(200, 209)], range(200, 210), strict=True))


async def test_nothing_new_is_nothing_told(post: Post) -> None:
    await post.follow()
    await post.settled()
    post.store.accounts.clear()
    post.store.apply(owned(ANN), storing(accounts=[account(version=100, floor=10, wakes_open=True)]))
    await post.settled()
    assert (post.store.accounts, post.store.deltas, post.lines.handed) == ([], [], [])


async def test_what_was_committed_between_the_answer_and_the_beginning_is_told(post: Post) -> None:
    """The answer's snapshot is of 100; before the session is known the account has moved."""
    post.bump(200)
    await post.follow(version=100)
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_what_is_committed_while_it_is_written_down_is_told_after_the_answer(post: Post) -> None:
    post.rows.gate.clear()
    following = asyncio.ensure_future(post.follow())
    await post.settled()
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []
    post.rows.gate.set()
    await following
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_no_notice_comes_before_the_answer(post: Post) -> None:
    """The caller sends the answer without waiting for anything after `answered`."""
    post.bump(200)
    await post.follow(version=100)
    assert post.lines.handed == []
    await post.follow(version=100)  # known already
    assert post.lines.handed == []


async def test_many_commits_become_few_notices(post: Post) -> None:
    await post.follow()
    post.lines.silent[f"{ANN}/web"] = asyncio.Event()
    for version in range(200, 250):
        post.bump(version, f"p{version % 7}@example.net")
        await asyncio.sleep(0)
    await post.settled()
    post.lines.silent[f"{ANN}/web"].set()
    await post.settled()
    assert post.chain()[0][0] == 100
    assert post.chain()[-1][1] == 249
    assert len(post.chain()) == 2
    assert post.chain()[0][1] == post.chain()[1][0]


async def test_sessions_that_know_the_same_cost_one_read(post: Post) -> None:
    await post.follow()
    await post.follow("phone")
    await post.settled()
    post.store.accounts.clear()
    post.bump(200)
    await post.settled()
    assert (len(post.store.accounts), len(post.store.deltas)) == (0, 1)
    assert post.chain(f"{ANN}/phone") == post.chain() == [(100, 200)]


async def test_an_account_without_watchers_costs_nothing(post: Post) -> None:
    post.bump(200)
    await post.settled()
    assert (post.store.accounts, post.store.deltas, post.lines.handed) == ([], [], [])


async def test_who_asks_again_is_told_since_that_answer(post: Post) -> None:
    await post.follow()
    post.bump(200)
    await post.settled()
    await post.follow(version=150)
    await post.settled()
    assert post.chain() == [(100, 200), (150, 200)]


# ---- too much --------------------------------------------------------------------------------------------------------


async def test_more_than_twenty_conversations_are_to_be_asked_for(post: Post) -> None:
    await post.follow()
    post.lines.silent[f"{ANN}/web"] = asyncio.Event()
    post.bump(200)
    await post.settled()
    for version in range(201, 222):
        post.bump(version, f"p{version}@example.net")
    post.lines.silent[f"{ANN}/web"].set()
    await post.settled()
    more = post.notices()[1]
    assert (more.get("more"), len(more)) == ("true", 0)
    assert decode_token(more.get("token", ""), account=ANN).since == 200
    post.bump(300)
    await post.settled()
    assert post.chain() == [(100, 200), (200, 221), (221, 300)]
    assert post.notices()[2].get("more") is None


async def test_twenty_are_told(post: Post) -> None:
    await post.follow()
    for version in range(201, 221):
        post.bump(version, f"p{version}@example.net")
    await post.settled()
    assert post.chain() == [(100, 220)]
    assert len(jids(post.notices()[0])) == 20


@pytest.mark.parametrize(("size", "more"), [(20_000, None), (25_000, "true")])
async def test_what_is_too_large_is_to_be_asked_for(post: Post, size: int, more: str | None) -> None:
    await post.follow()
    text = f"<message xmlns='jabber:client'><body>{'x' * size}</body></message>"
    for version in (201, 202, 203):
        post.bump(version, f"p{version}@example.net", last=last(version, stanza=text))
    await post.settled()
    (notice,) = post.notices()
    assert notice.get("more") == more
    assert len(jids(notice)) == (0 if more else 3)


async def test_one_conversation_alone_may_be_too_large(post: Post) -> None:
    await post.follow()
    text = f"<message xmlns='jabber:client'><body>{'x' * 40_000}</body></message>"
    rows = {"accounts": [account(version=202, floor=10)], "changes": [change(201, stanza=text)]}
    post.store.apply(owned(ANN), storing(**rows, conversations=[conversation(202, last=last(1, stanza=text))]))
    await post.settled()
    assert [one.get("more") for one in post.notices()] == ["true"]


async def test_clients_that_start_over_are_to_ask(post: Post) -> None:
    await post.follow()
    post.store.apply(owned(ANN), storing(accounts=[account(version=500, floor=500, epoch=2)]))
    await post.settled()
    (notice,) = post.notices()
    assert (notice.get("previous"), notice.get("version"), notice.get("more")) == ("100", "500", "true")
    post.bump(600)
    await post.settled()
    assert post.chain()[-1] == (500, 600)
