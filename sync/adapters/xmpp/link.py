"""The component's one connection to its server, on slixmpp: handshake, reconnecting, back-pressure, answers to own
requests.

Stanzas go to a callback as plain elements in the order in which they came, before anything else is read; what they
mean is decided elsewhere. slixmpp does the stream and the handshake; its stanza objects, plugins and send queue are
not used: the queue is lost with the connection anyway, and a batch of events costs a tenth when nothing is matched
against it.
"""

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from slixmpp.componentxmpp import ComponentXMPP
from slixmpp.xmlstream.xmlstream import NotConnectedError

from sync.model.errors import Refused
from sync.protocol.envelope import IQ
from sync.protocol.names import COMPONENT, STANZAS, clark
from sync.protocol.serialise import serialise

log = logging.getLogger(__name__)

STANZA_TAGS = frozenset(clark(COMPONENT, name) for name in ("iq", "message", "presence"))
BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts to connect, each with up to half as much again
STOOD_SECONDS = 2.0  # a connection that stood so long was a good one: the next failure is a first one
CONNECT_SECONDS = 5.0
# Ask after 30 s of silence, three times; what we wrote is to be received within 45 s (milliseconds there).
KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 45_000))
REQUEST_SECONDS = 10.0  # for the server's answer to a request of ours
# Of what was sent and the server has not taken: from where on who says much has to wait, and for how long.
UNSENT_HIGH_BYTES, UNSENT_LOW_BYTES = 256 * 1024, 64 * 1024
# The system itself takes megabytes ahead of a server that is slow to read, and everybody's next answer waits behind.
AHEAD = ("TCP_NOTSENT_LOWAT", 128 * 1024)


class Discreet(logging.Filter):
    """slixmpp quotes what it could not parse: users' messages. Its sentence is kept, the quotation is not."""

    def filter(self, record: logging.LogRecord) -> bool:
        """The record without its arguments and without a traceback."""
        record.msg, record.args = str(record.msg).partition("%")[0].rstrip(": \n"), ()
        record.exc_info = record.exc_text = None
        return True


logging.getLogger("slixmpp.xmlstream.xmlstream").addFilter(Discreet())


class Stream(ComponentXMPP):
    """slixmpp's component stream, with stanzas handed on as elements instead of being dispatched."""

    def __init__(self, jid: str, secret: str, on_stanza: Callable[[Element], None]) -> None:
        super().__init__(jid, secret)  # type: ignore[no-untyped-call]  # slixmpp's own
        self._on_stanza = on_stanza
        self.clear = asyncio.Event()  # while little is unsent
        self.clear.set()
        self._said: list[str] = []  # since the last write

    def connection_made(self, transport: Any, send_event: bool = True) -> None:
        """Open the stream. slixmpp's own takes a connection that is encrypted from its first byte for one given up."""
        del send_event
        self.transport = transport
        transport.set_write_buffer_limits(high=UNSENT_HIGH_BYTES, low=UNSENT_LOW_BYTES)
        tuned(transport.get_extra_info("socket"))
        self.init_parser()
        self.send_raw(self.stream_header)

    def pause_writing(self) -> None:
        """More is unsent than the server takes at present."""
        self.clear.clear()

    def resume_writing(self) -> None:
        """The server has taken most of it."""
        self.clear.set()

    def say(self, text: str) -> None:
        """Write with all else that is said before the loop turns to the next reading: a write is a system call and
        wakes the server, and answers come in crowds.
        """
        if not self._said:
            asyncio.get_running_loop().call_soon(self._write)
        self._said.append(text)

    def _write(self) -> None:
        said, self._said = self._said, []
        if said and self.transport is not None:
            super().send_raw("".join(said))

    def send_raw(self, data: str | bytes) -> None:
        """At once, behind what was said before."""
        self._write()
        super().send_raw(data)

    def send(self, data: Any, use_filters: bool = True) -> None:
        """slixmpp's own stanzas (the handshake, stream errors) leave at once, not by a queue."""
        del use_filters
        self.send_raw(str(data))

    def _spawn_event(self, xml: Element) -> None:
        if xml.tag in STANZA_TAGS:
            self._on_stanza(xml)
        else:
            super()._spawn_event(xml)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS from the first byte: whom to trust, and the name that the server's certificate must bear."""

    context: ssl.SSLContext
    name: str


class BackOff:
    """How long to wait before the next attempt to connect."""

    def __init__(self, dice: Callable[[], float] = random.random) -> None:
        self._dice = dice
        self._failures = 0

    def pause(self, stood: float) -> float:
        """Seconds; the last connection stood that long (0: there was none)."""
        if stood >= STOOD_SECONDS:
            self._failures = 0
        step = BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        return step * (1 + self._dice() / 2)


class Link:
    """The `Wire` port, and the life of the connection. `on_up` and `on_down` are told of each change, once each.
    `sleep`, `monotonic` and `dice` are time and chance between connections.
    """

    def __init__(
        self,
        *,
        jid: str,
        secret: str,
        server: str,
        port: int,
        on_stanza: Callable[[Element], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        tls: Tls | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._jid, self._secret, self._server, self._port, self._tls = jid, secret, server, port, tls
        self._sleep, self._monotonic, self._back_off = sleep, monotonic, BackOff(dice)
        self._on_stanza, self._on_up, self._on_down = on_stanza, on_up, on_down
        self._stream: Stream | None = None
        self._down = asyncio.Event()
        self._waiting: dict[str, tuple[str, asyncio.Future[Element]]] = {}
        self._count = 0
        self._paused = False
        self.up = False
        self._since = 0.0  # when it came up last
        self.refused: str | None = None  # why the server does not take us, while it does not
        self._said: str | None = None  # of that, what is in the log already

    # ---- Wire ------------------------------------------------------------------------------------------------------

    def send(self, stanza: Element) -> None:
        """`Wire.send`."""
        if self.up and self._stream is not None:
            self._stream.say(serialise(stanza))

    def request(self, iq: Element) -> Awaitable[Element]:
        """`Wire.request`."""
        self._count += 1
        iq.set("id", f"{iq.get('id', '')}-{self._count}")
        answered: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        if self.up:
            self._waiting[iq.attrib["id"]] = iq.attrib["to"], answered
            self.send(iq)
        else:
            answered.set_exception(Refused("not-connected"))
        return self._answer(iq, answered)

    async def _answer(self, iq: Element, answered: asyncio.Future[Element]) -> Element:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await answered
        except TimeoutError:
            raise Refused("no-answer") from None
        finally:
            self._waiting.pop(iq.attrib["id"], None)
        if answer.get("type") != "result":
            raise Refused(condition(answer), answer)
        return answer

    async def room(self) -> None:
        """`Wire.room`."""
        if self.up and self._stream is not None:
            await self._stream.clear.wait()

    def pause(self) -> None:
        """`Wire.pause`."""
        self._paused = True
        self._read(False)

    def resume(self) -> None:
        """`Wire.resume`."""
        self._paused = False
        self._read(True)

    # ---- the connection's life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep connected until cancelled. slixmpp does not reconnect by itself."""
        try:
            while True:
                stood = 0.0
                if await self._connect():
                    await self._down.wait()
                    stood = self._monotonic() - self._since
                await self._sleep(self._back_off.pause(stood))
        finally:
            self.close()

    def close(self) -> None:
        """End the connection; what was sent leaves first."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(NotConnectedError):
                stream.send_raw("</stream:stream>")
            if stream.transport is not None:
                stream.transport.close()
            stream.clear.set()
        self._lost()

    async def _connect(self) -> bool:
        self._down.clear()
        self.refused = None
        stream = Stream(self._jid, self._secret, self._took)
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(value: bool) -> None:
            if not ready.done():
                ready.set_result(value)

        def taken(_: object) -> None:
            # At once: ejabberd's first questions may come in the same packet, and an answer that is not sent is missed.
            self._came_up()
            settle(True)

        def lost(_: object) -> None:
            settle(False)
            if self._stream is stream:
                self._lost()

        stream.add_event_handler("session_start", taken)
        stream.add_event_handler("stream_error", self._refuse)
        stream.add_event_handler("disconnected", lost)
        self._stream = stream
        try:
            # Not by stream.connect(): that one retries for ever by itself and resolves names through DNS SRV.
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                tls, name = (self._tls.context, self._tls.name) if self._tls else (None, None)
                await loop.create_connection(lambda: stream, self._server, self._port, ssl=tls, server_hostname=name)
                connected = await ready
        except (OSError, TimeoutError) as error:
            self.refused = self.refused or worded(error)
            connected = False
        if not connected:
            self._say(self.refused or "closed")
            if stream.transport is not None:
                stream.transport.abort()
            return False
        return True

    def _came_up(self) -> None:
        self.up, self._said, self._since = True, None, self._monotonic()
        log.info("connected to the server")
        self._read(not self._paused)
        self._on_up()

    def _say(self, reason: str) -> None:
        """In the log once for each reason: attempts go on for as long as the server is away."""
        if reason != self._said:
            self._said = reason
            log.warning("no connection to the server", extra={"reason": reason})

    def _refuse(self, error: Any) -> None:
        self.refused = str(error["condition"])

    def _lost(self) -> None:
        """The connection is gone: whoever waits for an answer, or for room, learns it now."""
        self._down.set()
        if self._stream is not None:
            self._stream.clear.set()
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(Refused("disconnected"))
        if self.up:
            self.up = False
            log.warning("the connection to the server is lost", extra={"reason": self.refused or "closed"})
            self._on_down()

    def _took(self, stanza: Element) -> None:
        if stanza.tag == IQ and stanza.get("type") in ("result", "error"):
            asked, future = self._waiting.get(stanza.get("id", ""), ("", None))
            # Anybody may send us an IQ with that id: only who was asked answers.
            if future is not None and stanza.get("from") == asked and not future.done():
                future.set_result(stanza)
            return
        self._on_stanza(stanza)

    def _read(self, on: bool) -> None:
        transport = self._stream.transport if self._stream is not None else None
        if transport is None:
            return
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()


def tuned(connection: Any) -> None:
    """A peer that is gone without a word is noticed, though nothing is to be said: within a minute. Little is written
    ahead of what it reads.
    """
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        *((socket.IPPROTO_TCP, name, value) for name, value in (*KEEP_ALIVE, AHEAD)),
    )
    for level, name, value in options:
        if hasattr(socket, name):  # their names are the system's own
            connection.setsockopt(level, getattr(socket, name), value)


def worded(error: Exception) -> str:
    """Why there is no connection, in words without addresses or secrets."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS at this port: {error.reason or 'refused'}"
    return type(error).__name__


def condition(answer: Element) -> str:
    """The defined condition of an error (RFC 6120 §8.3.3)."""
    for child in answer.iter():
        if child.tag.startswith("{" + STANZAS + "}") and not child.tag.endswith("}text"):
            return child.tag.rpartition("}")[2]
    return "undefined-condition"
