"""Asks the server what a working sync needs of it, without changing anything: no subscription, no message, nothing
stored. For `convsync check`, by the running service on its own connection, or by a visitor when none runs.

Of one account's archive the first microsecond of 1970 is asked for: that it may be read is what counts.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

from sync.model.errors import Refused, RequestError, ServiceUnavailable
from sync.model.survey import OLD, UNKNOWN, HostSurvey, Survey
from sync.ports import Wire
from sync.protocol import archive, commands, delegation, disco, envelope, feed
from sync.protocol import survey as found
from sync.protocol.feed import FrameError
from sync.protocol.grants import is_advertisement
from sync.protocol.names import DISCO_INFO, DISCO_ITEMS, clark
from sync.service.feed import HostFeed
from sync.service.grants import Grants

LARGE_BYTES = 1_000_000  # about 1,200 conversations in one answer; Prosody's default limit is half of it
NOT_THERE = frozenset({"service-unavailable", "feature-not-implemented"})  # RFC 6120 §8.4, as servers answer it


class Surveyor:
    """Asks. `feeds` of a running service say what the modules told of themselves, and why they refuse."""

    def __init__(
        self,
        *,
        component: str,
        wire: Wire,
        hosts: Sequence[str],
        muc_hosts: Sequence[str],
        grants: Grants,
        feeds: Mapping[str, HostFeed] | None = None,
    ) -> None:
        self._component, self._wire, self._grants = component, wire, grants
        self._hosts, self._muc_hosts, self._feeds = hosts, muc_hosts, feeds or {}

    async def survey(self) -> Survey:
        """All hosts, asked at once; each question has the wire's own limit."""
        asked = [self._host(host, rooms=False) for host in self._hosts]
        asked += [self._host(host, rooms=True) for host in self._muc_hosts]
        seen = await asyncio.gather(*asked)
        server = next((one.server for one in seen if one.server), "")  # a host of rooms does not say
        hosts = tuple(replace(one, server=one.server or server) for one in seen)
        return Survey(component=self._component, hosts=hosts)

    async def takes_large(self) -> bool:
        """Whether a large stanza gets through. A server that refuses it ends the connection: ask this last."""
        probe = Element(clark("urn:convsync:probe", "probe"))
        probe.text = "x" * LARGE_BYTES
        answer = await self._ask(self._hosts[0], probe)
        return isinstance(answer, Element) or answer not in ("disconnected", "not-connected", "no-answer")

    async def _host(self, host: str, *, rooms: bool) -> HostSurvey:
        info = await self._ask(host, Element(clark(DISCO_INFO, "query")))
        module, readable = await self._module(host)
        feed, told = self._feeds.get(host), self._feeds[host].said if host in self._feeds else None
        return HostSurvey(
            host=host,
            rooms=rooms,
            server=told.server if told else (found.software(info) if isinstance(info, Element) else ""),
            module=module,
            module_version=told.module_version if told else "",
            why=feed.why if feed else "",
            archive=readable,
            missing=self._grants.missing(host),
            uncovered=() if rooms else await self._uncovered(host),
        )

    async def _module(self, host: str) -> tuple[str, str]:
        """Whether the feed module answers, and whether it lets us read an archive."""
        names = archive.accounts_request(None)
        names.set("max", "1")
        listed = await self._ask(host, names)
        if isinstance(listed, Element):
            return "", await self._archive(host, listed)
        # The archive may be shut, or unknown to an older module: every module knows this one.
        known = await self._ask(host, feed.sessions_request())
        if not isinstance(known, Element):
            return known, UNKNOWN
        return "", OLD if listed in NOT_THERE else listed

    async def _archive(self, host: str, listed: Element) -> str:
        try:
            names = archive.decode_accounts(listed, host=host).jids
        except FrameError:
            return OLD
        if not names:
            return UNKNOWN
        nothing = archive.archive_request(names[0], start=0, end=1, after=None, limit=1)
        answer = await self._ask(host, nothing)
        if isinstance(answer, Element):
            return ""
        return UNKNOWN if answer == "item-not-found" else answer

    async def _uncovered(self, host: str) -> tuple[str, ...]:
        items = await self._ask(host, Element(clark(DISCO_ITEMS, "query")))
        if not isinstance(items, Element):
            return ()
        ours = {self._component, *self._hosts, *self._muc_hosts}
        strange = [name for name in found.services(items) if name not in ours]
        answers = await asyncio.gather(*(self._ask(name, Element(clark(DISCO_INFO, "query"))) for name in strange))
        told = zip(strange, answers, strict=True)
        return tuple(name for name, info in told if isinstance(info, Element) and found.is_rooms_host(info))

    async def _ask(self, host: str, payload: Element) -> Element | str:
        """The answer's payload, or the condition of the refusal."""
        request = envelope.iq("get", sender=self._component, to=host, request_id="survey", payload=payload)
        try:
            answer = await self._wire.request(request)
        except Refused as refused:
            return refused.condition
        return answer[0] if len(answer) else Element("nothing")


class Visitor:
    """The component's manners while no service runs: ejabberd tells what it delegates only after its questions were
    answered, and whatever users ask meanwhile gets an answer.
    """

    def __init__(self, *, wire: Wire, grants: Grants) -> None:
        self._wire, self._grants = wire, grants

    def take(self, stanza: Element) -> None:
        """One stanza from the server."""
        if stanza.tag == envelope.MESSAGE:
            if is_advertisement(stanza):
                self._grants.heard(stanza.get("from", ""), stanza)
        elif stanza.tag == envelope.IQ and stanza.get("type") in ("get", "set"):
            self._wire.send(answered(stanza))


def answered(stanza: Element) -> Element:
    """What a visitor answers: who it is, and that nobody serves."""
    try:
        if delegation.is_delegated(stanza):
            return delegation.wrap_error(delegation.unwrap(stanza), ServiceUnavailable())
        if len(stanza) == 1 and stanza[0].tag == disco.INFO and stanza.get("type") == "get":
            return envelope.result(stanza, disco.info(stanza[0], commands=commands.NAMES))
    except RequestError as refusal:
        return envelope.error(stanza, refusal)
    return envelope.error(stanza, ServiceUnavailable())
