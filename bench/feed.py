"""What the feed costs the XMPP server: with and without the module, at its limit and below; a component that is away.

Two servers run side by side, one without the module, and take turns, so that both see the same machine. People write to
each other as fast as the server takes it, or at a part of that; the component is a bare socket, so that the figures are
the server's and its module's. Refuses to know what is in the events.
"""

import asyncio
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import Client
from bench.fetcher import DOMAIN, SECRET, Component
from bench.pace import Paced, pace
from bench.report import milliseconds, spread, table
from sync.sandbox import launch
from sync.sandbox.ejabberd import CONFIGURATION, ejabberd
from sync.sandbox.parts import Part
from sync.sandbox.ports import hold, number
from sync.sandbox.prosody import prosody

ROOT = Path(__file__).parents[1]
SERVERS = ("prosody", "ejabberd")
PEOPLE, BURST = 8, 25
SECONDS, ROUNDS, AWAY_SECONDS = 2.0, 8, 10.0
QUICK_SECONDS, QUICK_ROUNDS, QUICK_AWAY_SECONDS = 1.0, 1, 2.0
SHARES = (0.25, 0.5)  # of what the server without the module takes
START_SECONDS = 30.0
MB = 2**20


@dataclass(slots=True)
class Server:
    """A running server; `process` is it and nothing else."""

    part: Part
    process: subprocess.Popen[bytes]
    c2s_port: int
    component_port: int

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def resident(self) -> float:
        """MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def without_module(name: str, folder: Path) -> None:
    """Takes the module out of the configuration that was written."""
    if name == "prosody":
        file = folder / "prosody.cfg.lua"
        file.write_text(file.read_text().replace('"convsync_feed"', '"disco"'))
        return
    file = folder / CONFIGURATION
    configuration = json.loads(file.read_text())
    del configuration["modules"]["mod_convsync_feed"]
    file.write_text(json.dumps(configuration))


@contextmanager
def server(name: str, *, with_module: bool) -> Iterator[Server]:
    """Starts one, with accounts p0 …, in a folder that is removed afterwards; LaunchError: it is not installed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convsync-bench-")))
        held = hold(2)
        for port in held:
            stack.callback(port.close)
        make = {"prosody": prosody, "ejabberd": ejabberd}[name]
        part = make(
            folder,
            domain=DOMAIN,
            accounts=[(f"p{i}", "secret") for i in range(PEOPLE)],
            c2s_port=number(held[0]),
            component_port=number(held[1]),
            component_secret=SECRET,
            module_path=ROOT / "deploy" / name,
        )
        if not with_module:
            without_module(name, folder)
        process = subprocess.Popen(
            [*launch.tied(), *part.argv],
            cwd=part.cwd,
            env=launch.environment(part.env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        end = time.monotonic() + START_SECONDS
        while not asyncio.run(_answers(part)):
            if time.monotonic() > end or process.poll() is not None:
                raise TimeoutError(f"{name} did not start")
            time.sleep(0.1)
        yield Server(part, process, number(held[0]), number(held[1]))


async def _answers(part: Part) -> bool:
    return await part.answers()


@dataclass(slots=True)
class Person:
    """A session that writes to the next one in bursts and throws away what it is sent."""

    client: Client
    to: str
    sent: int = 0
    _seen: bytes = b""

    def talk(self, end: float) -> None:
        """Until then; a burst is over when the server has answered the ping behind it."""
        texts = "".join(
            f"<message to='{self.to}' type='chat' id='m{i}'><body>what people write who have something to say</body>"
            f"<request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
            for i in range(BURST)
        )
        while time.monotonic() < end:
            ping = f"ping-{self.sent}-"
            self.client.send(f"{texts}<iq type='get' id='{ping}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>")
            self._until(ping.encode())
            self.sent += BURST

    def _until(self, text: bytes) -> None:
        while text not in self._seen:
            data = self.client.socket.recv(262_144)
            if not data:
                raise ConnectionError("the server ended a session")
            self._seen = self._seen[-len(text) :] + data
        self._seen = b""


@contextmanager
def people(on: Server) -> Iterator[list[Person]]:
    """Each writes to the next; all are online."""
    with ExitStack() as stack:
        found = []
        for i in range(PEOPLE):
            client = Client.connect(host="127.0.0.1", port=on.c2s_port, jid=f"p{i}@{DOMAIN}", password="secret")
            stack.callback(client.socket.close)
            client.bind("desk")
            client.available()
            found.append(Person(client, f"p{(i + 1) % PEOPLE}@{DOMAIN}"))
        yield found


def rate(on: Server, persons: Sequence[Person], seconds: float) -> tuple[float, float]:
    """Messages a second, and µs of the server's processor time for each."""
    before, cpu, began = sum(p.sent for p in persons), on.cpu(), time.monotonic()
    threads = [threading.Thread(target=p.talk, args=(began + seconds,)) for p in persons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = sum(p.sent for p in persons) - before
    return sent / (time.monotonic() - began), (on.cpu() - cpu) / sent * 1e6


@dataclass(slots=True)
class Pair:
    """Two servers of a kind, without and with the module, each with people who are online."""

    servers: dict[bool, Server]
    crowds: dict[bool, list[Person]]
    component: Component

    @classmethod
    @contextmanager
    def start(cls, name: str) -> Iterator["Pair"]:
        """The component has subscribed."""
        with ExitStack() as stack:
            servers = {w: stack.enter_context(server(name, with_module=w)) for w in (False, True)}
            crowds = {w: stack.enter_context(people(on)) for w, on in servers.items()}
            component = Component(servers[True].component_port)
            component.connect()
            yield cls(servers, crowds, component)

    def full(self, with_module: bool, seconds: float) -> tuple[float, float]:
        """As `rate`."""
        found = rate(self.servers[with_module], self.crowds[with_module], seconds)
        self.component.caught_up()
        return found

    def paced(self, with_module: bool, messages: float, seconds: float) -> tuple[Paced, float]:
        """As `pace`, and µs of the server's processor time for each message."""
        on, crowd = self.servers[with_module], self.crowds[with_module]
        cpu = on.cpu()
        found = pace([(person.client.socket, person.to) for person in crowd], messages, seconds)
        return found, (on.cpu() - cpu) / found.sent * 1e6


def turns(rounds: int) -> Iterator[bool]:
    """There and back: what drifts falls on both."""
    for turn in range(2 * rounds):
        yield turn % 4 in (1, 2)


def change(without: Sequence[float], with_module: Sequence[float]) -> str:
    """Median of the rounds' own ratios."""
    return f"{statistics.median(b / a for a, b in zip(without, with_module, strict=True)) - 1:+.0%}"


def at_the_limit(name: str, pair: Pair, *, seconds: float, rounds: int) -> tuple[list[str], float]:
    """A row, and the messages a second without the module."""
    figures: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for with_module in figures:  # what a server does for the first time is slow
        pair.full(with_module, seconds / 2)
    stanzas, events = pair.component.stanzas, pair.component.events
    for with_module in turns(rounds):
        figures[with_module].append(pair.full(with_module, seconds))
    rates, cpu = ({w: [f[i] for f in figures[w]] for w in figures} for i in (0, 1))
    cells = [
        *(spread(rates[w]) for w in rates),
        change(rates[False], rates[True]),
        *(spread(cpu[w]) for w in cpu),
        change(cpu[False], cpu[True]),
        f"{(pair.component.events - events) / (pair.component.stanzas - stanzas):.1f}",
    ]
    return [name, *cells], statistics.median(rates[False])


def below(name: str, pair: Pair, limit: float, *, seconds: float, rounds: int) -> list[list[str]]:
    """A row for each share of the limit, messages a second."""
    rows = []
    for share in SHARES:
        found: dict[bool, list[tuple[Paced, float]]] = {False: [], True: []}
        for with_module in turns(rounds):
            found[with_module].append(pair.paced(with_module, limit * share, seconds))
            pair.component.caught_up()
        cells = []
        for runs in found.values():
            taken = milliseconds([latency for run, _ in runs for latency in run.latencies], 50, 99)
            cells.append([spread([run.rate for run, _ in runs]), *taken, spread([cpu for _, cpu in runs])])
        rows.append([f"{name}, {share:.0%}", *(cell for both in zip(*cells, strict=True) for cell in both)])
    return rows


def absence(name: str, pair: Pair, seconds: float) -> list[str]:
    """A row: the component goes, people go on, it comes back."""
    on, persons, component = pair.servers[True], pair.crowds[True], pair.component
    component.cut()
    before, sent = on.resident(), sum(p.sent for p in persons)
    rate(on, persons, seconds)
    after, events = on.resident(), 2 * (sum(p.sent for p in persons) - sent)
    known, stanzas, began = component.events, component.stanzas, time.monotonic()
    component.connect()
    component.caught_up()
    took = time.monotonic() - began
    component.cut()
    caught = component.events - known
    each = caught / max(1, component.stanzas - stanzas)
    return [name, f"{events:,}", f"{before:.0f}", f"{after:.0f}", f"{caught:,}", f"{caught / took:,.0f}", f"{each:.1f}"]


@dataclass(slots=True)
class Tables:
    """Rows of the section's tables."""

    limits: list[list[str]] = field(default_factory=list)
    shares: list[list[str]] = field(default_factory=list)
    absences: list[list[str]] = field(default_factory=list)

    def measure(self, name: str, *, seconds: float, rounds: int, away: float) -> None:
        """Adds those of a server; blocks."""
        with Pair.start(name) as pair:
            row, limit = at_the_limit(name, pair, seconds=seconds, rounds=rounds)
            self.limits.append(row)
            self.shares += below(name, pair, limit, seconds=seconds, rounds=rounds)
            self.absences.append(absence(name, pair, away))


LIMIT_HEAD = [
    "",
    "without, messages/s",
    "with",
    "change",
    "without, µs of processor",
    "with",
    "change",
    "events a stanza",
]
SHARE_HEAD = [
    "",
    "without, messages/s",
    "with",
    "without, p50 ms",
    "with",
    "without, p99 ms",
    "with",
    "without, µs of processor",
    "with",
]
AWAY_HEAD = [
    "",
    "events meanwhile",
    "server before, MB",
    "after, MB",
    "events caught up",
    "events/s",
    "events a stanza",
]


async def run(*, quick: bool, say: Callable[[str], None], servers: Sequence[str] = SERVERS) -> str:
    """The section; a server that is not installed is left out and named."""
    seconds, rounds, away = (
        (QUICK_SECONDS, QUICK_ROUNDS, QUICK_AWAY_SECONDS) if quick else (SECONDS, ROUNDS, AWAY_SECONDS)
    )
    tables, missing = Tables(), []
    for name in servers:
        say(f"feed: {name}")
        try:
            await asyncio.to_thread(tables.measure, name, seconds=seconds, rounds=rounds, away=away)
        except launch.LaunchError as error:
            missing.append(str(error))
    return "\n\n".join(
        [
            f"{PEOPLE} people write to each other as fast as the server takes it, archived on both sides. Two servers, "
            f"one without the module, take turns of {seconds:.0f} s, {rounds} each: median (lowest–highest), change: "
            "median of the rounds' own. The component acknowledges at once whatever comes in one piece.",
            table(LIMIT_HEAD, tables.limits),
            "At a part of that, at even times; from when a message is due until its recipient has it:",
            table(SHARE_HEAD, tables.shares),
            f"The component is away for {away:.0f} s of traffic at the limit and comes back:",
            table(AWAY_HEAD, tables.absences),
            *missing,
        ]
    )
