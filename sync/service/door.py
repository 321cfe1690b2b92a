"""Where stanzas come in: sorts them, bounds how many requests are under way, and turns every failure into its XMPP
error.

Batches of the feed are taken at once, in order. IQs are answered by tasks, at most a fixed number at a time: the
server has no time limit of its own for a delegated request, so each one gets an answer, whatever happens here.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from time import perf_counter
from xml.etree.ElementTree import Element

from sync.model.errors import (
    BadRequest,
    Behind,
    FeatureNotImplemented,
    Forbidden,
    InternalServerError,
    Overloaded,
    RequestError,
    ServiceUnavailable,
    StoreUnavailable,
)
from sync.model.jid import bare, domain, resource
from sync.model.query import EnablePush, RegisterDevice, UnregisterDevice
from sync.model.registry import ListDevices, UnregisterPush
from sync.ports import Observer, Wire
from sync.protocol import commands, delegation, disco, envelope, feed, notification, publish, push
from sync.protocol import grants as advertised
from sync.protocol.delegation import Delegated
from sync.protocol.feed import FrameError
from sync.protocol.names import CONVSYNC, INBOX, PUSH, REWRITE, namespace
from sync.service.fanout import FanOut
from sync.service.feed import HostFeed
from sync.service.grants import DIALECTS, Grants
from sync.service.ingest import Ingest
from sync.service.publishes import Publishes
from sync.service.query import Queries
from sync.service.registration import Registrations
from sync.service.turns import Turns

log = logging.getLogger(__name__)

MAX_REQUESTS = 1000  # under way at a time; an answer is milliseconds of work, so more only wait longer
MAX_OF_ONE = MAX_REQUESTS // 10  # of those, by one account: one that asks without end keeps nobody out
MAX_DIRECT = MAX_REQUESTS // 2  # of those, to the component itself: anybody in the network may ask it
MAX_HEEDED = 16  # messages of anybody: what is beyond is dropped
# After that the asker is told to wait. A database that hangs has limits for each connection and each statement; a
# request has several of them, one behind the other, and so has the clearing up after each.
ANSWER_SECONDS = 20.0


class Door:
    """Everything that the server sends."""

    def __init__(
        self,
        *,
        component: str,
        version: str,
        wire: Wire,
        feeds: Mapping[str, HostFeed],
        ingest: Ingest,
        fanout: FanOut,
        queries: Queries,
        registrations: Registrations,
        publishes: Publishes,
        grants: Grants,
        observer: Observer,
        freshness_seconds: float,
    ) -> None:
        self._freshness, self._fanout = freshness_seconds, fanout
        self._component, self._version, self._wire = component, version, wire
        self._feeds, self._ingest, self._queries, self._registrations = feeds, ingest, queries, registrations
        self._publishes, self._grants, self._observer = publishes, grants, observer
        self._requests: dict[asyncio.Task[None], tuple[Callable[[RequestError], Element], asyncio.TimerHandle]] = {}
        self._direct: set[asyncio.Task[None]] = set()  # of those, what the component itself was asked
        self._asking: Counter[str] = Counter()  # of those, by accounts
        self._turns = Turns(wire)
        self._late: set[asyncio.Task[None]] = set()  # given up, and not at their end yet
        self._heeding: set[asyncio.Task[None]] = set()

    def take(self, stanza: Element) -> None:
        """One stanza from the server. Returns at once and never raises."""
        if stanza.tag == envelope.MESSAGE:
            self._message(stanza)
        elif stanza.tag == envelope.IQ and stanza.get("type") in ("get", "set"):
            if delegation.is_delegated(stanza):
                self._delegated(stanza)
            elif len(self._direct) >= MAX_DIRECT:
                self._wire.send(envelope.error(stanza, Overloaded()))
            elif task := self._start(self._answer_command(stanza), lambda refusal: envelope.error(stanza, refusal)):
                self._direct.add(task)
                task.add_done_callback(self._direct.discard)

    def turn_away(self, stanza: Element) -> None:
        """One stanza that comes while this process ends: who asks is told to ask again, who tells will tell again."""
        if stanza.tag != envelope.IQ or stanza.get("type") not in ("get", "set"):
            return
        if not delegation.is_delegated(stanza):
            self._wire.send(envelope.error(stanza, InternalServerError()))
            return
        try:
            answer = delegation.wrap_error(delegation.unwrap(stanza), InternalServerError())
        except RequestError as refusal:
            answer = envelope.error(stanza, refusal)
        self._wire.send(answer)

    async def drain(self) -> None:
        """Wait until every request is answered."""
        if self._requests:
            await asyncio.wait(self._requests)

    def dismiss(self) -> None:
        """The connection is about to be given up, and with it every answer: whoever waits for one asks again."""
        for task in tuple(self._requests):
            self._give_up(task, InternalServerError())

    # ---- the feed --------------------------------------------------------------------------------------------------

    def _message(self, stanza: Element) -> None:
        frame, sender = stanza.find(feed.FRAME), stanza.get("from", "")
        host = self._feeds.get(sender)
        if frame is None:
            if advertised.is_advertisement(stanza):
                self._grants.heard(sender, stanza)
            elif stanza.find(feed.STARTED) is not None:
                if host is not None:
                    host.resubscribe()
                else:
                    self._observer.ignored("foreign-host")
            elif (node := publish.removed(stanza)) is not None:
                self._heed(self._registrations.give_up(sender, node))
            return
        if host is None:
            log.error("a feed came from a host that is not configured", extra={"host": sender})
            self._observer.ignored("foreign-host")
            return
        try:
            host.take(frame, self._ingest)
        except FrameError as error:
            log.error("a batch of the feed cannot be trusted", extra={"host": sender, "reason": error.text})
            self._observer.ignored("bad-frame")
            host.resubscribe()

    def _heed(self, work: Coroutine[None, None, None]) -> None:
        """Something to do that nobody waits for."""
        if len(self._heeding) >= MAX_HEEDED:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._heeding.add(task)
        task.add_done_callback(self._heeding.discard)

    # ---- requests --------------------------------------------------------------------------------------------------

    def _start(
        self, work: Coroutine[None, None, None], refuse: Callable[[RequestError], Element]
    ) -> asyncio.Task[None] | None:
        if len(self._requests) >= MAX_REQUESTS:
            work.close()
            self._wire.send(refuse(Overloaded()))
            return None
        task = asyncio.ensure_future(work)
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._too_late, task)
        self._requests[task] = refuse, timer
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._requests:
            _, timer = self._requests.pop(task)
            timer.cancel()

    def _too_late(self, task: asyncio.Task[None]) -> None:
        if task in self._turns.waiting:
            self._give_up(task, Overloaded())
        elif task in self._requests:
            log.error("a request was not answered in time")
            self._give_up(task, InternalServerError())

    def _give_up(self, task: asyncio.Task[None], why: RequestError) -> None:
        """Tell the asker to ask again, however long what was begun takes to end."""
        refuse, timer = self._requests.pop(task)
        timer.cancel()
        if not task.done():
            task.cancel()
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            self._wire.send(refuse(why))

    def _reply(self, answer: Element, dialect: str, outcome: str, seconds: float) -> None:
        """Send the answer, unless the asker was told to wait meanwhile: what is cancelled may end in any error."""
        task = asyncio.current_task()
        if task in self._late:
            return
        self._wire.send(answer)
        self._observer.query(dialect, outcome, seconds)

    def _delegated(self, stanza: Element) -> None:
        try:
            asked = delegation.unwrap(stanza)
        except RequestError as refusal:
            self._wire.send(envelope.error(stanza, refusal))
            return
        account = bare(asked.sender)
        if self._asking[account] >= MAX_OF_ONE:
            self._wire.send(delegation.wrap_error(asked, Overloaded()))
        elif task := self._start(self._answer_delegated(asked), lambda refusal: delegation.wrap_error(asked, refusal)):
            self._asking[account] += 1
            task.add_done_callback(lambda _: self._asks_less(account))

    def _asks_less(self, account: str) -> None:
        self._asking[account] -= 1
        if not self._asking[account]:
            del self._asking[account]

    async def _answer_delegated(self, asked: Delegated) -> None:
        began = perf_counter()
        dialect = DIALECTS.get(namespace(asked.payload.tag), "other")
        try:
            answer, outcome = delegation.wrap_result(asked, await self._ask(asked)), "result"
        except Exception as error:  # noqa: BLE001 - the client gets an answer, whatever breaks
            refusal = told(error)
            answer, outcome = delegation.wrap_error(asked, refusal), refusal.condition
        self._reply(answer, dialect, outcome, perf_counter() - began)

    async def _ask(self, asked: Delegated) -> Element | None:
        """The user's own account only (invariant 8), after what came before the question (invariant 11)."""
        account, name = delegation.account_of(asked), resource(asked.sender)
        host = self._feeds.get(asked.host)
        if host is None or host.keeps_rooms:
            raise Forbidden("This host's accounts are not served here.")
        asking = namespace(asked.payload.tag)
        if asking not in DIALECTS:
            raise ServiceUnavailable
        if asking != PUSH:
            await self._fresh(account)
        if asking == REWRITE:
            return await self._queries.rewrites(account, name, asked.payload, asked.kind)
        if asking == INBOX:
            return await self._queries.inbox.answer(account, name, asked.payload, kind=asked.kind, request_id=asked.id)
        if asking == PUSH:
            await self._push(asked)
            return None
        async with self._turns.of(account):
            if asking == CONVSYNC:
                return await self._queries.convsync(account, name, asked.payload, asked.kind)
            if asked.kind == "get":
                return await self._queries.conversations(account, name, asked.payload)
            await self._queries.set(account, name, asked.payload)
        return None

    async def _fresh(self, account: str) -> None:
        own = self._feeds.get(domain(account))
        feeds = [feed for feed in self._feeds.values() if feed is own or (feed.keeps_rooms and feed.subscribed)]
        try:
            async with asyncio.timeout(self._freshness):  # however many they are
                for feed in feeds:
                    await feed.fresh()
                await self._ingest.barrier(account)
                await self._ingest.rooms_barrier()
                await self._fanout.catch_up(account)
        except TimeoutError:
            raise Behind from None

    async def _push(self, asked: Delegated) -> None:
        request = push.decode_push(asked.payload, kind=asked.kind, sender=asked.sender)
        if isinstance(request, EnablePush):
            await self._registrations.enable(request)
        else:
            await self._registrations.disable(request)

    # ---- requests to the component itself --------------------------------------------------------------------------

    async def _answer_command(self, stanza: Element) -> None:
        began = perf_counter()
        try:
            answer, outcome = envelope.result(stanza, await self._command(stanza)), "result"
        except Exception as error:  # noqa: BLE001 - as above
            refusal = told(error)
            answer, outcome = envelope.error(stanza, refusal), refusal.condition
        self._reply(answer, "component", outcome, perf_counter() - began)

    async def _command(self, stanza: Element) -> Element | None:
        # RFC 6120 §8.2.3: a request has exactly one payload.
        if len(stanza) != 1:
            raise BadRequest("There is not one payload.")
        payload, kind = stanza[0], stanza.get("type")
        offered = commands.offered(self._registrations.offered)
        if kind == "get" and payload.tag == disco.INFO:
            pushes = self._registrations.pushes
            providers = self._registrations.providers
            return disco.info(payload, commands=offered, providers=providers, pushes=pushes, version=self._version)
        if kind == "get" and payload.tag == disco.ITEMS:
            return disco.items(payload, component=self._component, commands=offered)
        if kind == "get" and payload.tag == disco.VERSION_QUERY:
            return disco.version(self._version)
        if kind == "set" and payload.tag == commands.COMMAND:
            return await self._run(payload, stanza)
        if payload.tag == notification.PUBSUB_QUERY:
            await self._publishes.take(payload, kind=kind or "", sender=stanza.get("from", ""))
            return None
        raise ServiceUnavailable

    async def _run(self, payload: Element, stanza: Element) -> Element:
        sender = stanza.get("from", "")
        if not self._publishes.admits(domain(sender)):
            raise FeatureNotImplemented("Accounts of this server cannot register devices here.")
        command = commands.decode_command(payload, sender=sender, request_id=stanza.get("id", ""))
        match command.request:
            case RegisterDevice() as request:
                registration = await self._registrations.register(request)
                return commands.registered(command, registration, self._component)
            case UnregisterDevice() as request:
                await self._registrations.unregister(request)
                return commands.unregistered(command)
            case ListDevices() as request:
                return commands.listed(command, await self._registrations.list(request))
            case UnregisterPush() as request:
                return commands.unregistered_named(command, await self._registrations.unregister_named(request))
            case commands.Cancel():
                return commands.canceled(command)
            case commands.AskForm(account):
                choice = command.node == commands.UNREGISTER_PUSH
                devices = await self._registrations.list(ListDevices(account=account)) if choice else ()
                return commands.form(command, devices)


def told(error: Exception) -> RequestError:
    """What the asker is told: a refusal as it is, of a failure on our side never the exception's own words."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("a request met the database away", extra={"reason": str(error)})
    else:
        log.error("a request failed", exc_info=error)
    return InternalServerError()
