"""What the lanes do when a commit fails: it may stand all the same, and it may have been too much at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.books import Keys, Rule
from sync.model.errors import StoreUnavailable
from sync.model.event import FeedPosition
from sync.protocol.feed import decode_feed
from sync.protocol.names import CLIENT, FEED
from sync.protocol.serialise import parse
from sync.rules.fold import Policies
from sync.service.ingest import Ingest
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, NOW, TEA

T = TypeVar("T")
ROOMS = "rooms.example.org"
LISTED = (
    f"<event n='1' kind='room-members' account='{TEA}' at='1' begin='true' end='true'>"
    f"<m jid='{ANN}' affiliation='member'/></event>"
)
SAID = (
    f"<event n='2' kind='room-message' account='{TEA}' at='2' archive-id='a1' author='{ANN}'>"
    f"<message xmlns='{CLIENT}' type='groupchat' from='{TEA}/Ann' id='m1'><body>hi</body></message></event>"
)


class Torn(MemoryStore):
    """The connection is cut when a commit stands and nobody has been told so."""

    cuts = 0

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        done = await super().transact(keys, rule)
        if self.cuts:
            self.cuts -= 1
            raise StoreUnavailable("ConnectionDoesNotExistError")
        return done


class Passing(SetClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def lanes(store: MemoryStore, clock: SetClock, **told: Any) -> Ingest:
    wire: Any = None  # nothing is paused
    return Ingest(
        store=store,
        presence=MemoryPresence(),
        wire=wire,
        clock=clock,
        observer=RecordingObserver(),
        policies=Policies(),
        workers=1,
        batch=100,
        queue=1000,
        **({"committed": lambda _: None, "due": lambda _: None, "owed": lambda _: None} | told),
    )


class Slow(MemoryStore):
    """Takes no more than three events in the time that a statement may take."""

    sizes: list[int]

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        self.sizes.append(len(rule.args[0]))  # type: ignore[attr-defined]  # a partial of the events
        if self.sizes[-1] > 3:
            raise StoreUnavailable("TimeoutError")
        return await super().transact(keys, rule)


async def test_a_batch_that_takes_too_long_is_taken_in_parts(caplog: pytest.LogCaptureFixture) -> None:
    clock, told, done = Passing(NOW), list[int](), asyncio.Event()
    store = Slow(clock)
    store.sizes = []

    def committed(positions: Sequence[FeedPosition]) -> None:
        told.extend(position.n for position in positions)
        done.set()

    ingest = lanes(store, clock, committed=committed)
    events = "".join(f"<event n='{n}' kind='account' account='{ANN}' at='{n}' state='created'/>" for n in range(1, 21))
    batch = decode_feed(
        parse(f"<feed xmlns='{FEED}' stream='s' shard='0' last='20' head='20'>{events}</feed>"), host="example.org"
    )
    ingest.put(batch.events)
    running = asyncio.ensure_future(ingest.run())
    async with asyncio.timeout(60):
        await done.wait()
    running.cancel()
    assert told == list(range(1, 21))
    assert [size for size in store.sizes if size <= 3] == [2, 3, 2, 3, 2, 3, 2, 3]
    assert [record.message for record in caplog.records] == ["the database is away, events wait"]


@pytest.mark.parametrize("cuts", [0, 1, 2])
async def test_a_room_whose_commit_stood_unseen_is_served_all_the_same(cuts: int) -> None:
    clock, owed, done = Passing(NOW), set[str](), asyncio.Event()
    store = Torn(clock)
    ingest = lanes(store, clock, committed=lambda _: done.set(), owed=owed.update)
    frame = parse(f"<feed xmlns='{FEED}' stream='s' shard='0' last='2' head='2'>{LISTED}{SAID}</feed>")
    batch = decode_feed(frame, host=ROOMS, rooms=True, hosts=frozenset({"example.org"}), muc_hosts=frozenset({ROOMS}))
    store.cuts = cuts
    running = asyncio.ensure_future(ingest.run())
    ingest.put(batch.events)
    async with asyncio.timeout(60):
        await done.wait()
    running.cancel()
    assert len(await store.entries(TEA, 0, 10)) == 1
    assert owed == {TEA}
