"""A client's request reaches the component behind what the account's other sessions were handed before it, though their
processes tell that and not its own (docs/feed.md §7). The component is a test's own and answers with what it was told.
"""

import asyncio
import statistics
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Self
from xml.sax.saxutils import quoteattr

import pytest
import pytest_asyncio

from tests.system.ejabberd_server import SECONDS, UNHURRIED, Ejabberd
from tests.system.prosody_server import COMPONENT, DOMAIN, SECRET
from tests.system.xmpp_client import CLIENT, XmppClient
from tests.system.xmpp_component import FEED, FeedComponent

pytest_plugins = ("tests.system.ejabberd_feed",)

OWN = "urn:convsync:0"
DELEGATION = "urn:xmpp:delegation:1"
BARE = f"{DELEGATION}:bare:"
DISCO = "http://jabber.org/protocol/disco#info"
BODY = f"{CLIENT}body"
PATIENCE = UNHURRIED["queries", "PATIENCE"] / 1000  # seconds that a request waits for another session
SLOW = "<slow xmlns='urn:convsync:test' ms='300'/>"


class Delegate(FeedComponent):
    """Has a namespace of the accounts. `log`: messages that were told, and names of requests, as they came."""

    log: list[str]

    @classmethod
    async def connect(cls, jid: str, secret: str, port: int, *, host: str) -> Self:
        cls.log = []
        self = await super().connect(jid, secret, port, host=host)
        await self.wait_for(self._has_been_given, past=True)
        return self

    @staticmethod
    def _has_been_given(element: ET.Element) -> bool:
        return any(d.get("namespace") == OWN for d in element.iter(f"{{{DELEGATION}}}delegated"))

    def on_element(self, element: ET.Element) -> None:
        super().on_element(element)
        self.log += [
            f"{event.get('direction')} {event.findtext(f'{CLIENT}message/{BODY}')}"
            for event in element.iter(f"{FEED}event")
            if event.get("kind") == "message"
        ]
        asked, ours = element.find(f"{{{DISCO}}}query"), element.find(f".//{CLIENT}iq")
        if asked is not None and (node := asked.get("node", "")) == BARE + OWN:
            self.answer(element, f"<query xmlns='{DISCO}' node={quoteattr(node)}><feature var='{OWN}'/></query>")
        elif ours is not None and element.get("type") == "set":
            self.log.append(name := ours[0].get("name", ""))
            known = "\n".join(self.log[: self.log.index(name)])
            addresses = f"from={quoteattr(ours.get('to', ''))} to={quoteattr(ours.get('from', ''))}"
            self.answer(
                element,
                f"<delegation xmlns='{DELEGATION}'><forwarded xmlns='urn:xmpp:forward:0'>"
                f"<iq xmlns='jabber:client' type='result' id={quoteattr(ours.get('id', ''))} {addresses}>"
                f"<known xmlns='{OWN}'>{known}</known></iq></forwarded></delegation>",
            )

    def answer(self, element: ET.Element, payload: str) -> None:
        to, iq_id = element.get("from", ""), element.get("id", "")
        self.send(f"<iq type='result' from='{self.component}' to='{to}' id={quoteattr(iq_id)}>{payload}</iq>")

    async def has(self, *names: str) -> None:
        """Returns when these have come."""
        async with asyncio.timeout(SECONDS):
            while not set(names) <= set(self.log):  # noqa: ASYNC110 - a log has no event to wait for
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def delegate(ejabberd: Ejabberd) -> AsyncIterator[Delegate]:
    component = await Delegate.connect(COMPONENT, SECRET, ejabberd.component_port, host=DOMAIN)
    await component.subscribe(ejabberd.told)
    await component.caught_up()
    component.log.clear()
    yield component
    ejabberd.told |= component.ack_all()
    await component.caught_up()
    await component.cut()


class Account:
    """An account's sessions, and a peer who writes to all of them. Named so that the first one tells."""

    def __init__(self, peer: XmppClient, *sessions: XmppClient) -> None:
        self.peer, self.sessions = peer, sessions
        self.jid = sessions[0].account

    @classmethod
    async def come(cls, server: Ejabberd, number: int) -> Self:
        name = server.name()
        resources = [chr(ord("z") - i) for i in range(number)]
        peer = await server.client(f"{server.name()}/peer")
        return cls(peer, *[await server.client(f"{name}/{r}", carbons=True) for r in resources])

    async def leave(self) -> None:
        for session in (self.peer, *self.sessions):
            await session.close()


def question(name: str) -> str:
    return f"<ask xmlns='{OWN}' name='{name}'/>"


async def ask(session: XmppClient, name: str, kind: str = "get") -> list[str]:
    """What the component had been told before."""
    return ((await session.iq(kind, question(name)))[0].text or "").splitlines()


async def timed(session: XmppClient, name: str) -> float:
    began = asyncio.get_running_loop().time()
    await ask(session, name)
    return asyncio.get_running_loop().time() - began


async def shown(session: XmppClient, text: str) -> None:
    await session.wait_for(lambda e: any(body.text == text for body in e.iter(BODY)), past=True)


@pytest.mark.parametrize("kind", ["get", "set"])
async def test_what_a_session_shows_as_a_copy_is_known_when_it_asks(
    ejabberd: Ejabberd, delegate: Delegate, kind: str
) -> None:
    ann = await Account.come(ejabberd, 3)
    ann.peer.message(ann.jid, f"<body>hello</body>{SLOW}")
    await shown(ann.sessions[1], "hello")
    assert "in hello" in await ask(ann.sessions[1], "asked", kind)
    await ann.leave()


async def test_what_a_session_sees_as_a_carbon_is_known_when_it_asks(ejabberd: Ejabberd, delegate: Delegate) -> None:
    ann = await Account.come(ejabberd, 2)
    ann.sessions[0].message(ann.peer.account, f"<body>mine</body>{SLOW}")
    await shown(ann.sessions[1], "mine")
    assert "out mine" in await ask(ann.sessions[1], "of what the other wrote")
    ann.peer.message(ann.sessions[0].jid, f"<body>theirs</body>{SLOW}")
    await shown(ann.sessions[1], "theirs")
    assert "in theirs" in await ask(ann.sessions[1], "of what the other got")
    await ann.leave()


async def test_sessions_that_ask_at_once_do_not_wait_for_each_other(ejabberd: Ejabberd, delegate: Delegate) -> None:
    ann = await Account.come(ejabberd, 3)

    async def see_and_ask(session: XmppClient, text: str) -> float:
        await shown(session, text)
        began = asyncio.get_running_loop().time()
        assert f"in {text}" in await ask(session, f"{text} at {session.resource}")
        session.received.clear()
        return asyncio.get_running_loop().time() - began

    took = []
    for number in range(100):
        ann.peer.chat(ann.jid, text := f"m{number}")
        took += await asyncio.gather(*(see_and_ask(session, text) for session in ann.sessions))
    assert statistics.median(took) < PATIENCE / 4
    await ann.leave()


async def test_a_session_that_hangs_is_waited_for_once_and_again_when_it_is_back(
    ejabberd: Ejabberd, delegate: Delegate
) -> None:
    ann = await Account.come(ejabberd, 3)
    first, second, third = ann.sessions
    await ejabberd.control(ann.peer, "suspend", session=first.jid)
    assert await timed(second, "one") >= PATIENCE
    assert [await timed(second, f"then {i}") < PATIENCE for i in range(3)] == [True] * 3
    ann.peer.message(third.jid, f"<body>for another</body>{SLOW}")
    await shown(second, "for another")  # a carbon
    assert "in for another" in await ask(second, "two")
    await ejabberd.control(ann.peer, "resume", session=first.jid)
    await first.ping()
    await second.ping()
    ann.peer.message(ann.jid, f"<body>hello</body>{SLOW}")
    await shown(second, "hello")
    assert "in hello" in await ask(second, "three")
    await ann.leave()


async def test_other_requests_wait_for_nobody(ejabberd: Ejabberd, delegate: Delegate) -> None:
    ann = await Account.come(ejabberd, 2)
    await ejabberd.control(ann.peer, "suspend", session=ann.sessions[0].jid)
    waiting = asyncio.ensure_future(ask(ann.sessions[1], "asked"))
    await asyncio.sleep(0)
    await ann.sessions[1].iq("get", "<query xmlns='jabber:iq:roster'/>")
    await ann.sessions[1].ping()
    assert not waiting.done()
    await waiting
    await ejabberd.control(ann.peer, "resume", session=ann.sessions[0].jid)
    await ann.leave()


async def test_what_a_session_sends_stays_in_order(ejabberd: Ejabberd, delegate: Delegate) -> None:
    ann = await Account.come(ejabberd, 2)
    await ejabberd.control(ann.peer, "suspend", session=ann.sessions[0].jid)
    for number, kind in enumerate(("get", "set", "get")):
        ann.sessions[1].send(f"<iq type='{kind}' id='q{number}'>{question(f'q{number}')}</iq>")
    ann.sessions[1].chat(ann.peer.account, "written after it")
    await delegate.has("q0", "q1", "q2", "out written after it")
    assert delegate.log[:4] == ["q0", "q1", "q2", "out written after it"]
    await ejabberd.control(ann.peer, "resume", session=ann.sessions[0].jid)
    await ann.leave()


@pytest.mark.parametrize("how", ["closes", "is cut", "is resumed"])
async def test_a_request_outlives_its_session(ejabberd: Ejabberd, delegate: Delegate, how: str) -> None:
    ann = await Account.come(ejabberd, 1)
    (first,) = ann.sessions
    second = await ejabberd.client(f"{ann.jid}/a", sm=how != "closes")
    await ejabberd.control(ann.peer, "suspend", session=first.jid)
    for number in range(3):
        second.send(f"<iq type='set' id='s{number}'>{question(f's{number}')}</iq>")
    await second.ping()
    assert delegate.log == []
    if how == "closes":
        await second.close()
    else:
        await second.cut()
    if how == "is resumed":
        again = await ejabberd.client(second.jid, resume=second)
        await again.ping()
    await delegate.has("s0", "s1", "s2")
    assert delegate.log == ["s0", "s1", "s2"]
    await ejabberd.control(ann.peer, "resume", session=first.jid)
    await ann.leave()


async def test_a_session_that_ends_is_not_waited_for(ejabberd: Ejabberd, delegate: Delegate) -> None:
    ann = await Account.come(ejabberd, 2)
    for number in range(20):
        other = await ejabberd.client(f"{ann.jid}/b")
        other.send("</stream:stream>")
        assert await timed(ann.sessions[0], f"q{number}") < PATIENCE
        await other.close()
    await ann.leave()
