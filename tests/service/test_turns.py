"""Who asks much and often: one answer at a time for each account, none before the server has taken what was sent, and
room for everybody else.
"""

import asyncio
from collections import Counter
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.protocol.names import CLIENT, COMPONENT, CONVSYNC, FORWARD, STANZAS, SYNC, clark
from sync.protocol.serialise import parse
from sync.service.door import ANSWER_SECONDS, MAX_OF_ONE
from sync.service.turns import MAX_TURNS, Turns
from tests.contract.samples import ANN
from tests.passing import passes
from tests.service.test_door import Prompt, Slow, Written, door

LIST = f"<query xmlns='{SYNC}'/>"
PAYLOADS = {
    "list": ("get", LIST),
    "delta": ("get", f"<sync xmlns='{CONVSYNC}'/>"),
    "change": ("set", LIST),
    "changes": ("set", f"<set xmlns='{CONVSYNC}'/>"),
}
BUSY = clark(STANZAS, "resource-constraint")


class Wire(Written):
    """Plays `Wire`: there is room while `clear`."""

    def __init__(self) -> None:
        super().__init__()
        self.clear = asyncio.Event()
        self.clear.set()

    async def room(self) -> None:
        await self.clear.wait()


class Answers:
    """Plays `Queries`: counts who is being answered, and answers when it may."""

    def __init__(self) -> None:
        self.now, self.most = Counter[str](), Counter[str]()
        self.asked, self.may = asyncio.Semaphore(0), asyncio.Event()

    async def conversations(self, account: str, _: str | None, __: Element) -> Element:
        self.now[account] += 1
        self.most |= self.now
        self.asked.release()
        try:
            await self.may.wait()
        finally:
            self.now[account] -= 1
        return Element("{urn:x}x")

    async def set(self, account: str, resource: str | None, payload: Element) -> None:
        await self.conversations(account, resource, payload)

    async def convsync(self, account: str, resource: str | None, payload: Element, _: str) -> Element:
        return await self.conversations(account, resource, payload)


def question(number: int, account: str, kind: str = "get", payload: str = LIST) -> Element:
    return parse(
        f"<iq xmlns='{COMPONENT}' type='set' id='o{number}' from='example.org' to='sync.example.org'>"
        f"<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='{FORWARD}'>"
        f"<iq xmlns='{CLIENT}' type='{kind}' id='i{number}' from='{account}/desk'>{payload}</iq>"
        "</forwarded></delegation></iq>"
    )


def open_door() -> tuple[Any, Answers, Wire]:
    it, answers, wire, nothing = door(example_org=Slow(0, rooms=False)), Answers(), Wire(), Prompt()
    it._queries, it._wire, it._turns, it._ingest = answers, wire, Turns(wire), nothing  # type: ignore[arg-type]
    return it, answers, wire


async def asked(answers: Answers, many: int) -> None:
    async with asyncio.timeout(60):
        for _ in range(many):
            await answers.asked.acquire()


async def drained(it: Any) -> None:
    async with asyncio.timeout(60):
        await it.drain()


@pytest.mark.parametrize("what", PAYLOADS)
async def test_an_account_has_one_thing_at_a_time_in_order_and_others_meanwhile(what: str) -> None:
    it, answers, wire = open_door()
    for number in range(5):
        it.take(question(number, ANN, *PAYLOADS[what]))
    it.take(question(5, "eve@example.org", *PAYLOADS[what]))
    await asked(answers, 2)
    assert answers.now == {ANN: 1, "eve@example.org": 1}
    answers.may.set()
    await drained(it)
    assert [one.get("id") for one in wire.sent if one.get("id") != "o5"] == ["o0", "o1", "o2", "o3", "o4"]
    assert max(answers.most.values()) == 1
    assert not it._asking


async def test_nothing_large_is_made_before_the_server_has_taken_what_was_sent() -> None:
    it, answers, wire = open_door()
    wire.clear.clear()
    for number in range(3 * MAX_TURNS):
        it.take(question(number, f"p{number}@example.org"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert answers.most.total() == 0
    wire.clear.set()
    await asked(answers, MAX_TURNS)
    assert answers.now.total() == MAX_TURNS
    answers.may.set()
    await drained(it)
    assert len(wire.sent) == 3 * MAX_TURNS


async def test_whose_turn_does_not_come_is_told_to_ask_again(caplog: pytest.LogCaptureFixture) -> None:
    """Which is no error of ours, as it is where an answer was begun."""
    it, answers, wire = open_door()
    for number in range(3):
        it.take(question(number, ANN))
    await asked(answers, 1)
    passes(ANSWER_SECONDS)
    async with asyncio.timeout(60):
        while len(wire.sent) < 3:
            wire.written.clear()
            await wire.written.wait()
    assert [(one.get("id"), one.find(f".//{BUSY}") is not None) for one in wire.sent] == [
        ("o0", False),
        ("o1", True),
        ("o2", True),
    ]
    assert [record.getMessage() for record in caplog.records] == ["a request was not answered in time"]
    answers.may.set()
    it.take(question(3, ANN))
    await drained(it)
    assert [one.get("id") for one in wire.sent] == ["o0", "o1", "o2", "o3"]
    assert (it._turns.waiting, it._late) == (set(), set())


async def test_who_asks_without_end_is_told_to_wait_and_keeps_nobody_out() -> None:
    it, answers, wire = open_door()
    for number in range(MAX_OF_ONE + 3):
        it.take(question(number, ANN))
    late = [f"o{MAX_OF_ONE + n}" for n in range(3)]
    assert [one.get("id") for one in wire.sent] == late
    assert all(one.find(f".//{BUSY}") is not None for one in wire.sent)
    it.take(question(9999, "eve@example.org"))
    await asked(answers, 2)
    assert answers.now["eve@example.org"] == 1
    answers.may.set()
    await drained(it)
    assert len(wire.sent) == MAX_OF_ONE + 4
    it.take(question(10000, ANN))
    await drained(it)
    assert wire.sent[-1].find(f".//{BUSY}") is None
