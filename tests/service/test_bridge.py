"""What is read by a set goes to the account's own storage (docs/feed.md §8.3): the newest place of each conversation,
one at a time, and not to a module that does not serve it.
"""

import asyncio
import logging
from collections.abc import Mapping
from itertools import count
from typing import Any, cast

import pytest

from sync.model.conversation import Conversation, Pointer
from sync.model.errors import Refused
from sync.protocol.names import FEED, clark
from sync.service import bridge as under_test
from sync.service.bridge import Bridge
from sync.service.feed import HostFeed
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, BOB, NOW, TEA, conversation, membership

HOST, OTHER = "example.org", "example.com"


class Module:
    """Plays `Wire` and, behind it, the module: answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, ...]] = []
        self.open: list[asyncio.Future[Any]] = []

    async def request(self, iq: Any) -> Any:
        displayed = iq.find(clark(FEED, "displayed"))
        assert (iq.get("to"), iq.get("type")) == (displayed.get("account").partition("@")[2], "set")
        assert iq.get("from") == "sync.example.org"
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


class Pacing(SetClock):
    """Remembers how long it was waited for, and lets that time pass when the test says so."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.pauses: list[float] = []
        self.run = asyncio.Event()
        self.run.set()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.run.wait()


class Desk:
    def __init__(self) -> None:
        self.module, self.feed, self.observer, self.clock = Module(), Feed(), RecordingObserver(), Pacing()
        feeds = cast(Mapping[str, HostFeed], {HOST: self.feed, OTHER: Feed()})
        self.bridge = Bridge(
            component="sync.example.org",
            wire=cast(Any, self.module),
            feeds=feeds,
            clock=self.clock,
            observer=self.observer,
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


def chat(place: str | None, peer: str = BOB, owner: str = ANN) -> Conversation:
    return conversation(1, peer, owner, read=Pointer(5, place))


async def test_who_gave_the_id_is_said_with_it(desk: Desk) -> None:
    room = membership(1, read=Pointer(5, "r1"))
    await desk.read(chat("a1"), room, chat("a2", f"{TEA}/Bob"), chat(None, "x@example.net"))
    await desk.module.answer(None)
    await desk.module.answer(None)
    await desk.module.answer(None)
    assert desk.module.asked == [(BOB, "a1", ANN), (TEA, "r1", TEA), (f"{TEA}/Bob", "a2", ANN)]
    assert desk.noticed("sent") == 3


async def test_of_several_places_of_a_conversation_the_newest_is_said(desk: Desk) -> None:
    for place in ("a1", "a2", "a3"):
        await desk.read(chat(place))
    assert desk.module.places == ["a1"]
    await desk.module.answer(None)
    assert desk.module.places == ["a1", "a3"]
    await desk.module.answer("internal-server-error")
    assert (desk.module.places, desk.noticed("sent"), desk.noticed("refused")) == (["a1", "a3"], 1, 1)


async def test_one_is_under_way_and_few_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_WAITING", 10)
    chats = [chat(f"a{number}", f"user{number}@example.net") for number in range(30)]
    await desk.read(*chats[:1])
    await desk.read(*chats[1:])
    assert (len(desk.module.open), desk.noticed("dropped")) == (1, 30 - 1 - 10)
    while desk.module.open:
        assert len(desk.module.open) == 1
        await desk.module.answer(None)
    assert desk.module.places == [f"a{number}" for number in range(11)]


async def test_a_host_is_left_alone_for_as_long_as_its_answer_took(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "perf_counter", count(100.0, 0.25).__next__)
    desk.clock.run.clear()
    await desk.read(chat("a1"), chat("a2", "cat@example.net"))
    await desk.module.answer(None)
    assert (desk.module.places, desk.clock.pauses) == (["a1"], [0.25])
    await desk.read(chat("b1", owner=f"eve@{OTHER}"))  # is no matter of the other's
    assert desk.module.places == ["a1", "b1"]
    desk.clock.run.set()
    await turn()
    assert desk.module.places == ["a1", "b1", "a2"]


@pytest.mark.parametrize("condition", sorted(under_test.NOT_SERVED))
async def test_who_does_not_serve_it_is_not_asked_before_the_next_subscription(
    desk: Desk, condition: str, caplog: pytest.LogCaptureFixture
) -> None:
    chats = [chat(f"a{number}", f"user{number}@example.net") for number in range(6)]
    await desk.read(*chats)
    with caplog.at_level(logging.INFO):
        await desk.module.answer(condition)
        await desk.read(chat("a9"))
        assert desk.module.places == ["a0"]
        desk.feed.said = object()
        await desk.read(chat("a9"))
        assert desk.module.places == ["a0", "a9"]
        await desk.module.answer(condition)
    said = [record.message for record in caplog.records if record.name == "sync.service.bridge"]
    assert said == ["the feed module publishes no displayed markers"]
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
    await desk.read(chat("a1", owner="ann@elsewhere.example"))
    assert desk.module.asked == []
