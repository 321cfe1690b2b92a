"""The simulator: joins the rules, the provider's and the devices' tokens, faults and log, and listens.

It decides the order in which a request is judged: envelope, provider token, content, device token, as APNs refuses a
wrong sender before it looks at a device. What was told of a token comes before what was described of its device.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sync.sandbox.apns.arrival import arrival
from sync.sandbox.apns.certificates import Certificates, ensure
from sync.sandbox.apns.device import Description
from sync.sandbox.apns.faults import Fault, FaultKind, Faults
from sync.sandbox.apns.fleet import Fleet
from sync.sandbox.apns.handshake import server_context
from sync.sandbox.apns.http2 import Connection, Plan
from sync.sandbox.apns.journal import Journal
from sync.sandbox.apns.provider import UPDATE_SECONDS, ProviderDesk
from sync.sandbox.apns.registry import Registry, TokenRecord, TokenState
from sync.sandbox.apns.rules import CONTENT, ENVELOPE, Push, Refusal, refusal
from sync.sandbox.apns.senders import Environment, Sender, Senders


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
    devices: tuple[Description, ...] = ()  # described from the start
    environment: Environment = Environment.PRODUCTION  # which certificates of senders must be for
    token_update_seconds: int = UPDATE_SECONDS  # how often a team may change its provider token; 0: at any time
    max_streams: int = 1000  # what api.push.apple.com announces after the first accepted request
    initial_window: int = 65_535  # bytes per stream that a sender may send at first (RFC 9113 §6.9.2)


class Simulator:
    """APNs for a sandbox. `now` gives epoch seconds."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self.max_streams, self.initial_window = settings.max_streams, settings.initial_window
        self.certificates: Certificates = ensure(settings.certificate_dir)
        self.faults, self.registry, self.journal = Faults(), Registry(settings.tokens), Journal(settings.log)
        self.fleet = Fleet(settings.devices)
        self.senders = Senders(settings.certificate_dir, settings.environment)
        self.provider = ProviderDesk(
            public_key=settings.public_key,
            team_id=settings.team_id,
            key_id=settings.key_id,
            now=now,
            update_seconds=settings.token_update_seconds,
        )
        self._apps, self.now = frozenset(settings.apps), now
        self._connections: set[Connection] = set()
        self._opened, self._requests = 0, 0
        self._statuses: Counter[str] = Counter()
        self._faults_met: Counter[str] = Counter()
        self._tokens: set[str] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (useful with port 0)."""
        loop = asyncio.get_running_loop()
        context = server_context(self.certificates, self.senders.ca, self._connection_fault)
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
        self.fleet.forget()
        self.senders.forget()
        self.journal.clear()
        self._opened, self._requests = len(self._connections), 0
        self._statuses.clear()
        self._faults_met.clear()
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
            "devices": len(self.fleet),
            "faults_waiting": self.faults.waiting,
            "faults_met": dict(self._faults_met),
        }

    def decide(self, push: Push, sender: Sender | None) -> Plan:
        """What APNs would answer, unless a fault was posted for this request."""
        self._requests += 1
        if push.token:
            self._tokens.add(push.token)
        if sender is not None and push.topic is None and sender.only_topic:
            push = replace(push, topic=sender.only_topic)
        judged, token_accepted = self._judge(push, sender)
        fault = self._met(self.faults.take(push.token, push.push_type))
        if fault is not None and fault.status is not None and fault.kind is not FaultKind.GOAWAY:
            judged = _told(fault, fault.status)
        return Plan(push=push, refusal=judged, fault=fault, token_accepted=token_accepted)

    def _judge(self, push: Push, sender: Sender | None) -> tuple[Refusal | None, bool]:
        """The refusal, and whether who sends it was accepted. With a certificate the provider token is not looked at,
        as Apple says.
        """
        wrong = refusal(ENVELOPE, push, self._apps)
        if wrong is None and sender is not None:
            wrong = self.senders.refusal(sender)
        elif wrong is None:
            wrong = self.provider.refusal(push.authorization)
        if wrong is not None:
            return wrong, False
        wrong = refusal(CONTENT, push, self._apps) or (sender.refusal(push.topic) if sender is not None else None)
        return wrong or self._device_refusal(push) or self.registry.limited(push.token, self.now()), True

    def _device_refusal(self, push: Push) -> Refusal | None:
        told = self.registry.told(push.token)
        if self.fleet.of(push.token) is None or (told is not None and told.state is not TokenState.ALIVE):
            return self.registry.refusal(push.token, push.push_type)
        return self.fleet.refusal(push.token, push.push_type, push.topic or "")

    def _connection_fault(self) -> Fault | None:
        return self._met(self.faults.take_connection())

    def _met(self, fault: Fault | None) -> Fault | None:
        if fault is not None:
            self._faults_met[fault.kind.value] += 1
        return fault

    def deliver(self, push: Push, apns_id: str) -> None:
        """To the device, where its token is one that was described."""
        if self.fleet.of(push.token) is not None:
            self.fleet.arrive(push.token, arrival(push, apns_id), self.now())

    def answered(self, push: Push, apns_id: str, refused: Refusal | None) -> None:
        """Log before the answer leaves: whoever has the answer finds the line."""
        status, reason = (200, None) if refused is None else (refused.status, refused.reason or None)
        self._statuses[str(status)] += 1
        self.journal.answered(push, apns_id, at=self.now(), status=status, reason=reason)

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
