"""A room and the people of a whole sandbox in it."""

from dataclasses import dataclass, field
from typing import Self

from tests.system.box import Box, Row
from tests.system.person import MARKERS, RETRACT, SID, STORE, Person, _ids
from tests.system.room_client import affiliate, configure, enter, leave
from tests.system.xmpp_client import CLIENT

REFERENCE = "urn:xmpp:reference:0"
NOTIFY = "urn:xmpp:notification-settings:1"
BOOKMARKS = "urn:xmpp:bookmarks:1"


@dataclass
class Room:
    """`owner` is in it; `nicks` of everybody who ever came."""

    box: Box
    jid: str
    owner: Person
    nicks: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def open(cls, box: Box, owner: Person, *, private: bool = False, host: str | None = None) -> Self:
        self = cls(box, f"room{next(_ids)}@{host or box.ready['muc']}", owner)
        await self.enter(owner, "Owner")
        await configure(owner, self.jid, members_only=private)
        return self

    async def enter(self, person: Person, nick: str, *, history: int = 0) -> None:
        await enter(person, self.jid, nick, history=history)
        self.nicks[person.jid] = nick

    async def leave(self, person: Person) -> None:
        await leave(person, self.jid, self.nicks[person.jid])

    async def admit(self, *people: Person, affiliation: str = "member", nick: str = "") -> None:
        """The component knows by then whoever is there: whom it meets while the room speaks may miss it."""
        for person in people:
            if not person.closed:
                await person.fresh()
            await affiliate(self.owner, self.jid, person.account, affiliation, nick=nick)

    async def admit_account(self, jid: str) -> None:
        """A member who may never have been connected."""
        await affiliate(self.owner, self.jid, jid, "member")

    # ---- what is said in it ----------------------------------------------------------------------------------------

    async def say(self, person: Person, text: str, inner: str = "", message_id: str | None = None) -> str:
        """Returns the room's id of the message, once the room has said it."""
        body = f"<body>{text}</body>" if text else ""
        sent = person.message(self.jid, body + inner, kind="groupchat", message_id=message_id or f"r{next(_ids)}")
        said = await person.wait_for(
            lambda e: e.tag == f"{CLIENT}message" and e.get("id") == sent and e.get("type") == "groupchat"
        )
        ids = [one.get("id", "") for one in said.iterfind(f"{{{SID}}}stanza-id") if one.get("by") == self.jid]
        return ids[0] if ids else ""

    async def mention(self, person: Person, whom: str) -> str:
        """Whom: a JID, of an account or of an occupant."""
        reference = f"<reference xmlns='{REFERENCE}' type='mention' begin='0' end='3' uri='xmpp:{whom}'/>"
        return await self.say(person, "you, there", reference)

    async def displayed(self, person: Person, stanza_id: str) -> None:
        await self.say(person, "", f"<displayed xmlns='{MARKERS}' id='{stanza_id}'/>{STORE}")

    async def retract(self, person: Person, stanza_id: str) -> None:
        await self.say(person, "took something back", f"<retract xmlns='{RETRACT}' id='{stanza_id}'/>{STORE}")

    # ---- what its people have --------------------------------------------------------------------------------------

    async def told(self, reader: Person) -> tuple[int | None, str | None] | None:
        """What a client of the reader's is told: unread, and the text of the last message; None: there is no such
        conversation.
        """
        item = (await reader.sync()).of(self.jid)
        return None if item is None else (item.unread, item.body)

    async def row(self, reader: Person) -> Row:
        await reader.fresh()
        found = await self.box.conversation(reader.account, self.jid, "group")
        assert found is not None, reader.account
        return found

    async def changes(self, reader: Person) -> list[tuple[str, str]]:
        await reader.fresh()
        return await self.box.changes(reader.account, self.jid)

    async def wish(self, person: Person, setting: str) -> None:
        """XEP-0492, in a bookmark of the room."""
        extensions = f"<extensions><notify xmlns='{NOTIFY}'><{setting}/></notify></extensions>"
        await person.publish(BOOKMARKS, self.jid, f"<conference xmlns='{BOOKMARKS}'>{extensions}</conference>")
        await person.fresh()  # what is said in the room comes by another stream than this


async def people(box: Box, count: int) -> list[Person]:
    """So many people of whom no client is available; those that there are ask questions. The component knows them: whom
    the server has never shown to be there has nothing of a room, though it be a member.
    """
    found = [await box.person(resource="reader", presence=False) for _ in range(count)]
    for one in found:
        await one.fresh()
    return found
