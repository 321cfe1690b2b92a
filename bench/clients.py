"""Questions of many clients while messages come in: how long each waits, at the component alone (`bench.outbox` stands
in for the server) with a database of its own.

Each account has a hundred conversations, ten of which have changed. Its clients ask at times of their own, once a
second each, or as soon as they were answered; beside that come messages of other people, each in two archives.
"""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.answers import ACCOUNT, CHANGED, Sized, copy, fill, grow, questions_of
from bench.apart import Apart, apart
from bench.known import accept
from bench.questions import heard, ordered
from bench.report import milliseconds, table
from bench.stage import processor_seconds

CLIENTS, RATES = (1, 10, 50, 100, 200), (0, 1_000)
QUICK_CLIENTS, QUICK_RATES = (4,), (0, 50)
CONVERSATIONS = 100
EVERY = 1.0  # seconds between a client's questions
SECONDS, QUICK_SECONDS = (8.0, 3.0), (0.5, 0.3)  # of a measurement, at times of their own and without a pause
PEOPLE, QUICK_PEOPLE = 1_000, 40  # who write to each other
FIRST, QUICK_FIRST = 40_000, 200  # events that make their conversations
ASKED = ("nothing new, urn:convsync:0", f"{CHANGED} changed, urn:convsync:0")


class Load(NamedTuple):
    """Who does what."""

    clients: int
    every: float
    rate: int
    seconds: float
    people: int


class Found(NamedTuple):
    """What came of it: answers and events a second, seconds of each answer, processor seconds a second."""

    answers: float
    took: list[float]
    events: float
    busy: float


async def measured(on: Apart, pid: int, questions: Sequence[Sequence[str]], load: Load) -> Found:
    """One cell of the tables."""
    order = {"load": True, "questions": questions, "accounts": load.people} | load._asdict()
    before = processor_seconds(pid)
    found = json.loads(await ordered(on.port, order))
    busy = processor_seconds(pid) - before
    seconds = found["seconds"]
    return Found(found["answers"] / seconds, found["took"], found["events"] / seconds, busy / seconds)


def cells(found: Found, load: Load) -> list[object]:
    """A measurement as a line tells it."""
    rate = "–" if not load.rate else f"{found.events:,.0f}"
    return [f"{found.answers:,.0f}", *milliseconds(found.took, 50, 99, 100), rate, f"{found.busy:.0%}"]


async def measure(on: Apart, pid: int, *, quick: bool, say: Callable[[str], None]) -> tuple[str, str]:
    """The tables: at times of their own, and without a pause."""
    clients, rates = (QUICK_CLIENTS, QUICK_RATES) if quick else (CLIENTS, RATES)
    people, seconds = (QUICK_PEOPLE, QUICK_SECONDS) if quick else (PEOPLE, SECONDS)
    versions = await fill(on.dsn)
    await grow(on.dsn, Sized(CONVERSATIONS, 0))
    accounts = [f"user{number}@localhost" for number in range(max(clients))]
    await copy(on.dsn, ACCOUNT, accounts)
    first = QUICK_FIRST if quick else FIRST
    say(f"clients: {people:,} people begin to write")
    await ordered(on.port, {"make": {"kind": "chatter", "accounts": people, "contacts": 20, "events": first}})
    await ordered(on.port, {"tell": True})
    asked = [questions_of(account, versions) for account in accounts]
    tables = []
    for every, lasting in zip((EVERY, 0.0), seconds, strict=True):
        rows: list[list[object]] = []
        for what in ASKED:
            questions = [[account, "r", mine[what][0]] for account, mine in zip(accounts, asked, strict=True)]
            for rate in rates:
                say(f"clients: {what}, {rate:,} messages/s, {'without a pause' if not every else 'once a second each'}")
                for many in clients:
                    load = Load(many, every, rate, lasting, people)
                    await measured(on, pid, questions, load._replace(seconds=lasting / 10))
                    rows.append(
                        [f"{what}; {rate:,} messages/s", many, *cells(await measured(on, pid, questions, load), load)]
                    )
        head = ["", "clients", "answers/s", "p50 ms", "p99 ms", "max ms", "events committed/s", "component, of a core"]
        tables.append(table(head, rows))
    return tables[0], tables[1]


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    async with apart("bench.outbox") as on:
        await accept(on, 0)
        async with on.component() as pid:
            await heard(on.port)
            calm, pressed = await measure(on, pid, quick=quick, say=say)
    return (
        f"Accounts with {CONVERSATIONS} conversations, a client each; one component process, the stand-in for the "
        f"server and the database share the machine. A message is two events, told as soon as it is there. Each client "
        f"asks once a second, at a time of its own, and a wait counts from when the question was due. Target: p99 "
        f"≤ 10 ms at 100 clients beside 1,000 messages/s.\n\n{calm}\n\nEach as soon as it was answered, so that the "
        f"wait is the clients' number over the rate, and the rate is the figure:\n\n{pressed}"
    )
