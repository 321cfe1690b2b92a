"""The component's connection: reconnecting, TLS, who may answer, and what slixmpp may say of what it could not read."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from sync.adapters.xmpp.link import BACK_OFF_SECONDS, BackOff, Link, Stream, Tls
from sync.model.errors import Refused
from sync.protocol.serialise import parse, serialise
from tests.adapters.component_port import HEADER, SECRET, Port, certified, listening
from tests.ports import free_port

LIMIT = 60


class Sink(asyncio.Transport):
    """A connection that takes everything."""

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...


class Ends:
    """A link, what it was told, and a clock that moves only when the link sleeps, and only when the test lets it."""

    def __init__(self, port: int, *, secret: str = SECRET, tls: Tls | None = None, dice: float = 0.0) -> None:
        self.pauses: list[float] = []
        self.now = 0.0
        self.let = asyncio.Semaphore(0)
        self.ups: asyncio.Queue[bool] = asyncio.Queue()
        self.stanzas: asyncio.Queue[Element] = asyncio.Queue()
        self.slept = asyncio.Condition()
        self.link = Link(
            jid="sync.x",
            secret=secret,
            server="127.0.0.1",
            port=port,
            on_stanza=self.stanzas.put_nowait,
            on_up=lambda: self.ups.put_nowait(True),
            on_down=lambda: self.ups.put_nowait(False),
            tls=tls,
            sleep=self._sleep,
            monotonic=lambda: self.now,
            dice=lambda: dice,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        async with self.slept:
            self.slept.notify_all()
        await self.let.acquire()
        self.now += seconds

    async def change(self) -> bool:
        async with asyncio.timeout(LIMIT):
            return await self.ups.get()

    async def paused(self, many: int) -> None:
        """Until so many pauses have begun."""
        async with asyncio.timeout(LIMIT), self.slept:
            await self.slept.wait_for(lambda: len(self.pauses) >= many)


@asynccontextmanager
async def ends(port: int, *, secret: str = SECRET, tls: Tls | None = None, dice: float = 0.0) -> AsyncIterator[Ends]:
    it = Ends(port, secret=secret, tls=tls, dice=dice)
    running = asyncio.ensure_future(it.link.run())
    try:
        yield it
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# ---- what is said ----------------------------------------------------------------------------------------------------


class Kept(Sink):
    """A connection that remembers what was written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written.append(data)


async def test_what_is_said_in_one_turn_is_written_at_once_and_in_order() -> None:
    stream = Stream("sync.x", SECRET, lambda _: None)
    stream.transport = kept = Kept()
    for text in ("<a/>", "<b/>", "<c/>"):
        stream.say(text)
    assert kept.written == []
    await asyncio.sleep(0)
    assert kept.written == [b"<a/><b/><c/>"]
    stream.say("<d/>")
    stream.send_raw("</stream:stream>")  # nothing overtakes, and what ends the stream does not wait
    assert kept.written[1:] == [b"<d/>", b"</stream:stream>"]
    stream.say("<e/>")
    stream.transport = None
    await asyncio.sleep(0)  # the connection is lost: nobody reads it, nobody is disturbed
    assert kept.written[3:] == []


# ---- reconnecting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dice", "factor"), [(0.0, 1.0), (0.5, 1.25), (1.0, 1.5)])
def test_pauses_grow_to_a_limit_and_are_spread(dice: float, factor: float) -> None:
    back_off = BackOff(lambda: dice)
    assert [back_off.pause(0) for _ in range(8)] == [
        step * factor for step in (*BACK_OFF_SECONDS, BACK_OFF_SECONDS[-1], BACK_OFF_SECONDS[-1])
    ]


def test_only_a_connection_that_stood_begins_anew() -> None:
    back_off = BackOff(lambda: 0)
    assert [back_off.pause(stood) for stood in (0, 0, 0.5, 60, 0.5)] == [0.1, 0.2, 0.5, 0.1, 0.2]


async def test_a_server_that_is_away_is_asked_less_and_less_often_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "sync"):
        async with ends(free_port()) as it:
            for _ in range(7):
                it.let.release()
            await it.paused(8)
            assert it.pauses == [*BACK_OFF_SECONDS, 5.0, 5.0]
            assert it.link.refused == "ConnectionRefusedError"
    assert [record.getMessage() for record in caplog.records] == ["no connection to the server"]


async def test_whoever_is_let_in_and_thrown_out_at_once_does_not_hammer() -> None:
    """As two processes would that evict each other for ever."""
    port = Port(brief=True)
    async with listening(port) as number, ends(number) as it:
        for _ in range(5):
            it.let.release()
        await it.paused(6)
        assert it.pauses == list(BACK_OFF_SECONDS)
        assert port.taken == 6


async def test_a_connection_that_was_lost_after_a_while_is_made_again_soon() -> None:
    port = Port()
    async with listening(port) as number, ends(number) as it:
        for _ in range(3):
            assert await it.change() is True
            it.now += 60
            (await port.came.get()).close()
            assert await it.change() is False
            it.let.release()
        assert await it.change() is True
        assert it.pauses == [0.1, 0.1, 0.1]


async def test_a_refused_secret_is_named_and_tried_again() -> None:
    port = Port()
    async with listening(port) as number, ends(number, secret="wrong") as it:
        await it.paused(1)
        assert it.link.refused == "not-authorized"
        assert port.taken == 0


async def test_whoever_waits_for_an_answer_learns_of_the_loss_at_once() -> None:
    port = Port()
    async with listening(port) as number, ends(number) as it:
        assert await it.change()
        asking = asyncio.ensure_future(it.link.request(parse("<iq to='x' type='get' id='a'><q/></iq>")))  # type: ignore[arg-type]
        (await port.came.get()).transport.abort()
        with pytest.raises(Refused, match="disconnected"):
            await asyncio.wait_for(asking, LIMIT)
        with pytest.raises(Refused, match="not-connected"):
            await it.link.request(parse("<iq to='x' type='get' id='a'><q/></iq>"))


async def test_a_peer_that_is_gone_without_a_word_is_noticed() -> None:
    port = Port()
    async with listening(port) as number, ends(number) as it:
        assert await it.change()
        stream = it.link._stream
        assert stream is not None
        connection = stream.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000


async def test_only_who_was_asked_answers() -> None:
    port = Port()
    async with listening(port) as number, ends(number) as it:
        assert await it.change()
        writer = await port.came.get()
        asked = parse("<iq to='x' type='get' id='a'><q/></iq>")
        asking = asyncio.ensure_future(it.link.request(asked))  # type: ignore[arg-type]
        given = asked.attrib["id"]
        for sender in ("y", "eve@x", "x"):
            answer = f"<iq xmlns='jabber:component:accept' type='result' from='{sender}' to='sync.x' id='{given}'/>"
            writer.write(answer.encode())
        answer = await asyncio.wait_for(asking, LIMIT)
        assert answer.get("from") == "x"
        assert it.stanzas.empty()


async def test_what_comes_with_the_handshake_is_answered() -> None:
    """ejabberd asks at once what it is to delegate, and delegates nothing without an answer."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"to=")
        await reader.readuntil(b">")
        writer.write(HEADER.encode())
        await reader.readuntil(b"</handshake>")
        writer.write(b"<handshake/><iq type='get' id='q' from='x' to='sync.x'><query xmlns='urn:x'/></iq>")
        await heard.put(await reader.readuntil(b"/>"))
        writer.close()

    async with listening(hasty) as number:
        it = Ends(number)
        link = it.link

        def answer(stanza: Element) -> None:
            link.send(parse(f"<iq xmlns='jabber:component:accept' type='result' id='{stanza.get('id')}'/>"))  # type: ignore[arg-type]

        link._on_stanza = answer
        running = asyncio.ensure_future(link.run())
        assert b'id="q"' in await asyncio.wait_for(heard.get(), LIMIT)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_refusal_carries_what_was_said() -> None:
    port = Port()
    async with listening(port) as number, ends(number) as it:
        assert await it.change()
        writer = await port.came.get()
        asked = parse("<iq to='x' type='get' id='a'><q/></iq>")
        asking = asyncio.ensure_future(it.link.request(asked))  # type: ignore[arg-type]
        writer.write(
            f"<iq type='error' from='x' to='sync.x' id='{asked.get('id')}'><error type='cancel'>"
            "<not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><more xmlns='urn:x'/></error></iq>".encode()
        )
        with pytest.raises(Refused, match="not-acceptable") as caught:
            await asyncio.wait_for(asking, LIMIT)
        assert caught.value.answer is not None
        assert 'xmlns="urn:x"' in serialise(caught.value.answer)


# ---- room ------------------------------------------------------------------------------------------------------------

LARGE = parse(f"<message xmlns='jabber:client'><body>{'x' * 256 * 1024}</body></message>")
TIMES = 100  # more than what the system itself holds for two ends of a connection


async def waits(it: Ends) -> asyncio.Task[None]:
    """Who waits for room after much was said."""
    await it.link.room()
    for _ in range(TIMES):
        it.link.send(LARGE)
    waiting = asyncio.create_task(it.link.room())
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    return waiting


async def test_there_is_room_again_when_the_server_has_taken_what_was_said() -> None:
    port = Port(hears=asyncio.Event())
    async with listening(port) as number, ends(number) as it:
        assert await it.change()
        waiting = await waits(it)
        assert port.hears is not None
        port.hears.set()
        await asyncio.wait_for(waiting, LIMIT)


@pytest.mark.parametrize("who", ["server", "component"])
async def test_nobody_waits_for_room_on_a_connection_that_is_gone(who: str) -> None:
    async with listening(Port(hears=asyncio.Event())) as number, ends(number) as it:
        await it.link.room()  # nor on none
        assert await it.change()
        waiting = await waits(it)
        stream = it.link._stream
        assert stream is not None
        if who == "server":
            stream.transport.abort()
        else:
            it.link.close()
        await asyncio.wait_for(waiting, LIMIT)


# ---- TLS -------------------------------------------------------------------------------------------------------------


async def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    context, pem = certified(tmp_path, "xmpp.example.org")
    port = Port()
    trusted = Tls(ssl.create_default_context(cafile=pem), "xmpp.example.org")
    async with listening(port, context) as number, ends(number, tls=trusted) as it:
        assert await it.change()
        assert port.encrypted == [True]
        writer = await port.came.get()
        it.link.pause()
        writer.write(
            b"<message xmlns='jabber:component:accept' from='x'><body>" + b"a" * 100_000 + b"</body></message>"
        )
        await writer.drain()
        assert it.stanzas.empty()
        it.link.resume()
        stanza = await asyncio.wait_for(it.stanzas.get(), LIMIT)
        assert len(stanza[0].text or "") == 100_000


@pytest.mark.parametrize(
    ("trusted", "name", "words"),
    [
        (False, "xmpp.example.org", "its certificate is not trusted: self-signed certificate"),
        (True, "another.example.org", "its certificate is not trusted: Hostname mismatch"),
    ],
)
async def test_whom_we_do_not_trust_gets_no_secret(tmp_path: Path, trusted: bool, name: str, words: str) -> None:
    context, pem = certified(tmp_path, "xmpp.example.org")
    port = Port()
    tls = Tls(ssl.create_default_context(cafile=pem if trusted else None), name)
    async with listening(port, context) as number, ends(number, tls=tls) as it:
        await it.paused(1)
        assert words in (it.link.refused or "").replace("self signed", "self-signed")
        assert port.taken == 0


async def test_a_port_without_tls_is_named() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"<?xml version='1.0'?><stream:stream>")
        await writer.drain()
        writer.close()

    tls = Tls(ssl.create_default_context(), "localhost")
    async with listening(plain) as number, ends(number, tls=tls) as it:
        await it.paused(1)
        assert (it.link.refused or "").startswith("no TLS at this port: ")


# ---- the log ---------------------------------------------------------------------------------------------------------


async def test_a_stanza_that_cannot_be_parsed_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream("sync.example.org", "secret", lambda stanza: None)
    stream.init_parser()
    stream.transport = Sink()
    with caplog.at_level(logging.WARNING):
        stream.data_received(b"<stream><message><body>between us</oops>")
    assert [record.getMessage() for record in caplog.records] == ["Parse error"]
    assert "between us" not in caplog.text
