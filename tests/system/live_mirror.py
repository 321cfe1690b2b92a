"""A client that holds an account by `sync` and live notices, as docs/protocol.md tells clients to, and remembers how
each notice met what it had.
"""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Self

from tests.system.box import Box, eventually
from tests.system.person import Person
from tests.system.xmpp_client import CLIENT

OWN = "urn:convsync:0"
LIVE, SYNC, CONVERSATION, CALL, CHANGES = (
    f"{{{OWN}}}{name}" for name in ("live", "sync", "conversation", "call", "changes")
)
Row = tuple[str, str]  # jid, kind


def live_of(person: Person) -> list[ET.Element]:
    """The notices that a session got, oldest first."""
    return [
        stanza[0] for stanza in person.received if stanza.tag == f"{CLIENT}message" and stanza.find(LIVE) is not None
    ]


def plain(conversation: ET.Element) -> str:
    """What is held of a conversation: all but its change log."""
    kept = ET.Element(conversation.tag, dict(sorted(conversation.items())))
    kept.extend(child for child in conversation if child.tag != CHANGES)
    return ET.canonicalize(ET.tostring(kept, encoding="unicode"))


class Mirror:
    """`rows` of conversations, `ringing` calls, the change logs as they came, and where all of that stands."""

    def __init__(self, session: Person) -> None:
        self.session = session
        self.token: str | None = None
        self.version = 0
        self.rows: dict[Row, str] = {}
        self.ringing: set[str] = set()
        self.ended: dict[str, str] = {}
        self.changes: dict[int, tuple[str, str]] = {}
        self.gone: dict[Row, int] = {}  # deleted ones, with the version that says so
        self.holes: list[tuple[int, int]] = []  # own version, previous
        self.applied: list[tuple[int, int]] = []  # previous, version
        self._taken = 0

    @classmethod
    async def begin(cls, session: Person, *, most: int = 100) -> Self:
        """Everything, and live from then on."""
        self = cls(session)
        await self.sync("live='true'", most=most)
        return self

    async def sync(self, attributes: str = "", *, most: int = 100, between: Callable[[], object] = lambda: None) -> int:
        """Pages, to the end; the version of them."""
        while True:
            token = f" token='{self.token}'" if self.token else ""
            answer = await self.session.iq("get", f"<sync xmlns='{OWN}' max='{most}' {attributes}{token}/>")
            page = answer[0]
            if page.get("reset") is not None:
                self.rows.clear()
            self._take(page)
            self.token = page.get("token")
            if page.get("more") is None:
                self.version = max(self.version, int(page.get("version", "")))
                return int(page.get("version", ""))
            attributes = ""
            between()

    def look(self) -> None:
        """Take the notices that have come."""
        found = live_of(self.session)
        for notice in found[self._taken :]:
            previous, version = int(notice.get("previous", "")), int(notice.get("version", ""))
            if version <= self.version:
                continue
            if previous > self.version or notice.get("more") == "true":
                self.holes.append((self.version, previous))
                continue
            self._take(notice)
            self.applied.append((previous, version))
            self.version, self.token = version, notice.get("token")
        self._taken = len(found)

    def _take(self, content: ET.Element) -> None:
        for call in content.iterfind(CALL):
            sid = call.get("id", "")
            if call.get("state") == "ringing":
                self.ringing.add(sid)
            else:
                self.ringing.discard(sid)
                self.ended[sid] = call.get("state", "")
        for one in content.iterfind(CONVERSATION):
            key = one.get("jid", ""), one.get("kind", "")
            for change in one.iterfind(f"{CHANGES}/*"):
                self.changes[int(change.get("version", ""))] = change.get("kind", ""), change.get("id", "")
            if one.get("status") == "deleted":
                self.rows.pop(key, None)
                self.gone[key] = int(one.get("version", ""))
            else:
                self.rows[key] = plain(one)

    async def until(self, there: Callable[[ET.Element], bool], seconds: float = 45) -> ET.Element:
        """The conversation that a notice shows as wanted; everything up to it is taken."""

        async def look() -> list[ET.Element]:
            self.look()
            for notice in reversed(live_of(self.session)):
                for one in notice:
                    if there(one):
                        return [one]  # an element without children is false
            raise AssertionError([ET.tostring(one, encoding="unicode") for one in live_of(self.session)][-3:])

        return (await eventually(look, seconds))[0]

    async def reaches(self, version: int, seconds: float = 45) -> None:
        """Notices come up to that version."""

        async def look() -> bool:
            self.look()
            assert self.version >= version, (self.version, version)
            return True

        await eventually(look, seconds)

    async def truth(self) -> tuple[int, dict[Row, str], set[str]]:
        """What a client that knows nothing is told."""
        fresh = Mirror(self.session)
        version = await fresh.sync()
        return version, fresh.rows, fresh.ringing

    async def agrees(self) -> None:
        """Notices bring it to the truth."""
        version, rows, ringing = await self.truth()
        await self.reaches(version)
        assert self.rows == rows
        assert self.ringing == ringing


async def listening(box: Box, owner: Person, resource: str = "live") -> Mirror:
    """A further session of the owner's that follows."""
    return await Mirror.begin(await box.person(owner.account, resource))


def body_of(conversation: ET.Element) -> str | None:
    return conversation.findtext(f"{{{OWN}}}last/{CLIENT}message/{CLIENT}body")


def says(jid: str, text: str, kind: str = "chat") -> object:
    return lambda e: e.tag == CONVERSATION and (e.get("jid"), e.get("kind"), body_of(e)) == (jid, kind, text)


def has(jid: str, **values: str) -> object:
    wanted = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda e: e.tag == CONVERSATION and e.get("jid") == jid and wanted.items() <= dict(e.items()).items()


def in_a_chain(session: Person) -> bool:
    found = [(notice.get("previous"), notice.get("version")) for notice in live_of(session)]
    return all(before[1] == after[0] for before, after in itertools.pairwise(found))
