"""One HTTP/2 connection to APNs, in place of aioapns' connection class.

It decides which stream a push gets and what the end of a stream or of the connection means for it. When to connect,
and what waits for a free stream, is the line's. Numbers of sections are RFC 9113's. aioapns' own class (4.0) offers
no ALPN, ignores RST_STREAM and the last stream id of GOAWAY, leaks streams and windows, and closes after 10 s idle;
none of that is here.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame

from sync.adapters.apns.client_certificate import certificate_refused
from sync.adapters.apns.exchange import Exchange
from sync.protocol.apns import read_answer, row

logger = logging.getLogger(__name__)

# Far below 2^31 - 1, where ids end (§5.1.1), so that no request ever meets the end.
_LAST_STREAM_ID = 2**30
_PING = b"convsync"


class _Http2(H2Connection):
    """hyper-h2 takes a connection for closed as soon as GOAWAY comes; §6.8 lets streams up to its last id finish."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data
        return [], [event]


class Connection(asyncio.Protocol):
    """`changed` is called whenever this connection may have room again, or never will. `trusted`: we are known by a
    certificate, so there is no provider token to be accepted first.
    """

    def __init__(
        self,
        changed: Callable[["Connection"], None],
        *,
        ping_seconds: float,
        pong_seconds: float,
        trusted: bool = False,
    ) -> None:
        self._changed, self._ping_seconds, self._pong_seconds = changed, ping_seconds, pong_seconds
        self._loop = asyncio.get_running_loop()
        self._h2 = _Http2(H2Configuration(client_side=True, header_encoding=None))
        self._streams: dict[int, Exchange] = {}
        self._transport: asyncio.Transport | None = None
        self._flush_asked = self._blocked = self._retired = self._broken = False
        # PUSH §2: "With token auth one stream until the first accepted request". Any answer but 403 means that the
        # token was accepted, whatever became of the push.
        self._trusted = trusted
        self._clock: asyncio.TimerHandle | None = None
        self.proven = False  # the server has answered something: it is worth connecting again at once
        self.goaways = 0
        self.reason: str | None = None  # why the server ended it, in its words or TLS's
        self.lost: asyncio.Future[None] = self._loop.create_future()  # done once nothing more can happen here

    # What the line asks.

    @property
    def usable(self) -> bool:
        """Whether new pushes may go here, now or after others have been answered."""
        return self._transport is not None and not self._retired

    @property
    def in_flight(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def has_room(self) -> bool:
        """Whether one more push may be sent at once."""
        limit = self._h2.remote_settings.max_concurrent_streams if self._trusted else 1
        return self.usable and not self._blocked and len(self._streams) < limit

    def start(self, exchange: Exchange) -> None:
        """Send a push; only after `has_room`."""
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream_id, exchange.headers)
        self._streams[stream_id] = exchange
        exchange.give_up = self.abandon
        self._send_body(stream_id, exchange)
        if stream_id >= _LAST_STREAM_ID:
            self.retire("stream ids used up")

    def abandon(self, exchange: Exchange) -> None:
        """No answer in time: give the stream up, and use this connection for nothing new, since it may be dead."""
        exchange.cut()
        for stream_id, other in self._streams.items():
            if other is exchange:
                del self._streams[stream_id]
                if not self._broken:
                    self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
                break
        self._flush_soon()
        self.retire("no answer in time")

    def retire(self, why: str) -> None:
        """Take no new pushes; close when those in flight are answered."""
        if not self._retired:
            self._retired = True
            logger.info("apns connection retired: %s (in flight: %d)", why, len(self._streams))
            self._changed(self)
        self._close_when_empty()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def gone(self, seconds: float) -> None:
        """Wait until it is closed, so long at most; then cut it."""
        await asyncio.wait({self.lost}, timeout=seconds)
        self.abort()
        await asyncio.wait({self.lost}, timeout=1.0)

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio gives to a stream protocol
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != "h2":
            logger.warning("apns server does not speak HTTP/2")
            transport.abort()
            return
        self._transport = transport
        self._h2.initiate_connection()
        self._flush()
        self._clock = self._loop.call_later(self._ping_seconds, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._retired = None, True
        if self._clock is not None:
            self._clock.cancel()
        lost, self._streams = self._streams, {}
        if not self.proven and certificate_refused(exc):
            self.reason = "BadCertificate"  # TLS 1.3 tells it after our first request has left, and before it is read
            for exchange in lost.values():
                exchange.refused(self.reason)
        for exchange in lost.values():
            exchange.cut()
        if not self.lost.done():
            self.lost.set_result(None)
        self._changed(self)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._changed(self)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as wrong:
            logger.warning("apns server broke HTTP/2: %s", type(wrong).__name__)
            # For hyper-h2 it is closed now; asyncio says so a turn of the loop later, and nothing may go in between.
            self._broken = self._retired = True
            self._flush()
            self.abort()
            return
        for event in events:
            self._happened(event)
        self._flush()
        if events:
            self._changed(self)
        self._close_when_empty()

    # What HTTP/2 tells.

    def _happened(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self._status_came(event)
            case DataReceived():
                # Credit goes back for every byte, whoever it was for: windows must not run dry.
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                exchange = self._streams.get(event.stream_id)
                if exchange is not None and not exchange.receive(event.data):
                    self._drop(event.stream_id)
            case StreamEnded():
                self._ended(event.stream_id)
            case StreamReset():
                self._reset(event)
            case ConnectionTerminated():
                self._going_away(event)
            case WindowUpdated() | RemoteSettingsChanged():
                for stream_id, exchange in list(self._streams.items()):
                    self._send_body(stream_id, exchange)
            case PingAckReceived():
                self.proven = True
                self._again(self._ping_seconds, self._ping)
            case _:
                pass  # SETTINGS acknowledgements, priorities, informational answers: nothing follows from them

    def _status_came(self, event: ResponseReceived) -> None:
        exchange = self._streams.get(event.stream_id)
        if exchange is None:
            return
        status = dict(event.headers).get(b":status", b"")
        exchange.status = int(status) if status.isdigit() else 0
        if exchange.status == 200:
            # Accepted, whatever may become of the rest of the stream. The stream stays counted until it ends.
            self.proven = self._trusted = True
            exchange.accepted()

    def _ended(self, stream_id: int) -> None:
        exchange = self._streams.pop(stream_id, None)
        if exchange is None:
            return
        if not exchange.left:  # answered before we were done: our half of the stream is still open
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        if exchange.status is None:  # an end without a beginning: hyper-h2 lets none through
            exchange.cut()
            return
        self.proven = True
        result = exchange.answered()
        if exchange.status != 403:
            self._trusted = True
        if row(exchange.status, result.reason).reconnect:
            self.retire(result.reason or str(exchange.status))

    def _drop(self, stream_id: int) -> None:
        """An answer without an end: its status decides, and the rest need not come."""
        exchange = self._streams.pop(stream_id)
        self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        exchange.cut()

    def _reset(self, event: StreamReset) -> None:
        exchange = self._streams.pop(event.stream_id, None)
        if exchange is None:
            return
        # §8.7: REFUSED_STREAM "prior to any processing having occurred"; no other code promises that. Where it is
        # hyper-h2 that did not like the answer, the push may well have been taken.
        if event.remote_reset and event.error_code == ErrorCodes.REFUSED_STREAM:
            exchange.refused()
        else:
            exchange.cut()

    def _going_away(self, event: ConnectionTerminated) -> None:
        """§6.8: streams above the last id were not processed; those up to it may still be answered."""
        self.goaways += 1
        last = event.last_stream_id or 0
        self.reason, _ = read_answer(event.additional_data or b"")
        for stream_id in [open_id for open_id in self._streams if open_id > last]:
            self._streams.pop(stream_id).refused(self.reason)
        logger.info("apns sent GOAWAY: code=%s last=%d reason=%s", int(event.error_code or 0), last, self.reason)
        self.retire("GOAWAY")

    # What goes out.

    def _send_body(self, stream_id: int, exchange: Exchange) -> None:
        """As much as the windows allow; the rest follows when they open."""
        while not exchange.left:
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if room <= 0 and exchange.rest:
                break
            piece, exchange.rest = exchange.rest[:room], exchange.rest[room:]
            exchange.left = not exchange.rest
            self._h2.send_data(stream_id, bytes(piece), end_stream=exchange.left)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Once per turn of the loop, so that pushes that start together share a TLS record and a system call."""
        if not self._flush_asked:
            self._flush_asked = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_asked = False
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close_when_empty(self) -> None:
        if self._retired and not self._streams and self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.close()  # once: asyncio's TLS transport, closed twice, cannot be aborted any more

    # Whether anybody is there.

    def _ping(self) -> None:
        self._h2.ping(_PING)
        self._flush()
        self._again(self._pong_seconds, self._no_pong)

    def _no_pong(self) -> None:
        logger.warning("apns connection is dead: no answer to PING")
        self.abort()

    def _again(self, seconds: float, what: Callable[[], None]) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self._loop.call_later(seconds, what)
