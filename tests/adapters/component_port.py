"""A server's component port for tests: real sockets, XEP-0114, with or without TLS, and as unfriendly as asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SECRET = "hush"
HEADER = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
    "xmlns:stream='http://etherx.jabber.org/streams' from='sync.x' id='s1'>"
)
ERROR = "<stream:error><{0} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"


class Port:
    """Takes components. `refusal`: the stream error for all of them; `brief`: each is let in and cut off at once;
    `hears`: from then on it reads what they say.
    """

    def __init__(self, *, refusal: str | None = None, brief: bool = False, hears: asyncio.Event | None = None) -> None:
        self.refusal, self.brief, self.hears = refusal, brief, hears
        self.taken = 0
        self.came: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.encrypted: list[bool] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"to=")
        await reader.readuntil(b">")
        writer.write(HEADER.encode())
        said = (await reader.readuntil(b"</handshake>")).decode()
        digest = sha1(f"s1{SECRET}".encode(), usedforsecurity=False).hexdigest()
        refusal = self.refusal or (None if digest in said else "not-authorized")
        if refusal is not None:
            writer.write(ERROR.format(refusal).encode())
            return
        self.taken += 1
        self.encrypted.append(writer.get_extra_info("ssl_object") is not None)
        writer.write(b"<handshake/>")
        await self.came.put(writer)
        if self.hears is not None:
            await self.hears.wait()
        if not self.brief:
            await reader.read()


@asynccontextmanager
async def listening(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port's number, on loopback."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def certified(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """TLS context for these names or addresses, and its certificate, which vouches for itself"""
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    alternatives = [x509.DNSName(n) if n[0].isalpha() else x509.IPAddress(ip_address(n)) for n in names]
    certificate = (
        x509.CertificateBuilder(nobody, nobody, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = folder / "server.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context, pem
