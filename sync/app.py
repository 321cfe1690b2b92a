"""The composition root: the only place that constructs, and the life of the process from start to a graceful stop.

Start: database, Redis and the lease before the connection, so that no two processes ever speak as one component.
Stop: stop reading, drain what was read, acknowledge it, let the pushes under way finish, close. What is cut short is
not lost: the module sends unacknowledged events again, and an attempted push without an outcome counts as uncertain.
"""

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from xml.etree.ElementTree import Element

from sync.adapters.apns.gate import ApnsApp, ApnsGate
from sync.adapters.apns.provider_key import ProviderKey
from sync.adapters.http import Condition, Pages
from sync.adapters.memory import MemoryPresence
from sync.adapters.metrics import CONTENT_TYPE, Metrics
from sync.adapters.postgres import migrate
from sync.adapters.postgres.feed import PostgresFeedMarks, PostgresLeases
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.provider_tokens import PostgresProviderTokens
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.redis.link import Link as RedisLink
from sync.adapters.redis.presence import RedisPresence
from sync.adapters.sealing import Sealer
from sync.adapters.xmpp.link import Link
from sync.config import ApnsApp as AppSettings
from sync.config import Config
from sync.model.errors import StoreUnavailable
from sync.model.event import FeedPosition
from sync.model.push import PushOutcome, PushRequest, Verdict
from sync.model.query import App
from sync.ports import Presence, PushGate
from sync.rules.fold import Policies
from sync.rules.payloads import Wording
from sync.rules.view import CallPolicy
from sync.rules.wakes import WakePolicy
from sync.service.door import Door
from sync.service.feed import HostFeed
from sync.service.ingest import Ingest
from sync.service.leader import Leader
from sync.service.live import Live
from sync.service.pusher import Pusher
from sync.service.query import Queries
from sync.service.registration import Registrations
from sync.service.timers import Timers
from sync.startup import CannotStart

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
PING_SECONDS = 1.0


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


async def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises `CannotStart`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        service = await build(config, stack)
        return await service.run(stop)


def policies(config: Config) -> Policies:
    """The rules as configured."""
    filtering = frozenset(app.name for app in config.apns.apps if app.filtering) if config.apns else frozenset()
    return Policies(
        calls=CallPolicy(
            ring=timedelta(seconds=config.calls.ring_seconds),
            fallback=timedelta(seconds=config.calls.fallback_seconds),
        ),
        wakes=WakePolicy(
            coalesce=timedelta(seconds=config.push.coalesce_seconds),
            interval=timedelta(seconds=config.push.wake_interval_seconds),
            repeats=tuple(timedelta(seconds=seconds) for seconds in config.push.repeat_seconds),
            ring_unknown=config.calls.ring_unknown,
            filtering_apps=filtering,
        ),
    )


def app_of(settings: AppSettings) -> App:
    """An app as the service knows it."""
    return App(
        name=settings.name,
        bundle_id=settings.bundle_id,
        environment=settings.environment,
        filtering=settings.filtering,
        time_sensitive=settings.time_sensitive,
    )


def wording_of(settings: AppSettings) -> Wording:
    """An app's words."""
    return Wording(
        message=settings.loc_message,
        call=settings.loc_call,
        missed=settings.loc_missed,
        update=settings.loc_update,
        sound=settings.sound,
    )


async def open_pool(config: Config, stack: AsyncExitStack) -> Pool:
    """The database, with a schema that is ours."""
    pool = Pool(
        config.postgres.dsn.get_secret_value(),
        size=config.postgres.pool,
        timeout_seconds=config.postgres.statement_timeout_seconds,
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


async def open_gate(config: Config, pool: Pool, sealer: Sealer, stack: AsyncExitStack) -> PushGate:
    """Apple's push service, with warm connections."""
    if config.apns is None:
        return NoGate()
    try:
        pem = config.apns.key_file.read_text(encoding="ascii")
        key = ProviderKey(team_id=config.apns.team_id, key_id=config.apns.key_id, pem=pem)
    except (OSError, ValueError) as error:
        raise CannotStart(f"[apns] key_file: this is no signing key ({type(error).__name__}).") from None
    tokens = PostgresProviderTokens(pool.raw, key=key, seal=sealer, clock=SystemClock())
    apps = [
        ApnsApp(
            name=app.name,
            bundle_id=app.bundle_id,
            environment=app.environment,
            server=app.server and f"https://{app.server}",
            ca_file=app.ca_file,
        )
        for app in config.apns.apps
    ]
    gate = ApnsGate(apps, tokens)
    await gate.open()
    stack.push_async_callback(gate.close)
    return gate


def open_presence(config: Config, metrics: Metrics, stack: AsyncExitStack) -> Presence:
    """Who is online: in Redis for all processes, or in this one's memory."""
    if config.redis is None:
        return MemoryPresence()
    link = RedisLink(config.redis.url.get_secret_value(), observer=metrics)
    stack.push_async_callback(link.close)
    return RedisPresence(link, observer=metrics)


async def build(config: Config, stack: AsyncExitStack) -> "Service":
    """Everything constructed and joined; nothing runs yet."""
    metrics, clock = Metrics(), SystemClock()
    pool = await open_pool(config, stack)
    sealer = Sealer(config.secrets.ring)
    gate = await open_gate(config, pool, sealer, stack)
    presence = open_presence(config, metrics, stack)
    leases = PostgresLeases(config.postgres.dsn.get_secret_value())
    stack.push_async_callback(leases.close)
    service = Service(
        config,
        metrics=metrics,
        clock=clock,
        pool=pool,
        sealer=sealer,
        gate=gate,
        presence=presence,
        leases=leases,
    )
    pages = Pages(readiness=service.readiness, exposition=metrics.exposition, content_type=CONTENT_TYPE)
    try:
        await pages.start(config.http.listen, config.http.port)
    except OSError as error:
        raise CannotStart(f"[http] port: cannot listen on {config.http.port} ({error.strerror}).") from None
    stack.push_async_callback(pages.close)
    return service


class Service:
    """The parts, joined, and their life."""

    def __init__(
        self,
        config: Config,
        *,
        metrics: Metrics,
        clock: SystemClock,
        pool: Pool,
        sealer: Sealer,
        gate: PushGate,
        presence: Presence,
        leases: PostgresLeases,
    ) -> None:
        component, rules = config.component, policies(config)
        settings = config.apns.apps if config.apns else ()
        apps = {app.name: app_of(app) for app in settings}
        store, marks = PostgresStore(pool, clock, metrics), PostgresFeedMarks(pool)
        self._pool = pool
        self._link_task: asyncio.Task[None] | None = None
        self._link = Link(
            jid=component.jid,
            secret=component.password,
            server=component.server,
            port=component.port,
            on_stanza=self._take,
            on_up=self._up,
            on_down=self._down,
        )
        live = Live(component=component.jid, wire=self._link, presence=presence, observer=metrics)
        self._feeds = {
            host: HostFeed(
                host,
                component=component.jid,
                wire=self._link,
                marks=marks,
                presence=presence,
                clock=clock,
                observer=metrics,
                freshness_seconds=config.ingest.freshness_seconds,
            )
            for host in component.hosts
        }
        self._pusher = Pusher(
            store=store,
            gate=gate,
            presence=presence,
            sealer=sealer,
            clock=clock,
            observer=metrics,
            policies=rules,
            apps=apps,
            wordings={app.name: wording_of(app) for app in settings},
            in_flight=config.push.sends_in_flight,
        )
        self._ingest = Ingest(
            store=store,
            presence=presence,
            wire=self._link,
            clock=clock,
            observer=metrics,
            policies=rules,
            workers=config.ingest.workers,
            batch=config.ingest.batch,
            queue=config.ingest.queue,
            committed=self._committed,
            due=self._pusher.hint,
        )
        self._timers = Timers(store=store, pusher=self._pusher, clock=clock, observer=metrics, policies=rules)
        self._door = Door(
            component=component.jid,
            version=version("convsync"),
            wire=self._link,
            feeds=self._feeds,
            ingest=self._ingest,
            queries=Queries(store=store, live=live, clock=clock, observer=metrics),
            registrations=Registrations(
                component=component.jid,
                store=store,
                sealer=sealer,
                apps=apps,
                random_name=lambda: secrets.token_urlsafe(24),
            ),
            observer=metrics,
        )
        self._leader = Leader(
            component.jid,
            f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            leases=leases,
            clock=clock,
            observer=metrics,
            on_held=self._lead,
            on_lost=self._step_back,
        )

    # ---- joints ----------------------------------------------------------------------------------------------------

    def _take(self, stanza: Element) -> None:
        self._door.take(stanza)

    def _up(self) -> None:
        for feed in self._feeds.values():
            feed.connected()

    def _down(self) -> None:
        for feed in self._feeds.values():
            feed.disconnected()

    def _lead(self) -> None:
        self._link_task = asyncio.ensure_future(self._link.run())

    def _step_back(self) -> None:
        if self._link_task is not None:
            self._link_task.cancel()
            self._link_task = None

    def _committed(self, positions: Sequence[FeedPosition]) -> None:
        for host in {position.host for position in positions}:
            self._feeds[host].committed([position for position in positions if position.host == host])

    # ---- life ------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop`, or until a part fails that must not."""
        parts = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("ingest", self._ingest.run()),
                ("pusher", self._pusher.run()),
                ("timers", self._timers.run()),
                ("leader", self._leader.run()),
                *((f"feed-{host}", feed.run()) for host, feed in self._feeds.items()),
            )
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            log.critical("a part of the service failed", exc_info=task.exception(), extra={"task": task.get_name()})
        await self._stop()
        for task in (stopping, *parts):
            task.cancel()
        await asyncio.gather(stopping, *parts, return_exceptions=True)
        return 1 if failed else 0

    async def _stop(self) -> None:
        """Stop reading → drain → flush → close, within a limit."""
        log.info("stopping")
        self._link.pause()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._ingest.drain()
                await self._door.drain()
                for feed in self._feeds.values():
                    await feed.acknowledge()
                await self._pusher.drain()
        except (TimeoutError, StoreUnavailable) as error:
            log.warning("not everything was drained; the module sends it again", extra={"reason": str(error)})
        self._step_back()
        self._link.close()
        try:
            await self._leader.release()
        except StoreUnavailable:
            log.warning("the lease was not released; it runs out by itself")

    async def readiness(self) -> Sequence[Condition]:
        """What must hold before this process serves."""
        try:
            async with asyncio.timeout(PING_SECONDS), self._pool.connection() as connection:
                await connection.fetchval("SELECT 1")
            database = ""
        except (StoreUnavailable, TimeoutError):
            database = "the database does not answer"
        return [
            Condition(name="postgres", ok=not database, detail=database),
            Condition(name="lease", ok=self._leader.held, detail="another process speaks for the component"),
            Condition(name="server", ok=self._link.up, detail=self._link.refused or "not connected"),
            *(
                Condition(name=f"feed:{host}", ok=feed.subscribed, detail="not subscribed: is the feed module loaded?")
                for host, feed in self._feeds.items()
            ),
        ]
