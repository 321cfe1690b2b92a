"""What reads archives: what it asks, how it goes on, and what it does where it may not, or cannot."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.bootstrap import BootstrapState
from sync.model.conversation import Kind, key_of
from sync.model.errors import Uncommittable
from sync.model.event import Session, SessionState
from sync.protocol.hello import PresentSession
from sync.protocol.names import FEED
from sync.rules.fold import Policies
from sync.rules.times import microseconds
from sync.rules.view import Conduct
from tests.contract.samples import ANN, EVE, NOW, WITH_BOB, conversation, message, owned, storing
from tests.service.archived import known, of_kind, talk
from tests.service.archives import HOST, House


async def test_an_archive_is_read_page_by_page() -> None:
    house = House()
    known(house)
    talk(house, 120)
    await house.until(house.done)
    assert (house.row().restored, house.row().after) == (120, "a119")
    assert [asked.get("after") for asked in of_kind(house, "archive")] == [None, "a49", "a99"]
    conversation = house.store.tables.conversations[WITH_BOB]
    assert conversation.last is not None
    assert (conversation.unread, conversation.last.archive_id, conversation.read.id) == (0, "a119", "a119")
    assert house.outcomes() == ["done"]
    assert sum(int(str(told["messages"])) for told in house.observer.told("restored")) == 120


async def test_encrypted_chats_come_out_of_the_archive_apart() -> None:
    house = House(policies=Policies(conduct=Conduct(encrypted_apart=True)))
    known(house)
    sealed = "<encrypted xmlns='urn:xmpp:omemo:2'><payload/></encrypted>"
    talk(house, 2)
    house.server.said(ANN, "s0", house.ago(8), f"text</body>{sealed}<body>")
    house.server.said(ANN, "s1", house.ago(7), f"text</body>{sealed}<body>")
    house.server.storage[ANN] = (
        "<pep node='urn:xmpp:mds:displayed:0' item='bob@example.net'><displayed xmlns='urn:xmpp:mds:displayed:0'>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='s0'/></displayed></pep>"
    )
    await house.until(house.done)
    found = {key.kind: (c.unread, c.read.id) for key, c in house.store.tables.conversations.items()}
    assert found == {Kind.CHAT: (0, "s0"), Kind.OMEMO_2: (1, "s0")}


async def test_it_is_asked_how_far_back_and_not_up_to_now() -> None:
    house = House()
    known(house)
    await house.until(house.done)
    (asked,) = of_kind(house, "archive")
    assert abs(int(asked.get("start", "")) - house.ago(90)) < 10_000_000
    assert int(asked.get("end", "")) <= microseconds(house.clock.now()) - 2_000_000


async def test_what_is_newer_than_was_asked_for_is_left_to_the_feed() -> None:
    house = House()
    known(house)
    house.server.said(ANN, "old", house.ago(1))
    house.server.archives[ANN].append(("new", house.ago(-1), house.server.archives[ANN][0][2]))
    house.server.archive = lambda _: (  # type: ignore[method-assign]
        "<archive xmlns='urn:convsync:feed:0'>"
        + "".join(f"<item id='{i}' at='{at}'>{xml}</item>" for i, at, xml in house.server.archives[ANN])
        + "</archive>"
    )
    await house.until(house.done)
    assert house.row().restored == 1


async def test_storage_is_asked_before_and_after() -> None:
    house = House()
    known(house)
    talk(house, 3)
    mark = (
        "<pep node='urn:xmpp:mds:displayed:0' item='bob@example.net'><displayed xmlns='urn:xmpp:mds:displayed:0'>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='a0'/></displayed></pep>"
    )
    house.server.storage[ANN] = mark
    house.server.answered = lambda asked: (
        house.server.storage.update({ANN: mark.replace("a0", "a1")}) if asked.tag.endswith("}archive") else None
    )
    await house.until(house.done)
    conversation = house.store.tables.conversations[WITH_BOB]
    assert (conversation.unread, conversation.read.id) == (1, "a1")


async def test_in_the_end_clients_are_shown_the_newest_conversations() -> None:
    house = House()
    known(house)
    for n in range(30):
        house.server.said(ANN, f"a{n}", house.ago(10) + n, author=f"peer{n:02}@example.net")
    await house.until(house.done)
    await house.until(lambda: house.live.told)
    floor = str(house.store.tables.accounts[ANN].floor)
    assert house.live.told == [(ANN, floor, f"peer{n:02}@example.net") for n in range(10, 30)]
    assert house.moved == [ANN]  # at the end, and not with each page


async def test_where_nothing_is_new_nobody_is_told() -> None:
    house = House()
    known(house, ANN, EVE)
    talk(house, 1)
    await house.until(lambda: house.done() and house.live.told)
    await house.store.ask([ANN], NOW)
    house.live.told.clear()
    await house.until(lambda: house.done() and house.outcomes().count("done") == 3)
    assert house.live.told == []


async def test_whoever_is_connected_is_met() -> None:
    house = House()
    house.feeds[HOST].hello(PresentSession(EVE, Session("phone", SessionState.ACTIVE)))
    await house.until(lambda: house.done(EVE))
    assert EVE in house.store.tables.accounts
    said = house.feeds[HOST].said
    assert said is not None
    assert said.sessions == ()


async def test_whoever_is_connected_when_the_host_says_hello_again_is_met_as_well() -> None:
    house = House()
    feed, meet = house.feeds[HOST], house.store.meet

    async def meeting(accounts: Sequence[str], now: datetime) -> int:
        if ANN not in accounts:  # while Eve is met the module begins anew
            feed.hello(PresentSession(ANN, Session("desk", SessionState.ACTIVE)))
        return await meet(accounts, now)

    house.store.meet = meeting  # type: ignore[method-assign]
    feed.hello(PresentSession(EVE, Session("phone", SessionState.ACTIVE)))
    await house.until(lambda: house.done(EVE) and house.done(ANN))


async def test_a_session_that_the_database_does_not_take_keeps_nobody_waiting() -> None:
    """A name may be longer than an index takes."""
    house = House()
    long = "x" * 2900 + "@" + HOST
    meet = house.store.meet

    async def meeting(accounts: Sequence[str], now: datetime) -> int:
        if long in accounts:
            raise Uncommittable("ProgramLimitExceededError")
        return await meet(accounts, now)

    house.store.meet = meeting  # type: ignore[method-assign]
    connected = [PresentSession(name, Session("phone", SessionState.ACTIVE)) for name in (ANN, long, EVE)]
    house.feeds[HOST].hello(*connected)
    await house.until(lambda: house.done(ANN) and house.done(EVE))


async def test_a_page_that_comes_again_and_again_is_no_answer() -> None:
    house = House()
    known(house)
    talk(house, 3)
    archive = house.server.archive
    house.server.archive = lambda asked: (  # type: ignore[method-assign]
        asked.attrib.pop("after", None),
        archive(asked).replace(" last='true'", ""),
    )[1]
    await house.until(lambda: house.row().state is BootstrapState.FAILED)
    assert house.row().why == "bad-answer"


async def test_names_that_come_again_and_again_are_no_answer() -> None:
    house = House()
    await house.store.ask([HOST], NOW)
    house.server.accounts = lambda _: f"<accounts xmlns='{FEED}'><account jid='{ANN}'/></accounts>"  # type: ignore[method-assign]
    await house.until(lambda: house.row(HOST).state is BootstrapState.FAILED)
    assert house.row(HOST).why == "bad-answer"


# ---- its place beside live traffic -----------------------------------------------------------------------------------


async def test_nothing_is_taken_while_the_feed_is_behind() -> None:
    house = House()
    known(house)
    talk(house, 3)
    house.feeds[HOST].behind = 3
    await house.until(house.done)
    assert len(of_kind(house, "archive")) == 4
    assert house.row().attempts == 0


async def test_only_who_speaks_for_the_component_reads() -> None:
    house = House()
    known(house)
    house.leads = False
    await house.until(lambda: (house.clock.now() - NOW).total_seconds() > 60)
    assert house.server.asked == []


async def test_where_it_is_switched_off_nothing_is_asked() -> None:
    house = House(enabled=False)
    known(house)
    with pytest.raises(AssertionError, match="not in time"):
        await house.until(house.done, turns=200)
    assert house.server.asked == []


async def test_pages_have_their_pace() -> None:
    house = House(pages_per_second=2.0)
    known(house)
    talk(house, 500, days=60)
    await house.until(house.done)
    assert (house.clock.now() - NOW).total_seconds() >= (10 + 2) / 2


async def test_a_clock_that_is_set_back_by_a_day_costs_no_day() -> None:
    house = House(pages_per_second=2.0)
    known(house)
    talk(house, 200, days=60)
    yesterday = NOW - timedelta(days=1)

    def set_back(_: Element) -> None:
        if len(of_kind(house, "archive")) == 2:
            house.clock.instant = yesterday

    house.server.answered = set_back
    await house.until(house.done)
    assert len(of_kind(house, "archive")) == 4
    assert timedelta(0) < house.clock.now() - yesterday < timedelta(minutes=1)


async def test_of_a_long_archive_the_newest_part_is_complete() -> None:
    house = House(messages=100)
    known(house)
    talk(house, 1000, days=60)
    await house.until(house.done)
    ids = {message.archive_id for message in house.store.tables.messages.values()}
    assert {f"a{n}" for n in range(950, 1000)} <= ids
    assert len(ids) < 700


async def test_who_is_asked_for_anew_is_read_anew() -> None:
    house = House()
    known(house)
    talk(house, 120)
    asked_again: list[bool] = []

    def ask(asked: Element) -> None:
        if asked.get("after") == "a49" and not asked_again:
            asked_again.append(True)
            row = house.row()
            house.store.tables.bootstraps[ANN] = replace(row, turn=row.turn + 1, after=None, rank=0, seen=0)

    house.server.answered = ask
    await house.until(house.done)
    assert [asked.get("after") for asked in of_kind(house, "archive")].count(None) == 2
    assert len(house.store.tables.messages) == 120


@pytest.mark.parametrize(
    ("since", "said", "taken"), [(60, 40, False), (60, 31, False), (60, 29, True), (20, 40, True), (20, 29, True)]
)
async def test_a_conversation_of_which_the_tombstone_is_gone_does_not_come_back(
    since: float, said: float, *, taken: bool
) -> None:
    """What was said behind the first contact was known; only what is younger than any tombstone was surely lost."""
    house = House()
    known(house)
    house.store.tables.bootstraps[ANN] = replace(house.row(), since=house.ago(since), turn=2)
    house.server.said(ANN, "a1", house.ago(said))
    await house.until(house.done)
    assert (WITH_BOB in house.store.tables.conversations) is taken


async def test_a_known_message_that_is_trimmed_meanwhile_is_given_a_place_like_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the look at what is known and the page's own transaction; at its time in the archive there is another."""
    house = House()
    known(house)
    talk(house, 1)
    where = house.ago(10)
    here = message(where, archive_key=key_of("live"), counted=False)
    trimmed = message(where + 99, archive_key=key_of("a0"), counted=False)
    house.store.apply(owned(), storing(messages=[here, trimmed], conversations=[conversation(20)]))
    transact, trims = house.store.transact, [1]

    async def trimming(keys: Any, rule: Any) -> Any:
        done = await transact(keys, rule)
        if keys.archived and not keys.places and trims:
            trims.clear()
            del house.store.tables.messages[WITH_BOB, where + 99]
        return done

    monkeypatch.setattr(house.store, "transact", trimming)
    await house.until(house.done)
    assert not trims
