"""Pushes a second, and milliseconds for one push, through the APNs gate and a bare hyper-h2 client; then a queue
that was left alone is drained through the whole of the pusher (`bench.drain`).

All talk to the same simulator in a process of its own, in turns, so that a busy machine slows all. The bare client
frames the same requests and does nothing else: no limit of time, no verdicts, no credit, no second connection. It is
the floor that hyper-h2 and TLS set. Where h2load is installed, it says what the simulator itself takes.
"""

import asyncio
import re
import shutil
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from h2.connection import H2Connection
from h2.events import StreamEnded

from bench import drain
from bench.report import milliseconds, spread, table
from bench.simulator import APP, Simulated, simulator
from sync.adapters.apns.request import Notification
from sync.model.push import Environment, PushRequest, PushType, Verdict

Send = Callable[[PushRequest], Awaitable[object]]
RUNS, PUSHES, AT_ONCE, SINGLE = 7, 2_000, 100, 300
QUICK_RUNS, QUICK_PUSHES, QUICK_SINGLE = 1, 100, 10
GATE, BARE, LOADER = "the gate", "bare hyper-h2", "h2load"
TARGET = 4_000


def push(number: int) -> PushRequest:
    """A wake as the policy makes it."""
    return PushRequest(
        app="chat",
        environment=Environment.PRODUCTION,
        token=f"a{number:063x}",
        push_type=PushType.ALERT,
        priority=10,
        expiration=2_000_000_000,
        collapse_id="w:1",
        apns_id=str(uuid4()),
        payload={"aps": {"alert": {"loc-key": "NEW"}, "mutable-content": 1}, "x": {"a": "tag", "k": "m", "v": number}},
    )


class Bare(asyncio.Protocol):
    """The least that hyper-h2 needs: a future for each stream."""

    def __init__(self, authority: str, bearer: str) -> None:
        self._h2, self._authority, self._bearer = H2Connection(), authority, bearer
        self._ended: dict[int, asyncio.Future[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The preface."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answers."""
        for event in self._h2.receive_data(data):
            if isinstance(event, StreamEnded):
                self._ended.pop(event.stream_id).set_result(None)
        self._transport.write(self._h2.data_to_send())

    async def send(self, request: PushRequest) -> None:
        """One request, until its stream has ended."""
        notification, stream_id = Notification(request, APP), self._h2.get_next_available_stream_id()
        self._ended[stream_id] = ended = asyncio.get_running_loop().create_future()
        self._h2.send_headers(stream_id, notification.headers(self._authority, self._bearer))
        self._h2.send_data(stream_id, notification.body, end_stream=True)
        self._transport.write(self._h2.data_to_send())
        await ended


async def per_second(send: Send, pushes: int) -> tuple[float, float]:
    """AT_ONCE senders: pushes a second, and µs of this process for each."""
    numbers = iter(range(pushes))

    async def sender() -> None:
        for number in numbers:
            await send(push(number))

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return pushes / (time.perf_counter() - began), (time.process_time() - cpu) / pushes * 1e6


async def one_by_one(send: Send, many: int) -> list[float]:
    """Seconds of each, on a warm connection."""
    took = []
    for number in range(many):
        request, began = push(number), time.perf_counter()
        await send(request)
        took.append(time.perf_counter() - began)
    return took


async def loaded(at: Simulated, pushes: int) -> float | None:
    """Requests a second by h2load; None where it is not installed."""
    if shutil.which("h2load") is None:
        return None
    notification = Notification(push(1), APP)
    with tempfile.NamedTemporaryFile() as body:
        await asyncio.to_thread(Path(body.name).write_bytes, notification.body)
        headers = [f"-H{name}: {value}" for name, value in notification.headers("", at.bearer) if name[0] != ":"]
        target = f"https://127.0.0.1:{at.port}/3/device/a{0:063x}"
        process = await asyncio.create_subprocess_exec(
            *("h2load", "-n", str(pushes), "-c", "1", "-m", str(AT_ONCE), "-d", body.name, *headers, target),
            stdout=asyncio.subprocess.PIPE,
        )
        said = (await process.communicate())[0].decode()
    found = re.search(r"([\d.]+) req/s", said)
    if found is None or f"{pushes} succeeded" not in said:
        raise AssertionError(f"h2load: {said[-600:]}")
    return float(found[1])


async def compare(at: Simulated, *, quick: bool, say: Callable[[str], None]) -> str:
    """The table of clients."""
    runs, pushes, single = (QUICK_RUNS, QUICK_PUSHES, QUICK_SINGLE) if quick else (RUNS, PUSHES, SINGLE)
    gate, tls = at.gate(), ssl.create_default_context(cafile=at.ca_file)
    tls.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    _, bare = await loop.create_connection(
        lambda: Bare(f"127.0.0.1:{at.port}", at.bearer), "127.0.0.1", at.port, ssl=tls
    )
    await bare.send(push(0))
    assert (await gate.send(push(0))).verdict is Verdict.ACCEPTED
    ways: dict[str, Send] = {GATE: gate.send, BARE: bare.send}
    rates: dict[str, list[float]] = {name: [] for name in (*ways, LOADER)}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(1, runs + 1):
        say(f"push: round {number} of {runs}")
        for name, send in ways.items():
            times[name] += await one_by_one(send, single)
            rate, cost = await per_second(send, pushes)
            rates[name].append(rate)
            costs[name].append(cost)
        if (rate_ := await loaded(at, pushes)) is not None:
            rates[LOADER].append(rate_)
    await gate.close()
    rows: list[list[object]] = []
    for name, found in rates.items():
        if found:
            ratio = statistics.median(a / b for a, b in zip(found, rates[BARE], strict=True))
            own = ["–"] * 4
            if name in ways:
                alone = spread([1e6 / cost for cost in costs[name]])
                own = [spread(costs[name]), alone, *milliseconds(times[name], 50, 99)]
            rows.append([name, spread(found), f"{ratio:.0%}", *own])
    head = [
        "client",
        f"pushes/s, {AT_ONCE} at once",
        "÷ bare",
        "CPU µs/push",
        "a processor's worth, pushes/s",
        "one alone, p50 ms",
        "p99 ms",
    ]
    return table(head, rows)


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    with simulator() as at:
        compared = await compare(at, quick=quick, say=say)
        drained = await drain.run(at, drain.QUICK_JOBS if quick else drain.JOBS, say)
    rounds, pushes = (QUICK_RUNS, QUICK_PUSHES) if quick else (RUNS, PUSHES)
    without = "" if shutil.which("h2load") else " h2load is not installed here."
    return (
        f"One process and one connection to the APNs simulator, which is a process of its own and the server of all; "
        f"{pushes:,} pushes in each of {rounds} rounds, in turns, median (lowest–highest).{without} The "
        f"simulator is a Python process, too, and bounds them all; a processor's worth is what the client's own "
        f"processor time allows. Target: ≥ {TARGET:,} pushes/s in one process.\n\n{compared}\n\n{drained}"
    )
