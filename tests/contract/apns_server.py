"""A real APNs simulator in this process, and a gate that is connected to it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sync.adapters.apns import ApnsApp, ApnsGate, GateLimits, ProviderKey
from sync.adapters.apns.line import Line
from sync.model.push import Environment, PushRequest, PushType, Verdict
from sync.ports import ProviderTokens
from sync.sandbox.apns.faults import read_fault
from sync.sandbox.apns.server import Settings, Simulator
from tests.contract.fakes_push import MemoryProviderTokens

TEAM, KEY, APP = "TEAM123456", "KEY1234567", "org.example.chat"
ALERT, VOIP = "a" * 64, "f" * 64


# No push of a test is given up because this machine is busy. Where one is to be, the loop's clock passes.
PATIENT: dict[str, Any] = {"send_seconds": 60.0, "connect_seconds": 60.0, "pong_seconds": 60.0}
PATIENCE = GateLimits(**PATIENT)


def numbered(number: int) -> str:
    """The alert token of one device of many."""
    return f"a{number:063x}"


def only_line(gate: ApnsGate) -> Line:
    """The line of a gate that has one server."""
    (line,) = gate._lines.values()
    return line


def new_key() -> tuple[ProviderKey, bytes]:
    """A signing key and its public half as PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return ProviderKey(team_id=TEAM, key_id=KEY, pem=pem.decode()), public


def alert(token: str = ALERT, **changes: Any) -> PushRequest:
    """A wake as the policy makes it."""
    usual: dict[str, Any] = {
        "app": "chat",
        "environment": Environment.PRODUCTION,
        "token": token,
        "push_type": PushType.ALERT,
        "priority": 10,
        "expiration": 2_000_000_000,
        "collapse_id": "w:1",
        "apns_id": str(uuid4()),
        "payload": {"aps": {"alert": {"loc-key": "NEW"}, "mutable-content": 1}, "x": {"a": "tag", "v": 7}},
    }
    return PushRequest(**{**usual, **changes})


def voip(token: str = VOIP, **changes: Any) -> PushRequest:
    """A ringing call as the policy makes it."""
    call = {"push_type": PushType.VOIP, "expiration": 0, "collapse_id": None, "payload": {"x": {"k": "call"}}}
    return alert(token, **{**call, **changes})


@dataclass
class Apns:
    """A running simulator, its key, and what its log says."""

    simulator: Simulator
    port: int
    key: ProviderKey
    ca_file: Path
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def app(self, name: str = "chat", bundle_id: str = APP) -> ApnsApp:
        return ApnsApp(
            name=name,
            bundle_id=bundle_id,
            environment=Environment.PRODUCTION,
            server=f"https://127.0.0.1:{self.port}",
            ca_file=self.ca_file,
        )

    def tokens(self) -> MemoryProviderTokens:
        return MemoryProviderTokens(self.key.mint, self.clock)

    @asynccontextmanager
    async def gate(self, tokens: ProviderTokens | None = None, **limits: Any) -> AsyncIterator[ApnsGate]:
        """A gate to this simulator, connected."""
        gate = ApnsGate([self.app()], tokens or self.tokens(), limits=GateLimits(**PATIENT | limits))
        await gate.open()
        yield gate
        await gate.close()

    @asynccontextmanager
    async def warm_gate(self, **limits: Any) -> AsyncIterator[ApnsGate]:
        """A gate whose connection has had its first accepted push, so that many streams may be open."""
        async with self.gate(**limits) as gate:
            assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
            yield gate

    def fault(self, kind: str, **more: Any) -> None:
        self.simulator.faults.post(read_fault({"kind": kind, **more}))

    async def seen(self, pushes: int) -> None:
        """Wait until so many pushes have arrived since start or reset."""
        while self.simulator.stats()["requests"] != pushes:  # noqa: ASYNC110 - the simulator tells nobody
            await asyncio.sleep(0)

    def log(self) -> list[Any]:
        return self.simulator.journal.lines()

    def accepted(self) -> list[str]:
        """The apns-ids that were answered 200, in order."""
        return [line["apns_id"] for line in self.log() if line["status"] == 200]


@asynccontextmanager
async def apns(**settings: Any) -> AsyncIterator[Apns]:
    """A simulator on a free port, with a key of its own."""
    key, public = new_key()
    with tempfile.TemporaryDirectory() as folder:
        told = Settings(
            log=Path(folder) / "apns.jsonl",
            certificate_dir=Path(folder),
            public_key=public,
            team_id=TEAM,
            key_id=KEY,
            apps=(APP,),
            **settings,
        )
        simulator = Simulator(told)
        port = await simulator.start("127.0.0.1", 0)
        try:
            yield Apns(simulator, port, key, simulator.certificates.ca)
        finally:
            await simulator.stop()
