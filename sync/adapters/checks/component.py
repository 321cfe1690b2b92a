"""Does the XMPP server take us as its component: XEP-0114's stream and handshake, then good-bye.

A second connection for the same JID may throw the first one out (ejabberd by default, Prosody with `kick_old`): while
somebody holds the lease nothing is connected, and the holder is named instead.
"""

import asyncio
import ssl
from contextlib import suppress
from hashlib import sha1
from typing import Any
from xml.etree.ElementTree import ParseError, XMLPullParser
from xml.sax.saxutils import quoteattr

from sync.adapters.checks.finding import LIMIT_SECONDS, Finding, fault, note, ok

_STREAMS = "{http://etherx.jabber.org/streams}"
_ACCEPT = "{jabber:component:accept}"
_MAX_BYTES = 65536  # a stream header and one answer are below 1 kB

GOODBYE_SECONDS = 1.0

_CONDITIONS = {  # RFC 6120 §4.9.3, as the servers use them here
    "not-authorized": ("the server refuses the secret", "component.secret"),
    "host-unknown": ("the server knows no component of this name", "component.jid"),
    "conflict": ("the server has this component connected already", "component.jid"),
    "invalid-namespace": ("this port is not for components", "component.port"),
}


async def component(
    *,
    jid: str,
    secret: str,
    server: str,
    port: int,
    holders: list[str] | None,
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> list[Finding]:
    """`holders` of a live lease; None = not known, and then nothing is risked. `tls`: whom to trust, and the name that
    the certificate must bear.
    """
    if holders:
        return [ok("component", f"{jid} is connected by {', '.join(holders)}")]
    if holders is None:
        return [note("component", "not tried: the database does not tell whether a component is connected already")]
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            context, name = tls or (None, None)
            reader, writer = await asyncio.open_connection(server, port, ssl=context, server_hostname=name)
            try:
                return [await _handshake(reader, writer, jid, secret, f"{server}:{port}")]
            except ConnectionError:
                return [_foreign(f"{server}:{port}")]
            finally:
                writer.close()
    except TimeoutError:
        return [fault("component", f"{server}:{port} does not answer within {LIMIT_SECONDS:g} s", "component.server")]
    except ssl.SSLCertVerificationError as error:
        words = f"the certificate of {server}:{port} is not trusted: {error.verify_message}"
        return [fault("component", words, "component.tls_name" if "mismatch" in words else "component.tls_ca")]
    except ssl.SSLError as error:
        return [fault("component", f"no TLS at {server}:{port}: {error.reason or 'refused'}", "component.tls")]
    except ConnectionResetError:
        words = f"{server}:{port} ends the connection at once: has it a certificate?"
        return [fault("component", words if tls else f"{server}:{port} ends the connection at once", "component.tls")]
    except OSError as error:
        words = "nobody listens there" if isinstance(error, ConnectionRefusedError) else (error.strerror or "no way")
        return [fault("component", f"cannot connect to {server}:{port}: {words}", "component.server")]


async def _handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, jid: str, secret: str, address: str
) -> Finding:
    """XEP-0114 §3: the hash is of the stream's id and the secret."""
    parser: XMLPullParser[Any] = XMLPullParser(["start", "end"])
    writer.write(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
        f"xmlns:stream='http://etherx.jabber.org/streams' to={quoteattr(jid)}>".encode()
    )
    received = 0
    while data := await reader.read(4096):
        received += len(data)
        try:
            parser.feed(data)
            events: list[Any] = list(parser.read_events())
        except ParseError:
            break
        for event, element in events:
            if event == "start" and element.tag == f"{_STREAMS}stream":
                digest = sha1(f"{element.get('id', '')}{secret}".encode(), usedforsecurity=False).hexdigest()
                writer.write(f"<handshake>{digest}</handshake>".encode())
            elif event == "end" and element.tag == f"{_ACCEPT}handshake":
                writer.write(b"</stream:stream>")
                # Until the server has let go, too: ejabberd may take the next connection's questions to this one.
                with suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_SECONDS):
                        await reader.read()
                return ok("component", f"{jid} is accepted by {address}")
            elif event == "end" and element.tag == f"{_STREAMS}error":
                return _refused(element)
        if received > _MAX_BYTES:
            break
    return _foreign(address)


def _foreign(address: str) -> Finding:
    """Somebody is there, but no server that waits for components."""
    return fault("component", f"{address} does not speak XMPP to components, or only by TLS", "component.port")


def _refused(error: Any) -> Finding:
    """The stream error's condition, in words."""
    condition = next((child.tag.rpartition("}")[2] for child in error), "unknown")
    words, field = _CONDITIONS.get(condition, (f"the server refuses the stream: {condition}", "component.server"))
    return fault("component", words, field)
