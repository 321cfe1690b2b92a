"""What nobody should send: no message and no request stops the component, and each gets a clear answer."""

import asyncio

import pytest

from tests.system.asking import is_set
from tests.system.box import Box, eventually
from tests.system.person import CHAT, JMI, STORE, SYNC, form
from tests.system.xmpp_client import StanzaError, StreamClosed

LONG = "x" * 100_000
DEEP = "<a xmlns='urn:example:deep'>" * 3000 + "</a>" * 3000
CHILD, EMPTY_FORM = "<a xmlns='urn:example:a'/>", "<x xmlns='jabber:x:data' type='submit'/>"
MESSAGES = {
    "an id of 100 kB": f"<message to='{{to}}' type='chat' id='{LONG}'><body>long id</body></message>",
    "an origin-id of 100 kB": "<message to='{to}' type='chat' id='o'><body>x</body>"
    f"<origin-id xmlns='urn:xmpp:sid:0' id='{LONG}'/></message>",
    "a body of 100 kB": f"<message to='{{to}}' type='chat' id='b'><body>{LONG}</body></message>",
    "deep nesting": f"<message to='{{to}}' type='chat' id='d'><body>deep</body>{DEEP}</message>",
    "a call id of 100 kB": "<message to='{to}' type='chat' id='c'>"
    f"<propose xmlns='{JMI}' id='{LONG}'/>{STORE}</message>",
    "a call without id": f"<message to='{{to}}' type='chat' id='c'><propose xmlns='{JMI}'/>{STORE}</message>",
    "markers without ids": "<message to='{to}' type='chat' id='m'><displayed xmlns='urn:xmpp:chat-markers:0'/>"
    f"{STORE}</message>",
    "a correction of nothing": "<message to='{to}' type='chat' id='r'><body>y</body>"
    "<replace xmlns='urn:xmpp:message-correct:0' id='never'/></message>",
    "a retraction of nothing": "<message to='{to}' type='chat' id='r'><retract xmlns='urn:xmpp:message-retract:1' "
    f"id='never'/>{STORE}</message>",
    "a false stanza-id": "<message to='{to}' type='chat' id='s'><body>z</body>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='{to}' id='forged'/></message>",
    "a wrong namespace": "<message to='{to}' type='chat' id='w'><body xmlns='urn:example:other'>w</body></message>",
    "emoji and newlines": "<message to='{to}' type='chat' id='&#10;&#9;&#x1F600;'>"
    "<body>&#x1F600;&#13;&#10;</body></message>",
    "a thousand children": "<message to='{to}' type='chat' id='k'><body>k</body>" + CHILD * 1000 + "</message>",
    "a feed of one's own": "<message to='{to}' type='chat' id='f'><body>f</body>"
    "<feed xmlns='urn:convsync:feed:0' stream='s' shard='0' last='1' head='1'/></message>",
    "to the component": "<message to='sync.localhost' type='chat' id='t'><feed xmlns='urn:convsync:feed:0' stream='s' "
    "shard='0' last='1' head='1'><event n='1'/></feed><started xmlns='urn:convsync:feed:0'/></message>",
}


@pytest.mark.parametrize("what", MESSAGES)
async def test_no_message_stops_the_component(what: str, box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    pid = box.pid("component")
    bob.send(MESSAGES[what].replace("{to}", ann.account))
    bob.send(" " * 200_000)  # a parser may wait for as much again before it looks at a long token
    bob.write(ann.account, "and after it")
    await bob.ping()

    async def arrived() -> bool:
        item = (await ann.sync()).of(bob.account)
        return item is not None and item.body == "and after it"

    await eventually(arrived)
    assert box.pid("component") == pid
    assert await box.sql("SELECT why FROM quarantine WHERE account = ANY ($1)", [ann.account, bob.account]) == []


async def test_large_last_messages_stop_nobody(box: Box) -> None:
    """A server ends the connection of a component whose stanza is larger than it takes."""
    ann = await box.person()
    pid, writers = box.pid("component"), [await box.person() for _ in range(4)]
    for writer in writers:
        writer.write(ann.account, LONG * 2)
        await writer.ping()
    writers[0].write(ann.account, "and a short one")
    await writers[0].ping()
    other = await box.person(ann.account, "other")
    listing = await ann.sync()
    assert sorted((item.unread, item.body) for item in listing.items) == [(1, None)] * 3 + [(2, "and a short one")]
    await ann.set(writers[1].account, pinned="5")
    await other.wait_for(is_set, past=True)
    assert (await ann.sync(listing.stamp)).jids == [writers[1].account]
    assert box.pid("component") == pid


REQUESTS = {
    "an id of 100 kB": ("get", f"<query xmlns='{SYNC}' stamp='0' id='{LONG}'/>"),
    "a jid of 100 kB": ("set", f"<query xmlns='{SYNC}'><conversation jid='{LONG}' type='{CHAT}' pinned='1'/></query>"),
    "deep nesting": ("get", f"<query xmlns='{SYNC}'>{DEEP}</query>"),
    "many conversations": (
        "set",
        f"<query xmlns='{SYNC}'>" + f"<conversation jid='a@b' type='{CHAT}' pinned='1'/>" * 500 + "</query>",
    ),
    "an unknown field": ("get", f"<query xmlns='{SYNC}'>{form({'no': '1'})}</query>"),
    "no value": ("get", f"<query xmlns='{SYNC}'>{form({'pinned_first': []})}</query>"),
    "two forms": ("get", f"<query xmlns='{SYNC}'>{EMPTY_FORM * 2}</query>"),
    "an empty enable": ("set", "<enable xmlns='urn:xmpp:push:0'/>"),
    "a node of 100 kB": ("set", f"<enable xmlns='urn:xmpp:push:0' jid='sync.localhost' node='{LONG}'/>"),
    "a disable of nothing": ("set", "<disable xmlns='urn:xmpp:push:0' jid='sync.localhost' node='none'/>"),
    "an unknown type": ("set", f"<query xmlns='{SYNC}'><conversation jid='a@b' type='urn:x' pinned='1'/></query>"),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_every_request_gets_a_clear_answer(what: str, box: Box) -> None:
    ann = await box.person()
    pid = box.pid("component")
    kind, payload = REQUESTS[what]
    asked = asyncio.ensure_future(ann.iq(kind, payload))
    await asyncio.sleep(0)
    ann.send(" " * 2 * len(payload))
    (outcome,) = await asyncio.gather(asked, return_exceptions=True)
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, StanzaError)
        assert outcome.condition in ("bad-request", "item-not-found", "not-acceptable", "policy-violation")
    assert (await ann.sync()).items == []
    assert box.pid("component") == pid


async def test_what_is_no_xml_costs_only_its_own_sender(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    for bad in ("<message><body>\x01</body></message>", "<message><a:b/></message>", "<message></iq>"):
        eve = await box.person()
        eve.send(bad.replace("<message>", f"<message to='{ann.account}' type='chat'>"))
        with pytest.raises(StreamClosed):
            await eve.wait_for(lambda _: False)
    bob.write(ann.account, "still here")
    await bob.ping()
    assert [item.body for item in (await ann.sync()).items] == ["still here"]
