"""What the feed costs the XMPP server: messages a second with and without the module, and a component that is away.

Two servers run side by side, one without the module, and take turns, so that both see the same machine. People write to
each other as fast as the server takes it; the component is a bare socket that acknowledges what it gets, so that the
figures are the server's and its module's. Refuses to know what is in the events.
"""

import asyncio
import json
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path

from bench.client import Client
from bench.report import spread, table
from sync.sandbox import launch
from sync.sandbox.ejabberd import CONFIGURATION, ejabberd
from sync.sandbox.parts import Part
from sync.sandbox.ports import hold, number
from sync.sandbox.prosody import prosody

ROOT = Path(__file__).parents[1]
DOMAIN, COMPONENT, SECRET = "localhost", "sync.localhost", "secret"
SERVERS = ("prosody", "ejabberd")
PEOPLE, BURST = 8, 25
SECONDS, ROUNDS, AWAY_SECONDS = 2.0, 8, 10.0
QUICK_SECONDS, QUICK_ROUNDS, QUICK_AWAY_SECONDS = 1.0, 1, 2.0
START_SECONDS, ANSWER_SECONDS = 30.0, 60.0
MB = 2**20

_FEED = re.compile(rb"<feed [^>]*?stream='([^']+)'[^>]*?last='(\d+)'[^>]*?behind='(\d+)'")


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
class Component:
    """Subscribes with what it acknowledged before and acknowledges every batch as it comes, in a thread of its own."""

    port: int
    acked: dict[str, int] = field(default_factory=dict)
    events: int = 0
    behind: int = -1
    _socket: socket.socket | None = None
    _thread: threading.Thread | None = None

    def connect(self) -> None:
        """Returns when it has subscribed."""
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._say(
            f"<stream:stream to='{COMPONENT}' xmlns='jabber:component:accept' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        found = re.search(rb"<stream:stream[^>]*? id=['\"]([^'\"]+)['\"]", self._until(b"stream:stream", b">"))
        assert found is not None
        digest = sha1(found[1] + SECRET.encode()).hexdigest()  # noqa: S324 - XEP-0114
        self._say(f"<handshake>{digest}</handshake>")
        self._until(b"handshake")
        streams = "".join(f"<stream id='{stream}' n='{n}'/>" for stream, n in self.acked.items())
        self._say(
            f"<iq type='set' id='s' from='{COMPONENT}' to='{DOMAIN}'>"
            f"<subscribe xmlns='urn:convsync:feed:0' versions='1' buckets='0-255'>{streams}</subscribe></iq>"
        )
        rest = self._until(b"</hello>")
        self.behind = -1
        self._thread = threading.Thread(target=self._read, args=(rest.partition(b"</hello>")[2],), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Leaves without a word."""
        assert self._socket is not None
        assert self._thread is not None
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def caught_up(self) -> None:
        """Waits until nothing is behind."""
        end = time.monotonic() + ANSWER_SECONDS
        while self.behind != 0:
            if time.monotonic() > end:
                raise TimeoutError("the feed did not catch up")
            time.sleep(0.005)

    def _say(self, xml: str) -> None:
        assert self._socket is not None
        self._socket.sendall(xml.encode())

    def _until(self, *texts: bytes) -> bytes:
        assert self._socket is not None
        seen = b""
        while not all(text in seen for text in texts):
            data = self._socket.recv(262_144)
            if not data:
                raise ConnectionError("the server ended the component's connection")
            seen += data
        return seen

    def _read(self, seen: bytes) -> None:
        assert self._socket is not None
        while True:
            end, before = 0, dict(self.acked)
            for found in _FEED.finditer(seen):
                stream, last, end = found[1].decode(), int(found[2]), found.end()
                self.events += last - self.acked.get(stream, 0)
                self.acked[stream], self.behind = last, int(found[3])
            for stream in self.acked:
                if self.acked[stream] != before.get(stream):
                    with suppress(OSError):  # it may have been cut
                        self._say(
                            f"<message from='{COMPONENT}' to='{DOMAIN}'>"
                            f"<ack xmlns='urn:convsync:feed:0' stream='{stream}' n='{self.acked[stream]}'/></message>"
                        )
            seen = seen[end:][-4096:]
            data = b""
            with suppress(OSError):
                data = self._socket.recv(1_048_576)
            if not data:
                return
            seen += data


def overhead(name: str, *, seconds: float, rounds: int, away: float) -> tuple[list[str], list[str]]:
    """A row of each table; blocks."""
    figures: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with ExitStack() as stack:
        servers = {with_module: stack.enter_context(server(name, with_module=with_module)) for with_module in figures}
        crowds = {with_module: stack.enter_context(people(on)) for with_module, on in servers.items()}
        component = Component(servers[True].component_port)
        component.connect()
        for with_module in figures:  # what a server does for the first time is slow
            rate(servers[with_module], crowds[with_module], seconds / 2)
        for turn in range(2 * rounds):
            with_module = turn % 4 in (1, 2)  # there and back: what drifts falls on both
            figures[with_module].append(rate(servers[with_module], crowds[with_module], seconds))
            component.caught_up()
        on, persons = servers[True], crowds[True]
        component.cut()
        before, sent = on.resident(), sum(p.sent for p in persons)
        rate(on, persons, away)
        after, events = on.resident(), 2 * (sum(p.sent for p in persons) - sent)
        known, began = component.events, time.monotonic()
        component.connect()
        component.caught_up()
        took = time.monotonic() - began
        component.cut()
    cells = [spread([f[i] for f in figures[w]]) for i in (0, 1) for w in figures]
    change = statistics.median(f[0] for f in figures[True]) / statistics.median(f[0] for f in figures[False]) - 1
    caught = component.events - known
    return (
        [name, *cells, f"{change:+.0%}"],
        [name, f"{events:,}", f"{before:.0f}", f"{after:.0f}", f"{caught:,}", f"{caught / took:,.0f}"],
    )


async def run(*, quick: bool, say: Callable[[str], None], servers: Sequence[str] = SERVERS) -> str:
    """The section; a server that is not installed is left out and named."""
    seconds, rounds, away = (
        (QUICK_SECONDS, QUICK_ROUNDS, QUICK_AWAY_SECONDS) if quick else (SECONDS, ROUNDS, AWAY_SECONDS)
    )
    costs, absences, missing = [], [], []
    for name in servers:
        say(f"feed: {name}")
        try:
            cost, absence = await asyncio.to_thread(overhead, name, seconds=seconds, rounds=rounds, away=away)
        except launch.LaunchError as error:
            missing.append(str(error))
            continue
        costs.append(cost)
        absences.append(absence)
    head = ["", "without, messages/s", "with", "without, µs of processor", "with", "messages/s"]
    away_head = ["", "events meanwhile", "server before, MB", "after, MB", "events caught up", "events/s"]
    return "\n\n".join(
        [
            f"{PEOPLE} people write to each other as fast as the server takes it, archived on both sides. Two servers, "
            f"one without the module, take turns of {seconds:.0f} s, {rounds} each: median (lowest–highest). The "
            "component acknowledges at once whatever comes in one piece.",
            table(head, costs),
            f"The component is away for {away:.0f} s of such traffic and comes back:",
            table(away_head, absences),
            *missing,
        ]
    )
