"""Many pushes at once on one gate, its provider token, and its end: nothing leaks, nothing is sent twice."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync.model.push import Verdict
from sync.sandbox.apns.journal import Journal
from tests.contract.apns_server import ALERT, PATIENCE, Apns, alert, apns, numbered, only_line, voip
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_push import MemoryProviderTokens, SetClock
from tests.passing import passes

BIG = {"aps": {"alert": "x"}, "f": "y" * 3_900}


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


# ---- the provider token ----------------------------------------------------------------------------------------------


async def test_an_expired_provider_token_is_replaced_and_the_push_sent_once_more(server: Apns) -> None:
    clock = SetClock(datetime.now(UTC) - timedelta(minutes=61))
    tokens = MemoryProviderTokens(server.key.mint, clock.now)
    await tokens.current()
    clock.advance(minutes=49)  # our clock is 12 minutes behind: to APNs the token is 61 minutes old, to us 49
    async with server.gate(tokens) as gate:
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
    assert [line["reason"] for line in server.log()] == ["ExpiredProviderToken", None]


async def test_a_young_provider_token_that_is_called_expired_is_not_replaced(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("status", status=403, reason="ExpiredProviderToken")
        outcome = await gate.send(voip())
        assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "ExpiredProviderToken")
        assert len(server.log()) == 2


async def test_a_refused_token_is_asked_about_once_only(server: Apns) -> None:
    clock = SetClock(datetime.now(UTC) - timedelta(minutes=30))
    async with server.gate(MemoryProviderTokens(server.key.mint, clock.now)) as gate:
        await gate.send(alert())
        clock.advance(minutes=30)
        server.fault("status", status=403, reason="ExpiredProviderToken", times=5)
        assert (await gate.send(voip())).verdict is Verdict.RETRY
        assert len(server.log()) == 3


async def test_when_tokens_change_too_often_the_one_there_is_goes_on(server: Apns) -> None:
    clock = SetClock(datetime.now(UTC) - timedelta(minutes=45))
    tokens = MemoryProviderTokens(server.key.mint, clock.now)
    async with server.gate(tokens) as gate:
        await gate.send(alert())
        clock.advance(minutes=45)
        server.fault("status", status=429, reason="TooManyProviderTokenUpdates")
        assert (await gate.send(alert())).verdict is Verdict.RETRY
        clock.advance(minutes=10)  # it is 55 minutes old to us, and would be replaced
        first = await tokens.current()
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert await tokens.current() == first
        assert gate.counts().opened == 2
    assert server.simulator.stats()["provider_tokens"] == 1


async def test_new_connections_use_the_same_provider_token(server: Apns) -> None:
    async with server.warm_gate() as gate:
        for _ in range(3):
            server.fault("goaway", last_stream_id=0)
            assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
            assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 4
        now, observer = server.clock(), RecordingObserver()
        gate.measure(observer, now + timedelta(minutes=7))
        gate.measure(observer, now + timedelta(minutes=8))
        assert observer.told("push_service") == [
            {"connections": 1, "goaways": 3},
            {"connections": 1, "goaways": 0},
        ]
        assert [told["age_seconds"] // 60 for told in observer.told("provider_token")] == [7, 8]
    assert server.simulator.stats()["provider_tokens"] == 1


async def test_without_a_provider_token_nothing_is_sent(server: Apns) -> None:
    class Broken:
        minted_at = None

        async def current(self) -> str:
            raise OSError

        async def refused(self, token: str) -> bool:
            raise OSError

        def hold(self) -> None:
            raise OSError

    async with server.gate(Broken()) as gate:
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT


# ---- many ------------------------------------------------------------------------------------------------------------


async def test_a_connection_does_not_leak_streams_or_windows(server: Apns) -> None:
    async with server.warm_gate() as gate:
        for _ in range(3):
            outcomes = await asyncio.gather(*(gate.send(alert(numbered(n), payload=BIG)) for n in range(90)))
            assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        connection = only_line(gate)._current
        assert connection is not None
        assert (connection.in_flight, connection._h2.open_outbound_streams) == (0, 0)
        assert gate.counts().opened == 1


async def test_errors_give_back_their_credit(server: Apns) -> None:
    """Answers of 30 bytes would close a window of 65,535 after some 2,000 if no credit went back."""
    async with server.warm_gate() as gate:
        server.fault("status", status=503, times=3_000)
        for _ in range(15):
            outcomes = await asyncio.gather(*(gate.send(alert(numbered(n))) for n in range(200)))
            assert {outcome.verdict for outcome in outcomes} == {Verdict.RETRY}
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_small_windows_and_few_streams_only_slow_down() -> None:
    async with apns(initial_window=500, max_streams=10) as server, server.warm_gate() as gate:
        outcomes = await asyncio.gather(*(gate.send(alert(numbered(n), payload=BIG)) for n in range(200)))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        assert len(server.accepted()) == 201


async def test_two_hundred_at_once_each_exactly_once(server: Apns) -> None:
    async with server.gate() as gate:
        pushes = [alert(numbered(n)) for n in range(200)]
        outcomes = await asyncio.gather(*map(gate.send, pushes))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        assert sorted(server.accepted()) == sorted(push.apns_id for push in pushes)
        assert gate.counts().opened == 1


@pytest.mark.parametrize("end", ["close", "goaway"])
async def test_in_a_storm_nothing_is_sent_twice_and_every_accepted_push_is_in_the_log(server: Apns, end: str) -> None:
    async with server.warm_gate() as gate:
        for n in range(0, 200, 10):
            server.fault("rst_stream", token=numbered(n))
            server.fault("status", token=numbered(n + 1), status=500)
            server.fault("split_body", token=numbered(n + 2), status=503)
            server.fault("slow", token=numbered(n + 3), seconds=0.05)
        server.fault("silent", token=numbered(64))
        server.fault(end, token=numbered(155))
        pushes = [alert(numbered(n)) for n in range(200)]
        sends = [asyncio.ensure_future(gate.send(push)) for push in pushes]
        while sum(not send.done() for send in sends) > 2:
            await asyncio.wait([send for send in sends if not send.done()], return_when=asyncio.FIRST_COMPLETED)
        passes(PATIENCE.send_seconds)  # what met silence, or waits behind it
        outcomes = await asyncio.gather(*sends)
        closing = asyncio.ensure_future(gate.close())
        await asyncio.sleep(0)
        passes(PATIENCE.send_seconds)
        await closing
    seen = Counter(line["apns_id"] for line in server.log())
    assert max(seen.values()) == 1
    for push, outcome in zip(pushes, outcomes, strict=True):
        if outcome.verdict is Verdict.NOT_SENT:
            assert push.apns_id not in seen
        elif outcome.verdict is Verdict.ACCEPTED:
            assert push.apns_id in server.accepted()
    assert Verdict.NOT_SENT in {outcome.verdict for outcome in outcomes}
    assert Verdict.UNCERTAIN in {outcome.verdict for outcome in outcomes}


async def test_cancelled_callers_disturb_nobody_and_free_their_streams(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("slow", seconds=0.1, times=50)
        tasks = [asyncio.create_task(gate.send(alert(numbered(n)))) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[:50]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[:50])
        assert {outcome.verdict for outcome in outcomes[50:]} == {Verdict.ACCEPTED}  # type: ignore[union-attr]
        await gate.close()
        assert (gate.counts().in_flight, gate.counts().opened) == (0, 1)


async def test_a_push_that_is_cancelled_while_it_waits_never_leaves(server: Apns) -> None:
    async with server.gate() as gate:
        server.fault("slow", seconds=0.1)
        first, second = asyncio.create_task(gate.send(alert())), asyncio.create_task(gate.send(alert(numbered(1))))
        await asyncio.sleep(0)
        second.cancel()
        assert (await first).verdict is Verdict.ACCEPTED
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
    assert [line["token"] for line in server.log()] == [ALERT, ALERT]


async def test_closing_waits_for_what_is_in_flight(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("slow", seconds=0.1)
        push = asyncio.create_task(gate.send(voip()))
        await asyncio.sleep(0)
        await gate.close()
        assert (await push).verdict is Verdict.ACCEPTED


async def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    async with apns() as server, server.warm_gate() as gate:
        await server.simulator.stop()
        assert (await gate.send(alert())).verdict in {Verdict.NOT_SENT, Verdict.UNCERTAIN}
        server.simulator.journal = Journal(tmp_path / "apns.jsonl")
        assert await server.simulator.start("127.0.0.1", server.port) == server.port
        async with asyncio.timeout(60):
            while (await gate.send(alert())).verdict is not Verdict.ACCEPTED:  # noqa: ASYNC110 - as a job owner would
                await asyncio.sleep(0.02)


async def test_no_token_is_logged_and_failures_are_no_errors(server: Apns, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with server.warm_gate() as gate:
        for kind in ("rst_stream", "goaway", "close", "silent", "empty_body", "not_json"):
            server.simulator.reset()
            server.fault(kind)
            sent = asyncio.ensure_future(gate.send(alert()))
            if kind == "silent":
                await server.seen(1)
                passes(PATIENCE.send_seconds)
            await sent
            await gate.send(alert())
    assert ALERT not in caplog.text
    assert "bearer" not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
