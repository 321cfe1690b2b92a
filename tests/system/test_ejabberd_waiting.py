"""Who waits for the outbox under a real ejabberd: a message within the host goes on while its sender's event is being
written; its sender is told nothing, and its recipient shown nothing, before the disk has both.
"""

import asyncio
import xml.etree.ElementTree as ET

import pytest

from tests.system.ejabberd_server import SECONDS, Ejabberd
from tests.system.xmpp_client import CLIENT, SM, XmppClient
from tests.system.xmpp_component import FeedComponent

pytest_plugins = ("tests.system.ejabberd_feed",)


def is_ack(element: ET.Element) -> bool:
    return element.tag == f"{{{SM}}}a"


async def standing(ejabberd: Ejabberd, admin: XmppClient) -> None:
    await ejabberd.control(admin, "suspend-owner")


@pytest.mark.parametrize("to", ["here", "elsewhere"])
async def test_a_message_is_not_acknowledged_before_its_event_is_written(
    ejabberd: Ejabberd, feed: FeedComponent, to: str
) -> None:
    admin = await ejabberd.client(f"{ejabberd.name()}/admin")
    account = ejabberd.name()
    one = await ejabberd.client(f"{account}/a", sm=True)
    also = await ejabberd.client(f"{account}/b", carbons=True)
    other = await ejabberd.client(f"{ejabberd.name()}/b")
    one.received.clear()
    await standing(ejabberd, admin)
    try:
        for i in range(3):
            one.chat(other.account if to == "here" else "friend@elsewhere.example", f"{to} {i}")
        one.send(f"<r xmlns='{SM}'/>")
        # Carbons are for nobody's outbox to hold up: the session has come so far.
        last = f"{to} 2" if to == "here" else f"{to} 0"
        await also.wait_for(lambda e: any(body.text == last for body in e.iter(f"{CLIENT}body")), past=True)
        for _ in range(20):
            await admin.ping()
        assert not any(map(is_ack, one.received))
        assert not any(e.findtext(f"{CLIENT}body") == "here 0" for e in other.received)
        assert not [e for e in feed.events if e.kind == "message"]
    finally:
        await ejabberd.control(admin, "resume-owner")
    await one.wait_for(is_ack, past=True)
    await feed.caught_up()
    out = [e.body for e in feed.events if e.kind == "message" and e.element.get("direction") == "out"]
    assert out == [f"{to} {i}" for i in range(3)]
    if to == "here":
        await other.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "here 2", past=True)
    for client in (admin, one, also, other):
        await client.close()


async def test_a_resumed_session_waits_for_its_events(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    admin = await ejabberd.client(f"{ejabberd.name()}/admin")
    account = ejabberd.name()
    one = await ejabberd.client(f"{account}/a", sm=True)
    also = await ejabberd.client(f"{account}/b", carbons=True)
    other = await ejabberd.client(f"{ejabberd.name()}/b")
    await standing(ejabberd, admin)
    try:
        one.chat(other.account, "just before")
        await also.wait_for(lambda e: any(body.text == "just before" for body in e.iter(f"{CLIENT}body")), past=True)
        again = asyncio.create_task(ejabberd.client(f"{account}/a", resume=one))
        for _ in range(20):
            await admin.ping()
        assert not again.done()
        assert not [e for e in feed.events if e.kind == "message"]
    finally:
        await ejabberd.control(admin, "resume-owner")
    resumed = await asyncio.wait_for(again, SECONDS)
    await feed.message("just before", "out")
    for client in (admin, also, other, resumed):
        await client.close()


async def test_events_on_their_way_to_an_owner_that_dies_are_written_by_the_next(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    admin = await ejabberd.client(f"{ejabberd.name()}/admin")
    one, other = [await ejabberd.client(f"{ejabberd.name()}/{r}") for r in ("a", "b")]
    await standing(ejabberd, admin)
    for i in range(5):
        one.chat(other.account, f"orphan {i}")
    for _ in range(20):
        await admin.ping()
    await ejabberd.control(admin, "kill-owner")
    await other.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "orphan 4", past=True)
    await one.ping()
    await feed.wait_for(lambda e: any(c.tag.endswith("}started") for c in e), past=True)
    ejabberd.told |= feed.ack_all()
    await feed.subscribe(ejabberd.told)
    for i in range(5):
        await feed.message(f"orphan {i}", "out")
        await feed.message(f"orphan {i}", "in")
    bodies = [e.body for e in feed.events if e.kind == "message" and e.element.get("direction") == "out"]
    assert list(dict.fromkeys(bodies)) == [f"orphan {i}" for i in range(5)]  # in order; one may be told twice
    assert not [e for e in feed.events if e.kind == "gap"]
    for client in (admin, one, other):
        await client.close()
