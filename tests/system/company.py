"""People who talk through everything that dies, what they were told, and what the archives say of it; and what disturbs
them.
"""

import asyncio
import random
import signal
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tests.system.box import Box, eventually
from tests.system.person import CORRECT, JMI, MARKERS, RETRACT, Conversation, Person, Phone
from tests.system.xmpp_client import CLIENT, StanzaError, StreamClosed

ACTS = 90  # at the least, of each of four people; they go on until the disturbance is over
PACE_SECONDS = 0.01
ANSWER_SECONDS = 10  # a request that was under way when something died may never be answered: clients ask again
GONE = (StreamClosed, TimeoutError, OSError, ConnectionError)


@dataclass
class Chat:
    """What an archive says about one peer."""

    bodies: dict[str, str] = field(default_factory=dict)  # message id → text as it stands
    incoming: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    read: int = 0  # how many of `order` are read
    retracted: set[str] = field(default_factory=set)
    archived: list[str] = field(default_factory=list)  # archive ids of what belongs into the message index
    calls: dict[str, str] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        waiting = [one for one in self.order[self.read :] if one in self.incoming]
        return len([one for one in waiting if one not in self.retracted])


def fold(owner: str, archive: list[tuple[str, ET.Element]]) -> dict[str, Chat]:
    """The conversations that an archive tells of, by the rules of PROTOCOLS §5 and §6, written a second time."""
    chats: dict[str, Chat] = {}
    for archive_id, message in archive:
        sender, to = (message.get(key, "").split("/")[0] for key in ("from", "to"))
        out = sender == owner
        chat = chats.setdefault(to if out else sender, Chat())
        tags = {child.tag: child for child in message}
        if (target := tags.get(f"{{{RETRACT}}}retract")) is not None:
            if (named := target.get("id", "")) in chat.order and named not in chat.retracted:
                chat.retracted.add(named)
                chat.archived.append(archive_id)
        elif (target := tags.get(f"{{{CORRECT}}}replace")) is not None:
            if (named := target.get("id", "")) in chat.order and named not in chat.retracted:
                chat.bodies[named] = message.findtext(f"{CLIENT}body") or ""
                chat.archived.append(archive_id)
        elif (target := tags.get(f"{{{MARKERS}}}displayed")) is not None:
            if out and target.get("id") in chat.order:
                chat.read = max(chat.read, chat.order.index(target.get("id", "")) + 1)
        elif steps := [child for child in message if child.tag.startswith(f"{{{JMI}}}")]:
            ring(chat, out, steps[0].tag.rpartition("}")[2], steps[0].get("id", ""))
        elif f"{CLIENT}body" in tags:
            message_id = message.get("id", "")
            chat.order.append(message_id)
            chat.bodies[message_id] = message.findtext(f"{CLIENT}body") or ""
            chat.archived.append(archive_id)
            if not out:
                chat.incoming.append(message_id)
    return chats


def ring(chat: Chat, out: bool, step: str, sid: str) -> None:
    before = chat.calls.get(sid)
    if step == "propose":
        chat.calls.setdefault(sid, "outgoing" if out else "ringing")
    elif before is None:
        chat.calls[sid] = "closed"  # whatever ended it came before it, which then does not ring
    elif step == "retract" and before in ("ringing", "outgoing"):
        chat.calls[sid] = "ended" if out else "missed"
    elif step == "proceed" and before in ("ringing", "outgoing"):
        chat.calls[sid] = "answered"
    elif step == "finish" and before == "answered":
        chat.calls[sid] = "ended"


class Talker:
    """One person who talks through everything: whose session dies logs in again and goes on."""

    def __init__(self, box: Box, jid: str, peers: list[str], seed: str) -> None:
        self.box, self.jid, self.peers = box, jid, peers
        self.random = random.Random(seed)  # noqa: S311
        self.session: Person
        self.kept: set[str] = set()  # acknowledged ids of sessions that ended
        self.sent = self.lost_sessions = 0
        self.heard: dict[str, list[str]] = {peer: [] for peer in peers}
        self.own: dict[str, list[str]] = {peer: [] for peer in peers}
        self.calling: list[tuple[str, str]] = []
        self.called: list[tuple[str, str]] = []

    async def log_in(self) -> None:
        self.session = await self.box.person(self.jid, sm=True)
        self.heard_until = 0

    def listen(self) -> None:
        for element in self.session.received[self.heard_until :]:
            sender = element.get("from", "").split("/")[0]
            tags = {child.tag for child in element}
            changes = {f"{{{RETRACT}}}retract", f"{{{CORRECT}}}replace"}
            if sender in self.heard and f"{CLIENT}body" in tags and not tags & changes:
                self.heard[sender].append(element.get("id", ""))
        self.heard_until = len(self.session.received)

    def act(self, number: int) -> None:
        """One thing that people do."""
        peer, dice = self.random.choice(self.peers), self.random.random()
        own, heard, me = self.own[peer], self.heard[peer], self.session
        if dice < 0.08 and heard:
            me.displayed(peer, self.random.choice(heard[-5:]))
        elif dice < 0.14 and own:
            me.correct(peer, self.random.choice(own[-8:]), f"corrected {number}")
        elif dice < 0.18 and own:
            me.retract(peer, self.random.choice(own[-8:]))
        elif dice < 0.22 and peer < self.jid:  # calls in both directions would cross
            call = (peer, f"call-{self.jid}-{number}")
            self.calling.append(call)
            self.called.append(call)
            me.call("propose", *call)
        elif dice < 0.30 and self.calling:
            me.call("retract", *self.calling.pop(0))
        else:
            own.append(me.write(peer, f"{self.jid} says {number}"))

    async def talk(self, calm: asyncio.Event, told: Callable[[], None]) -> None:
        number = 0
        while number < ACTS or not calm.is_set():
            await asyncio.sleep(PACE_SECONDS if number < ACTS else 5 * PACE_SECONDS)
            try:
                self.listen()
                for _ in range(6):
                    self.act(number)
                    number += 1
                    told()
                self.kept |= await self.session.acked()
            except GONE:
                self.lost_sessions += 1
                await eventually(self._again, 60)
        for call in self.called:  # also those whose end was lost with a session; the others are over
            self.session.call("retract", *call)
        self.kept |= await self.session.acked()

    async def _again(self) -> bool:
        try:
            await self.log_in()
        except (*GONE, AssertionError):
            return False
        return True


class Watcher:
    """A client that has the list, keeps its stamp and takes deltas, a few conversations a page."""

    def __init__(self, box: Box, jid: str) -> None:
        self.box, self.jid = box, jid
        self.stamps: list[int] = []
        self.shown: dict[str, Conversation] = {}
        self.refused: Counter[str] = Counter()
        self.session: Person | None = None

    async def look(self) -> None:
        """One delta. What cannot be answered now must say so, and nothing else."""
        try:
            if self.session is None or self.session.closed:
                self.session = await self.box.person(self.jid, "watch", presence=False)
                self.session.patient = False
            async with asyncio.timeout(ANSWER_SECONDS):
                stamp, found = await self.session.pages(self.stamps[-1] if self.stamps else None, 2)
        except StanzaError as error:
            self.refused[error.condition] += 1
            # While the component is away its server says so itself, and in its own words.
            if error.type != "wait" and error.condition != "service-unavailable":
                raise
        except GONE:
            self.session = None
            self.refused["gone"] += 1
        else:
            self.stamps.append(stamp)
            self.shown |= found

    async def watch(self, until: asyncio.Event) -> None:
        while not until.is_set():
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), 0.05)

    async def arrive(self) -> None:
        """One more delta, once there is one: whoever is behind says so, and an answer may take its time."""
        had = len(self.stamps)

        async def answered() -> bool:
            await self.look()
            return len(self.stamps) > had

        await eventually(answered, 60)


class Company:
    """Four friends who talk; one of them has left a phone at home that rings."""

    def __init__(self, box: Box, seed: str) -> None:
        self.box = box
        self.jids = [box.account() for _ in range(4)]
        self.talkers = [Talker(box, jid, [p for p in self.jids if p != jid], f"{seed}-{jid}") for jid in self.jids]
        self.watchers = [Watcher(box, jid) for jid in self.jids]
        self.phone: Phone
        self.halfway = asyncio.Event()
        self._acts = 0

    def told(self) -> None:
        self._acts += 1
        if self._acts > ACTS:
            self.halfway.set()

    async def gather(self) -> None:
        for talker in self.talkers:
            await talker.log_in()
        for index, one in enumerate(self.talkers):
            for other in self.talkers[index + 1 :]:
                await one.session.befriend(other.session)
        phone = await self.box.person(self.jids[0], "phone", presence=False)
        self.phone = await self.box.phone(phone)
        await phone.close()

    async def talk(self, disturbance: Callable[[], Awaitable[None]]) -> None:
        over, calm = asyncio.Event(), asyncio.Event()
        watching = [asyncio.ensure_future(watcher.watch(over)) for watcher in self.watchers]
        talking = [asyncio.ensure_future(talker.talk(calm, self.told)) for talker in self.talkers]
        try:
            await self.halfway.wait()
            await disturbance()
            calm.set()
            await asyncio.gather(*talking)
        finally:
            calm.set()
            over.set()
            await asyncio.gather(*watching)
        await self.box.whole()

    async def check(self) -> None:
        """Everything that must hold when all is quiet."""
        for talker, watcher in zip(self.talkers, self.watchers, strict=True):
            reader = await self.box.person(talker.jid, "reader", presence=False)
            truths = self.truths(talker.jid, await reader.archive())
            chats = await eventually(partial(self.agreeing, reader, truths), 60)
            self.acknowledged_is_archived(talker, chats)
            await watcher.arrive()
            assert watcher.stamps == sorted(watcher.stamps)
            full = {item.jid: item.seen for item in (await reader.sync()).items}
            assert {jid: item.seen for jid, item in watcher.shown.items()} == full
        await self.marks()
        await self.pushes()

    def truths(self, jid: str, archive: list[tuple[str, ET.Element]]) -> list[dict[str, Chat]]:
        """What the archive may mean. A server writes a stanza into the archive and then into the outbox: one that it
        was killed in between is archived, without an event.
        """
        unsure = self.cut_off(jid, archive)
        # Only a server that dies takes its word with it: in every other disturbance the archive is the one truth.
        assert not unsure or any(talker.lost_sessions for talker in self.talkers)
        return [fold(jid, archive), *(fold(jid, archive[:at] + archive[at + 1 :]) for at in unsure)]

    def cut_off(self, jid: str, archive: list[tuple[str, ET.Element]]) -> list[int]:
        """Where it may have been killed in between. Prosody had told nobody that it had taken that stanza. In ejabberd
        the recipient's session works for itself: the sender may have been told.
        """
        told = set().union(*(talker.kept for talker in self.talkers))
        unsure = [at for at, (_, message) in enumerate(archive) if message.get("id") not in told]
        if self.box.server == "ejabberd":
            died = [at * 1_000_000 for part, at in self.box.deaths if part == "server"]
            unsure += [
                at
                for at, (archive_id, message) in enumerate(archive)
                if message.get("from", "").split("/")[0] != jid
                and any(one - 1_000_000 < int(archive_id) < one + 1_000_000 for one in died)
            ]
        return unsure

    async def agreeing(self, reader: Person, truths: list[dict[str, Chat]]) -> dict[str, Chat]:
        """The one truth that both the answer and the rows agree with."""
        listed = {item.jid: item for item in (await reader.sync()).items}
        for chats in truths[1:]:
            with suppress(AssertionError):
                return await self.holds(reader, listed, chats)
        return await self.holds(reader, listed, truths[0])

    async def holds(self, reader: Person, listed: dict[str, Conversation], chats: dict[str, Chat]) -> dict[str, Chat]:
        self.agree(reader, listed, chats)
        await self.stored(reader.account, chats)
        return chats

    def agree(self, reader: Person, listed: dict[str, Conversation], chats: dict[str, Chat]) -> None:
        """The list says what the archive means, or AssertionError."""
        assert set(listed) == set(chats)
        for peer, chat in chats.items():
            item = listed[peer]
            last = None if item.last is None else item.last.get("id", "")
            assert item.unread == chat.unread, (reader.account, peer)
            assert last in self.newest(chat), (reader.account, peer)
            assert last is None or item.retracted == (last in chat.retracted)
            assert last is None or item.retracted or item.body == chat.bodies[last]
            assert not item.calls

    def newest(self, chat: Chat) -> set[str | None]:
        """The last message of a chat. ejabberd's archive has messages by when they were sent, its feed by when they
        were received: of two that crossed either may be the last.
        """
        if self.box.server == "prosody" or not chat.order:
            return {(chat.order or [None])[-1]}
        ways = [[one for one in chat.order if (one in chat.incoming) is incoming] for incoming in (True, False)]
        return {way[-1] for way in ways if way}

    def acknowledged_is_archived(self, talker: Talker, chats: dict[str, Chat]) -> None:
        written = {one for chat in chats.values() for one in chat.order if one not in chat.incoming}
        mine = {one for ids in talker.own.values() for one in ids}
        assert talker.kept & mine <= written

    async def stored(self, jid: str, chats: dict[str, Chat]) -> None:
        """The rows themselves: the index is the archive, counters are recounts, versions are distinct."""
        rows = await self.box.sql(
            "SELECT peer, coalesce(archive_id, archive_key) AS id FROM message WHERE account = $1", jid
        )
        wanted = Counter((peer, one) for peer, chat in chats.items() for one in chat.archived)
        assert Counter((row["peer"], row["id"]) for row in rows) == wanted
        (counted,) = await self.box.sql(
            "SELECT a.unread = coalesce(sum(c.unread), 0) "
            "AND a.unread_conversations = count(*) FILTER (WHERE c.unread > 0) "
            "AND a.version >= max(c.version) AND a.epoch = 1 AND bool_and(c.ringing = 0) AS holds "
            "FROM account a JOIN conversation c ON c.account = a.jid WHERE a.jid = $1 GROUP BY a.jid",
            jid,
        )
        assert counted["holds"]
        wrong = await self.box.sql(
            "SELECT peer FROM conversation c WHERE account = $1 AND unread <> (SELECT count(*) FROM message m WHERE "
            "(m.account, m.peer, m.kind) = (c.account, c.peer, c.kind) AND m.counted AND m.retracted IS NULL "
            "AND m.rank > c.read_rank)",
            jid,
        )
        assert wrong == []
        calls = await self.box.sql("SELECT peer, session_id, state FROM call WHERE account = $1", jid)
        states = {(row["peer"], row["session_id"]): row["state"] for row in calls}
        assert states == {(peer, sid): state for peer, chat in chats.items() for sid, state in chat.calls.items()}

    async def marks(self) -> None:
        """Both ends of the feed agree, and nothing was set aside."""

        async def level() -> bool:
            behind = await self.box.sql("SELECT * FROM feed_stream WHERE committed < seen")
            assert behind == []
            return True

        await eventually(level, 60)
        assert await self.box.sql("SELECT why, event FROM quarantine WHERE account = ANY ($1)", self.jids) == []

    async def pushes(self) -> None:
        """Each call made the phone ring at most once; what did not ring was over before."""
        # What a killed component was sending stays "attempted" for half a minute: uncertain, and not sent again.
        await self.box.settled(self.jids[0], under_way=False)
        rung = Counter(push["payload"]["x"]["c"] for push in self.box.pushes(str(self.phone.voip), status=None))
        assert not rung or max(rung.values()) == 1
        jobs = [job for job in await self.box.jobs(self.jids[0]) if job["voip"]]
        assert len({(job["peer"], job["sid"]) for job in jobs}) == len(jobs)
        calls = await self.box.sql("SELECT peer, sid FROM call WHERE account = $1 AND state = 'missed'", self.jids[0])
        left = {(job["peer"], job["sid"]) for job in jobs if job["attempted_at"] is not None}
        assert left <= {(call["peer"], call["sid"]) for call in calls}
        assert len(rung) <= len(left)


def killer(*parts: str) -> Callable[[Box], Awaitable[None]]:
    async def kill(box: Box) -> None:
        for part in parts:
            await box.killed(part)

    return kill


async def frozen_component(box: Box) -> None:
    """It hangs for a moment, and wakes up to a backlog."""
    box.signal("component", signal.SIGSTOP)
    try:
        for _ in range(3):  # the server goes on meanwhile: each answer takes its time
            await asyncio.sleep(0.5)
    finally:
        box.signal("component", signal.SIGCONT)
    await box.whole()


async def cut_connection(box: Box) -> None:
    for _ in range(3):
        await box.cut()
        await box.whole()


def each(disturbances: Iterable[str]) -> list[Any]:
    """Parameters: what does not disturb the feed is tried on one server."""
    away = pytest.mark.one_server
    return [pytest.param(what, marks=away if what.startswith(("postgres", "redis")) else ()) for what in disturbances]
