"""A whole service that is asked anything, by anybody, and what it answers."""

from dataclasses import fields, replace
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from cryptography.fernet import Fernet
from hypothesis import HealthCheck, settings

from sync.adapters.sealing import Sealer
from sync.model.conversation import ConversationKey, Kind
from sync.model.delta import DeltaToken
from sync.model.event import Session, SessionState
from sync.model.push import Environment
from sync.model.query import App, Cursor, InboxPlace, SortKey
from sync.protocol.cursor import encode_cursor, encode_place
from sync.protocol.names import CLIENT, COMPONENT, DELEGATIONS, FEED, FORWARD, STANZAS, clark
from sync.protocol.serialise import parse, serialise
from sync.protocol.token import encode_token
from sync.rules.fold import Policies
from sync.rules.publishes import Terms
from sync.service.door import Door
from sync.service.grants import Grants
from sync.service.publishes import Publishes
from sync.service.registration import Registrations
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    EVE,
    account,
    call,
    change,
    conversation,
    device,
    last,
    membership,
    message,
)
from tests.contract.stores import in_memory
from tests.service.test_queries import Desk, Lines

SEALER = Sealer([Fernet.generate_key().decode()])
HOST, ELSEWHERE, COMPONENT_JID = "example.org", "example.com", "sync.example.org"
SECRET = "secret of eve"
VAULT = "vault@example.net"
HIDDEN = f"<message xmlns='{CLIENT}' from='{VAULT}/x' to='{EVE}' type='chat' id='h'><body>{SECRET}</body></message>"
SPECIFIED = frozenset(
    {
        *("bad-request", "item-not-found", "forbidden", "feature-not-implemented", "service-unavailable"),
        *("policy-violation", "conflict"),
    }
)


def cursor(owner: str = ANN, newest: int = 1000, since: int = 0, peer: str = BOB) -> str:
    sort = SortKey(ringing=False, pinned=0, activity=1767323045000000, peer=peer, kind=Kind.CHAT)
    return encode_cursor(Cursor(since=since, newest=newest, sort=sort), account=owner)


def place(owner: str = ANN, newest: int = 1000, version: int = 20) -> str:
    at = InboxPlace(newest=newest, version=version, activity=1767323045000000, peer=BOB, kind=Kind.CHAT)
    return encode_place(at, account=owner)


def token(owner: str = ANN, **fields: Any) -> str:
    return encode_token(DeltaToken(**{"epoch": 1, "since": 12, "log": 12, "newest": 1000} | fields), account=owner)


# Own ones, another account's, of a future that never was, of an epoch that is over.
TOKENS = (
    *(
        cursor(),
        cursor(EVE),
        cursor(newest=2**62),
        cursor(newest=3),
        cursor(since=5),
        cursor(since=2**62),
        cursor()[:-1],
    ),
    *(place(), place(EVE), place(newest=2**62), place(newest=3), place(version=2**62)),
    *(token(), token(EVE), token(epoch=2), token(epoch=0), token(since=5), token(since=2**62), token(log=3)),
    *(token(low=15), token(low=2**61, newest=2**62), token(since=2**62, low=2**62 + 1, newest=2**62 + 2)),
    *("15", "5", "999", "1000", "1001", "node of phone", f"{EVE} phone", BOB, CAT, EVE, VAULT, COMPONENT_JID),
)


class Line(Lines):
    """Plays `Wire`, and the module behind it, which takes whatever is to be delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Element] = []
        self.asked: list[Element] = []

    async def request(self, iq: Element) -> Element:
        self.asked.append(iq)
        answer = Element("iq")
        SubElement(answer, clark(FEED, "delivered"), {"sessions": "1"})
        return answer

    def send(self, stanza: Element) -> None:
        self.sent.append(stanza)


class Prompt:
    """Plays feeds, lanes and fan-out: nothing waits there."""

    keeps_rooms, subscribed = False, True

    async def fresh(self) -> None: ...

    async def barrier(self, _: str) -> None: ...

    async def rooms_barrier(self) -> None: ...

    async def catch_up(self, _: str) -> None: ...


class House:
    """The real door before ann's and eve's data; of ann `web` asks and `phone` is online, too."""

    def __init__(self) -> None:
        self.stores, self.line, observer = in_memory(), Line(), RecordingObserver()
        self.store: Any = self.stores.store
        desk = Desk(self.stores, self.line)
        self.presence = desk.presence
        nothing: Any = Prompt()
        app = App(
            name="chat",
            bundle_id="org.example.chat",
            environment=Environment.SANDBOX,
            filtering=True,
        )
        self.door = Door(
            component=COMPONENT_JID,
            version="1",
            wire=self.line,
            feeds={HOST: nothing},
            ingest=nothing,
            fanout=nothing,
            queries=desk.queries,
            registrations=Registrations(
                component=COMPONENT_JID,
                store=self.store,
                sealer=SEALER,
                apps={"chat": app},
                random_name=iter(f"random {n}" for n in range(99)).__next__,
                observer=observer,
            ),
            publishes=Publishes(
                component=COMPONENT_JID,
                wire=self.line,
                store=self.store,
                sealer=SEALER,
                terms=Terms(fed={HOST}, served={"far.example"}, apps={"chat"}),
                token_apps={},
                policies=Policies(),
                due=lambda _: None,
                observer=observer,
            ),
            grants=Grants([HOST], clock=self.stores.clock, observer=observer),
            observer=observer,
            freshness_seconds=5,
        )

    async def furnish(self) -> None:
        sessions = [Session("web", SessionState.ACTIVE), Session("phone", SessionState.ACTIVE)]
        await self.presence.reset(HOST, {ANN: sessions, EVE: sessions[:1]})
        with_vault = ConversationKey(EVE, VAULT)
        one = {"unread": 1, "mentions": 1, "unread_conversations": 1}
        hidden = last(stanza=HIDDEN, message_id=SECRET, archive_id=SECRET)
        await self.stores.put(
            ANN,
            EVE,
            accounts=[account(owner, floor=10, devices=1, **one) for owner in (ANN, EVE)],
            conversations=[
                conversation(20, unread=1, mentions=1, rewritten=15, last=last(stanza=HIDDEN.replace(SECRET, "hi"))),
                conversation(30, CAT, pinned=7, ringing=1),
                membership(40, last=last()),
                replace(conversation(50, VAULT, EVE, last=hidden, unread=1, mentions=1, ringing=1), rewritten=45),
                conversation(60, ANN, EVE, last=hidden),
            ],
            messages=[
                message(5, mention=True, message_key="m", archive_key="m", archive_id="m"),
                message(5, with_vault, mention=True, archive_id=SECRET),
            ],
            changes=[change(15), change(45, key=with_vault, stanza=HIDDEN, target_id=SECRET)],
            calls=[call(peer=CAT), call("s1", VAULT, EVE, stanza=HIDDEN), call("s2", CAT, EVE, stanza=HIDDEN)],
            devices=[device(), device(owner=EVE, node="node of eve", name=SECRET)],
        )

    def of_eve(self) -> list[str]:
        """Every row of hers."""
        tables = [getattr(self.store.tables, field.name) for field in fields(self.store.tables)]
        rows = [row for table in tables if isinstance(table, dict) for row in table.items()]
        return sorted(repr(row) for row in rows if EVE in (owner(row[0]), owner(row[1])))

    async def ask(self, stanza: Element) -> list[Element]:
        # As it would come over the wire.
        self.door.take(parse(serialise(stanza)))
        await self.door.drain()
        return [parse(serialise(answer)) for answer in self.line.sent]


def owner(part: Any) -> Any:
    """Whose a row is, by its key, or by its value where the key is a token."""
    part = getattr(part, "account", part)
    return owner(part[0]) if isinstance(part, tuple) else part


def delegated(payload: Element, kind: str, to: str | None, sender: str = f"{ANN}/web", host: str = HOST) -> Element:
    """A user's IQ as the server of `host` hands it over."""
    outer = Element(clark(COMPONENT, "iq"), {"type": "set", "from": host, "to": COMPONENT_JID, "id": "d1"})
    envelope = SubElement(SubElement(outer, clark(DELEGATIONS[0], "delegation")), clark(FORWARD, "forwarded"))
    inner = SubElement(envelope, clark(CLIENT, "iq"), {"type": kind, "from": sender, "id": "i1"})
    if to is not None:
        inner.set("to", to)
    inner.append(payload)
    return outer


def direct(payload: Element, kind: str, sender: str = f"{ANN}/web") -> Element:
    """An IQ to the component itself."""
    outer = Element(clark(COMPONENT, "iq"), {"type": kind, "from": sender, "to": COMPONENT_JID, "id": "i1"})
    outer.append(payload)
    return outer


def answer_of(asked: Element, sent: list[Element]) -> Element:
    """The one answer, to whoever asked; of a delegated request what the user gets."""
    assert len(sent) == 1, [serialise(stanza) for stanza in sent]
    (outer,) = sent
    assert (outer.get("id"), outer.get("to")) == (asked.get("id"), asked.get("from") or None)
    if not len(asked) or asked[0].tag != clark(DELEGATIONS[0], "delegation"):
        return outer
    assert outer.get("type") == "result"
    inner, question = outer[0][0][0], asked[0][0][0]
    assert (inner.get("id"), inner.get("to")) == (question.get("id"), question.get("from"))
    assert len(inner) <= 1
    return inner


def outcome(answer: Element) -> str:
    """`result`, or the condition of the error."""
    if answer.get("type") == "result":
        return "result"
    assert answer.get("type") == "error"
    (error,) = (child for child in answer if child.tag.endswith("}error"))
    conditions = [child.tag for child in error if child.tag.startswith(f"{{{STANZAS}}}")]
    named = [tag.rpartition("}")[2] for tag in conditions if not tag.endswith("}text")]
    assert len(named) == 1
    assert error.get("type") in ("modify", "cancel", "auth", "wait")
    return named[0]


async def put(asked: Element) -> tuple[str, House]:
    """What becomes of it, after everything that must hold for each request was checked."""
    house = House()
    await house.furnish()
    before = house.of_eve()
    assert len(before) >= 8
    told = outcome(answer_of(asked, await house.ask(asked)))
    assert told == "result" or told in SPECIFIED, serialise(asked)
    everything = " ".join(map(serialise, [*house.line.sent, *house.line.asked]))
    for secret in (SECRET, "node of eve"):
        assert secret not in everything or secret in serialise(asked)
    assert {iq[0].get("account", ANN) for iq in house.line.asked} <= {ANN}
    assert house.of_eve() == before
    return told, house


QUIET = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
