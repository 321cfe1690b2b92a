"""A tap between the component and its server: whatever the component writes passes through and is kept, stanza by
stanza, as the bytes that it was.

The component is told the tap's port in its configuration and killed once; at the end it is as it was. Decides nothing
about what goes through.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from xml.parsers.expat import ParserCreate

from tests.system.box import Box

CHUNK = 65_536


class Splitter:
    """Top-level elements of one XML stream, as the text between their first and last byte."""

    def __init__(self, kept: list[str]) -> None:
        self._kept, self._depth, self._begin = kept, 0, 0
        self._bytes, self._gone = b"", 0  # what is held, and how many bytes came before
        self._parser = ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._empty = False  # no element came inside

    def feed(self, data: bytes) -> None:
        self._bytes += data
        self._parser.Parse(data)

    def _start(self, *_: object) -> None:
        if self._depth == 1:
            self._begin = self._parser.CurrentByteIndex
        self._depth += 1
        self._empty = self._depth == 2

    def _end(self, _: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            # expat is behind an empty element, and before the end tag of another.
            begin, end = self._begin - self._gone, self._parser.CurrentByteIndex - self._gone
            if not (self._empty and self._bytes[:end].endswith(b"/>")):
                end = self._bytes.index(b">", end) + 1
            self._kept.append(self._bytes[begin:end].decode())
            self._bytes, self._gone = self._bytes[end:], self._gone + end


class Tap:
    """`stanzas` of the component, oldest first; handshakes are left out."""

    def __init__(self, port: int) -> None:
        self._port, self._written = port, list[str]()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def stanzas(self) -> list[str]:
        return [text for text in self._written if not text.startswith("<handshake")]

    async def open(self) -> int:
        """The port that the component is to connect to."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onwards = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target, splitter in (
            (reader, onwards, Splitter(self._written)),
            (there, writer, None),
        ):
            task = asyncio.create_task(self._pass(source, target, splitter))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter, splitter: Splitter | None) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if splitter is not None:
                    splitter.feed(data)
                target.write(data)
                await target.drain()
        with suppress(OSError):
            target.close()


@asynccontextmanager
async def tapped(box: Box) -> AsyncIterator[Tap]:
    """The component of the sandbox, through a tap while the context lasts."""
    file = box.data / "convsync.toml"
    before = file.read_text()
    tap = Tap(box.component_port)
    port = await tap.open()
    head, part, rest = before.partition("[component]")
    try:
        file.write_text(head + part + re.sub(r"(?m)^port = \d+$", f"port = {port}", rest, count=1))
        await box.killed("component")
        yield tap
    finally:
        file.write_text(before)
        await box.killed("component")
        await tap.close()
