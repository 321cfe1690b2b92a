"""Two nodes of ejabberd and one feed: whichever node dies, no event is lost and the component hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from tests.system.ejabberd_server import SECONDS, UNHURRIED, Constants, Ejabberd, epmd_of_its_own
from tests.system.prosody_server import COMPONENT, DOMAIN, ROOMS, SECRET
from tests.system.room_client import configure, enter
from tests.system.test_ejabberd_queries import SLOW, Delegate, ask, shown
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FEED, FeedComponent, states

BODY = "{jabber:client}body"
SESSIONS = "<sessions xmlns='urn:convsync:feed:0'/>"


@asynccontextmanager
async def cluster(folder: Path, constants: Constants = UNHURRIED) -> AsyncIterator[tuple[Ejabberd, Ejabberd]]:
    """The first owns the feed; the second has joined. Both know the same accounts."""
    with epmd_of_its_own() as epmd:
        names = ("one", "two")
        one, two = (Ejabberd(folder / n, node=f"{n}@localhost", epmd=epmd, constants=constants) for n in names)
        try:
            await one.start()
            await two.start()
            assert two.call("ejabberd_cluster", "join", f"['{one.node}']") == "ok"
            await two.up()
            assert owner(one, two) == one.node
            yield one, two
        finally:
            one.kill()
            two.kill()


@pytest_asyncio.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Ejabberd, Ejabberd]]:
    async with cluster(tmp_path) as both:
        yield both


def owner(*alive: Ejabberd) -> str:
    """The node whose process numbers the events of the users' host, as all see it."""
    (found,) = {server.call("mod_convsync_feed_host", "owner", f'[<<"{DOMAIN}">>]') for server in alive}
    return found.strip("'")


async def test_events_of_both_nodes_come_in_one_stream(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    feed = await two.component()  # not where the feed is written
    await feed.subscribe()
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    for i in range(10):
        ann.chat(bob.account, f"from one {i}")
        bob.chat(ann.account, f"from two {i}")
    for client, word in ((ann, "two"), (bob, "one")):
        await client.wait_for(lambda e, w=word: e.findtext(BODY) == f"from {w} 9", past=True)
    await feed.message("from one 9")
    event = await feed.message("from two 9")
    assert states(event) == {"a": "active"}
    messages = [e for e in feed.events if e.kind == "message"]
    assert len(messages) == 40
    assert {e.stream for e in messages} == {feed.current}
    listed = {s.get("jid") for s in await feed.ask("get", SESSIONS)}
    assert {ann.jid, bob.jid} <= listed
    note = f"<message xmlns='jabber:client' type='headline' id='n1' from='u1@{DOMAIN}'><body>note</body></message>"
    assert await feed.deliver(ann.account, note, "a") == 1  # a session of the other node
    await ann.wait_for(lambda e: e.get("id") == "n1", past=True)


async def test_a_request_sees_what_a_session_on_the_other_node_was_handed(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    component = await Delegate.connect(COMPONENT, SECRET, two.component_port, host=DOMAIN)
    await component.subscribe()
    there, here = await one.client(f"u1@{DOMAIN}/z"), await two.client(f"u1@{DOMAIN}/a")  # the first one tells
    for peer, text in (
        (await one.client(f"u2@{DOMAIN}/b"), "from there"),
        (await two.client(f"u3@{DOMAIN}/b"), "from here"),
    ):
        peer.message(here.account, f"<body>{text}</body>{SLOW}")
        await shown(here, text)
        assert f"in {text}" in await ask(here, f"about what comes {text}")
    asked = asyncio.ensure_future(ask(here, "while the other node dies"))
    one.kill()
    await asked
    await there.cut()


async def test_when_the_owner_dies_the_other_sends_what_was_not_acked(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    feed = await two.component()
    await feed.subscribe()
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    for i in range(20):
        ann.chat(bob.account, f"kept {i}")
    await feed.message("kept 19")
    await feed.message("kept 19", "out")
    old, known = feed.current, [(e.n, e.what) for e in feed.events]
    feed.ack(old, 5)
    await feed.caught_up()
    one.kill()
    bob.chat(f"u3@{DOMAIN}", "after the death")
    await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
    feed.events.clear()
    hello = await feed.subscribe({old: 5})
    await feed.message("after the death")
    assert hello.find(f"{FEED}regressed") is None
    assert feed.streams()[0] == (old, 6, known[-1][0], 5)
    assert feed.current != old
    assert [(e.n, e.what) for e in feed.events if e.stream == old] == known[5:]
    assert not [e for e in feed.events if e.kind == "gap"]
    assert {s.get("jid") for s in hello.iter(f"{FEED}session")} == {bob.jid}
    await one.start()  # it comes back, and takes part
    again = await one.client(f"u1@{DOMAIN}/again")
    again.chat(bob.account, "back")
    await feed.message("back")
    assert owner(one, two) == two.node


async def test_when_another_node_dies_the_component_asks_who_is_left(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    feed = await one.component()
    await feed.subscribe()
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    ann.chat(bob.account, "here")
    await feed.message("here")
    stream = feed.current
    two.kill()
    await feed.wait_for(lambda e: e.find(f"{FEED}started") is not None, past=True)
    feed.events.clear()
    hello = await feed.subscribe({})
    assert {s.get("jid") for s in hello.iter(f"{FEED}session")} == {ann.jid}
    ann.chat(bob.account, "gone")
    assert (await feed.message("gone")).stream == stream == feed.current


async def test_rooms_have_one_feed_too(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    rooms: FeedComponent = await one.component(ROOMS)
    await rooms.subscribe()
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    room = f"tea@{ROOMS}"
    await enter(bob, room, "Bob")  # the room's process is on the second node
    await configure(bob, room)
    await enter(ann, room, "Ann")
    ann.message(room, "<body>hello</body>", kind="groupchat")
    said = await rooms.event(lambda e: e.body == "hello")
    assert said.element.get("author") == ann.account


def askers(owner: Ejabberd) -> int:
    """How many have asked the process that numbers the events on this node, and have had no answer."""
    process = f'whereis(mod_convsync_feed_host:local(<<"{DOMAIN}">>))'
    waiting = f"element(2, process_info({process}, messages))"
    return int(owner.call("erlang", "apply", f"[fun() -> length([1 || {{'$gen_call', _, _}} <- {waiting}]) end, []]"))


async def goes_by(ann: XmppClient, bob: XmppClient, text: str) -> None:
    """A message gets through, and both sessions have done with it."""
    ann.chat(bob.account, text)
    await bob.wait_for(lambda e: e.findtext(BODY) == text, past=True, timeout=SECONDS)
    for client in (ann, bob):
        await client.ping()


async def test_an_owner_that_hangs_holds_up_nobody_and_is_a_gap(tmp_path: Path) -> None:
    """Who has waited in vain gives it up, and for some seconds nobody asks it."""
    async with cluster(tmp_path, {}) as (one, two):
        await an_owner_hangs(one, two)


async def an_owner_hangs(one: Ejabberd, two: Ejabberd) -> None:
    feed = await two.component()
    await feed.subscribe()
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    await feed.event(lambda e: e.element.get("state") == "available" and e.element.get("account") == bob.account)
    name = f'{{global, {{mod_convsync_feed_host, <<"{DOMAIN}">>}}}}'
    assert two.call("sys", "suspend", f"[{name}]") == "ok"
    await goes_by(ann, bob, "first")  # waits a while, on both sides
    asked = [askers(one)]
    assert asked[0] > 0
    for number in range(5):  # on a slow machine the seconds may be over: then they are waited for, and begin anew
        await goes_by(ann, bob, f"next {number}")
        asked.append(askers(one))
        if asked[-1] == asked[-2]:
            break
    assert asked[-1] == asked[-2], asked
    assert two.call("sys", "resume", f"[{name}]") == "ok"
    async with asyncio.timeout(SECONDS):
        while not [e for e in feed.events if e.kind == "gap"]:
            ann.chat(bob.account, "later")
            await asyncio.sleep(0.2)  # the time for which nobody waits has to pass
    assert await one.logged("An event of localhost was lost")


async def test_a_node_that_leaves_in_order_hands_over_what_it_has(nodes: tuple[Ejabberd, Ejabberd]) -> None:
    one, two = nodes
    ann, bob = await one.client(f"u1@{DOMAIN}/a"), await two.client(f"u2@{DOMAIN}/b")
    for i in range(5):
        ann.chat(bob.account, f"kept {i}")
    await bob.wait_for(lambda e: e.findtext(BODY) == "kept 4", past=True)
    await asyncio.to_thread(one.stop)
    feed = await two.component()
    await feed.subscribe()
    bob.chat(f"u3@{DOMAIN}", "alone")
    await feed.message("alone", "out")
    for account, direction in ((ann.account, "out"), (bob.account, "in")):
        said = [e.body for e in feed.events if e.body and e.what[:2] == (account.partition("@")[0], direction)]
        assert said == [f"kept {i}" for i in range(5)]
    assert not [e for e in feed.events if e.kind == "gap"]


async def test_what_a_node_misses_without_the_module_is_a_gap_though_another_goes_on(
    nodes: tuple[Ejabberd, Ejabberd],
) -> None:
    one, two = nodes
    feed = await one.component()
    await feed.subscribe()
    module = f'[<<"{DOMAIN}">>, mod_convsync_feed]'
    assert two.call("gen_mod", "stop_module_keep_config", module) == "ok"
    bob = await two.client(f"u2@{DOMAIN}/b")
    bob.chat(f"u3@{DOMAIN}", "nobody looks")
    await bob.ping()
    assert "ok" in two.call("gen_mod", "start_module", module)
    assert owner(one, two) == one.node
    for i in range(100):
        bob.chat(f"u3@{DOMAIN}", f"again {i}")
        await feed.message(f"again {i}")
        if any(e.kind == "gap" for e in feed.events):
            break
    gap = next(e for e in feed.events if e.kind == "gap")
    assert gap.element.get("reason") == "unloaded"
