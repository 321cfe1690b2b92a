"""How long a question waits for what came before it: one limit, however many hosts are behind."""

import asyncio
from time import perf_counter
from typing import Any

import pytest

from sync.model.errors import Behind
from sync.service.door import Door
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN

LIMIT = 0.2


class Slow:
    """Plays a host's feed that has caught up after a while."""

    def __init__(self, seconds: float, *, rooms: bool = True, subscribed: bool = True) -> None:
        self.seconds, self.keeps_rooms, self.subscribed = seconds, rooms, subscribed

    async def fresh(self) -> None:
        await asyncio.sleep(self.seconds)


class Prompt:
    """Plays the lanes and the fan-out: nothing waits there."""

    async def barrier(self, _: str) -> None: ...

    async def rooms_barrier(self) -> None: ...

    async def catch_up(self, _: str) -> None: ...


def door(**feeds: Slow) -> Any:
    nothing: Any = Prompt()
    stand_ins: Any = {name.replace("_", "."): feed for name, feed in feeds.items()}
    return Door(
        component="sync.example.org",
        version="1",
        wire=nothing,
        feeds=stand_ins,
        ingest=nothing,
        fanout=nothing,
        queries=nothing,
        registrations=nothing,
        observer=RecordingObserver(),
        freshness_seconds=LIMIT,
    )


async def test_several_hosts_that_are_a_little_behind_share_one_limit() -> None:
    began = perf_counter()
    slow = {f"rooms{n}_example_org": Slow(0.6 * LIMIT) for n in range(5)}
    with pytest.raises(Behind):
        await door(example_org=Slow(0, rooms=False), **slow)._fresh(ANN)
    assert perf_counter() - began < 1.5 * LIMIT


async def test_hosts_of_other_accounts_and_rooms_that_are_away_are_not_waited_for() -> None:
    away, other = Slow(9, subscribed=False), Slow(9, rooms=False)
    await door(example_org=Slow(0, rooms=False), rooms_example_org=away, example_net=other)._fresh(ANN)
