"""An HTTP proxy that knows CONNECT and nothing else, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ConnectProxy:
    """`asked`: the head of each request; `answer` in place of its own, where a test wants another."""

    def __init__(self, credentials: str | None = None) -> None:
        self.credentials, self.answer = credentials, b""
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            target = head.split(" ")[1]
            if self.answer or (self.credentials and f"Proxy-Authorization: {self.credentials}\r\n" not in head):
                writer.write(self.answer or b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                await writer.drain()
            else:
                host, _, port = target.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
                await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        writer.close()

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@asynccontextmanager
async def connect_proxy(credentials: str | None = None) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(credentials)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
