"""Live notices: who is told what, in which order, and what becomes of it when somebody goes, fails, or starts anew."""

import asyncio
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element

import pytest

from sync.model.delta import DeltaPage, DeltaQuery, DeltaToken
from sync.model.errors import Overloaded, StoreUnavailable
from sync.model.event import SessionChange
from sync.ports import Watcher
from sync.protocol.names import CLIENT, CONVSYNC, clark
from sync.protocol.token import decode_token
from sync.service import watch
from tests.contract.samples import ANN, BOB, EVE, account, change, conversation, last, owned, storing
from tests.service.post import HOST, HUNG, Post, answer


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    post = Post()
    post.bump(100)
    post.bump(100, owner=EVE)
    await post.online(f"{ANN}/web", f"{ANN}/phone", f"{EVE}/web")
    async with post.at_work():
        yield post


@pytest.fixture(autouse=True)
def _small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in several statements."""
    monkeypatch.setattr(watch, "ROWS", 1)


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


# ---- a list that is being read ---------------------------------------------------------------------------------------


async def paging(post: Post, *, end: bool, wish: bool | None = None, reached: int = 100) -> None:
    low = None if end else 90
    token = DeltaToken(epoch=1, since=100 if end else 50, log=50, newest=0 if end else 100, low=low)
    await post.watchers.answered(ANN, "web", wish, answer(token, reached))


def told_changes(notice: Element) -> list[int]:
    return [int(one.get("version", "")) for one in notice.iter(clark(CONVSYNC, "change"))]


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


# ---- who is told -----------------------------------------------------------------------------------------------------


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
