"""Reads what the server's archives say of the time before, or of events that were lost, a page at a time.

Only the process that speaks for the component does it, a few archives at once and so many pages a second, and never
ahead of the feed: what an archive has may be on its way as an event, so a page is taken when what came before it is
committed. A page and its cursor are one transaction; whoever is killed goes on behind it. Where the module does not let
us, or is too old to know of archives, the host is left alone until we subscribe again.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from sync.model.bootstrap import Bootstrap, BootstrapState
from sync.model.conversation import ConversationKey
from sync.model.errors import Behind, Refused, StoreUnavailable, Uncommittable
from sync.model.event import MessageEvent
from sync.model.jid import domain
from sync.model.query import ListQuery
from sync.ports import Bootstraps, Clock, Observer, Store, Wire
from sync.protocol import conversations
from sync.protocol.archive import Item, Page
from sync.protocol.feed import FrameError
from sync.protocol.hello import Hello
from sync.rules import history
from sync.rules.fold import Policies
from sync.rules.history import Past, Restored
from sync.rules.times import microseconds
from sync.service.archives import Archives, Pace
from sync.service.feed import HostFeed
from sync.service.ingest import Ingest
from sync.service.live import Live

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
COUNT_EVERY = 30  # looks
RETRY_SECONDS = 30.0  # and twice as long each time
ATTEMPTS = 5
SESSIONS = 1000  # made known at once
TOLD = 20  # conversations that connected clients are shown in the end

# docs/feed.md §8: switched off, of an older module, a host without an archive.
NOT_HERE = frozenset({"forbidden", "service-unavailable", "feature-not-implemented", "not-allowed"})
NO_LIST = "feature-not-implemented"
AWAY = frozenset({"disconnected", "not-connected"})


@dataclass(slots=True)
class Reading:
    """An archive that is being read: its row as it stands, the id of the newest item that was taken, and the newest
    place of each conversation so far (of a room: the time that was `reached`).
    """

    row: Bootstrap
    end: str | None = None
    floors: dict[ConversationKey, int] = field(default_factory=dict)
    reached: int = 0


class Gone(Exception):
    """The account or room was removed meanwhile."""


class Bootstrapper:
    """Everything that is to be read. `owed` is told of rooms with entries for their members, `moved` of accounts whose
    archive was read.
    """

    def __init__(
        self,
        *,
        component: str,
        store: Store,
        bootstraps: Bootstraps,
        wire: Wire,
        feeds: Mapping[str, HostFeed],
        ingest: Ingest,
        live: Live,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        pace: Pace,
        leads: Callable[[], bool],
        owed: Callable[[Collection[str]], None],
        moved: Callable[[str], None],
    ) -> None:
        self._store, self._bootstraps, self._feeds = store, bootstraps, feeds
        self._live, self._clock, self._observer = live, clock, observer
        self._policies, self._pace, self._leads, self._owed, self._moved = policies, pace, leads, owed, moved
        self._archives = Archives(
            component=component, wire=wire, feeds=feeds, ingest=ingest, clock=clock, observer=observer, pace=pace
        )
        self._heard: dict[str, Hello] = {}
        self._off: set[str] = set()
        self._busy: set[str] = set()
        self._choosing = asyncio.Lock()
        self._looks = 0

    async def run(self) -> None:
        """Read until cancelled."""
        if not self._pace.enabled:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listening(), name="archives-hello")
            for number in range(self._pace.at_once):
                group.create_task(self._working(), name=f"archives-{number}")

    # ---- whom there is to read of -----------------------------------------------------------------------------------

    async def _listening(self) -> None:
        """Each subscription is a new chance; whoever is connected then has an account."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                for host, feed in self._feeds.items():
                    said = feed.said if feed.subscribed else None
                    if said is not None and said is not self._heard.get(host):
                        await self._meet({session.account for session in said.sessions})
                        # Nobody asks for its sessions again, and there may be many. By now it may have said more.
                        self._heard[host] = met = replace(said, sessions=())
                        feed.said = met if feed.said is said else feed.said
                        self._off.discard(host)
                if self._leads() and self._looks % COUNT_EVERY == 0:
                    await self._count()
                self._looks += 1
            except StoreUnavailable as error:
                log.warning("the database is away, archives wait", extra={"reason": str(error)})

    async def _meet(self, accounts: Iterable[str]) -> None:
        names = sorted(accounts)
        for first in range(0, len(names), SESSIONS):
            await self._make(names[first : first + SESSIONS])

    async def _make(self, names: Sequence[str]) -> None:
        """Make them known, but for those that the database does not take."""
        try:
            await self._bootstraps.meet(names, self._clock.now())
        except Uncommittable:
            if len(names) == 1:
                self._observer.ignored("account")
                return
            middle = len(names) // 2
            await self._make(names[:middle])
            await self._make(names[middle:])

    async def _count(self) -> None:
        counts = await self._bootstraps.counts([*self._feeds])
        for state in BootstrapState:
            self._observer.archives(state.value, counts.get(state.value, 0))

    async def _working(self) -> None:
        while True:
            reading = None
            try:
                async with self._choosing:
                    reading = await self._choose()
                if reading is None:
                    await self._clock.sleep(LOOK_SECONDS)
                else:
                    await self._read(reading)
            except StoreUnavailable as error:
                log.warning("the database is away, archives wait", extra={"reason": str(error)})
                await self._clock.sleep(LOOK_SECONDS)
            finally:
                if reading is not None:
                    self._busy.discard(reading.row.account)

    async def _choose(self) -> Reading | None:
        """What waits longest and nobody is at."""
        hosts = [host for host, feed in self._feeds.items() if feed.subscribed and host not in self._off]
        if not hosts or not self._leads():
            return None
        for row in await self._bootstraps.due(self._clock.now(), hosts, len(self._busy) + 1):
            if row.account not in self._busy:
                self._busy.add(row.account)
                return Reading(row)
        return None

    # ---- one archive ------------------------------------------------------------------------------------------------

    async def _read(self, reading: Reading) -> None:
        """All of it; what comes between is remembered, so that the next attempt goes on from there."""
        try:
            await self._all_of(reading)
            self._observer.archive_read("done")
        except Gone:
            pass
        except Behind:
            await self._clock.sleep(LOOK_SECONDS)
        except Refused as refused:
            await self._refused(reading, refused.condition)
        except FrameError:
            await self._fail(reading, "bad-answer")
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - what one archive holds must not keep the others waiting
            await self._fail(reading, type(error).__name__)

    async def _all_of(self, reading: Reading) -> None:
        if "@" not in reading.row.account:
            await self._names(reading)
        elif domain(reading.row.account) in self._archives.rooms:
            await self._room(reading)
        else:
            await self._account(reading)

    async def _refused(self, reading: Reading, why: str) -> None:
        if why == NO_LIST and "@" not in reading.row.account:
            # A server that cannot list its users may well have their archives (docs/feed.md §8.2).
            await self._fail(reading, why, last=True)
        elif why in NOT_HERE:
            self._switch_off(domain(reading.row.account), why)
        elif why in AWAY:
            await self._clock.sleep(LOOK_SECONDS)
        elif why == "item-not-found":
            await self._bootstraps.store(history.finished(reading.row, "no-account"))
            self._observer.archive_read("no-account")
        else:
            await self._fail(reading, why)

    def _switch_off(self, host: str, why: str) -> None:
        if host in self._off:
            return
        self._off.add(host)
        self._observer.archive_read(why)
        log.warning(
            "the module gives no archives: conversations begin from now on, until we subscribe again",
            extra={"host": host, "reason": why},
        )

    async def _fail(self, reading: Reading, why: str, *, last: bool = False) -> None:
        """Again after a while, a few times; at once the `last` time where it is of no use."""
        row = replace(reading.row, attempts=reading.row.attempts + 1, why=why)
        if last or row.attempts >= ATTEMPTS:
            row = replace(row, state=BootstrapState.FAILED)
        pause = timedelta(seconds=RETRY_SECONDS * 2 ** (row.attempts - 1))
        await self._bootstraps.store(replace(row, due_at=self._clock.now() + pause))
        self._observer.archive_read(why)
        log.warning(
            "an archive cannot be read", extra={"account": row.account, "reason": why, "attempts": row.attempts}
        )

    # ---- an account -------------------------------------------------------------------------------------------------

    async def _account(self, reading: Reading) -> None:
        before = reading.row.restored
        past = Past(
            since=reading.row.since,
            horizon=microseconds(self._clock.now() - self._pace.horizon),
            marked=history.marked(await self._archives.described(reading.row)),
        )
        more = True
        while more:
            until = self._archives.until()
            reading.row, page = await self._archives.page(reading.row, until)
            more = not page.last
            if page.items:
                await self._take(reading, page, past, until)
            elif (nearer := history.nearer(reading.row, reading.end)) is not None:
                reading.row, more = nearer, True
        # Only now all that markers may name is known, and what was marked meanwhile is not forgotten.
        described = await self._archives.described(reading.row)
        await self._archives.caught_up(reading.row.account)
        new, reading.row = reading.row.restored - before, history.finished(reading.row)
        await self._store_events(described, past, reading.row)
        self._moved(reading.row.account)
        if new:
            await self._tell(reading.row.account)

    async def _tell(self, account: str) -> None:
        """Whoever is connected sees the newest conversations now. They bear the oldest stamp that a client may have:
        with its next query it gets the others.
        """
        page = await self._store.page(account, ListQuery(limit=TOLD))
        notices = [
            conversations.notice(
                item,
                account=account,
                newest=page.floor,
                now=self._clock.now(),
                request_id=f"archive-{item.conversation.version}",
            )
            for item in reversed(page.items)
        ]
        await self._live.notices(account, notices, kind="synchronization", beside=None)

    async def _take(self, reading: Reading, page: Page, past: Past, until: int) -> None:
        """One page, and the row that says so with the last of it."""
        taken: frozenset[history.Place] = frozenset()
        step, several = 1, self._policies.conduct.several
        while True:
            # Anew each time: what was known and is trimmed meanwhile needs a place like others.
            wanted = history.known_keys(page.events, several=several)
            known = await self._store.transact(wanted, history.known_places)
            events = history.ranked(page.events, reading.row.rank, known, reading.floors, taken, step=step)
            rest, markers = history.own_markers(events, self._policies.conduct)
            row = history.moved(
                reading.row, end_of(page.items, events), seen=len(page.items), until=until, limit=self._pace.messages
            )
            restored = await self._store_events(rest, past, None if markers else row)
            if not restored.taken_places:
                break
            taken |= restored.taken_places
            step *= 2  # what came in a burst lies close together
        row = replace(row, restored=row.restored + restored.messages)
        if markers:
            await self._store_events(markers, past, row)
        reading.row, reading.end = row, page.items[-1].id
        reading.floors |= history.highest(events, known)

    async def _store_events(self, events: Sequence[MessageEvent], past: Past, row: Bootstrap | None) -> Restored:
        account = row.account if row else events[0].account
        keys = history.keys_of(events, past, account, several=self._policies.conduct.several)
        rule = partial(history.restore, events, past, row)
        return self._told(await self._store.transact(keys, partial(rule, policies=self._policies)))

    def _told(self, restored: Restored) -> Restored:
        if restored.gone:
            raise Gone
        self._observer.restored(restored.messages)
        for word, many in restored.ignored.items():
            self._observer.ignored(word, many)
        return restored

    # ---- a room of this server --------------------------------------------------------------------------------------

    async def _room(self, reading: Reading) -> None:
        """At the first contact its newest page, later what came since it was known to be whole."""
        if reading.row.start == 0:
            row, page = reading.row, await self._archives.newest(reading.row)
            again = replace(row, start=max(row.since, self._archives.start(row)))
            reading.row = history.finished(row) if row.turn == 1 else again
            await self._store_room(reading, page)
            if row.turn == 1:
                return
        more = True
        while more:
            until = self._archives.until()
            reading.row, page = await self._archives.page(reading.row, until)
            more = not page.last
            row, end = reading.row, end_of(page.items, ())
            row = replace(row, after=end[0], rank=end[1], seen=row.seen + len(page.items)) if end else row
            reading.row = row if more else history.finished(row)
            await self._store_room(reading, page)

    async def _store_room(self, reading: Reading, page: Page) -> None:
        row = reading.row
        keys = history.keys_of_room(page.room_events, row.account)
        rule = partial(history.restore_room, page.room_events, row, reading.reached)
        try:
            restored = self._told(await self._store.transact(keys, partial(rule, policies=self._policies)))
        except StoreUnavailable:
            self._owed({row.account})  # it may stand all the same, and then nothing of it is new the next time
            raise
        reading.reached = restored.reached
        reading.row = replace(row, restored=row.restored + restored.messages)
        self._owed(restored.rooms)

    # ---- a host -----------------------------------------------------------------------------------------------------

    async def _names(self, reading: Reading) -> None:
        """Every account of the host, or every room of it that is known, is to be read."""
        host = reading.row.account
        last = False
        while not last:
            names = await self._archives.names(host, reading.row.after)
            last = names.last
            row = replace(
                reading.row, after=names.jids[-1] if names.jids else None, seen=reading.row.seen + len(names.jids)
            )
            reading.row = history.finished(row) if last else row
            make = host not in self._archives.rooms
            await self._bootstraps.enrol(reading.row, names.jids, self._clock.now(), make=make)


def end_of(items: Sequence[Item], events: Sequence[MessageEvent]) -> tuple[str, int] | None:
    """The id of the last item, and a rank that is not below any of these."""
    if not items:
        return None
    return items[-1].id, max(items[-1].at, *(event.rank or 0 for event in events), 0)
