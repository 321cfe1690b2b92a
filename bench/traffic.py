"""Traffic as the server's module reports it: frames of the feed (docs/feed.md) as text, made beforehand.

A message between two accounts of the host is two events, one in each archive, as in life. The chances are seeded, so
that two runs see the same traffic. Refuses to know what the events do.
"""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import count

FRAME_EVENTS = 50  # docs/feed.md §3: a backlog is sent in batches of up to 50 events
MARKERS, CORRECTIONS = 0.05, 0.01  # of what people send
TEXT = "well then let us meet at the station around seven if the train is on time and bring the tickets please"
WORDS = TEXT.split()

_numbers = [count(1)]


def number_from(first: int) -> None:
    """Ids of this process begin there."""
    _numbers[:] = [count(first)]


def unique(prefix: str) -> str:
    """An id as long as clients make them."""
    return f"{prefix}{next(_numbers[0]):08x}-5c1e-4b7a-9d02-7f3a6c2e1b90"


def event(account: str, direction: str, stanza: str, *, sessions: str = "<s r='phone' state='active'/>") -> str:
    """An event without its n; `stanza` is text with a place for the account's stanza-id."""
    archive_id = unique("a")
    own = f"<stanza-id xmlns='urn:xmpp:sid:0' by='{account}' id='{archive_id}'/>"
    resource = " resource='phone'" if direction == "out" else ""
    return (
        f"kind='message' account='{account}' at='{time.time_ns() // 1000}' direction='{direction}' "
        f"archive-id='{archive_id}' known='true'{resource}>"
        f"<sessions>{sessions}</sessions>{stanza.replace('</message>', own + '</message>')}"
    )


def stanza(sender: str, to: str, message_id: str, inner: str) -> str:
    """A message as it is delivered."""
    return (
        f"<message xmlns='jabber:client' from='{sender}/phone' to='{to}' type='chat' id='{message_id}'>{inner}"
        f"<origin-id xmlns='urn:xmpp:sid:0' id='{message_id}'/></message>"
    )


def body(chance: random.Random) -> str:
    """What people write, and what their clients add."""
    text = " ".join(chance.choices(WORDS, k=chance.randint(2, 25)))
    return (
        f"<body>{text}</body><active xmlns='http://jabber.org/protocol/chatstates'/>"
        "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>"
    )


def frames(events: Sequence[str], *, host: str, stream: str) -> list[str]:
    """The events of a whole stream, from n = 1, as the component's connection brings them."""
    found = []
    for begin in range(0, len(events), FRAME_EVENTS):
        part = events[begin : begin + FRAME_EVENTS]
        last = begin + len(part)
        inner = "".join(f"<event n='{begin + place + 1}' {text}</event>" for place, text in enumerate(part))
        found.append(
            f"<message xmlns='jabber:component:accept' from='{host}' to='sync.{host}'>"
            f"<feed xmlns='urn:convsync:feed:0' stream='{stream}' shard='0' last='{last}' head='{last}'>{inner}</feed>"
            "</message>"
        )
    return found


class Traffic:
    """Endless chatter of `accounts` people, each with the same number of contacts."""

    def __init__(self, *, host: str, accounts: int, contacts: int) -> None:
        self._chance = random.Random(7)  # noqa: S311 - traffic, not a secret
        names = [f"person{n}@{host}" for n in range(accounts)]
        step = max(1, accounts // (2 * contacts))
        self._pairs = [
            (name, names[(place + step * distance) % accounts])
            for place, name in enumerate(names)
            for distance in range(1, contacts // 2 + 1)
        ]
        self._newest: dict[tuple[str, str], str] = {}

    def first(self) -> list[str]:
        """A message both ways between every two contacts: everybody and every conversation exists after these."""
        pairs = [pair for one, other in self._pairs for pair in ((one, other), (other, one))]
        return [text for sender, to in pairs for text in self._message(sender, to)]

    def events(self, many: int) -> list[str]:
        """So many events."""
        found: list[str] = []
        while len(found) < many:
            found += self._act()
        return found[:many]

    def _act(self) -> Iterator[str]:
        sender, to = self._chance.choice(self._pairs)
        if self._chance.random() < 0.5:
            sender, to = to, sender
        dice = self._chance.random()
        if dice < MARKERS and (seen := self._newest.get((to, sender))):
            return self._both(sender, to, f"<displayed xmlns='urn:xmpp:chat-markers:0' id='{seen}'/>")
        if dice < MARKERS + CORRECTIONS and (old := self._newest.get((sender, to))):
            inner = f"<replace xmlns='urn:xmpp:message-correct:0' id='{old}'/>"
            return self._both(sender, to, body(self._chance) + inner)
        return self._message(sender, to)

    def _message(self, sender: str, to: str) -> Iterator[str]:
        message_id = self._newest[sender, to] = unique("m")
        return self._both(sender, to, body(self._chance), message_id)

    @staticmethod
    def _both(sender: str, to: str, inner: str, message_id: str | None = None) -> Iterator[str]:
        said = stanza(sender, to, message_id or unique("m"), inner)
        yield event(sender, "out", said)
        yield event(to, "in", said)
