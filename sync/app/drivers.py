"""The drivers, opened in the order in which they need each other, and closed in the opposite one.

Whatever keeps the service from starting ends here in one sentence that names the section and the key.
"""

import asyncio
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from sync.adapters.memory import MemoryBus, MemoryPresence
from sync.adapters.metrics import Metrics
from sync.adapters.postgres import migrate
from sync.adapters.postgres.feed import PostgresLeases
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.statements import sql
from sync.adapters.redis.bus import RedisBus
from sync.adapters.redis.link import Link as RedisLink
from sync.adapters.redis.presence import RedisPresence
from sync.adapters.sealing import Sealer
from sync.adapters.xmpp.link import Tls
from sync.app.apns import open_apns
from sync.config import Config
from sync.model.errors import StoreUnavailable
from sync.model.push import PushOutcome, PushRequest, Verdict
from sync.ports import Bus, Clock, Presence, PushGate
from sync.startup import CannotStart


class SystemClock:
    """The `Clock` port."""

    def now(self) -> datetime:
        """`Clock.now`."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """`Clock.sleep`."""
        await asyncio.sleep(seconds)


class NoGate:
    """The `PushGate` of a service without apps: no device can register, so nothing is ever sent."""

    async def send(self, request: PushRequest) -> PushOutcome:
        """`PushGate.send`."""
        return PushOutcome(verdict=Verdict.REJECTED, reason=f"no-gate-for-{request.environment}")

    async def close(self) -> None:
        """`PushGate.close`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """Everything that talks to the outside, but for the server's connection: that one needs the service. `were_apart`:
    the database has encrypted chats apart from plain ones, whatever is configured now.
    """

    metrics: Metrics
    clock: Clock
    pool: Pool
    were_apart: bool
    leases: PostgresLeases
    sealer: Sealer
    gate: PushGate
    presence: Presence
    bus: Bus
    tls: Tls | None


async def open_drivers(config: Config, stack: AsyncExitStack) -> Drivers:
    """All of them. Raises `CannotStart`."""
    metrics, clock = Metrics(), SystemClock()
    pool = await open_pool(config, stack)
    sealer = Sealer(config.secrets.ring)
    gate = await open_gate(config, pool, sealer, stack)
    presence, bus = open_shared(config, metrics, stack)
    dsn, own = config.postgres.lease_session
    leases = PostgresLeases(dsn, prepared=own)
    stack.push_async_callback(leases.close)
    return Drivers(
        metrics=metrics,
        clock=clock,
        pool=pool,
        were_apart=await were_apart(pool),
        leases=leases,
        sealer=sealer,
        gate=gate,
        presence=presence,
        bus=bus,
        tls=tls_of(config),
    )


def tls_of(config: Config) -> Tls | None:
    """TLS to the component port, where it is configured. Raises `CannotStart`."""
    component = config.component
    if not component.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=component.tls_ca)
    except OSError:
        raise CannotStart(f"[component] tls_ca: there is no certificate in {component.tls_ca}.") from None
    return Tls(context, component.tls_name or component.server)


async def open_pool(config: Config, stack: AsyncExitStack) -> Pool:
    """The database, with a schema that is ours."""
    pool = Pool(
        config.postgres.dsn.get_secret_value(),
        size=config.postgres.pool,
        connect_seconds=config.postgres.connect_timeout_seconds,
        statement_seconds=config.postgres.statement_timeout_seconds,
        prepared=not config.postgres.transaction_pooler,
    )
    try:
        await pool.open()
        stack.push_async_callback(pool.close)
        async with pool.connection() as connection:
            found = await migrate.installed(connection)
    except StoreUnavailable as error:
        raise CannotStart(f"[postgres] dsn: the database does not answer ({error}).") from None
    if found != migrate.VERSION:
        was = f"version {found}" if found else "missing"
        raise CannotStart(f"[postgres] dsn: the schema is {was}; run `convsync schema --config FILE` first.")
    return pool


async def were_apart(pool: Pool) -> bool:
    """True where the database has encrypted chats apart from plain ones. Raises `CannotStart`."""
    try:
        async with pool.connection() as connection:
            found: bool = await connection.fetchval(sql("were_apart"))
    except StoreUnavailable as error:
        raise CannotStart(f"[postgres] dsn: the database does not answer ({error}).") from None
    return found


async def open_gate(config: Config, pool: Pool, sealer: Sealer, stack: AsyncExitStack) -> PushGate:
    """Apple's push service, with warm connections."""
    if config.apns is None:
        return NoGate()
    return await open_apns(config.apns, pool, sealer, SystemClock(), stack)


def open_shared(config: Config, metrics: Metrics, stack: AsyncExitStack) -> tuple[Presence, Bus]:
    """Who is online, and hints to other processes: in Redis for all of them, or in this one's memory."""
    if config.redis is None:
        return MemoryPresence(), MemoryBus()
    nodes = [node.get_secret_value() for node in config.redis.cluster_nodes]
    link = RedisLink(config.redis.url.get_secret_value(), cluster=nodes, observer=metrics)
    stack.push_async_callback(link.close)
    bus = RedisBus(link)
    stack.push_async_callback(bus.close)
    presence = RedisPresence(link, observer=metrics)
    stack.push_async_callback(presence.close)
    return presence, bus
