"""Who looks on: clients that keep their token through everything, and an auditor who reads the rows themselves."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg

from tests.chaos.device import GONE
from tests.system.box import Box
from tests.system.person import Conversation, Person
from tests.system.xmpp_client import StanzaError

ANSWER_SECONDS = 3  # what a dead component was asked is never answered: clients ask again
LOOK_SECONDS = 0.05
AUDIT_SECONDS = 0.1

AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

# What a user would see of a conversation; if any of it changes, so must the version.
VISIBLE = """
    SELECT account, peer, kind, version, md5(row(activity, status, pinned, muted_until, notify, read_id, displayed_id,
        delivered_id, unread, mentions, marked_unread, ringing, invited_by, last_stanza, last_retracted)::text) AS seen
    FROM conversation WHERE account = ANY ($1)
"""
ACCOUNTS = "SELECT jid, version, epoch, unread FROM account WHERE jid = ANY ($1)"


@dataclass(frozen=True, slots=True)
class Sample:
    """What an answer said; `at` in seconds since the epoch, when it had arrived."""

    at: float
    stamp: int
    unread: int  # in all conversations, as the client has them now
    read: dict[str, str | None]  # conversation → read pointer, of those that the answer named


class Watcher:
    """A client that has the list, keeps its token and takes deltas, a few conversations a page."""

    def __init__(self, box: Box, jid: str) -> None:
        self.box, self.jid = box, jid
        self.stamp: int | None = None
        self.shown: dict[str, Conversation] = {}
        self.samples: list[Sample] = []
        self.refused: Counter[str] = Counter()
        self.findings: list[str] = []
        self.session: Person | None = None

    async def look(self) -> bool:
        """One delta. What cannot be answered now must say so, and nothing else. True when it was answered."""
        try:
            if self.session is None or self.session.closed:
                async with asyncio.timeout(ANSWER_SECONDS):
                    self.session = await self._connect()
            async with asyncio.timeout(ANSWER_SECONDS):
                stamp, found = await self.session.pages(self.stamp, 2)
        except StanzaError as error:
            self.refused[error.condition] += 1
            # While the component is away its server says so itself, and in its own words.
            if error.type != "wait" and error.condition not in ("service-unavailable", "remote-server-timeout"):
                self.findings.append(f"{self.jid} was refused: {error}")
            return False
        except GONE:
            if self.session is not None:
                await self.session.cut()
            self.session = None
            self.refused["no answer"] += 1
            return False
        self.note(stamp, found)
        return True

    async def _connect(self) -> Person:
        password = next(one["password"] for one in self.box.ready["accounts"] if one["jid"] == self.jid)
        found = await Person.connect(f"{self.jid}/watch", password, self.box.ready["c2s"]["port"], presence=False)
        found.patient = False
        return found

    def note(self, stamp: int, found: dict[str, Conversation]) -> None:
        """Tokens only go up, and what is new has a newer one."""
        if self.stamp is not None and (stamp < self.stamp or (found and stamp == self.stamp)):
            self.findings.append(f"{self.jid}: {len(found)} changes between token {self.stamp} and {stamp}")
        self.stamp = stamp
        self.shown |= found
        unread = sum(item.unread or 0 for item in self.shown.values())
        self.samples.append(Sample(time.time(), stamp, unread, {jid: item.read_to for jid, item in found.items()}))

    async def watch(self, until: asyncio.Event) -> None:
        """Until it is over."""
        while not until.is_set():
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), LOOK_SECONDS)

    async def agree(self, reader: Person) -> None:
        """What was put together from deltas is the full list, or AssertionError."""
        while not await self.look():
            pass
        full = {item.jid: item.seen for item in (await reader.sync()).items}
        shown = {jid: item.seen for jid, item in self.shown.items() if item.status != "deleted"}
        assert shown == full, f"{self.jid}: deltas made {shown}, the list is {full}"

    async def leave(self) -> None:
        if self.session is not None:
            await self.session.cut()


@dataclass
class Auditor:
    """Reads versions all the while: none goes down, none stays while what it stands for changes."""

    box: Box
    jids: list[str]
    epochs: set[int] = field(default_factory=set)
    looks: int = 0
    findings: list[str] = field(default_factory=list)
    _before: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    _accounts: dict[str, int] = field(default_factory=dict)

    async def watch(self, until: asyncio.Event) -> None:
        """Until it is over; the database may be away."""
        connection: asyncpg.Connection | None = None
        while not until.is_set():
            try:
                if connection is None:
                    connection = await asyncpg.connect(self.box.ready["postgres"], timeout=2)
                await self.look(connection)
            except AWAY:
                connection = await _dropped(connection)
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), AUDIT_SECONDS)
        await _dropped(connection)

    async def look(self, connection: asyncpg.Connection) -> None:
        for row in await connection.fetch(VISIBLE, self.jids, timeout=2):
            key, now = (row["account"], row["peer"], row["kind"]), (row["version"], row["seen"])
            before = self._before.get(key, (0, ""))
            if now[0] < before[0] or (now[0] == before[0] and now[1] != before[1]):
                self.findings.append(f"{key}: version {before[0]} became {now[0]} while it changed")
            self._before[key] = now
        for row in await connection.fetch(ACCOUNTS, self.jids, timeout=2):
            if row["version"] < self._accounts.get(row["jid"], 0):
                self.findings.append(f"{row['jid']}: the account's version went down to {row['version']}")
            self._accounts[row["jid"]] = row["version"]
            self.epochs.add(row["epoch"])
        self.looks += 1


async def _dropped(connection: asyncpg.Connection | None) -> None:
    if connection is not None:
        connection.terminate()
