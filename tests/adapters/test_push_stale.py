"""A Redis that is there and was put back from an older copy says who was online then: no push is lost by it."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from sync.adapters.redis.link import Link
from sync.adapters.redis.presence import RedisPresence
from sync.model.event import Session, SessionChange, SessionEvent, SessionState
from sync.model.jid import domain
from tests.adapters.pushing import Desk, phone
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN
from tests.contract.test_presence import event
from tests.service.pushing import office

HOST = domain(ANN)
HERE = {ANN: [Session("phone", SessionState.ACTIVE)]}


class Shelf:
    """A Redis, two processes that know it, and a copy of what it holds."""

    def __init__(self, url: str) -> None:
        self.observer = RecordingObserver()
        self.redis, self.link = Redis.from_url(url), Link(url, observer=self.observer)
        self.writer, self.other = (RedisPresence(self.link, observer=self.observer) for _ in range(2))
        self._copy: dict[bytes, bytes] = {}

    async def copy(self) -> None:
        self._copy = {key: await self.redis.dump(key) for key in await self.redis.keys("convsync:*")}

    async def put_back(self) -> None:
        await self.redis.flushall()
        for key, value in self._copy.items():
            await self.redis.restore(key, 0, value)


@pytest.fixture
async def shelf(redis_url: str) -> AsyncIterator[Shelf]:
    found = Shelf(redis_url)
    yield found
    await found.link.close()
    await found.redis.aclose()


def gone() -> SessionEvent:
    return event(SessionChange.UNBOUND, account=ANN)


def waiting(found: Desk) -> None:
    """Ann's phone, bound to the session that the copy says is active, is to be told of a message and of a call."""
    found.register(phone(found.clock.now(), bound_to="phone"))
    found.message()
    found.ring()


async def pushed(found: Desk) -> list[str]:
    await found.all_lanes()
    return sorted(str(job.outcome) for job in found.store.tables.jobs.values() if job.outcome)


async def test_the_test_knows_who_is_online(shelf: Shelf) -> None:
    await shelf.writer.reset(HOST, HERE)
    for presence in (shelf.writer, shelf.other):
        found, doors = office(presence=presence)
        waiting(found)
        assert await pushed(found) == ["suppressed:attentive"] * 2
        assert doors.sent == []


@pytest.mark.parametrize("which", ["writer", "other"])
@pytest.mark.parametrize("anew", [False, True])
async def test_who_was_online_in_an_older_copy_is_pushed(shelf: Shelf, which: str, anew: bool) -> None:
    """`anew`: the copy is of before the writer asked for all sessions again."""
    await shelf.writer.reset(HOST, HERE)
    await shelf.copy()
    if anew:
        await shelf.writer.reset(HOST, {})
    else:
        await shelf.writer.apply([gone()])
    assert await shelf.writer.sessions(ANN) == await shelf.other.sessions(ANN) == ()
    await shelf.put_back()
    if which == "other" and anew:
        # A generation that it has not seen may be a new one: it is the writer who knows, and asks every few seconds.
        assert not await shelf.writer.complete(HOST)
    found, doors = office(presence=getattr(shelf, which))
    waiting(found)
    assert await pushed(found) == ["accepted", "accepted"]
    assert sorted(request.push_type.value for request in doors.sent) == ["alert", "voip"]


async def test_a_copy_without_a_marker_vouches_for_nothing(shelf: Shelf) -> None:
    """As one that is put back later than its marker lives."""
    await shelf.writer.reset(HOST, HERE)
    await shelf.redis.delete(f"convsync:1:vouched:{{{HOST}}}")
    found, doors = office(presence=shelf.other)
    waiting(found)
    assert await pushed(found) == ["accepted", "accepted"]
    assert len(doors.sent) == 2
