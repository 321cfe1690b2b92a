"""What mod_convsync_feed keeps, and how one side's loss of memory shows, under a real ejabberd (docs/feed.md §6)."""

import asyncio
from pathlib import Path

import pytest

from tests.system.ejabberd_server import SECONDS, Ejabberd, ejabberd_of_its_own, epmd_of_its_own
from tests.system.prosody_server import DOMAIN
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FEED, FeedComponent

pytest_plugins = ("tests.system.ejabberd_feed",)

BODY = "{jabber:client}body"


async def test_a_killed_server_loses_no_event(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.component()
        await feed.subscribe()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(20):
            client.chat(to, f"kept {i}")
        await feed.message("kept 19")
        sent = [(e.n, e.what) for e in feed.events]
        old = feed.current
        feed.ack(old, 10)
        await feed.caught_up()
        ejabberd.kill()
        await ejabberd.start()
        again = await ejabberd.component()
        await again.subscribe({old: 10})
        assert again.streams()[0] == (old, 11, sent[-1][0], 10)
        assert again.current != old
        await again.until(lambda: (old, sent[-1][0]) in [(e.stream, e.n) for e in again.events])
        assert [(e.n, e.what) for e in again.events if e.stream == old] == sent[10:]
        assert again.hello.find(f"{FEED}regressed") is None


async def test_what_a_client_has_seen_is_in_the_feed_after_a_kill_under_load(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        sender, reader = [await ejabberd.client(f"{ejabberd.name()}/a") for _ in range(2)]
        for i in range(2000):
            sender.chat(reader.account, f"kept {i}")
        await reader.wait_for(lambda e: e.findtext(BODY) == "kept 300", past=True)
        ejabberd.kill()
        seen = {e.findtext(BODY) for e in reader.received if e.findtext(BODY)}
        assert len(seen) < 2000
        await ejabberd.start()
        feed = await ejabberd.component()
        await feed.subscribe()
        await feed.caught_up()
        had = 0
        while len(feed.events) > had:  # there may be more than a window of them
            had = len(feed.events)
            feed.ack_all()
            await feed.caught_up()
        for direction in ("out", "in"):
            told = {e.body for e in feed.events if e.body and e.element.get("direction") == direction}
            assert seen <= told


async def test_events_wait_for_a_component_that_is_away(ejabberd: Ejabberd) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    feed = await ejabberd.feed()
    await feed.cut()
    client.chat(ejabberd.name(), "meanwhile")
    await client.ping()
    again = await ejabberd.component()
    await again.subscribe(ejabberd.told)
    await again.message("meanwhile")
    ejabberd.told |= again.ack_all()
    await again.caught_up()
    await again.cut()
    await client.close()


async def test_a_second_connection_replaces_the_first(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    again = await ejabberd.component()
    await again.subscribe(ejabberd.told)
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    client.chat(ejabberd.name(), "to the second")
    await again.message("to the second")
    await feed.caught_up()  # ejabberd keeps both connections
    assert "to the second" not in [e.body for e in feed.events]
    await again.cut()
    await client.close()


async def test_a_component_that_forgot_is_named(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.feed()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        client.chat(ejabberd.name(), "seen")
        await feed.message("seen")
        feed.ack_all()
        for told in ({feed.current: 1}, {}):  # an older copy of the database, and an empty one
            hello = await feed.subscribe(told)
            assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [feed.current]
        old, acked = feed.current, feed.streams()[-1][3]
        ejabberd.stop()
        await ejabberd.start()
        again = await ejabberd.component()
        hello = await again.subscribe({})  # a finished stream stays as the mark until a newer one has an ack
        assert [r.get("stream") for r in hello.iter(f"{FEED}regressed")] == [old]
        hello = await again.subscribe({old: acked + 100})
        assert hello.find(f"{FEED}regressed") is None
        assert again.streams()[0][2] >= acked  # it claims more than there is: high tells


async def test_a_full_outbox_begins_anew_with_a_gap(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, outbox_max=1) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        await client.ping()
        status = await ejabberd.status(client)
        assert status["outbox_bytes"] < 1_100_000
        assert status["gaps"] >= 1
        feed = await ejabberd.component()
        await feed.subscribe()
        await feed.message("newest")
        assert feed.events[0].kind == "gap"
        assert feed.events[0].element.get("reason") == "full"


async def test_a_full_outbox_while_subscribed_goes_on_in_a_new_stream(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, outbox_max=1) as ejabberd:
        feed = await ejabberd.feed()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        client.chat(to, "newest")
        newest = await feed.message("newest")
        assert newest.stream != feed.current
        feed.ack(feed.current, 3)  # of the stream that was given up
        feed.ack(newest.stream, newest.n)
        hello = await feed.subscribe({newest.stream: newest.n})
        assert [s.get("id") for s in hello.iter(f"{FEED}stream")] == [newest.stream]


async def rows(client: XmppClient, what: str = "do='rows'") -> int:
    """How many there are, behind what is done."""
    answer = await client.iq("set", f"<control xmlns='urn:convsync:test' {what} host='{DOMAIN}'/>", to=DOMAIN)
    return int(answer[0].get("count", ""))


@pytest.mark.parametrize("killed", [False, True])
async def test_a_full_outbox_is_emptied_step_by_step(tmp_path: Path, killed: bool) -> None:
    """All of it at once takes seconds, in which whoever has an event would give up."""
    async with ejabberd_of_its_own(tmp_path, outbox_max=5) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        assert await rows(client, "do='fill' thousands='20'") > 10_000
        client.chat(ejabberd.name(), "after the last straw")
        await client.ping()
        assert (await ejabberd.status(client))["gaps"] == 1
        assert (await ejabberd.status(client))["outbox_events"] < 10
        if killed:
            ejabberd.kill()
            await ejabberd.start()
            client = await ejabberd.client(f"{ejabberd.name()}/b")
        async with asyncio.timeout(SECONDS):
            while await rows(client) > 30:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)


async def test_acked_events_go(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.feed()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(100):
            client.chat(to, f"{i}" + "x" * 20_000)
        client.chat(to, "end")
        await feed.message("end")
        assert (await ejabberd.status(client))["outbox_bytes"] > 4_000_000
        feed.ack_all()
        async with asyncio.timeout(SECONDS):
            while (await ejabberd.status(client))["outbox_bytes"] > 100_000:
                pass  # acks are written down once a second; each look is a round trip
        assert (await ejabberd.status(client))["outbox_events"] <= 2


async def test_new_options_take_effect_without_a_gap_and_without_a_new_subscription(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.feed()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        ejabberd.configure("mod_convsync_feed", outbox_max=1, archive=False)
        await ejabberd.control(client, "reload-config")
        client.chat(to, "after")
        assert (await feed.message("after")).stream == feed.current
        for i in range(30):
            client.chat(to, f"{i}" + "x" * 40_000)
        gap = await feed.event(lambda e: e.kind == "gap")
        assert gap.element.get("reason") == "full"


async def test_an_event_that_is_too_old_is_given_up(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, outbox_age="1 second") as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        client.chat(ejabberd.name(), "old")
        async with asyncio.timeout(SECONDS):
            while (await ejabberd.status(client))["gaps"] == 0:
                client.chat(ejabberd.name(), "new")
        feed = await ejabberd.component()
        await feed.subscribe()
        client.chat(ejabberd.name(), "newest")  # by now the others may be too old as well
        await feed.message("newest")
        assert feed.events[0].kind == "gap"
        assert "old" not in [e.body for e in feed.events]


async def test_a_lost_row_is_a_gap(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(5):
            client.chat(to, f"e{i}")
        await client.ping()
        await ejabberd.control(client, "lose", n="7")
        ejabberd.stop()
        await ejabberd.start()
        feed = await ejabberd.component()
        await feed.subscribe()
        gap = await feed.event(lambda e: e.kind == "gap")
        assert (gap.n, gap.stream, gap.element.get("reason")) == (1, feed.current, "torn")
        assert [e.n for e in feed.events if e.stream != feed.current] == [1, 2, 3, 4, 5, 6]
        assert await ejabberd.logged("Dropped")


async def test_a_row_that_is_lost_while_the_server_runs_is_a_gap(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        for i in range(5):
            client.chat(to, f"e{i}")
        await client.ping()
        await ejabberd.control(client, "lose", n="7")
        feed = await ejabberd.component()
        await feed.subscribe()
        gap = await feed.event(lambda e: e.kind == "gap")
        assert (gap.n, gap.element.get("reason")) == (1, "unreadable")
        client.chat(to, "goes on")
        assert (await feed.message("goes on")).stream == gap.stream


async def test_a_module_that_was_unloaded_says_that_it_missed_something(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        feed = await ejabberd.feed()
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        to = ejabberd.name()
        client.chat(to, "before")
        await feed.message("before")
        await ejabberd.control(client, "unload")
        client.chat(to, "unseen")
        await ejabberd.control(client, "load")
        await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
        feed.events.clear()
        await feed.subscribe(ejabberd.told)
        await feed.message("before")
        assert (await feed.event(lambda e: e.kind == "gap")).element.get("reason") == "unloaded"


async def test_a_failure_soon_after_another_is_a_gap_later(tmp_path: Path) -> None:
    aged = "case E of _ when is_integer(E) -> E - 592000; _ -> E end"
    earlier = f"fun(S) -> list_to_tuple([{aged} || E <- tuple_to_list(S)]) end"
    with epmd_of_its_own() as epmd:
        async with ejabberd_of_its_own(tmp_path, node="alone@localhost", epmd=epmd) as ejabberd:
            feed = await ejabberd.feed()
            other = ejabberd.name()
            client, friend = await ejabberd.client(f"{ejabberd.name()}/a"), await ejabberd.client(f"{other}/a")

            async def gaps() -> int:
                client.chat(other, text := f"next {len(feed.events)}")
                await feed.message(text)
                return sum(e.kind == "gap" for e in feed.events)

            for expected in (1, 2):
                sent = client.message(other, "<body>broken</body><broken xmlns='urn:convsync:test'/>")
                await friend.wait_for(lambda e, i=sent: e.get("id") == i, past=True)
                async with asyncio.timeout(SECONDS):
                    while await gaps() < expected:  # noqa: ASYNC110 - only an event brings it
                        await asyncio.sleep(0.1)
                assert await gaps() == expected
                owner = ejabberd.call("mod_convsync_feed_host", "local", f'[<<"{DOMAIN}">>]')
                ejabberd.call(
                    "sys", "replace_state", f"[{owner}, {earlier}]"
                )  # all but eight seconds of ten minutes went by
