"""What the lanes tell others after a commit, when they cannot know whether it stood."""

import asyncio
from typing import Any, TypeVar

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.books import Keys, Rule
from sync.model.errors import StoreUnavailable
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


@pytest.mark.parametrize("cuts", [0, 1, 2])
async def test_a_room_whose_commit_stood_unseen_is_served_all_the_same(cuts: int) -> None:
    clock, owed, done = Passing(NOW), set[str](), asyncio.Event()
    store, wire = Torn(clock), Any
    ingest = Ingest(
        store=store,
        presence=MemoryPresence(),
        wire=wire,  # type: ignore[arg-type]  # nothing is paused
        clock=clock,
        observer=RecordingObserver(),
        policies=Policies(),
        workers=1,
        batch=10,
        queue=100,
        committed=lambda _: done.set(),
        due=lambda _: None,
        owed=owed.update,
    )
    frame = parse(f"<feed xmlns='{FEED}' stream='s' shard='0' last='2' head='2'>{LISTED}{SAID}</feed>")
    batch = decode_feed(frame, host=ROOMS, rooms=True, hosts=frozenset({"example.org"}), muc_hosts=frozenset({ROOMS}))
    store.cuts = cuts
    running = asyncio.ensure_future(ingest.run())
    ingest.put(batch.events)
    async with asyncio.timeout(2):
        await done.wait()
    running.cancel()
    assert len(await store.entries(TEA, 0, 10)) == 1
    assert owed == {TEA}
