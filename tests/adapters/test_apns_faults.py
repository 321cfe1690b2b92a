"""What APNs and the network can do to a push, and the verdict for each: PUSH §2, last row, and §3."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync.adapters.apns import ApnsGate, GateLimits
from sync.adapters.apns.line import Line
from sync.model.push import PushOutcome, Verdict
from sync.sandbox.apns.certificates import ensure
from sync.sandbox.apns.journal import Journal
from tests.contract.apns_server import ALERT, Apns, alert, apns, voip
from tests.contract.fakes_push import MemoryProviderTokens, SetClock

BIG = {"aps": {"alert": "x"}, "f": "y" * 3_900}


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


@asynccontextmanager
async def warm(server: Apns, **limits: Any) -> AsyncIterator[ApnsGate]:
    """A gate whose connection has had its first accepted push, so that many streams may be open."""
    async with server.gate(**limits) as gate:
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        yield gate


def line_of(gate: ApnsGate) -> Line:
    return next(iter(gate._lines.values()))


def token(number: int) -> str:
    return f"a{number:063x}"


# ---- no answer -------------------------------------------------------------------------------------------------------


async def test_a_reset_stream_was_not_accepted(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("rst_stream", push_type="voip")
        assert (await gate.send(voip())) == PushOutcome(verdict=Verdict.NOT_SENT)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 1


async def test_a_stream_above_the_last_id_of_goaway_was_not_accepted(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("goaway", last_stream_id=1, reason="Shutdown", push_type="voip")
        assert (await gate.send(voip())).verdict is Verdict.NOT_SENT
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
        assert (gate.counts().opened, gate.counts().connections) == (2, 1)


async def test_a_stream_up_to_the_last_id_of_goaway_is_uncertain(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("goaway")
        assert (await gate.send(voip())) == PushOutcome(verdict=Verdict.UNCERTAIN)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED


async def test_goaway_lets_earlier_pushes_finish_and_refuses_later_ones(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("slow", token=token(1), seconds=0.1)
        server.fault("silent", token=token(3))
        server.fault("goaway", token=token(2), last_stream_id=3)  # 1 was the first push, 3 is token(1)'s
        sends = [gate.send(alert(token(n))) for n in (1, 3, 2)]
        verdicts = [outcome.verdict for outcome in await asyncio.gather(*sends)]
        assert verdicts == [Verdict.ACCEPTED, Verdict.NOT_SENT, Verdict.NOT_SENT]


async def test_what_left_before_the_connection_was_cut_is_uncertain(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("silent", token=token(1))
        server.fault("close", token=token(2))
        outcomes = await asyncio.gather(gate.send(alert(token(1))), gate.send(alert(token(2))))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.UNCERTAIN] * 2
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_what_had_not_left_before_the_connection_was_cut_was_not_sent(server: Apns) -> None:
    server.fault("close", token=token(0))
    async with server.gate() as gate:  # nothing accepted yet: the others wait for the first
        verdicts = Counter(o.verdict for o in await asyncio.gather(*(gate.send(alert(token(n))) for n in range(20))))
    assert verdicts == {Verdict.UNCERTAIN: 1, Verdict.NOT_SENT: 19}
    assert server.log() == []


async def test_a_push_whose_body_had_not_left_was_not_sent() -> None:
    async with apns(initial_window=0) as server, server.gate(send_seconds=0.2) as gate:
        connection = line_of(gate)._current
        assert connection is not None
        async with asyncio.timeout(2):
            while connection._h2.remote_settings.initial_window_size:  # noqa: ASYNC110 - hyper-h2 has no event for it
                await asyncio.sleep(0)
        assert (await gate.send(alert(payload=BIG))).verdict is Verdict.NOT_SENT
        assert server.log() == []


async def test_silence_is_uncertain_and_concerns_no_other_push(server: Apns) -> None:
    async with warm(server, send_seconds=0.2) as gate:
        server.fault("silent", token=token(1))
        silent = asyncio.create_task(gate.send(alert(token(1))))
        others = await asyncio.gather(*(gate.send(alert(token(n))) for n in range(2, 22)))
        assert {outcome.verdict for outcome in others} == {Verdict.ACCEPTED}
        assert (await silent) == PushOutcome(verdict=Verdict.UNCERTAIN)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().in_flight == 0


async def test_slow_is_still_an_answer(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("slow", seconds=0.1)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED


async def test_too_slow_is_uncertain(server: Apns) -> None:
    async with warm(server, send_seconds=0.1) as gate:
        server.fault("slow", seconds=30)
        assert (await gate.send(voip())).verdict is Verdict.UNCERTAIN


async def test_no_server_means_not_sent() -> None:
    async with apns() as server:
        gate = ApnsGate([server.app()], server.tokens())
    await gate.open()
    assert (await gate.send(alert())) == PushOutcome(verdict=Verdict.NOT_SENT)
    await gate.close()


async def test_a_server_that_is_not_trusted_gets_nothing(server: Apns, tmp_path: Path) -> None:
    gate = ApnsGate([replace(server.app(), ca_file=ensure(tmp_path).ca)], server.tokens())
    assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
    await gate.close()


async def test_a_server_that_never_says_hello_costs_the_time_to_connect(server: Apns) -> None:
    deaf = await asyncio.start_server(lambda _, writer: None, "127.0.0.1", 0)
    address = f"https://127.0.0.1:{deaf.sockets[0].getsockname()[1]}"
    gate = ApnsGate([replace(server.app(), server=address)], server.tokens(), limits=GateLimits(connect_seconds=0.1))
    async with asyncio.timeout(2):
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
        await gate.close()
    deaf.close()


async def test_a_server_without_http2_gets_nothing(server: Apns) -> None:
    context = server.simulator.certificates.server_context()
    context.set_alpn_protocols(["http/1.1"])
    old = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = f"https://127.0.0.1:{old.sockets[0].getsockname()[1]}"
    gate = ApnsGate([replace(server.app(), server=address)], server.tokens())
    assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
    await gate.close()
    old.close()


async def test_a_dead_connection_is_noticed_by_ping() -> None:
    """A proxy that forwards until it is told to be silent stands for a network that swallows packets."""
    async with apns() as server:
        swallow = asyncio.Event()

        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if not swallow.is_set():
                    writer.write(data)
            writer.close()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)

        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        app = replace(server.app(), server=f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        gate = ApnsGate([app], server.tokens(), limits=GateLimits(ping_seconds=0.05, pong_seconds=0.1))
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        swallow.set()
        async with asyncio.timeout(2):
            assert (await gate.send(alert())).verdict is Verdict.UNCERTAIN
        await gate.close()
        proxy.close()


# ---- odd answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["empty_body", "not_json"])
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict.REJECTED),
        (403, Verdict.CREDENTIALS),
        (410, Verdict.DEAD_TOKEN),
        (413, Verdict.TOO_LARGE),
        (429, Verdict.THROTTLED),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
    ],
)
async def test_an_error_without_a_readable_body_is_judged_by_its_status(
    server: Apns, kind: str, status: int, verdict: Verdict
) -> None:
    async with warm(server) as gate:
        server.fault(kind, status=status)
        assert (await gate.send(alert())) == PushOutcome(verdict=verdict, status=status)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 1


async def test_a_body_in_two_frames_is_put_together(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("split_body", status=410, reason="Unregistered", timestamp=1_700_000_000_000)
        outcome = await gate.send(alert())
        assert (outcome.verdict, outcome.reason) == (Verdict.DEAD_TOKEN, "Unregistered")
        assert outcome.dead_since_at == datetime.fromtimestamp(1_700_000_000, UTC)
        assert gate.counts().opened == 1


@pytest.mark.parametrize("reason", ["Shutdown", "IdleTimeout", "TooManyProviderTokenUpdates"])
async def test_some_answers_end_the_use_of_the_connection(server: Apns, reason: str) -> None:
    status = {"Shutdown": 503, "IdleTimeout": 400, "TooManyProviderTokenUpdates": 429}[reason]
    async with warm(server) as gate:
        server.fault("status", status=status, reason=reason)
        assert (await gate.send(alert())).verdict is Verdict.RETRY
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 2


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
    async with warm(server) as gate:
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


async def test_new_connections_use_the_same_provider_token(server: Apns) -> None:
    async with warm(server) as gate:
        for _ in range(3):
            server.fault("goaway", last_stream_id=0)
            assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
            assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 4
    assert server.simulator.stats()["provider_tokens"] == 1


async def test_without_a_provider_token_nothing_is_sent(server: Apns) -> None:
    class Broken:
        async def current(self) -> str:
            raise OSError

        async def refused(self, token: str) -> bool:
            raise OSError

    async with server.gate(Broken()) as gate:
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT


# ---- many ------------------------------------------------------------------------------------------------------------


async def test_a_connection_does_not_leak_streams_or_windows(server: Apns) -> None:
    async with warm(server) as gate:
        for _ in range(3):
            outcomes = await asyncio.gather(*(gate.send(alert(token(n), payload=BIG)) for n in range(90)))
            assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        connection = line_of(gate)._current
        assert connection is not None
        assert (connection.in_flight, connection._h2.open_outbound_streams) == (0, 0)
        assert gate.counts().opened == 1


async def test_errors_give_back_their_credit(server: Apns) -> None:
    """Answers of 30 bytes would close a window of 65,535 after some 2,000 if no credit went back."""
    async with warm(server) as gate:
        server.fault("status", status=503, times=3_000)
        for _ in range(15):
            outcomes = await asyncio.gather(*(gate.send(alert(token(n))) for n in range(200)))
            assert {outcome.verdict for outcome in outcomes} == {Verdict.RETRY}
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_small_windows_and_few_streams_only_slow_down() -> None:
    async with apns(initial_window=500, max_streams=10) as server, warm(server) as gate:
        outcomes = await asyncio.gather(*(gate.send(alert(token(n), payload=BIG)) for n in range(200)))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        assert len(server.accepted()) == 201


async def test_two_hundred_at_once_each_exactly_once(server: Apns) -> None:
    async with server.gate() as gate:
        pushes = [alert(token(n)) for n in range(200)]
        outcomes = await asyncio.gather(*map(gate.send, pushes))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
        assert sorted(server.accepted()) == sorted(push.apns_id for push in pushes)
        assert gate.counts().opened == 1


@pytest.mark.parametrize("end", ["close", "goaway"])
async def test_in_a_storm_nothing_is_sent_twice_and_every_accepted_push_is_in_the_log(server: Apns, end: str) -> None:
    async with warm(server, send_seconds=1.0) as gate:
        for n in range(0, 200, 10):
            server.fault("rst_stream", token=token(n))
            server.fault("status", token=token(n + 1), status=500)
            server.fault("split_body", token=token(n + 2), status=503)
            server.fault("slow", token=token(n + 3), seconds=0.05)
        server.fault("silent", token=token(64))
        server.fault(end, token=token(155))
        pushes = [alert(token(n)) for n in range(200)]
        outcomes = await asyncio.gather(*map(gate.send, pushes))
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
    async with warm(server) as gate:
        server.fault("slow", seconds=0.1, times=50)
        tasks = [asyncio.create_task(gate.send(alert(token(n)))) for n in range(100)]
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
        first, second = asyncio.create_task(gate.send(alert())), asyncio.create_task(gate.send(alert(token(1))))
        await asyncio.sleep(0)
        second.cancel()
        assert (await first).verdict is Verdict.ACCEPTED
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
    assert [line["token"] for line in server.log()] == [ALERT, ALERT]


async def test_closing_waits_for_what_is_in_flight(server: Apns) -> None:
    async with warm(server) as gate:
        server.fault("slow", seconds=0.1)
        push = asyncio.create_task(gate.send(voip()))
        await asyncio.sleep(0)
        await gate.close()
        assert (await push).verdict is Verdict.ACCEPTED


async def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    async with apns() as server, warm(server) as gate:
        await server.simulator.stop()
        assert (await gate.send(alert())).verdict in {Verdict.NOT_SENT, Verdict.UNCERTAIN}
        server.simulator.journal = Journal(tmp_path / "apns.jsonl")
        assert await server.simulator.start("127.0.0.1", server.port) == server.port
        async with asyncio.timeout(5):
            while (await gate.send(alert())).verdict is not Verdict.ACCEPTED:  # noqa: ASYNC110 - as a job owner would
                await asyncio.sleep(0.02)


async def test_no_token_is_logged_and_failures_are_no_errors(server: Apns, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with warm(server, send_seconds=0.2) as gate:
        for kind in ("rst_stream", "goaway", "close", "silent", "empty_body", "not_json"):
            server.fault(kind)
            await gate.send(alert())
            await gate.send(alert())
    assert ALERT not in caplog.text
    assert "bearer" not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
