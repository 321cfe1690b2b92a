"""Does the key sign, and can each app's APNs host be reached by HTTP/2 over TLS. Nothing is pushed."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from sync.adapters.checks.finding import LIMIT_SECONDS, Finding, fault, ok


async def apns(
    *, team_id: str, key_id: str, key_file: Path, apps: Sequence[tuple[str, str, int, Path | None]]
) -> list[Finding]:
    """`apps`: name, host, port, CA file."""
    found = [_key(team_id, key_id, key_file)]
    for number, (name, host, port, ca_file) in enumerate(apps, 1):
        found.append(await _reached(f"apns {name}", f"apns.apps.{number}", host, port, ca_file))
    return found


def _key(team_id: str, key_id: str, key_file: Path) -> Finding:
    """Signs a token as APNs wants it (ES256); the token is thrown away."""
    try:
        jwt.encode({"iss": team_id, "iat": 0}, key_file.read_bytes(), algorithm="ES256", headers={"kid": key_id})
    except OSError as error:
        return fault("apns key", f"cannot be read: {error.strerror}", "apns.key_file")
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        return fault("apns key", "is not a private EC key (the .p8 file that Apple handed out)", "apns.key_file")
    return ok("apns key", f"{key_id} of team {team_id} signs")


async def _reached(subject: str, field: str, host: str, port: int, ca_file: Path | None) -> Finding:
    address = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        async with asyncio.timeout(LIMIT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return fault(
            subject, f"the certificate of {address} is not trusted: {error.verify_message}", f"{field}.ca_file"
        )
    except ssl.SSLError as error:
        return fault(subject, f"no TLS with {address}: {error.reason or 'refused'}", f"{field}.server")
    except TimeoutError:
        return fault(subject, f"no answer of {address} within {LIMIT_SECONDS:g} s", f"{field}.server")
    except OSError as error:
        return fault(subject, f"cannot connect to {address}: {error.strerror or 'no way'}", f"{field}.server")
    protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    if protocol != "h2":
        return fault(subject, f"{address} does not offer HTTP/2", f"{field}.server")
    return ok(subject, f"{address} answers by TLS and HTTP/2")
