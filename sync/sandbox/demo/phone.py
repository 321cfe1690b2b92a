"""A simulated iPhone: it has two push tokens, sleeps, and when woken asks once what changed since it last knew.

It speaks what existing clients speak (docs/dialects.md): registration by ad-hoc command, XEP-0357, Client
Synchronization, Rewrite. Like an app's notification extension it sends no presence: it comes, asks and goes. Refuses to
know who woke it and what the story expects.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from sync.protocol.names import CLIENT, COMMANDS, DATA, JMI, PUBLISH_OPTIONS, PUSH, REWRITE, REWRITE_NOTIFY, SYNC, clark
from sync.sandbox.demo.session import Session, connected
from sync.sandbox.demo.story import StepFailed

ROSTER = "jabber:iq:roster"
PRESENCE = clark(CLIENT, "presence")
PAGE = 20
REWRITE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One row of the answer. `mention` is the id of the first unread message that mentions the owner; `text` is None
    when the last message has none; `calls` are the sessions that ring; `rewritten` is the version of its last edit or
    retraction.
    """

    jid: str
    unread: int
    mention: str
    text: str | None
    retracted: bool
    calls: Sequence[str]
    rewritten: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A message that was edited or withdrawn: `name` is replace, retract-message or invalidate."""

    name: str
    conversation: str
    stanza_id: str
    text: str | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """What one wake brought; in milliseconds how long the login took, and both answers together."""

    conversations: Sequence[Conversation]
    rewrites: Sequence[Rewrite]
    login: float
    answer: float

    def of(self, jid: str) -> Conversation:
        """The conversation with this peer. Raises StepFailed when the answer does not have it."""
        for conversation in self.conversations:
            if conversation.jid == jid:
                return conversation
        raise StepFailed(f"The answer does not have the conversation with {jid}.")


class Phone:
    """`stamp` and `version` are what it keeps between two wakes."""

    def __init__(self, jid: str, password: str, *, host: str, port: int, resource: str = "phone") -> None:
        self.jid = jid
        self.alert_token = "a" + secrets.token_hex(32)[1:]
        self.voip_token = "f" + secrets.token_hex(32)[1:]
        self.stamp, self.version = "0", "0"
        self._password, self._host, self._port, self._resource = password, host, port, resource

    async def set_up(self, *, component: str, app: str, contacts: Sequence[str]) -> Woken:
        """Make friends, register both tokens, enable pushes, learn the present state; then go offline."""
        began = time.monotonic()
        async with self._connected() as session:
            login = _ms(began)
            for contact in contacts:
                await _befriend(session, contact)
            await self._register(session, component, app)
            return await self._ask(session, login)

    async def wake(self) -> Woken:
        """Connect, ask for what is new, and go."""
        began = time.monotonic()
        async with self._connected() as session:
            return await self._ask(session, _ms(began))

    def _connected(self) -> AbstractAsyncContextManager[Session]:
        return connected(self.jid, self._password, host=self._host, port=self._port, resource=self._resource)

    async def _register(self, session: Session, component: str, app: str) -> None:
        fields = {"provider": app, "device-token": self.alert_token, "device-second-token": self.voip_token}
        answer = await session.iq(
            "set",
            f"<command xmlns='{COMMANDS}' node='register-device' action='execute'>{_form(fields)}</command>",
            to=component,
        )
        given = {
            field.get("var"): field.findtext(clark(DATA, "value")) or "" for field in answer.iter(clark(DATA, "field"))
        }
        options = _form({"FORM_TYPE": PUBLISH_OPTIONS, "secret": given.get("secret", "")})
        node = quoteattr(given.get("node", ""))
        await session.iq("set", f"<enable xmlns='{PUSH}' jid={quoteattr(component)} node={node}>{options}</enable>")

    async def _ask(self, session: Session, login: float) -> Woken:
        began = time.monotonic()
        found: list[Conversation] = []
        stamp, after = self.stamp, ""
        while True:
            page = await session.iq(
                "get",
                f"<query xmlns='{SYNC}' stamp={quoteattr(self.stamp)}>"
                f"<set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{after}</set></query>",
            )
            rows = list(page.iter(clark(SYNC, "conversation")))
            found += [_conversation(row) for row in rows]
            stamp = _attribute(page, clark(SYNC, "query"), "stamp")
            if len(rows) < PAGE:
                break
            after = f"<after>{escape(page.findtext('.//{*}last') or '')}</after>"
        rewrites = await self._ask_rewrites(session, newest=max((row.rewritten for row in found), default=0))
        self.stamp = stamp
        return Woken(conversations=found, rewrites=rewrites, login=login, answer=_ms(began))

    async def _ask_rewrites(self, session: Session, *, newest: int) -> list[Rewrite]:
        """What was edited since last time. `newest`, from the answer before, says when all of it is there: a phone that
        is about to leave does not rely on the headlines coming before the result, as they should.
        """
        since = int(self.version)
        answer = await session.iq("get", f"<query xmlns='{REWRITE}' version='{since}'/>")
        found = _rewrites(session.messages)
        while newest > max((rewrite.version for rewrite in found), default=since):
            try:
                async with asyncio.timeout(REWRITE_SECONDS):
                    found += _rewrites([await session.until(lambda stanza: bool(_rewrites([stanza])))])
            except TimeoutError:
                raise StepFailed(f"The edit of version {newest} was not told, only its version.") from None
        self.version = _attribute(answer, clark(REWRITE, "query"), "version")
        return found


async def _befriend(session: Session, contact: str) -> None:
    """Subscriptions both ways, which the contact grants: a call from a stranger would not ring."""
    roster = await session.iq("get", f"<query xmlns='{ROSTER}'/>")
    if _subscribed(roster, contact):
        return

    def asks(stanza: Element) -> bool:
        sender = stanza.get("from", "").partition("/")[0]
        return stanza.tag == PRESENCE and stanza.get("type") == "subscribe" and sender == contact

    session.send(f"<presence/><presence type='subscribe' to={quoteattr(contact)}/>")
    await session.until(asks)
    session.send(f"<presence type='subscribed' to={quoteattr(contact)}/>")
    await session.until(lambda stanza: _subscribed(stanza, contact))
    session.send("<presence type='unavailable'/>")


def _subscribed(stanza: Element, contact: str) -> bool:
    items = stanza.iter(clark(ROSTER, "item"))
    return any(item.get("jid") == contact and item.get("subscription") == "both" for item in items)


def _conversation(row: Element) -> Conversation:
    unread = row.find(f".//{clark(SYNC, 'unread')}")
    last = row.find(f".//{clark(SYNC, 'last-message')}")
    return Conversation(
        jid=row.get("jid", ""),
        unread=int(unread.get("count", "0")) if unread is not None else 0,
        mention=_attribute(row, f".//{clark(SYNC, 'unread-mention')}", "id"),
        text=None if last is None else last.findtext(".//{*}body"),
        retracted=last is not None and last.find(".//{*}retracted") is not None,
        rewritten=int(_attribute(row, f".//{clark(REWRITE, 'retract')}", "version") or 0),
        calls=[propose.get("id", "") for propose in row.iter(clark(JMI, "propose"))],
    )


def _rewrites(messages: Sequence[Element]) -> list[Rewrite]:
    notify = f"{{{REWRITE_NOTIFY}}}"
    return [_rewrite(child) for message in messages for child in message if child.tag.startswith(notify)]


def _rewrite(child: Element) -> Rewrite:
    return Rewrite(
        name=child.tag.rpartition("}")[2],
        conversation=child.get("conversation", ""),
        stanza_id=child.get("id", ""),
        text=child.findtext(".//{*}body"),
        version=int(child.get("version", "0")),
    )


def _form(fields: dict[str, str]) -> str:
    inner = "".join(
        f"<field var={quoteattr(name)}><value>{escape(value)}</value></field>" for name, value in fields.items()
    )
    return f"<x xmlns='{DATA}' type='submit'>{inner}</x>"


def _attribute(stanza: Element, tag: str, name: str) -> str:
    found = stanza.find(tag)
    return "" if found is None else found.get(name, "")


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000
