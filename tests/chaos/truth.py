"""What an archive means, by the rules of docs/state.md, written a second time and from the other end.

An item is *sure* when the server gave its word on it. What it was doing in the moment of its own death it may have put
into the archive without an event, or the other way round: such items are *unsure*, both outcomes are right, and the
index says which one came about. Everything else must be as the archive says.

Where the server works on several things at once (ejabberd), what crosses within a moment may be archived in one order
and told in another: then the order of the index counts, see `in_order` and `Crossings`.
"""

import itertools
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from xml.sax.saxutils import escape

from tests.system.person import CORRECT, HINTS, JMI, MAM, MARKERS, REACTIONS, RETRACT, RSM, Person, _ids
from tests.system.xmpp_client import CLIENT

DELAY = "{urn:xmpp:delay}delay"
RING_SECONDS = 60
CROSSING_SECONDS = 5.0  # a server that stands still for three (`faults.PAUSES`) makes it longer
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
# After an answer: sent by whoever began the call, step.
HANGING_UP = {(True, "retract"), (False, "reject")}


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
    """A step of a call. `taken_by`: what came behind it was taken then, seconds since the epoch; 0: not known."""

    out: bool
    name: str
    at: float
    sure: bool
    taken_by: float = 0.0


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


@dataclass
class Word:
    """What is known beside an archive. `sure`: archive id → is it? An id that is not there is. `indexed`: archive ids
    in the message index, in its order. `loose`: the server does several things at once. `taken`: when what is in the
    index was taken, seconds since the epoch.
    """

    indexed: Collection[str]
    sure: Mapping[str, bool]
    loose: bool = False
    taken: Mapping[str, float] = field(default_factory=dict)
    retracted: dict[str, float] = field(default_factory=dict)  # what a retraction names → when

    def told(self, item: Item) -> bool:
        return self.sure.get(item.archive_id, True)

    def has(self, item: Item) -> bool:
        return self.told(item) or item.archive_id in self.indexed

    def crossed(self, item: Item, *names: str) -> bool:
        """True for a change that was not taken, and need not be: its message was retracted at the same moment."""
        if not self.loose or item.archive_id in self.indexed:
            return False
        return any(abs(self.retracted[one] - item.at) < CROSSING_SECONDS for one in names if one in self.retracted)

    def taken_by(self, items: Sequence[Item]) -> list[float]:
        """When what is behind each of these was taken. It was in time if that was."""
        found, later = [], 0.0
        for item in reversed(items):
            later = self.taken.get(item.archive_id, later)
            found.append(later)
        return found[::-1]

    def in_order(self, archive: Iterable[Item]) -> list[Item]:
        """The archive; in loose times, what the index has is in the index's order."""
        items = list(archive)
        for item in items:
            if (element := item.tags.get(f"{{{RETRACT}}}retract")) is not None:
                self.retracted.setdefault(element.get("id", ""), item.at)
        if not self.loose:
            return items
        by_id = {item.archive_id: item for item in items}
        ranked = iter([by_id[one] for one in self.indexed if one in by_id])
        known = set(self.indexed)
        return [next(ranked) if item.archive_id in known else item for item in items]


def chats(owner: str, archive: Iterable[Item], word: Word) -> dict[str, Chat]:
    """One-to-one conversations of an account, by peer."""
    found: dict[str, Chat] = {}
    markers: list[tuple[Chat, Item, str, str]] = []
    items = word.in_order(archive)
    for item, taken_by in zip(items, word.taken_by(items), strict=True):
        out = item.bare("from") == owner
        peer = item.bare("to" if out else "from")
        chat = found.setdefault(peer, Chat())
        steps = [child for child in item.message if child.tag.startswith(f"{{{JMI}}}")]
        if (marker := item.tags.get(f"{{{MARKERS}}}displayed")) is not None:
            if out:
                markers.append((chat, item, marker.get("id", ""), peer))
        elif steps:
            step = Step(out, steps[0].tag.rpartition("}")[2], item.at, word.told(item), taken_by)
            chat.calls.setdefault(steps[0].get("id", ""), []).append(step)
        elif word.has(item):
            take(chat, item, item.bare("from"), word, by_stanza_id=False)
        else:
            drop(chat, item, item.bare("from"), word, by_stanza_id=False)
    for chat, item, target, peer in markers:
        chat.mark(owner, chat.newest(target, peer) or chat.newest(target), sure=word.told(item))
    return found


def room(archive: Iterable[Item], word: Word, accounts: Mapping[str, str]) -> Chat:
    """A room; `accounts` by nick."""
    chat = Chat()
    for item in word.in_order(archive):
        author = accounts.get(item.message.get("from", "").partition("/")[2], "")
        if (marker := item.tags.get(f"{{{MARKERS}}}displayed")) is not None:
            chat.mark(author, marker.get("id", ""), sure=word.told(item))
        elif word.has(item):
            take(chat, item, author, word, by_stanza_id=True)
        else:
            drop(chat, item, author, word, by_stanza_id=True)
    return chat


def take(chat: Chat, item: Item, author: str, word: Word, *, by_stanza_id: bool) -> None:
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
        if open_to(chat, target, item, word):
            assert target is not None
            chat.text[target] = item.body
            chat.index.append(item.archive_id)
    elif (element := tags.get(f"{{{REACTIONS}}}reactions")) is not None:
        if open_to(chat, chat.newest(element.get("id", "")), item, word):
            chat.index.append(item.archive_id)
    elif item.body:
        chat.order.append(item.archive_id)
        chat.author[item.archive_id], chat.id[item.archive_id] = author, item.id
        chat.text[item.archive_id] = item.body
        chat.index.append(item.archive_id)


def drop(chat: Chat, item: Item, author: str, word: Word, *, by_stanza_id: bool) -> None:
    """An unsure item that the index does not have: it is missing if it would have changed anything."""
    other = replace(chat, index=[], order=chat.order[:], text={**chat.text}, retracted={*chat.retracted})
    other.author, other.id = {**chat.author}, {**chat.id}
    take(other, item, author, word, by_stanza_id=by_stanza_id)
    if other.index:
        chat.dropped.append(item)


def open_to(chat: Chat, target: str | None, item: Item, word: Word) -> bool:
    """Can the message still be changed by that item?"""
    if target is None or target in chat.retracted:
        return False
    return not word.crossed(item, target, chat.id[target])


def ends(steps: list[Step], *, loose: bool = False) -> set[str | None]:
    """The states in which a call may be; None: there is none."""
    if loose:
        return set().union(*(ends(order) for order in orders(steps)))
    unsure = [number for number, step in enumerate(steps) if not step.sure]
    found = set()
    for many in range(len(unsure) + 1):
        for missing in itertools.combinations(unsure, many):
            kept = [step for number, step in enumerate(steps) if number not in missing]
            found |= {end(kept, ran_out=False), end(kept, ran_out=True)}
    return found


def orders(steps: list[Step]) -> list[list[Step]]:
    """The orders in which these may have been told: what is a moment apart may have crossed."""
    found = []
    for order in itertools.permutations(steps):
        pairs = itertools.combinations(order, 2)
        if all(first.at - second.at < CROSSING_SECONDS for first, second in pairs):
            found.append(list(order))
    return found


def end(steps: list[Step], *, ran_out: bool) -> str | None:
    """The state of a call after these steps. `ran_out`: a ringing one counts as missed as soon as that can be."""
    state: str | None = None
    proposed_at, own = 0.0, False
    for step in steps:
        late = step.at - proposed_at > DOUBT_SECONDS or step.taken_by - proposed_at > RING_SECONDS
        if ran_out and state == "ringing" and late:
            state = "missed"
        if step.name == "propose":
            if state is None:
                state, proposed_at, own = "outgoing" if step.out else "ringing", step.at, step.out
        elif state is None:
            state = "closed"
        elif state == "answered" and (step.out is own, step.name) in HANGING_UP:
            state = "ended"
        else:
            state = CALLS.get((state, step.out, step.name), state)
    return state


def goes_on(key: tuple[str, str], calls: Mapping[tuple[str, str], list[Step]]) -> bool:
    """True where a later propose of that peer may have ended the answered call (XEP-0353 §5.2)."""
    peer, began = key[0], calls[key][0].at
    others = (step for other, steps in calls.items() if other[0] == peer and other != key for step in steps)
    return any(step.name == "propose" and not step.out and step.at > began for step in others)


def told_apart(archive: Iterable[Item]) -> list[Item]:
    """Two messages of one microsecond share an archive id on ejabberd: here, each has an id of its own."""
    items = list({(item.archive_id, item.id): item for item in archive}.values())
    times = Counter(item.archive_id for item in items)
    return [
        replace(item, archive_id=apart(item.archive_id, item.id)) if times[item.archive_id] > 1 else item
        for item in items
    ]


def apart(archive_id: str, message_id: str | None) -> str:
    """What stands for an archive id that two messages share."""
    return f"{archive_id} {message_id}"


async def archive(reader: Person, of: str | None = None, most: int = 200) -> list[Item]:
    """The whole archive of an account, or of a room, oldest first."""
    found: list[Item] = []
    after, last = "", None
    while True:
        had = {(item.archive_id, item.id) for item in found if item.archive_id == last}
        query, begin = f"q{next(_ids)}", len(reader.received)
        rsm = f"<set xmlns='{RSM}'><max>{most}</max>{after}</set>"
        answer = await reader.iq("set", f"<query xmlns='{MAM}' queryid='{query}'>{rsm}</query>", to=of)
        for element in reader.received[begin:]:
            result = element.find(f"{{{MAM}}}result")
            if result is not None and result.get("queryid") == query:
                message, stamp = next(result.iter(f"{CLIENT}message")), next(result.iter(DELAY)).get("stamp", "")
                at = datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
                item = Item(result.get("id", ""), at, message)
                found += [item] if (item.archive_id, item.id) not in had else []
        del reader.received[begin:]
        fin = answer.find(f"{{{MAM}}}fin")
        assert fin is not None
        if fin.get("complete") == "true":
            return found
        last = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or ""
        # ejabberd's ids are microseconds, and another message of the last one's may be on the next page.
        after = f"<after>{int(last) - 1 if last.isdecimal() else escape(last)}</after>"
