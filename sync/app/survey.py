"""The server's side as `convsync check` sees it: told by the running service, or seen by a visit when none runs.

A second connection under the same JID may throw the first one out. So a visitor holds the service's lease while it is
there, as a service would, and whoever holds it already is asked by HTTP.
"""

import asyncio
import secrets
import socket
from collections.abc import Awaitable
from xml.etree.ElementTree import Element

from aiohttp import ClientError, ClientSession, ClientTimeout

from sync.adapters.metrics import Metrics
from sync.adapters.postgres.feed import PostgresLeases
from sync.adapters.xmpp.link import Link
from sync.app.drivers import SystemClock, tls_of
from sync.config import Config
from sync.model.survey import Survey
from sync.protocol.survey import decode_survey
from sync.service.grants import SETTLE_SECONDS, Grants
from sync.service.leader import Leader
from sync.service.survey import Surveyor, Visitor

ASK_SECONDS = 30.0  # a survey asks a host a few questions, each with the wire's own limit
CONNECT_SECONDS = 8.0


class NoSurvey(Exception):
    """The server's side could not be seen; says why."""


async def running(config: Config) -> Survey:
    """What the service that holds the lease says. Raises `NoSurvey`."""
    listen = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http.listen, config.http.listen)  # noqa: S104 - to be asked
    where = f"http://{f'[{listen}]' if ':' in listen else listen}:{config.http.port}/survey"
    try:
        async with ClientSession(timeout=ClientTimeout(ASK_SECONDS)) as session, session.get(where) as answer:
            if answer.status != 200:
                raise NoSurvey(f"{where} has no connection to the server")
            return decode_survey(await answer.text())
    except (ClientError, TimeoutError, OSError):
        raise NoSurvey(f"{where} does not answer: ask on the machine where it runs, with its configuration") from None
    except ValueError:
        raise NoSurvey(f"{where} is another version of this program") from None


async def visit(config: Config) -> Survey:
    """Connect, ask, leave. Raises `NoSurvey`."""
    component = config.component
    clock, metrics = SystemClock(), Metrics()
    grants = Grants(component.hosts, clock=clock, observer=metrics)
    held, up = asyncio.Event(), asyncio.Event()
    dsn, own = config.postgres.lease_session
    leases = PostgresLeases(dsn, prepared=own)
    leader = Leader(
        component.jid,
        f"check:{socket.gethostname()}:{secrets.token_hex(4)}",
        leases=leases,
        clock=clock,
        observer=metrics,
        on_held=held.set,
        on_lost=held.clear,
    )

    def take(stanza: Element) -> None:
        visitor.take(stanza)

    def came_up() -> None:
        grants.connected()
        up.set()

    link = Link(
        jid=component.jid,
        secret=component.password,
        server=component.server,
        port=component.port,
        on_stanza=take,
        on_up=came_up,
        on_down=grants.disconnected,
        tls=tls_of(config),
    )
    visitor = Visitor(wire=link, grants=grants)
    surveyor = Surveyor(
        component=component.jid, wire=link, hosts=component.hosts, muc_hosts=component.muc_hosts, grants=grants
    )
    tasks = [asyncio.create_task(leader.run())]
    try:
        await _within(CONNECT_SECONDS, held.wait(), "another process has taken the component meanwhile")
        tasks.append(asyncio.create_task(link.run()))
        await _within(CONNECT_SECONDS, up.wait(), "the server does not take the component")
        await clock.sleep(SETTLE_SECONDS + 0.1)
        seen = await surveyor.survey()
        return Survey(component=seen.component, hosts=seen.hosts, large=await surveyor.takes_large())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        link.close()
        await leader.release()
        await leases.close()


async def _within(seconds: float, work: Awaitable[object], why: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        raise NoSurvey(why) from None
