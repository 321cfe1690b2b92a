"""One connection of the simulated phone to its XMPP server, as bare as XMPP can be: clear text on loopback, SASL PLAIN.

Stanzas are written as text and read as elements, one after the other: whoever asks reads until the answer. Pings and
live notices of the server are answered on the way, messages are kept. Refuses to know what is asked.
"""

import asyncio
import itertools
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from xml.etree.ElementTree import Element, XMLPullParser
from xml.sax.saxutils import quoteattr

from sync.protocol.names import CLIENT, STANZAS, clark, local, namespace
from sync.sandbox.demo.story import StepFailed

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
STREAMS = "http://etherx.jabber.org/streams"
MESSAGE, IQ = clark(CLIENT, "message"), clark(CLIENT, "iq")


class Session:
    """A stream. `messages` are those that came and were not asked for, oldest first."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, domain: str) -> None:
        self.messages: list[Element] = []
        self._reader, self._writer, self._domain = reader, writer, domain
        self._ready: deque[Element] = deque()
        self._ids = itertools.count(1)
        self._open()

    def send(self, xml: str) -> None:
        self._writer.write(xml.encode())

    async def iq(self, kind: str, payload: str, *, to: str | None = None) -> Element:
        """Ask; the answer. Raises StepFailed when it is an error."""
        name = f"p{next(self._ids)}"
        address = f" to={quoteattr(to)}" if to else ""
        self.send(f"<iq type={quoteattr(kind)} id='{name}'{address}>{payload}</iq>")
        answer = await self.until(lambda found: found.tag == IQ and found.get("id") == name)
        if answer.get("type") == "error":
            raise StepFailed(f"The server refused {_first_tag(payload)}: {_condition(answer)}.")
        return answer

    async def until(self, fits: Callable[[Element], bool]) -> Element:
        """Read until an element fits, and return it."""
        while True:
            element = await self._next()
            if fits(element):
                return element
            if element.tag == MESSAGE:
                self.messages.append(element)
            elif element.tag == IQ and element.get("type") in ("get", "set"):
                sender = f" to={quoteattr(element.get('from', ''))}" if element.get("from") else ""
                self.send(f"<iq type='result' id={quoteattr(element.get('id', ''))}{sender}/>")

    async def log_in(self, user: str, password: str, resource: str) -> None:
        await self.until(lambda found: found.tag == clark(STREAMS, "features"))
        secret = b64encode(f"\0{user}\0{password}".encode()).decode()
        self.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>")
        answer = await self.until(lambda found: namespace(found.tag) == SASL)
        if local(answer.tag) != "success":
            raise StepFailed(f"The server did not let {user} in: {_condition(answer)}.")
        self._open()
        await self.until(lambda found: found.tag == clark(STREAMS, "features"))
        await self.iq("set", f"<bind xmlns='{BIND}'><resource>{resource}</resource></bind>")

    async def close(self) -> None:
        """End the stream and wait until the server has done so too: it then knows that the phone is gone."""
        self.send("</stream:stream>")
        async with asyncio.timeout(5):
            while await self._reader.read(65536):
                pass

    def abort(self) -> None:
        self._writer.transport.abort()

    def _open(self) -> None:
        self._parser: Any = XMLPullParser(("start", "end"))
        self._depth, self._root = 0, Element("none")
        self.send(
            f"<?xml version='1.0'?><stream:stream to={quoteattr(self._domain)} version='1.0' xmlns='{CLIENT}' "
            f"xmlns:stream='{STREAMS}'>"
        )

    async def _next(self) -> Element:
        while not self._ready:
            data = await self._reader.read(65536)
            if not data:
                raise StepFailed("The server closed the phone's connection.")
            self._parser.feed(data)
            # An expat that puts off what it has not wholly seen (2.6 and later) is told not to.
            if flush := getattr(self._parser, "flush", None):
                flush()
            self._take()
        return self._ready.popleft()

    def _take(self) -> None:
        """Children of the root are what is exchanged; each is complete when it ends."""
        for event in self._parser.read_events():
            element = event[1]
            if event[0] == "start":
                self._depth += 1
                if self._depth == 1:
                    self._root = element
            else:
                self._depth -= 1
                if self._depth == 1:
                    self._root.remove(element)
                    self._ready.append(element)


@asynccontextmanager
async def connected(jid: str, password: str, *, host: str, port: int, resource: str) -> AsyncIterator[Session]:
    """A session that is logged in; no presence is sent. Closed properly when all went well, else cut."""
    user, _, domain = jid.partition("@")
    reader, writer = await asyncio.open_connection(host, port)
    session = Session(reader, writer, domain)
    try:
        await session.log_in(user, password, resource)
        yield session
        await session.close()
    finally:
        session.abort()


def _condition(answer: Element) -> str:
    names = [local(child.tag) for child in answer.iter() if namespace(child.tag) in (STANZAS, SASL)]
    return next((name for name in names if name not in ("text", "failure")), "no condition given")


def _first_tag(payload: str) -> str:
    return payload.partition(">")[0].rstrip("/") + ">"
