"""The start: until the component serves, and until it has committed what came in while it was away.

`bench.outbox` stands in for the server: its outbox has a backlog, and gives it out as fast as the window of the
feed allows. Each round starts a component process twice: with nothing to fetch, and with the backlog.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.apart import Apart, apart
from bench.questions import heard, ordered
from bench.report import spread, table
from bench.stage import processor_seconds

ACCOUNTS, CONTACTS = 1_000, 20
BACKLOG, ROUNDS = 100_000, 3
QUICK_BACKLOG, QUICK_ROUNDS = 1_000, 1
BACKLOG_SECONDS = 12.0  # the target


@dataclass(slots=True)
class Starts:
    """One kind of start; a value for each round."""

    subscribed: list[float] = field(default_factory=list)  # seconds from the start of the process
    ready: list[float] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)
    fetching: list[float] = field(default_factory=list)  # from the subscription to the last ack
    cpu: list[float] = field(default_factory=list)  # processor seconds of the component until then
    memory: list[float] = field(default_factory=list)  # MB then, and at the highest
    highest: list[float] = field(default_factory=list)


def resident(pid: int) -> tuple[float, float]:
    """MB that a process holds, and the most that it has held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    return sizes["VmRSS"] / 1024, sizes["VmHWM"] / 1024


async def start(on: Apart, events: int, into: Starts) -> None:
    """Start it with so many events waiting, and end it when all of them are acknowledged."""
    assert on.port.stdin is not None
    make = {"kind": "chatter", "accounts": ACCOUNTS, "contacts": CONTACTS, "events": events}
    if int(await ordered(on.port, {"make": make})) != events:
        raise AssertionError("the backlog is not what was asked for")
    on.port.stdin.write(json.dumps({"accept": 0}).encode() + b"\n")
    began = time.monotonic()
    async with on.component() as pid:
        ready = time.monotonic()
        told = json.loads(await heard(on.port))
        cpu = processor_seconds(pid)
        now, highest = resident(pid)
    into.subscribed.append(told["subscribed"] - began)
    into.ready.append(ready - began)
    into.drained.append(told["acked"] - began)
    into.fetching.append(told["acked"] - told["subscribed"])
    into.cpu.append(cpu)
    into.memory.append(now)
    into.highest.append(highest)


def row(name: str, events: int, starts: Starts) -> list[object]:
    """One line of the table."""
    fetched: list[object] = ["–"] * 3
    if events:
        rates = [events / seconds for seconds in starts.fetching]
        costs = [cpu / events * 1e6 for cpu in starts.cpu]
        fetched = [spread(starts.drained, ".1f"), spread(rates), spread(costs)]
    return [
        name,
        *(spread(values, ".2f") for values in (starts.subscribed, starts.ready)),
        *fetched,
        *(spread(values, ".0f") for values in (starts.memory, starts.highest)),
    ]


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    backlog, rounds = (QUICK_BACKLOG, QUICK_ROUNDS) if quick else (BACKLOG, ROUNDS)
    nothing, much, first = Starts(), Starts(), Starts()
    async with apart("bench.outbox") as on:
        say(f"start: {ACCOUNTS:,} accounts and their conversations come in")
        await start(on, backlog, first)
        for number in range(1, rounds + 1):
            say(f"start: round {number} of {rounds}")
            await start(on, 0, nothing)
            await start(on, backlog, much)
    name = f"{backlog:,} events of an outage"
    rows = [
        row("nothing missed", 0, nothing),
        row(name, backlog, much),
        row(f"{name}, an empty database", backlog, first),
    ]
    head = [
        "", "subscribed after, s", "ready after, s", "all committed after, s", "events/s", "CPU µs/event",
        "memory then, MB", "highest, MB",
    ]  # fmt: skip
    return (
        f"From the start of the process (`convsync serve`) on; {rounds} rounds, median (lowest–highest). {ACCOUNTS:,} "
        f"accounts with {CONTACTS} conversations each; their events come 50 to a stanza, 2,000 without an ack at most. "
        f"The stand-in for the server, Postgres and Valkey share the machine; {os.cpu_count()} cores. Events a second "
        f"from the subscription to the last ack, processor time of the component with its start. Target for "
        f"{BACKLOG:,} events: ≤ {BACKLOG_SECONDS:.0f} s.\n\n{table(head, rows)}"
    )
