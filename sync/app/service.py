"""The parts, joined, and their life.

Start: the lease before the connection, so that no two processes ever speak as one component. Stop: stop reading,
drain what was read, acknowledge it, let the pushes under way finish, close. What is cut short is not lost: the module
sends unacknowledged events again, and an attempted push without an outcome counts as uncertain.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from importlib.metadata import version
from xml.etree.ElementTree import Element

from sync.adapters.http import Condition
from sync.adapters.postgres.bootstrap import PostgresBootstraps
from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.adapters.postgres.housekeeping import PostgresHousekeeping
from sync.adapters.postgres.rooms import PostgresRooms
from sync.adapters.postgres.store import PostgresStore
from sync.adapters.postgres.watch import PostgresWatches
from sync.adapters.xmpp.link import Link
from sync.app import settings
from sync.app.drivers import Drivers
from sync.app.registry import make_registrations
from sync.app.senders import make_sender, needs_server
from sync.config import Config
from sync.model.conversation import Account
from sync.model.errors import StoreUnavailable
from sync.model.event import FeedPosition
from sync.ports import Store
from sync.protocol.survey import encode_survey
from sync.service.arrivals import Arrivals
from sync.service.attendance import Attendance
from sync.service.bootstrap import Bootstrapper
from sync.service.bridge import Bridge
from sync.service.door import Door
from sync.service.fanout import FanOut
from sync.service.feed import HostFeed, Reach
from sync.service.grants import Grants
from sync.service.housekeeping import Housekeeper
from sync.service.ingest import Ingest
from sync.service.leader import Leader
from sync.service.live import Live
from sync.service.notices import Notices
from sync.service.publishes import Publishes
from sync.service.pusher import Pusher
from sync.service.query import Queries
from sync.service.survey import Surveyor
from sync.service.timers import Timers
from sync.service.watch import Watchers

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
PING_SECONDS = 1.0


class Service:
    """One process that serves."""

    def __init__(self, config: Config, drivers: Drivers) -> None:
        self._config, self._drivers = config, drivers
        self._policies = settings.policies(config, were_apart=drivers.were_apart)
        self._link_task: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._ending = False  # nothing new is taken any more
        self._link = self._make_link()
        store = PostgresStore(drivers.pool, drivers.clock, drivers.metrics, stored=self._stored)
        self._watchers = self._make_watchers(store)
        self._attendance = Attendance(drivers.presence, self._watchers)
        rooms = {host: self._make_feed(host) for host in config.component.muc_hosts}
        self._feeds = {host: self._make_feed(host, tuple(rooms.values())) for host in config.component.hosts} | rooms
        self._pusher = self._make_pusher(store)
        self._fanout = FanOut(
            store=store,
            rooms=PostgresRooms(drivers.pool),
            clock=drivers.clock,
            observer=drivers.metrics,
            policies=self._policies,
            due=self._pusher.committed,
            commit=self._pusher.transact,
            arrivals=Arrivals(self._feeds, lambda: self._ingest),
        )
        self._ingest = self._make_ingest(store)
        self._timers = Timers(
            store=store,
            pusher=self._pusher,
            clock=drivers.clock,
            observer=drivers.metrics,
            policies=self._policies,
        )
        self._housekeeper = Housekeeper(
            housekeeping=PostgresHousekeeping(drivers.pool, drivers.metrics),
            retention=settings.retention(config),
            leads=lambda: self._leader.held,
            clock=drivers.clock,
            observer=drivers.metrics,
        )
        self.registrations = make_registrations(config, drivers, store)
        self._grants = Grants(config.component.hosts, clock=drivers.clock, observer=drivers.metrics)
        self._door = self._make_door(store)
        # Sessions are told when an archive is read, and not of each of its pages.
        quiet = PostgresStore(drivers.pool, drivers.clock, drivers.metrics)
        self._bootstrapper = self._make_bootstrapper(quiet)
        self._leader = Leader(
            config.component.jid,
            f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            leases=drivers.leases,
            clock=drivers.clock,
            observer=drivers.metrics,
            on_held=self._lead,
            on_lost=self._step_back,
        )

    # ---- the parts -------------------------------------------------------------------------------------------------

    def _make_link(self) -> Link:
        component = self._config.component
        return Link(
            jid=component.jid,
            secret=component.password,
            server=component.server,
            port=component.port,
            on_stanza=self._take,
            on_up=self._up,
            on_down=self._down,
            tls=self._drivers.tls,
        )

    def _make_feed(self, host: str, behind: tuple[HostFeed, ...] = ()) -> HostFeed:
        return HostFeed(
            host,
            component=self._config.component.jid,
            wire=self._link,
            marks=PostgresFeedMarks(self._drivers.pool),
            presence=self._attendance,
            clock=self._drivers.clock,
            observer=self._drivers.metrics,
            freshness_seconds=self._config.ingest.freshness_seconds,
            reach=Reach(
                rooms=host in self._config.component.muc_hosts,
                hosts=frozenset(self._config.component.hosts),
                muc_hosts=frozenset(self._config.component.muc_hosts),
            ),
            behind=behind,
        )

    def _make_pusher(self, store: Store) -> Pusher:
        return Pusher(
            store=store,
            sender=make_sender(self._config, self._drivers, self._link),
            presence=self._drivers.presence,
            bus=self._drivers.bus,
            clock=self._drivers.clock,
            observer=self._drivers.metrics,
            policies=self._policies,
            keys=settings.keys(self._config),
            in_flight=self._config.push.sends_in_flight,
            reaches=lambda queue: self._link.up or not needs_server(queue),
        )

    def _make_ingest(self, store: Store) -> Ingest:
        return Ingest(
            store=store,
            presence=self._attendance,
            wire=self._link,
            clock=self._drivers.clock,
            observer=self._drivers.metrics,
            policies=self._policies,
            workers=self._config.ingest.workers,
            batch=self._config.ingest.batch,
            queue=self._config.ingest.queue,
            committed=self._committed,
            due=self._pusher.committed,
            owed=self._fanout.owe,
            commit=self._pusher.transact,
        )

    def _make_bootstrapper(self, store: Store) -> Bootstrapper:
        return Bootstrapper(
            component=self._config.component.jid,
            store=store,
            bootstraps=PostgresBootstraps(self._drivers.pool),
            wire=self._link,
            feeds=self._feeds,
            ingest=self._ingest,
            live=self._make_live(),
            clock=self._drivers.clock,
            observer=self._drivers.metrics,
            policies=self._policies,
            pace=settings.pace(self._config),
            leads=lambda: self._leader.held,
            owed=self._fanout.owe,
            moved=self._watchers.moved,
        )

    def _make_live(self) -> Live:
        return Live(
            component=self._config.component.jid,
            wire=self._link,
            presence=self._drivers.presence,
            observer=self._drivers.metrics,
        )

    def _make_watchers(self, store: Store) -> Watchers:
        drivers = self._drivers
        return Watchers(
            self._config.component.hosts,
            watches=PostgresWatches(drivers.pool),
            notices=Notices(store=store, clock=drivers.clock),
            presence=drivers.presence,
            live=self._make_live(),
            clock=drivers.clock,
            observer=drivers.metrics,
        )

    def _make_door(self, store: Store) -> Door:
        jid, metrics = self._config.component.jid, self._drivers.metrics
        return Door(
            component=jid,
            version=version("convsync"),
            wire=self._link,
            feeds=self._feeds,
            ingest=self._ingest,
            fanout=self._fanout,
            queries=Queries(
                store=store,
                live=self._make_live(),
                watchers=self._watchers,
                bridge=Bridge(
                    component=jid, wire=self._link, feeds=self._feeds, clock=self._drivers.clock, observer=metrics
                ),
                clock=self._drivers.clock,
                observer=metrics,
                policies=self._policies,
                due=self._pusher.committed,
            ),
            registrations=self.registrations,
            publishes=Publishes(
                component=jid,
                wire=self._link,
                store=store,
                sealer=self._drivers.sealer,
                terms=settings.terms(self._config),
                token_apps=settings.token_apps(self._config),
                policies=self._policies,
                due=self._pusher.hint,
                observer=metrics,
            ),
            grants=self._grants,
            observer=metrics,
            freshness_seconds=self._config.ingest.freshness_seconds,
        )

    # ---- joints ----------------------------------------------------------------------------------------------------

    def _take(self, stanza: Element) -> None:
        if self._ending:
            self._door.turn_away(stanza)
        else:
            self._door.take(stanza)

    def _up(self) -> None:
        self._grants.connected()
        for feed in self._feeds.values():
            feed.connected()

    def _down(self) -> None:
        self._grants.disconnected()
        for feed in self._feeds.values():
            feed.disconnected()

    def _lead(self) -> None:
        self._fanout.lead()
        self._link_task = asyncio.ensure_future(self._speak())
        self._link_task.add_done_callback(self._ended)

    async def _speak(self) -> None:
        """Whom to tell is known before the server says who is there."""
        await self._watchers.load()
        await self._link.run()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The connection's task never ends by itself: if it does, the process must not keep the lease."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the connection failed", extra={"error": type(error).__name__})
            self._failed.set()

    def _step_back(self) -> None:
        self._door.dismiss()
        self._fanout.step_back()
        self._watchers.clear()
        if self._link_task is not None:
            self._link_task.cancel()
            self._link_task = None

    def _stored(self, accounts: Sequence[Account]) -> None:
        self._watchers.committed(accounts)

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
                ("fan-out", self._fanout.run()),
                ("pusher", self._pusher.run()),
                ("timers", self._timers.run()),
                ("leader", self._leader.run()),
                ("housekeeper", self._housekeeper.run()),
                ("bootstrap", self._bootstrapper.run()),
                ("live", self._watchers.run()),
                *((f"feed-{host}", feed.run()) for host, feed in self._feeds.items()),
            )
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        failing = asyncio.create_task(self._failed.wait(), name="connection")
        done, _ = await asyncio.wait([stopping, failing, *parts], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            log.critical("a part of the service failed", exc_info=task.exception(), extra={"task": task.get_name()})
        await self._stop()
        for task in (stopping, failing, *parts):
            task.cancel()
        await asyncio.gather(stopping, failing, *parts, return_exceptions=True)
        return 1 if failed else 0

    async def _stop(self) -> None:
        """Stop reading → drain → flush → close, within a limit."""
        log.info("stopping")
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._ingest.drain()
                await self._door.drain()
                for feed in self._feeds.values():
                    await feed.acknowledge()
                # App servers have answers to give. Unread, they would count as none, and it would be published again.
                self._ending = True
                self._link.resume()
                await self._pusher.drain()
                await self._watchers.keep()
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
            async with asyncio.timeout(PING_SECONDS), self._drivers.pool.connection() as connection:
                await connection.fetchval("SELECT 1")
            database = ""
        except (StoreUnavailable, TimeoutError):
            database = "the database does not answer"
        return [
            Condition(name="postgres", ok=not database, detail=database),
            Condition(name="lease", ok=self._leader.held, detail="another process speaks for the component"),
            Condition(name="server", ok=self._link.up, detail=self._link.refused or "not connected"),
            *(
                Condition(name=f"feed:{host}", ok=feed.subscribed, detail=feed.why)
                for host, feed in self._feeds.items()
            ),
            *(
                Condition(name=f"delegation:{host}", ok=not lacking, detail=" ".join(lacking), required=False)
                for host in self._config.component.hosts
                for lacking in [self._grants.missing(host)]
            ),
            *(
                Condition(name=f"push:{name}", ok=False, detail=why, required=False)
                for name, why in self._pusher.troubles().items()
            ),
        ]

    async def survey(self) -> str | None:
        """The server's side as `convsync check` asks for it, as JSON; None without a connection to the server."""
        if not self._link.up:
            return None
        component = self._config.component
        surveyor = Surveyor(
            component=component.jid,
            wire=self._link,
            hosts=component.hosts,
            muc_hosts=component.muc_hosts,
            grants=self._grants,
            feeds=self._feeds,
        )
        return encode_survey(await surveyor.survey())
