"""What APNs and the network can do to a push, and the verdict for each: PUSH §2, last row, and §3."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sync.adapters.apns import ApnsGate, GateLimits
from sync.model.push import PushOutcome, Verdict
from sync.sandbox.apns.certificates import ensure
from tests.contract.apns_server import PATIENCE, PATIENT, Apns, alert, apns, numbered, only_line, voip
from tests.passing import passes

BIG = {"aps": {"alert": "x"}, "f": "y" * 3_900}


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


# ---- no answer -------------------------------------------------------------------------------------------------------


async def test_a_reset_stream_was_not_accepted(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("rst_stream", push_type="voip")
        assert (await gate.send(voip())) == PushOutcome(verdict=Verdict.NOT_SENT)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 1


async def test_a_stream_above_the_last_id_of_goaway_was_not_accepted(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("goaway", last_stream_id=1, reason="Shutdown", push_type="voip")
        assert (await gate.send(voip())).verdict is Verdict.NOT_SENT
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
        assert (gate.counts().opened, gate.counts().goaways) == (2, 1)


async def test_a_stream_up_to_the_last_id_of_goaway_is_uncertain(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("goaway")
        assert (await gate.send(voip())) == PushOutcome(verdict=Verdict.UNCERTAIN)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED


async def test_goaway_lets_earlier_pushes_finish_and_refuses_later_ones(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("slow", token=numbered(1), seconds=0.1)
        server.fault("silent", token=numbered(3))
        server.fault("goaway", token=numbered(2), last_stream_id=3)  # 1 was the first push, 3 is numbered(1)'s
        sends = [gate.send(alert(numbered(n))) for n in (1, 3, 2)]
        verdicts = [outcome.verdict for outcome in await asyncio.gather(*sends)]
        assert verdicts == [Verdict.ACCEPTED, Verdict.NOT_SENT, Verdict.NOT_SENT]


async def test_what_left_before_the_connection_was_cut_is_uncertain(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("silent", token=numbered(1))
        server.fault("close", token=numbered(2))
        outcomes = await asyncio.gather(gate.send(alert(numbered(1))), gate.send(alert(numbered(2))))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.UNCERTAIN] * 2
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_what_had_not_left_before_the_connection_was_cut_was_not_sent(server: Apns) -> None:
    server.fault("close", token=numbered(0))
    async with server.gate() as gate:  # nothing accepted yet: the others wait for the first
        verdicts = Counter(o.verdict for o in await asyncio.gather(*(gate.send(alert(numbered(n))) for n in range(20))))
    assert verdicts == {Verdict.UNCERTAIN: 1, Verdict.NOT_SENT: 19}
    assert server.log() == []


async def test_a_push_whose_body_had_not_left_was_not_sent() -> None:
    async with apns(initial_window=0) as server, server.gate() as gate:
        connection = only_line(gate)._current
        assert connection is not None
        async with asyncio.timeout(60):
            while connection._h2.remote_settings.initial_window_size:  # noqa: ASYNC110 - hyper-h2 has no event for it
                await asyncio.sleep(0)
        sent = asyncio.create_task(gate.send(alert(payload=BIG)))
        while not connection.in_flight:  # noqa: ASYNC110 - a connection tells nobody
            await asyncio.sleep(0)
        passes(PATIENCE.send_seconds)
        assert (await sent).verdict is Verdict.NOT_SENT
        assert server.log() == []


async def test_silence_is_uncertain_and_concerns_no_other_push(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("silent", token=numbered(1))
        silent = asyncio.create_task(gate.send(alert(numbered(1))))
        others = await asyncio.gather(*(gate.send(alert(numbered(n))) for n in range(2, 22)))
        assert {outcome.verdict for outcome in others} == {Verdict.ACCEPTED}
        await server.seen(22)
        passes(PATIENCE.send_seconds)
        assert (await silent) == PushOutcome(verdict=Verdict.UNCERTAIN)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().in_flight == 0


async def test_slow_is_still_an_answer(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("slow", seconds=0.1)
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED


async def test_too_slow_is_uncertain(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("slow", seconds=3600)
        late = asyncio.create_task(gate.send(voip()))
        await server.seen(2)
        passes(PATIENCE.send_seconds)
        assert (await late).verdict is Verdict.UNCERTAIN


async def test_no_server_means_not_sent() -> None:
    async with apns() as server:
        gate = ApnsGate([server.app()], server.tokens(), limits=PATIENCE)
    await gate.open()
    assert (await gate.send(alert())) == PushOutcome(verdict=Verdict.NOT_SENT)
    await gate.close()


async def test_a_server_that_is_not_trusted_gets_nothing(server: Apns, tmp_path: Path) -> None:
    gate = ApnsGate([replace(server.app(), ca_file=ensure(tmp_path).ca)], server.tokens(), limits=PATIENCE)
    assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
    await gate.close()


async def test_a_server_that_never_says_hello_costs_the_time_to_connect(server: Apns) -> None:
    deaf = await asyncio.start_server(lambda _, writer: None, "127.0.0.1", 0)
    address = f"https://127.0.0.1:{deaf.sockets[0].getsockname()[1]}"
    gate = ApnsGate([replace(server.app(), server=address)], server.tokens(), limits=GateLimits(connect_seconds=0.1))
    async with asyncio.timeout(60):
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
        await gate.close()
    deaf.close()


async def test_a_server_without_http2_gets_nothing(server: Apns) -> None:
    context = server.simulator.certificates.server_context()
    context.set_alpn_protocols(["http/1.1"])
    old = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = f"https://127.0.0.1:{old.sockets[0].getsockname()[1]}"
    gate = ApnsGate([replace(server.app(), server=address)], server.tokens(), limits=PATIENCE)
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
        limits = GateLimits(**PATIENT | {"ping_seconds": 0.05, "pong_seconds": 1.0})
        gate = ApnsGate([app], server.tokens(), limits=limits)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        swallow.set()
        async with asyncio.timeout(60):
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
    async with server.warm_gate() as gate:
        server.fault(kind, status=status)
        assert (await gate.send(alert())) == PushOutcome(verdict=verdict, status=status)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 1


async def test_a_body_in_two_frames_is_put_together(server: Apns) -> None:
    async with server.warm_gate() as gate:
        server.fault("split_body", status=410, reason="Unregistered", timestamp=1_700_000_000_000)
        outcome = await gate.send(alert())
        assert (outcome.verdict, outcome.reason) == (Verdict.DEAD_TOKEN, "Unregistered")
        assert outcome.dead_since_at == datetime.fromtimestamp(1_700_000_000, UTC)
        assert gate.counts().opened == 1


@pytest.mark.parametrize("reason", ["Shutdown", "TooManyProviderTokenUpdates"])
async def test_some_answers_end_the_use_of_the_connection(server: Apns, reason: str) -> None:
    status = {"Shutdown": 503, "TooManyProviderTokenUpdates": 429}[reason]
    async with server.warm_gate() as gate:
        server.fault("status", status=status, reason=reason)
        assert (await gate.send(alert())).verdict is Verdict.RETRY
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert gate.counts().opened == 2
