"""What an archive means, by the rules of docs/state.md, written a second time and from the other end.

An item is *sure* when the server gave its word on it. What it was doing in the moment of its own death it may have put
into the archive without an event, or the other way round: such items are *unsure*, both outcomes are right, and the
index says which one came about. Everything else must be as the archive says.
"""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from xml.sax.saxutils import escape

from tests.system.person import CORRECT, HINTS, JMI, MAM, MARKERS, REACTIONS, RETRACT, RSM, Person, _ids
from tests.system.xmpp_client import CLIENT

DELAY = "{urn:xmpp:delay}delay"
RING_SECONDS = 60
DOUBT_SECONDS = 30  # a call that was proposed longer ago may have run out before what ended it was taken

# (state, sent by the account itself, step) → the state that follows; anything else changes nothing.
CALLS = {
    ("ringing", True, "proceed"): "answered",
    ("ringing", True, "reject"): "rejected",
    ("ringing", False, "retract"): "missed",
    ("ringing", False, "finish"): "ended",
    ("ringing", True, "finish"): "ended",
    ("outgoing", False, "proceed"): "answered",
    ("outgoing", False, "reject"): "closed",
    ("outgoing", True, "retract"): "ended",
    ("outgoing", False, "finish"): "ended",
    ("outgoing", True, "finish"): "ended",
    ("answered", False, "finish"): "ended",
    ("answered", True, "finish"): "ended",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of an archive; `at` in seconds since the epoch."""

    archive_id: str
    at: float
    message: ET.Element

    @property
    def id(self) -> str:
        return self.message.get("id", "")

    def bare(self, key: str) -> str:
        return self.message.get(key, "").split("/")[0]

    @property
    def tags(self) -> dict[str, ET.Element]:
        return {child.tag: child for child in self.message}

    @property
    def body(self) -> str:
        return self.message.findtext(f"{CLIENT}body") or ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a call."""

    out: bool
    name: str
    at: float
    sure: bool


@dataclass
class Chat:
    """One conversation. Messages go by their archive ids."""

    order: list[str] = field(default_factory=list)
    author: dict[str, str] = field(default_factory=dict)
    id: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    retracted: set[str] = field(default_factory=set)
    index: list[str] = field(default_factory=list)  # of everything that belongs into the message index
    read: dict[str, int] = field(default_factory=dict)  # reader → how many of `order` are surely read
    perhaps: dict[str, set[int]] = field(default_factory=dict)  # … and what else may be
    calls: dict[str, list[Step]] = field(default_factory=dict)
    dropped: list[Item] = field(default_factory=list)  # unsure items that the index does not have

    def newest(self, message_id: str, author: str | None = None) -> str | None:
        """The newest message with that id, of that author."""
        found = (a for a in reversed(self.order) if self.id[a] == message_id and author in (None, self.author[a]))
        return next(found, None)

    def mark(self, reader: str, archive_id: str | None, *, sure: bool) -> None:
        """The reader has read up to there."""
        if archive_id not in self.order:
            return
        place = self.order.index(archive_id) + 1
        if sure:
            self.read[reader] = max(self.read.get(reader, 0), place)
        else:
            self.perhaps.setdefault(reader, set()).add(place)

    def places(self, reader: str) -> set[int]:
        """How far the reader may have read."""
        least = self.read.get(reader, 0)
        return {least} | {place for place in self.perhaps.get(reader, ()) if place > least}

    def unread(self, reader: str, place: int) -> int:
        """What others said behind that place, and did not take back."""
        return len([a for a in self.order[place:] if self.author[a] != reader and a not in self.retracted])


Sure = Mapping[str, bool]  # archive id → is it sure? An id that is not there is


def chats(owner: str, archive: Iterable[Item], indexed: Collection[str], sure: Sure) -> dict[str, Chat]:
    """One-to-one conversations of an account, by peer."""
    found: dict[str, Chat] = {}
    for item in archive:
        out = item.bare("from") == owner
        peer = item.bare("to" if out else "from")
        chat = found.setdefault(peer, Chat())
        told = sure.get(item.archive_id, True)
        steps = [child for child in item.message if child.tag.startswith(f"{{{JMI}}}")]
        if (marker := item.tags.get(f"{{{MARKERS}}}displayed")) is not None:
            target = marker.get("id", "")
            if out:
                chat.mark(owner, chat.newest(target, peer) or chat.newest(target), sure=told)
        elif steps:
            step = Step(out, steps[0].tag.rpartition("}")[2], item.at, told)
            chat.calls.setdefault(steps[0].get("id", ""), []).append(step)
        elif told or item.archive_id in indexed:
            take(chat, item, item.bare("from"), by_stanza_id=False)
        else:
            chat.dropped.append(item)
    return found


def room(archive: Iterable[Item], indexed: Collection[str], sure: Sure, accounts: Mapping[str, str]) -> Chat:
    """A room; `accounts` by nick."""
    chat = Chat()
    for item in archive:
        author = accounts.get(item.message.get("from", "").partition("/")[2], "")
        told = sure.get(item.archive_id, True)
        if (marker := item.tags.get(f"{{{MARKERS}}}displayed")) is not None:
            chat.mark(author, marker.get("id", ""), sure=told)
        elif told or item.archive_id in indexed:
            take(chat, item, author, by_stanza_id=True)
        else:
            chat.dropped.append(item)
    return chat


def take(chat: Chat, item: Item, author: str, *, by_stanza_id: bool) -> None:
    """A message, or what its author did to one; retractions name a room's stanza-id, or else a message id."""
    tags = item.tags
    if f"{{{HINTS}}}no-store" in tags:
        return
    if (element := tags.get(f"{{{RETRACT}}}retract")) is not None:
        named = element.get("id", "")
        target = (named if named in chat.order else None) if by_stanza_id else chat.newest(named, author)
        if target is not None and chat.author[target] == author and target not in chat.retracted:
            chat.retracted.add(target)
            chat.index.append(item.archive_id)
    elif (element := tags.get(f"{{{CORRECT}}}replace")) is not None:
        target = chat.newest(element.get("id", ""), author)
        if target is not None and target not in chat.retracted:
            chat.text[target] = item.body
            chat.index.append(item.archive_id)
    elif (element := tags.get(f"{{{REACTIONS}}}reactions")) is not None:
        target = chat.newest(element.get("id", ""))
        if target is not None and target not in chat.retracted:
            chat.index.append(item.archive_id)
    elif item.body:
        chat.order.append(item.archive_id)
        chat.author[item.archive_id], chat.id[item.archive_id] = author, item.id
        chat.text[item.archive_id] = item.body
        chat.index.append(item.archive_id)


def ends(steps: list[Step]) -> set[str | None]:
    """The states in which a call may be; None: there is none."""
    unsure = [number for number, step in enumerate(steps) if not step.sure]
    found = set()
    for many in range(len(unsure) + 1):
        for missing in itertools.combinations(unsure, many):
            kept = [step for number, step in enumerate(steps) if number not in missing]
            found |= {end(kept, ran_out=False), end(kept, ran_out=True)}
    return found


def end(steps: list[Step], *, ran_out: bool) -> str | None:
    """The state of a call after these steps. `ran_out`: a ringing one counts as missed as soon as that can be."""
    state: str | None = None
    proposed_at = 0.0
    for step in steps:
        if ran_out and state == "ringing" and step.at - proposed_at > DOUBT_SECONDS:
            state = "missed"
        if step.name == "propose":
            if state is None:
                state, proposed_at = "outgoing" if step.out else "ringing", step.at
        elif state is None:
            state = "closed"
        else:
            state = CALLS.get((state, step.out, step.name), state)
    return state


async def archive(reader: Person, of: str | None = None, most: int = 200) -> list[Item]:
    """The whole archive of an account, or of a room, oldest first."""
    found: list[Item] = []
    after = ""
    while True:
        query, begin = f"q{next(_ids)}", len(reader.received)
        rsm = f"<set xmlns='{RSM}'><max>{most}</max>{after}</set>"
        answer = await reader.iq("set", f"<query xmlns='{MAM}' queryid='{query}'>{rsm}</query>", to=of)
        for element in reader.received[begin:]:
            result = element.find(f"{{{MAM}}}result")
            if result is not None and result.get("queryid") == query:
                message, stamp = next(result.iter(f"{CLIENT}message")), next(result.iter(DELAY)).get("stamp", "")
                at = datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
                found.append(Item(result.get("id", ""), at, message))
        del reader.received[begin:]
        fin = answer.find(f"{{{MAM}}}fin")
        assert fin is not None
        if fin.get("complete") == "true":
            return found
        after = f"<after>{escape(fin.findtext(f'{{{RSM}}}set/{{{RSM}}}last') or '')}</after>"
