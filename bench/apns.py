"""Pushes a second, and milliseconds for one push, through the APNs gate and through a bare hyper-h2 client.

`python bench/apns.py`: both talk to the same simulator in a process of its own, in turns, so that a busy machine
slows both. The bare client frames the same requests and does nothing else: no limit of time, no verdicts, no credit,
no second connection. It is the floor that hyper-h2 and TLS set. What a push costs outside (queue, database) is not
measured here.
"""

import asyncio
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.connection import H2Connection
from h2.events import StreamEnded

from sync.adapters.apns import ApnsApp, ApnsGate, ProviderKey
from sync.adapters.apns.request import Notification
from sync.model.push import Environment, PushRequest, PushType, Verdict

APP, TEAM, KEY = "org.example.chat", "TEAM123456", "KEY1234567"
RUNS, PUSHES, AT_ONCE, SINGLE = 7, 2_000, 100, 300


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


class OneToken:
    """ProviderTokens without anything behind it."""

    def __init__(self, token: str) -> None:
        self._token = token

    @property
    def minted_at(self) -> datetime:
        """Just now."""
        return datetime.now(UTC)

    async def current(self) -> str:
        """The token."""
        return self._token

    async def refused(self, token: str) -> bool:
        """There is no other."""
        return False

    def hold(self) -> None:
        """It is held for ever."""


class Bare(asyncio.Protocol):
    """The least that hyper-h2 needs: a future for each stream."""

    def __init__(self, authority: str, bearer: str) -> None:
        self._h2, self._ended, self._authority, self._bearer = H2Connection(), {}, authority, bearer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, StreamEnded):
                self._ended.pop(event.stream_id).set_result(None)
        self._transport.write(self._h2.data_to_send())

    async def send(self, request: PushRequest) -> None:
        notification, stream_id = Notification(request, APP), self._h2.get_next_available_stream_id()
        self._ended[stream_id] = ended = asyncio.get_running_loop().create_future()
        self._h2.send_headers(stream_id, notification.headers(self._authority, self._bearer))
        self._h2.send_data(stream_id, notification.body, end_stream=True)
        self._transport.write(self._h2.data_to_send())
        await ended


async def per_second(send: Callable[[PushRequest], Awaitable[object]]) -> float:
    """AT_ONCE senders, PUSHES pushes."""
    numbers = iter(range(PUSHES))

    async def sender() -> None:
        for number in numbers:
            await send(push(number))

    began = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return PUSHES / (time.perf_counter() - began)


async def milliseconds(send: Callable[[PushRequest], Awaitable[object]]) -> list[float]:
    """One after the other on a warm connection."""
    took = []
    for number in range(SINGLE):
        request, began = push(number), time.perf_counter()
        await send(request)
        took.append((time.perf_counter() - began) * 1000)
    return took


async def measure(address: str, ca_file: Path, key: ProviderKey) -> None:
    bearer, host, port = key.mint(datetime.now(UTC)), "127.0.0.1", int(address.rpartition(":")[2])
    app = ApnsApp(name="chat", bundle_id=APP, environment=Environment.PRODUCTION, server=address, ca_file=ca_file)
    gate = ApnsGate([app], OneToken(bearer))
    tls = ssl.create_default_context(cafile=ca_file)
    tls.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    _, bare = await loop.create_connection(lambda: Bare(f"{host}:{port}", bearer), host, port, ssl=tls)
    await bare.send(push(0))
    assert (await gate.send(push(0))).verdict is Verdict.ACCEPTED
    rates: dict[str, list[float]] = {"gate": [], "bare hyper-h2": []}
    times: dict[str, list[float]] = {"gate": [], "bare hyper-h2": []}
    for _ in range(RUNS):
        for name, send in (("gate", gate.send), ("bare hyper-h2", bare.send)):
            times[name] += await milliseconds(send)
            rates[name].append(await per_second(send))
    await gate.close()
    print("| client | pushes/s, 100 at once (median of 7) | one push, p50 ms | p99 ms |\n|---|---|---|---|")
    for name, rate in rates.items():
        centiles = statistics.quantiles(times[name], n=100)
        print(f"| {name} | {statistics.median(rate):,.0f} | {centiles[49]:.2f} | {centiles[98]:.2f} |")


def main() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key = ProviderKey(
        team_id=TEAM, key_id=KEY, pem=private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / "public.pem").write_bytes(public)
        options = (
            f"--port 0 --control-port 0 --log {name}/log --certificate-dir {name} --provider-key {name}/public.pem"
        )
        argv = [*options.split(), "--team-id", TEAM, "--key-id", KEY, "--app", APP]
        with subprocess.Popen([sys.executable, "-m", "sync.sandbox.apns", *argv], stdout=subprocess.PIPE) as simulator:
            assert simulator.stdout is not None
            address = simulator.stdout.readline().decode().split()[2]
            asyncio.run(measure(address, folder / "ca.pem", key))
            simulator.terminate()


if __name__ == "__main__":
    main()
