"""APNs behind the PushGate port: which app, which server, which provider token; one outcome for every request.

It sends once, but for what APNs refuses before it looks at the push: a provider token that it calls expired, if there
is a newer one, and a connection that it found idle for too long. When to send again, what to delete and what to tell
an operator is the caller's. Tokens are never logged.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from sync.adapters.apns.client_certificate import ClientCertificate
from sync.adapters.apns.line import Line, LineLimits
from sync.adapters.apns.request import Notification
from sync.adapters.apns.tunnel import Proxy
from sync.model.push import Environment, PushOutcome, PushRequest, Verdict
from sync.ports import Observer, ProviderTokens
from sync.protocol.apns import payload_limit_bytes

logger = logging.getLogger(__name__)

# Apple, "Sending notification requests to APNs". aioapns' development host is an old name of the second.
_SERVERS = {
    Environment.PRODUCTION: "https://api.push.apple.com:443",
    Environment.SANDBOX: "https://api.sandbox.push.apple.com:443",
}
_NOT_SENT = PushOutcome(verdict=Verdict.NOT_SENT)
_REJECTED = PushOutcome(verdict=Verdict.REJECTED)

GateLimits = LineLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ApnsApp:
    """One configured app; the same `name` may be configured once for each environment.

    `server` is `https://host:port`, None = Apple's for the environment. `ca_file` is a PEM that is trusted in place
    of the system's authorities. `certificate`: by which APNs knows us, in place of a provider token.
    """

    name: str
    bundle_id: str
    environment: Environment
    server: str | None = None
    ca_file: Path | None = None
    certificate: ClientCertificate | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port. Raises ValueError when `server` is no https URL."""
        url = urlsplit(self.server or _SERVERS[self.environment])
        if url.scheme != "https" or not url.hostname:
            raise ValueError(f"the APNs server of app {self.name} must be https://host:port")
        return url.hostname, url.port or 443


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCounts:
    """For metrics: `opened` and `goaways` since start, the others now."""

    connections: int
    opened: int
    goaways: int
    in_flight: int
    waiting: int


class ApnsGate:
    """Serves all apps of one team ("one team per connection"), and those that have a certificate, each by a connection
    of its own. `tokens` None: all have one. Build it anywhere; use it inside one running loop.
    """

    def __init__(
        self,
        apps: Iterable[ApnsApp],
        tokens: ProviderTokens | None,
        *,
        limits: GateLimits | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._tokens, self._limits = tokens, limits or GateLimits()
        self._apps = {(app.name, app.environment): app for app in apps}
        self._lines: dict[_Way, Line] = {}
        self._goaways_told = 0
        for app in self._apps.values():
            if _way(app) not in self._lines:
                certified = app.certificate is not None
                self._lines[_way(app)] = Line(*app.address, _tls(app), self._limits, proxy=proxy, certified=certified)

    async def open(self) -> None:
        """Connect and get a provider token, so that the first call finds both. Never fails; pushes will try again."""
        end = asyncio.get_running_loop().time() + self._limits.send_seconds
        signed = [self._bearer(end)] if self._tokens is not None else []
        await asyncio.gather(*signed, *(line.open() for line in self._lines.values()))

    async def send(self, request: PushRequest) -> PushOutcome:
        """See PushGate. REJECTED and TOO_LARGE without a status were decided here, before anything left."""
        app = self._apps.get((request.app, request.environment))
        if app is None:
            logger.error("no app %s is configured for %s", request.app, request.environment)
            return _REJECTED
        try:
            notification = Notification(request, app.bundle_id)
        except (TypeError, ValueError):
            # The exception may quote the payload, so it is not logged.
            logger.error("push %s to app %s cannot be written as a request", request.apns_id, request.app)
            return _REJECTED
        if len(notification.body) > payload_limit_bytes(request.push_type):
            return PushOutcome(verdict=Verdict.TOO_LARGE)
        return await self._send(self._lines[_way(app)], notification)

    async def close(self) -> None:
        """See PushGate: at most `send_seconds`, as long as any push in flight may still take."""
        await asyncio.gather(*(line.close(self._limits.send_seconds) for line in self._lines.values()))

    def counts(self) -> GateCounts:
        """The state of all connections together."""
        lines = self._lines.values()
        return GateCounts(
            connections=sum(line.connections for line in lines),
            opened=sum(line.opened for line in lines),
            goaways=sum(line.goaways for line in lines),
            in_flight=sum(line.in_flight for line in lines),
            waiting=sum(line.waiting for line in lines),
        )

    def measure(self, observer: Observer, now: datetime) -> None:
        """Tell how it stands with the connections and the provider token."""
        counts = self.counts()
        observer.push_service(counts.connections, counts.goaways - self._goaways_told)
        self._goaways_told = counts.goaways
        if self._tokens is not None and self._tokens.minted_at is not None:
            observer.provider_token((now - self._tokens.minted_at).total_seconds())

    async def _send(self, line: Line, notification: Notification) -> PushOutcome:
        end = asyncio.get_running_loop().time() + self._limits.send_seconds
        bearer, outcome = await self._sent(line, notification, end)
        if outcome.reason == "TooManyProviderTokenUpdates" and self._tokens is not None:
            self._tokens.hold()
        if await self._again(outcome, bearer, end):
            _, outcome = await self._sent(line, notification, end)
        return outcome

    async def _sent(self, line: Line, notification: Notification, end: float) -> tuple[str | None, PushOutcome]:
        bearer = None if line.certified else await self._bearer(end)
        if bearer is None and not line.certified:
            return None, _NOT_SENT
        return bearer, await line.submit(notification, bearer, end - asyncio.get_running_loop().time())

    async def _again(self, outcome: PushOutcome, bearer: str | None, end: float) -> bool:
        """Whether APNs did not get as far as the push, and would now."""
        match outcome.status, outcome.reason:
            case 400, "IdleTimeout":  # PUSH §2: "reconnect, retry"; the line has dropped that connection
                return True
            case 403, "ExpiredProviderToken" if bearer is not None:
                # "mint if the old one is ≥ 20 minutes old, retry once". How old it is, ProviderTokens knows.
                return await self._renewed(bearer, end)
            case _:
                return False

    async def _bearer(self, end: float) -> str | None:
        if self._tokens is None:
            return None
        try:
            async with asyncio.timeout_at(end):
                return await self._tokens.current()
        except Exception as wrong:  # noqa: BLE001 - any ProviderTokens may fail in its own way; nothing has left
            logger.error("no provider token: %s", type(wrong).__name__)
            return None

    async def _renewed(self, bearer: str, end: float) -> bool:
        if self._tokens is None:
            return False
        try:
            async with asyncio.timeout_at(end):
                return await self._tokens.refused(bearer)
        except Exception as wrong:  # noqa: BLE001 - as above; APNs' answer stands
            logger.error("provider token not renewed: %s", type(wrong).__name__)
            return False


_Way = tuple[str, int, Path | None, ClientCertificate | None]


def _way(app: ApnsApp) -> _Way:
    """What apps must share to share a connection."""
    return (*app.address, app.ca_file, app.certificate)


def _tls(app: ApnsApp) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=app.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if app.certificate is not None:
        app.certificate.into(context)
    return context
