"""How long a question waits for what came before it, one limit however many hosts are behind; and for its answer."""

import asyncio
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.errors import Behind, StoreUnavailable
from sync.protocol.names import CLIENT, COMPONENT, FEED, FORWARD, PUBSUB, STANZAS, SYNC, clark
from sync.protocol.serialise import parse
from sync.service.door import ANSWER_SECONDS, MAX_DIRECT, Door
from sync.service.grants import Grants
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import ANN, NOW
from tests.passing import passes

LIMIT = 0.2


class Slow:
    """Plays a host's feed that has caught up after a while."""

    def __init__(self, seconds: float, *, rooms: bool = True, subscribed: bool = True) -> None:
        self.seconds, self.keeps_rooms, self.subscribed = seconds, rooms, subscribed
        self.caught_up = False

    async def fresh(self) -> None:
        await asyncio.sleep(self.seconds)
        self.caught_up = True


class Prompt:
    """Plays the lanes and the fan-out: nothing waits there."""

    async def barrier(self, _: str) -> None: ...

    async def rooms_barrier(self) -> None: ...

    async def catch_up(self, _: str) -> None: ...


def door(limit: float = 30, **feeds: Slow) -> Any:
    nothing: Any = Prompt()
    stand_ins: Any = {name.replace("_", "."): feed for name, feed in feeds.items()}
    return Door(
        component="sync.example.org",
        version="1",
        wire=nothing,
        feeds=stand_ins,
        ingest=nothing,
        fanout=nothing,
        queries=nothing,
        registrations=nothing,
        publishes=nothing,
        grants=nothing,
        observer=RecordingObserver(),
        freshness_seconds=limit,
    )


async def test_several_hosts_that_are_a_little_behind_share_one_limit() -> None:
    slow = {f"rooms{n}_example_org": Slow(0.6 * LIMIT) for n in range(5)}
    with pytest.raises(Behind):
        await door(LIMIT, example_org=Slow(0, rooms=False), **slow)._fresh(ANN)
    # The second would be there after 1.2 limits, the last one after three.
    assert sum(one.caught_up for one in slow.values()) <= 1


async def test_hosts_of_other_accounts_and_rooms_that_are_away_are_not_waited_for() -> None:
    away, other = Slow(3600, subscribed=False), Slow(3600, rooms=False)
    await door(example_org=Slow(0, rooms=False), rooms_example_org=away, example_net=other)._fresh(ANN)


# ---- strangers -------------------------------------------------------------------------------------------------------


class Heard:
    """Plays a host's feed that remembers what reached it."""

    keeps_rooms, subscribed = False, True

    def __init__(self) -> None:
        self.told: list[str] = []

    def take(self, frame: Element, _: object) -> None:
        self.told.append(frame.get("stream", ""))

    def resubscribe(self) -> None:
        self.told.append("again")


def open_door() -> tuple[Any, Heard, RecordingObserver]:
    host = Heard()
    it = door(example_org=host)  # type: ignore[arg-type]
    it._grants = Grants(["example.org"], clock=SetClock(NOW), observer=it._observer)
    return it, host, it._observer


def said(sender: str, payload: str) -> Element:
    return parse(f"<message xmlns='{COMPONENT}' from='{sender}' to='sync.example.org'>{payload}</message>")


STARTED = f"<started xmlns='{FEED}'/>"
FRAME = f"<feed xmlns='{FEED}' stream='s' shard='0' last='1' head='1'/>"
GRANT = f"<delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='{SYNC}'/></delegation>"


def test_the_configured_host_is_heard() -> None:
    it, host, _ = open_door()
    for payload in (STARTED, FRAME, GRANT):
        it.take(said("example.org", payload))
    assert host.told == ["again", "s"]
    assert it._grants.of("example.org").delegated == {SYNC}


@pytest.mark.parametrize(
    "stranger",
    ["example.net", "ann@example.org", "example.org/x", "sub.example.org", "EXAMPLE.ORG", "sync.example.org", ""],
)
@pytest.mark.parametrize("payload", [STARTED, FRAME, GRANT])
def test_control_stanzas_of_anybody_else_are_counted_and_nothing_more(stranger: str, payload: str) -> None:
    it, host, observer = open_door()
    it.take(said(stranger, payload))
    assert host.told == []
    assert it._grants.of("example.org").delegated == frozenset()
    assert observer.told("ignored") in ([{"why": "foreign-host"}], [{"why": "foreign-grant"}])


@pytest.mark.parametrize(
    "payload", ["", "<body xmlns='jabber:client'>hi</body>", f"<ack xmlns='{FEED}' stream='s' n='9'/>"]
)
def test_whatever_else_is_said_to_us_means_nothing(payload: str) -> None:
    it, host, _ = open_door()
    it.take(said("example.org", payload))
    assert host.told == []


# ---- answers that do not come ----------------------------------------------------------------------------------------


class Hanging(Prompt):
    """Plays the lanes of a database that hangs. What is cancelled there may end late, and in an error of its own."""

    def __init__(self) -> None:
        self.asked, self.ends = asyncio.Event(), asyncio.Event()

    async def barrier(self, _: str) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.ends.wait()
            raise StoreUnavailable("InterfaceError") from None


class Patient:
    """Plays what takes publishes, with the same database."""

    def __init__(self, lanes: Hanging) -> None:
        self._lanes = lanes

    async def take(self, _: Element, **__: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self._lanes.ends.wait()


class Written:
    """Plays `Wire`."""

    def __init__(self, sent: Sequence[Element] = ()) -> None:
        self.sent = list(sent)
        self.written = asyncio.Event()

    def send(self, stanza: Element) -> None:
        self.sent.append(stanza)
        self.written.set()


def question(number: int) -> Element:
    return parse(
        f"<iq xmlns='{COMPONENT}' type='set' id='o{number}' from='example.org' to='sync.example.org'>"
        f"<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='{FORWARD}'>"
        f"<iq xmlns='{CLIENT}' type='get' id='i{number}' from='{ANN}/desk'><query xmlns='{SYNC}'/></iq>"
        "</forwarded></delegation></iq>"
    )


def hanging_door() -> tuple[Any, Hanging, Written]:
    it, ingest, wire = door(example_org=Slow(0, rooms=False)), Hanging(), Written()
    it._freshness, it._ingest, it._wire = 3600, ingest, wire
    return it, ingest, wire


def refusals(wire: Written, namespace: str = CLIENT) -> list[tuple[str, str, list[str]]]:
    """The outer id, the type of the error and its condition, of each answer."""
    found = []
    for answer in wire.sent:
        [error] = answer.iter(clark(namespace, "error"))
        found.append((answer.get("id", ""), error.get("type", ""), [child.tag for child in error][:1]))
    return found


WAIT = ("wait", [clark(STANZAS, "internal-server-error")])


async def ended(it: Any, ingest: Hanging) -> None:
    late = set(it._late)
    ingest.ends.set()
    await asyncio.wait(late)


async def test_whoever_waits_too_long_is_told_to_wait_once() -> None:
    it, ingest, wire = hanging_door()
    it.take(question(1))
    async with asyncio.timeout(3 * ANSWER_SECONDS):
        await ingest.asked.wait()
        passes(ANSWER_SECONDS)
        await wire.written.wait()
        await ended(it, ingest)
    assert refusals(wire) == [("o1", *WAIT)]
    assert not it._requests
    assert not it._late


async def test_who_asks_while_the_process_ends_is_told_to_ask_again() -> None:
    it, ingest, wire = hanging_door()
    it.turn_away(question(1))
    it.turn_away(parse(f"<iq xmlns='{COMPONENT}' type='get' id='d1' from='{ANN}/x' to='sync.example.org'><a/></iq>"))
    for said_ in (STARTED, FRAME, GRANT):
        it.turn_away(said("example.org", said_))
    it.turn_away(parse(f"<iq xmlns='{COMPONENT}' type='result' id='r1' from='{ANN}' to='sync.example.org'/>"))
    assert refusals(Written([wire.sent[0]])) == [("o1", *WAIT)]
    assert refusals(Written([wire.sent[1]]), COMPONENT) == [("d1", *WAIT)]
    assert len(wire.sent) == 2
    assert not ingest.asked.is_set()
    assert not it._requests


async def test_strangers_leave_half_of_the_room_to_those_whose_hosts_we_serve() -> None:
    """Anybody in the network may publish to the component, node or no node."""
    it, ingest, wire = hanging_door()
    it._publishes = Patient(ingest)
    for number in range(MAX_DIRECT + 1):
        it.take(
            parse(
                f"<iq xmlns='{COMPONENT}' type='set' id='p{number}' from='far.example' to='sync.example.org'>"
                f"<pubsub xmlns='{PUBSUB}'/></iq>"
            )
        )
    busy = ("wait", [clark(STANZAS, "resource-constraint")])
    assert refusals(wire, COMPONENT) == [(f"p{MAX_DIRECT}", *busy)]
    it.take(question(1))
    async with asyncio.timeout(3 * ANSWER_SECONDS):
        await ingest.asked.wait()
        it.dismiss()
        await ended(it, ingest)
    assert not it._direct


async def test_whoever_waits_when_the_connection_is_given_up_is_told_before_it_is() -> None:
    it, ingest, wire = hanging_door()
    it.take(question(1))
    it.take(question(2))
    async with asyncio.timeout(3 * ANSWER_SECONDS):
        await ingest.asked.wait()
        it.take(question(3))  # has not begun
        it.dismiss()
        assert refusals(wire) == [("o1", *WAIT), ("o2", *WAIT), ("o3", *WAIT)]
        await ended(it, ingest)
        passes(ANSWER_SECONDS)  # nor when the limit is over
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(wire.sent) == 3
    assert not it._requests
    assert not it._late
