"""First contact where the server refuses, fails or answers nonsense: said once, tried a few times, given up."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from sync.model.bootstrap import BootstrapState
from tests.contract.samples import ANN, EVE, NOW, owned, storing
from tests.service.archived import known, of_kind, refusing, talk
from tests.service.archives import HOST, House


@pytest.mark.parametrize("condition", ["forbidden", "service-unavailable", "feature-not-implemented"])
@pytest.mark.parametrize("request_", ["account", "archive"])
async def test_a_module_that_gives_none_is_left_alone_until_we_subscribe_again(
    condition: str, request_: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()
    known(house, ANN, EVE)
    talk(house, 3)
    house.server.refuse = refusing(request_, condition)
    started = house.clock.now()
    with caplog.at_level(logging.WARNING):
        await house.until(lambda: (house.clock.now() - started).total_seconds() > 100)
    assert [record.__dict__["reason"] for record in caplog.records] == [condition]
    assert house.outcomes() == [condition]
    assert {row.state for row in house.store.tables.bootstraps.values()} == {BootstrapState.WAITING}
    house.server.refuse = lambda _: None
    house.feeds[HOST].hello()
    await house.until(lambda: house.done(ANN) and house.done(EVE))


async def test_a_server_that_cannot_list_its_users_may_have_their_archives() -> None:
    house = House()
    known(house)
    talk(house, 3)
    house.server.refuse = refusing("accounts", "feature-not-implemented")
    await house.store.ask([HOST], NOW - timedelta(days=1))
    await house.until(house.done)
    assert house.row().restored == 3
    assert (house.row(HOST).state, house.row(HOST).why) == (BootstrapState.FAILED, "feature-not-implemented")


async def test_an_item_that_is_gone_is_replaced_by_its_time() -> None:
    house = House()
    known(house)
    talk(house, 20)
    at = house.server.archives[ANN][9][1]
    house.store.tables.bootstraps[ANN] = replace(house.row(), after="expired", rank=at)
    await house.until(house.done)
    assert [asked.get("after") for asked in of_kind(house, "archive")] == ["expired", None]
    assert house.row().restored == 11


async def test_an_account_that_the_server_has_not_is_done() -> None:
    house = House()
    known(house)
    house.server.refuse = refusing("account", "item-not-found")
    await house.until(house.done)
    assert house.row().why == "no-account"
    assert house.outcomes() == ["no-account"]


async def test_what_fails_is_tried_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    known(house)
    house.server.refuse = refusing("archive", "internal-server-error")
    await house.until(lambda: house.row().state is BootstrapState.FAILED)
    assert (house.row().attempts, house.row().why) == (5, "internal-server-error")
    assert len(house.outcomes()) == 5
    assert (house.clock.now() - NOW).total_seconds() > 30 * (1 + 2 + 4 + 8)
    assert {record.__dict__["account"] for record in caplog.records} == {ANN}


@pytest.mark.parametrize(
    "answer",
    [
        "<other xmlns='urn:convsync:feed:0'/>",
        "<archive xmlns='urn:convsync:feed:0'><item id='a' at='soon'/></archive>",
        "<archive xmlns='urn:convsync:feed:0'><item at='1'/></archive>",
    ],
)
async def test_an_answer_that_is_none(answer: str) -> None:
    house = House()
    known(house)
    house.server.archive = lambda _: answer  # type: ignore[method-assign]
    await house.until(lambda: house.row().state is BootstrapState.FAILED)
    assert house.row().why == "bad-answer"


async def test_an_item_that_cannot_be_read_is_left_out() -> None:
    house = House()
    known(house)
    talk(house, 2)
    house.server.archives[ANN].insert(1, ("odd", house.server.archives[ANN][0][1], "<x xmlns='jabber:client'/>"))
    await house.until(house.done)
    assert house.row().restored == 2
    assert {"why": "archive-item", "count": 1} in house.observer.told("ignored")


async def test_an_account_that_is_deleted_meanwhile() -> None:
    house = House()
    known(house, ANN, EVE)
    talk(house, 3)
    house.server.answered = lambda asked: (
        house.store.apply(owned(ANN, create=False), storing(deleted_accounts=[ANN]))
        if asked.get("account") == ANN and asked.tag.endswith("}archive")
        else None
    )
    await house.until(lambda: house.done(EVE) and house.row(ANN) is None)
    assert house.store.tables.conversations == {}
