"""What mod_convsync_feed keeps, and how one side's loss of memory shows, under a real Prosody (docs/feed.md §6)."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from tests.system.prosody_server import DOMAIN, ROOT, Prosody, prosody_of_its_own
from tests.system.xmpp_component import FEED, FeedComponent

pytest_plugins = ("tests.system.prosody_feed",)

SHORT_SECONDS = 3


async def test_a_killed_server_loses_no_event(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.component()
        await feed.subscribe()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        for i in range(20):
            client.chat(to, f"kept {i}")
        await feed.message("kept 19")
        sent = [(e.n, e.what) for e in feed.events]
        old = feed.current
        feed.ack(old, 10)
        await feed.caught_up()
        prosody.kill()
        await prosody.start()
        again = await prosody.component()
        await again.subscribe({old: 10})
        assert again.streams()[0] == (old, 11, sent[-1][0], 10)
        assert again.current != old
        await again.until(lambda: again.events[-1:] != [] and again.events[-1].n == sent[-1][0])
        assert [(e.n, e.what) for e in again.events] == sent[10:]
        assert again.hello.find(f"{FEED}regressed") is None


async def test_a_stream_that_was_acked_when_a_gap_came_does_not_come_back(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.component()
        await feed.subscribe()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        client.chat(to, "old")
        await feed.message("old")
        feed.ack_all()
        await feed.caught_up()
        client.message(
            client.jid.split("/")[0], "<body>lost</body><broken xmlns='urn:convsync:test'/>"
        )  # a callback fails: an event is missing
        client.chat(to, "new")
        await feed.message("new")
        assert [e for e in feed.events if e.kind == "gap"]
        feed.ack_all()
        await feed.caught_up()
        first, last = feed.events[0], feed.events[-1]
        prosody.kill()
        await prosody.start()
        again = await prosody.component()
        await again.subscribe({last.stream: last.n})
        assert first.stream not in [name for name, *_ in again.streams()]
        await again.caught_up()
        assert [e.body for e in again.events if e.kind == "message"] == []


async def test_events_wait_for_a_component_that_is_away(prosody: Prosody) -> None:
    client = await prosody.client(f"{prosody.name()}/a")
    feed = await prosody.feed()
    await feed.cut()
    client.chat(prosody.name(), "meanwhile")
    await client.ping()
    again = await prosody.component()
    await again.subscribe(prosody.told)
    await again.message("meanwhile")
    prosody.told |= again.ack_all()
    await again.caught_up()
    await again.cut()
    await client.close()


async def test_a_second_connection_replaces_the_first(prosody: Prosody, feed: FeedComponent) -> None:
    again = await prosody.component()
    await again.subscribe(prosody.told)
    client = await prosody.client(f"{prosody.name()}/a")
    client.chat(prosody.name(), "to the second")
    await again.message("to the second")
    assert feed.closed
    await again.cut()
    await client.close()


async def test_a_component_that_forgot_is_named(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "seen")
        await feed.message("seen")
        feed.ack_all()
        for told in ({feed.current: 1}, {}):  # an older copy of the database, and an empty one
            hello = await feed.subscribe(told)
            assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [feed.current]
        old, acked = feed.current, feed.streams()[-1][3]
        prosody.stop()
        await prosody.start()
        again = await prosody.component()
        hello = await again.subscribe({})  # a finished stream stays as the mark until a newer one has an ack
        assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [old]
        hello = await again.subscribe({old: acked + 100})
        assert hello.find(f"{FEED}regressed") is None
        assert again.streams()[0][2] >= acked  # it claims more than there is: high tells


async def test_a_full_outbox_begins_anew_with_a_gap(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max=1) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        await client.ping()
        assert sum(f.stat().st_size for f in prosody.outbox.iterdir()) < 2_200_000
        feed = await prosody.component()
        await feed.subscribe()
        await feed.message("newest")
        assert feed.events[0].kind == "gap"
        assert feed.events[0].element.get("reason") == "full"


async def test_a_full_outbox_while_subscribed_goes_on_in_a_new_stream(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path, convsync_feed_outbox_max=1) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        newest = await feed.message("newest")
        assert newest.stream != feed.current
        feed.ack(feed.current, 3)  # of the stream that was given up
        feed.ack(newest.stream, newest.n)
        hello = await feed.subscribe({newest.stream: newest.n})
        assert [s.get("id") for s in hello.iter(f"{FEED}stream")] == [newest.stream]


async def test_acked_files_go(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        for i in range(100):
            client.chat(to, f"{i}" + "x" * 20_000)
        client.chat(to, "end")
        await feed.message("end")
        assert len(list(prosody.outbox.glob("*.seg"))) >= 4
        feed.ack_all()
        await feed.caught_up()
        assert len(list(prosody.outbox.glob("*.seg"))) <= 1


async def test_reloading_loses_nothing_and_asks_the_component_to_subscribe(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        client.chat(to, "before")
        await feed.message("before")
        old = feed.current
        await prosody.control(client, "reload")
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        client.chat(to, "after")
        await client.ping()
        feed.events.clear()
        await feed.subscribe(prosody.told)
        after = await feed.message("after")
        assert (await feed.message("before")).stream == old
        assert after.stream == feed.current != old
        assert not [e for e in feed.events if e.kind == "gap"]
        client.chat(f"nobody@{DOMAIN}", "bounce")  # the session is older than the module
        await feed.event(lambda e: e.kind == "message" and e.stanza.get("type") == "error")


async def test_a_module_that_was_unloaded_says_that_it_missed_something(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        to = prosody.name()
        client.chat(to, "before")
        await feed.message("before")
        await prosody.control(client, "unload")
        client.chat(to, "unseen")
        await prosody.control(client, "load")
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        feed.events.clear()
        await feed.subscribe(prosody.told)
        await feed.message("before")
        assert (await feed.event(lambda e: e.kind == "gap")).element.get("reason") == "unloaded"


@pytest.mark.parametrize("how", ["later", "at the end"])
async def test_a_failure_soon_after_another_is_a_gap_all_the_same(tmp_path: Path, how: str) -> None:
    source = tmp_path / "module"
    shutil.copytree(ROOT / "deploy" / "prosody", source)
    file = source / "mod_convsync_feed" / "mod_convsync_feed.lua"
    ten_minutes, short = "FAILURE_SECONDS = 600", f"FAILURE_SECONDS = {SHORT_SECONDS}"
    assert ten_minutes in file.read_text()
    if how == "later":
        file.write_text(file.read_text().replace(ten_minutes, short))
    async with prosody_of_its_own(tmp_path, config={str(ROOT / "deploy" / "prosody"): str(source)}) as prosody:
        feed = await prosody.feed()
        other = prosody.name()
        client, friend = await prosody.client(f"{prosody.name()}/a"), await prosody.client(f"{other}/a")
        began = time.monotonic()
        for _ in range(2):
            sent = client.message(other, "<body>broken</body><broken xmlns='urn:convsync:test'/>")
            await friend.wait_for(lambda e, i=sent: e.get("id") == i, past=True)
            client.chat(other, sent)
            await feed.message(sent)
        soon = how != "later" or time.monotonic() - began < SHORT_SECONDS
        assert sum(e.kind == "gap" for e in feed.events) == 1 or not soon
        if how == "at the end":
            told = feed.ack_all()
            await feed.caught_up()
            prosody.stop()
            await prosody.start()
            feed = await prosody.component()
            await feed.subscribe(told)
            await feed.event(lambda e: e.kind == "gap")
        else:
            async with asyncio.timeout(60):
                while sum(e.kind == "gap" for e in feed.events) < 2:
                    client.chat(other, "next")
                    await asyncio.sleep(0.1)
