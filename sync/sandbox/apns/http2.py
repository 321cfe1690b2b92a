"""One connection of a sender to the simulated APNs: HTTP/2 in and out, and what a fault does to it.

Frames requests, hands each complete one to `Desk.decide`, and carries out the plan that comes back. It does not know
why a request is refused. GOAWAY is framed here and not by hyper-h2, which after sending one refuses to answer the
streams that the GOAWAY promised to finish (RFC 9113 §6.8).
"""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from sync.sandbox.apns.faults import Fault, FaultKind
from sync.sandbox.apns.rules import Push, Refusal, read
from sync.sandbox.apns.senders import Sender
from sync.sandbox.apns.senders import read as read_certificate

BODY_LIMIT_BYTES = 64 * 1024  # far above 5,120, so that "too large" is answered and not cut; what is beyond is not kept
_NO_ERROR = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to one request: `refusal` None is 200. `fault` changes how, or whether, that is said. `push` is the
    request, with the topic that its certificate names.
    """

    push: Push
    refusal: Refusal | None
    fault: Fault | None
    token_accepted: bool  # the provider token was good, so the connection may use many streams


class Desk(Protocol):
    """What a connection needs of the simulator."""

    max_streams: int
    initial_window: int

    def decide(self, push: Push, sender: Sender | None) -> Plan:
        """What to do with this complete request; `sender`: the certificate that was shown."""
        ...

    def deliver(self, push: Push, apns_id: str) -> None:
        """This accepted push goes to its device."""
        ...

    def answered(self, push: Push, apns_id: str, refusal: Refusal | None) -> None:
        """This answer is about to leave."""
        ...

    def opened(self, connection: "Connection") -> None:
        """A sender has connected."""
        ...

    def closed(self, connection: "Connection") -> None:
        """It is gone."""
        ...


class Connection(asyncio.Protocol):
    """asyncio's side of one connection."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._open: dict[int, tuple[list[tuple[bytes, bytes]], bytearray]] = {}
        self._delayed: dict[int, asyncio.TimerHandle] = {}
        self._bodies: dict[int, list[bytes]] = {}  # what of an answer has not left yet: a frame each
        self._sender: Sender | None = None
        self._one_stream = True
        self._going_away = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio gives to a stream protocol
        self._transport = transport
        self._desk.opened(self)
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != "h2":
            transport.close()
            return
        certificate = tls.getpeercert(binary_form=True)
        if certificate:
            self._sender, self._one_stream = read_certificate(certificate), False
        self._h2.initiate_connection()
        # After the preface, which announces hyper-h2's own values whatever was asked before.
        self._h2.update_settings(
            {
                # PUSH §2: "With token auth one stream until the first accepted request."
                SettingCodes.MAX_CONCURRENT_STREAMS: 1 if self._one_stream else self._desk.max_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: self._desk.initial_window,
            }
        )
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._delayed.values():
            timer.cancel()
        self._desk.closed(self)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
            # First of all: hyper-h2 lets nothing be sent on a stream that was reset later in the same breath.
            taken_back = {event.stream_id for event in events if isinstance(event, StreamReset)}
            for stream_id in taken_back:
                self._bodies.pop(stream_id, None)
                self._forget(stream_id)
            for event in events:
                if not (isinstance(event, RequestReceived | StreamEnded) and event.stream_id in taken_back):
                    self._happened(event)
        except ProtocolError:
            self._flush()  # hyper-h2 has framed the GOAWAY that says why
            self._transport.close()
            return
        self._flush()

    def abort(self) -> None:
        """Cut it."""
        self._transport.abort()

    def _happened(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._open[event.stream_id] = (list(event.headers), bytearray())
        elif isinstance(event, DataReceived):
            request = self._open.get(event.stream_id)
            if request is not None and len(request[1]) < BODY_LIMIT_BYTES:
                request[1].extend(event.data)
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            if event.stream_id in self._open:
                self._arrived(event.stream_id)
        elif isinstance(event, WindowUpdated):
            for stream_id in list(self._bodies):
                self._pump(stream_id)
        elif isinstance(event, ConnectionTerminated):
            self._transport.close()

    def _forget(self, stream_id: int) -> None:
        self._open.pop(stream_id, None)
        timer = self._delayed.pop(stream_id, None)
        if timer is not None:
            timer.cancel()
        self._leave()

    def _leave(self) -> None:
        """After GOAWAY the connection ends with the last answer."""
        if self._going_away and not self._open and not self._bodies:
            self._flush()
            self._transport.close()

    def _arrived(self, stream_id: int) -> None:
        headers, body = self._open[stream_id]
        plan = self._desk.decide(read(headers, bytes(body)), self._sender)
        apns_id, fault = plan.push.apns_id or str(uuid4()), plan.fault
        if plan.token_accepted and self._one_stream:
            self._one_stream = False
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._desk.max_streams})
        if plan.refusal is None and self._is_seen(stream_id, fault):
            self._desk.deliver(plan.push, apns_id)
        match fault.kind if fault is not None else None:
            case FaultKind.SILENT:
                pass
            case FaultKind.CLOSE:
                self._transport.abort()
            case FaultKind.RST_STREAM if fault is not None:
                self._h2.reset_stream(stream_id, fault.error_code)
                self._forget(stream_id)
            case FaultKind.GOAWAY if fault is not None:
                self._go_away(stream_id, fault)
            case FaultKind.SLOW if fault is not None:
                loop = asyncio.get_running_loop()
                self._delayed[stream_id] = loop.call_later(fault.seconds, self._answer_late, stream_id, apns_id, plan)
            case FaultKind.WINDOW if fault is not None and fault.bytes is not None:
                self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: fault.bytes})
                self._answer(stream_id, apns_id, plan)
            case FaultKind.MAX_STREAMS if fault is not None and fault.streams is not None:
                self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: fault.streams})
                self._answer(stream_id, apns_id, plan)
            case _:
                self._answer(stream_id, apns_id, plan)

    def _is_seen(self, stream_id: int, fault: Fault | None) -> bool:
        """Whether an accepted push reaches its device: also without an answer, unless that says "not processed"."""
        match fault.kind if fault is not None else None:
            case FaultKind.RST_STREAM:
                return False
            case FaultKind.GOAWAY if fault is not None:
                return fault.delivered and stream_id <= self._last_seen(fault)
            case FaultKind.SILENT | FaultKind.CLOSE if fault is not None:
                return fault.delivered
            case _:
                return True

    def _last_seen(self, fault: Fault) -> int:
        return self._h2.highest_inbound_stream_id if fault.last_stream_id is None else fault.last_stream_id

    def _go_away(self, stream_id: int, fault: Fault) -> None:
        """The connection ends; the request that met the fault gets no answer, and counts as seen if none is told."""
        last = self._last_seen(fault)
        said = {"reason": fault.reason, "timestamp": fault.timestamp}
        said = {name: value for name, value in said.items() if value is not None}
        debug = json.dumps(said).encode() if said else b""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=_NO_ERROR, additional_data=debug)
        self._flush()
        self._transport.write(frame.serialize())
        self._going_away = True
        for unseen in [other for other in self._open if other > last]:
            self._forget(unseen)
        self._forget(stream_id)

    def _answer_late(self, stream_id: int, apns_id: str, plan: Plan) -> None:
        self._answer(stream_id, apns_id, plan)
        self._flush()

    def _answer(self, stream_id: int, apns_id: str, plan: Plan) -> None:
        refusal = plan.refusal
        self._desk.answered(plan.push, apns_id, refusal)
        status = "200" if refusal is None else str(refusal.status)
        body = b"" if refusal is None else _body(refusal, plan.fault)
        self._h2.send_headers(stream_id, [(":status", status), ("apns-id", apns_id)], end_stream=not body)
        if body:
            split = plan.fault is not None and plan.fault.kind is FaultKind.SPLIT_BODY
            half = len(body) // 2
            self._bodies[stream_id] = [body[:half], body[half:]] if split else [body]
            self._pump(stream_id)
        self._forget(stream_id)

    def _pump(self, stream_id: int) -> None:
        """Send as much of an answer's body as the sender takes now."""
        parts = self._bodies[stream_id]
        while parts:
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            piece, rest = parts[0][:room], parts[0][room:]
            parts[:1] = [rest] if rest else []
            self._h2.send_data(stream_id, piece, end_stream=not parts)
            self._flush()
        del self._bodies[stream_id]
        self._leave()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)


def _body(refusal: Refusal, fault: Fault | None) -> bytes:
    kind = None if fault is None else fault.kind
    if kind is FaultKind.EMPTY_BODY:
        return b""
    if kind is FaultKind.NOT_JSON:
        return b"<html><title>Not the service that you wanted</title></html>"
    said: dict[str, object] = {"reason": refusal.reason} if refusal.reason else {}
    if refusal.timestamp_ms is not None:
        said["timestamp"] = refusal.timestamp_ms
    if kind is FaultKind.LONG_BODY and fault is not None:
        said["padding"] = "x" * max(0, (fault.bytes or 0) - len(json.dumps({**said, "padding": ""})))
    return json.dumps(said).encode()
