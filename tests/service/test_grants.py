"""What hosts have granted: remembered for each, said once where something is missing, forgotten with the connection."""

import asyncio
import logging
from xml.etree.ElementTree import Element

import pytest

from sync.protocol.names import CONVSYNC, INBOX, PUSH, REWRITE, SYNC
from sync.protocol.serialise import parse
from sync.service.grants import Grants
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import NOW

ALL = (SYNC, REWRITE, INBOX, CONVSYNC, PUSH)


def told(*namespaces: str, version: int = 2) -> Element:
    inside = "".join(f"<delegated namespace='{name}'/>" for name in namespaces)
    return parse(f"<message><delegation xmlns='urn:xmpp:delegation:{version}'>{inside}</delegation></message>")


class Waiting(SetClock):
    """A moment lasts until the test says that it is over."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await self.over.wait()


class House:
    def __init__(self) -> None:
        self.clock, self.observer = Waiting(), RecordingObserver()
        self.grants = Grants(["ex.org", "ex.net"], clock=self.clock, observer=self.observer)

    async def settled(self) -> None:
        self.clock.over.set()
        for _ in range(3):
            await asyncio.sleep(0)
        self.clock.over.clear()

    def shown(self, host: str) -> dict[object, object]:
        """The metric as it stands."""
        return {told["dialect"]: told["granted"] for told in self.observer.told("delegated") if told["host"] == host}


async def test_what_is_missing_is_said_once_and_for_each_host(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.grants.connected()
    house.grants.heard("ex.org", told(*ALL))
    house.grants.heard("ex.net", told(SYNC, version=1))
    assert house.grants.missing("ex.net") == ()
    with caplog.at_level(logging.WARNING):
        await house.settled()
        await house.settled()
    assert house.grants.missing("ex.org") == ()
    assert house.grants.missing("ex.net") == tuple(sorted(set(ALL) - {SYNC}))
    assert [(record.__dict__["host"]) for record in caplog.records] == ["ex.net"]
    assert house.grants.of("ex.org").delegation == "urn:xmpp:delegation:2"
    assert house.grants.of("ex.net").delegation == "urn:xmpp:delegation:1"
    assert house.shown("ex.net") == {"synchronization": True} | dict.fromkeys(
        ("rewrite", "inbox", "convsync", "push"), False
    )


async def test_what_comes_later_is_missing_no_more() -> None:
    house = House()
    house.grants.connected()
    await house.settled()
    house.grants.heard("ex.org", told(*ALL))
    assert house.grants.missing("ex.org") == ()


async def test_all_of_it_is_forgotten_with_the_connection() -> None:
    house = House()
    house.grants.connected()
    house.grants.heard("ex.org", told(*ALL))
    await house.settled()
    house.grants.disconnected()
    assert house.grants.of("ex.org").delegation is None
    assert not any(house.shown("ex.org").values())
    assert house.grants.missing("ex.org") == ()
    house.grants.connected()
    await house.settled()
    assert len(house.grants.missing("ex.org")) == len(ALL)


async def test_a_connection_that_did_not_last_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.grants.connected()
    house.grants.disconnected()
    with caplog.at_level(logging.WARNING):
        await house.settled()
    assert not caplog.records


async def test_nobody_else_grants_anything() -> None:
    house = House()
    for stranger in ("eve.org", "ann@ex.org", "ex.org/x", ""):
        house.grants.heard(stranger, told(*ALL))
        assert house.grants.of(stranger).delegated == frozenset()
    assert house.observer.told("ignored") == [{"why": "foreign-grant"}] * 4
