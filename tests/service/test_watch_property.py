"""Whatever happens while a client follows (it pages, hibernates, comes back; the component dies, the module refuses,
the account starts over): what it holds by notices and pages is the truth in the end, every notice begins where it
stands, and every entry of a change log that it has to know reached it.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any
from xml.etree.ElementTree import Element

from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import Status
from sync.model.delta import DeltaToken, SyncRequest
from sync.model.event import SessionChange
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.token import decode_token
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from tests.contract.samples import ANN, account, change, conversation, owned, storing
from tests.service.post import Post

CONVERSATION, CHANGE = clark(CONVSYNC, "conversation"), clark(CONVSYNC, "change")
PEERS = [f"p{n}@example.net" for n in range(30)]
MOVES = ("remove", "flood", "start_over", "lose", "kill", "refuse", "agree", "keep", "look") + ("sleep", "wake") * 2
MOVES += ("page", "bump", "edit") * 4 + ("turn",) * 5
Move = tuple[str, int]


@dataclass
class Client:
    """As docs/protocol.md §8 tells clients to be. `known` are versions of entries that it was told, or need not be."""

    token: DeltaToken | None = None
    chain: int = 0  # the version of the list that it is in the middle of
    version: int = 0
    ahead: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    owes: bool = False  # it has to ask: a hole, or a notice without content
    holes: int = 0
    taken: int = 0

    @property
    def head(self) -> int:
        return max(self.version, self.ahead, self.chain)

    def take(self, content: Element) -> None:
        for one in content.iterfind(CONVERSATION):
            jid, version = one.get("jid", ""), int(one.get("version", ""))
            if one.get("status") == "deleted":
                self.rows.pop(jid, None)
            elif version >= self.rows.get(jid, 0):
                self.rows[jid] = version
        self.known |= {int(one.get("version", "")) for one in content.iter(CHANGE)}

    def notice(self, live: Element) -> None:
        previous, version = int(live.get("previous", "")), int(live.get("version", ""))
        if version <= self.head:
            return
        self.holes += previous > self.head and not self.owes
        if previous > self.head or live.get("more") == "true":
            self.owes = True
            return
        self.take(live)
        if self.chain:
            self.ahead = version
        else:
            self.version, self.token = version, decode_token(live.get("token", ""), account=ANN)

    def page(self, sync: Element, log: dict[int, str]) -> None:
        version = int(sync.get("version", ""))
        begins = self.token is None or self.token.says_nothing
        if sync.get("reset") is not None or begins:
            # All of a full list is new to it: its older entries are about nothing that it has.
            self.rows, self.ahead = {}, 0
            self.known |= {one for one in log if one <= version}
        self.take(sync)
        self.token = decode_token(sync.get("token", ""), account=ANN)
        self.chain = version if sync.get("more") == "true" else 0
        if not self.chain:
            self.version, self.ahead = max(version, self.ahead), 0


class World:
    """Ann's account, and one session of hers that follows; moves have a number that chooses."""

    def __init__(self) -> None:
        self.post, self.client = Post(), Client()
        self.deltas = Deltas(
            store=self.post.store,  # type: ignore[arg-type]
            clock=self.post.clock,
            fetches=Fetches(store=self.post.store, observer=self.post.observer),  # type: ignore[arg-type]
        )
        self.now, self.floor, self.epoch = 100, 10, 1
        self.log: dict[int, str] = {}
        self.gone: dict[str, int] = {}
        self.working: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.store(conversations=[])
        await self.post.online(f"{ANN}/web")
        self.work()
        while self.client.chain or not self.client.version:
            await self.page(1)

    def work(self) -> None:
        self.working = asyncio.ensure_future(self.post.watchers.run())

    async def end(self) -> None:
        assert self.working
        self.working.cancel()
        await asyncio.wait([self.working])

    def store(self, **rows: Any) -> None:
        owner = account(version=self.now, floor=self.floor, epoch=self.epoch)
        self.post.store.apply(owned(ANN), storing(accounts=[owner], **rows))

    # ---- moves -----------------------------------------------------------------------------------------------------

    async def bump(self, number: int) -> None:
        self.now += 1 + number % 3
        self.store(conversations=[conversation(self.now, PEERS[number % 6])])

    async def edit(self, number: int) -> None:
        self.now += 1
        peer = PEERS[number % 6]
        self.log[self.now] = peer
        one = conversation(self.now, peer)
        self.store(conversations=[one], changes=[change(self.now, key=one.key)])

    async def remove(self, number: int) -> None:
        self.now += 1
        self.gone[PEERS[number % 6]] = self.now
        self.store(conversations=[conversation(self.now, PEERS[number % 6], status=Status.DELETED)])

    async def flood(self, number: int) -> None:
        many = 15 + number % 15
        self.now += many
        self.store(conversations=[conversation(self.now - n, PEERS[n]) for n in range(many)])

    async def start_over(self, number: int) -> None:
        self.now += 1
        self.floor, self.epoch = self.now, self.epoch + 1
        self.store()

    async def turn(self, number: int) -> None:
        for _ in range(number % 20):
            await asyncio.sleep(0)
        self.look_at_notices()

    async def sleep(self, number: int) -> None:
        self.post.lines.gone.add(f"{ANN}/web")
        if number % 2:  # else nobody has heard of it yet
            await self.post.happens(SessionChange.HIBERNATED)

    async def wake(self, number: int) -> None:
        self.post.lines.gone.clear()
        await self.post.happens(SessionChange.RESUMED)

    async def lose(self, number: int) -> None:
        """Another list of sessions."""
        await self.post.online(f"{ANN}/web")

    async def kill(self, number: int) -> None:
        """The component dies, and its successor takes over."""
        await self.end()
        self.post.watchers.clear()
        self.post.begin()
        await self.post.watchers.load()
        self.work()
        if number % 2:
            await self.bump(number)
        await self.post.online(f"{ANN}/web")

    async def refuse(self, number: int) -> None:
        self.post.lines.refused.add(f"{ANN}/web")

    async def agree(self, number: int) -> None:
        self.post.lines.refused.clear()

    async def keep(self, number: int) -> None:
        await self.post.watchers.keep()

    async def look(self, number: int) -> None:
        await self.post.watchers.look()

    async def page(self, number: int) -> None:
        """A `sync`, or the next page of one; things happen while it is answered."""
        wish = True if number % 3 == 1 or not self.client.version else None
        request = SyncRequest(token=self.client.token, limit=(1, 2, 3, 200)[number % 4], live=wish)

        async def answered() -> Element:
            answer = await self.deltas.sync(ANN, "web", request)
            if number % 5 == 0:
                await self.bump(number)
            await self.post.watchers.answered(ANN, "web", wish, answer)
            return answer.element

        asking = asyncio.ensure_future(answered())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        if number % 7 == 0:
            await self.edit(number)
        element = await asking
        self.look_at_notices()
        self.client.page(element, self.log)

    # ---- what must hold --------------------------------------------------------------------------------------------

    def look_at_notices(self) -> None:
        found = self.post.notices()
        for live in found[self.client.taken :]:
            self.client.notice(live)
        self.client.taken = len(found)

    async def settle(self) -> None:
        """Everything works again; the client reads on where it has to."""
        self.post.lines.refused.clear()
        await self.wake(0)
        for _ in range(3):
            await self.post.watchers.look()
            await self.post.settled()
            self.look_at_notices()
            while self.client.chain or self.client.owes:
                self.client.owes = self.client.owes and bool(
                    self.client.chain
                )  # a page that goes on is no new question
                await self.page(2)
                await self.post.settled()
                self.look_at_notices()

    def check(self) -> None:
        tables = self.post.store.tables
        truth = {c.key.peer: c.version for c in tables.conversations.values() if c.status is not Status.DELETED}
        assert self.client.rows == truth
        assert self.client.version == tables.accounts[ANN].version
        assert self.client.holes == 0
        needed = {version for version, peer in self.log.items() if version > self.gone.get(peer, 0)}
        assert needed <= self.client.known


async def live(moves: list[Move]) -> None:
    world = World()
    await world.begin()
    for name, number in moves:
        await getattr(world, name)(number)
    await world.settle()
    world.check()
    await world.end()


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 200)), max_size=60))
def test_who_follows_holds_the_truth(moves: list[Move]) -> None:
    asyncio.run(live(moves))


def test_also_in_long_lives() -> None:
    dice = Random(5)  # noqa: S311 - chances, no secret
    for _ in range(40):
        asyncio.run(live([(dice.choice(MOVES), dice.randrange(200)) for _ in range(100)]))
