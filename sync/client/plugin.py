"""The slixmpp plugin `convsync`: asks, follows live notices, keeps the cache, tells what happened by events.

Everything that is decided about pages and notices is decided in `cache`; here is when to ask, what to do when nobody
answers, and in which order an app is told. One list is under way at a time. A notice that shows a hole, or says that
there is more than it tells, is answered by asking.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from xml.etree.ElementTree import Element

from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.plugins import BasePlugin
from slixmpp.stanza import Message
from slixmpp.xmlstream import register_stanza_plugin
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from sync.client import codec, stanza
from sync.client.cache import Cache, Step, apply, glance, silence
from sync.client.devices import Devices
from sync.client.errors import (
    BadAnswer,
    BadRequest,
    ConvsyncError,
    NoAnswer,
    NotConnected,
    NotSupported,
    failure,
)
from sync.client.events import CallEnded, CallRings, Event
from sync.client.requests import LONGEST_PAUSE_SECONDS, Requests, pause_seconds
from sync.client.values import CHAT, Call, CallKey, Conversation, History, Key, Page, Quiet, Settings
from sync.protocol.names import CONVSYNC
from sync.protocol.serialise import parse

MAX_PAGE = 200  # conversations; the server gives no more
SELDOM_SECONDS = 900.0  # between questions to a server that does not speak the protocol


class Convsync(Devices, BasePlugin):
    """`xmpp.plugin["convsync"]` after `xmpp.register_plugin("convsync", config)`. Configuration:

    `auto` (True): ask when a session begins, after a hole, and again after a failure. `live` (True): ask for live
    notices. `with_messages`, `with_changes` (True): have last messages brought, and what happened to older ones.
    `preview` (None): of last messages in answers only the first so many characters, at most 256. Notices have all.
    `page_size` (100, at most 200): conversations in one answer. `timeout` (30): seconds to wait for an answer.
    `attempts` (6): how often a request is made while the server says `wait`.
    """

    name = "convsync"
    description = "Convsync: versioned conversations and pending calls"
    dependencies: ClassVar[set[str]] = {"xep_0030"}
    default_config: ClassVar[dict[str, Any]] = {
        "auto": True,
        "live": True,
        "with_messages": True,
        "with_changes": True,
        "preview": None,
        "page_size": 100,
        "timeout": 30,
        "attempts": 6,
    }
    stanza = stanza

    auto: bool
    live: bool
    with_messages: bool
    with_changes: bool
    preview: int | None
    page_size: int
    timeout: float
    attempts: int

    cache: Cache
    """What is known of the account. Set it before the session begins to what `storage.loads` gave."""

    # ---- slixmpp's side --------------------------------------------------------------------------------------------

    def plugin_init(self) -> None:
        self.cache = Cache()
        self._stream: Any = self.xmpp  # slixmpp is typed in part
        self._requests = Requests(self._stream)
        self._listing = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._again = False
        self._timers: dict[CallKey, asyncio.TimerHandle] = {}
        register_stanza_plugin(Message, stanza.Live)
        self._stream.register_handler(Callback("Convsync live", StanzaPath("message/convsync_live"), self._on_message))
        for event, handler in self._handlers().items():
            self._stream.add_event_handler(event, handler)
        if self._stream.session_bind_event.is_set():
            self._on_start(None)  # loaded amid a session

    def plugin_end(self) -> None:
        self._stream.remove_handler("Convsync live")
        for event, handler in self._handlers().items():
            self._stream.del_event_handler(event, handler)
        self._on_end(None)
        for timer in self._timers.values():
            timer.cancel()

    def _handlers(self) -> Mapping[str, Any]:
        begins = dict.fromkeys(("session_start", "session_resumed"), self._on_start)
        return begins | dict.fromkeys(("session_end", "disconnected"), self._on_end)

    def _on_start(self, _: object) -> None:
        self._requests.open()
        if self.auto:
            self._follow()

    def _on_end(self, _: object) -> None:
        self._requests.close()

    def _on_message(self, message: Any) -> None:
        # RFC 6120 §8.1.2.1: the own account, or nobody, is the server speaking for it; anybody else can be anybody.
        if message["from"].full not in ("", self._stream.boundjid.bare):
            return
        try:
            notice = codec.decode_notice(message["convsync_live"].xml)
        except BadAnswer:
            self._behind()
            return
        if self._take(apply(self.cache, notice)).ask:
            self._behind()

    def _behind(self) -> None:
        if self.auto:
            self._follow()
        else:
            self._stream.event("convsync_behind", self.cache)

    def _follow(self) -> None:
        """Ask, now or behind what is under way."""
        self._again = True
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._keep_up())

    async def _keep_up(self) -> None:
        failures = 0
        while self._again:
            self._again = False
            try:
                if self.cache.token is None and not await self.supported():
                    raise NotSupported("feature-not-implemented", "cancel", "The server does not speak urn:convsync:0.")
                await self.sync()
                failures = 0
            except NotConnected:
                return
            except ConvsyncError as error:
                self._stream.event("convsync_failed", error)
                self._again, failures = True, failures + 1
                # A server whose component restarts speaks nothing, too.
                longest = SELDOM_SECONDS if isinstance(error, NotSupported) else LONGEST_PAUSE_SECONDS
                if not await self._requests.pause(pause_seconds(failures, longest)):
                    return

    def _take(self, step: Step) -> Step:
        """The cache is what it will be before the first event is told, so that a handler may look into it."""
        changed, self.cache = step.cache != self.cache, step.cache
        for event in step.events:
            if isinstance(event, CallRings | CallEnded):
                self._time(event.call)
            self._stream.event(event.name, event)
        if changed:
            self._stream.event("convsync_cache", step.cache)
        return step

    def _time(self, call: Call) -> None:
        """A call that rings does so until its time is up by this client's clock, whatever it hears."""
        if timer := self._timers.pop(call.key, None):
            timer.cancel()
        if call.rings:
            self._timers[call.key] = asyncio.get_running_loop().call_later(call.left, self.silence, call.key)

    def silence(self, key: CallKey) -> None:
        """The user has answered or declined this call here: it does not ring any more, whatever late answers say."""
        self._take(silence(self.cache, key))

    # ---- lists -----------------------------------------------------------------------------------------------------

    async def supported(self) -> bool:
        """Whether the server speaks this protocol for one's account (XEP-0030 at the own bare JID)."""
        try:
            info = await self._stream.plugin["xep_0030"].get_info(jid=self._stream.boundjid.bare, timeout=self.timeout)
        except IqError as error:
            raise failure(error.condition, error.etype, error.text or "") from None
        except IqTimeout:
            raise NoAnswer("Service discovery was not answered.") from None
        return CONVSYNC in info["disco_info"]["features"]

    async def sync(
        self,
        *,
        live: bool | None = None,
        device: str | None = None,
        at_least: int | None = None,
        start_over: bool = False,
    ) -> tuple[Event, ...]:
        """Ask until nothing is missing; what happened, which was also told by slixmpp events page by page.

        `live`: whether this session gets live notices from now on, else as configured. A woken phone names its node
        (`device`) and the version of its push (`at_least`). `start_over`: load everything anew. Where it is interrupted
        the cache keeps the pages that came; the next call tells first what rings, and goes on with the next page.
        """
        news: list[Event] = []
        woken = {"device": device, "at_least": at_least}
        async with self._listing:
            if self.cache.chain is not None and not start_over:
                await self._resume(news, woken)
            token = None if start_over else self.cache.token
            await self._begin(news, token, {"live": self.live if live is None else live, **woken})
        return tuple(news)

    async def _resume(self, news: list[Event], woken: Mapping[str, Any]) -> None:
        """What is left of a list that was interrupted. Answers that continue one have no calls: those first."""
        with contextlib.suppress(BadRequest):  # is found out again, with the token
            page = await self.page(self.cache.token, max=0, **woken)
            news += self._take(glance(self.cache, page)).events
        await self._pages(news)

    async def _begin(self, news: list[Event], token: str | None, first: Mapping[str, Any]) -> None:
        """A list from its first page to its end, and then what has changed while it came."""
        while True:
            try:
                page = await self.page(token, **first)
            except BadRequest:
                if token is None:
                    raise
                page = await self.page(None, **first)  # the token was another server's, or another account's
            step = self._take(apply(self.cache, page))
            news += step.events
            several = await self._pages(news)
            if not (step.ask or several):
                return
            token = self.cache.token

    async def _pages(self, news: list[Event]) -> bool:
        """The pages that are left of a list; whether there were any."""
        several = False
        while self.cache.chain is not None:
            several = True
            try:
                page = await self.page(self.cache.chain.token, continued=True)
            except BadRequest:
                self.cache = replace(self.cache, chain=None, ahead=0)
                break
            news += self._take(apply(self.cache, page)).events
        return several

    async def page(
        self,
        token: str | None = None,
        *,
        continued: bool = False,
        max: int | None = None,  # noqa: A002 - the protocol's word
        live: bool | None = None,
        device: str | None = None,
        at_least: int | None = None,
        kind: str | None = None,
        status: str | None = None,
        unread: bool | None = None,
        pinned: bool | None = None,
        jid: str | None = None,
    ) -> Page:
        """One answer as it comes, which does nothing to the cache. For lists of one's own: with filters, of another
        size. `continued`: the token was given with `more`. `max` 0: only calls and totals.
        """
        request = codec.encode_sync(
            {
                "token": token,
                "max": min(self.page_size, MAX_PAGE) if max is None else max,
                "messages": None if self.with_messages else False,
                "changes": None if self.with_changes else False,
                "preview": self.preview,
                "live": live,
                "device": device,
                "at-least": at_least,
                "kind": kind,
                "status": status,
                "unread": unread,
                "pinned": pinned,
                "jid": jid,
            }
        )
        return codec.decode_page(await self._ask("get", request), asked=token, continued=continued)

    # ---- single questions ------------------------------------------------------------------------------------------

    async def conversation(self, jid: str, kind: str = CHAT) -> Conversation:
        """One conversation as it stands, without its last message; `status` may be `deleted`. Raises NotFound."""
        return codec.decode_conversation(await self._ask("get", codec.encode_conversation(Key(jid, kind))))

    async def call(self, id: str, jid: str | None = None) -> Call:  # noqa: A002 - the protocol's word
        """One call: does it still ring? `jid`: of this peer, else the newest one of that id. Raises NotFound."""
        return codec.decode_call(await self._ask("get", codec.encode_call(id, jid)))

    async def changes(
        self,
        jid: str,
        kind: str = CHAT,
        *,
        since: int = 0,
        max: int | None = None,  # noqa: A002
    ) -> History:
        """What happened in one conversation since a version."""
        request = codec.encode_changes(Key(jid, kind), since=since, most=max)
        return codec.decode_history(await self._ask("get", request))

    async def set(self, *wishes: Settings) -> dict[Key, int]:
        """Set properties of up to 100 conversations, all or nothing; the versions that they have then. Raises Conflict
        where an `if_version` does not hold, NotFound for what does not exist.
        """
        return codec.decode_set(await self._ask("set", codec.encode_set(wishes)))

    async def set_quiet(self, quiet: Quiet | None) -> Quiet | None:
        """When the account wants to be left alone from now on, all of it; None = never. What holds then."""
        return codec.decode_quiet(await self._ask("set", codec.encode_quiet(quiet)))

    async def mark_read(self, jid: str, stanza_id: str, kind: str = CHAT) -> int:
        """Read up to the message with this stanza-id, as a displayed marker would say; the conversation's version."""
        return (await self.set(Settings(jid=jid, kind=kind, read=stanza_id)))[Key(jid, kind)]

    def message(self, xml: str) -> Message:
        """The stanza of a `Last`, `Change` or `Call` as slixmpp's."""
        made: Any = Message  # untyped
        found: Message = made(self._stream, xml=parse(xml))
        return found

    async def _ask(self, kind: str, payload: Element) -> Element:
        return await self._requests.ask(kind, payload, seconds=self.timeout, attempts=self.attempts)
