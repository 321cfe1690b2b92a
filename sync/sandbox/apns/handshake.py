"""The TLS of the simulated APNs, and how a handshake fails on demand: cut short, or by a stranger's certificate.

OpenSSL asks a callback which certificate a client is to see, also where the client names none: there a fault is met.
A handshake that the server refuses ends without a word, because asyncio drops the alert. Decides nothing else.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from sync.sandbox.apns.certificates import Certificates, ensure
from sync.sandbox.apns.faults import UNTRUSTED, Fault


def server_context(certificates: Certificates, senders: Path, meets: Callable[[], Fault | None]) -> ssl.SSLContext:
    """The context for every connection; `meets` gives the fault of a new one. `senders`: the authority of theirs."""
    context = certificates.server_context(senders)

    def chosen(connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: object) -> int | None:
        fault = meets()
        if fault is None:
            return None
        if fault.reason != UNTRUSTED:
            return int(ssl.AlertDescription.ALERT_DESCRIPTION_HANDSHAKE_FAILURE)
        connection.context = ensure(certificates.ca.parent / "stranger").server_context()
        return None

    context.set_servername_callback(chosen)
    return context
