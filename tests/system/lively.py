"""Lively traffic around one account: messages, corrections, retractions, reactions, receipts, markers, calls, rooms,
mentions, invitations, subscription requests, pins, mutes, archive, deletion; each move by chance, out of a seed.

It only acts. What must be true afterwards is for the test to say.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from tests.system.box import Box
from tests.system.dialects import OWN, delta
from tests.system.person import CHAT, SYNC, Person
from tests.system.room import Room
from tests.system.xmpp_client import StanzaError

MUC = "http://jabber.org/protocol/muc"
_numbers = itertools.count(1)

Sent = list[tuple[Person, Person, str]]  # who, to whom, id


class Circle:
    """`ann`, her friends, somebody whom she does not know, and two rooms with all of them."""

    def __init__(self, ann: Person, friends: list[Person], stranger: Person, rooms: list[Room], seed: int) -> None:
        self.ann, self.friends, self.stranger, self.rooms = ann, friends, stranger, rooms
        self.dice = random.Random(seed)  # noqa: S311 - chances, no secret
        self.sent: Sent = []
        self.said: list[tuple[Room, Person, str]] = []
        self.calls: list[tuple[Person, Person, str]] = []

    @classmethod
    async def meet(cls, box: Box, seed: int, friends: int = 6) -> "Circle":
        ann = await box.person()
        others = [await box.person(resource="web") for _ in range(friends)]
        for other in others:
            await ann.befriend(other)
        rooms = [await Room.open(box, others[0]), await Room.open(box, others[1], private=True)]
        for room in rooms:
            await room.admit(ann, *others[2:4])
            for number, person in enumerate(others[2:4]):
                await room.enter(person, f"Nick{number}")
        await rooms[0].enter(ann, "Ann")
        return cls(ann, others, await box.person(resource="far"), rooms, seed)

    @property
    def everybody(self) -> list[Person]:
        return [self.ann, *self.friends, self.stranger]

    async def settle(self) -> None:
        """The server has taken what everybody sent, and what it made of that is committed."""
        for person in self.everybody:
            await person.ping()
        await self.ann.fresh()

    async def live(self, moves: int, together: int = 1) -> None:
        """So many moves, `together` of them at a time."""
        for _ in range(moves // together):
            await asyncio.gather(*(self.move() for _ in range(together)))

    async def move(self) -> None:
        """One thing that somebody does. What is refused (a set of what is deleted) was still a move."""
        moves: Sequence[tuple[int, Callable[[], Awaitable[None]]]] = (
            (10, self.write),
            (4, self.answer),
            (3, self.correct),
            (3, self.retract),
            (3, self.react),
            (5, self.read),
            (3, self.was_read),
            (4, self.call),
            (4, self.answer_call),
            (8, self.say),
            (2, self.moderate),
            (3, self.read_room),
            (5, self.set),
            (3, self.set_own),
            (2, self.read_by_set),
            (1, self.ask_presence),
        )
        (chosen,) = self.dice.choices([act for _, act in moves], [weight for weight, _ in moves])
        with suppress(StanzaError):
            await chosen()

    # ---- messages --------------------------------------------------------------------------------------------------

    def friend(self) -> Person:
        return self.dice.choice(self.friends)

    def _note(self, sender: Person, to: Person, message_id: str) -> None:
        self.sent.append((sender, to, message_id))

    async def write(self) -> None:
        friend = self.friend()
        self._note(friend, self.ann, friend.write(self.ann.account, f"note {next(_numbers)} <&> ☕"))
        await friend.ping()

    async def answer(self) -> None:
        friend = self.friend()
        self._note(self.ann, friend, self.ann.write(friend.account, f"answer {next(_numbers)}"))
        await self.ann.ping()

    async def correct(self) -> None:
        if self.sent:
            sender, to, message_id = self.dice.choice(self.sent)
            sender.correct(to.account, message_id, f"corrected {next(_numbers)}")
            await sender.ping()

    async def retract(self) -> None:
        if self.sent:
            sender, to, message_id = self.dice.choice(self.sent)
            sender.retract(to.account, message_id)
            await sender.ping()

    async def react(self) -> None:
        if self.sent:
            sender, to, message_id = self.dice.choice(self.sent)
            to.react(sender.account, message_id, *self.dice.sample("👍🎉☕", self.dice.randint(0, 2)))
            await to.ping()

    async def read(self) -> None:
        """Ann reads what a friend wrote."""
        if mine := [one for one in self.sent if one[1] is self.ann]:
            sender, _, message_id = self.dice.choice(mine)
            self.ann.displayed(sender.account, message_id)
            await self.ann.ping()

    async def was_read(self) -> None:
        """A friend gets, or reads, what Ann wrote."""
        if hers := [one for one in self.sent if one[0] is self.ann]:
            _, friend, message_id = self.dice.choice(hers)
            self.dice.choice([friend.displayed, friend.received_it])(self.ann.account, message_id)
            await friend.ping()

    async def ask_presence(self) -> None:
        self.stranger.send(f"<presence to='{self.ann.account}' type='subscribe'/>")
        await self.stranger.ping()

    # ---- calls -----------------------------------------------------------------------------------------------------

    async def call(self) -> None:
        friend, sid = self.friend(), f"call{next(_numbers)}"
        caller, callee = self.dice.choice([(friend, self.ann), (friend, self.ann), (self.ann, friend)])
        self.calls.append((caller, callee, sid))
        caller.call("propose", callee.account, sid)
        await caller.ping()

    async def answer_call(self) -> None:
        if self.calls:
            caller, callee, sid = self.calls.pop(self.dice.randrange(len(self.calls)))
            step = self.dice.choice(["retract", "reject", "proceed"])
            who, whom = (caller, callee) if step == "retract" else (callee, caller)
            who.call(step, whom.account, sid)
            await who.ping()

    # ---- rooms -----------------------------------------------------------------------------------------------------

    async def say(self) -> None:
        room = self.dice.choice(self.rooms)
        person = self.dice.choice([room.owner, *self.friends[2:4]])
        if self.dice.random() < 0.3:
            said = await room.mention(person, self.ann.account)
        else:
            said = await room.say(person, f"said {next(_numbers)}")
        self.said.append((room, person, said))

    async def moderate(self) -> None:
        if self.said:
            room, person, stanza_id = self.dice.choice(self.said)
            await room.retract(person, stanza_id)

    async def read_room(self) -> None:
        if self.said:
            room, _, stanza_id = self.dice.choice(self.said)
            await self.ann.read(room.jid, stanza_id, room.jid)

    # ---- properties ------------------------------------------------------------------------------------------------

    def conversation(self) -> tuple[str, str]:
        """One of them: JID and kind."""
        people = [(person.account, "chat") for person in self.friends]
        return self.dice.choice([*people, *((room.jid, "group") for room in self.rooms)])

    async def set(self) -> None:
        """In Client Synchronization."""
        jid, kind = self.conversation()
        values = ["pinned='7'", "pinned='0'", "mute='3600'", "mute='0'", "mute=''"]
        value = self.dice.choice([*values, "status='archived'", "status='active'", "status='deleted'"])
        named = CHAT if kind == "chat" else MUC
        conversation = f"<conversation jid='{jid}' type='{named}' {value}/>"
        await self.ann.iq("set", f"<query xmlns='{SYNC}'>{conversation}</query>")

    async def set_own(self) -> None:
        """In our own dialect, two at once."""
        chosen = {self.conversation() for _ in range(2)}
        values = ["marked-unread='true'", "notify='never'", "pinned='3'", "status='archived'", "muted='forever'"]
        inner = "".join(
            f"<conversation jid='{jid}' kind='{kind}' {self.dice.choice(values)}/>" for jid, kind in sorted(chosen)
        )
        await self.ann.iq("set", f"<set xmlns='{OWN}'>{inner}</set>")

    async def read_by_set(self) -> None:
        """Read up to what one of the newest conversations said last."""
        story = (await delta(self.ann, max=4)).story
        if named := [(name, facts["archive"]) for name, facts in story.items() if facts.get("archive")]:
            (jid, kind), stanza_id = self.dice.choice(named)
            conversation = f"<conversation jid='{jid}' kind='{kind}' read='{stanza_id}'/>"
            await self.ann.iq("set", f"<set xmlns='{OWN}'>{conversation}</set>")
