"""What mod_convsync_feed makes of an outbox that the machine, not only the server, went down with: what can be missing
is told, what cannot be missing raises no alarm (docs/feed.md §6).

Mnesia mends a damaged log in silence, so the outbox has to know by itself on which start of the machine it lived.
"""

import os
from pathlib import Path

import pytest

from tests.system.ejabberd_server import Ejabberd, ejabberd_of_its_own, epmd_of_its_own
from tests.system.prosody_server import DOMAIN
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FeedComponent

LOG = "LATEST.LOG"
SERVER = "mnesia"
BODY = "{jabber:client}body"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def started_anew(server: Ejabberd) -> int:
    """Its machine was: returns how many files knew of the old start."""
    this, found = BOOT.read_bytes().strip(), 0
    for path in (server.folder / SERVER).iterdir():
        if path.is_file() and this in (content := path.read_bytes()):
            path.write_bytes(content.replace(this, b"0123abcd-4567-89ab-cdef-0123456789ab"))
            found += 1
    return found


async def say(client: XmppClient, to: str, *texts: str) -> None:
    for text in texts:
        client.chat(to, text)
    await client.ping()


async def told(server: Ejabberd, end: str, known: dict[str, int] | None = None) -> tuple[FeedComponent, list[str]]:
    """What a component is sent up to a message that says `end`: bodies of what came in, and reasons of gaps."""
    client = await server.client(f"{server.name()}/end")
    await say(client, server.name(), end)
    feed = await server.component()
    await feed.subscribe(known or {})
    await feed.message(end)
    words = [e.element.get("reason") or e.body or "" for e in feed.events if e.what[1:2] != ("out",)]
    assert {e.n for e in feed.events if e.kind == "gap"} <= {1}
    return feed, [word for word in words if word]


@pytest.mark.parametrize("anew", [False, True])
async def test_events_cut_off_by_a_power_cut_are_a_gap(tmp_path: Path, anew: bool) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client, to = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
        await say(client, to, "kept 1", "kept 2")
        kept = (tmp_path / SERVER / LOG).stat().st_size
        await say(client, to, "cut off 1", "cut off 2")
        ejabberd.kill()
        if anew:
            assert started_anew(ejabberd)
            os.truncate(tmp_path / SERVER / LOG, kept)
        await ejabberd.start()
        lost = ["torn"] if anew else ["cut off 1", "cut off 2"]
        _, words = await told(ejabberd, "end")
        assert words == ["kept 1", "kept 2", *lost, "end"]
        ejabberd.kill()
        await ejabberd.start()
        _, words = await told(ejabberd, "another end")
        assert words == ["kept 1", "kept 2", *lost, "end", "another end"]


async def test_an_outbox_that_was_closed_may_come_back_on_any_machine(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        await say(await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name(), "kept")
        ejabberd.stop()
        started_anew(ejabberd)
        await ejabberd.start()
        _, words = await told(ejabberd, "end")
        assert words == ["kept", "end"]


async def test_without_sync_a_killed_server_has_lost_events(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, outbox_sync=False) as ejabberd:
        await say(await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name(), "lost, or not")
        ejabberd.kill()
        await ejabberd.start()
        _, words = await told(ejabberd, "end")
        assert words[-2:] == ["torn", "end"]


async def test_a_cluster_has_a_gap_when_its_last_copy_went_down(tmp_path: Path) -> None:
    with epmd_of_its_own() as epmd:
        one, two = (Ejabberd(tmp_path / name, node=f"{name}@localhost", epmd=epmd) for name in ("one", "two"))
        try:
            await one.start()
            await two.start()
            assert two.call("ejabberd_cluster", "join", f"['{one.node}']") == "ok"
            await two.up()
            await say(await one.client(f"u1@{DOMAIN}/a"), f"u2@{DOMAIN}", "first")

            one.kill()  # it wrote the stream, and its machine goes down; the other has it all in its memory
            await say(await two.client(f"u1@{DOMAIN}/b"), f"u2@{DOMAIN}", "second")
            assert started_anew(one)
            await one.start()
            feed, words = await told(two, "end")
            assert words == ["first", "second", "end"]
            known = feed.ack_all()
            await feed.caught_up()

            two.kill()
            await say(await one.client(f"u1@{DOMAIN}/c"), f"u2@{DOMAIN}", "third")
            one.kill()
            assert started_anew(one)
            await one.start()  # the last to go is the first to come
            _, words = await told(one, "another end", known)
            assert words[-3:] == ["third", "torn", "another end"]
        finally:
            one.kill()
            two.kill()
