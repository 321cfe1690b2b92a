"""App servers of other makers, at the service: whom a user may name, what is kept, what is published, and what an
answer, or none, comes to.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sync.adapters.encryption import aes_128_gcm
from sync.adapters.sealing import Sealer
from sync.model.device import Device, Route
from sync.model.errors import BadRequest, Forbidden, ItemNotFound, Refused, SealBroken
from sync.model.publish import AppServer
from sync.model.push import PushOutcome, Verdict
from sync.model.query import App, DisablePush, EnablePush
from sync.model.wishes import PushKey, Wishes
from sync.protocol import publish
from sync.protocol.serialise import parse
from sync.rules.claims import Claim
from sync.rules.publish_budget import PublishPolicy
from sync.service.app_servers import AppServers
from sync.service.publisher import Publisher
from sync.service.queues import Queues
from sync.service.registration import Registrations
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, BOB, EVE, NOW, account, after, call, call_job, conversation, device, job, last

SYNC, HOST, ROOMS, PUSH = "sync.example.org", "example.org", "rooms.example.org", "push.example.com"
KEY = b"0123456789abcdef"
SEALER = Sealer([Fernet.generate_key().decode()])
OPTIONS = (("FORM_TYPE", ("http://jabber.org/protocol/pubsub#publish-options",)), ("secret", ("s3",)))


class House:
    """A registry with app servers of others, in memory."""

    def __init__(self, allowed: tuple[str, ...] = ("*",), most: int = 5) -> None:
        self.observer, self.store = RecordingObserver(), MemoryStore(SetClock(NOW))
        app_servers = AppServers(
            component=SYNC,
            own=(HOST, ROOMS),
            allowed=allowed,
            reserved=("chat",),
            most=most,
            store=self.store,
            sealer=SEALER,
            observer=self.observer,
        )
        self.registrations = Registrations(
            component=SYNC,
            store=self.store,
            sealer=SEALER,
            apps=dict[str, App](),
            random_name=lambda: "random",
            observer=self.observer,
            most=most,
            app_servers=app_servers,
        )

    async def enable(self, jid: str = PUSH, node: str = "n1", owner: str = ANN, **fields: Any) -> None:
        asked = EnablePush(account=owner, resource="web", jid=jid, node=node, options=OPTIONS, **fields)
        await self.registrations.enable(asked)

    async def disable(self, jid: str = PUSH, node: str | None = "n1", owner: str = ANN) -> None:
        await self.registrations.disable(DisablePush(account=owner, jid=jid, node=node))

    @property
    def devices(self) -> list[Device]:
        return list(self.store.tables.devices.values())

    @property
    def removed(self) -> list[object]:
        return [told["reason"] for told in self.observer.told("token_removed")]


# ---- enabling --------------------------------------------------------------------------------------------------------


async def test_what_is_kept_is_sealed() -> None:
    house = House()
    await house.enable(push_key=PushKey(base64.b64encode(KEY).decode(), 3000), wishes=Wishes(jingle=True))
    (made,) = house.devices
    assert publish.read(SEALER.open(made.alert_token.sealed)) == AppServer(PUSH, "n1", OPTIONS)
    assert made.wishes.encrypt is not None
    assert base64.b64decode(SEALER.open(made.wishes.encrypt.sealed_key)) == KEY
    assert (made.rings, made.wishes.encrypt.max_bytes) == (True, 3000)
    assert all(word not in repr(made) for word in ("s3", "n1", "MDEy"))


async def test_an_address_is_one_however_it_is_written() -> None:
    """Answers come from what servers make of it; a resource has capitals of its own."""
    house = House()
    await house.enable("Push.Example.COM")
    await house.enable(PUSH)
    await house.enable("Bob@Example.NET/Push")
    assert [made.app for made in house.devices] == [PUSH, "bob@example.net/Push"]
    await house.disable("PUSH.example.com")
    assert [made.app for made in house.devices] == ["bob@example.net/Push"]


@pytest.mark.parametrize(
    "jid",
    [SYNC.upper(), f"x@{SYNC}", f"{SYNC}/x", HOST, HOST.upper(), ROOMS, "chat", ANN, f"{ANN}/web", "Ann@Example.org"],
)
async def test_these_are_no_app_servers(jid: str) -> None:
    house = House()
    with pytest.raises(BadRequest, match="'jid'"):
        await house.enable(jid)
    assert house.devices == []


@pytest.mark.parametrize("jid", ["@", "@b.example", "a@", "a@@b.example", "a b@c.example", "push .example", "/x"])
async def test_these_are_no_addresses(jid: str) -> None:
    house = House()
    with pytest.raises(BadRequest, match="'jid' is no address"):
        await house.enable(jid)
    assert house.devices == []


async def test_a_neighbour_may_be_one() -> None:
    house = House()
    await house.enable(BOB)
    await house.enable(EVE)
    assert [made.app for made in house.devices] == [BOB, EVE]


async def test_an_operator_may_list_them() -> None:
    house = House(allowed=(PUSH,))
    await house.enable(PUSH)
    await house.enable(f"a@{PUSH}/b")
    for jid in ("push.example.net", f"x.{PUSH}", BOB):
        with pytest.raises(Forbidden):
            await house.enable(jid)
    assert len(house.devices) == 2


async def test_an_operator_may_want_none_and_what_is_there_can_leave() -> None:
    house, closed = House(), House(allowed=())
    await house.enable()
    closed.store.tables = house.store.tables
    assert (house.registrations.pushes, closed.registrations.pushes) == (True, False)
    with pytest.raises(Forbidden):
        await closed.enable(node="n2")
    await closed.disable()
    assert (closed.devices, closed.removed) == ([], ["disabled"])


async def test_one_node_for_two_accounts() -> None:
    """One phone, two accounts: fpush's node is the phone's token."""
    house = House()
    await house.enable(owner=ANN)
    await house.enable(owner=EVE)
    assert {made.account for made in house.devices} == {ANN, EVE}
    await house.registrations.give_up(f"{PUSH}/x", "n1")
    assert (house.devices, house.removed) == ([], ["affiliation-none"] * 2)


async def test_only_its_own_node_can_be_taken_back() -> None:
    house = House()
    await house.enable()
    await house.registrations.give_up("push.example.net", "n1")
    await house.registrations.give_up(PUSH, "n2")
    await house.registrations.give_up(PUSH, house.devices[0].node)
    assert len(house.devices) == 1


async def test_who_has_too_many_loses_the_oldest() -> None:
    house = House(most=2)
    for second in range(4):
        house.store.clock.instant = after(second)
        await house.enable(node=f"n{second}")
    assert ([made.registered_at for made in house.devices], house.removed) == (
        [after(2), after(3)],
        ["crowded-out"] * 2,
    )
    assert house.store.tables.accounts[ANN].devices == 2


async def test_what_is_not_there_cannot_be_disabled() -> None:
    house = House()
    with pytest.raises(ItemNotFound):
        await house.disable()
    await house.disable(node=None)  # XEP-0357 §6: all of them, however many
    assert house.removed == []


# ---- publishing ------------------------------------------------------------------------------------------------------


class Line:
    """The `Wire` as far as requests go: an app server that answers, refuses, or says nothing."""

    def __init__(self, answer: Refused | None = None, *, silent: bool = False) -> None:
        self.answer, self.silent = answer, silent
        self.sent: list[Element] = []

    def request(self, iq: Element) -> Awaitable[Element]:
        self.sent.append(iq)
        return self._answer(iq)

    async def _answer(self, iq: Element) -> Element:
        if self.silent:
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer
        return Element("{jabber:component:accept}iq", {"type": "result", "id": iq.get("id", "")})


def publisher(line: Line, policy: PublishPolicy | None = None, sealer: Sealer = SEALER) -> Publisher:
    wire: Any = line
    return Publisher(
        component=SYNC,
        wire=wire,
        sealer=sealer,
        encrypt=aes_128_gcm,
        policy=policy or PublishPolicy(),
        answer_seconds=0.01,
    )


async def claimed(**fields: Any) -> Claim:
    """A push to Ann's device of route `publish`, as the registry made it."""
    house = House()
    await house.enable(**fields)
    talk = conversation(
        last=last(stanza=f"<message xmlns='jabber:client' from='{BOB}/desk'><body>Tea?</body></message>")
    )
    return Claim(job=job(), device=house.devices[0], account=account(unread=2), conversation=talk)


async def test_a_publish_leaves_as_an_iq_of_the_component() -> None:
    line = Line()
    policy = PublishPolicy(with_sender=True, with_body=True)
    assert await publisher(line, policy).send(await claimed()) == PushOutcome(verdict=Verdict.ACCEPTED)
    (iq,) = line.sent
    assert (iq.tag, iq.get("type"), iq.get("from"), iq.get("to")) == (
        *("{jabber:component:accept}iq", "set"),
        *(SYNC, PUSH),
    )
    told = [value.text for value in iq.iter("{jabber:x:data}value")]
    assert told[1:4] == ["2", f"{BOB}/desk", "Tea?"]
    assert told[-1] == "s3"


async def test_a_publish_is_encrypted_with_the_clients_key() -> None:
    line = Line()
    key = PushKey(base64.b64encode(KEY).decode(), 3000)
    found = replace(await claimed(push_key=key, wishes=Wishes(jingle=True)), call=call(), job=call_job())
    await publisher(line).send(found)
    (encrypted,) = line.sent[0].iter("{tigase:push:encrypt:0}encrypted")
    text = AESGCM(KEY).decrypt(base64.b64decode(encrypted.attrib["iv"]), base64.b64decode(encrypted.text or ""), None)
    assert json.loads(text)["type"] == "call"
    assert encrypted.get("type") == "voip"
    assert not list(line.sent[0].iter("{urn:xmpp:push:summary}x"))


def refusal(kind: str, condition: str) -> Refused:
    error = f"<error type='{kind}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    return Refused(condition, parse(f"<iq xmlns='jabber:component:accept' type='error'>{error}</iq>"))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (refusal("wait", "resource-constraint"), Verdict.RETRY),
        (refusal("cancel", "item-not-found"), Verdict.DEAD_TOKEN),
        (refusal("auth", "forbidden"), Verdict.REJECTED),
        (refusal("cancel", "remote-server-not-found"), Verdict.RETRY),
        (Refused("not-connected"), Verdict.NOT_SENT),
        (Refused("disconnected"), Verdict.UNCERTAIN),
    ],
)
async def test_what_an_answer_comes_to(answer: Refused, verdict: Verdict) -> None:
    outcome = await publisher(Line(answer)).send(await claimed())
    assert (outcome.verdict, outcome.reason) == (verdict, answer.condition)


async def test_silence_is_uncertain() -> None:
    outcome = await publisher(Line(silent=True)).send(await claimed())
    assert (outcome.verdict, outcome.reason) == (Verdict.UNCERTAIN, "no-answer")


async def test_without_our_key_nothing_leaves() -> None:
    line, stranger = Line(), Sealer([Fernet.generate_key().decode()])
    with pytest.raises(SealBroken):
        await publisher(line, sealer=stranger).send(await claimed())
    assert line.sent == []


def test_a_process_without_the_connection_leaves_publishes_to_another() -> None:
    """Only the holder of the component's connection can send them; Apple's everybody can."""
    connected = False
    found = Queues(
        each=2,
        observer=RecordingObserver(),
        keys={},
        reaches=lambda queue: connected or not queue.startswith(f"{Route.PUBLISH}:"),
    )
    queue = device(route=Route.PUBLISH, app=PUSH).queue
    assert found.held("calls", NOW) == frozenset()
    assert found.admit("calls", queue, NOW) is None
    assert found.held("calls", NOW) == found.held("messages", NOW) == {queue}
    assert found.admit("calls", device().queue, NOW) is not None
    connected = True
    assert found.held("calls", NOW) == frozenset()
    assert found.admit("calls", queue, NOW) is not None
