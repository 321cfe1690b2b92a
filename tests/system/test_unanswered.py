"""Clients' questions that are with the component when it is gone are answered in its place, once (docs/feed.md §7). The
component is a test's own, has a namespace of the accounts, and says nothing of itself.
"""

import asyncio
import shutil
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Self
from xml.sax.saxutils import quoteattr

import pytest

from tests.system.ejabberd_server import Ejabberd, ejabberd_of_its_own
from tests.system.prosody_server import COMPONENT, DOMAIN, ROOT, SECRET, Prosody, prosody_of_its_own
from tests.system.xmpp_client import CLIENT, StanzaError, XmppClient
from tests.system.xmpp_component import FeedComponent

OWN = "urn:convsync:0"
DISCO = "http://jabber.org/protocol/disco#info"
SECONDS = 25  # for what must come; after 30 Prosody's module is out of patience, whatever else it noticed
ASK = f"<ask xmlns='{OWN}'/>"
SERVERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Prosody | Ejabberd]]] = {
    "prosody": prosody_of_its_own,
    "ejabberd": ejabberd_of_its_own,
}


class Silent(FeedComponent):
    """`asked`: the server's requests that hold a question; nothing is said to them."""

    asked: list[ET.Element]

    @classmethod
    async def connect(cls, jid: str, secret: str, port: int, *, host: str) -> Self:
        cls.asked = []
        self = await super().connect(jid, secret, port, host=host)
        await self.wait_for(
            lambda e: any(d.get("namespace") == OWN for d in e.iter() if d.tag.endswith("}delegated")), past=True
        )
        return self

    @staticmethod
    def _gives(element: ET.Element) -> bool:
        return any(d.get("namespace") == OWN for d in element.iter() if d.tag.endswith("}delegated"))

    def on_element(self, element: ET.Element) -> None:
        super().on_element(element)
        query = element.find(f"{{{DISCO}}}query")
        if query is not None:  # ejabberd asks what the component has before it delegates anything
            node = query.get("node", "")
            features = f"<feature var='{OWN}'/>" if node.endswith(OWN) else ""
            self.reply(element, f"<query xmlns='{DISCO}' node={quoteattr(node)}>{features}</query>")
        elif element.find(f".//{CLIENT}iq") is not None and element.get("type") == "set":
            self.asked.append(element)

    def reply(self, element: ET.Element, payload: str) -> None:
        to, iq_id = element.get("from", ""), element.get("id", "")
        self.send(f"<iq type='result' from='{self.component}' to='{to}' id={quoteattr(iq_id)}>{payload}</iq>")

    async def has(self, number: int) -> None:
        """Returns when that many questions have come."""
        async with asyncio.timeout(SECONDS):
            while len(self.asked) < number:  # noqa: ASYNC110 - a list has no event to wait for
                await asyncio.sleep(0.01)

    def answer(self, question: ET.Element) -> None:
        """To that question, as it came on whatever connection."""
        delegation = question[0].tag.partition("}")[0][1:]
        ours = question.find(f".//{CLIENT}iq")
        assert ours is not None
        asker = ours.get("from", "")
        addresses = f"from={quoteattr(ours.get('to') or asker.partition('/')[0])} to={quoteattr(asker)}"
        self.reply(
            question,
            f"<delegation xmlns='{delegation}'><forwarded xmlns='urn:xmpp:forward:0'>"
            f"<iq xmlns='jabber:client' type='result' id={quoteattr(ours.get('id', ''))} {addresses}>"
            f"<answer xmlns='{OWN}'/></iq></forwarded></delegation>",
        )


async def refusal(question: "asyncio.Task[ET.Element]") -> tuple[str, str]:
    with pytest.raises(StanzaError) as caught:
        await asyncio.wait_for(question, SECONDS)
    return caught.value.condition, caught.value.type


def answers(client: XmppClient, iq_id: str) -> int:
    return sum(e.tag == f"{CLIENT}iq" and e.get("id") == iq_id for e in client.received)


@pytest.mark.parametrize("which", SERVERS)
async def test_a_question_is_answered_when_the_connection_ends_and_only_once(tmp_path: Path, which: str) -> None:
    async with SERVERS[which](tmp_path) as it:
        component = await Silent.connect(COMPONENT, SECRET, it.component_port, host=DOMAIN)
        client = await it.client(f"{it.name()}/a")
        open_questions = [asyncio.create_task(client.iq(kind, ASK, iq_id=f"q-{kind}")) for kind in ("get", "set")]
        await component.has(2)
        late = list(component.asked)
        await component.cut()
        for question in open_questions:
            assert await refusal(question) == ("internal-server-error", "wait")
        component = await Silent.connect(COMPONENT, SECRET, it.component_port, host=DOMAIN)
        for asked in late:
            component.answer(asked)
        again = asyncio.create_task(client.iq("get", ASK, iq_id="again"))
        await component.has(1)
        component.answer(component.asked[-1])
        assert (await asyncio.wait_for(again, SECONDS))[0].tag == f"{{{OWN}}}answer"
        await client.ping()
        assert [answers(client, iq_id) for iq_id in ("q-get", "q-set", "again")] == [1, 1, 1]
        assert "Traceback" not in it.log()
        assert "A request failed" not in it.log()
        await component.cut()
        await client.close()


async def test_a_new_connection_does_not_take_the_old_ones_questions_along(tmp_path: Path) -> None:
    """The component is back before the server has noticed that it was gone."""
    async with prosody_of_its_own(tmp_path) as prosody:
        old = await Silent.connect(COMPONENT, SECRET, prosody.component_port, host=DOMAIN)
        client = await prosody.client(f"{prosody.name()}/a")
        first = asyncio.create_task(client.iq("get", ASK, iq_id="first"))
        await old.has(1)
        new = await Silent.connect(COMPONENT, SECRET, prosody.component_port, host=DOMAIN)
        assert await refusal(first) == ("internal-server-error", "wait")
        second = asyncio.create_task(client.iq("get", ASK, iq_id="second"))
        await new.has(1)
        new.answer(new.asked[-1])
        assert (await asyncio.wait_for(second, SECONDS))[0].tag == f"{{{OWN}}}answer"
        await new.cut()
        await client.close()


@asynccontextmanager
async def impatient(folder: Path, line: str, instead: str) -> AsyncIterator[tuple[Silent, XmppClient]]:
    """Prosody with a module of which one line is another."""
    copy = folder / "modules"
    shutil.copytree(ROOT / "deploy" / "prosody", copy)
    file = copy / "mod_convsync_feed" / "questions.lib.lua"
    assert line in file.read_text()
    file.write_text(file.read_text().replace(line, instead))
    config = {str(ROOT / "deploy" / "prosody"): str(copy)}
    async with prosody_of_its_own(folder / "server", config=config) as prosody:
        component = await Silent.connect(COMPONENT, SECRET, prosody.component_port, host=DOMAIN)
        client = await prosody.client(f"{prosody.name()}/a")
        yield component, client
        await component.cut()
        await client.close()


async def test_a_component_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    async with impatient(tmp_path, "PATIENCE_SECONDS = 30", "PATIENCE_SECONDS = 0.5") as (component, client):
        question = asyncio.create_task(client.iq("get", ASK, iq_id="q"))
        await component.has(1)
        assert await refusal(question) == ("internal-server-error", "wait")
        component.answer(component.asked[0])
        again = asyncio.create_task(client.iq("get", ASK, iq_id="again"))
        await component.has(2)
        component.answer(component.asked[1])
        await asyncio.wait([again], timeout=SECONDS)  # with that, or on a slow machine with the end of patience
        await client.ping()
        assert [answers(client, iq_id) for iq_id in ("q", "again")] == [1, 1]
        await asyncio.gather(again, return_exceptions=True)


async def test_the_questions_that_are_remembered_are_bounded(tmp_path: Path) -> None:
    async with impatient(tmp_path, "MOST = 10000", "MOST = 3") as (component, client):
        questions = [asyncio.create_task(client.iq("get", ASK, iq_id=f"q{i}")) for i in range(5)]
        await component.has(5)
        for question in questions[:2]:  # the oldest gave way
            assert await refusal(question) == ("internal-server-error", "wait")
        for asked in component.asked:
            component.answer(asked)
        for task in questions[2:]:
            assert (await asyncio.wait_for(task, SECONDS))[0].tag == f"{{{OWN}}}answer"
        await client.ping()
        assert [answers(client, f"q{i}") for i in range(5)] == [1] * 5
