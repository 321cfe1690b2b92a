"""`python -m tests.chaos`: one performance after the other, each with its own cast and dice, and a report."""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos import report
from tests.chaos.faults import plan
from tests.chaos.scenario import DEVICES, Outcome, play
from tests.system.box import boxed

LEAST_SECONDS = 15  # a performance is hardly shorter: so many casts may be needed


async def soak(folder: Path, server: str, seconds: float, seed: str) -> list[Outcome]:
    """Until the time is over; the last performance is played to its end. A finding ends it, with what is there kept."""
    outcomes: list[Outcome] = []
    casts = int(seconds / LEAST_SECONDS) + 2
    began = time.monotonic()
    async with boxed(folder, casts * len(DEVICES), server) as box:
        while time.monotonic() - began < seconds:
            name = f"{seed}-{len(outcomes)}"
            click.echo(f"{name}: ", nl=False)
            outcome = await play(box, name, plan(name, 1), say=lambda fault: click.echo(f"{fault}, ", nl=False))
            outcomes.append(outcome)
            click.echo(f"{outcome.seconds:.0f} s, {outcome.figures['messages checked']} rows compared")
            if outcome.findings:
                for finding in outcome.findings:
                    click.echo(f"  {finding}")
                break
    return outcomes


@click.command()
@click.option("--server", type=click.Choice(["prosody", "ejabberd"]), default="prosody", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=600, show_default=True)
@click.option("--seed", default="", help="Of all dice. Default: another one each time.")
@click.option("--write", is_flag=True, help="Replace the server's part of docs/reliability.md.")
def main(*, server: str, seconds: float, seed: str, write: bool) -> None:
    """Let everything die while people talk, and compare with the archives."""
    seed = seed or f"{time.time_ns() // 1000 % 10**9}"
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="convsync-soak-"))
    folder.chmod(0o755)  # Postgres may run as somebody else
    outcomes = asyncio.run(soak(folder, server, seconds, seed))
    if any(one.findings for one in outcomes):
        click.echo(f"What was there is kept: {folder}")
    else:
        shutil.rmtree(folder)
    took = time.monotonic() - began
    text = report.told(outcomes, server=server, seed=seed, asked=seconds, took=took)
    click.echo(f"\n{text}")
    if write:
        report.rewrite(server, text)
    sys.exit(any(one.findings for one in outcomes))


if __name__ == "__main__":
    main()
