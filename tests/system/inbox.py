"""A client of XEP-0430: asks for inboxes, and notes what came before the answer, and in which order."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.system.person import MAM, RSM, SID, Person
from tests.system.xmpp_client import CLIENT

INBOX = "urn:xmpp:inbox:1"
FORWARD, DELAY = "urn:xmpp:forward:0", "urn:xmpp:delay"
_numbers = itertools.count(1)


class Entry:
    """One message of an answer."""

    def __init__(self, message: ET.Element, query: str) -> None:
        entry, *results = message
        assert entry.tag == f"{{{INBOX}}}entry", entry.tag
        self.jid, self.unread, self.id = entry.get("jid", ""), int(entry.get("unread", "")), entry.get("id")
        self.to, self.sender = message.get("to"), message.get("from")
        self.result = results[0] if results else None
        self.last: ET.Element | None = None
        if self.result is not None:
            assert (self.result.tag, self.result.get("queryid")) == (f"{{{MAM}}}result", query)
            forwarded = self.result.find(f"{{{FORWARD}}}forwarded")
            assert forwarded is not None
            assert forwarded.find(f"{{{DELAY}}}delay") is not None
            self.last = forwarded.find(f"{CLIENT}message")
        self.body = None if self.last is None else self.last.findtext(f"{CLIENT}body")

    @property
    def stanza_ids(self) -> list[tuple[str | None, str | None]]:
        assert self.last is not None
        return [(one.get("by"), one.get("id")) for one in self.last.iterfind(f"{{{SID}}}stanza-id")]

    @property
    def seen(self) -> tuple[object, ...]:
        return (self.jid, self.unread, self.body, None if self.last is None else self.last.get("id"))


@dataclass
class Page:
    """An answer, whole: everything that belongs to it came before it."""

    entries: list[Entry]
    total: int
    unread: int
    all_unread: int
    count: int
    first: str | None
    last: str | None

    @property
    def jids(self) -> list[str]:
        return [entry.jid for entry in self.entries]

    def of(self, jid: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.jid == jid), None)


async def inbox(
    asker: Person,
    attributes: str = "",
    *,
    most: int | None = None,
    after: str | None = None,
    before: str | None = None,
    inner: str = "",
) -> Page:
    """Ask and wait for all of it. AssertionError where an entry comes behind the answer to its query."""
    number = next(_numbers)
    query = f"inbox-{number}"
    page = inner if most is None else f"<max>{most}</max>"
    page += "" if after is None else f"<after>{escape(after)}</after>"
    page += "" if before is None else f"<before>{escape(before)}</before>"
    rsm = f"<set xmlns='{RSM}'>{page}</set>" if page else ""
    begin = len(asker.received)
    answer = await asker.iq("get", f"<inbox xmlns='{INBOX}' {attributes}>{rsm}</inbox>", iq_id=query)
    since = asker.received[begin:]
    at = since.index(answer)
    messages = [e for e in since[:at] if belongs(e, query)]
    assert not any(belongs(e, query, sure=True) for e in since[at:]), "entries behind the answer"
    fin = answer.find(f"{{{INBOX}}}fin")
    assert fin is not None
    return Page(
        [Entry(message, query) for message in messages],
        *(int(fin.get(name, "")) for name in ("total", "unread", "all-unread")),
        int(fin.findtext(f"{{{RSM}}}set/{{{RSM}}}count") or "-1"),
        *(fin.findtext(f"{{{RSM}}}set/{{{RSM}}}{name}") for name in ("first", "last")),
    )


def belongs(message: ET.Element, query: str, *, sure: bool = False) -> bool:
    """Whether it is an entry of this query's answer; one without a result does not say so, and is where it is."""
    if message.find(f"{{{INBOX}}}entry") is None:
        return False
    result = message.find(f"{{{MAM}}}result")
    return not sure if result is None else result.get("queryid") == query


async def whole(
    asker: Person, most: int, *, after: str | None = None, between: Callable[[], object] = lambda: None
) -> tuple[list[Entry], str | None]:
    """Every page forwards from a place, and the place behind them."""
    found = []
    while True:
        page = await inbox(asker, most=most, after=after)
        found += page.entries
        if not page.entries:
            assert (page.first, page.last) == (None, None)
            return found, after
        after = page.last
        between()
