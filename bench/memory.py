"""Resident memory of the component's process: after its start, messages, accounts; then with many accounts.

The messages and accounts come by the real server: people write to each other, then one of them writes to everybody.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import known as known_accounts
from bench.calls import client
from bench.crowd import PEOPLE, accounts, crowd
from bench.report import table
from bench.stage import committed_messages
from sync.sandbox.stack import Options, Ready, sandbox

MESSAGES, ACCOUNTS, RATE = 10_000, 1_000, 1_000
QUICK_MESSAGES, QUICK_ACCOUNTS = 1_000, 100
MB = 2**20
COMMIT_SECONDS = 60.0


def resident(ready: Ready) -> list[str]:
    """Of the component now and at its highest, and of the server, in MB."""
    pid = ready["pids"]["component"]
    status = Path(f"/proc/{pid}/status").read_text()
    highest = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    server = psutil.Process(ready["pids"]["server"]).memory_info().rss
    return [f"{psutil.Process(pid).memory_info().rss / MB:.0f}", f"{highest / 1024:.0f}", f"{server / MB:.0f}"]


def wait_for(ready: Ready, events: float) -> None:
    """Until so many message events are committed."""
    end = time.monotonic() + COMMIT_SECONDS
    while committed_messages(ready) < events:
        if time.monotonic() > end:
            raise TimeoutError(f"{committed_messages(ready):.0f} of {events:.0f} events were committed")
        time.sleep(0.1)


def measure(ready: Ready, messages: int, known: int, say: Callable[[str], None]) -> list[list[str]]:
    """The rows of the table; blocks."""
    rows = [["after the start", *resident(ready)]]
    say(f"memory: {messages:,} messages")
    with crowd(ready, rate=RATE, messages=messages) as people:
        people.finish(now=False)
    wait_for(ready, 2 * messages)
    rows.append([f"after {messages:,} messages among {PEOPLE} accounts", *resident(ready)])
    say(f"memory: {known:,} accounts")
    with client(ready, 0) as sender:
        sender.bind("desk")
        for jid, _ in accounts(ready)[1 : known + 1]:
            sender.message(jid, "<body>to everybody</body>")
        sender.ping()
    wait_for(ready, 2 * messages + 2 * known)
    rows.append([f"after {known:,} accounts were written to", *resident(ready)])
    return rows


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    messages, known = (QUICK_MESSAGES, QUICK_ACCOUNTS) if quick else (MESSAGES, ACCOUNTS)
    async with sandbox(Options(accounts=known + 4 + PEOPLE)) as ready:
        rows = await asyncio.to_thread(measure, ready, messages, known, say)
    many = await known_accounts.run(known_accounts.QUICK_ACCOUNTS if quick else known_accounts.ACCOUNTS, say)
    return (
        f"Resident memory of the component's process, its highest so far, and the server's beside it, one after the "
        f"other in one run. The messages flowed at {RATE:,}/s.\n\n"
        f"{table(['', 'Convsync, MB', 'highest, MB', 'Prosody, MB'], rows)}\n\n{many}"
    )
