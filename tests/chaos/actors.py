"""People who talk through everything: they write, correct, take back, read, ring and answer, alone and in rooms.

What they do is thrown with seeded dice; when they do it is up to the machine. An actor has one or more devices, or none
at all: then it has a phone at home, and reads now and then with a client that shows no presence.
"""

import asyncio
import itertools
import random
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from zlib import crc32

from tests.chaos.device import GONE, Device, Forgotten
from tests.system.box import Box
from tests.system.person import CORRECT, HINTS, JMI, MARKERS, REACTIONS, RETRACT, SID, STORE
from tests.system.xmpp_client import CLIENT, StanzaError

PACE_SECONDS = 0.03
LATELY = 8  # of how many of the newest messages one is meant
CHANGES = {f"{{{RETRACT}}}retract", f"{{{CORRECT}}}replace", f"{{{REACTIONS}}}reactions"}

_sids = itertools.count(1)


@dataclass
class Place:
    """A room; `nicks` by account; `said`: (nick, message id, stanza-id) as occupants heard it."""

    jid: str
    nicks: dict[str, str]
    said: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Published:
    """A displayed marker of XEP-0490; `sure`: the server has answered."""

    peer: str
    stanza_id: str
    sure: bool


class Actor:
    """One account and what it knows."""

    def __init__(self, box: Box, jid: str, peers: Sequence[str], places: Sequence[Place]) -> None:
        self.box, self.jid, self.peers, self.places = box, jid, list(peers), list(places)
        self.performers: list[Performer] = []
        self.heard: dict[str, list[tuple[str, str]]] = {peer: [] for peer in peers}  # (message id, stanza-id)
        self.own: dict[str, list[str]] = {peer: [] for peer in peers}
        self.sent: dict[str, str] = {}  # id of a message with a text → to whom
        self.taken: set[str] = set()  # ids that the server has acknowledged
        self.refused: set[str] = set()
        self.published: list[Published] = []
        self.calling: list[tuple[str, str]] = []
        self.called: list[tuple[str, str]] = []
        self.ringing: list[tuple[str, str]] = []
        self.rung: set[str] = set()
        self.did: Counter[str] = Counter()

    def hear(self, element: ET.Element) -> None:
        """A stanza came in at one of the devices."""
        sender, _, nick = element.get("from", "").partition("/")
        if element.get("type") == "error":
            self.refused.add(element.get("id", ""))
            return
        stanza_id = next((one.get("id", "") for one in element.iterfind(f"{{{SID}}}stanza-id")), "")
        tags = {child.tag for child in element}
        if f"{{{JMI}}}propose" in tags and sender in self.heard:
            call = next(element.iter(f"{{{JMI}}}propose")).get("id", "")
            if call not in self.rung:  # one device takes it, or declines
                self.ringing.append((sender, call))
                self.rung.add(call)
        elif f"{CLIENT}body" in tags and not tags & CHANGES and stanza_id:
            if sender in self.heard:
                self.heard[sender].append((element.get("id", ""), stanza_id))
            for place in self.places:
                if place.jid == sender:
                    place.said.append((nick, element.get("id", ""), stanza_id))


class Performer:
    """One device of an actor at work."""

    def __init__(self, actor: Actor, resource: str, seed: str) -> None:
        self.actor, self.resource = actor, resource
        self.random = random.Random(f"{seed} {resource}")  # noqa: S311
        self.device: Device | None = None
        self.acts = 0
        actor.performers.append(self)

    # ---- staying connected -------------------------------------------------------------------------------------------

    async def arrive(self) -> None:
        """A new session, present in the rooms."""
        actor = self.actor
        self.device = await Device.log_in(actor.box, actor.jid, self.resource, carbons=self.resource != "desk")
        for place in actor.places:
            await self.device.enter(place.jid, place.nicks[actor.jid])

    async def recover(self) -> None:
        """The connection is gone: resume the session; where that cannot be, or for a change, begin anew."""
        old, self.device = self.device, None
        while self.device is None:
            try:
                if old is not None and self.random.random() < 0.9:
                    self.device = await old.again(self.actor.box)
                    self.actor.did["resumed"] += 1
                else:
                    self.leave(old)
                    old = None
                    await self.arrive()
                    self.actor.did["logged in again"] += 1
            except Forgotten:
                self.leave(old)
                old = None
            except (*GONE, StanzaError):
                self.device = None
                await asyncio.sleep(PACE_SECONDS * 3)

    def leave(self, device: Device | None) -> None:
        """Keep what the server said of a session that ends."""
        if device is not None:
            self.actor.taken |= device.taken

    async def settle(self) -> None:
        """Until the server has taken everything, or has forgotten the session."""
        while True:
            try:
                if self.device is None:
                    await self.recover()
                assert self.device is not None
                self.listen(self.device)
                self.actor.taken |= await self.device.acked()
            except GONE:
                await self.recover()
            else:
                return

    async def perform(self, calm: asyncio.Event, least: int) -> None:
        """Act until it is calm, and so many times at the least."""
        while self.acts < least or not calm.is_set():
            try:
                if self.device is None or self.device.closed:
                    raise ConnectionError
                self.listen(self.device)
                for _ in range(self.random.randint(1, 6)):
                    await self.act(self.device)
                self.actor.taken |= await self.device.acked()
            except GONE:
                await self.recover()
            await asyncio.sleep(PACE_SECONDS if self.acts < least else 3 * PACE_SECONDS)

    def listen(self, device: Device) -> None:
        for element in device.received:
            if element.tag == f"{CLIENT}message":
                self.actor.hear(element)
        device.received.clear()

    # ---- what people do ----------------------------------------------------------------------------------------------

    async def act(self, device: Device) -> None:
        """One thing; what cannot be done yet becomes a message."""
        self.acts += 1
        (act,) = self.random.choices([act for act, _ in ACTS], [weight for _, weight in ACTS])
        did = act(self, device)
        if asyncio.iscoroutine(did):
            did = await did
        if not did:
            self.write(device)
        self.actor.did[act.__name__ if did else "write"] += 1

    def peer(self) -> str:
        return self.random.choice(self.actor.peers)

    def pick(self, found: Sequence[tuple[str, ...]] | Sequence[str]) -> object:
        """One of the newest, or None."""
        return self.random.choice(found[-LATELY:]) if found else None

    def own(self, peer: str) -> list[str]:
        """What the server has acknowledged, and may be changed: another device must not overtake it."""
        return [one for one in self.actor.own[peer][-3 * LATELY :] if one in self.actor.taken]

    def write(self, device: Device) -> bool:
        actor, peer = self.actor, self.peer()
        message_id = device.write(peer, f"{actor.jid} says {self.acts}")
        actor.own[peer].append(message_id)
        actor.sent[message_id] = peer
        return True

    def unstored(self, device: Device) -> bool:
        """What no archive keeps counts for nobody."""
        device.write(self.peer(), "do not keep this", f"<no-store xmlns='{HINTS}'/>")
        return True

    def displayed(self, device: Device) -> bool:
        peer = self.peer()
        if found := self.pick(self.actor.heard[peer]):
            device.displayed(peer, found[0])  # type: ignore[index]
        return bool(found)

    async def publish(self, device: Device) -> bool:
        """Read on another device, as XEP-0490 says it."""
        choices = [(peer, found[-LATELY:], self.actor.jid) for peer, found in self.actor.heard.items() if found]
        heard = ((place.jid, [said[1:] for said in place.said[-LATELY:]]) for place in self.actor.places)
        choices += [(room, said, room) for room, said in heard if said]
        if not choices:
            return False
        peer, found, by = self.random.choice(choices)
        stanza_id, sure = self.random.choice(found)[1], False
        try:
            await device.read_up_to(peer, stanza_id, by)
            sure = True
        except StanzaError:
            pass
        finally:
            self.actor.published.append(Published(peer, stanza_id, sure))
        return True

    def correct(self, device: Device) -> bool:
        peer = self.peer()
        if found := self.pick(self.own(peer)):
            device.correct(peer, str(found), f"corrected {self.acts}")
        return bool(found)

    def retract(self, device: Device) -> bool:
        peer = self.peer()
        if found := self.pick(self.own(peer)):
            device.retract(peer, str(found))
        return bool(found)

    def react(self, device: Device) -> bool:
        peer = self.peer()
        if found := self.pick(self.actor.heard[peer]):
            device.react(peer, found[0], "👍")  # type: ignore[index]
        return bool(found)

    def receive(self, device: Device) -> bool:
        peer = self.peer()
        if found := self.pick(self.actor.heard[peer]):
            device.received_it(peer, found[0])  # type: ignore[index]
        return bool(found)

    def ring(self, device: Device) -> bool:
        """Call somebody; of two people only ever one calls the other, or calls would cross."""
        peer = self.peer()
        low, high = sorted((peer, self.actor.jid))
        if (peer == low) is (crc32(f"{low} {high}".encode()) % 2 == 0):
            return False
        call = (peer, f"call-{next(_sids)}-{self.actor.jid}")
        self.actor.calling.append(call)
        self.actor.called.append(call)
        device.call("propose", *call)
        return True

    def answer(self, device: Device) -> bool:
        """Take a call, or not."""
        if not self.actor.ringing:
            return False
        device.call(self.random.choice(["proceed", "reject"]), *self.actor.ringing.pop())
        return True

    def hang_up(self, device: Device) -> bool:
        if not self.actor.calling:
            return False
        device.call(self.random.choice(["retract", "finish"]), *self.actor.calling.pop(0))
        return True

    def say(self, device: Device) -> bool:
        """In a room."""
        if not self.actor.places:
            return False
        room = self.random.choice(self.actor.places).jid
        text = f"<body>{self.actor.jid} says {self.acts} to all</body>"
        self.actor.sent[device.message(room, text, kind="groupchat")] = room
        return True

    def change_in_room(self, device: Device) -> bool:
        """Correct or take back what this account said there."""
        if not self.actor.places:
            return False
        place = self.random.choice(self.actor.places)
        own = [one for one in place.said[-60:] if one[0] == place.nicks[self.actor.jid]]
        if not (found := self.pick(own)):
            return False
        _, message_id, stanza_id = found  # type: ignore[misc]
        if self.random.random() < 0.5:
            inner = f"<retract xmlns='{RETRACT}' id='{stanza_id}'/>{STORE}"
        else:
            inner = f"<body>corrected {self.acts}</body><replace xmlns='{CORRECT}' id='{message_id}'/>"
        device.message(place.jid, inner, kind="groupchat")
        return True

    def displayed_in_room(self, device: Device) -> bool:
        if not self.actor.places:
            return False
        place = self.random.choice(self.actor.places)
        if not (found := self.pick(place.said)):
            return False
        inner = f"<displayed xmlns='{MARKERS}' id='{found[2]}'/>{STORE}"  # type: ignore[index]
        device.message(place.jid, inner, kind="groupchat")
        return True

    def end_calls(self) -> None:
        """Also those whose end was lost with a session; the others are over."""
        assert self.device is not None
        for call in self.actor.called:
            self.device.call("retract", *call)
            self.device.call("finish", *call)


Act = Callable[[Performer, Device], object]
ACTS: list[tuple[Act, int]] = [
    (Performer.write, 36),
    (Performer.say, 20),
    (Performer.displayed, 6),
    (Performer.publish, 4),
    (Performer.correct, 5),
    (Performer.retract, 4),
    (Performer.react, 3),
    (Performer.receive, 3),
    (Performer.ring, 4),
    (Performer.answer, 3),
    (Performer.hang_up, 3),
    (Performer.change_in_room, 5),
    (Performer.displayed_in_room, 3),
    (Performer.unstored, 2),
]


class Absentee:
    """Whose phone lies at home: an account without devices that reads now and then (XEP-0490), seen by nobody."""

    def __init__(self, actor: Actor, seed: str) -> None:
        self.actor, self.random = actor, random.Random(f"{seed} absent")  # noqa: S311

    async def read(self, until: asyncio.Event) -> None:
        """Now and then, until it is over."""
        actor = self.actor
        device: Device | None = None
        while not until.is_set():
            with suppress(*GONE, StanzaError):
                async with asyncio.timeout(5):  # what a dead component was asked is never answered
                    if device is None or device.closed:
                        device = await self._client()
                    await self._mark(device)
                actor.did["read while absent"] += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), self.random.uniform(0.2, 1.5))
        if device is not None:
            await device.cut()

    async def _client(self) -> Device:
        box, jid = self.actor.box, self.actor.jid
        password = next(one["password"] for one in box.ready["accounts"] if one["jid"] == jid)
        return await Device.connect(f"{jid}/reading", password, box.ready["c2s"]["port"], presence=False)

    async def _mark(self, device: Device) -> None:
        """One of the conversations, up to its last message as it is listed, or all of them; or a room, up to what was
        said lately.
        """
        dice = self.random.random()
        lately = [(place.jid, said[2]) for place in self.actor.places for said in place.said[-LATELY:]]
        if dice < 0.3 and lately:
            chosen = [self.random.choice(lately)]
        else:
            lasts = ((item.jid, item.last) for item in (await device.sync()).items if item.last is not None)
            ids = ((jid, last.find(f"{{{SID}}}stanza-id")) for jid, last in lasts)
            listed = [(jid, one.get("id", "")) for jid, one in ids if one is not None]
            chosen = listed if dice > 0.8 else self.random.sample(listed, min(1, len(listed)))
        for peer, archive_id in chosen:
            await self._publish(device, peer, archive_id)

    async def _publish(self, device: Device, peer: str, archive_id: str) -> None:
        sure = False
        try:
            await device.read_up_to(
                peer, archive_id, peer if peer in [place.jid for place in self.actor.places] else self.actor.jid
            )
            sure = True
        finally:
            self.actor.published.append(Published(peer, archive_id, sure))
