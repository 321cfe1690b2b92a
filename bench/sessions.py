"""Recorded sessions on both servers: a client that syncs, goes offline, misses 2,000 messages over 50 of 500
conversations, and comes back.

What it waits, downloads and asks: by the archive (XEP-0313), Client Synchronization, Inbox (XEP-0430) and
urn:convsync:0, in turns within one round; who finds a ringing call how fast; and how many questions a second are
answered. The 2,000 messages are sent through the server, so that its archive has them; the 450 conversations that do
not matter to the archive come in by the service's own ingest, as in `queries`.
"""

import asyncio
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from bench.calls import step
from bench.client import Client
from bench.crowd import accounts
from bench.queries import said, take
from bench.questions import RATES_PEOPLE, rates
from bench.report import spread, table
from bench.traffic import body, frames, unique
from bench.ways import FINDERS, Archive, Caught, Inbox, Own, Synchronization, Way
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.sandbox.stack import Options, Ready, sandbox

SERVERS = ("prosody", "ejabberd")
CONVERSATIONS, OVER, MISSED, QUICK_MISSED = 500, 50, 2_000, 100
EXTRAS = 5  # a correction, a retraction, three reactions
STORE = "<store xmlns='urn:xmpp:hints'/>"
ARCHIVES: dict[str, tuple[Way, ...]] = {"prosody": (Archive(50),), "ejabberd": (Archive(50), Archive(250))}
LEAN = "urn:convsync:0, rows of a list"
WAYS: tuple[Way, ...] = (Synchronization(), Inbox(), Own(100, LEAN, 100), Own())
OURS = Own().name
FIRSTS: tuple[Way, ...] = (
    Synchronization(60, "Client Synchronization, pages of 60"),
    Synchronization(200, "Client Synchronization, pages of 200"),
    Inbox(200, "Inbox, pages of 200"),
    Own(200, f"{LEAN}, pages of 200", 100),
    Own(60, "urn:convsync:0, pages of 60"),
    Own(200, "urn:convsync:0, pages of 200"),
)
ROUNDS, QUICK_ROUNDS = 11, 2
SHORT_ROUNDS = 41
TABLE_SECONDS, LEAST_ROUNDS = 20.0, 3  # a table is done after so long, with so many rounds
AFTER_THE_CALL = 200
INTRODUCTION = f"""\
One account with {CONVERSATIONS} conversations; {MISSED:,} messages come over {OVER} of them while its client is away,
one is corrected, one retracted, three are reacted to. Each row is a new connection each time, measured from bind after
logging in, the client's parsing included, TCP_QUICKACK set; all ways in turns, ratios round by round. The archives are
the sandbox's: files on Prosody, which gives at most 50 messages in a page, SQLite on ejabberd. What the archive tells
has still to be counted, and it does not say what was read elsewhere."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One reconnect by one way: seconds and bytes from bind on, and what came of it."""

    seconds: float
    bytes_in: int
    caught: Caught


# ---- the account's past --------------------------------------------------------------------------------------------


async def fill(ready: Ready, account: str) -> None:
    """The conversations that nobody will write to any more."""
    pool, chance = Pool(ready["postgres"], size=2), random.Random(5)  # noqa: S311 - traffic, no secret
    await pool.open()
    try:
        store = PostgresStore(pool, SystemClock(), Metrics())
        peers = [peer for peer in range(OVER, CONVERSATIONS) for _ in range(4)]
        texts = frames([said(account, peer, chance) for peer in peers], host="localhost", stream="bench-sessions")
        await take(store, texts)
    finally:
        await pool.close()


def connect(ready: Ready, number: int) -> Client:
    """A logged-in session of one of the accounts."""
    jid, password = accounts(ready)[number]
    where = ready["c2s"]
    return Client.connect(host=where["host"], port=where["port"], jid=jid, password=password, quick_ack=True)


@contextmanager
def writers(ready: Ready) -> Iterator[list[Client]]:
    """Those who write to the account, one conversation each."""
    clients = [connect(ready, 1 + number) for number in range(OVER)]
    for client in clients:
        client.bind("desk")
    yield clients
    for client in clients:
        client.close()


def write(ready: Ready, people: list[Client], to: str, many: int) -> list[tuple[Client, str]]:
    """So many messages, in turn; returns when they are committed: who sent which id."""
    chance, sent = random.Random(many), list[tuple[Client, str]]()  # noqa: S311 - traffic, no secret
    for number in range(many):
        sender, message_id = people[number % len(people)], unique("m")
        inner = f"{body(chance)}<origin-id xmlns='urn:xmpp:sid:0' id='{message_id}'/>"
        sender.message(to, inner, message_id)
        sent.append((sender, message_id))
        if number % 500 == 499:
            sender.ping()
    for client in people:
        client.ping()
    return sent


def change(sent: list[tuple[Client, str]], to: str) -> None:
    """One is corrected, one retracted, three are reacted to."""
    (writer, first), (other, second), *more = sent[-OVER:]
    replaced = f"<body>I meant eight</body><replace xmlns='urn:xmpp:message-correct:0' id='{first}'/>"
    writer.message(to, replaced, unique("m"))
    retracted = f"<retract xmlns='urn:xmpp:message-retract:1' id='{second}'/><body>taken back</body>{STORE}"
    other.message(to, retracted, unique("m"))
    for sender, message_id in more[:3]:
        emoji = f"<reaction>👍</reaction></reactions>{STORE}"
        sender.message(to, f"<reactions xmlns='urn:xmpp:reactions:0' id='{message_id}'>{emoji}", unique("m"))
    for client in {writer, other, *(sender for sender, _ in more)}:
        client.ping()


async def restored(ready: Ready, account: str) -> None:
    """The archive of the account is read: clients are told so, which is news (docs/bootstrap.md)."""
    pool = Pool(ready["postgres"], size=1)
    await pool.open()
    try:
        async with asyncio.timeout(60), pool.connection() as connection:
            waiting = "SELECT state = 'waiting' FROM bootstrap WHERE account = $1"
            while await connection.fetchval(waiting, account):  # noqa: ASYNC110 - nobody outside is told
                await asyncio.sleep(0.1)
    finally:
        await pool.close()


# ---- reconnects ----------------------------------------------------------------------------------------------------


def visit(ready: Ready, way: Way, mark: str) -> Visit:
    """From bind to the last page; logging in comes before."""
    with connect(ready, 0) as asker:
        before, began = asker.bytes_in, perf_counter()
        asker.bind("phone")
        caught = way.catch_up(asker, mark)
        return Visit(perf_counter() - began, asker.bytes_in - before, caught)


def in_turns(ready: Ready, ways: tuple[Way, ...], marks: dict[str, str], rounds: int) -> dict[Way, list[Visit]]:
    """Each way once a round; the first round warms up."""
    found: dict[Way, list[Visit]] = defaultdict(list)
    for number in rounds_in_time(rounds):
        for way in ways:
            seen = visit(ready, way, marks.get(way.name, ""))
            if number:
                found[way].append(seen)
    return found


def rounds_in_time(rounds: int) -> Iterator[int]:
    """Round 0, which does not count, and those that do."""
    began = perf_counter()
    for number in range(rounds + 1):
        if number > LEAST_ROUNDS and perf_counter() - began > TABLE_SECONDS:
            return
        yield number


def compared(found: dict[Way, list[Visit]], expected: Callable[[Way], int]) -> str:
    """The table: each way, and how it compares with the last one, ours, round by round. Each must have told so much."""
    rows = []
    *_, ours = found.values()
    for way, visits in found.items():
        told = {one.caught.told for one in visits}
        if told != {expected(way)}:
            raise AssertionError(f"{way.name}: {sorted(told)} in place of {expected(way)}")
        size = statistics.median(one.bytes_in / other.bytes_in for one, other in zip(visits, ours, strict=True))
        wait = statistics.median(one.seconds / other.seconds for one, other in zip(visits, ours, strict=True))
        bytes_in = sorted(one.bytes_in for one in visits)
        rows.append([
            way.name,
            spread([one.seconds * 1000 for one in visits], ",.1f"),
            f"{bytes_in[len(bytes_in) // 2]:,}",
            visits[0].caught.trips,
            f"{size:,.1f}",
            f"{wait:,.1f}",
        ])  # fmt: skip
    return table(["", "from bind, ms", "bytes received", "round trips", "× our bytes", "× our time"], rows)


def find_the_call(ready: Ready, people: list[Client], marks: dict[str, str], rounds: int) -> str:
    """A propose, 200 messages, a reconnect: how soon is the call on the screen?"""
    account, sid = accounts(ready)[0][0], unique("c")
    step(people[0], "propose", account, sid)
    people[0].ping()
    write(ready, people, account, AFTER_THE_CALL)
    took: dict[str, list[float]] = defaultdict(list)
    trips: dict[str, int] = {}
    for number in rounds_in_time(rounds):
        for name, find in FINDERS.items():
            with connect(ready, 0) as asker:
                began = perf_counter()
                asker.bind("phone")
                trips[name] = find(asker, marks, sid)
                if number:
                    took[name].append(perf_counter() - began)
    step(people[0], "retract", account, sid)
    people[0].ping()
    ours = took[OURS]
    rows = [
        [
            name,
            spread([one * 1000 for one in times], ",.1f"),
            trips[name],
            f"{statistics.median(one / other for one, other in zip(times, ours, strict=True)):,.1f}",
            "no" if name.startswith("archive") else "yes",
        ]
        for name, times in took.items()
    ]
    return table(["", "from bind, ms", "round trips", "× our time", "tells whether it still rings"], rows)


# ---- the section ---------------------------------------------------------------------------------------------------


def measure(ready: Ready, *, quick: bool, say: Callable[[str], None]) -> Iterator[str]:
    """The tables of one server; blocks."""
    account, server = accounts(ready)[0][0], ready["server"]
    rounds, short = (QUICK_ROUNDS, QUICK_ROUNDS) if quick else (ROUNDS, SHORT_ROUNDS)
    missed = QUICK_MISSED if quick else MISSED
    ways = (*ARCHIVES[server], *WAYS)
    with writers(ready) as people:
        write(ready, people, account, OVER)
        with connect(ready, 0) as asker:
            asker.bind("phone")
            before = {way.name: way.mark(asker) for way in ways}
        say(f"sessions: {server}, {missed:,} messages")
        change(write(ready, people, account, missed), account)
        asyncio.run(restored(ready, account))
        with connect(ready, 0) as asker:
            asker.bind("phone")
            now = {way.name: way.mark(asker) for way in ways}
        say(f"sessions: {server}, reconnects")
        found = in_turns(ready, ways, before, rounds)
        yield f"Back after {missed:,} messages:\n\n" + compared(
            found, lambda way: missed + EXTRAS if isinstance(way, Archive) else OVER
        )
        found = in_turns(ready, ways, now, short)
        yield "Back, and nothing is new:\n\n" + compared(found, lambda _: 0)
        found = in_turns(ready, FIRSTS, {}, rounds)
        yield f"The first list of {CONVERSATIONS}:\n\n" + compared(found, lambda _: CONVERSATIONS)
        say(f"sessions: {server}, the call that rings")
        yield "The call that rings:\n\n" + find_the_call(ready, people, now, rounds)


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    parts = []
    for server in SERVERS:
        async with sandbox(Options(server=server, accounts=1 + OVER + RATES_PEOPLE)) as ready:
            await fill(ready, accounts(ready)[0][0])
            tables = await asyncio.to_thread(lambda ready=ready: list(measure(ready, quick=quick, say=say)))
            tables.append(await rates(ready, quick=quick, say=say))
        parts.append(f"**On {server}**\n\n" + "\n\n".join(tables))
    return f"{INTRODUCTION}\n\n" + "\n\n".join(parts)
