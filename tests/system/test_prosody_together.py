"""Events of messages that mod_convsync_feed writes and sends together under a real Prosody: nobody is told that a
message was taken before its events are written, and what was archived by then is told all the same.
"""

import asyncio
import resource
from pathlib import Path

import pytest

from tests.system.prosody_server import Prosody, prosody_of_its_own
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FeedComponent

pytest_plugins = ("tests.system.prosody_feed",)

NO_STORE = "<no-store xmlns='urn:xmpp:hints'/>"
NETWORK = {"nagle = false": "nagle = false; opportunistic_writes = true"}


def burst(client: XmppClient, to: str, count: int, *, more: str = "", die: str = "") -> None:
    """So many messages in one piece; at the last one the server dies."""
    fatal = f"<die xmlns='urn:convsync:test' side='{die}'/>" if die else ""
    client.send(
        "".join(
            f"<message to='{to}' type='chat' id='m{i}'><body>m{i}</body>{more}{fatal * (i == count - 1)}</message>"
            for i in range(count)
        )
        + "<r xmlns='urn:xmpp:sm:3'/>"
    )


async def told(prosody: Prosody) -> FeedComponent:
    await prosody.start()
    feed = await prosody.component()
    await feed.subscribe()
    await feed.caught_up()
    return feed


def bodies(feed: FeedComponent, direction: str) -> list[str]:
    return [e.body or "" for e in feed.events if e.kind == "message" and e.element.get("direction") == direction]


@pytest.mark.parametrize("opportunistic", [False, True])
async def test_what_a_client_hears_of_is_written(tmp_path: Path, opportunistic: bool) -> None:
    """Messages that are in no archive, so that nothing but the outbox knows them; killed as the first answer leaves."""
    async with prosody_of_its_own(tmp_path, config=NETWORK if opportunistic else {}) as prosody:
        client = await prosody.client(f"{prosody.name()}/a", sm=True)
        burst(client, prosody.name(), 10, more=NO_STORE, die="answer")
        await asyncio.to_thread(prosody.died)
        feed = await told(prosody)
        # The server may have answered what it had read before it read the rest.
        assert bodies(feed, "out") == bodies(feed, "in") == [f"m{i}" for i in range(10)]
        assert not [e for e in feed.events if e.kind == "gap"]


async def test_what_another_client_has_the_carbon_of_is_written(tmp_path: Path) -> None:
    """Prosody may write at once what it has to say: a carbon leaves in the middle of the message's way."""
    async with prosody_of_its_own(tmp_path, config=NETWORK) as prosody:
        one = prosody.name()
        client = await prosody.client(f"{one}/a", sm=True)
        other = await prosody.client(f"{one}/b", carbons=True)
        await other.ping()
        burst(client, prosody.name(), 3, more=NO_STORE, die="carbon")
        await asyncio.to_thread(prosody.died)
        feed = await told(prosody)
        assert bodies(feed, "out") == [f"m{i}" for i in range(3)]
        assert bodies(feed, "in") == [f"m{i}" for i in range(2)]


async def test_a_burst_that_fits_onto_the_disk_in_part_only_is_one_gap(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a", sm=True)
        burst(client, prosody.name(), 1)
        await client.ping()
        size = max(f.stat().st_size for f in prosody.outbox.glob("*.seg"))
        # Room for some of what is written together.
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (size + 3000, resource.RLIM_INFINITY))
        burst(client, prosody.name(), 20, more=NO_STORE)
        await client.ping()
        resource.prlimit(prosody.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        feed = await prosody.component()
        await feed.subscribe()
        while not [e for e in feed.events if e.kind == "gap"]:
            burst(client, prosody.name(), 1, more=NO_STORE)
            await client.ping()
            await feed.caught_up()
        prosody.kill()
        feed = await told(prosody)
        assert [e.element.get("reason") for e in feed.events if e.kind == "gap"] == ["write-failed"]


async def test_what_was_archived_and_not_yet_written_is_told(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        one, other = prosody.name(), prosody.name()
        client = await prosody.client(f"{one}/a", sm=True)
        burst(client, other, 10)
        await client.ping()
        burst(client, other, 20, die="in")
        await asyncio.to_thread(prosody.died)
        expected = [f"m{i}" for i in (*range(10), *range(20))]
        for _ in range(2):
            feed = await told(prosody)
            assert bodies(feed, "out") == bodies(feed, "in") == expected
            for account in (one, other):
                ids = [e.element.get("archive-id") for e in feed.events if e.element.get("account") == account]
                page = await feed.ask("get", f"<archive xmlns='urn:convsync:feed:0' account='{account}'/>")
                assert [i for i in ids if i] == [item.get("id") for item in page]
            assert not [e for e in feed.events if e.kind == "gap"]
            prosody.kill()


async def test_a_burst_is_sent_together(prosody: Prosody, feed: FeedComponent) -> None:
    client = await prosody.client(f"{prosody.name()}/a")
    burst(client, prosody.name(), 40)
    await feed.message("m39")
    assert bodies(feed, "out") == bodies(feed, "in") == [f"m{i}" for i in range(40)]
    assert len(feed.batches) < 20
    assert max(len(batch.findall("{*}event")) for batch in feed.batches) <= 50
    await client.close()


async def test_a_message_alone_is_sent_without_an_answer_to_anybody(prosody: Prosody, feed: FeedComponent) -> None:
    client = await prosody.client(f"{prosody.name()}/a")
    client.chat(prosody.name(), "nobody is there")
    await feed.message("nobody is there")
    await client.close()
