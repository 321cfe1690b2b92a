"""A sender for tests of the simulator: hyper-h2 over asyncio, which shows every frame that a finished client hides."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)

from tests.contract.apns_server import APP

HELLO: dict[str, Any] = {"aps": {"alert": "hello"}}


@dataclass
class Answer:
    """What came on one stream; `frames` are the sizes of its DATA frames."""

    status: int = 0
    body: bytes = b""
    frames: list[int] = field(default_factory=list)
    reset: int | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reason(self) -> Any:
        return json.loads(self.body)["reason"] if self.body else None


class Sender(asyncio.Protocol):
    def __init__(self, authorization: str | None) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.answers: dict[int, Answer] = {}
        self.goaway: ConnectionTerminated | None = None
        self.closed = asyncio.Event()
        self.heard = asyncio.Event()
        self._authorization = authorization
        self._unsent: dict[int, bytes] = {}
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._happened(event)
        self._pump()
        self.heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.heard.set()
        for answer in self.answers.values():
            answer.done.set()

    def _happened(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
        if isinstance(event, ResponseReceived):
            self.answers[event.stream_id].status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            answer = self.answers[event.stream_id]
            answer.body += event.data
            answer.frames.append(len(event.data))
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamReset):
            self.answers[event.stream_id].reset = int(event.error_code)
            self.answers[event.stream_id].done.set()
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].done.set()
        elif isinstance(event, WindowUpdated):
            self._pump()

    def _pump(self) -> None:
        for stream_id, body in list(self._unsent.items()):
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            rest = body[max(0, room) :]
            if room > 0:
                self.h2.send_data(stream_id, body[:room], end_stream=not rest)
            self._unsent[stream_id] = rest
            if not rest:
                del self._unsent[stream_id]
        self.flush()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def begin(self, token: str, *, payload: Any = None, headers: Mapping[str, str | None] | None = None) -> int:
        """Send a push, of type alert unless `headers` say otherwise; the stream's number."""
        stream_id = self.h2.get_next_available_stream_id()
        fields: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "localhost",
            ":path": f"/3/device/{token}",
            "authorization": self._authorization,
            "apns-topic": APP,
            "apns-push-type": "alert",
            **(headers or {}),
        }
        self.answers[stream_id] = Answer()
        self.h2.send_headers(stream_id, [(name, value) for name, value in fields.items() if value is not None])
        self._unsent[stream_id] = json.dumps(HELLO if payload is None else payload).encode()
        self._pump()
        return stream_id

    async def push(self, token: str, *, payload: Any = None, headers: Mapping[str, str | None] | None = None) -> Answer:
        """Send a push and wait for the end of its stream, or of the connection."""
        return await self.answer(self.begin(token, payload=payload, headers=headers))

    async def answer(self, stream_id: int) -> Answer:
        async with asyncio.timeout(60):
            await self.answers[stream_id].done.wait()
        return self.answers[stream_id]

    async def allowed(self, streams: int) -> None:
        """Wait until the server takes that many streams at once."""
        async with asyncio.timeout(60):
            while self.h2.remote_settings.max_concurrent_streams != streams:
                self.heard.clear()
                await self.heard.wait()


@asynccontextmanager
async def sender(
    port: int, ca: Path, *, authorization: str | None = None, certificate: Path | None = None
) -> AsyncIterator[Sender]:
    """A connection to the simulator at this port; `authorization` and `certificate` as far as they are given."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    _, connected = await loop.create_connection(lambda: Sender(authorization), "127.0.0.1", port, ssl=context)
    try:
        yield connected
    finally:
        connected.transport.abort()
        await connected.closed.wait()
