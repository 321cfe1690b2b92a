"""Live notices of our own delta: each session that asked is told what has changed, as it happens (docs/protocol.md).

Pull, not push: a commit only says that an account has moved, which costs those without watchers one look into a
dictionary. A few tasks, each at one account at a time, read the delta since what a session was told and hand it over;
what is committed meanwhile comes with the next one. So a notice begins where the one before it ended, many commits in a
row become few notices, and nobody waits: not ingest, not other accounts, not for a client.

`told` moves when the server has taken the notice, and is written down a moment later: after a restart something is told
again, never left out. What no hint tells (commits of another process, a loss of events, a refusal) is found by looking.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import TypeVar
from xml.etree.ElementTree import Element

from sync.model.conversation import Account
from sync.model.errors import Overloaded, StoreUnavailable
from sync.model.event import Session, SessionChange, SessionEvent, SessionState
from sync.model.jid import domain
from sync.ports import Clock, Observer, Presence, Watcher, Watches
from sync.service.delta import Answer
from sync.service.live import Handed, Live
from sync.service.notices import Notices
from sync.service.watcher import NEVER, Watch, stored_watch

log = logging.getLogger(__name__)

T = TypeVar("T")

TASKS = 16  # accounts that are told at the same time …
READS = 2  # … of which so many are being read: of the pool's connections
MAX_WATCHERS = 100_000  # of this process; some 500 bytes each
ROWS = 1000  # of one statement
KEEP_SECONDS = 1.0  # what was told in that time is told again after a crash
LOOK_SECONDS = 5.0
RETRY_SECONDS = 1.0


class Watchers:
    """The sessions that are told, in the process that speaks for the component."""

    def __init__(
        self,
        hosts: Collection[str],
        *,
        watches: Watches,
        notices: Notices,
        presence: Presence,
        live: Live,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._hosts = hosts
        self._rows, self._notices, self._presence, self._live = watches, notices, presence, live
        self._clock, self._observer = clock, observer
        self._accounts: dict[str, dict[str, Watch]] = {}
        self._many = 0
        self._serials = count(1)
        # Accounts in the order of their turns; True: there is something new for certain. In a plain dictionary whoever
        # looks for the first one walks past all that were taken before: with 100,000 that is seconds.
        self._due: OrderedDict[str, bool] = OrderedDict()
        self._busy: set[str] = set()
        self._mute: dict[str, bool] = {}  # hosts that refused the last notice; True: one account asks again
        self._reads = asyncio.Semaphore(READS)
        self._work, self._moved, self._called = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._unsaved: dict[tuple[str, str], None] = {}
        self._gone: dict[tuple[str, str], None] = {}
        self._writing = asyncio.Lock()

    # ---- who is told -------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take over what an earlier process left; returns when the database has said it."""
        while True:
            self.clear()
            place = None
            try:
                while found := await self._rows.after(place, ROWS):
                    for row in (row for row in found if domain(row.account) in self._hosts):
                        self._add(stored_watch(row, next(self._serials)))
                    place = found[-1].account, found[-1].resource
            except StoreUnavailable as error:
                log.warning("the database is away: it is not known who is told", extra={"reason": str(error)})
                await self._clock.sleep(RETRY_SECONDS)
            else:
                return

    def clear(self) -> None:
        """Another process may tell them now."""
        for known in (self._accounts, self._due, self._unsaved, self._gone):
            known.clear()
        self._count(-self._many)

    async def answered(self, account: str, resource: str, wish: bool | None, answer: Answer) -> None:
        """A session is about to get the answer to a `sync`. `wish`: to be told of what has changed since; None = as
        before. What the caller sends without waiting for anything comes before every notice.
        """
        known, token = self._find(account, resource), answer.token
        # Of who has read nothing so far nothing is known that older changes could be about.
        changes = token.log if token.since else answer.version
        settles = answer.reached if answer.whole else NEVER
        if wish:
            await self._follow(Watch(account, resource, answer.version, changes, next(self._serials), settles), known)
        elif wish is not None:
            self._remove(known)
        elif known is not None and not token.filters:
            known.log, known.settles = min(known.log, changes), settles
            known.settle()
            self._save(known)

    async def _follow(self, watch: Watch, known: Watch | None) -> None:
        """Tell it from now on. It is written down before the session may rely on it."""
        stored = known.stored if known is not None else None
        if stored is not None and stored[0] <= watch.told and stored[1] <= watch.log:
            watch.stored = stored
            self._add(watch)
            self._save(watch)
        else:
            if known is None and self._many >= MAX_WATCHERS:
                raise Overloaded("Too many sessions get live notices. Ask again later, or without 'live'.")
            watch.waits = True
            self._add(watch)
            try:
                await self._put(watch)
            except BaseException:
                self._remove(watch)
                if known is not None and self._find(*watch.key) is None:
                    self._add(known)  # as before
                raise
            watch.waits = False
        self._owe(watch.account)

    async def _put(self, watch: Watch) -> None:
        async with self._writing:
            await self._rows.put(Watcher(watch.account, watch.resource, watch.told, watch.log))
        watch.stored = (watch.told, watch.log)
        online = await self._presence.sessions(watch.account)
        # Who had ended before it was added is missing there (`Attendance`).
        if online is not None and watch.resource not in {session.resource for session in online}:
            self._remove(watch)

    def _find(self, account: str, resource: str) -> Watch | None:
        return self._accounts.get(account, {}).get(resource)

    def _add(self, watch: Watch) -> None:
        known = self._accounts.setdefault(watch.account, {})
        self._count(watch.resource not in known)
        known[watch.resource] = watch
        self._gone.pop(watch.key, None)

    def _remove(self, watch: Watch | None) -> None:
        """No longer; another one of the same name stays."""
        if watch is None or self._find(*watch.key) is not watch:
            return
        del self._accounts[watch.account][watch.resource]
        if not self._accounts[watch.account]:
            del self._accounts[watch.account]
            self._due.pop(watch.account, None)
        self._count(-1)
        self._gone[watch.key] = None
        self._moved.set()

    def _count(self, change: int) -> None:
        self._many += change
        self._observer.watchers(self._many)

    def _all(self) -> Iterator[Watch]:
        return chain.from_iterable(known.values() for known in self._accounts.values())

    # ---- what became of sessions -------------------------------------------------------------------------------------

    def happened(self, events: Iterable[SessionEvent]) -> None:
        """Sessions came, went, or changed. One that hibernates goes on where it was when it is resumed: what was handed
        to it before, the server keeps for it.
        """
        for event in events:
            watch = self._find(event.account, event.resource)
            if watch is None:
                continue
            if event.change is SessionChange.UNBOUND:
                self._remove(watch)
            else:
                self._wake(watch, event.change is not SessionChange.HIBERNATED)

    @property
    def mark(self) -> int:
        """Names this moment: whoever is added from now on is newer."""
        return next(self._serials)

    def listed(self, host: str, sessions: Mapping[str, Sequence[Session]], mark: int) -> None:
        """These are all sessions of the host; who was added behind the mark may be newer than the list."""
        for watch in [watch for watch in self._all() if domain(watch.account) == host and watch.serial < mark]:
            states = {session.resource: session.state for session in sessions.get(watch.account, ())}
            if watch.resource in states:
                self._wake(watch, states[watch.resource] is not SessionState.HIBERNATED)
            else:
                self._remove(watch)
        self._called.set()

    def _wake(self, watch: Watch, awake: bool) -> None:
        watch.heard += 1
        # What is not stored yet is not told yet.
        if watch.stored is not None and watch.waits is awake:
            watch.waits = not awake
            if awake:
                self._owe(watch.account)

    # ---- telling -----------------------------------------------------------------------------------------------------

    def committed(self, accounts: Iterable[Account]) -> None:
        """These rows were stored. Returns at once."""
        for account in accounts:
            known = self._accounts.get(account.jid)
            if known is not None and any(watch.told < account.version for watch in known.values()):
                self._owe(account.jid, sure=True)

    def moved(self, account: str) -> None:
        """The account may have a new version."""
        if account in self._accounts:
            self._owe(account)

    def _owe(self, account: str, *, sure: bool = False) -> None:
        self._due[account] = sure or self._due.get(account, False)
        self._work.set()

    async def run(self) -> None:
        """Tell, keep and look, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(self._working(), name=f"live-{number}")
            group.create_task(self._keeping(), name="live-keep")
            group.create_task(self._looking(), name="live-look")

    async def _working(self) -> None:
        while True:
            account = next((name for name in self._due if name not in self._busy), None)
            if account is None:
                self._work.clear()
                await self._work.wait()
                continue
            sure = self._due.pop(account)
            self._busy.add(account)
            try:
                await self._visit(account, sure)
            except StoreUnavailable as error:
                log.warning("the database is away, live notices wait", extra={"reason": str(error)})
                self._owe(account, sure=sure)
                await self._clock.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - what one account holds must not end the service
                log.error("an account's sessions cannot be told", extra={"error": type(error).__name__})
            finally:
                self._busy.discard(account)
                self._work.set()

    async def _visit(self, account: str, sure: bool) -> None:
        """Of a host that does not deliver one account at a time finds out whether it does again; a look finds the rest,
        and other hosts' sessions do not wait for it.
        """
        host = domain(account)
        if self._mute.get(host):
            return
        if asks := host in self._mute:
            self._mute[host] = True
        try:
            await self._tell(account, sure)
        finally:
            if asks and host in self._mute:
                self._mute[host] = False

    async def _tell(self, account: str, sure: bool) -> None:
        """Everything that its sessions lack. Mostly all of them were told the same."""
        groups: dict[tuple[int, int], list[Watch]] = {}
        for watch in self._accounts.get(account, {}).values():
            if not watch.waits:
                groups.setdefault((watch.told, watch.log), []).append(watch)
        for (told, changes), group in groups.items():
            async with self._reads:
                notice = await self._notices.since(account, told, changes, sure=sure)
            if notice is not None:
                handing = [self._hand(watch, notice.to(watch.resource), notice.version) for watch in group]
                await asyncio.gather(*handing)

    async def _hand(self, watch: Watch, stanza: Element, version: int) -> None:
        if watch.waits or self._find(*watch.key) is not watch:
            return
        heard = watch.heard
        handed = await self._live.tell(watch.account, watch.resource, stanza, kind="live")
        if handed is Handed.REFUSED:
            self._mute.setdefault(domain(watch.account), False)
            return
        self._mute.pop(domain(watch.account), None)
        if handed is Handed.TAKEN:
            watch.told = version
            watch.settle()
            self._save(watch)
        elif watch.heard == heard:
            watch.waits = True  # what became of it, its next event says, or the next list of sessions
        else:
            self._owe(watch.account)  # it is back already

    # ---- keeping and looking -----------------------------------------------------------------------------------------

    def _save(self, watch: Watch) -> None:
        self._unsaved.setdefault(watch.key)
        self._moved.set()

    async def _keeping(self) -> None:
        while True:
            await self._moved.wait()
            await self._clock.sleep(KEEP_SECONDS)
            self._moved.clear()
            try:
                await self.keep()
            except StoreUnavailable:
                self._moved.set()  # nothing is lost by it: after a crash more is told again
            except Exception as error:  # noqa: BLE001 - as above
                log.error("what sessions were told cannot be written down", extra={"error": type(error).__name__})

    async def keep(self) -> None:
        """Write down who is told no longer, and what the others were told."""
        async with self._writing:
            for gone in chunks(list(self._gone)):
                await self._rows.drop(gone)
                for key in gone:
                    self._gone.pop(key, None)
            for keys in chunks(list(self._unsaved)):
                found = [watch for key in keys if (watch := self._find(*key)) is not None and watch.stored is not None]
                rows = [Watcher(watch.account, watch.resource, watch.told, watch.log) for watch in found]
                await self._rows.move(rows)
                for watch, row in zip(found, rows, strict=True):
                    watch.stored = (row.told, row.log)
                for key in keys:
                    watch = self._find(*key)
                    if watch is None or watch.stored == (watch.told, watch.log):
                        self._unsaved.pop(key, None)

    async def _looking(self) -> None:
        while True:
            waits = [asyncio.ensure_future(self._clock.sleep(LOOK_SECONDS)), asyncio.ensure_future(self._called.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
            self._called.clear()
            try:
                await self.look()
            except StoreUnavailable:
                self._called.set()
                await self._clock.sleep(RETRY_SECONDS)

    async def look(self) -> None:
        """Whose versions have moved, whoever moved them?"""
        for names in chunks(list(self._accounts)):
            for account, version in (await self._rows.versions(names)).items():
                known = self._accounts.get(account, {})
                if any(watch.told < version for watch in known.values()):
                    self._owe(account)


def chunks(names: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that one statement takes."""
    for first in range(0, len(names), ROWS):
        yield names[first : first + ROWS]
