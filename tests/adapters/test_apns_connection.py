"""One APNs connection, fed by hand: what a real server could only do by chance."""

import asyncio
import logging
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from sync.adapters.apns.connection import Connection
from sync.adapters.apns.exchange import Exchange
from sync.adapters.apns.request import Notification
from sync.model.push import PushOutcome, Verdict
from tests.contract.apns_server import APP, alert


class Wire(asyncio.Transport):
    """A transport that keeps what is written; it says that ALPN chose h2. Closed twice it cannot be aborted, as with
    the TLS transport of Python 3.11.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed, self.aborted, self.lame = bytearray(), False, False, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self

    def selected_alpn_protocol(self) -> str:
        return "h2"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed, self.lame = True, self.closed

    def abort(self) -> None:
        if self.lame:
            raise AttributeError
        self.closed = self.aborted = True


class Pair:
    """A connection and hyper-h2 as its server."""

    def __init__(self) -> None:
        self.wire, self.server = Wire(), H2Connection(H2Configuration(client_side=False))
        self.connection = Connection(lambda _: None, ping_seconds=60, pong_seconds=5)
        self.connection.connection_made(self.wire)
        self.server.initiate_connection()
        self.streams: list[int] = []

    def send(self) -> Exchange:
        notification = Notification(alert(), APP)
        future = asyncio.get_running_loop().create_future()
        exchange = Exchange(notification.headers("localhost", "jwt"), notification.body, future)
        self.connection.start(exchange)
        return exchange

    async def exchange_bytes(self) -> None:
        await asyncio.sleep(0)  # the connection writes once in a turn of the loop
        data, self.wire.written = bytes(self.wire.written), bytearray()
        for event in self.server.receive_data(data):
            if isinstance(event, RequestReceived):
                self.streams.append(event.stream_id)
        self.connection.data_received(self.server.data_to_send())

    async def answer(self, status: int, body: bytes = b"", *, end: bool = True) -> None:
        stream_id = self.streams.pop(0)
        self.server.send_headers(stream_id, [(":status", str(status))], end_stream=end and not body)
        if body:
            self.server.send_data(stream_id, body, end_stream=end)
        await self.exchange_bytes()


@pytest.fixture
async def pair() -> Pair:
    return Pair()


async def test_there_is_one_stream_before_the_server_has_said_anything(pair: Pair) -> None:
    assert pair.connection.has_room()
    pair.send()
    assert not pair.connection.has_room()


@pytest.mark.parametrize(
    ("status", "body", "room"),
    [(200, b"", True), (400, b'{"reason":"BadDeviceToken"}', True), (403, b'{"reason":"ExpiredProviderToken"}', False)],
)
async def test_any_answer_but_403_shows_that_the_provider_token_was_accepted(
    pair: Pair, status: int, body: bytes, room: bool
) -> None:
    pair.send()
    await pair.exchange_bytes()
    await pair.answer(status, body)
    pair.send()
    assert pair.connection.has_room() is room


async def test_200_is_told_before_the_stream_ends_but_keeps_its_place(pair: Pair) -> None:
    exchange = pair.send()
    await pair.exchange_bytes()
    await pair.answer(200, end=False)
    assert exchange.future.result().verdict is Verdict.ACCEPTED
    assert pair.connection.in_flight == 1
    pair.connection.abandon(exchange)
    assert (pair.connection.in_flight, pair.wire.closed) == (0, True)


async def test_an_answer_before_the_body_has_left_frees_the_stream_on_both_sides(pair: Pair) -> None:
    await pair.exchange_bytes()
    pair.send()
    await pair.exchange_bytes()
    await pair.answer(200)
    notification = Notification(alert(payload={"f": "x" * 4000}), APP)
    exchanges = [
        Exchange(
            notification.headers("localhost", "jwt"), notification.body, asyncio.get_running_loop().create_future()
        )
        for _ in range(20)  # 80 kB: the connection's window of 65,535 bytes is too small for the last ones
    ]
    for exchange in exchanges:
        pair.connection.start(exchange)
    await pair.exchange_bytes()
    assert not exchanges[-1].left
    pair.streams = pair.streams[-1:]
    await pair.answer(413, b'{"reason":"PayloadTooLarge"}')
    assert exchanges[-1].future.result().verdict is Verdict.TOO_LARGE
    assert pair.connection._h2.open_outbound_streams == pair.connection.in_flight == 19


async def test_an_answer_after_goaway_still_counts(pair: Pair) -> None:
    exchange = pair.send()
    await pair.exchange_bytes()
    goaway = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + (1).to_bytes(4) + (0).to_bytes(4)  # last stream 1, NO_ERROR
    pair.server.send_headers(1, [(":status", "200")], end_stream=True)
    pair.connection.data_received(goaway + pair.server.data_to_send())
    assert exchange.future.result().verdict is Verdict.ACCEPTED
    assert pair.wire.closed


async def test_an_answer_without_end_is_cut_short(pair: Pair) -> None:
    exchange = pair.send()
    await pair.exchange_bytes()
    pair.server.send_headers(1, [(":status", "503")])
    sent = 0
    while not exchange.done and sent < 1_000_000:
        pair.server.send_data(1, b"x" * 1000)
        sent += 1000
        await pair.exchange_bytes()
    assert exchange.future.result() == PushOutcome(verdict=Verdict.RETRY, status=503)
    assert sent <= 6000
    assert pair.connection.in_flight == 0


async def test_headers_without_end_are_no_answer(pair: Pair) -> None:
    exchange = pair.send()
    await pair.exchange_bytes()
    pair.server.send_headers(1, [(":status", "200"), *((f"x-{n}", "y" * 1000) for n in range(200))], end_stream=True)
    await pair.exchange_bytes()
    pair.connection.connection_lost(None)
    assert exchange.future.result().verdict is Verdict.UNCERTAIN
    assert pair.wire.closed


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b'{"reason":"Shutdown"}', PushOutcome(verdict=Verdict.NOT_SENT, reason="Shutdown")),
        (b'{"reason":"BadCertificate"}', PushOutcome(verdict=Verdict.CREDENTIALS, reason="BadCertificate")),
        (b'{"reason":"a secret!"}', PushOutcome(verdict=Verdict.NOT_SENT)),
        (b"\xff" * 4000, PushOutcome(verdict=Verdict.NOT_SENT)),
        (b"[" * 4000, PushOutcome(verdict=Verdict.NOT_SENT)),
        (b"", PushOutcome(verdict=Verdict.NOT_SENT)),
    ],
)
async def test_what_goaway_says(
    pair: Pair, said: bytes, outcome: PushOutcome, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    exchange = pair.send()
    await pair.exchange_bytes()
    head = (8 + len(said)).to_bytes(3) + b"\x07\x00" + (0).to_bytes(4)
    pair.connection.data_received(head + (0).to_bytes(4) + (0).to_bytes(4) + said)
    assert exchange.future.result() == outcome
    assert "secret" not in caplog.text


async def test_what_is_not_http2_ends_the_connection_and_leaves_pushes_uncertain(pair: Pair) -> None:
    exchange = pair.send()
    await pair.exchange_bytes()
    pair.connection.data_received(bytes(64))  # DATA frames of stream 0, which there cannot be
    assert pair.wire.closed
    pair.connection.connection_lost(None)
    assert exchange.future.result().verdict is Verdict.UNCERTAIN


async def test_nothing_is_sent_between_broken_http2_and_the_end_of_the_connection(pair: Pair) -> None:
    """One turn of the loop lies between them: what was sent then never got an outcome."""
    waiting = pair.send()
    await pair.exchange_bytes()
    await pair.answer(200)
    late = pair.send()
    await pair.exchange_bytes()
    pair.connection.data_received(b"\x00\x00\x04\x08" + bytes(9))  # a window update by nothing
    assert not pair.connection.usable
    assert not pair.connection.has_room()
    pair.connection.abandon(late)  # its time may be up in the same turn
    assert (waiting.future.result().verdict, late.future.result().verdict) == (Verdict.ACCEPTED, Verdict.UNCERTAIN)


async def test_what_was_closed_and_does_not_go_is_cut(pair: Pair) -> None:
    """The far side may never answer the end of TLS; more may come from it, and the line may close it once more."""
    pair.connection.retire("one")
    await pair.exchange_bytes()
    pair.connection.retire("two")
    await pair.connection.gone(0)
    assert pair.wire.aborted
