"""`convsync apns-simulator`: the simulator as a process, for whoever sends pushes; also the sandbox's own.

Decides options, wording and exit status: 0 ended by SIGTERM or SIGINT, 1 it cannot listen or write, 2 what it was told
makes no sense. Without a key it makes one, as a `.p8` file such as Apple hands out, so that any sender can begin.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sync.sandbox.apns.bodies import BadBody, read_device, read_token
from sync.sandbox.apns.control import serve
from sync.sandbox.apns.device import NotSo
from sync.sandbox.apns.fleet import Fleet
from sync.sandbox.apns.provider import UPDATE_SECONDS
from sync.sandbox.apns.senders import Environment
from sync.sandbox.apns.server import Settings, Simulator

Told = TypeVar("Told")


@click.command("apns-simulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="The certificate is for localhost and loopback.")
@click.option("--port", type=click.IntRange(0, 65535), default=2197, show_default=True, help="For senders; 0 = any.")
@click.option(
    "--control-port", type=click.IntRange(0, 65535), default=2198, show_default=True, help="For tests; 0 = any."
)
@click.option(
    "--certificate-dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("apns-simulator"),
    show_default=True,
    help="Keeps ca.pem, which senders have to trust, and the key that was made.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="One JSON line per answer. Default: apns.jsonl there.",
)
@click.option(
    "--provider-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The sender's key, PEM: public, or the .p8. Default: one is made.",
)
@click.option("--team-id", default="TEAM000001", show_default=True)
@click.option("--key-id", default="KEY0000001", show_default=True)
@click.option(
    "--app", "apps", multiple=True, default=("org.example.chat",), show_default=True, help="Bundle id; repeat."
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What is known of device tokens: a JSON list of what POST /tokens takes.",
)
@click.option(
    "--devices",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Devices: a JSON list of what POST /devices takes.",
)
@click.option(
    "--environment",
    type=click.Choice([one.value for one in Environment]),
    default=Environment.PRODUCTION.value,
    show_default=True,
    help="Which certificates of senders must be for.",
)
@click.option(
    "--token-update-seconds",
    type=click.IntRange(0, UPDATE_SECONDS),
    default=UPDATE_SECONDS,
    show_default=True,
    help="How often a sender may come with a new provider token; 0: with each push.",
)
def simulator(
    *,
    host: str,
    port: int,
    control_port: int,
    folder: Path,
    log: Path | None,
    provider_key: Path | None,
    team_id: str,
    key_id: str,
    apps: tuple[str, ...],
    tokens: Path | None,
    devices: Path | None,
    environment: str,
    token_update_seconds: int,
) -> None:
    """Answer pushes as APNs would, log them, and fail on demand."""
    known = dict(listed("--tokens", tokens, read_token))
    described = tuple(listed("--devices", devices, read_device))
    try:
        Fleet(described)
    except NotSo as wrong:
        fail(f"--devices: {devices}: {wrong}.", 2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = provider_key or made(folder / f"AuthKey_{key_id}.p8")
        settings = Settings(
            log=log or folder / "apns.jsonl",
            certificate_dir=folder,
            public_key=public_half(key),
            team_id=team_id,
            key_id=key_id,
            apps=apps,
            tokens=known,
            devices=described,
            environment=Environment(environment),
            token_update_seconds=token_update_seconds,
        )
        asyncio.run(run(settings, key, host, port, control_port))
    except OSError as error:
        fail(f"The simulator cannot run: {error.strerror or error}.")


async def run(settings: Settings, key: Path, host: str, port: int, control_port: int) -> None:
    """Until SIGTERM or SIGINT. Raises OSError where it cannot listen or write."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = Simulator(settings)
    try:
        port = await running.start(host, port)
        runner, control_port = await serve(running, host, control_port)
    except OSError:
        await running.stop()
        raise
    click.echo(f"APNs simulator: https://{host}:{port} control http://{host}:{control_port}")
    click.echo(f"trust {running.certificates.ca}, log {settings.log}")
    click.echo(f"team {settings.team_id}, key {settings.key_id} in {key}, apps {', '.join(settings.apps)}")
    for app in settings.apps:
        click.echo(f"or certificate {running.senders.file(app)}")
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
        await running.stop()


def fail(sentence: str, status: int = 1) -> NoReturn:
    """End with what is wrong."""
    click.echo(sentence, err=True)
    sys.exit(status)


def listed(option: str, path: Path | None, read: Callable[[object], Told]) -> list[Told]:
    """What this file lists, read one by one. A sentence and the end where it is none of its kind."""
    if path is None:
        return []
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        fail(f"{option}: {path} is no JSON.", 2)
    if not isinstance(found, list):
        fail(f"{option}: {path} must hold a list.", 2)
    entries = []
    for number, one in enumerate(found):
        try:
            entries.append(read(one))
        except BadBody as wrong:
            fail(f"{option}: entry {number} of {path}: {wrong}.", 2)
    return entries


def made(path: Path) -> Path:
    """A signing key in this file, made once and kept: whoever was given it goes on using it."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return path


def public_half(path: Path) -> bytes:
    """The public key, PEM, of a file with either half. A sentence and the end where it is no P-256 key."""
    text = path.read_bytes()
    try:
        if b"PRIVATE KEY" in text:
            key: object = serialization.load_pem_private_key(text, password=None).public_key()
        else:
            key = serialization.load_pem_public_key(text)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        fail(f"--provider-key: {path} holds no P-256 key (PEM), as ES256 needs.", 2)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
