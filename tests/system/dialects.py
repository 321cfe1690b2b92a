"""What each dialect tells of an account's conversations, in the same words, so that they can be held against each
other.

A story is conversation (JID, kind) → fact → value. A dialect that has no word for something does not have that fact;
None is "there is none". Stanzas are told by ids and text.
"""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from xml.sax.saxutils import escape, quoteattr

from tests.system.inbox import Page, inbox
from tests.system.person import CHAT, JMI, RETRACT, RSM, SID, SYNC, Person
from tests.system.xmpp_client import CLIENT

OWN = "urn:convsync:0"
FOR_EVER = "253402300799"  # §1 of docs/dialects.md

Name = tuple[str, str]  # JID, kind
Facts = dict[str, object]
Story = dict[Name, Facts]


# Client Synchronization's types by our own kinds.
KINDS = {
    CHAT: "chat",
    "http://jabber.org/protocol/muc": "group",
    "urn:xmpp:omemo:2": "omemo-2",
    "urn:xmpp:omemo:1": "omemo-1",
    "eu.siacs.conversations.axolotl": "axolotl",
}


def said(message: ET.Element | None, archive: set[str]) -> Facts:
    """The last message: text, id, id in the archive (of one of these), whether it is a tombstone."""
    if message is None:
        return {"body": None, "id": None, "archive": None, "retracted": False}
    ids = [one.get("id") for one in message.iterfind(f"{{{SID}}}stanza-id") if one.get("by") in archive]
    return {
        "body": message.findtext(f"{CLIENT}body"),
        "id": message.get("id"),
        "archive": ids[0] if ids else None,
        "retracted": message.find(f"{{{RETRACT}}}retracted") is not None,
    }


def pointer(parent: ET.Element, tag: str, attribute: str = "id") -> str | None:
    """The id of a pointer; None where there is none (in Client Synchronization `0`)."""
    found = parent.find(tag)
    value = None if found is None else found.get(attribute)
    return None if value in (None, "0") else value


# ---- Client Synchronization ------------------------------------------------------------------------------------------


def of_synchronization(conversation: ET.Element, account: str) -> tuple[Name, Facts]:
    jid, kind = conversation.get("jid", ""), KINDS[conversation.get("type", "")]
    facts: Facts = {"status": conversation.get("status")}
    nodes = {node.get("node"): node for node in conversation}
    main = nodes.get(SYNC)
    if main is None:
        return (jid, kind), facts
    unread = main.find(f"{{{SYNC}}}unread")
    assert unread is not None
    last = main.find(f"{{{SYNC}}}last-message/{CLIENT}message")
    calls = nodes.get(JMI)
    return (jid, kind), facts | said(last, {account, jid}) | {
        "unread": int(unread.get("count", "")),
        "read": pointer(main, f"{{{SYNC}}}unread", "after"),
        "displayed": pointer(main, f"{{{SYNC}}}displayed"),
        "delivered": pointer(main, f"{{{SYNC}}}delivered"),
        "mention": pointer(main, f"{{{SYNC}}}unread-mention"),
        "pinned": int(conversation.get("pinned", "")),
        "muted": conversation.get("mute"),
        "asks": conversation.find(f"{CLIENT}presence") is not None,
        "calls": sorted(one.get("id", "") for one in calls.iter(f"{{{JMI}}}propose")) if calls is not None else [],
    }


# ---- Inbox -----------------------------------------------------------------------------------------------------------


def of_inbox(page: Page, account: str) -> Story:
    story: Story = {}
    for entry in page.entries:
        kind = "group" if entry.last is not None and entry.last.get("type") == "groupchat" else "chat"
        told = said(entry.last, {account, entry.jid})
        assert entry.result is None or entry.result.get("id") == told["archive"]
        story[entry.jid, kind] = told | {"unread": entry.unread}
    return story


# ---- our own ---------------------------------------------------------------------------------------------------------


@dataclass
class Delta:
    """An answer to `sync`, or what a live notice has of it."""

    element: ET.Element
    account: str
    story: Story = field(init=False)
    outside: set[Name] = field(init=False)

    def __post_init__(self) -> None:
        rows = self.element.findall(f"{{{OWN}}}conversation")
        self.outside = {name_of(row) for row in rows if row.get("outside") == "true"}
        self.story = {name_of(row): of_own(row, self.account) for row in rows if row.get("outside") != "true"}
        for name, sids in self.ringing.items():
            if name in self.story:
                self.story[name]["calls"] = sorted(sids)

    @property
    def token(self) -> str:
        return self.element.get("token", "")

    @property
    def version(self) -> int:
        return int(self.element.get("version", ""))

    @property
    def more(self) -> bool:
        return self.element.get("more") == "true"

    @property
    def reset(self) -> str | None:
        return self.element.get("reset")

    @property
    def totals(self) -> dict[str, int]:
        found = self.element.find(f"{{{OWN}}}totals")
        assert found is not None
        return {key: int(value) for key, value in found.attrib.items()}

    @property
    def calls(self) -> dict[str, str]:
        """Session id → state."""
        return {one.get("id", ""): one.get("state", "") for one in self.element.findall(f"{{{OWN}}}call")}

    @property
    def ringing(self) -> dict[Name, list[str]]:
        found: dict[Name, list[str]] = {}
        for one in self.element.findall(f"{{{OWN}}}call"):
            if one.get("state") == "ringing":
                found.setdefault((one.get("jid", ""), "chat"), []).append(one.get("id", ""))
        return found


def name_of(row: ET.Element) -> Name:
    return row.get("jid", ""), row.get("kind", "")


def of_own(row: ET.Element, account: str) -> Facts:
    """A `<conversation/>`; `calls` are elements of their own and not yet in it."""
    facts: Facts = {"status": row.get("status"), "version": row.get("version")}
    if row.get("status") == "deleted":
        return facts
    until = row.get("muted-until")
    muted = FOR_EVER if row.get("muted") == "forever" else None
    return (
        facts
        | said(row.find(f"{{{OWN}}}last/{CLIENT}message"), {account, row.get("jid", "")})
        | {
            "unread": int(row.get("unread", "")),
            "mentions": int(row.get("mentions", "")),
            "read": pointer(row, f"{{{OWN}}}read"),
            "displayed": pointer(row, f"{{{OWN}}}displayed"),
            "delivered": pointer(row, f"{{{OWN}}}delivered"),
            "mention": pointer(row, f"{{{OWN}}}unread-mention"),
            "pinned": int(row.get("pinned", "")),
            "muted": muted if until is None else str(int(datetime.fromisoformat(until).timestamp())),
            "asks": row.get("requests-presence") == "true",
            "calls": [],
        }
    )


async def delta(asker: Person, token: str | None = None, **attributes: object) -> Delta:
    """Ask `sync`; keywords are its attributes (`at_least` is `at-least`)."""
    given = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
    given |= {} if token is None else {"token": token}
    text = "".join(f" {key}={quoteattr(value)}" for key, value in given.items())
    answer = await asker.iq("get", f"<sync xmlns='{OWN}'{text}/>")
    found = answer.find(f"{{{OWN}}}sync")
    assert found is not None
    return Delta(found, asker.account)


# ---- clients that keep what they were told ---------------------------------------------------------------------------


class Cache:
    """A client of one dialect: what it holds, page by page, and the place from which it goes on."""

    def __init__(self, asker: Person, most: int) -> None:
        self.asker, self.most, self.story = asker, most, Story()

    async def catch_up(self, between: Callable[[], object] = lambda: None) -> None:
        """Every page of what is new; `between` is called between two pages."""
        raise NotImplementedError

    def take(self, story: Story) -> None:
        for name, facts in story.items():
            if facts.get("status") == "deleted":
                self.story.pop(name, None)
            else:
                self.story[name] = facts


class SynchronizationCache(Cache):
    """By stamp."""

    stamp: int | None = None

    async def catch_up(self, between: Callable[[], object] = lambda: None) -> None:
        stamp, after = self.stamp, ""
        for page in itertools.count():
            attribute = "" if stamp is None else f" stamp='{stamp}'"
            rsm = f"<set xmlns='{RSM}'><max>{self.most}</max>{after}</set>"
            query = (await self.asker.iq("get", f"<query xmlns='{SYNC}'{attribute}>{rsm}</query>"))[0]
            rows = query.findall(f"{{{SYNC}}}conversation")
            self.take(dict(of_synchronization(row, self.asker.account) for row in rows))
            if not page:
                self.stamp = int(query.get("stamp", ""))
            if len(rows) < self.most:
                return
            after = f"<after>{escape(query.findtext(f'{{{RSM}}}set/{{{RSM}}}last') or '')}</after>"
            between()


class InboxCache(Cache):
    """By `after` the last entry that it was shown; of what was deleted it is not told."""

    last: str | None = None

    async def catch_up(self, between: Callable[[], object] = lambda: None) -> None:
        while True:
            page = await inbox(self.asker, most=self.most, after=self.last)
            if not page.entries:
                return
            self.last = page.last
            self.take(of_inbox(page, self.asker.account))
            between()


class OwnCache(Cache):
    """By token."""

    token: str | None = None

    async def catch_up(self, between: Callable[[], object] = lambda: None) -> None:
        ringing: dict[Name, list[str]] | None = None
        while True:
            page = await delta(self.asker, self.token, max=self.most)
            ringing = page.ringing if ringing is None or page.reset else ringing  # they are on a chain's first page
            self.story = {} if page.reset else self.story
            self.token = page.token
            self.take(page.story)
            if not page.more:
                break
            between()
        for name, facts in self.story.items():
            facts["calls"] = sorted(ringing.get(name, []))
