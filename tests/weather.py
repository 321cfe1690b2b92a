"""Network weather: a relay in front of a real server, which a test can cut and mend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Passes bytes on, between its own port and the server's."""

    def __init__(self, port: int) -> None:
        self._to, self.port, self.accepted = port, 0, 0
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()
        self._held = asyncio.Event()
        self._held.set()

    async def mend(self) -> None:
        """Connections are taken again."""
        self._held.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Every connection ends, no new one is taken."""
        self._held.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        for stream in tuple(self._streams):
            stream.transport.abort()
        self._streams.clear()

    def hold(self) -> None:
        """Connections stay and are taken, but nothing arrives."""
        self._held.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._streams.add(writer)
        with suppress(OSError):
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._to)
            self._streams.add(there)
            await asyncio.gather(self._pass(reader, there), self._pass(there_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._held.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[str, Relay]]:
    """The URL of a relay in front of the server of `url`, and the relay."""
    port = urlsplit(url).port
    assert port
    relay = Relay(port)
    await relay.mend()
    try:
        yield url.replace(f":{port}", f":{relay.port}"), relay
    finally:
        await relay.cut()
