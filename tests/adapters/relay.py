"""A wire between the application and a database that tests can silence: what is sent is taken, and nothing ever
comes back, as from a machine that is gone without a word.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536


class Relay:
    """Forwards to a port of this machine until it is silenced."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def silence(self) -> None:
        """From now on nothing passes, on old connections and new ones."""
        self._speaks.clear()

    def speak(self) -> None:
        """Everything that was held back passes."""
        self._speaks.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.ensure_future(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                await self._speaks.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def relayed(dsn: str) -> AsyncIterator[tuple[Relay, str]]:
    """The relay, and the DSN of the database behind it."""
    parts = urlsplit(dsn)
    relay = Relay(parts.port or 5432)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
    finally:
        relay.close()
        server.close()
