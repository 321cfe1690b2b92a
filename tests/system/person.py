"""A user's client for tests of the whole path: writes as people's clients do, asks as Xabber's, registers as Siskin's.

On top of `xmpp_client`, which knows the stream. It keeps what it sent and what the server acknowledged by stream
management (XEP-0198), so that a test knows what must not be lost.
"""

import itertools
import secrets
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from xml.sax.saxutils import escape, quoteattr

from tests.system.xmpp_client import CLIENT, SM, StanzaError, XmppClient

SYNC = "https://xabber.com/protocol/synchronization"
REWRITE = "https://xabber.com/protocol/rewrite"
RSM = "http://jabber.org/protocol/rsm"
MAM = "urn:xmpp:mam:2"
SID = "urn:xmpp:sid:0"
HINTS = "urn:xmpp:hints"
MARKERS = "urn:xmpp:chat-markers:0"
CORRECT = "urn:xmpp:message-correct:0"
RETRACT = "urn:xmpp:message-retract:1"
REACTIONS = "urn:xmpp:reactions:0"
RECEIPTS = "urn:xmpp:receipts"
MDS = "urn:xmpp:mds:displayed:0"
PUBSUB = "http://jabber.org/protocol/pubsub"
JMI = "urn:xmpp:jingle-message:0"
RTP = "urn:xmpp:jingle:apps:rtp:1"
PUSH = "urn:xmpp:push:0"
COMMANDS = "http://jabber.org/protocol/commands"
DATA = "jabber:x:data"
CHAT = "urn:xabber:chat"
STORE = f"<store xmlns='{HINTS}'/>"
# The component waits for what came before a question, and only then says "wait" (`ingest.freshness_seconds`, 2).
WAITED_SECONDS, PATIENCE_SECONDS = 1.9, 60

_ids = itertools.count(1)


def name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def form(fields: Mapping[str, str | Sequence[str]]) -> str:
    """A submitted data form."""
    out = ""
    for var, given in fields.items():
        values = [given] if isinstance(given, str) else given
        out += f"<field var={quoteattr(var)}>" + "".join(f"<value>{escape(v)}</value>" for v in values) + "</field>"
    return f"<x xmlns='{DATA}' type='submit'>{out}</x>"


class Conversation:
    """One `<conversation/>` of an answer or a notice, as far as tests look."""

    def __init__(self, element: ET.Element) -> None:
        self.jid, self.status = element.get("jid", ""), element.get("status", "")
        self.stamp, self.pinned, self.mute = element.get("stamp", ""), element.get("pinned"), element.get("mute")
        nodes = {node.get("node"): node for node in element}
        main = nodes.get(SYNC)
        unread = None if main is None else main.find(f"{{{SYNC}}}unread")
        self.unread = None if unread is None else int(unread.get("count", ""))
        self.read_to = None if unread is None else unread.get("after")
        self.last = None if main is None else main.find(f"{{{SYNC}}}last-message/{CLIENT}message")
        self.body = None if self.last is None else self.last.findtext(f"{CLIENT}body")
        self.retracted = self.last is not None and self.last.find(f"{{{RETRACT}}}retracted") is not None
        calls = nodes.get(JMI)
        self.calls = [] if calls is None else [propose.get("id", "") for propose in calls.iter(f"{{{JMI}}}propose")]

    @property
    def seen(self) -> tuple[object, ...]:
        """What a user would call the same conversation."""
        last_id = None if self.last is None else self.last.get("id")
        return (self.status, self.unread, self.read_to, self.body, self.retracted, last_id, self.pinned, self.calls)


class Listing:
    """The answer to a Client Synchronization query."""

    def __init__(self, iq: ET.Element) -> None:
        query = iq.find(f"{{{SYNC}}}query")
        assert query is not None
        self.stamp = int(query.get("stamp", ""))
        self.items = [Conversation(element) for element in query.findall(f"{{{SYNC}}}conversation")]
        self.first, self.last = (query.findtext(f"{{{RSM}}}set/{{{RSM}}}{end}") for end in ("first", "last"))
        self.count = int(query.findtext(f"{{{RSM}}}set/{{{RSM}}}count") or "-1")

    def of(self, jid: str) -> Conversation | None:
        return next((item for item in self.items if item.jid == jid), None)

    @property
    def jids(self) -> list[str]:
        return [item.jid for item in self.items]

    @property
    def calls(self) -> list[str]:
        return [call for item in self.items for call in item.calls]


@dataclass(frozen=True)
class Phone:
    """A registered device."""

    token: str
    voip: str | None
    node: str
    secret: str

    @property
    def tokens(self) -> set[str]:
        return {self.token} | ({self.voip} if self.voip else set())


class Person(XmppClient):
    """One session of a user. `patient`: told to wait, it asks again, as clients do; who is not hears the refusal."""

    patient = True

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.out: list[str] = []  # ids of what was sent since stream management began, in order
        self._sm = False

    @classmethod
    async def connect(cls, jid: str, password: str, port: int, *, sm: bool = False, **options: object) -> Self:
        self = await super().connect(jid, password, port, sm=False, **options)  # type: ignore[arg-type]
        if sm:
            await self.nonza(f"<enable xmlns='{SM}' resume='true'/>", f"{{{SM}}}enabled")
            self._sm = True
        return self

    def send(self, xml: str) -> None:
        if getattr(self, "_sm", False) and xml.startswith(("<message", "<iq", "<presence")):
            self.out.append(ET.fromstring(xml).get("id", "") if xml.startswith("<message") else "")  # noqa: S314
        super().send(xml)

    async def iq(self, kind: str, payload: str, *, to: str | None = None, iq_id: str | None = None) -> ET.Element:
        """As every client's; on a busy machine the component may be behind for longer than it lets a client wait."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            asked = time.monotonic()
            try:
                return await super().iq(kind, payload, to=to, iq_id=iq_id)
            except StanzaError as told:
                behind = (told.condition, told.type) == ("resource-constraint", "wait")
                now = time.monotonic()
                # What is refused at once is refused, and no sign of being behind.
                if not self.patient or not behind or now - asked < WAITED_SECONDS or now > end:
                    raise

    async def acked(self) -> set[str]:
        """The ids of the messages that the server has taken, by its own word, now."""
        answer = await self.nonza(f"<r xmlns='{SM}'/>", f"{{{SM}}}a")
        return set(self.out[: int(answer.get("h", ""))]) - {""}

    # ---- what people send ------------------------------------------------------------------------------------------

    def write(self, to: str, text: str, inner: str = "", message_id: str | None = None) -> str:
        """A message with a body; its id."""
        return self.message(to, f"<body>{escape(text)}</body>{inner}", message_id=message_id or f"w{next(_ids)}")

    def displayed(self, to: str, message_id: str) -> str:
        return self.message(to, f"<displayed xmlns='{MARKERS}' id={quoteattr(message_id)}/>{STORE}")

    def correct(self, to: str, message_id: str, text: str) -> str:
        return self.write(to, text, f"<replace xmlns='{CORRECT}' id={quoteattr(message_id)}/>")

    def retract(self, to: str, message_id: str) -> str:
        return self.message(
            to, f"<retract xmlns='{RETRACT}' id={quoteattr(message_id)}/><body>took something back</body>{STORE}"
        )

    def react(self, to: str, message_id: str, *emojis: str, kind: str = "chat") -> str:
        """With the fallback body that clients add for those that know no reactions."""
        inner = "".join(f"<reaction>{emoji}</reaction>" for emoji in emojis)
        reactions = f"<reactions xmlns='{REACTIONS}' id={quoteattr(message_id)}>{inner}</reactions>"
        return self.message(to, f"{reactions}<body>&gt; said{''.join(emojis)}</body>{STORE}", kind=kind)

    def received_it(self, to: str, message_id: str) -> str:
        """A delivery receipt."""
        return self.message(to, f"<received xmlns='{RECEIPTS}' id={quoteattr(message_id)}/>{STORE}")

    async def publish(self, node: str, item: str, payload: str) -> None:
        """Into the account's own storage."""
        inner = f"<publish node='{node}'><item id={quoteattr(item)}>{payload}</item></publish>"
        await self.iq("set", f"<pubsub xmlns='{PUBSUB}'>{inner}</pubsub>")

    async def read(self, peer: str, stanza_id: str, by: str | None = None) -> None:
        """Tells the account's other devices how far it has read (XEP-0490); the id is the room's for a room."""
        stanza = f"<stanza-id xmlns='{SID}' by='{by or self.account}' id={quoteattr(stanza_id)}/>"
        await self.publish(MDS, peer, f"<displayed xmlns='{MDS}'>{stanza}</displayed>")

    def call(self, step: str, to: str, sid: str) -> str:
        inner = f"<description xmlns='{RTP}' media='audio'/>" if step == "propose" else ""
        return self.message(to, f"<{step} xmlns='{JMI}' id={quoteattr(sid)}>{inner}</{step}>{STORE}")

    async def befriend(self, other: "Person") -> None:
        """Subscribed both ways. The server answers each pong after the presence before it."""
        for one, two in ((self, other), (other, self)):
            one.send(f"<presence to='{two.account}' type='subscribe'/>")
            await one.ping()
        for one, two in ((self, other), (other, self)):
            one.send(f"<presence to='{two.account}' type='subscribed'/>")
            await one.ping()

    # ---- what clients ask ------------------------------------------------------------------------------------------

    async def sync(
        self,
        stamp: int | str | None = None,
        *,
        most: int | None = None,
        after: str | None = None,
        before: str | None = None,
        inner: str = "",
    ) -> Listing:
        attribute = "" if stamp is None else f" stamp={quoteattr(str(stamp))}"
        page = "" if most is None else f"<max>{most}</max>"
        page += "" if after is None else f"<after>{escape(after)}</after>"
        page += "" if before is None else f"<before>{escape(before)}</before>"
        rsm = f"<set xmlns='{RSM}'>{page}</set>" if page else ""
        return Listing(await self.iq("get", f"<query xmlns='{SYNC}'{attribute}>{inner}{rsm}</query>"))

    async def pages(
        self, stamp: int | None, most: int, between: Callable[[], object] = lambda: None
    ) -> tuple[int, dict[str, Conversation]]:
        """Every page; the stamp that goes with them, and what they showed."""
        found: dict[str, Conversation] = {}
        page = first = await self.sync(stamp, most=most)
        while True:
            assert page.stamp == first.stamp
            found |= {item.jid: item for item in page.items}
            if len(page.items) < most or page.last is None:
                return first.stamp, found
            between()
            page = await self.sync(stamp, most=most, after=page.last)

    async def pages_backwards(
        self, stamp: int | None, most: int, between: Callable[[], object] = lambda: None
    ) -> tuple[int, dict[str, Conversation]]:
        """Every page, from the last one up."""
        found: dict[str, Conversation] = {}
        page = first = await self.sync(stamp, most=most, before="")
        while True:
            assert page.stamp == first.stamp
            assert not found.keys() & set(page.jids)
            found |= {item.jid: item for item in page.items}
            if len(page.items) < most or page.first is None:
                return first.stamp, found
            between()
            page = await self.sync(stamp, most=most, before=page.first)

    async def set(self, jid: str, **properties: str) -> None:
        attributes = "".join(f" {key}={quoteattr(value)}" for key, value in properties.items())
        conversation = f"<conversation jid={quoteattr(jid)} type='{CHAT}'{attributes}/>"
        await self.iq("set", f"<query xmlns='{SYNC}'>{conversation}</query>")

    async def rewrites(self, version: int, **attributes: str) -> tuple[list[ET.Element], int]:
        """The headlines that came before the answer, and its version."""
        begin = len(self.received)
        more = "".join(f" {key.replace('_', '-')}={quoteattr(value)}" for key, value in attributes.items())
        answer = await self.iq("get", f"<query xmlns='{REWRITE}' version='{version}'{more}/>")
        since = self.received[begin:]
        told = [
            child for e in since if name(e) == "message" for child in e if child.tag.startswith(f"{{{REWRITE}#notify}}")
        ]
        query = answer.find(f"{{{REWRITE}}}query")
        assert query is not None
        return told, int(query.get("version", ""))

    async def fresh(self) -> None:
        """Returns when everything that the server had taken before is committed. It is no fetch of the phone's."""
        await self.rewrites(0, less_than="0")

    async def archive(self, page: int = 200, *, of: str | None = None) -> list[tuple[str, ET.Element]]:
        """The whole archive, or a room's, oldest first: (archive id, message)."""
        found: list[tuple[str, ET.Element]] = []
        after = ""
        while True:
            query, begin = f"q{next(_ids)}", len(self.received)
            rsm = f"<set xmlns='{RSM}'><max>{page}</max>{after}</set>"
            answer = await self.iq("set", f"<query xmlns='{MAM}' queryid='{query}'>{rsm}</query>", to=of)
            for element in self.received[begin:]:
                result = element.find(f"{{{MAM}}}result")
                if result is not None and result.get("queryid") == query:
                    message = next(result.iter(f"{CLIENT}message"))
                    found.append((result.get("id", ""), message))
            del self.received[begin:]
            fin = answer.find(f"{{{MAM}}}fin")
            assert fin is not None
            if fin.get("complete") == "true":
                return found
            after = f"<after>{escape(fin.findtext(f'{{{RSM}}}set/{{{RSM}}}last') or '')}</after>"

    # ---- push ------------------------------------------------------------------------------------------------------

    async def command(self, node: str, fields: Mapping[str, str | Sequence[str]], *, to: str) -> dict[str, str]:
        """An ad-hoc command of one stage; the first value of each field of its result."""
        answer = await self.iq(
            "set", f"<command xmlns='{COMMANDS}' node='{node}' action='execute'>{form(fields)}</command>", to=to
        )
        fields_ = list(answer.iter(f"{{{DATA}}}field"))
        return {field.get("var", ""): field.findtext(f"{{{DATA}}}value") or "" for field in fields_}

    async def register(
        self, *, token: str | None = None, voip: str | bool | None = True, component: str, app: str, **more: str
    ) -> Phone:
        """`register-device`; `voip` True: a new VoIP token, None: none."""
        token = token or "a" + secrets.token_hex(32)[1:]
        second = "f" + secrets.token_hex(32)[1:] if voip is True else voip or None
        fields = {"provider": app, "device-token": token} | ({"device-second-token": second} if second else {})
        fields |= {key.replace("_", "-"): value for key, value in more.items()}
        got = await self.command("register-device", fields, to=component)
        return Phone(token, second, got["node"], got["secret"])

    async def enable(self, phone: Phone, *, component: str, secret: str | None = None) -> None:
        options = {
            "FORM_TYPE": "http://jabber.org/protocol/pubsub#publish-options",
            "secret": phone.secret if secret is None else secret,
        }
        await self.iq(
            "set", f"<enable xmlns='{PUSH}' jid='{component}' node={quoteattr(phone.node)}>{form(options)}</enable>"
        )
