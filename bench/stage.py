"""What measurements stand on: a Postgres of their own, our ingest on a database, a look at the component's metrics."""

import asyncio
import os
import secrets
import urllib.request
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree.ElementTree import Element

from sync.adapters.memory import MemoryPresence
from sync.adapters.metrics import Metrics
from sync.app.drivers import SystemClock
from sync.model.event import FeedPosition
from sync.ports import Store
from sync.rules.fold import Policies
from sync.sandbox import postgres
from sync.sandbox.folder import data_folder
from sync.sandbox.ports import hold, number
from sync.sandbox.stack import Ready
from sync.sandbox.supervisor import Supervisor
from sync.service.ingest import Ingest

QUEUE = 2048  # as configured by default
TICKS = os.sysconf("SC_CLK_TCK")


class NoWire:
    """The connection to a server that is not there: it can be paused, and takes whatever is sent."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()

    def send(self, stanza: Element) -> None:
        """Nobody reads it."""

    async def request(self, iq: Element) -> Element:
        """Answered with itself."""
        return iq

    def pause(self) -> None:
        """Whoever feeds waits for `flowing`."""
        self.flowing.clear()

    def resume(self) -> None:
        """Go on."""
        self.flowing.set()


def make_ingest(
    store: Store,
    wire: NoWire,
    *,
    workers: int,
    batch: int,
    committed: Callable[[Sequence[FeedPosition]], None] = lambda _: None,
    owed: Callable[[Collection[str]], None] = lambda _: None,
) -> Ingest:
    """The service's ingest with what is around it in production, but for the connection."""
    return Ingest(
        store=store,
        presence=MemoryPresence(),
        wire=wire,
        clock=SystemClock(),
        observer=Metrics(),
        policies=Policies(),
        workers=workers,
        batch=batch,
        queue=QUEUE,
        committed=committed,
        due=lambda _: None,
        owed=owed,
    )


@asynccontextmanager
async def database(**settings: str) -> AsyncIterator[Callable[[str], str]]:
    """A Postgres with fsync on, in a folder that is removed afterwards; yields database name → DSN."""
    password = secrets.token_hex(16)
    with data_folder(None) as folder:
        (held,) = hold(1)
        with held:
            supervisor = Supervisor(logs=Path(folder))
            await asyncio.to_thread(postgres.create, folder / "postgres", password=password)
            part = postgres.postgres(folder / "postgres", port=number(held), password=password, settings=settings)
            try:
                await supervisor.start(part)
                yield lambda name: postgres.dsn(port=number(held), password=password, database=name)
            finally:
                await supervisor.stop()


def metric(ready: Ready, name: str, label: str = "") -> float:
    """The sum of a metric's samples of the running component; blocks."""
    with urllib.request.urlopen(ready["http"]["base"] + ready["http"]["metrics"], timeout=10) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.partition("{")[0].split(" ")[0] == name and label in line
    )


def committed_messages(ready: Ready) -> float:
    """Message events that the component has committed since its start."""
    return metric(ready, "convsync_events_committed_total", 'kind="message"')


def processor_seconds(*pids: int) -> float:
    """Processor time of these processes and of all that they have started, so far."""
    times, parents = dict[int, float](), dict[int, int]()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(entry.parent.name)
        parents[pid], times[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS

    def belongs(pid: int) -> bool:
        while pid not in pids and pid in parents:
            pid = parents[pid]
        return pid in pids

    return sum(seconds for pid, seconds in times.items() if belongs(pid))
