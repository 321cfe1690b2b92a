"""A way to APNs through an HTTP proxy: CONNECT (RFC 9110 §9.3.6), with a password where the proxy wants one (Basic,
RFC 7617). What is inside is TLS between us and APNs, so the proxy sees the address and nothing else.
"""

import asyncio
import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_ANSWER_LIMIT_BYTES = 8192
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class ProxyRefused(OSError):
    """The proxy does not let us through; the text has its status and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where it is, and the value of `proxy-authorization`."""

    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> "Proxy":
        """From `http://[user[:password]@]host:port`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.port is None or parts.path.strip("/") or parts.query:
            raise ValueError("wanted is http://host:port or http://user:password@host:port")
        credentials = None
        if parts.username is not None:
            told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            credentials = f"Basic {b64encode(told.encode()).decode()}"
        return cls(host=parts.hostname, port=parts.port, credentials=credentials)


async def tunnel(proxy: Proxy, host: str, port: int) -> socket.socket:
    """A connected socket whose other end is `host`. Raises OSError; set a limit of time around it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    last: OSError = OSError("the proxy has no address")
    for family, kind, protocol, _, address in found:
        end = socket.socket(family, kind, protocol)
        end.setblocking(False)
        try:
            await loop.sock_connect(end, address)
            await _connect(end, proxy, host, port)
        except ProxyRefused:
            end.close()
            raise
        except OSError as wrong:
            end.close()
            last = wrong
        except BaseException:
            end.close()
            raise
        else:
            return end
    raise last


async def _connect(end: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    await loop.sock_sendall(end, "\r\n".join([*lines, "", ""]).encode("ascii"))
    said = bytearray()
    while b"\r\n\r\n" not in said:
        piece = await loop.sock_recv(end, 1024)
        said += piece
        if not piece or len(said) > _ANSWER_LIMIT_BYTES:
            raise ProxyRefused("the proxy's answer makes no sense")
    status = _STATUS.match(said)
    if status is None or not said.endswith(b"\r\n\r\n"):  # a TLS server is silent until it is greeted
        raise ProxyRefused("the proxy's answer makes no sense")
    if not 200 <= int(status[1]) < 300:
        raise ProxyRefused(f"the proxy answers {status[1].decode()}")
