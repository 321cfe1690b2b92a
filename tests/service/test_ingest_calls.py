"""Steps of calls wait for no batch of messages, but for one that has their lane; every lane stays in order."""

import asyncio
import random
from typing import Any

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.books import Keys, Rule
from sync.model.call import CallStep
from sync.model.conversation import Direction
from sync.model.event import Body, CallMessage, Content, Event, FeedPosition, MessageEvent
from sync.model.jid import LANES, lane
from sync.rules.fold import Policies, Report
from sync.service.ingest import Ingest
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import BOB, NOW, STANZA

LONGEST_SECONDS = 60
PROPOSE, TEXT = CallMessage(CallStep.PROPOSE, "call-1", ("audio",)), Body()


def resident(where: int) -> str:
    """Somebody whose lane this is."""
    return next(jid for number in range(10_000) if lane(jid := f"user{number}@example.org") == where)


ONE, OTHER, THIRD = resident(1), resident(2), resident(3)


class Feed:
    """Events of a stream, numbered as they are made."""

    def __init__(self) -> None:
        self.n = 0

    def said(self, account: str, content: Content = TEXT) -> MessageEvent:
        self.n += 1
        return MessageEvent(
            position=FeedPosition("example.org", "s", "0", self.n),
            account=account,
            at=NOW,
            direction=Direction.IN,
            peer=BOB,
            sender=f"{BOB}/phone",
            content=content,
            stanza=STANZA,
            archive_id=f"a{self.n}",
        )


class Commits:
    """Transactions that end when the test says so. `open` are those under way, `all` what each had, as they began;
    `told` are the positions that are committed.
    """

    def __init__(self) -> None:
        self.all: list[list[Event]] = []
        self.open: list[tuple[list[Event], asyncio.Future[None]]] = []
        self.told: list[FeedPosition] = []
        self._begun = asyncio.Condition()

    async def __call__(self, keys: Keys, rule: Rule[Report]) -> Report:
        events = list(rule.args[0])  # type: ignore[attr-defined]  # a partial of the events
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._begun:
            self.all.append(events)
            self.open.append((events, ended))
            self._begun.notify_all()
        await ended
        return Report()

    async def begun(self, many: int) -> None:
        """Until so many have begun since the start."""
        async with asyncio.timeout(LONGEST_SECONDS), self._begun:
            await self._begun.wait_for(lambda: len(self.all) >= many)

    def end(self, number: int = 0) -> None:
        """One of those under way is committed, the oldest at first."""
        _, ended = self.open.pop(number)
        ended.set_result(None)


def lanes(commits: Commits, *, workers: int = 1, batch: int = 100) -> Ingest:
    unused: Any = None
    return Ingest(
        store=unused,
        presence=MemoryPresence(),
        wire=unused,
        clock=SetClock(NOW),
        observer=RecordingObserver(),
        policies=Policies(),
        workers=workers,
        batch=batch,
        queue=100_000,
        committed=commits.told.extend,
        due=lambda _: None,
        owed=lambda _: None,
        commit=commits,
    )


async def ended(feed: Feed, commits: Commits, running: asyncio.Task[None]) -> None:
    """Everything is committed, and nothing is under way."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while len(commits.told) < feed.n:
            while commits.open:
                commits.end()
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_call_waits_for_no_commit_of_another_lane() -> None:
    feed, commits = Feed(), Commits()
    ingest = lanes(commits)
    running = asyncio.create_task(ingest.run())
    message = feed.said(ONE)
    ingest.put([message])
    await commits.begun(1)
    later, call, behind = feed.said(THIRD), feed.said(OTHER, PROPOSE), feed.said(OTHER)
    ingest.put([later, call, behind])
    await commits.begun(2)
    assert commits.all == [[message], [call]]
    await ended(feed, commits, running)


async def test_a_call_takes_along_what_is_before_it_in_its_lane() -> None:
    feed, commits = Feed(), Commits()
    ingest = lanes(commits)
    running = asyncio.create_task(ingest.run())
    ingest.put([feed.said(ONE)])
    await commits.begun(1)
    before, call, behind = feed.said(OTHER), feed.said(OTHER, PROPOSE), feed.said(OTHER)
    ingest.put([before, call, behind])
    await commits.begun(2)
    assert commits.all[1] == [before, call]
    await ended(feed, commits, running)
    assert commits.all[2] == [behind]


async def test_a_call_whose_lane_is_under_way_is_the_next_of_it() -> None:
    feed, commits = Feed(), Commits()
    ingest = lanes(commits)
    running = asyncio.create_task(ingest.run())
    ingest.put([feed.said(OTHER)])
    await commits.begun(1)
    call, behind, elsewhere = feed.said(OTHER, PROPOSE), feed.said(OTHER), feed.said(THIRD)
    ingest.put([call, behind, elsewhere])
    assert len(commits.all) == 1
    commits.end()
    await commits.begun(3)
    assert sorted(commits.all[1:], key=lambda events: events[0].position.n) == [[call], [elsewhere]]
    await ended(feed, commits, running)
    assert commits.all[3] == [behind]


async def test_both_sides_of_a_call_share_a_commit() -> None:
    feed, commits = Feed(), Commits()
    ingest = lanes(commits)
    running = asyncio.create_task(ingest.run())
    out, came = feed.said(ONE, PROPOSE), feed.said(OTHER, PROPOSE)
    ingest.put([out, came])
    await commits.begun(1)
    assert sorted(event.position.n for event in commits.all[0]) == [1, 2]
    await ended(feed, commits, running)
    assert len(commits.all) == 1


async def test_with_many_calls_the_other_workers_take_them_too() -> None:
    feed, commits = Feed(), Commits()
    ingest = lanes(commits)
    running = asyncio.create_task(ingest.run())
    ingest.put([feed.said(ONE, PROPOSE)])
    await commits.begun(1)
    second = feed.said(OTHER, PROPOSE)
    ingest.put([second])
    await commits.begun(2)
    assert commits.all[1] == [second]
    await ended(feed, commits, running)


@pytest.mark.parametrize("seed", range(20))
async def test_every_lane_is_in_order_and_in_one_commit_at_a_time(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moves, no secret
    feed, commits = Feed(), Commits()
    ingest = lanes(commits, workers=chance.randint(1, 3), batch=chance.choice((1, 3, 100)))
    running = asyncio.create_task(ingest.run())
    made: list[MessageEvent] = []
    people = [resident(where) for where in range(LANES)]
    for _ in range(200):
        new = [
            feed.said(chance.choice(people), PROPOSE if chance.random() < 0.2 else TEXT)
            for _ in range(chance.randint(0, 5))
        ]
        made += new
        ingest.put(new)
        for _ in range(chance.randint(0, 4)):
            await asyncio.sleep(0)
        under_way = [lane(event.account) for events, _ in commits.open for event in events]
        sets = [{lane(event.account) for event in events} for events, _ in commits.open]
        assert len(set(under_way)) == sum(map(len, sets))
        if commits.open and chance.random() < 0.7:
            commits.end(chance.randrange(len(commits.open)))
    await ended(feed, commits, running)
    assert sorted(position.n for position in commits.told) == [event.position.n for event in made]
    begun = [event for events in commits.all for event in events]
    for where in range(LANES):
        own = [event.position.n for event in begun if lane(event.account) == where]
        assert own == sorted(own)
