"""Rooms lose nothing and double nothing, whatever dies while people talk in them (invariants 1, 3 and 10).

The truth is each room's own archive: what the others said there, and did not take back, behind what one has read.
Members who never came must have it just as those who are there.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from tests.system.box import Box, eventually
from tests.system.company import GONE, Watcher, cut_connection, each, killer
from tests.system.person import CORRECT, MARKERS, RETRACT, SID, STORE, Person, _ids
from tests.system.room import Room, people
from tests.system.room_client import affiliate
from tests.system.xmpp_client import CLIENT, StanzaError

CROWD = 130  # more than two chunks of the fan-out
REPLACE = f"{{{CORRECT}}}replace"
TALKERS, ABSENT, ROOMS = 3, 3, 2
ACTS = 60  # at the least, of each talker; they go on until the disturbance is over
PACE_SECONDS = 0.01

DISTURBANCES: dict[str, Callable[[Box], Awaitable[None]]] = {
    "component": killer("component"),
    "postgres": killer("postgres"),
    "redis": killer("redis"),
    "postgres, then component": killer("postgres", "component"),
    "connection cut": cut_connection,
}


@dataclass
class Told:
    """What a room's archive says."""

    order: list[str] = field(default_factory=list)  # stanza-ids of what is to be read
    author: dict[str, str] = field(default_factory=dict)  # stanza-id → nick
    text: dict[str, str | None] = field(default_factory=dict)  # as it stands; None: taken back
    named: dict[tuple[str, str], str] = field(default_factory=dict)  # (nick, message id) → stanza-id
    read: dict[str, int] = field(default_factory=dict)  # nick → how many of `order`

    async def learn(self, reader: Person, room: str) -> "Told":
        for archive_id, message in await reader.archive(of=room):
            nick, body = message.get("from", "").rpartition("/")[2], message.findtext(f"{CLIENT}body")
            tags = {child.tag: child.get("id", "") for child in message}
            if (target := tags.get(f"{{{RETRACT}}}retract")) is not None:
                if self.author.get(target) == nick:
                    self.text[target] = None
            elif (target := tags.get(REPLACE)) is not None:
                corrected = self.named.get((nick, target))
                if corrected is not None and self.text[corrected] is not None:
                    self.text[corrected] = body
            elif (target := tags.get(f"{{{MARKERS}}}displayed")) is not None:
                if target in self.order:
                    self.read[nick] = max(self.read.get(nick, 0), self.order.index(target) + 1)
            elif body is not None:
                self.order.append(archive_id)
                self.author[archive_id], self.text[archive_id] = nick, body
                self.named[nick, message.get("id", "")] = archive_id
        return self

    def unread(self, nick: str | None) -> int:
        waiting = self.order[self.read.get(nick or "", 0) :]
        return len([one for one in waiting if self.author[one] != nick and self.text[one] is not None])


class Talker:
    """Somebody who is in the rooms and does what people do there."""

    def __init__(self, session: Person, nick: str, rooms: list[Room]) -> None:
        self.session, self.nick, self.rooms = session, nick, rooms
        self.random = random.Random(nick)  # noqa: S311
        self.sent: set[str] = set()

    def heard(self, room: Room, *, own: bool) -> list[tuple[str, str]]:
        """(message id, stanza-id) of what was said lately."""
        found = []
        for element in self.session.received[-200:]:
            stanza_id = element.find(f"{{{SID}}}stanza-id")
            if stanza_id is not None and element.find(f"{CLIENT}body") is not None and element.find(REPLACE) is None:
                sender, _, nick = element.get("from", "").partition("/")
                if sender == room.jid and (nick == self.nick) is own:
                    found.append((element.get("id", ""), stanza_id.get("id", "")))
        return found[-8:]

    def act(self, number: int) -> None:
        room, dice, me = self.random.choice(self.rooms), self.random.random(), self.session
        own, others = self.heard(room, own=True), self.heard(room, own=False)
        if dice < 0.08 and own:
            inner = f"<retract xmlns='{RETRACT}' id='{self.random.choice(own)[1]}'/>{STORE}"
            me.message(room.jid, inner, kind="groupchat")
        elif dice < 0.16 and own:
            replace = f"<replace xmlns='{CORRECT}' id='{self.random.choice(own)[0]}'/>"
            me.message(room.jid, f"<body>corrected {number}</body>{replace}", kind="groupchat")
        elif dice < 0.24 and others:
            inner = f"<displayed xmlns='{MARKERS}' id='{self.random.choice(others)[1]}'/>{STORE}"
            me.message(room.jid, inner, kind="groupchat")
        else:
            text = f"<body>{self.nick} says {number}</body>"
            self.sent.add(me.message(room.jid, text, kind="groupchat", message_id=f"k{next(_ids)}"))

    async def talk(self, calm: asyncio.Event, told: Callable[[], None]) -> None:
        number = 0
        while number < ACTS or not calm.is_set():
            await asyncio.sleep(PACE_SECONDS if number < ACTS else 5 * PACE_SECONDS)
            for _ in range(4):
                self.act(number)
                number += 1
                told()
            await self.session.ping()


class Party:
    """Some talk in two rooms; the other members have never been there."""

    def __init__(self, box: Box) -> None:
        self.box, self.halfway, self._acts = box, asyncio.Event(), 0

    def told(self) -> None:
        self._acts += 1
        if self._acts > TALKERS * ACTS // 2:
            self.halfway.set()

    async def gather(self) -> None:
        sessions = [await self.box.person(resource="desk") for _ in range(TALKERS)]
        self.absent = await people(self.box, ABSENT)
        self.rooms = [await Room.open(self.box, sessions[0], private=bool(n)) for n in range(ROOMS)]
        for room in self.rooms:
            await room.admit(*sessions[1:], *self.absent)
            for number, session in enumerate(sessions[1:], 1):
                await room.enter(session, f"talker{number}")
        nicks = ["Owner", *(f"talker{number}" for number in range(1, TALKERS))]
        self.talkers = [Talker(session, nick, self.rooms) for session, nick in zip(sessions, nicks, strict=True)]
        self.watchers = [Watcher(self.box, person.account) for person in [self.absent[0], sessions[0]]]

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
        everybody = [(talker.session, talker.nick) for talker in self.talkers] + [(one, None) for one in self.absent]
        for room in self.rooms:
            truth = await Told().learn(self.absent[0], room.jid)
            said = {message_id for _, message_id in truth.named}
            assert {one for talker in self.talkers for one in talker.sent} >= said
            for person, nick in everybody:
                await eventually(lambda p=person, n=nick, r=room, t=truth: self.agrees(p, n, r, t), 60)  # type: ignore[misc]
            rows = await self.box.sql(
                "SELECT archive_key FROM message WHERE account = $1 AND counted ORDER BY rank", room.jid
            )
            assert [row["archive_key"] for row in rows] == truth.order
        sent = {one for talker in self.talkers for one in talker.sent}
        archived = {one for room in self.rooms for one in await self.said(room)}
        assert archived == sent
        accounts = [person.account for person, _ in everybody]
        await self.box.sound(*accounts)
        found = await self.box.sql("SELECT jid, epoch FROM account WHERE jid = ANY ($1)", accounts)
        assert {row["epoch"] for row in found} == {1}
        jids = [*accounts, *(room.jid for room in self.rooms)]
        assert await self.box.sql("SELECT why FROM quarantine WHERE account = ANY ($1)", jids) == []
        for watcher in self.watchers:
            await watcher.arrive()
            reader = next(person for person, _ in everybody if person.account == watcher.jid)
            full = {item.jid: item.seen for item in (await reader.sync()).items}
            assert {jid: item.seen for jid, item in watcher.shown.items()} == full

    async def said(self, room: Room) -> set[str]:
        return {message_id for _, message_id in (await Told().learn(self.absent[0], room.jid)).named}

    async def agrees(self, person: Person, nick: str | None, room: Room, truth: Told) -> bool:
        with suppress(StanzaError, *GONE):
            last = truth.order[-1]
            assert await room.told(person) == (truth.unread(nick), truth.text[last]), (person.account, room.jid)
            return True
        return False


@pytest.mark.parametrize("what", each(DISTURBANCES))
async def test_every_member_has_what_the_others_said(what: str, box: Box) -> None:
    party = Party(box)
    await party.gather()
    await party.talk(lambda: DISTURBANCES[what](box))
    await party.check()


async def test_what_was_read_while_the_component_was_dead_is_read(box: Box) -> None:
    alice, desk = await box.person(resource="desk"), await box.person(resource="desk")
    room = await Room.open(box, alice, private=True)
    await room.admit(desk)
    await room.enter(desk, "Bob")
    for number in range(2):
        box.signal("component", signal.SIGSTOP)
        ids = [await room.say(alice, f"number {number}.{n}") for n in range(10)]
        await desk.read(room.jid, ids[7], by=room.jid)
        await box.killed("component")
        assert await room.told(desk) == (2, f"number {number}.9")
    await box.sound(desk.account)


async def test_killed_while_a_large_room_is_told(box: Box) -> None:
    alice = await box.person(resource="desk")
    room = await Room.open(box, alice, private=True)
    absent = [box.account() for _ in range(CROWD)]
    for jid in absent:
        alice.write(jid, "hello")  # that there are such accounts is known from what they are sent
        await affiliate(alice, room.jid, jid, "member")
    await alice.fresh()

    async def spread() -> dict[int, int]:
        """How many absent members have how many unread."""
        found = await box.sql(
            "SELECT unread, count(*) AS many FROM conversation WHERE peer = $1 AND account <> $2 GROUP BY unread",
            *(room.jid, alice.account),
        )
        return {row["unread"]: row["many"] for row in found}

    for number in range(1, 3):
        for n in range(20):
            alice.message(room.jid, f"<body>{number}.{n}</body>", kind="groupchat")

        async def begun(before: int = (number - 1) * 20) -> bool:
            return max(await spread(), default=0) > before

        await eventually(begun)
        await box.killed("component")

    async def told() -> bool:
        assert await spread() == {40: CROWD}
        return True

    await eventually(told, 60)
    await box.sound(alice.account, *absent)
