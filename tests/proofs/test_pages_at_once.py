"""Several writers on a real Postgres, and clients of each dialect that page in steps of all sizes meanwhile, through
the XML of requests and answers: who reads to the end, and then what is new, holds the truth; no chain of pages tells
anything twice; no change, call or deletion is missed. Also when epochs are raised under way.

Client Synchronization and Inbox have their own tests of the store (tests/adapters); here all dialects read the same at
the same time.
"""

import asyncio
from random import Random
from typing import Any

import asyncpg
import pytest

from sync.model.conversation import Change, ChangeKind, ConversationKey, Kind
from sync.model.delta import Filters, SyncRequest
from sync.model.errors import ItemNotFound
from sync.model.query import ListQuery
from sync.protocol.convsync import decode
from sync.protocol.names import RSM, SYNC, clark
from sync.protocol.serialise import parse, serialise
from sync.rules.fold import Policies
from sync.service.delta import Deltas
from sync.service.fetches import Fetches
from sync.service.query import Queries
from tests.adapters.test_inbox_at_once import Walker, removing, truth
from tests.adapters.test_store_concurrency import ACCOUNTS, WRITERS, Crowd
from tests.contract.delta_reader import DeltaReader
from tests.contract.fakes_observer import RecordingObserver

KINDS = {"urn:xabber:chat": "chat", "http://jabber.org/protocol/muc": "group"}
LAST = f".//{clark(RSM, 'last')}"
FILTERS = (Filters(), Filters(), Filters(unread=True), Filters(pinned=True), Filters(kind=Kind.GROUP))


class OwnClient:
    """A client of urn:convsync:0."""

    def __init__(self, crowd: Crowd, account: str, random: Random) -> None:
        self.crowd, self.account, self.pages = crowd, account, 0
        self.reader = DeltaReader(account, filters=random.choice(FILTERS), limit=random.choice((1, 2, 3, 50)))
        fetches = Fetches(store=crowd.store, observer=RecordingObserver())
        self.deltas = Deltas(store=crowd.store, clock=crowd.clock, fetches=fetches)

    async def down(self) -> None:
        """Every page of a chain."""
        done = False
        while not done:
            request = decode(parse(serialise(self.reader.ask())), account=self.account, kind="get")
            assert isinstance(request, SyncRequest)
            answer = (await self.deltas.sync(self.account, "desk", request)).element
            self.pages += 1
            done = self.reader.told(parse(serialise(answer)))

    async def holds(self, database: asyncpg.Connection) -> None:
        whole = await self.crowd.store.page(self.account, ListQuery())
        shown = [item.conversation for item in whole.items if self.reader.filters.match(item.conversation)]
        assert self.reader.held == {(c.key.peer, c.key.kind.value): c.version for c in shown}
        ringing = await database.fetch(
            "SELECT peer, sid FROM call WHERE account = $1 AND state = 'ringing'", self.account
        )
        assert self.reader.ringing == {(row["peer"], row["sid"]) for row in ringing}
        log = await database.fetch("SELECT * FROM change WHERE account = $1", self.account)
        assert [change for row in log if not self.reader.knows(change := _change(row))] == []


def _change(row: asyncpg.Record) -> Change:
    return Change(
        conversation=ConversationKey(row["account"], row["peer"], Kind(row["kind"])),
        version=row["version"],
        kind=ChangeKind(row["what"]),
        target_rank=row["target_rank"],
        target_id=row["target_id"],
    )


class StampClient:
    """A client of Client Synchronization."""

    def __init__(self, crowd: Crowd, account: str, random: Random) -> None:
        self.crowd, self.account, self.pages = crowd, account, 0
        self.limit, self.stamp = random.choice((1, 2, 3, 50)), 0
        self.held: dict[tuple[str, str], str] = {}
        nobody: Any = None  # who is told of sets, and whom else; nothing is set
        self.queries = Queries(
            store=crowd.store,
            live=nobody,
            watchers=nobody,
            bridge=nobody,
            clock=crowd.clock,
            observer=RecordingObserver(),
            policies=Policies(),
            due=nobody,
        )

    async def down(self) -> None:
        after, told, stamp = "", set[tuple[str, str]](), 0
        while True:
            rsm = f"<set xmlns='{RSM}'><max>{self.limit}</max>{after}</set>"
            query = parse(f"<query xmlns='{SYNC}' stamp='{self.stamp}'>{rsm}</query>")
            try:
                answer = await self.queries.conversations(self.account, "desk", query)
            except ItemNotFound:  # the page's beginning is not valid any more: it starts over
                self.stamp, self.held = 0, {}
                after, told, stamp = "", set(), 0
                continue
            self.pages += 1
            page = parse(serialise(answer))
            stamp = stamp or int(page.get("stamp", ""))
            assert int(page.get("stamp", "")) == stamp, "all pages have the stamp of the first"
            rows = page.findall(clark(SYNC, "conversation"))
            for row in rows:
                name = (row.get("jid", ""), KINDS[row.get("type", "")])
                assert name not in told, "a chain tells nothing twice"
                told.add(name)
                if row.get("status") == "deleted":
                    self.held.pop(name, None)
                else:
                    self.held[name] = serialise(row)
            if len(rows) < self.limit:
                self.stamp = stamp
                return
            after = f"<after>{page.findtext(LAST)}</after>"

    async def holds(self, database: asyncpg.Connection) -> None:
        fresh = StampClient(self.crowd, self.account, Random(0))  # noqa: S311 - chances, no secret
        await fresh.down()
        assert self.held == fresh.held


class PlaceClient:
    """A client of Inbox: of deletions it is not told."""

    def __init__(self, crowd: Crowd, account: str, random: Random) -> None:
        self.walker = Walker(crowd, account, random.choice((1, 2, 3, 50)))
        self.crowd, self.account = crowd, account
        self.down = self.walker.down

    @property
    def pages(self) -> int:
        return len(self.walker.told)

    async def holds(self, database: asyncpg.Connection) -> None:
        now = await truth(self.crowd, self.account)
        assert {key: item for key, item in self.walker.held.items() if key in now} == now
        told = [(item.key, item.version) for item in self.walker.told]
        assert len(told) == len(set(told))


async def caught_up(crowd: Crowd, client: OwnClient | StampClient | PlaceClient) -> None:
    while crowd.writing:
        await client.down()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("epochs", [False, True], ids=["", "epochs are raised"])
async def test_whoever_reads_to_the_end_holds_the_truth(epochs: bool, seed: int, database: str) -> None:
    crowd, random = Crowd(database), Random(seed)  # noqa: S311 - chances, no secret
    crowd.random = random
    await crowd.pool.open()
    connection = await asyncpg.connect(database)
    try:
        kinds = (OwnClient, OwnClient, StampClient) if epochs else (OwnClient, OwnClient, StampClient, PlaceClient)
        clients = [kind(crowd, account, random) for account in ACCOUNTS for kind in kinds]
        writers = asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
        await asyncio.sleep(0)  # let the writers begin
        beside = (removing(crowd), crowd.lose()) if epochs else (removing(crowd),)
        await asyncio.gather(*beside, *(caught_up(crowd, client) for client in clients))
        await writers
        for client in clients:
            await client.down()  # what was left of a chain,
            await client.down()  # and what came meanwhile
            await client.holds(connection)
        assert sum(client.pages for client in clients) > 10 * len(clients), "nobody read while the others wrote"
        if epochs:
            assert {"epoch"} <= {reset for c in clients if isinstance(c, OwnClient) for reset in c.reader.resets}
    finally:
        await connection.close()
        await crowd.pool.close()
