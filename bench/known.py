"""Memory with many accounts: what the component's process holds when each has said something, has a session, and is
told of what changes. `bench.outbox` stands in for the server, whose accounts they would be.
"""

import asyncio
import json
import time
from collections.abc import Callable

from bench.apart import Apart, apart
from bench.questions import heard, ordered
from bench.report import table
from bench.start import resident
from bench.ways import OWN

ACCOUNTS, QUICK_ACCOUNTS = 100_000, 500
TARGET_MB = 150
AT_ONCE = 64
MET_A_SECOND = 5_000  # slower than it is
ASKED = f"<sync xmlns='{OWN}' live='true'/>"


async def orders(on: Apart, *many: object) -> None:
    """One after the other."""
    for order in many:
        await ordered(on.port, order)


def row(name: str, on: Apart, pid: int, began: float) -> list[object]:
    """One line of the table."""
    now, highest = resident(pid)
    return [name, f"{now:.0f}", f"{highest:.0f}", f"{resident(on.redis)[0]:.0f}", f"{time.monotonic() - began:.0f}"]


async def accept(on: Apart, sessions: int) -> None:
    """The next component process is let in by itself."""
    assert on.port.stdin is not None
    on.port.stdin.write(json.dumps({"accept": sessions}).encode() + b"\n")


async def rows(on: Apart, accounts: int, say: Callable[[str], None]) -> list[list[object]]:
    """What is held, step by step."""
    found = []
    made = {"accounts": accounts, "events": accounts}
    await accept(on, 0)
    async with on.component() as pid:
        began = time.monotonic()
        await heard(on.port)
        found.append(row("after the start", on, pid, began))
        for name, *steps in (
            ("each account got a message", {"make": made | {"kind": "known"}}, {"tell": True}),
            ("and has a session", {"make": made | {"kind": "online"}}, {"tell": True}),
            ("and is told what changes", {"each": ASKED, "accounts": accounts, "window": AT_ONCE}),
            ("and got another message", {"make": made | {"kind": "known"}}, {"tell": True}),
        ):
            say(f"memory: {accounts:,} accounts, {name}")
            began = time.monotonic()
            await orders(on, *steps)
            found.append(row(name, on, pid, began))
    say(f"memory: {accounts:,} accounts, started again")
    began = time.monotonic()
    await accept(on, accounts)
    async with on.component() as pid:
        await heard(on.port)
        found.append(row("started again, all of them there", on, pid, began))
        await asyncio.sleep(accounts / MET_A_SECOND)
        found.append(row("and each account is met", on, pid, began))
    return found


async def run(accounts: int, say: Callable[[str], None]) -> str:
    """The table, and what it says."""
    async with apart("bench.outbox") as on:
        found = await rows(on, accounts, say)
    head = [f"{accounts:,} accounts", "Convsync, MB", "highest, MB", "Valkey, MB", "seconds"]
    return (
        f"{accounts:,} accounts at a stand-in for the server, step by step in one process; in the end it is started "
        f"again, and the server lists all sessions in one stanza. Target: ≤ {TARGET_MB} MB with "
        f"{ACCOUNTS:,} accounts known.\n\n{table(head, found)}"
    )
