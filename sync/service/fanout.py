"""Takes what happened in rooms to every member's conversation, absent members' too (DESIGN §3).

An entry is committed once, in the room's lane; from then on it is owed. Chunks of members take all entries that they
lack in one ordinary transaction each; a chunk that is repeated changes nothing. Rooms take turns, and a chunk is small,
so that one-to-one traffic passes between. A member who asks is served before its turn. Whoever has no account yet
but is expected is served last; the room goes on then, others do not wait for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from time import perf_counter

from sync.model.books import Books, Keys, Rule, Ruling, Writes
from sync.model.conversation import ConversationKey, Kind, key_of
from sync.model.errors import StoreUnavailable
from sync.model.room import EntryKind, RoomEntry, RoomMember
from sync.ports import Clock, Observer, Rooms, Store
from sync.rules.fold import Policies, Report, fan_out
from sync.rules.view import reset
from sync.service.arrivals import Arrivals

log = logging.getLogger(__name__)

CHUNK = 64  # members in one transaction …
WORK = 512  # … and entries times members: some milliseconds in which nothing else goes on, not even a call
ENTRIES = 64  # entries in one pass
RETRY_SECONDS = 1.0


class FanOut:
    """The rooms that owe their members something. `due` is told of chunks with push jobs. `commit` in place of the
    store's `transact`. Without `arrivals` nobody is expected.
    """

    def __init__(
        self,
        *,
        store: Store,
        rooms: Rooms,
        clock: Clock,
        observer: Observer,
        policies: Policies,
        due: Callable[[Report], None],
        commit: Callable[[Keys, Rule[Report]], Awaitable[Report]] | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._store, self._rooms, self._due, self._arrivals = store, rooms, due, arrivals
        self._commit = commit or store.transact
        self._clock, self._observer, self._policies = clock, observer, policies
        self._pending: dict[str, int] = {}  # in the order of their turns: how often something was owed anew
        self._held: dict[str, asyncio.Task[None]] = {}  # of those the rooms that wait for a member to be known
        self._known = asyncio.Event()  # what an earlier process left owing is in `_pending`
        self._owing, self._paid = asyncio.Event(), asyncio.Event()
        self._leading = asyncio.Event()
        self._reigns = 0  # how many have ended

    def owe(self, rooms: Collection[str]) -> None:
        """Entries of these rooms were committed."""
        for room in rooms:
            self._pending[room] = self._pending.get(room, 0) + 1
        if self._pending:
            self._owing.set()
            self._paid.clear()
        self._observer.rooms_pending(len(self._pending))

    def lead(self) -> None:
        """This process speaks for the component from now on: rooms are its duty."""
        self._leading.set()

    def step_back(self) -> None:
        """Another one may: what rooms owe is not known here any more."""
        self._reigns += 1
        self._leading.clear()
        self._known.clear()
        self._pending.clear()
        for task in self._held.values():
            task.cancel()
        self._owing.set()  # nobody waits for new entries: at the next lead everything is looked up again

    async def run(self) -> None:
        """Serve while this process leads, until cancelled."""
        async with asyncio.TaskGroup() as late:
            while True:
                await self._leading.wait()
                try:
                    if not self._known.is_set():
                        await self._look_up()
                    else:
                        await self._turn(late)
                except StoreUnavailable as error:
                    await self._away(error)

    async def _away(self, error: StoreUnavailable) -> None:
        log.warning("the database is away, rooms wait", extra={"reason": str(error)})
        await self._clock.sleep(RETRY_SECONDS)

    async def _look_up(self) -> None:
        """What an earlier process left. Who has led meanwhile may have left more."""
        reign = self._reigns
        left = await self._rooms.pending_rooms(limit=100_000)
        if reign == self._reigns:
            self.owe(left)
            self._known.set()

    async def _turn(self, late: asyncio.TaskGroup) -> None:
        """The next room, one pass. It stays pending meanwhile: who asks then must be given what it owes."""
        room = next((room for room in self._pending if room not in self._held), None)
        if room is None:
            self._owing.clear()
            if not self._pending:
                self._paid.set()
            await self._owing.wait()
            return
        before = self._pending[room]
        entries = await self._rooms.entries(room, 0, ENTRIES)
        awaited = await self._pass(room, entries) if entries else []
        if not awaited or self._arrivals is None:
            await self._end(room, before, entries)
        elif room in self._pending:  # else it is the next leader's
            task = late.create_task(self._hold(self._arrivals, room, before, entries, awaited), name="fan-out-late")
            self._held[room] = task
            task.add_done_callback(partial(self._released, room))

    async def _end(self, room: str, before: int, entries: Sequence[RoomEntry]) -> None:
        """Every member has these entries. There may be more, and there are where something was owed since `before`."""
        if entries:
            await self._rooms.fanned(room, entries[-1].rank)
        after = self._pending.pop(room, 0)
        if len(entries) == ENTRIES or after > before:
            self._pending[room] = after
        self._observer.rooms_pending(len(self._pending))

    async def _hold(
        self,
        arrivals: Arrivals,
        room: str,
        before: int,
        entries: Sequence[RoomEntry],
        members: Sequence[RoomMember],
    ) -> None:
        """The end of a pass, once these members have an account, or will not have one soon."""
        chunk = chunk_of(entries)
        while True:
            await arrivals.met([member.account for member in members])
            try:
                for first in range(0, len(members), chunk):
                    await self._serve(entries, members[first : first + chunk])
                await self._end(room, before, entries)
                return
            except StoreUnavailable as error:
                await self._away(error)

    def _released(self, room: str, _: asyncio.Task[None]) -> None:
        del self._held[room]
        self._owing.set()

    async def _pass(self, room: str, entries: Sequence[RoomEntry]) -> list[RoomMember]:
        """The oldest entries of a room to all of its members; returns whoever had no account and is expected."""
        began, count, awaited = perf_counter(), 0, list[RoomMember]()
        if all(entry.only is not None for entry in entries):
            for account in dict.fromkeys(entry.only for entry in entries if entry.only is not None):
                members = await self._rooms.memberships(account, [room])
                awaited += await self._serve_known(entries, members)
                count += len(members)
        else:
            after = ""
            while members := await self._rooms.members(room, after, chunk_of(entries)):
                awaited += await self._serve_known(entries, members)
                count += len(members)
                after = members[-1].account
        self._observer.fanned_out(count, perf_counter() - began)
        return awaited

    async def _serve_known(self, entries: Sequence[RoomEntry], members: Sequence[RoomMember]) -> list[RoomMember]:
        """One chunk; returns whoever had no account though the feed had told of it, or may have."""
        # Before the transaction: what is committed by then is seen by it.
        expected = self._arrivals.expected([member.account for member in members]) if self._arrivals else frozenset()
        strangers = await self._serve(entries, members)
        return [member for member in members if member.account in strangers & expected]

    async def settled(self) -> None:
        """Wait until no room owes anybody anything."""
        await self._known.wait()
        while self._pending:
            await self._paid.wait()

    async def catch_up(self, account: str) -> None:
        """What rooms owe this account, before its question is answered (invariant 11)."""
        await self._known.wait()
        if not self._pending:
            return
        members = await self._rooms.memberships(account, list(self._pending))
        keys = [ConversationKey(account, member.room, Kind.GROUP) for member in members]
        found = await self._store.conversations(keys) if keys else ()
        taken = {listed.conversation.key.peer: listed.conversation.taken for listed in found}
        for member in members:
            after = taken.get(member.room, 0)  # whoever asks again goes on from there
            while entries := await self._rooms.entries(member.room, after, ENTRIES):
                # Read after the entries: whoever is put out of the room meanwhile must not get what came later.
                await self._serve(entries, await self._rooms.memberships(account, [member.room]))
                after = entries[-1].rank

    async def _serve(self, entries: Sequence[RoomEntry], members: Sequence[RoomMember]) -> frozenset[str]:
        """One chunk, in one transaction; those are returned that had no account. What cannot be stored for one member
        must not keep the others waiting.
        """
        if not members:
            return frozenset()
        rule = partial(self._rule, entries, members)
        try:
            report = await self._commit(keys_of(entries, members), rule)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in a rule must stop one member's entries, not the room's
            if len(members) > 1:
                return frozenset().union(*[await self._serve(entries, [member]) for member in members])
            log.error("entries of a room cannot be stored for a member", extra={"reason": type(error).__name__})
            self._observer.epoch_raised("room-entry")
            await self._store.transact(Keys(accounts=frozenset({members[0].account})), started_over)
            return frozenset()
        if report.jobs:
            self._due(report)
        for word, many in report.ignored.items():
            self._observer.ignored(word, many)
        for word, many in report.suppressed.items():
            self._observer.suppressed(word, many)
        for kind, many in report.coalesced.items():
            self._observer.coalesced(kind, many)
        return frozenset(report.strangers)

    def _rule(self, entries: Sequence[RoomEntry], members: Sequence[RoomMember], books: Books) -> Ruling[Report]:
        return fan_out(entries, members, books, self._policies)


def chunk_of(entries: Sequence[RoomEntry]) -> int:
    """How many members take these entries in one transaction."""
    return max(min(CHUNK, WORK // len(entries)), 1)


def keys_of(entries: Sequence[RoomEntry], members: Sequence[RoomMember]) -> Keys:
    """The rows that entries of one room may change for these members."""
    own = {member.account: ConversationKey(member.account, member.room, Kind.GROUP) for member in members}
    marks = {
        (own[entry.only], entry.target_rank)
        for entry in entries
        if entry.kind is EntryKind.DISPLAYED and entry.only in own and entry.target_rank is not None
    }
    calls = [key_of(entry.target_id) for entry in entries if entry.kind is EntryKind.CALL and entry.target_id]
    gone = [entry.only for entry in entries if entry.step is not None and entry.kind is not EntryKind.CALL]
    lines = own.values() if None in gone else {own[account] for account in gone if account in own}
    return Keys(
        # Whom the server has never shown to be there gets nothing: affiliations outlive accounts.
        accounts=frozenset(own),
        conversations=frozenset(own.values()),
        marks=frozenset(marks),
        calls=frozenset((account, sid) for sid in calls for account in own),
        lines=frozenset(lines),
        devices=True,
    )


def started_over(books: Books) -> Ruling[None]:
    """The rule for accounts that lack something nobody can give them: their clients load everything anew."""
    accounts = [reset(account, books.now) for account in books.accounts.values()]
    return Ruling(writes=Writes(accounts=accounts), value=None)
