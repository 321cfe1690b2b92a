"""The line to one APNs server: the connection in use, those on their way out, and the pushes that wait for a stream.

It decides when to connect and which push goes next. It never sends a push twice: what became uncertain or was not
sent is told, and the owner of the job decides.
"""

import asyncio
import logging
import ssl
from collections import deque
from dataclasses import dataclass

from sync.adapters.apns.client_certificate import certificate_refused
from sync.adapters.apns.connection import Connection
from sync.adapters.apns.exchange import Exchange
from sync.adapters.apns.request import Notification
from sync.adapters.apns.tunnel import Proxy, tunnel
from sync.model.push import PushOutcome

logger = logging.getLogger(__name__)

# After a connection that failed or brought no answer. Short, because a call may be waiting behind it; never none,
# because "quick opening and closing counts as an attack" (PUSH §2).
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """Seconds, and a number of pushes. `send_seconds` covers a whole send: waiting, connecting, sending, the answer.

    An unanswered VoIP push is followed by an alert, so 5 s is what a ringing call can spare; APNs answers in 0.3 s.
    """

    send_seconds: float = 5.0
    connect_seconds: float = 3.0
    ping_seconds: float = 60.0
    pong_seconds: float = 5.0
    waiting: int = 10_000  # pushes beyond that are told NOT_SENT at once: memory stays bounded


class Line:
    """Connects by itself and stays connected from the first `open` or `submit` until `close`. `certified`: the TLS
    context has a certificate of ours, and pushes carry no provider token.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        limits: LineLimits,
        *,
        proxy: Proxy | None = None,
        certified: bool = False,
    ) -> None:
        self._host, self._port, self._tls, self._limits = host, port, tls, limits
        self._proxy, self.certified = proxy, certified
        self._reason: str | None = None  # why the last connection was no good, where the server said so
        self._authority = host if port == 443 else f"{host}:{port}"
        self._current: Connection | None = None
        self._leaving: set[Connection] = set()
        self._waiting: deque[Exchange] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._failures = 0
        self._closed = False
        self.opened = 0
        self._past_goaways = 0

    @property
    def connections(self) -> int:
        """How many connections are up."""
        return len(self._up())

    @property
    def goaways(self) -> int:
        """How often the server has said GOAWAY."""
        return self._past_goaways + sum(connection.goaways for connection in self._up())

    @property
    def in_flight(self) -> int:
        """Pushes that were given a stream and have no answer yet."""
        return sum(connection.in_flight for connection in self._up())

    @property
    def waiting(self) -> int:
        """Pushes that wait for a stream."""
        return len(self._waiting)

    async def open(self) -> None:
        """Connect ahead of the first push. Does not fail: a push will try again."""
        self._connect_soon()
        if self._opening is not None:
            await asyncio.wait({self._opening})

    def submit(self, notification: Notification, bearer: str | None, seconds: float) -> asyncio.Future[PushOutcome]:
        """Send as soon as there is a stream; the future has the outcome at the latest after so many seconds."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(notification.headers(self._authority, bearer), notification.body, loop.create_future())
        if self._closed or len(self._waiting) >= self._limits.waiting or self._pausing():
            exchange.refused(self._reason)
            return exchange.future
        exchange.timer = loop.call_later(seconds, self._too_late, exchange)
        self._waiting.append(exchange)
        self._pump()
        return exchange.future

    async def close(self, seconds: float) -> None:
        """Take nothing new, give what is in flight so long, then cut."""
        self._closed = True
        if self._resume is not None:
            self._resume.cancel()
        self._refuse_waiting()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if self._current is not None:
            self._current.retire("closing")
        end = asyncio.get_running_loop().time() + seconds
        for connection in list(self._leaving):
            await connection.gone(max(0.0, end - asyncio.get_running_loop().time()))

    def _up(self) -> set[Connection]:
        return self._leaving if self._current is None else self._leaving | {self._current}

    def _pausing(self) -> bool:
        return self._resume is not None and self._current is None

    def _pump(self) -> None:
        """Give waiting pushes their streams, oldest first."""
        if self._current is None:
            if self._waiting:
                self._connect_soon()
            return
        while self._waiting and self._current is not None and self._current.has_room():
            exchange = self._waiting.popleft()
            if exchange.done:  # its caller was cancelled before anything left
                exchange.refused()
                continue
            self._current.start(exchange)

    def _too_late(self, exchange: Exchange) -> None:
        if exchange.give_up is not None:
            exchange.give_up(exchange)
        else:
            self._waiting.remove(exchange)
            exchange.refused()

    def _changed(self, connection: Connection) -> None:
        """A connection has room again, or has been retired, or is lost."""
        if connection is self._current and not connection.usable:
            self._current, self._reason = None, connection.reason
            self._leaving.add(connection)
            self._pause_or_connect(proven=connection.proven)
        if connection.lost.done() and connection in self._leaving:
            self._leaving.discard(connection)
            self._past_goaways += connection.goaways
        self._pump()

    def _pause_or_connect(self, *, proven: bool) -> None:
        """Stay connected, so that the next call finds a warm line; at once after a connection that was good."""
        if self._closed:
            return
        if proven:
            self._failures = 0
            self._connect_soon()
            return
        pause = min(_FIRST_PAUSE_SECONDS * 2.0**self._failures, _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 10)
        self._resume = asyncio.get_running_loop().call_later(pause, self._after_pause)
        self._refuse_waiting()

    def _after_pause(self) -> None:
        self._resume = None
        self._connect_soon()

    def _refuse_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().refused(self._reason)

    def _connect_soon(self) -> None:
        if self._current is None and self._opening is None and self._resume is None and not self._closed:
            self._opening = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.connect_seconds):
                connection = await self._reach()
        except (OSError, TimeoutError) as wrong:  # refused, unreachable, unresolvable, not trusted, too slow
            # Once for each outage: the attempts go on every two seconds.
            level = logging.DEBUG if self._failures else logging.WARNING
            logger.log(level, "no connection to apns at %s:%d: %s", self._host, self._port, type(wrong).__name__)
            connection, self._reason = None, "BadCertificate" if certificate_refused(wrong) else None
        finally:
            self._opening = None
        if connection is None or not connection.usable:
            self._pause_or_connect(proven=False)
            return
        self.opened += 1
        self._current = connection
        self._pump()

    async def _reach(self) -> Connection:
        """TCP, by way of the proxy where there is one, then TLS."""
        loop = asyncio.get_running_loop()

        def made() -> Connection:
            pings = {"ping_seconds": self._limits.ping_seconds, "pong_seconds": self._limits.pong_seconds}
            return Connection(self._changed, trusted=self.certified, **pings)

        if self._proxy is None:
            return (await loop.create_connection(made, self._host, self._port, ssl=self._tls))[1]
        end = await tunnel(self._proxy, self._host, self._port)
        return (await loop.create_connection(made, sock=end, ssl=self._tls, server_hostname=self._host))[1]
