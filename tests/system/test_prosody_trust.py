"""Whom mod_convsync_feed obeys under a real Prosody, and what it makes of acks that cannot be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.system.prosody_server import COMPONENT, DOMAIN, ROOMS, SECRET, Prosody, prosody_of_its_own
from tests.system.xmpp_component import FEED, NS, FeedComponent

SESSIONS = f"<sessions xmlns='{NS}'/>"
SUBSCRIBE = f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>"
HOST_OF_A_MODULE = f'Component "{ROOMS}" "muc"'

# ---- who is not the component --------------------------------------------------------------------------------------

OTHER = """
Component "other.localhost"
  component_secret = "{SECRET}"
  component_conflict_resolve = "kick_old"
  validate_from_addresses = false
Component"""


@asynccontextmanager
async def impostor(tmp_path: Path, sender: str) -> AsyncIterator[tuple[Prosody, FeedComponent, FeedComponent]]:
    """The component, and another one that says it is `sender`, as another server might."""
    config = {HOST_OF_A_MODULE: OTHER.replace("{SECRET}", SECRET) + HOST_OF_A_MODULE.removeprefix("Component")}
    async with prosody_of_its_own(tmp_path, config=config) as prosody:
        feed = await prosody.feed()
        other = await FeedComponent.connect("other.localhost", SECRET, prosody.component_port, host=DOMAIN)
        other.component = sender
        yield prosody, feed, other


@pytest.mark.parametrize("sender", ["other.localhost", COMPONENT, f"x@{COMPONENT}", "server.example", f"u1@{DOMAIN}/a"])
async def test_nobody_speaks_for_the_component(tmp_path: Path, sender: str) -> None:
    async with impostor(tmp_path, sender) as (prosody, feed, other):
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "waits")
        n = (await feed.message("waits")).n
        for host in (DOMAIN, ROOMS):
            for kind, payload in (
                ("set", SUBSCRIBE),
                ("get", SESSIONS),
                ("get", f"<accounts xmlns='{NS}'/>"),
                ("get", f"<archive xmlns='{NS}' account='u1@{host}'/>"),
            ):
                before = prosody.log().count("Refused a request")
                other.send(f"<iq type='{kind}' id='q' from='{sender}' to='{host}'>{payload}</iq>")
                ack = f"<ack xmlns='{NS}' stream='{feed.current}' n='{n}'/>"
                other.send(f"<message from='{sender}' to='{host}'>{ack}</message>")
                other.send(f"<iq type='get' id='p' from='other.localhost' to='{host}'><x xmlns='urn:nothing'/></iq>")
                await other.wait_for(lambda e: e.get("id") == "p", past=True)
                other.received.clear()
                assert prosody.log().count("Refused a request") == before + 2
        feed.events.clear()
        hello = await feed.subscribe(prosody.told)
        assert hello.findall(f"{FEED}stream")[-1].get("acked") == str(prosody.told.get(feed.current, 0))
        await other.cut()


async def test_acks_that_cannot_be_change_nothing(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        feed = await prosody.feed()
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "one")
        n = (await feed.message("one")).n
        acked = feed.streams()[-1][3]
        bad = [
            str(n + 1),
            "-1",
            "",
            " 1",
            "1 ",
            "+1",
            "1.0",
            "1e3",
            "0x1",
            "NaN",
            "９",
            "9" * 15,
            "9" * 400,
            str(2**63),
        ]
        for text in bad:
            feed.ack(feed.current, text)
        feed.send(f"<message from='{COMPONENT}' to='{DOMAIN}'><ack xmlns='{NS}'/></message>")
        feed.send(f"<message from='{COMPONENT}' to='{DOMAIN}'><ack xmlns='{NS}' stream='{feed.current}'/></message>")
        feed.send(f"<message from='{COMPONENT}' to='{DOMAIN}'><ack xmlns='{NS}' stream='../../state' n='1'/></message>")
        await feed.caught_up()
        assert prosody.log().count("Ignored an ack") == len(bad) + 3
        feed.events.clear()
        await feed.subscribe(prosody.told)
        assert feed.streams()[-1][3] == acked
        feed.ack(feed.current, n)
        await feed.caught_up()
        await feed.subscribe({feed.current: n})
        assert feed.streams()[-1][3] == n
