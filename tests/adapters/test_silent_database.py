"""A database that is there and says nothing, as a machine that is gone without a word: whoever asks gets an answer in
time, and when the database speaks again everybody is served.
"""

import asyncio
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.protocol.names import CLIENT, COMPONENT, FORWARD, SYNC, clark
from sync.protocol.serialise import parse
from sync.rules.fold import Policies
from sync.service.door import Door
from sync.service.fanout import FanOut
from sync.service.grants import Grants
from tests.adapters.relay import relayed
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, BOB, account, conversation
from tests.contract.stores import Bench, on_postgres
from tests.service.prompt import COMPONENT_JID, HOST, Line, Prompt
from tests.service.test_queries import Desk

LIMIT = 1.0
ROOM = "tea@rooms.example.org"
LIST = f"<query xmlns='{SYNC}'/>"
PIN = f"<query xmlns='{SYNC}'><conversation jid='{BOB}' type='urn:xabber:chat' pinned='5'/></query>"


class Asker:
    """The real door, with the real fan-out before the store; ann asks."""

    def __init__(self, bench: Bench) -> None:
        self.line, observer, nothing = Line(), RecordingObserver(), Prompt()
        self.fanout = FanOut(
            store=bench.store,
            rooms=bench.rooms,
            clock=bench.clock,
            observer=observer,
            policies=Policies(),
            due=lambda _: None,
        )
        self.fanout.owe([ROOM])
        idle: Any = nothing
        self.door = Door(
            component=COMPONENT_JID,
            version="1",
            wire=self.line,
            feeds={HOST: idle},
            ingest=idle,
            fanout=self.fanout,
            queries=Desk(bench, self.line).queries,
            registrations=idle,
            publishes=idle,
            grants=Grants([HOST], clock=bench.clock, observer=observer),
            observer=observer,
            freshness_seconds=60,
        )

    async def ask(self, kind: str, payload: str) -> Element:
        self.line.sent.clear()
        self.door.take(
            parse(
                f"<iq xmlns='{COMPONENT}' type='set' id='o' from='{HOST}' to='{COMPONENT_JID}'>"
                f"<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='{FORWARD}'>"
                f"<iq xmlns='{CLIENT}' type='{kind}' id='i' from='{ANN}/web'>{payload}</iq>"
                "</forwarded></delegation></iq>"
            )
        )
        while not self.line.sent:  # noqa: ASYNC110 - the double has no event for it
            await asyncio.sleep(0.01)
        [answer] = self.line.sent
        return next(answer.iter(clark(CLIENT, "iq")))


@pytest.mark.parametrize("owes", [True, False])
async def test_a_silent_database_lets_nobody_wait_for_ever(
    database: str, owes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relayed(database) as (relay, dsn), on_postgres(dsn, size=2) as bench:
        await bench.put(ANN, accounts=[account()], conversations=[conversation(20)])
        asker = Asker(bench)
        await asker.fanout._look_up()
        if owes:
            asker.fanout.owe([ROOM])
        else:
            asker.fanout._pending.clear()
        assert (await asker.ask("get", LIST)).get("type") == "result"
        monkeypatch.setattr("sync.service.door.ANSWER_SECONDS", LIMIT)  # the database's own is a minute
        asker.door._freshness = LIMIT / 2
        relay.silence()
        for kind, payload in (("get", LIST), ("set", PIN), ("get", LIST)):
            async with asyncio.timeout(30):
                error = (await asker.ask(kind, payload)).find(clark(CLIENT, "error"))
            assert error is not None
            assert error.get("type") == "wait"
        relay.speak()
        monkeypatch.undo()
        asker.door._freshness = 60
        async with asyncio.timeout(90):
            while (await asker.ask("set", PIN)).get("type") == "error":  # noqa: ASYNC110 - connections are made anew
                await asyncio.sleep(0.1)
