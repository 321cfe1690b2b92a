"""Does the key sign, is each app's certificate good, and can its APNs host be reached by HTTP/2 over TLS, by way of the
proxy where there is one. Nothing is pushed.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from sync.adapters.checks.finding import LIMIT_SECONDS, Finding, fault, note, ok

SOON = timedelta(days=30)
HELLO_SECONDS = 1.0  # a server that takes us says so at once, by HTTP/2's settings
_REFUSED = re.compile(r"_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED)$")


class Shown(Protocol):
    """A certificate by which we are known."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def until(self) -> datetime: ...

    def into(self, context: ssl.SSLContext) -> None:
        """Show it to the server."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """The team's key."""

    team_id: str
    key_id: str
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One app. `broken`: why its certificate cannot be used. `reach`: how to get to a host and port by the proxy."""

    name: str
    bundle_id: str
    host: str
    port: int
    ca_file: Path | None = None
    certificate: Shown | None = None
    broken: str | None = None
    reach: Callable[[str, int], Awaitable[socket.socket]] | None = None


async def apns(key: SigningKey | None, targets: Sequence[Target]) -> list[Finding]:
    """The key, then the apps in the order of the configuration."""
    found = [_signs(key)] if key is not None else []
    for number, target in enumerate(targets, 1):
        found += await _app(target, f"apns.apps.{number}")
    return found


def _signs(key: SigningKey) -> Finding:
    """Signs a token as APNs wants it (ES256); the token is thrown away."""
    claims = {"iss": key.team_id, "iat": 0}
    try:
        jwt.encode(claims, key.file.read_bytes(), algorithm="ES256", headers={"kid": key.key_id})
    except OSError as error:
        return fault("apns key", f"cannot be read: {error.strerror}", "apns.key_file")
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        return fault("apns key", "is not a private EC key (the .p8 file that Apple handed out)", "apns.key_file")
    return ok("apns key", f"{key.key_id} of team {key.team_id} signs")


async def _app(target: Target, field: str) -> list[Finding]:
    if target.broken is not None:
        return [fault(f"apns {target.name}", f"certificate: {target.broken}", f"{field}.certificate_file")]
    shown = [_certificate(target, target.certificate, field)] if target.certificate is not None else []
    return [*shown, await _reached(target, field)]


def _certificate(target: Target, certificate: Shown, field: str) -> Finding:
    subject, now, day = f"apns {target.name}", datetime.now(UTC), f"{certificate.until:%Y-%m-%d}"
    if certificate.until <= now:
        return fault(subject, f"the certificate has expired on {day}", f"{field}.certificate_file")
    if not any(target.bundle_id in name for name in certificate.names):
        return note(subject, f"the certificate does not name {target.bundle_id}", f"{field}.certificate_file")
    if certificate.until - now < SOON:
        return note(subject, f"the certificate expires on {day}", f"{field}.certificate_file")
    return ok(subject, f"the certificate is good until {day}")


async def _reached(target: Target, field: str) -> Finding:
    subject, address = f"apns {target.name}", f"{target.host}:{target.port}"
    try:
        protocol = await _protocol(target)
    except ssl.SSLCertVerificationError as error:
        why = f"the certificate of {address} is not trusted: {error.verify_message}"
        return fault(subject, why, f"{field}.ca_file")
    except ssl.SSLError as error:
        if _REFUSED.search(error.reason or ""):
            return fault(subject, f"{address} does not take our certificate", f"{field}.certificate_file")
        return fault(subject, f"no TLS with {address}: {error.reason or 'refused'}", f"{field}.server")
    except TimeoutError:
        return fault(subject, f"no answer of {address} within {LIMIT_SECONDS:g} s", f"{field}.server")
    except OSError as error:
        if target.reach is not None:
            return fault(subject, f"no way to {address}: {error.strerror or error}", "apns.proxy")
        return fault(subject, f"cannot connect to {address}: {error.strerror or 'no way'}", f"{field}.server")
    if protocol is None:
        why = f"{address} ends the connection at once; perhaps it does not take our certificate"
        return fault(subject, why, f"{field}.certificate_file")
    if protocol != "h2":
        return fault(subject, f"{address} does not offer HTTP/2", f"{field}.server")
    return ok(subject, f"{address} answers by TLS and HTTP/2{' through the proxy' if target.reach else ''}")


async def _protocol(target: Target) -> str | None:
    """What the host agrees to speak, "" where it agrees to nothing; None: it left when it saw our certificate. Raises
    OSError.
    """
    context = ssl.create_default_context(cafile=target.ca_file)
    context.set_alpn_protocols(["h2"])
    if target.certificate is not None:
        target.certificate.into(context)
    async with asyncio.timeout(LIMIT_SECONDS):
        if target.reach is None:
            reader, writer = await asyncio.open_connection(
                target.host, target.port, ssl=context, server_hostname=target.host
            )
        else:
            end = await target.reach(target.host, target.port)
            reader, writer = await asyncio.open_connection(sock=end, ssl=context, server_hostname=target.host)
    protocol: str = writer.get_extra_info("ssl_object").selected_alpn_protocol() or ""
    try:
        if target.certificate is None:
            return protocol
        async with asyncio.timeout(HELLO_SECONDS):  # TLS 1.3 refuses it after our side of the handshake is done
            return protocol if await reader.read(1) else None
    except TimeoutError:
        return protocol
    except ConnectionError:
        return None
    finally:
        writer.transport.abort()
