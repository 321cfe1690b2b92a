"""What is read by a set goes to the account's own storage (docs/feed.md §8.3): the newest place of each conversation,
few at a time, and not to a module that does not serve it.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest

from sync.model.conversation import Conversation, Pointer
from sync.model.errors import Refused
from sync.protocol.names import FEED, clark
from sync.service import bridge as under_test
from sync.service.bridge import AT_ONCE, Bridge
from sync.service.feed import HostFeed
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, BOB, TEA, conversation, membership

HOST = "example.org"


class Module:
    """Plays `Wire` and, behind it, the module: answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, ...]] = []
        self.open: list[asyncio.Future[Any]] = []

    async def request(self, iq: Any) -> Any:
        displayed = iq.find(clark(FEED, "displayed"))
        assert (iq.get("to"), iq.get("type"), iq.get("from")) == (HOST, "set", "sync.example.org")
        self.asked.append(tuple(displayed.get(name) for name in ("jid", "id", "by")))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        return await answer

    async def answer(self, *conditions: str | None) -> None:
        """The oldest questions: agreed (None), or refused."""
        for condition in conditions:
            answer = self.open.pop(0)
            answer.set_exception(Refused(condition)) if condition else answer.set_result(None)
        await turn()

    @property
    def places(self) -> list[str | None]:
        return [place for _, place, _ in self.asked]


class Feed:
    """As much of a host's feed as matters."""

    def __init__(self) -> None:
        self.subscribed, self.said = True, object()


class Desk:
    def __init__(self) -> None:
        self.module, self.feed, self.observer = Module(), Feed(), RecordingObserver()
        feeds = cast(Mapping[str, HostFeed], {HOST: self.feed})
        self.bridge = Bridge(
            component="sync.example.org", wire=cast(Any, self.module), feeds=feeds, observer=self.observer
        )

    async def read(self, *conversations: Conversation) -> None:
        self.bridge.publish(conversations)
        await turn()

    def noticed(self, outcome: str) -> int:
        return self.observer.told("notice").count({"kind": "displayed", "outcome": outcome})


async def turn() -> None:
    """Everything that can happen by now has."""
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def chat(place: str | None, peer: str = BOB) -> Conversation:
    return conversation(1, peer, read=Pointer(5, place))


async def test_who_gave_the_id_is_said_with_it(desk: Desk) -> None:
    await desk.read(
        chat("a1"), membership(1, read=Pointer(5, "r1")), chat("a2", f"{TEA}/Bob"), chat(None, "x@example.net")
    )
    assert desk.module.asked == [(BOB, "a1", ANN), (TEA, "r1", TEA), (f"{TEA}/Bob", "a2", ANN)]
    await desk.module.answer(None, None, None)
    assert desk.noticed("sent") == 3


async def test_of_several_places_of_a_conversation_the_newest_is_said_and_one_at_a_time(desk: Desk) -> None:
    for place in ("a1", "a2", "a3"):
        await desk.read(chat(place))
    assert desk.module.places == ["a1"]
    await desk.module.answer(None)
    assert desk.module.places == ["a1", "a3"]
    await desk.module.answer("internal-server-error")
    assert (desk.module.places, desk.noticed("sent"), desk.noticed("refused")) == (["a1", "a3"], 1, 1)


async def test_few_are_under_way_at_a_time_and_few_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_WAITING", 10)
    chats = [chat(f"a{number}", f"user{number}@example.net") for number in range(30)]
    await desk.read(*chats[:8])
    assert len(desk.module.open) == AT_ONCE
    await desk.read(*chats[8:])
    assert (len(desk.module.open), desk.noticed("dropped")) == (AT_ONCE, 30 - AT_ONCE - 10)
    while desk.module.open:
        await desk.module.answer(None)
    assert desk.module.places == [f"a{number}" for number in range(AT_ONCE + 10)]


@pytest.mark.parametrize("condition", sorted(under_test.NOT_SERVED))
async def test_who_does_not_serve_it_is_not_asked_before_the_next_subscription(
    desk: Desk, condition: str, caplog: pytest.LogCaptureFixture
) -> None:
    chats = [chat(f"a{number}", f"user{number}@example.net") for number in range(6)]
    await desk.read(*chats)
    with caplog.at_level(logging.INFO):
        await desk.module.answer(*[condition] * AT_ONCE)
        await desk.read(chat("a9"))
        assert len(desk.module.asked) == AT_ONCE
        desk.feed.said = object()
        await desk.read(chat("a9"))
        assert len(desk.module.asked) == AT_ONCE + 1
        await desk.module.answer(condition)
    assert [record.message for record in caplog.records] == ["the feed module publishes no displayed markers"]
    desk.feed.said = object()
    await desk.read(chat("a10"))
    await desk.module.answer(None)
    assert desk.noticed("sent") == 1


async def test_what_one_account_cannot_have_is_no_matter_of_the_module(desk: Desk) -> None:
    await desk.read(chat("a1"))
    await desk.module.answer("conflict")
    await desk.read(chat("a2"))
    await desk.module.answer("no-answer")
    await desk.read(chat("a3"))
    assert desk.module.places == ["a1", "a2", "a3"]


async def test_nobody_is_asked_while_the_host_is_away_or_not_ours(desk: Desk) -> None:
    desk.feed.subscribed = False
    await desk.read(chat("a1"))
    desk.feed.subscribed = True
    await desk.read(conversation(1, owner="ann@elsewhere.example", read=Pointer(5, "a1")))
    assert desk.module.asked == []
