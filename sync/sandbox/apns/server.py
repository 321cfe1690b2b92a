"""The simulator: joins the rules, the provider's and the devices' tokens, faults and log, and listens.

It decides the order in which a request is judged: envelope, provider token, content, device token, as APNs refuses a
wrong sender before it looks at a device. Devices themselves (what they store, show and count) are not modelled.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sync.sandbox.apns.certificates import Certificates, ensure
from sync.sandbox.apns.faults import Fault, FaultKind, Faults
from sync.sandbox.apns.http2 import Connection, Plan
from sync.sandbox.apns.journal import Journal
from sync.sandbox.apns.provider import ProviderDesk
from sync.sandbox.apns.registry import Registry, TokenRecord
from sync.sandbox.apns.rules import CONTENT, ENVELOPE, Push, Refusal, refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a simulator is told at its start. `public_key` is PEM; `apps` are bundle ids of the one team."""

    log: Path
    certificate_dir: Path
    public_key: bytes
    team_id: str
    key_id: str
    apps: tuple[str, ...]
    tokens: Mapping[str, TokenRecord] = field(default_factory=dict)  # what is known of some from the start
    max_streams: int = 1000  # what api.push.apple.com announces after the first accepted request
    initial_window: int = 65_535  # bytes per stream that a sender may send at first (RFC 9113 §6.9.2)


class Simulator:
    """APNs for a sandbox. `now` gives epoch seconds."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self.max_streams, self.initial_window = settings.max_streams, settings.initial_window
        self.certificates: Certificates = ensure(settings.certificate_dir)
        self.faults, self.registry, self.journal = Faults(), Registry(settings.tokens), Journal(settings.log)
        self.provider = ProviderDesk(
            public_key=settings.public_key, team_id=settings.team_id, key_id=settings.key_id, now=now
        )
        self._apps, self._now = frozenset(settings.apps), now
        self._connections: set[Connection] = set()
        self._opened, self._requests = 0, 0
        self._statuses: Counter[str] = Counter()
        self._tokens: set[str] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (useful with port 0)."""
        loop = asyncio.get_running_loop()
        context = self.certificates.server_context()
        self._server = await loop.create_server(lambda: Connection(self), host, port, ssl=context, backlog=512)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Cut every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._server is not None:
            await self._server.wait_closed()
        self.journal.close()

    def reset(self) -> None:
        """As newly started with an empty log; connections stay."""
        self.faults.forget()
        self.registry.forget()
        self.provider.forget()
        self.journal.clear()
        self._opened, self._requests = len(self._connections), 0
        self._statuses.clear()
        self._tokens.clear()

    def stats(self) -> dict[str, object]:
        """Counts since start or reset."""
        return {
            "connections": len(self._connections),
            "connections_opened": self._opened,
            "requests": self._requests,
            "answered": dict(self._statuses),
            "device_tokens": len(self._tokens),
            "provider_tokens": self.provider.tokens_seen,
            "faults_waiting": self.faults.waiting,
        }

    def decide(self, push: Push) -> Plan:
        """What APNs would answer, unless a fault was posted for this request."""
        self._requests += 1
        if push.token:
            self._tokens.add(push.token)
        judged, token_accepted = self._judge(push)
        fault = self.faults.take(push.token, push.push_type)
        if fault is not None and fault.status is not None and fault.kind is not FaultKind.GOAWAY:
            judged = _told(fault, fault.status)
        return Plan(refusal=judged, fault=fault, token_accepted=token_accepted)

    def _judge(self, push: Push) -> tuple[Refusal | None, bool]:
        wrong = refusal(ENVELOPE, push, self._apps) or self.provider.refusal(push.authorization)
        if wrong is not None:
            return wrong, False
        return refusal(CONTENT, push, self._apps) or self.registry.refusal(push.token, push.push_type), True

    def answered(self, push: Push, apns_id: str, refused: Refusal | None) -> None:
        """Log before the answer leaves: whoever has the answer finds the line."""
        status, reason = (200, None) if refused is None else (refused.status, refused.reason or None)
        self._statuses[str(status)] += 1
        self.journal.answered(push, apns_id, at=self._now(), status=status, reason=reason)

    def opened(self, connection: Connection) -> None:
        """A sender has connected."""
        self._opened += 1
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A sender is gone."""
        self._connections.discard(connection)


def _told(fault: Fault, status: int) -> Refusal | None:
    if status == 200:
        return None
    return Refusal(status=status, reason=fault.reason or "", timestamp_ms=fault.timestamp)
