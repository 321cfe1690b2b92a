"""One performance: a cast is set on stage, talks while things happen to the parts, and is judged when all is quiet.

Four people with devices, one of them with two, and one whose phone lies at home; two rooms, a private one and a public
one, of which two of the five are members who never come. Every account has a client that keeps its token.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.chaos.actors import Absentee, Actor, Performer, Place
from tests.chaos.device import Device
from tests.chaos.faults import Weather, recovered
from tests.chaos.judge import Judge
from tests.chaos.witnesses import Auditor, Watcher
from tests.system.box import Box
from tests.system.person import Phone

LEAST_ACTS = 60  # of each device
DEVICES = (("desk",), ("desk", "lap"), ("desk",), ("desk",), ())  # by actor; the last one is the absentee
COMERS = 3  # how many of them go into the rooms; the others are members


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a performance. `findings` should be empty; `figures` are for the report."""

    seed: str
    findings: list[str]
    figures: Counter[str]
    faults: Counter[str]
    seconds: float
    recovery_seconds: float  # from the last fault until every part answered


class Stage:
    """The cast and its witnesses."""

    def __init__(self, box: Box, seed: str) -> None:
        self.box, self.seed = box, seed
        self.jids = [box.account() for _ in DEVICES]
        self.places: list[Place] = []
        self.actors: list[Actor] = []
        self.performers: list[Performer] = []
        self.phones: dict[str, Phone] = {}
        self.watchers = [Watcher(box, jid) for jid in self.jids]
        self.auditor = Auditor(box, self.jids)

    async def gather(self) -> None:
        """Everybody logs in, everybody knows everybody, and the rooms are there."""
        box, jids = self.box, self.jids
        for jid in (jids[0], jids[-1]):  # phones first: what comes from now on rings
            owner = await Device.log_in(box, jid, "phone")
            self.phones[jid] = await box.phone(owner)
            await owner.close()
        sessions = [await Device.log_in(box, jid, "guest") for jid in jids]
        for index, one in enumerate(sessions):
            for other in sessions[index + 1 :]:
                await one.befriend(other)
        await self._rooms(sessions[0])
        for number, (session, resources) in enumerate(zip(sessions, DEVICES, strict=True)):
            peers = [peer for peer in jids if peer != session.account]
            actor = Actor(box, session.account, peers, self.places if number < COMERS or not resources else [])
            self.actors.append(actor)
            self.performers += [Performer(actor, resource, f"{self.seed} {number}") for resource in resources]
            await self._greet(session, actor)
        for one in sessions:
            await one.close()
        for performer in self.performers:
            await performer.arrive()

    async def _greet(self, session: Device, actor: Actor) -> None:
        """Something is said in every conversation before anything happens."""
        for peer in actor.peers:
            actor.sent[session.write(peer, "hello")] = peer
        actor.taken |= await session.acked()

    async def _rooms(self, owner: Device) -> None:
        """Two rooms; all accounts belong to both."""
        for number in range(2):
            jid = f"{self.jids[0].split('@')[0]}-{number}-{int(time.time() * 1000)}@{self.box.ready['muc']}"
            nicks = {account: f"nick{index}" for index, account in enumerate(self.jids)}
            await owner.found(jid, nicks[owner.account], self.jids[1:], private=not number)
            self.places.append(Place(jid, nicks))

    async def disconnect(self, dice: random.Random) -> int:
        """Some devices lose their connection without a word; whose server does not know them any more begin anew."""
        there = [one.device for one in self.performers if one.device is not None and not one.device.closed]
        chosen = dice.sample(there, min(len(there), dice.randint(1, 3)))
        for device in chosen:
            await device.cut()
        return len(chosen)

    async def settle(self) -> None:
        """Everything is acknowledged, and no call rings any more."""
        for performer in self.performers:
            await performer.settle()
            if performer is performer.actor.performers[0]:
                performer.end_calls()
                await performer.settle()

    async def leave(self) -> None:
        """Nobody stays online."""
        for watcher in self.watchers:
            await watcher.leave()
        for performer in self.performers:
            if performer.device is not None:
                await performer.device.cut()


@asynccontextmanager
async def perform(
    box: Box, seed: str, faults: Sequence[str], *, least: int = LEAST_ACTS, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[tuple[Stage, Weather]]:
    """A cast that has played while these faults happened, and what happened; it leaves with the context."""
    stage = Stage(box, seed)
    weather = Weather(box, seed, stage.disconnect, say=say)
    try:
        await stage.gather()
        over, calm = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in (*stage.watchers, stage.auditor):
                group.create_task(one.watch(over))
            for absentee in (Absentee(actor, seed) for actor in stage.actors if not actor.performers):
                group.create_task(absentee.read(over))
            talking = [group.create_task(one.perform(calm, least)) for one in stage.performers]
            await weather.storm(faults)
            ended = time.monotonic()
            await recovered(box)
            weather.recovery_seconds = time.monotonic() - ended
            calm.set()
            await asyncio.wait(talking)
            await stage.settle()
            over.set()
        yield stage, weather
    finally:
        await stage.leave()


async def play(
    box: Box, seed: str, faults: Sequence[str], *, least: int = LEAST_ACTS, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Perform, and judge."""
    began = time.monotonic()
    async with perform(box, seed, faults, least=least, say=say) as (stage, weather):
        judge = Judge(stage, weather)
        findings = await judge.findings()
    return Outcome(
        seed=seed,
        findings=findings,
        figures=judge.figures,
        faults=weather.happened,
        seconds=time.monotonic() - began,
        recovery_seconds=weather.recovery_seconds,
    )
