"""A small XMPP client for system tests: asyncio, clear text on loopback, SASL PLAIN.

It writes stanzas as text and reads them as ElementTree elements, so that a test can send exactly what it means, wrong
or not. It answers the server's IQ sets and pings with an empty result. Waiting is for a stanza, never for time.
"""

import asyncio
import itertools
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Self
from xml.sax.saxutils import quoteattr

CLIENT = "{jabber:client}"
STANZA_ERRORS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
STREAM = "{http://etherx.jabber.org/streams}"
SM = "urn:xmpp:sm:3"
CSI = "urn:xmpp:csi:0"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
CARBONS = "urn:xmpp:carbons:2"

Predicate = Callable[[ET.Element], bool]
_ids = itertools.count(1)


class StanzaError(Exception):
    """An IQ was answered with an error."""

    def __init__(self, stanza: ET.Element) -> None:
        error = stanza.find("{*}error")  # in the namespace of the stream
        self.stanza = stanza
        self.type = "" if error is None else error.get("type", "")
        names = [] if error is None else [child.tag for child in error]
        self.condition = next((n.removeprefix(STANZA_ERRORS) for n in names if n.startswith(STANZA_ERRORS)), "")
        super().__init__(f"{self.condition} ({self.type})")


class StreamClosed(Exception):
    """The connection ended."""


def show(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")


class XmlStream:
    """One XML stream: top-level elements come out as they complete, and go to whoever waits for them."""

    def __init__(self) -> None:
        self.received: list[ET.Element] = []  # all of them, oldest first
        self.bytes_in = 0
        self.stream_id = ""
        self._waiting: list[tuple[Predicate, asyncio.Future[ET.Element]]] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self.closed = False

    async def open(self, host: str, port: int, header: str) -> None:
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self.restart(header)
        self._task = asyncio.create_task(self._read())

    def restart(self, header: str) -> None:
        self._parser: Any = ET.XMLPullParser(("start", "end"))
        self._depth = 0
        self.send(header)

    def send(self, xml: str) -> None:
        self._writer.write(xml.encode())

    async def drain(self) -> None:
        await self._writer.drain()

    async def _read(self) -> None:
        root: ET.Element | None = None
        try:
            while data := await self._reader.read(65536):
                self.bytes_in += len(data)
                parser = self._parser
                parser.feed(data)
                for event, element in parser.read_events():
                    if event == "start":
                        self._depth += 1
                        if self._depth == 1:
                            root = element
                            self.stream_id = element.get("id", "")
                            self._opened.set()
                    else:
                        self._depth -= 1
                        if self._depth == 1:
                            assert root is not None
                            root.remove(element)
                            self._take(element)
                        if parser is not self._parser:
                            break
        except (OSError, ET.ParseError, asyncio.CancelledError):
            pass
        finally:
            self.closed = True
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(StreamClosed())
            self._waiting.clear()

    def _take(self, element: ET.Element) -> None:
        self.received.append(element)
        self.on_element(element)
        for waiter in list(self._waiting):
            predicate, future = waiter
            if not future.done() and predicate(element):
                self._waiting.remove(waiter)
                future.set_result(element)

    def on_element(self, element: ET.Element) -> None:
        """Called for each element before those who wait."""

    async def wait_for(self, predicate: Predicate, *, past: bool = False, timeout: float = 45) -> ET.Element:  # noqa: ASYNC109
        """The first element that fits; `past`: one that came already counts too."""
        if past:
            for element in self.received:
                if predicate(element):
                    return element
        if self.closed:
            raise StreamClosed
        future: asyncio.Future[ET.Element] = asyncio.get_running_loop().create_future()
        self._waiting.append((predicate, future))
        return await asyncio.wait_for(future, timeout)

    async def close(self) -> None:
        """Ends the stream; returns when the other side has, too."""
        if not self.closed:
            self.send("</stream:stream>")
            if self._task is not None:
                await asyncio.wait([self._task], timeout=30)
            self._writer.close()

    async def cut(self) -> None:
        """Drops the connection without a word."""
        self._writer.transport.abort()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def iq(self, kind: str, payload: str, *, to: str | None = None, iq_id: str | None = None) -> ET.Element:
        """Sends an IQ and returns the answer; raises StanzaError."""
        iq_id = iq_id or f"iq{next(_ids)}"
        answer = asyncio.ensure_future(
            self.wait_for(lambda e: _name(e) == "iq" and e.get("id") == iq_id and e.get("type") in ("result", "error"))
        )
        await asyncio.sleep(0)  # let it register
        address = "" if to is None else f" to={quoteattr(to)}"
        self.send(f"<iq type='{kind}' id={quoteattr(iq_id)}{self._sender()}{address}>{payload}</iq>")
        result = await answer
        if result.get("type") == "error":
            raise StanzaError(result)
        return result

    def _sender(self) -> str:
        return ""


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


class XmppClient(XmlStream):
    """One session of an account."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__()
        self.account, _, self.resource = jid.partition("/")
        self.user, _, self.domain = self.account.partition("@")
        self.password = password
        self.features: ET.Element
        self.sm_id: str | None = None
        self.handled = 0  # stanzas since stream management was enabled
        self.forgetful = False  # True: nothing that comes is handled, so all of it is resent on resumption

    @property
    def jid(self) -> str:
        return f"{self.account}/{self.resource}"

    @classmethod
    async def connect(
        cls,
        jid: str,
        password: str,
        port: int,
        *,
        presence: bool = True,
        carbons: bool = False,
        sm: bool = False,
        resume: "XmppClient | None" = None,
        host: str = "127.0.0.1",
    ) -> Self:
        """Logs in and binds; `sm` enables stream management, `resume` takes over a cut session of another client."""
        self = cls(jid, password)
        await self.open(host, port, self._header())
        await self.wait_for(_is(STREAM + "features"), past=True)
        secret = b64encode(f"\0{self.user}\0{password}".encode()).decode()
        answered = asyncio.ensure_future(self.wait_for(lambda e: _name(e) in ("success", "failure")))
        await asyncio.sleep(0)
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        if _name(answer := await answered) == "failure":
            raise StreamClosed(show(answer))
        offered = asyncio.ensure_future(self.wait_for(_is(STREAM + "features")))
        await asyncio.sleep(0)
        self.restart(self._header())
        self.features = await offered
        if resume is not None:
            await self._resume(resume)
            return self
        wanted = f"<resource>{self.resource}</resource>" if self.resource else ""
        bound = await self.iq("set", f"<bind xmlns='{BIND}'>{wanted}</bind>")
        self.resource = (bound.findtext(f"{{{BIND}}}bind/{{{BIND}}}jid") or "").partition("/")[2]
        if sm:
            await self.nonza(f"<enable xmlns='{SM}' resume='true'/>", f"{{{SM}}}enabled")
        if carbons:
            await self.iq("set", f"<enable xmlns='{CARBONS}'/>")
        if presence:
            await self.available()
        return self

    async def _resume(self, old: "XmppClient") -> None:
        self.resource, self.sm_id, self.handled = old.resource, old.sm_id, old.handled
        await self.nonza(
            f"<resume xmlns='{SM}' previd={quoteattr(old.sm_id or '')} h='{old.handled}'/>", f"{{{SM}}}resumed"
        )

    async def nonza(self, xml: str, answer: str) -> ET.Element:
        """Sends something that is no stanza and returns the named answer."""
        waiting = asyncio.ensure_future(self.wait_for(_is(answer)))
        await asyncio.sleep(0)
        self.send(xml)
        return await waiting

    def _header(self) -> str:
        return (
            f"<?xml version='1.0'?><stream:stream to='{self.domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )

    def on_element(self, element: ET.Element) -> None:
        if element.tag == f"{{{SM}}}enabled":
            self.sm_id, self.handled = element.get("id"), 0
        elif element.tag == f"{{{SM}}}r":
            self.send(f"<a xmlns='{SM}' h='{self.handled}'/>")
        elif element.tag.startswith(CLIENT):
            self.handled += not self.forgetful
            if _name(element) == "iq" and element.get("type") in ("get", "set"):
                address = f" to={quoteattr(element.get('from', ''))}" if element.get("from") else ""
                self.send(f"<iq type='result' id={quoteattr(element.get('id', ''))}{address}/>")

    async def ping(self) -> None:
        """Returns when the server has processed everything that was sent before."""
        await self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=self.domain)

    async def available(self, inner: str = "") -> None:
        self.send(f"<presence>{inner}</presence>")
        await self.ping()

    async def unavailable(self) -> None:
        self.send("<presence type='unavailable'/>")
        await self.ping()

    async def csi(self, state: str) -> None:
        """`active` or `inactive` (XEP-0352). It has no answer: a ping follows."""
        self.send(f"<{state} xmlns='{CSI}'/>")
        await self.ping()

    def message(self, to: str | None, inner: str, *, kind: str = "chat", message_id: str | None = None) -> str:
        """Sends a message and returns its id."""
        message_id = message_id or f"m{next(_ids)}"
        address = "" if to is None else f" to={quoteattr(to)}"
        self.send(f"<message{address} type='{kind}' id={quoteattr(message_id)}>{inner}</message>")
        return message_id

    def chat(self, to: str | None, text: str) -> str:
        return self.message(to, f"<body>{text}</body>")


def _is(tag: str) -> Predicate:
    return lambda element: element.tag == tag
