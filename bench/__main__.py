"""`python -m bench [SECTION] [--quick]`: without a section all of them, and docs/benchmarks.md is written anew."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import click

from bench import (
    answers,
    calls,
    clients,
    feed,
    ingest,
    memory,
    plots,
    push,
    queries,
    report,
    restart,
    rooms,
    scale,
    sessions,
    start,
    takeover,
)

Run = Callable[..., Awaitable[str]]
SECTIONS: dict[str, Run] = {
    "ingest": ingest.run,
    "scale": scale.run,
    "rooms": rooms.run,
    "calls": calls.run,
    "answers": answers.run,
    "clients": clients.run,
    "queries": queries.run,
    "sessions": sessions.run,
    "push": push.run,
    "start": start.run,
    "memory": memory.run,
    "feed": feed.run,
    "takeover": takeover.run,
    "restart": restart.run,
}


@click.command()
@click.argument("section", type=click.Choice(list(SECTIONS)), required=False)
@click.option("--quick", is_flag=True, help="Small sizes: to try the measurement, not to measure.")
@click.option("--write", is_flag=True, help="Put this one section into docs/benchmarks.md, too.")
def main(*, section: str | None, quick: bool, write: bool) -> None:
    """Measure. One SECTION is printed; all of them are also written to docs/benchmarks.md."""
    facts = report.machine()  # now: its load average is to show what else was running
    if section is not None:
        text = report.section(section, asyncio.run(SECTIONS[section](quick=quick, say=say)), quick=quick)
        click.echo(f"{facts}\n\n{text}")
        if write:
            report.replace_section(section, f"{text.rstrip()} Measured by itself. {' '.join(facts.split())}")
            plots.draw()
        return
    written, failed = [], []
    for name, measure in SECTIONS.items():
        began = time.monotonic()
        say(f"{name} …")
        try:
            text = report.section(name, asyncio.run(measure(quick=quick, say=say)), quick=quick)
        except Exception as error:  # noqa: BLE001 - the other sections' minutes must not be lost
            failed.append(name)
            text = f"### {name}\n\nDid not finish: {type(error).__name__}.\n"
            say(f"{name} failed: {error!r}")
        click.echo(text)
        written.append(text)
        say(f"{name}: {time.monotonic() - began:.0f} s")
    report.rewrite(facts, written, quick=quick)
    plots.draw()
    if failed:
        sys.exit(1)


def say(text: str) -> None:
    """Progress, beside the results."""
    click.echo(f"  {text}", err=True)


if __name__ == "__main__":
    main()
