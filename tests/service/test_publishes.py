"""Publishes through the real door into the real registry and outbox, in memory and on Postgres: what the server that
publishes is answered, what is stored, what is counted.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from sync.adapters.sealing import Sealer
from sync.model.books import Keys
from sync.model.device import Device, PushJob
from sync.model.errors import StoreUnavailable
from sync.model.push import Environment
from sync.model.query import App
from sync.protocol.names import COMPONENT, PUBLISH_OPTIONS, STANZAS
from sync.protocol.serialise import parse, serialise
from sync.rules.fold import Policies
from sync.rules.publishes import Terms
from sync.rules.wishes import WakePolicy
from sync.service.door import Door
from sync.service.publishes import Publishes
from sync.service.registration import Registrations
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import seeing
from tests.contract.stores import Bench, in_memory, on_postgres
from tests.service.wild import form

SYNC, HOME, SERVER = "sync.example.org", "example.org", "far.example"
ANN, LOCAL = f"ann@{SERVER}", f"ann@{HOME}"
SEALER = Sealer([Fernet.generate_key().decode()])
APP = App(name="chat", bundle_id="org.example.chat", environment=Environment.SANDBOX, filtering=True)
SUMMARY = form(FORM_TYPE="urn:xmpp:push:summary", message__count="1", last__message__body="the secret plan")


@pytest_asyncio.fixture(loop_scope="session")
async def postgres(database: str) -> AsyncIterator[Bench]:
    async with on_postgres(database) as bench:
        yield bench


@pytest.fixture(params=["memory", "postgres"])
def stores(request: pytest.FixtureRequest) -> Bench:
    return in_memory() if request.param == "memory" else request.getfixturevalue("postgres")


class Wire:
    def __init__(self) -> None:
        self.sent: list[Element] = []

    def send(self, stanza: Element) -> None:
        self.sent.append(parse(serialise(stanza)))


class Nothing:
    async def fresh(self) -> None: ...


class House:
    """A component that serves far.example besides its own host."""

    def __init__(
        self, stores: Bench, *, served: frozenset[str] = frozenset({SERVER}), apps: bool = True, tokens: bool = False
    ) -> None:
        self.stores, self.wire, self.observer = stores, Wire(), RecordingObserver()
        self.due: list[PushJob] = []
        self.nodes = iter(f"random {n}" for n in range(99))
        nothing: Any = Nothing()
        wire: Any = self.wire
        known = {"chat": APP} if apps else {}
        self.door = Door(
            component=SYNC,
            version="1",
            wire=wire,
            feeds={HOME: nothing},
            ingest=nothing,
            fanout=nothing,
            queries=nothing,
            registrations=Registrations(
                component=SYNC,
                store=stores.store,
                sealer=SEALER,
                apps={"chat": APP},
                random_name=self.nodes.__next__,
                observer=self.observer,
            ),
            publishes=Publishes(
                component=SYNC,
                wire=wire,
                store=stores.store,
                sealer=SEALER,
                terms=Terms(fed={HOME}, served=served, apps=frozenset(known)),
                token_apps={"chat": APP} if tokens else {},
                policies=Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"}))),
                due=self.due.extend,
                observer=self.observer,
            ),
            grants=nothing,
            observer=self.observer,
            freshness_seconds=5,
        )

    async def ask(self, sender: str, payload: str) -> Element:
        """The answer to an IQ set."""
        begin = len(self.wire.sent)
        self.door.take(parse(f"<iq xmlns='{COMPONENT}' type='set' id='i' from='{sender}' to='{SYNC}'>{payload}</iq>"))
        await self.door.drain()
        *self.said, answer = self.wire.sent[begin:]
        assert (answer.get("id"), answer.get("to")) == ("i", sender)
        return answer

    async def register(self, owner: str = ANN, token: str = "ab" * 32) -> tuple[str, str]:
        """Node and secret of a new device."""
        fields = form(provider="chat", device__token=token)
        answer = await self.ask(
            f"{owner}/phone",
            f"<command xmlns='http://jabber.org/protocol/commands' node='register-device'>{fields}</command>",
        )
        assert answer.get("type") == "result", serialise(answer)
        found = {one.get("var"): one[0].text or "" for one in answer.iter("{jabber:x:data}field")}
        return found["node"], found["secret"]

    async def publish(self, node: str, secret: str, by: str = SERVER, summary: str = SUMMARY) -> str:
        """`result`, or type/condition of the error."""
        return await self._told(node, form(FORM_TYPE=PUBLISH_OPTIONS, secret=secret), by, summary)

    async def _told(self, node: str, options: str, by: str, summary: str) -> str:
        answer = await self.ask(
            by,
            f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>"
            f"<notification xmlns='urn:xmpp:push:0'>{summary}</notification></item></publish><publish-options>"
            f"{options}</publish-options></pubsub>",
        )
        if answer.get("type") == "result":
            assert len(answer) == 0
            return "result"
        (error,) = answer
        condition = next(one.tag.rpartition("}")[2] for one in error if one.tag.startswith(f"{{{STANZAS}}}"))
        return f"{error.get('type')}/{condition}"

    async def publish_to(self, token: str, module: str | None = "chat", by: str = SERVER) -> str:
        """As a server of a client of fpush's."""
        options = form(FORM_TYPE=PUBLISH_OPTIONS, **({"pushModule": module} if module is not None else {}))
        return await self._told(token, options, by, SUMMARY)

    async def held(self, owner: str = ANN) -> tuple[list[Device], list[PushJob]]:
        books = await self.stores.store.transact(Keys(accounts=frozenset({owner}), devices=True), seeing())
        return books.devices.get(owner, []), books.jobs.get(owner, [])

    @property
    def counted(self) -> list[object]:
        return [one["outcome"] for one in self.observer.told("publish_received")]


async def test_a_publish_of_the_users_server_is_stored_and_handed_to_the_pusher(stores: Bench) -> None:
    house = House(stores)
    node, secret = await house.register()
    assert await house.publish(node, secret) == "result"
    (phone,), jobs = await house.held()
    assert phone.enabled
    assert jobs == house.due
    assert [(job.version, job.joined, job.queue) for job in jobs] == [(0, 0, phone.queue)]
    assert await house.publish(node, secret) == "result"
    assert [(job.version, job.joined) for job in (await house.held())[1]] == [(0, 1)]
    assert house.counted == ["queued", "joined"]
    assert house.observer.told("coalesced") == [{"kind": "message"}]


async def test_nothing_of_what_was_said_is_stored(stores: Bench) -> None:
    house = House(stores)
    await house.publish(*await house.register())
    assert "secret plan" not in repr(await house.held())
    if stores.pool is not None:
        async with stores.pool.connection() as connection:
            tables = await connection.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
            for table in tables:
                rows = await connection.fetch(f"SELECT * FROM {table['name']}")  # noqa: S608 - names of ours
                assert "secret plan" not in repr(rows)


@pytest.mark.parametrize(
    ("by", "told"),
    [
        (SERVER, "result"),
        (ANN, "result"),
        (f"sync.{SERVER}", "result"),
        (f"{ANN}/phone", "auth/forbidden"),
        (f"eve@{SERVER}", "auth/forbidden"),
        ("evil.example", "auth/forbidden"),
        (HOME, "auth/forbidden"),
    ],
)
async def test_who_may(by: str, told: str, stores: Bench) -> None:
    house = House(stores)
    node, secret = await house.register()
    assert await house.publish(node, secret, by) == told
    assert len((await house.held())[1]) == len(house.due) == (told == "result")


async def test_a_wrong_secret_is_forbidden_and_an_unknown_node_not_found(stores: Bench) -> None:
    house = House(stores)
    node, secret = await house.register()
    for wrong in ("", secret + "x", secret[:-1], node, "é"):
        assert await house.publish(node, wrong) == "auth/forbidden"
    assert await house.publish("another", secret) == "cancel/item-not-found"
    assert house.said == []
    assert (await house.held())[1] == []
    assert house.counted == ["forbidden"] * 5 + ["item-not-found"]


async def test_a_user_in_whose_name_is_published_is_told_of_a_node_that_is_no_more(stores: Bench) -> None:
    """XEP-0357 §8."""
    house = House(stores)
    assert await house.publish("gone", "s", ANN) == "cancel/item-not-found"
    (message,) = house.said
    assert (message.tag, message.get("to")) == (f"{{{COMPONENT}}}message", ANN)
    assert message[0][0].attrib == {"jid": ANN, "affiliation": "none"}
    assert await house.publish("gone", "s", f"{ANN}/phone") == "cancel/item-not-found"
    assert house.said == []


async def test_of_our_own_host_it_is_taken_and_nothing_is_pushed(stores: Bench) -> None:
    house = House(stores)
    node, secret = await house.register(LOCAL)
    assert await house.publish(node, secret, HOME) == "result"
    assert (await house.held(LOCAL))[1] == house.due == []
    assert house.counted == ["redundant"]


async def test_a_server_that_is_not_served_can_neither_register_nor_publish(stores: Bench) -> None:
    node, secret = await House(stores).register()
    closed = House(stores, served=frozenset())
    with pytest.raises(AssertionError, match="feature-not-implemented"):
        await closed.register()
    assert await closed.publish(node, secret) == "auth/forbidden"


async def test_our_own_faults_pass(stores: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """PUSH §4: servers keep a registration on `wait`."""
    node, secret = await House(stores).register()
    unset = House(stores, apps=False)
    assert await unset.publish(node, secret) == "wait/internal-server-error"

    async def away(*_: object) -> object:
        raise StoreUnavailable("away")

    house = House(stores)
    monkeypatch.setattr(stores.store, "transact", away)
    assert await house.publish(node, secret) == "wait/internal-server-error"
    monkeypatch.setattr(stores.store, "node_owners", away)
    assert await house.publish(node, secret) == "wait/internal-server-error"
    assert house.counted == ["failed", "failed"]


async def test_a_hundred_at_once_are_one_push(stores: Bench) -> None:
    house = House(stores)
    node, secret = await house.register()
    assert await asyncio.gather(*(once(house, node, secret) for _ in range(100)))
    (job,) = (await house.held())[1]
    assert job.joined == 99
    assert sorted(map(str, house.counted)) == ["joined"] * 99 + ["queued"]


async def once(house: House, node: str, secret: str) -> None:
    payload = parse(
        f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>"
        "<notification xmlns='urn:xmpp:push:0'/></item></publish><publish-options>"
        f"{form(FORM_TYPE=PUBLISH_OPTIONS, secret=secret)}</publish-options></pubsub>"
    )
    await house.door._publishes.take(payload, kind="set", sender=SERVER)


# ---- tokens as nodes (fpush) -----------------------------------------------------------------------------------------

TOKEN = "cd" * 32


async def test_a_token_is_published_to_without_a_registration(stores: Bench) -> None:
    house = House(stores, tokens=True)
    for one in (TOKEN, TOKEN.upper(), TOKEN):  # hexadecimal digits have no case
        assert await house.publish_to(one) == "result"
    assert await house.publish_to(TOKEN, None, "push.evil.example") == "auth/forbidden"
    assert await house.publish_to(TOKEN, None, ANN) == "result"  # of the only app, by another user of the server
    (owner,) = {job.account for job in house.due}
    assert owner.endswith(f"@{SYNC}")
    (guest,), (job,) = await house.held(owner)
    assert SEALER.open(guest.alert_token.sealed) == TOKEN
    assert job.joined == 3
    assert TOKEN not in repr((guest, job, owner))


@pytest.mark.parametrize(
    ("token", "module", "by", "told"),
    [
        (TOKEN, "another", SERVER, "cancel/item-not-found"),
        ("no token", "chat", SERVER, "cancel/item-not-found"),
        ("ab" * 15, "chat", SERVER, "cancel/item-not-found"),
        ("ab" * 101, "chat", SERVER, "cancel/item-not-found"),
        (TOKEN, "chat", "evil.example", "auth/forbidden"),
        (TOKEN, "chat", f"{ANN}/phone", "auth/forbidden"),
    ],
)
async def test_what_is_no_token_of_ours(token: str, module: str, by: str, told: str, stores: Bench) -> None:
    house = House(stores, tokens=True)
    assert await house.publish_to(token, module, by) == told
    assert house.due == []
    assert await stores.store.token_owners("chat", APP.environment, [SEALER.digest(token)]) == frozenset()


async def test_where_that_is_not_configured_a_token_is_no_node(stores: Bench) -> None:
    house = House(stores)
    assert await house.publish_to(TOKEN) == await house.publish_to(TOKEN, None) == "cancel/item-not-found"


async def test_a_token_that_registers_is_published_to_by_its_node_from_then_on(stores: Bench) -> None:
    house = House(stores, tokens=True)
    assert await house.publish_to(TOKEN) == "result"
    (owner,) = {job.account for job in house.due}
    node, secret = await house.register(token=TOKEN)
    assert await house.publish_to(TOKEN) == "cancel/item-not-found"
    assert await house.publish(node, secret) == "result"
    assert (await house.held(owner))[0] == []


async def test_two_servers_that_publish_to_one_token_at_once(stores: Bench) -> None:
    house = House(stores, tokens=True)
    payload = parse(
        f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{TOKEN}'><item>"
        "<notification xmlns='urn:xmpp:push:0'/></item></publish></pubsub>"
    )
    take = house.door._publishes.take
    await asyncio.gather(*(take(payload, kind="set", sender=by) for by in (SERVER, HOME) * 10))
    (owner,) = {job.account for job in house.due}
    _, (job,) = await house.held(owner)
    assert job.joined == 19


@pytest.mark.parametrize(("lost", "told"), [(1, "cancel/item-not-found"), (99, "wait/resource-constraint")])
async def test_a_token_that_changes_hands_meanwhile(
    lost: int, told: str, stores: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, looked = House(stores, tokens=True), iter(range(100))
    await house.register(token=TOKEN)
    owners = stores.store.token_owners

    async def late(*asked: Any) -> frozenset[str]:
        return frozenset() if next(looked) < lost else await owners(*asked)

    monkeypatch.setattr(stores.store, "token_owners", late)
    assert await house.publish_to(TOKEN) == told
    assert house.due == []
