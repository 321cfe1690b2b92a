"""Live notices follow sessions: who ends, hibernates, comes back, or takes nothing."""

import asyncio

import pytest

from sync.model.delta import DeltaToken
from sync.model.errors import Overloaded
from sync.model.event import SessionChange
from sync.service import watch
from tests.contract.samples import ANN, EVE
from tests.service.post import HOST, Post, answer


async def test_until_it_says_otherwise(post: Post) -> None:
    token = DeltaToken(epoch=1, since=100, log=100)
    await post.follow()
    await post.watchers.answered(ANN, "web", None, answer(token))
    await post.watchers.answered(ANN, "phone", None, answer(token))
    post.bump(200)
    await post.settled()
    await post.watchers.answered(ANN, "web", False, answer(token))
    await post.watchers.answered(ANN, "phone", False, answer(token))
    post.bump(300)
    await post.settled()
    assert (post.chain(), post.chain(f"{ANN}/phone")) == ([(100, 200)], [])
    await post.watchers.keep()
    assert post.rows.rows == {}


async def test_who_ended_is_told_nothing(post: Post) -> None:
    await post.follow()
    await post.follow("phone")
    await post.happens(SessionChange.UNBOUND)
    post.bump(200)
    await post.settled()
    assert [stanza.get("to") for stanza in post.lines.handed] == [f"{ANN}/phone"]
    await post.watchers.keep()
    assert post.rows_of() == [("phone", 200, 200)]


async def test_who_hibernates_is_told_when_it_is_back(post: Post) -> None:
    await post.follow()
    await post.happens(SessionChange.HIBERNATED)
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []
    await post.happens(SessionChange.RESUMED)
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_who_takes_nothing_is_left_alone_until_something_is_heard_of_it(post: Post) -> None:
    await post.follow()
    post.lines.gone.add(f"{ANN}/web")
    post.bump(200)
    await post.settled()
    reads = len(post.store.deltas)
    post.bump(300)
    await post.watchers.look()
    await post.settled()
    assert (len(post.store.deltas), post.lines.handed) == (reads, [])
    assert post.observer.told("notice") == [{"kind": "live", "outcome": "untaken"}]
    post.lines.gone.clear()
    await post.online(f"{ANN}/web")
    await post.settled()
    assert post.chain() == [(100, 300)]


async def test_who_is_back_before_it_is_known_that_it_was_away(post: Post) -> None:
    """The word that nobody took it, and that the session is resumed, may come by different ways."""
    await post.follow()
    await post.settled()
    post.lines.gone.add(f"{ANN}/web")
    post.lines.late.clear()
    post.bump(200)
    await post.settled()
    post.lines.gone.clear()
    await post.happens(SessionChange.RESUMED)
    post.lines.late.set()
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_who_is_not_in_the_list_of_sessions_is_gone(post: Post) -> None:
    await post.follow()
    await post.follow("phone")
    await post.follow(owner=EVE)
    await post.online(f"{ANN}/phone", f"{EVE}/web")
    await post.attendance.reset("example.com", {})  # another host's list says nothing of these
    post.bump(200)
    post.bump(200, owner=EVE)
    await post.settled()
    assert sorted(stanza.get("to", "") for stanza in post.lines.handed) == [f"{ANN}/phone", f"{EVE}/web"]


async def test_who_came_after_the_list_is_not_put_out_by_it(post: Post) -> None:
    mark = post.watchers.mark
    await post.follow()
    post.watchers.listed(HOST, {}, mark)
    post.bump(200)
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_who_ended_while_it_asked_is_not_kept(post: Post) -> None:
    """Its end was committed before it was known that it wants to be told."""
    await post.happens(SessionChange.UNBOUND)
    await post.follow()
    await post.watchers.keep()
    assert post.rows.rows == {}
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []


async def test_whose_end_is_being_taken_is_not_kept(post: Post) -> None:
    """Presence hears first: whoever asks in between is found there, and then ended."""
    post.presence.gate.clear()
    ending = asyncio.ensure_future(post.happens(SessionChange.UNBOUND))
    await post.settled()
    await post.follow()
    post.presence.gate.set()
    await ending
    await post.watchers.keep()
    assert post.rows.rows == {}


async def test_where_presence_is_not_known_it_is_told(post: Post) -> None:
    await post.presence.close()
    await post.follow()
    post.bump(200)
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_they_are_so_many_at_the_most(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_WATCHERS", 1)
    await post.follow()
    with pytest.raises(Overloaded):
        await post.follow("phone")
    await post.follow()
    assert post.observer.told("watchers")[-1] == {"sessions": 1}
