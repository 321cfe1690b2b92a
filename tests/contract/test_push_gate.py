"""What every PushGate promises: the in-memory one, and the one over HTTP/2 against a real simulator."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from sync.model.push import PushType, Verdict
from sync.ports import PushGate
from sync.sandbox.apns.registry import Registry, TokenRecord, TokenState
from tests.contract.apns_server import ALERT, APP, alert, apns, voip
from tests.contract.fakes_push import RecordingPushGate


@dataclass
class Bench:
    """A gate, the registry behind it, and the apns-ids that were accepted."""

    gate: PushGate
    registry: Registry
    accepted: Callable[[], list[str]]
    hold: Callable[[], Awaitable[Callable[[], None]]]


async def _held_by_the_fake(gate: RecordingPushGate) -> Callable[[], None]:
    gate.released.clear()
    return gate.released.set


@pytest_asyncio.fixture(params=["memory", "http2"], loop_scope="session")
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        gate = RecordingPushGate({"chat": APP})
        ids = lambda: [r.apns_id for r in gate.sent]  # noqa: E731
        yield Bench(gate, gate.registry, ids, lambda: _held_by_the_fake(gate))
        return
    async with apns() as server, server.gate() as real:

        async def slow() -> Callable[[], None]:
            server.fault("slow", seconds=0.2)
            return lambda: None

        yield Bench(real, server.simulator.registry, server.accepted, slow)


async def test_an_alert_is_accepted(bench: Bench) -> None:
    push = alert()
    outcome = await bench.gate.send(push)
    assert (outcome.verdict, outcome.status, outcome.reason) == (Verdict.ACCEPTED, 200, None)
    assert bench.accepted() == [push.apns_id]


async def test_a_voip_push_is_accepted(bench: Bench) -> None:
    assert (await bench.gate.send(voip())).verdict is Verdict.ACCEPTED


async def test_a_background_push_is_accepted(bench: Bench) -> None:
    push = alert(push_type=PushType.BACKGROUND, priority=5, payload={"aps": {"content-available": 1}})
    assert (await bench.gate.send(push)).verdict is Verdict.ACCEPTED


async def test_an_unknown_token_is_dead(bench: Bench) -> None:
    outcome = await bench.gate.send(alert("b" * 64))
    assert (outcome.verdict, outcome.status, outcome.reason) == (Verdict.DEAD_TOKEN, 400, "BadDeviceToken")


async def test_a_token_of_the_other_kind_is_dead_for_the_topic(bench: Bench) -> None:
    outcome = await bench.gate.send(voip(ALERT))
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD_TOKEN, "DeviceTokenNotForTopic")


async def test_an_unregistered_token_is_dead_since_an_instant(bench: Bench) -> None:
    bench.registry.tell(ALERT, TokenRecord(state=TokenState.UNREGISTERED, since_ms=1_700_000_000_123))
    outcome = await bench.gate.send(alert())
    assert (outcome.verdict, outcome.status, outcome.reason) == (Verdict.DEAD_TOKEN, 410, "Unregistered")
    assert outcome.dead_since_at == datetime.fromtimestamp(1_700_000_000.123, UTC)


@pytest.mark.parametrize(("push_type", "limit"), [(PushType.ALERT, 4096), (PushType.VOIP, 5120)])
async def test_the_payload_may_be_just_so_long(bench: Bench, push_type: PushType, limit: int) -> None:
    make = alert if push_type is PushType.ALERT else voip
    frame = '{"aps":{"alert":"x"},"f":""}'
    filling = "y" * (limit - len(frame))
    fits = {"aps": {"alert": "x"}, "f": filling}
    assert (await bench.gate.send(make(payload=fits))).verdict is Verdict.ACCEPTED
    too_long = {**fits, "f": filling + "y"}
    assert (await bench.gate.send(make(payload=too_long))).verdict is Verdict.TOO_LARGE


async def test_length_is_counted_in_bytes_of_utf8(bench: Bench) -> None:
    assert (await bench.gate.send(alert(payload={"aps": {"alert": "é" * 2047}}))).verdict is Verdict.TOO_LARGE


async def test_an_app_that_is_not_configured_is_our_fault(bench: Bench) -> None:
    assert (await bench.gate.send(alert(app="other"))).verdict is Verdict.REJECTED


async def test_a_payload_that_is_not_json_is_our_fault(bench: Bench) -> None:
    assert (await bench.gate.send(alert(payload={"aps": object()}))).verdict is Verdict.REJECTED


async def test_a_wrong_collapse_id_is_our_fault(bench: Bench) -> None:
    outcome = await bench.gate.send(alert(collapse_id="c" * 65))
    assert (outcome.verdict, outcome.reason) == (Verdict.REJECTED, "BadCollapseId")


async def test_pushes_may_be_sent_at_once(bench: Bench) -> None:
    pushes = [alert(f"a{n:063x}") for n in range(50)]
    outcomes = await asyncio.gather(*map(bench.gate.send, pushes))
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
    assert sorted(bench.accepted()) == sorted(push.apns_id for push in pushes)


async def test_cancelling_one_caller_disturbs_no_other(bench: Bench) -> None:
    await bench.gate.send(alert())
    release = await bench.hold()
    cancelled = asyncio.create_task(bench.gate.send(alert("a" + "1" * 63)))
    other = asyncio.create_task(bench.gate.send(alert("a" + "2" * 63)))
    await asyncio.sleep(0)
    cancelled.cancel()
    release()
    assert (await other).verdict is Verdict.ACCEPTED
    assert (await bench.gate.send(alert())).verdict is Verdict.ACCEPTED


async def test_after_close_nothing_is_sent(bench: Bench) -> None:
    await bench.gate.close()
    assert (await bench.gate.send(alert())).verdict is Verdict.NOT_SENT
    assert bench.accepted() == []
