"""`python -m sync.sandbox.apns`: the simulator as a process of the sandbox, until SIGTERM or SIGINT."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import click

from sync.sandbox.apns.control import serve
from sync.sandbox.apns.server import Settings, Simulator


async def _run(settings: Settings, host: str, port: int, control_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    simulator = Simulator(settings)
    port = await simulator.start(host, port)
    runner, control_port = await serve(simulator, host, control_port)
    click.echo(f"APNs simulator: https://{host}:{port} control http://{host}:{control_port}")
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
        await simulator.stop()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True, help="Where senders connect; 0 = any free port.")
@click.option("--control-port", type=int, required=True, help="Where faults are posted; 0 = any free port.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), required=True, help="One JSON line per answer.")
@click.option("--certificate-dir", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--provider-key", type=click.Path(path_type=Path, exists=True), required=True, help="Public key, PEM.")
@click.option("--team-id", required=True)
@click.option("--key-id", required=True)
@click.option("--app", "apps", multiple=True, required=True, help="Bundle id; may be repeated.")
def main(*, host: str, port: int, control_port: int, **settings: Any) -> None:
    """Answer pushes as APNs would."""
    public_key = settings.pop("provider_key").read_bytes()
    asyncio.run(_run(Settings(public_key=public_key, **settings), host, port, control_port))


if __name__ == "__main__":
    main()
