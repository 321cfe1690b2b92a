"""Client Synchronization over the real server: what a client waits, what it downloads, how often it has to ask.

The account's past comes in by the service's own ingest on the sandbox's database, in a stream of its own: the same
rows as by the server, in a second in place of a minute. Then a blocking client asks through Prosody as phones do.
The component's own process answers; the ingest that filled the database has ended by then.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from bench.calls import client
from bench.client import Client
from bench.report import milliseconds, spread, table
from bench.stage import NoWire, make_ingest
from bench.traffic import body, event, frames, stanza, unique
from sync.adapters.metrics import Metrics
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.store import PostgresStore
from sync.app.drivers import SystemClock
from sync.protocol.feed import FRAME, decode_feed
from sync.protocol.serialise import parse
from sync.sandbox.stack import Options, Ready, sandbox

SYNC, RSM = "https://xabber.com/protocol/synchronization", "http://jabber.org/protocol/rsm"
CONVERSATIONS, MISSED, OVER, CHANGED, PAGE = 500, 2_000, 50, 10, 60
TIMES, LOGINS = 200, 100
QUICK_TIMES, QUICK_LOGINS = 10, 5

ELSEWHERE = """\
For comparison, **measured elsewhere, not by this run**: another two-core machine, loopback, plain text, medians. MAM is
the catch-up by the server's archive (XEP-0313), which leaves counting, calls and corrections to the client; `reference`
is the one server that had such a list before (2024, Postgres 15). In brackets with TCP_QUICKACK set.

| | from bind, ms | bytes received | round trips |
| --- | ---: | ---: | ---: |
| 2,000 missed over 50 of 500: MAM, Prosody 0.12 with SQLite, pages of 50 | 1,923 (167) | 978 kB | 41 |
| 2,000 missed over 50 of 500: MAM, Prosody 0.12, internal archive, pages of 50 / 250 | 2,959 / 571 (1,287 / 343) | 950 kB | 41 / 9 |
| 2,000 missed over 50 of 500: MAM, ejabberd 23.01 with Postgres, pages of 50 / 250 | 101 / 72 | 1.29 MB | 41 / 9 |
| 2,000 missed over 50 of 500: reference, one page of 60 | 22 (21) | 46 kB | 1 |
| nothing new: MAM on ejabberd / MAM on Prosody with SQLite / reference | 0.5 / 0.3 / 1.7 | 0.2 kB | 1 |
| first list of 500: reference | 161–200 | 455 kB | 1–9 |"""  # noqa: E501 - rows of a table


@dataclass(frozen=True, slots=True)
class Stamps:
    """What a client would have kept: before 2,000 messages in 50 conversations, before 10 more in 10, and now."""

    long_ago: int
    lately: int
    now: int


@dataclass(slots=True)
class Answer:
    """One reconnect or one question, with all its pages."""

    seconds: float
    bytes_in: int
    trips: int
    conversations: int
    stamp: int


def ask(asker: Client, stamp: int) -> Answer:
    """The list or what changed, page by page."""
    before, began, after, trips, found = asker.bytes_in, time.perf_counter(), "", 0, 0
    while True:
        answer = asker.iq(
            "get", f"<query xmlns='{SYNC}' stamp='{stamp}'><set xmlns='{RSM}'><max>{PAGE}</max>{after}</set></query>"
        )
        trips += 1
        query = answer[0]
        many = len(query.findall(f"{{{SYNC}}}conversation"))
        found += many
        total = int(query.findtext(f"{{{RSM}}}set/{{{RSM}}}count") or 0)
        if not many or found >= total:
            newest = int(query.get("stamp", ""))
            return Answer(time.perf_counter() - began, asker.bytes_in - before, trips, found, newest)
        after = f"<after>{escape(query.findtext(f'{{{RSM}}}set/{{{RSM}}}last') or '')}</after>"


def reconnect(ready: Ready, stamp: int) -> Answer:
    """From bind to the last page; logging in comes before."""
    with client(ready, 0) as asker:
        before, began = asker.bytes_in, time.perf_counter()
        asker.bind("phone")
        answer = ask(asker, stamp)
        seconds = time.perf_counter() - began
        return Answer(seconds, asker.bytes_in - before, answer.trips, answer.conversations, answer.stamp)


# ---- the account's past --------------------------------------------------------------------------------------------


async def fill(ready: Ready, account: str) -> Stamps:
    """500 conversations; 2,000 messages in 50 of them; one more in 10."""
    pool = Pool(ready["postgres"], size=2)
    await pool.open()
    store, chance = PostgresStore(pool, SystemClock(), Metrics()), random.Random(5)  # noqa: S311 - traffic, no secret
    stamps = []
    try:
        for name, peers in (
            ("past", [n for n in range(CONVERSATIONS) for _ in range(4)]),
            ("missed", [n % OVER for n in range(MISSED)]),
            ("last", list(range(CHANGED))),
        ):
            texts = frames([said(account, peer, chance) for peer in peers], host="localhost", stream=f"bench-{name}")
            await take(store, texts)
            found = await store.account(account)
            assert found is not None
            stamps.append(found.version)
    finally:
        await pool.close()
    return Stamps(*stamps)


def said(account: str, peer: int, chance: random.Random) -> str:
    """A message of one of the peers, while the account is offline."""
    return event(account, "in", stanza(f"peer{peer:03d}@example.org", account, unique("m"), body(chance)), sessions="")


async def take(store: PostgresStore, texts: Sequence[str]) -> None:
    """Through the service."""
    ingest = make_ingest(store, NoWire(), workers=1, batch=256)
    task = asyncio.create_task(ingest.run())
    for text in texts:
        frame: Element | None = parse(text).find(FRAME)
        assert frame is not None
        ingest.put(decode_feed(frame, host="localhost").events)
    await ingest.drain()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ---- the questions -------------------------------------------------------------------------------------------------


def row(name: str, answers: Sequence[Answer], conversations: int) -> list[object]:
    """One line of the table. Every answer must have been whole."""
    wrong = {answer.conversations for answer in answers} - {conversations}
    if wrong:
        raise AssertionError(f"{name}: {sorted(wrong)} conversations in place of {conversations}")
    sizes = spread([answer.bytes_in for answer in answers]) if len({a.bytes_in for a in answers}) > 1 else ""
    return [
        name,
        len(answers),
        *milliseconds([answer.seconds for answer in answers], 50, 99),
        sizes or f"{answers[0].bytes_in:,}",
        answers[0].trips,
    ]


def measure(ready: Ready, stamps: Stamps, times: int, logins: int, say: Callable[[str], None]) -> list[list[object]]:
    """The rows of the table; blocks."""
    kinds = (
        ("nothing new", stamps.now, 0),
        (f"{CHANGED} of {CONVERSATIONS} changed", stamps.lately, CHANGED),
        (f"{OVER} of {CONVERSATIONS} changed, {MISSED:,} messages missed", stamps.long_ago, OVER),
        (f"first list of {CONVERSATIONS}", 0, CONVERSATIONS),
    )
    rows: list[list[object]] = []
    with client(ready, 0) as asker:
        asker.bind("desk")
        for name, stamp, conversations in kinds:
            say(f"queries: {name}")
            for _ in range(5):
                ask(asker, stamp)
            rows.append(row(name, [ask(asker, stamp) for _ in range(times)], conversations))
    for name, stamp, conversations in kinds[:3]:
        say(f"queries: from bind, {name}")
        rows.append(row(f"from bind: {name}", [reconnect(ready, stamp) for _ in range(logins)], conversations))
    return rows


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    times, logins = (QUICK_TIMES, QUICK_LOGINS) if quick else (TIMES, LOGINS)
    async with sandbox(Options()) as ready:
        stamps = await fill(ready, ready["accounts"][0]["jid"])
        rows = await asyncio.to_thread(measure, ready, stamps, times, logins, say)
    head = ["", "times", "p50 ms", "p99 ms", "bytes received", "round trips"]
    return (
        f"One account with {CONVERSATIONS} conversations, pages of {PAGE}, one connection over Prosody; the client's "
        f"parsing is included. `from bind` is a new connection each time, measured from bind (its bytes included, its "
        f"round trip not counted), after logging in.\n\n{table(head, rows)}\n\n{ELSEWHERE}"
    )
