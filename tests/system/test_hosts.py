"""Several users' hosts on one connection, of which one has no module at first; and a database that is slow or stands
still: the module's window closes, memory stays bounded, and nothing is lost.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from sync.protocol.names import SYNC
from tests.system.box import eventually
from tests.system.prosody_server import COMPONENT, DOMAIN, SECRET, Prosody
from tests.system.station import Station
from tests.system.test_check import installed, prosody_with
from tests.system.xmpp_client import XmppClient

assert installed  # a fixture

SECOND = "second.localhost"
MORE = f"""
VirtualHost "{SECOND}"
  modules_enabled = {{ "mam"; "delegation"; "roster"; "saslauth"; "disco"; "ping" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
  delegations = {{ ["{SYNC}"] = {{ jid = "{COMPONENT}" }} }}
"""
MESSAGES, WRITERS = 10_000, 4
WINDOW_EVENTS, BATCH_EVENTS = 2000, 50  # docs/feed.md §3
MEGABYTE = 1024 * 1024


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prosody]:
    async with prosody_with(tmp_path_factory.mktemp("hosts"), more=MORE) as started:
        folder = started.folder / "data" / "second%2elocalhost" / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("eva", "fay"):
            (folder / f"{name}.dat").write_text('return { ["password"] = "secret" };\n')
        yield started


def chat(to: str, body: str) -> str:
    return f"<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>"


async def unread(station: Station, account: str) -> int:
    rows = await station.sql("SELECT sum(unread) AS sum FROM conversation WHERE account = $1", account)
    return int(rows[0]["sum"] or 0)


async def listed(client: XmppClient) -> int:
    """How many conversations the client is told of, by the delegated namespace."""
    return len(await client.iq("get", f"<query xmlns='{SYNC}'/>"))


async def test_a_host_without_the_module_does_not_keep_the_other_from_working(
    two: Prosody, installed: str, tmp_path: Path
) -> None:
    it = Station(tmp_path, dsn=installed, port=two.component_port, secret=SECRET, hosts=[DOMAIN, SECOND])
    ann, bob = two.name(), two.name()
    async with it.serving():
        await it.until({f"feed:{SECOND}"})
        writer, reader = await two.client(f"{ann}/a"), await two.client(f"{bob}/b")
        eva, fay = [await XmppClient.connect(f"{who}@{SECOND}/x", "secret", two.c2s_port) for who in ("eva", "fay")]
        writer.send(chat(bob, "one"))
        await eventually(lambda: is_unread(it, bob, 1))
        assert await listed(reader) >= 1
        # The other host's module begins, and calls: no pause of ours is waited for.
        await two.control(writer, "load", host=SECOND)
        await it.until(set())
        eva.send(chat(f"fay@{SECOND}", "two"))
        await eventually(lambda: is_unread(it, f"fay@{SECOND}", 1))
        assert await listed(fay) >= 1
        # The whole server dies; with it the module that was loaded by hand.
        two.kill()
        await it.until({"server", f"feed:{DOMAIN}", f"feed:{SECOND}"})
        await two.start()
        await it.until({f"feed:{SECOND}"})
        writer = await two.client(f"{ann}/a")
        writer.send(chat(bob, "three"))
        await eventually(lambda: is_unread(it, bob, 2))
        await writer.cut()


async def is_unread(station: Station, account: str, count: int) -> bool:
    found = await unread(station, account)
    assert found == count
    return True


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def send(pids: list[int], number: signal.Signals) -> None:
    """To those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def flood(server: Prosody, readers: list[str], many: int) -> None:
    """So many messages, each taken by the server when this returns."""
    writers = [await server.client(f"{server.name()}/w", presence=False) for _ in range(WRITERS)]

    async def write(number: int) -> None:
        for n in range(number, many, WRITERS):
            writers[number].send(chat(readers[n % len(readers)], f"m{many}-{n}"))
            if n % 200 == number:
                await writers[number].ping()
        await writers[number].ping()

    await asyncio.gather(*(write(number) for number in range(WRITERS)))
    for one in writers:
        await one.cut()


async def test_a_slow_database_closes_the_window_and_costs_no_memory(
    two: Prosody, installed: str, tmp_path: Path
) -> None:
    it = Station(tmp_path, dsn=installed, port=two.component_port, secret=SECRET, hosts=[DOMAIN])
    readers = [two.name() for _ in range(8)]
    async with it.serving() as process:
        await it.until(set())
        await flood(two, readers, 500)  # warm
        await eventually(lambda: total(it, readers, 500), 60)
        before, outbox = resident(process.pid), size(two.outbox)
        locker = await asyncpg.connect(installed)
        await locker.execute("BEGIN; LOCK TABLE conversation IN ACCESS EXCLUSIVE MODE")
        await flood(two, readers, MESSAGES)
        await eventually(lambda: window_is_closed(it), 60)
        held, grown = resident(process.pid) - before, size(two.outbox) - outbox
        assert grown > MESSAGES * 600
        assert held < 32 * MEGABYTE
        # And now it stands still altogether: the lease cannot be renewed, so this process lets go of the connection.
        backends = [row["pid"] for row in await it.sql("SELECT pid FROM pg_stat_activity WHERE datname IS NOT NULL")]
        alive = [parent(locker.get_server_pid()), *backends]
        send(alive, signal.SIGSTOP)
        try:
            await eventually(lambda: let_go(it), 60)
            await flood(two, readers, 1000)
            paused = resident(process.pid) - before
        finally:
            send(alive, signal.SIGCONT)
        assert paused < 32 * MEGABYTE
        await locker.close()
        began = asyncio.get_running_loop().time()
        await eventually(lambda: total(it, readers, MESSAGES + 1500), 150)
        took = asyncio.get_running_loop().time() - began
        print(
            f"outbox +{grown / MEGABYTE:.1f} MB, memory +{held / MEGABYTE:.1f} MB while the window was closed, "
            f"+{paused / MEGABYTE:.1f} MB while the database stood still; made up for in {took:.1f} s"
        )


async def window_is_closed(station: Station) -> bool:
    """All that the module may send has been sent, and waits here. The last batch says how much the module had then: of
    what came in the same turn of its loop there may be more than the window takes.
    """
    waiting = await station.metric("convsync_feed_lag_events")
    assert WINDOW_EVENTS <= waiting < WINDOW_EVENTS + BATCH_EVENTS, waiting
    return True


async def let_go(station: Station) -> bool:
    _, found = await station.ready()
    assert "lease" in found.get("missing", {}), found
    return True


async def total(station: Station, readers: list[str], count: int) -> bool:
    rows = await station.sql("SELECT sum(unread) AS sum FROM conversation WHERE account = ANY ($1)", readers)
    assert int(rows[0]["sum"] or 0) == count, rows
    return True
