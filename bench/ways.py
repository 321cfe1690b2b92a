"""How a client that was away learns what it missed: one way for each dialect, and the archive (XEP-0313) as what there
is elsewhere.

A way keeps a mark, a text, while its client is offline. It asks and counts; whoever times it has the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from bench.client import Client

SYNC, RSM, MAM = "https://xabber.com/protocol/synchronization", "http://jabber.org/protocol/rsm", "urn:xmpp:mam:2"
INBOX, OWN, JMI = "urn:xmpp:inbox:1", "urn:convsync:0", "urn:xmpp:jingle-message:0"


@dataclass(frozen=True, slots=True)
class Caught:
    """Round trips, things told (messages by the archive, else conversations), the next mark."""

    trips: int
    told: int
    mark: str


class Way(Protocol):
    """`catch_up` from a mark; the empty one is the beginning."""

    name: str

    def mark(self, asker: Client) -> str:
        """Where its client is when it knows everything."""
        ...

    def catch_up(self, asker: Client, mark: str) -> Caught:
        """Everything since the mark."""
        ...


def result_set(most: int, after: str = "") -> str:
    """A page of so many, behind a place."""
    place = f"<after>{escape(after)}</after>" if after else ""
    return f"<set xmlns='{RSM}'><max>{most}</max>{place}</set>"


@dataclass(frozen=True, slots=True)
class Archive:
    """XEP-0313, oldest first: every stanza, from which the client counts by itself."""

    most: int

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"archive, pages of {self.most}"

    def mark(self, asker: Client) -> str:
        """The id of the newest message."""
        rsm = f"<set xmlns='{RSM}'><max>1</max><before/></set>"
        fin = asker.iq("set", f"<query xmlns='{MAM}'>{rsm}</query>")[0]
        return fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or ""

    def catch_up(self, asker: Client, mark: str) -> Caught:
        """Page by page, until it says that this is all."""
        trips, found = 0, list[Element]()
        while True:
            query = f"<query xmlns='{MAM}'>{result_set(self.most, mark)}</query>"
            fin = asker.iq("set", query, before=found.append)[0]
            trips += 1
            mark = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or mark
            if fin.get("complete") in ("true", "1"):
                told = sum(1 for one in found if one.find(f"{{{MAM}}}result") is not None)
                return Caught(trips, told, mark)


@dataclass(frozen=True, slots=True)
class Synchronization:
    """Client Synchronization: the stamp."""

    most: int = 60
    name: str = "Client Synchronization"

    def mark(self, asker: Client) -> str:
        """The newest stamp."""
        return asker.iq("get", f"<query xmlns='{SYNC}'>{result_set(0)}</query>")[0].get("stamp", "")

    def catch_up(self, asker: Client, mark: str) -> Caught:
        """Until a page is not full."""
        trips, told, after, stamp = 0, 0, "", ""
        while True:
            query = asker.iq("get", f"<query xmlns='{SYNC}' stamp='{mark}'>{result_set(self.most, after)}</query>")[0]
            trips, many = trips + 1, len(query.findall(f"{{{SYNC}}}conversation"))
            told, stamp = told + many, stamp or query.get("stamp", "")
            if many < self.most:
                return Caught(trips, told, stamp)
            after = query.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or ""


@dataclass(frozen=True, slots=True)
class Inbox:
    """XEP-0430: `after` the last entry that it was shown."""

    most: int = 200
    name: str = "Inbox"

    def mark(self, asker: Client) -> str:
        """The place behind the last entry of all: of the page that lies before nothing."""
        rsm = f"<set xmlns='{RSM}'><max>1</max><before/></set>"
        fin = asker.iq("get", f"<inbox xmlns='{INBOX}'>{rsm}</inbox>")[0]
        return fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or ""

    def catch_up(self, asker: Client, mark: str) -> Caught:
        """Until a page is empty."""
        trips, told = 0, 0
        while True:
            found = list[Element]()
            query = f"<inbox xmlns='{INBOX}'>{result_set(self.most, mark)}</inbox>"
            fin = asker.iq("get", query, before=found.append)[0]
            trips, many = trips + 1, sum(1 for one in found if one.find(f"{{{INBOX}}}entry") is not None)
            told += many
            last = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last")
            if not last:
                return Caught(trips, told, mark)
            mark = last


@dataclass(frozen=True, slots=True)
class Own:
    """`sync` of urn:convsync:0: the token. `preview`: of last messages so many characters, as a list shows them."""

    most: int = 100
    name: str = "urn:convsync:0"
    preview: int | None = None

    def mark(self, asker: Client) -> str:
        """The token of somebody who was shown everything."""
        return self.catch_up(asker, "").mark

    def catch_up(self, asker: Client, mark: str) -> Caught:
        """While there is more."""
        trips, told = 0, 0
        preview = "" if self.preview is None else f" preview='{self.preview}'"
        while True:
            token = f" token='{mark}'" if mark else ""
            answer = asker.iq("get", f"<sync xmlns='{OWN}' max='{self.most}'{preview}{token}/>")[0]
            trips, told = trips + 1, told + len(answer.findall(f"{{{OWN}}}conversation"))
            mark = answer.get("token", "")
            if answer.get("more") != "true":
                return Caught(trips, told, mark)


# ---- the call that rings -------------------------------------------------------------------------------------------

Finder = Callable[[Client, dict[str, str], str], int]  # asker, marks by name of the way, session id → round trips


def ringing_here(answer: Element, sid: str) -> bool:
    """Whether the call is in it."""
    return any(one.get("id") == sid for one in answer.iter(f"{{{JMI}}}propose"))


def find_in_own(asker: Client, marks: dict[str, str], sid: str) -> int:
    """Calls come with every first page; of no conversations here."""
    answer = asker.iq("get", f"<sync xmlns='{OWN}' max='0' token='{marks[Own().name]}'/>")
    assert any(one.get("state") == "ringing" for one in answer.iter(f"{{{OWN}}}call"))
    assert ringing_here(answer, sid)
    return 1


def find_in_synchronization(asker: Client, marks: dict[str, str], sid: str) -> int:
    """Its conversation is the first one."""
    stamp = marks[Synchronization().name]
    answer = asker.iq("get", f"<query xmlns='{SYNC}' stamp='{stamp}'>{result_set(1)}</query>")
    assert ringing_here(answer, sid)
    return 1


def find_oldest_first(asker: Client, marks: dict[str, str], sid: str) -> int:
    """From where the client left: here the propose is the very first stanza, the easy case. Rings it still?"""
    trips, mark = 0, marks[Archive(50).name]
    while True:
        found = list[Element]()
        query = f"<query xmlns='{MAM}'>{result_set(50, mark)}</query>"
        fin = asker.iq("set", query, before=found.append)[0]
        trips += 1
        if any(ringing_here(one, sid) for one in found):
            return trips
        mark = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or ""
        assert mark, "the archive does not have the call"


def find_newest_first(asker: Client, marks: dict[str, str], sid: str) -> int:
    """From now backwards, as clients do that show the newest first. Rings it still?"""
    del marks
    trips, before = 0, "<before/>"
    while True:
        found = list[Element]()
        rsm = f"<set xmlns='{RSM}'><max>50</max>{before}</set>"
        fin = asker.iq("set", f"<query xmlns='{MAM}'>{rsm}</query>", before=found.append)[0]
        trips += 1
        if any(ringing_here(one, sid) for one in found):
            return trips
        first = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}first") or ""
        assert first, "the archive does not have the call"
        before = f"<before>{escape(first)}</before>"


FINDERS: dict[str, Finder] = {
    "archive, newest first, pages of 50": find_newest_first,
    "archive, oldest first, pages of 50": find_oldest_first,
    "Client Synchronization": find_in_synchronization,
    "urn:convsync:0": find_in_own,
}
