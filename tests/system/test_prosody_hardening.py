"""mod_convsync_feed where things go wrong under a real Prosody: killed and reloaded under traffic, a disk without
room, a clock that jumps, a component that hangs.
"""

import asyncio
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.prosody_server import COMPONENT, DOMAIN, PASSWORD, ROOMS, Prosody, prosody_of_its_own
from tests.system.room_client import configure, enter
from tests.system.xmpp_client import StreamClosed, XmppClient
from tests.system.xmpp_component import FEED, NS, FeedComponent, settled

HOST_OF_A_MODULE = f'Component "{ROOMS}" "muc"'


class Talker:
    """Says numbers to an account as fast as the server takes them; `done`: those that the server has processed."""

    def __init__(self, client: XmppClient, to: str, word: str) -> None:
        self.client, self.to, self.word = client, to, word
        self.done: list[str] = []
        self.task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        with suppress(StreamClosed, ConnectionError):
            for i in range(100_000):
                texts = [f"{self.word} {i}.{j}" for j in range(5)]
                for text in texts:
                    self.client.chat(self.to, text)
                await self.client.ping()
                self.done += texts

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def at(self, count: int) -> None:
        while len(self.done) < count:  # noqa: ASYNC110 - it is this loop that makes it grow
            await asyncio.sleep(0)


def heard(feed: FeedComponent) -> list[str]:
    return [e.body or "" for e in feed.events if e.kind == "message" and e.element.get("direction") == "in"]


async def everything(prosody: Prosody) -> FeedComponent:
    """What a component is sent that has not acked anything, up to now."""
    client = await prosody.client(f"{prosody.name()}/end")
    client.chat(prosody.name(), "end")
    await client.ping()
    feed = await prosody.component()
    await feed.subscribe()
    while not [e for e in feed.events if e.body == "end"]:
        feed.ack_all()
        seen = len(feed.events)
        await feed.until(lambda seen=seen: len(feed.events) > seen)  # type: ignore[misc]
    return feed


# ---- killed, reloaded ----------------------------------------------------------------------------------------------


async def test_killed_under_traffic_again_and_again(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        done: list[str] = []
        for kill in range(4):
            clients = [await prosody.client(f"{prosody.name()}/a") for _ in range(3)]
            talkers = [Talker(c, prosody.name(), f"{kill}/{i}") for i, c in enumerate(clients)]
            await talkers[kill % 3].at(37 * kill + 20)
            prosody.kill()
            for talker in talkers:
                await talker.stop()
                done += talker.done
            await prosody.start()
        feed = await everything(prosody)
        ids = [e.element.get("archive-id") for e in feed.events if e.kind == "message" and e.body != "end"]
        assert len(ids) - len(set(ids)) <= 4  # at each start one that was told before may come again, under its id
        bodies = {e.element.get("archive-id"): e.body for e in feed.events if e.element.get("direction") == "in"}
        assert len(bodies) == len(set(bodies.values()))
        assert set(done) <= set(bodies.values())
        assert "has a gap" not in prosody.log()


@pytest.mark.parametrize("side", ["out", "in", "room"])
async def test_killed_between_the_archive_and_the_outbox(tmp_path: Path, side: str) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        one, other, room = prosody.name(), prosody.name(), f"tea@{ROOMS}"
        client = await prosody.client(f"{one}/a")
        await enter(client, room, "Ann")
        await configure(client, room)
        client.chat(other, "before")
        client.message(room, "<body>before</body>", kind="groupchat")
        await client.ping()
        fatal = f"<body>fatal</body><die xmlns='urn:convsync:test' side='{side}'/>"
        client.message(room if side == "room" else other, fatal, kind="groupchat" if side == "room" else "chat")
        await asyncio.to_thread(prosody.died)
        for again in range(2):
            await prosody.start()
            feed = await prosody.component(ROOMS if side == "room" else DOMAIN)
            await feed.subscribe()
            await feed.caught_up()
            fatals = [e for e in feed.events if e.body == "fatal"]
            if side == "room":
                assert [(e.kind, e.element.get("author")) for e in fatals] == [("room-message", one)]
            else:
                directions = ["out"] if side == "out" else ["out", "in"]
                assert [e.element.get("direction") for e in fatals] == directions
                assert fatals[-1].element.get("account") == (one if side == "out" else other)
            (archived,) = (
                item
                for item in await feed.ask(
                    "get", f"<archive xmlns='{NS}' account='{fatals[-1].element.get('account')}'/>"
                )
                if item.findtext("{jabber:client}message/{jabber:client}body") == "fatal"
            )
            assert archived.get("id") == fatals[-1].element.get("archive-id")
            assert not [e for e in feed.events if e.kind == "gap"]
            if not again:
                prosody.kill()


async def test_reloading_under_traffic_loses_nothing(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        operator = await prosody.client(f"{prosody.name()}/a")
        clients = [await prosody.client(f"{prosody.name()}/a") for _ in range(3)]
        talkers = [Talker(c, prosody.name(), f"t{i}") for i, c in enumerate(clients)]
        streams = [feed.current]
        for n in range(6):
            await talkers[0].at(40 * n + 20)
            await prosody.control(operator, "reload")
            await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
            feed.received.clear()
            told = {e.stream: e.n for e in feed.events}
            await feed.subscribe(prosody.told | told)
            streams.append(feed.current)
        for talker in talkers:
            await talker.stop()
        done = [text for talker in talkers for text in talker.done]
        await settled(feed, *clients)
        await feed.until(lambda: set(done) <= set(heard(feed)))
        assert len(heard(feed)) == len(set(heard(feed)))
        assert len(set(streams)) == 7
        assert not [e for e in feed.events if e.kind == "gap"]


async def test_a_server_that_dies_without_the_module_still_says_so(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        await prosody.control(client, "unload", module="convsync_feed")
        prosody.kill()  # the mark is on the disk
        await prosody.start()
        feed = await everything(prosody)
        assert [e.element.get("reason") for e in feed.events if e.kind == "gap"] == ["unloaded"]


# ---- several hosts -------------------------------------------------------------------------------------------------


SECOND = f"""
VirtualHost "second.localhost"
  modules_enabled = {{ "roster", "saslauth", "disco", "ping", "pep", "mam", "smacks", "convsync_feed" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
Component "rooms.second.localhost" "muc"
  modules_enabled = {{ "muc_mam", "convsync_feed" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
"""


async def test_each_host_has_its_own_streams(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, config={HOST_OF_A_MODULE: SECOND + HOST_OF_A_MODULE}) as prosody:
        accounts = prosody.folder / "data" / "second%2elocalhost" / "accounts"
        accounts.mkdir(parents=True)
        first = prosody.folder / "data" / "localhost" / "accounts" / "u0.dat"
        (accounts / "u0.dat").write_text(first.read_text())
        one = await prosody.client(f"{prosody.name()}/a")
        other = await XmppClient.connect("u0@second.localhost/a", PASSWORD, prosody.c2s_port)
        hosts = (DOMAIN, ROOMS, "second.localhost", "rooms.second.localhost")
        for client, host in ((one, ROOMS), (other, "rooms.second.localhost")):
            await enter(client, f"tea@{host}", "Ann")
            await configure(client, f"tea@{host}")
            client.message(f"tea@{host}", f"<body>in {host}</body>", kind="groupchat")
        one.chat(f"u0@{DOMAIN}", f"in {DOMAIN}")
        other.chat("u0@second.localhost", "in second.localhost")
        one.chat("u0@second.localhost", "across")
        await one.ping()
        await other.ping()
        feed = await prosody.component()
        streams: dict[str, set[str]] = {}
        for host in hosts:
            feed.host = host
            feed.events.clear()
            hello = await feed.subscribe()
            assert hello.get("host") == host
            assert (hello.get("rooms") == "true") == (host in (ROOMS, "rooms.second.localhost"))
            await feed.event(lambda e, host=host: e.body == f"in {host}")  # type: ignore[misc]
            await feed.caught_up()
            assert {e.element.get("account", "").partition("@")[2] for e in feed.events} == {host}
            across = [e.element.get("direction") for e in feed.events if e.body == "across"]
            assert across == {DOMAIN: ["out"], "second.localhost": ["in"]}.get(host, [])
            streams[host] = {e.stream for e in feed.events}
        assert len(set().union(*streams.values())) == 4
        feed.host = DOMAIN
        feed.ack(streams["second.localhost"].pop(), 1)  # of another host's stream
        await feed.caught_up()
        assert "unknown stream" in prosody.log()
        await one.close()
        await other.close()


# ---- no room on the disk -------------------------------------------------------------------------------------------


async def test_a_full_disk_is_a_gap_and_nothing_more(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        other = await prosody.client(f"{prosody.name()}/a")
        for i in range(3):
            client.chat(other.account, f"before {i}")
        await client.ping()
        before = len(list(prosody.outbox.glob("*.seg")))
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # no file may grow
        for i in range(20):
            client.chat(other.account, f"full {i}")
        await client.ping()
        await other.wait_for(lambda e: e.findtext("{*}body") == "full 19", past=True)  # users notice nothing
        assert len(list(prosody.outbox.glob("*.seg"))) == before
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        feed = await prosody.component()
        await feed.subscribe()
        tries = 0
        while not [e for e in feed.events if e.kind == "gap"]:
            tries += 1
            client.chat(other.account, f"after {tries}")
            await settled(feed, client)
        await feed.message(f"after {tries}")
        (gap,) = (e for e in feed.events if e.kind == "gap")
        assert (gap.n, gap.element.get("reason")) == (1, "write-failed")
        assert [b for b in heard(feed) if not b.startswith("after")] == [f"before {i}" for i in range(3)]
        assert heard(feed)[-1] == f"after {tries}"
        feed.ack_all()
        await feed.caught_up()
        await feed.cut()
        prosody.stop()
        await prosody.start()
        again = await everything(prosody)
        assert not [e for e in again.events if e.kind == "gap"]  # it was told


async def test_a_record_that_fits_in_part_only(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        client.chat(to, "before")
        await client.ping()
        size = max(f.stat().st_size for f in prosody.outbox.glob("*.seg"))
        # The outbox's file may grow by a hundred bytes more; no other file is as long yet.
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
        client.chat(to, "torn")
        await client.ping()
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        prosody.kill()
        await prosody.start()
        feed = await everything(prosody)
        assert heard(feed)[0] == "before"
        assert {e.element.get("reason") for e in feed.events if e.kind == "gap"} <= {"write-failed", "torn"}
        assert [e for e in feed.events if e.kind == "gap"]


# ---- the clock -----------------------------------------------------------------------------------------------------

_FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@pytest.mark.skipif(_FAKETIME is None, reason="needs Debian's libfaketime")
async def test_a_clock_that_jumps_moves_nothing(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with prosody_of_its_own(tmp_path, env=env, convsync_feed_outbox_max_age=2) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        sent = []
        for jump in ("+0", "+400d", "-3000d", "+1d"):
            clock.write_text(jump)
            sent.append(f"at {jump}")
            client.chat(to, sent[-1])
            await feed.message(sent[-1])
        ats = [int(e.element.get("at", "")) for e in feed.events if e.body and e.element.get("direction") == "in"]
        assert ats[1] - ats[0] > 399 * 86_400_000_000
        assert ats[2] < ats[0]
        for jump in ("-5000d", "+20d", "-1d"):
            clock.write_text(jump)
            prosody.kill()
            await prosody.start()
            client = await prosody.client(f"{prosody.name()}/a")
            sent.append(f"after {jump}")
            client.chat(to, sent[-1])
            await client.ping()
        again = await everything(prosody)
        assert [b for b in heard(again) if b != "end"] == sent
        assert [s[0] for s in again.streams()] == list(dict.fromkeys(e.stream for e in again.events))
        assert "has a gap" not in prosody.log()
        assert len({e.stream for e in again.events}) == 4


async def test_an_outbox_that_is_too_old_is_given_up(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max_age="0.00001") as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "too old")
        await client.ping()
        async with asyncio.timeout(60):
            while "The oldest event of the feed has waited" not in prosody.log():  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
        feed = await prosody.component()
        await feed.subscribe()
        gap = await feed.event(lambda e: e.kind == "gap")
        assert gap.element.get("reason") == "full"
        assert heard(feed) == []
        assert [s[0] for s in feed.streams()] == [gap.stream]


# ---- a component that hangs ----------------------------------------------------------------------------------------


async def test_a_component_that_does_not_read_costs_bounded_memory(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        clients = [await prosody.client(f"{prosody.name()}/a") for _ in range(4)]
        to = prosody.name()
        clients[0].chat(to, "warm")
        await feed.message("warm")
        feed._reader._transport.pause_reading()  # type: ignore[attr-defined]
        before = prosody.resident()
        for _ in range(5):
            for client in clients:
                for _ in range(100):
                    client.message(to, f"<no-store xmlns='urn:xmpp:hints'/><body>{'x' * 10_000}</body>")
            await asyncio.gather(*(client.ping() for client in clients))
        assert sum(f.stat().st_size for f in prosody.outbox.glob("*.seg")) > 40_000_000
        assert prosody.resident() - before < 35_000_000  # the window is 8 MB
        feed._reader._transport.resume_reading()  # type: ignore[attr-defined]
        clients[0].chat(to, "last")
        while not [e for e in feed.events if e.body == "last"]:
            seen = len(feed.events)
            feed.ack_all()
            await feed.until(lambda seen=seen: len(feed.events) > seen)  # type: ignore[misc]
        assert len(heard(feed)) == 2002


async def test_a_component_that_is_away_costs_no_memory(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        await prosody.control(client, "flood", to=to, count="1000")
        before = prosody.resident()
        await prosody.control(client, "flood", to=to, count="8000")
        assert prosody.resident() - before < 3_000_000
        feed = await everything(prosody)
        assert prosody.resident() - before < 12_000_000  # what is on its way to a slow reader
        assert len(heard(feed)) == 9_001
