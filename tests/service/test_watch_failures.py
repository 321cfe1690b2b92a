"""Live notices where something fails or starts anew: they are late and miss nothing."""

import asyncio

import pytest

from sync.model.delta import DeltaPage, DeltaQuery
from sync.model.errors import StoreUnavailable
from sync.ports import Watcher
from sync.service import watch
from tests.contract.samples import ANN, EVE, change, owned, storing
from tests.service.post import HUNG, Post
from tests.service.watching import paging, told_changes

# ---- what fails ------------------------------------------------------------------------------------------------------


async def test_what_was_refused_is_told_later(post: Post) -> None:
    await post.follow()
    await post.settled()
    post.lines.refused.add(f"{ANN}/web")
    post.bump(200)
    await post.settled()
    assert post.observer.told("notice") == [{"kind": "live", "outcome": "refused"}]
    post.lines.refused.clear()
    await post.clock.ring()  # a look
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_a_session_that_never_answers_keeps_nobody_waiting(post: Post) -> None:
    await post.follow()
    await post.follow("phone")
    await post.follow(owner=EVE)
    post.lines.silent[f"{ANN}/web"] = asyncio.Event()
    for version in (200, 201, 202):
        post.bump(version)
        post.bump(version, owner=EVE)
        await post.settled()
    assert post.chain(f"{EVE}/web") == [(100, 200), (200, 201), (201, 202)]
    assert post.chain() == []
    post.lines.silent[f"{ANN}/web"].set()
    await post.settled()
    assert post.chain() == [(100, 200), (200, 202)]


async def test_a_host_that_delivers_nothing_keeps_no_other_host_waiting(post: Post) -> None:
    """However many of its accounts are due: one of them at a time asks whether it delivers again."""
    names = [f"u{n}@{HUNG}" for n in range(2 * watch.TASKS)]
    for owner in names:
        post.bump(100, owner=owner)
        await post.follow(owner=owner)
    await post.follow()
    await post.settled()
    answers = asyncio.Event()
    for owner in names:
        post.lines.silent[f"{owner}/web"] = answers
        post.lines.refused.add(f"{owner}/web")
        post.bump(200, owner=owner)
    await post.settled()
    answers.set()  # no answer, says the link after its time
    await post.settled()
    answers.clear()
    post.observer.calls.clear()
    for owner in names:
        post.bump(300, owner=owner)
    post.bump(200)
    await post.settled()
    assert post.chain() == [(100, 200)]
    answers.set()
    await post.settled()
    assert [told["outcome"] for told in post.observer.told("notice")] == ["sent", "refused"]
    post.lines.refused.clear()
    for _ in range(2):  # one account finds out, the others follow
        await post.watchers.look()
        await post.settled()
    assert {post.chain(f"{owner}/web")[-1] for owner in names} == {(100, 300)}


async def test_the_database_away_delays_and_loses_nothing(post: Post) -> None:
    await post.follow()
    await post.settled()
    post.store.away = True
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []
    post.store.away = False
    await post.clock.ring()
    await post.settled()
    assert post.chain() == [(100, 200)]


async def test_an_account_that_cannot_be_read_keeps_nobody_waiting(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await post.follow()
    await post.follow(owner=EVE)
    await post.settled()
    delta = post.store.delta

    async def broken(account_: str, query: DeltaQuery) -> DeltaPage | None:
        if account_ == ANN:
            raise ValueError("secret")
        return await delta(account_, query)

    monkeypatch.setattr(post.store, "delta", broken)
    for version in (200, 201):
        post.bump(version)
        post.bump(version, owner=EVE)
        await post.settled()
    assert post.chain(f"{EVE}/web") == [(100, 200), (200, 201)]
    assert "secret" not in caplog.text
    monkeypatch.setattr(post.store, "delta", delta)
    await post.watchers.look()
    await post.settled()
    assert post.chain() == [(100, 201)]


async def test_what_cannot_be_written_down_is_not_promised(post: Post) -> None:
    post.rows.away = True
    with pytest.raises(StoreUnavailable):
        await post.follow()
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []


async def test_and_who_was_told_before_goes_on(post: Post) -> None:
    await post.follow()
    post.bump(200)
    await post.settled()
    await post.watchers.keep()
    post.rows.away = True
    with pytest.raises(StoreUnavailable):
        await post.follow(version=150)  # less than what is written
    post.bump(300)
    await post.settled()
    assert post.chain() == [(100, 200), (200, 300)]


async def test_what_nobody_hinted_at_is_found_by_looking(post: Post) -> None:
    """A call that another process let expire, an epoch that was raised."""
    await post.follow()
    await post.settled()
    post.store.stored = lambda _: None
    post.bump(200)
    await post.settled()
    assert post.lines.handed == []
    await post.clock.ring()
    await post.settled()
    assert post.chain() == [(100, 200)]


# ---- another process -------------------------------------------------------------------------------------------------


async def restarted(post: Post) -> None:
    """Killed: what it had not written is gone; its successor learns who is there."""
    post.watchers.clear()
    post.begin()
    await post.watchers.load()


async def test_after_a_restart_it_goes_on(post: Post) -> None:
    await post.follow()
    await post.follow("phone")
    post.bump(200)
    await post.settled()
    await post.watchers.keep()
    post.bump(300)
    await post.settled()
    assert post.rows_of() == [("web", 200, 200), ("phone", 200, 200)]
    await restarted(post)
    post.bump(400)
    async with post.at_work():
        await post.online(f"{ANN}/web")
        await post.settled()
    # 200 to 300 was told already, and is told again: nothing between is missing.
    assert post.chain() == [(100, 200), (200, 300), (200, 400)]
    assert post.chain(f"{ANN}/phone")[-1] != (200, 400)
    await post.watchers.keep()
    assert post.rows_of() == [("web", 400, 400)]


async def test_who_read_a_list_then_hears_of_all_its_changes(post: Post) -> None:
    post.store.apply(owned(ANN), storing(changes=[change(60)]))
    await paging(post, end=False, wish=True)
    await restarted(post)
    async with post.at_work():
        for version in (200, 201):
            post.bump(version)
            await post.settled()
    assert [told_changes(one) for one in post.notices()] == [[60], [60]]


async def test_accounts_of_hosts_that_are_not_ours_are_left_alone(post: Post) -> None:
    elsewhere = Watcher("ann@example.com", "web", 5, 5)
    await post.rows.put(elsewhere)
    await restarted(post)
    assert post.observer.told("watchers")[-1] == {"sessions": 0}
    await post.watchers.keep()
    assert list(post.rows.rows.values()) == [elsewhere]


async def test_who_leads_no_more_tells_nobody(post: Post) -> None:
    await post.follow()
    post.watchers.clear()
    post.bump(200)
    await post.watchers.keep()
    await post.settled()
    assert post.lines.handed == []
    assert post.rows_of() == [("web", 100, 100)]


async def test_what_was_told_is_written_down_after_a_moment(post: Post) -> None:
    await post.follow()
    post.bump(200)
    await post.settled()
    assert post.rows_of() == [("web", 100, 100)]
    await post.clock.ring()
    await post.settled()
    assert post.rows_of() == [("web", 200, 200)]
