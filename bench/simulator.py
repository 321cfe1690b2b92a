"""The APNs simulator as a process of its own, and the gate that pushes to it."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sync.adapters.apns import ApnsApp, ApnsGate, ProviderKey
from sync.model.push import Environment

APP, TEAM, KEY = "org.example.chat", "TEAM123456", "KEY1234567"


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


@dataclass(frozen=True, slots=True)
class Simulated:
    """Where it is, and what it takes: `bearer` is a provider token."""

    port: int
    ca_file: Path
    bearer: str

    def gate(self) -> ApnsGate:
        """A gate of one app, not connected."""
        app = ApnsApp(
            name="chat",
            bundle_id=APP,
            environment=Environment.PRODUCTION,
            server=f"https://127.0.0.1:{self.port}",
            ca_file=self.ca_file,
        )
        return ApnsGate([app], OneToken(self.bearer))


@contextmanager
def simulator() -> Iterator[Simulated]:
    """It runs until the end."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key = ProviderKey(
        team_id=TEAM, key_id=KEY, pem=private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    )
    with tempfile.TemporaryDirectory(prefix="convsync-bench-") as name:
        folder = Path(name)
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / "public.pem").write_bytes(public)
        options = (
            f"--port 0 --control-port 0 --log {name}/log --certificate-dir {name} --provider-key {name}/public.pem"
        )
        argv = [*options.split(), "--team-id", TEAM, "--key-id", KEY, "--app", APP]
        with subprocess.Popen([sys.executable, "-m", "sync.sandbox.apns", *argv], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                address = process.stdout.readline().decode().split()[2]
                port = int(address.rpartition(":")[2])
                yield Simulated(port, folder / "ca.pem", key.mint(datetime.now(UTC)))
            finally:
                process.terminate()
