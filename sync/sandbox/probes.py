"""Whether a part answers on its port: each question ends within about a second, and leaves no connection behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SECONDS = 1.0
_FAILURES = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def accepts(port: int) -> bool:
    """Somebody takes connections on that port of loopback."""
    try:
        async with _connected(port):
            return True
    except _FAILURES:
        return False


async def offers_login(port: int, domain: str) -> bool:
    """An XMPP server lets users of that domain log in there, without encryption."""
    try:
        async with _connected(port) as (reader, writer):
            writer.write(
                f"<stream:stream to='{domain}' version='1.0' xmlns='jabber:client' "
                "xmlns:stream='http://etherx.jabber.org/streams'>".encode()
            )
            return b"PLAIN" in await reader.readuntil(b"</stream:features>")
    except _FAILURES:
        return False


async def answers_200(port: int, path: str) -> bool:
    """The page is there, and says that all is well."""
    try:
        async with _connected(port) as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
    except _FAILURES:
        return False


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Streams]:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()
