"""A killed ejabberd that had archived what it had not told yet tells it when it is back (docs/feed.md §7). A module of
the test's kills it between the two.
"""

import asyncio
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.system.ejabberd_server import SECONDS, Ejabberd, ejabberd_of_its_own
from tests.system.prosody_server import DOMAIN, ROOMS
from tests.system.room_client import Cast, configure, enter
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FEED, NS, Event

MARKERS, CORRECT, HINTS = "urn:xmpp:chat-markers:0", "urn:xmpp:message-correct:0", "urn:xmpp:hints"
STATES = "http://jabber.org/protocol/chatstates"
MESSAGE, BODY = "{jabber:client}message", "{jabber:client}body"
STORE = f"<store xmlns='{HINTS}'/>"


def deadly(where: str, text: str) -> str:
    return f"<body>{text}</body><killed xmlns='urn:convsync:test' at='{where}'/>"


async def killed(ejabberd: Ejabberd) -> None:
    """It killed itself, and is back."""
    assert await asyncio.to_thread(ejabberd.wait) == -9
    await ejabberd.start()


async def told(ejabberd: Ejabberd, host: str = DOMAIN, known: dict[str, int] | None = None) -> list[Event]:
    """All that the feed has, up to what comes now."""
    feed = await ejabberd.component(host)
    await feed.subscribe(known)
    if host == DOMAIN:
        client = await ejabberd.client(f"{ejabberd.name()}/end")
        client.chat(ejabberd.name(), "end")
        await feed.message("end")
        await client.close()
    await feed.caught_up()
    events = feed.events[:]
    assert "gap" not in [e.kind for e in events]
    await feed.cut()
    return events


async def archived(ejabberd: Ejabberd, account: str, host: str = DOMAIN) -> list[tuple[str, str]]:
    """(archive id, body) of all that the account's archive, or the room's, has."""
    feed = await ejabberd.component(host)
    answer = await feed.ask("get", f"<archive xmlns='{NS}' account='{account}'/>")
    await feed.cut()
    return [(item.get("id", ""), item.findtext(f"{MESSAGE}/{BODY}") or "") for item in answer.iterfind(FEED + "item")]


def ids(events: list[Event], account: str) -> set[tuple[str, str]]:
    found = [e for e in events if e.element.get("account") == account and e.kind in ("message", "room-message")]
    return {(e.element.get("archive-id", ""), e.body or "") for e in found if e.element.get("archive-id")}


def plain(event: Event) -> list[str]:
    """The event without what is of the moment: its number, its time, the sessions."""
    element = ET.fromstring(ET.tostring(event.element))  # noqa: S314 - what a server of our own has sent
    for name in ("n", "at"):
        del element.attrib[name]
    for sessions in element.findall(FEED + "sessions"):
        element.remove(sessions)
    return [*sorted(ET.canonicalize(ET.tostring(child)) for child in element), str(sorted(element.attrib.items()))]


@pytest.mark.parametrize("storage", ["sql", "mnesia"])
@pytest.mark.parametrize("where", ["sent", "received", "offline"])
async def test_what_was_archived_and_not_told_is_told_after_the_kill(tmp_path: Path, where: str, storage: str) -> None:
    modules: dict[str, Any] = {"mod_mam": {"db_type": storage}}
    async with ejabberd_of_its_own(tmp_path, modules=modules) as ejabberd:
        ann, bob = ejabberd.name(), ejabberd.name()
        client = await ejabberd.client(f"{ann}/a")
        if where == "received":
            await ejabberd.client(f"{bob}/b")
        client.chat(bob, "before")
        await client.ping()
        client.message(bob, deadly(where, "on the edge"))
        await killed(ejabberd)
        events = await told(ejabberd)
        concerned = ann if where == "sent" else bob
        assert "on the edge" in [body for _, body in await archived(ejabberd, concerned)]
        for account in (ann, bob):
            assert ids(events, account) == set(await archived(ejabberd, account))
        edge = next(e for e in events if e.body == "on the edge" and e.element.get("account") == concerned)
        assert edge.element.get("direction") == ("out" if where == "sent" else "in")
        assert edge.element.get("at") == edge.element.get("archive-id")  # when it was archived
        after = [e.body for e in events if e.element.get("account") == concerned and e.stream == edge.stream]
        assert after[-1] == "on the edge"


async def talk(ejabberd: Ejabberd, room: str) -> tuple[XmppClient, XmppClient]:
    """A bit of everything, in the archives and not, told and not."""
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    friend = await ejabberd.client(f"{ejabberd.name()}/b")
    ann, bob = client.account, friend.account
    sent = client.chat(bob, "to bare")
    client.chat(friend.jid, "to full")
    client.chat(f"{bob}/gone", "to nobody")
    client.chat(ejabberd.name(), "to somebody who is away")
    client.message(bob, f"<body>corrected</body><replace xmlns='{CORRECT}' id='{sent}'/>")
    friend.message(ann, f"<displayed xmlns='{MARKERS}' id='{sent}'/>{STORE}")
    client.message(bob, f"<displayed xmlns='{MARKERS}' id='x'/>")  # not archived
    client.chat(ann, "to oneself")
    client.chat(None, "to oneself without an address")
    await enter(client, room, "Ann")
    await configure(client, room, members_only=True)
    first = client.message(room, "<body>to the room</body>", kind="groupchat")
    client.message(room, f"<body>mended</body><replace xmlns='{CORRECT}' id='{first}'/>", kind="groupchat")
    client.message(room, f"<composing xmlns='{STATES}'/>{STORE}", kind="groupchat")
    await client.ping()
    await friend.ping()
    await ejabberd.control(client, "settle", room=room)
    return client, friend


def told_archived(events: list[Event]) -> list[Event]:
    return [e for e in events if e.kind in ("message", "room-message") and e.element.get("archive-id")]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("host", [DOMAIN, ROOMS])
async def test_what_is_known_to_be_told_is_not_told_again(tmp_path: Path, host: str, known: bool) -> None:
    """And what is not known is told as it was."""
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        room = f"tea@{ROOMS}"
        client, _ = await talk(ejabberd, room)
        feed = await ejabberd.component(host)
        await feed.subscribe()
        await feed.caught_up()
        live, position = told_archived(feed.events), feed.ack_all()
        assert len(live) == (3 if host == ROOMS else 14)
        async with asyncio.timeout(SECONDS):
            while (await ejabberd.status(client, host))["outbox_bytes"] > 0:
                feed.ack_all()
                await client.ping()
        if not known:
            await ejabberd.control(client, "forget-told")
        ejabberd.kill()
        await ejabberd.start()
        assert await ejabberd.logged(f"{host} was killed: ")
        again = told_archived([e for e in await told(ejabberd, host, position) if e.body != "end"])
        assert Counter(map(str, map(plain, again))) == (Counter() if known else Counter(map(str, map(plain, live))))


async def test_what_waits_to_be_fetched_is_not_told_again(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        await talk(ejabberd, f"tea@{ROOMS}")
        ejabberd.kill()
        await ejabberd.start()
        for host in (DOMAIN, ROOMS):
            events = told_archived(await told(ejabberd, host))
            once = Counter((e.element.get("account"), e.element.get("archive-id")) for e in events)
            assert set(once.values()) == {1}
            assert await ejabberd.logged(f"{host} was killed: 0 messages")


async def test_what_the_blocklist_does_not_let_out_is_not_told(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        ann, bob = ejabberd.name(), ejabberd.name()
        client = await ejabberd.client(f"{ann}/a")
        await client.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{bob}'/></block>")
        client.chat(bob, "not let out")
        await client.ping()
        ejabberd.kill()
        await ejabberd.start()
        assert "not let out" in [body for _, body in await archived(ejabberd, ann)]
        assert "not let out" not in [e.body for e in await told(ejabberd)]


async def test_an_orderly_stop_tells_nothing_again(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client, to = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
        client.chat(to, "once")
        await client.ping()
        ejabberd.stop()
        await ejabberd.start()
        assert [e.body for e in await told(ejabberd)].count("once") == 2  # out and in
        assert "was killed" not in ejabberd.log()


async def test_a_server_that_is_killed_twice_tells_what_it_had_not_told_at_first(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        ann, bob = ejabberd.name(), ejabberd.name()
        client = await ejabberd.client(f"{ann}/a")
        for number in range(2):
            client.message(bob, deadly("offline", f"on edge {number}"))
            await killed(ejabberd)
            client = await ejabberd.client(f"{ann}/a")
        events = await told(ejabberd)
        assert ids(events, bob) == set(await archived(ejabberd, bob))


@pytest.mark.parametrize("preloaded", [True, False])
async def test_a_room_tells_what_it_had_archived(tmp_path: Path, preloaded: bool) -> None:
    modules = {"mod_muc": {"preload_rooms": preloaded}}
    async with ejabberd_of_its_own(tmp_path, modules=modules) as ejabberd:
        cast = Cast(ejabberd, await ejabberd.rooms())
        await cast.arrive()
        await enter(cast.ann, cast.room, "Ann")
        await configure(cast.ann, cast.room, members_only=True)
        cast.say(cast.ann, "before")
        await cast.ann.wait_for(lambda e: e.findtext(BODY) == "before", past=True)
        cast.ann.message(cast.room, deadly("room", "on the edge"), kind="groupchat")
        await killed(ejabberd)
        async with asyncio.timeout(SECONDS):
            while not (events := await edge(ejabberd)):  # noqa: ASYNC110 - only the feed tells
                await asyncio.sleep(0.1)
        assert ids(events, cast.room) == set(await archived(ejabberd, cast.room, ROOMS))
        (late,) = [e for e in events if e.body == "on the edge"]
        assert late.element.get("author") == cast.accounts["ann"]
        assert late.element.get("private") == "true"
        assert late.element.get("at") == late.element.get("archive-id")
        assert [e.body for e in events].count("before") == 1
        place = [e.kind for e in events if e.stream == late.stream]
        assert place[0] == "room-members"  # a listing comes before


async def edge(ejabberd: Ejabberd) -> list[Event]:
    events = await told(ejabberd, ROOMS)
    return events if "on the edge" in [e.body for e in events] else []
