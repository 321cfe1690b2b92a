"""What clients ask and set, over the wire of a whole sandbox: lists, deltas, pages, properties, notices, refusals.

What must hold against everybody: a query sees what came before it (invariant 11), a user reaches only the own account
(invariant 8), and nothing that a client can send stops the component.
"""

import asyncio
import random
import signal
import xml.etree.ElementTree as ET

import pytest

from tests.system.box import Box, eventually
from tests.system.person import CHAT, JMI, REWRITE, RSM, STORE, SYNC, Person, form, name
from tests.system.xmpp_client import StanzaError, StreamClosed


async def refused(asked: object, *conditions: str) -> None:
    with pytest.raises(StanzaError) as caught:
        await asked  # type: ignore[misc]
    assert caught.value.condition in conditions, caught.value


def is_set(element: ET.Element) -> bool:
    return name(element) == "iq" and element.get("type") == "set" and element[0].tag == f"{{{SYNC}}}query"


def notices(person: Person) -> list[ET.Element]:
    """Live notices that this session was sent."""
    return [element for element in person.received if is_set(element)]


# ---- lists and deltas ------------------------------------------------------------------------------------------------


async def test_a_delta_has_what_changed_and_nothing_else(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    bob.write(ann.account, "one")
    carl.write(ann.account, "two")
    await bob.ping()
    await carl.ping()
    full = await ann.sync()
    assert {item.jid: (item.unread, item.body) for item in full.items} == {
        bob.account: (1, "one"),
        carl.account: (1, "two"),
    }
    assert (await ann.sync(full.stamp)).items == []
    bob.write(ann.account, "three")
    await bob.ping()
    delta = await ann.sync(full.stamp)
    assert [(item.jid, item.unread, item.body) for item in delta.items] == [(bob.account, 2, "three")]
    assert delta.stamp > full.stamp


async def test_an_account_without_conversations_has_an_empty_list(box: Box) -> None:
    ann = await box.person()
    listing = await ann.sync()
    assert (listing.items, listing.count) == ([], 0)
    assert (await ann.sync(listing.stamp, most=5)).items == []


@pytest.mark.parametrize("direction", ["forwards", "backwards", "either"])
@pytest.mark.parametrize("most", [1, 3])
async def test_pages_and_deltas_together_are_the_truth_while_somebody_writes(
    most: int, direction: str, box: Box
) -> None:
    ann = await box.person()
    ways = {"forwards": [ann.pages], "backwards": [ann.pages_backwards], "either": [ann.pages, ann.pages_backwards]}
    writers = [await box.person() for _ in range(6)]
    for writer in writers:
        writer.write(ann.account, "hello")
        await writer.ping()
    seen, dice, number = {}, random.Random(most), 0  # noqa: S311

    def write() -> None:
        nonlocal number
        number += 1
        dice.choice(writers).write(ann.account, f"note {number}")

    stamp: int | None = None
    for turn in range(8):
        read = ways[direction][turn % len(ways[direction])]
        stamp, found = await read(stamp, most, between=write)
        seen |= found
    for writer in writers:
        await writer.ping()
    _, found = await ann.pages(stamp, most)
    seen |= found
    truth = {item.jid: item.seen for item in (await ann.sync()).items}
    assert len(truth) == 6
    assert {jid: item.seen for jid, item in seen.items()} == truth


@pytest.mark.one_server
async def test_a_page_ends_right_in_front_of_its_place(box: Box) -> None:
    ann = await box.person()
    for number in range(5):
        writer = await box.person()
        writer.write(ann.account, f"number {number}")
        await writer.ping()
    whole = (await ann.sync()).jids
    page = await ann.sync(most=2, before="")
    assert (page.jids, page.count) == (whole[3:], 5)
    above = await ann.sync(most=2, before=page.first)
    assert (above.jids, above.count, above.stamp) == (whole[1:3], 5, page.stamp)
    assert (await ann.sync(most=2, before=above.first)).jids == whole[:1]
    assert (await ann.sync(most=2, after=above.last)).jids == page.jids  # there and back
    assert (await ann.sync(before=page.first)).jids == whole[:3]
    assert ((await ann.sync(most=0, before="")).jids, (await ann.sync(most=9, before="")).jids) == ([], whole)


async def test_count_only(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    listing = await ann.sync(most=0)
    assert (listing.items, listing.count) == ([], 1)


async def test_a_stamp_from_the_future_or_too_old_gets_everything_with_tombstones(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    bob.write(ann.account, "one")
    carl.write(ann.account, "two")
    await bob.ping()
    await carl.ping()
    await eventually(lambda: both(ann))
    await ann.set(carl.account, status="deleted")
    for stamp in (2**62, 1):
        listing = await ann.sync(stamp)
        assert {item.jid: item.status for item in listing.items} == {bob.account: "active", carl.account: "deleted"}
    assert (await ann.sync(0)).jids == (await ann.sync("")).jids == [bob.account]


async def both(person: Person) -> bool:
    return len((await person.sync()).items) == 2


BAD_STAMPS = ["abc", "-1", "1.5", "9" * 30, "9" * 5000, "1e3", " 1", "٣", "0x10", str(2**63)]


@pytest.mark.one_server
@pytest.mark.parametrize("stamp", BAD_STAMPS, ids=lambda stamp: str(stamp)[:8])
async def test_a_stamp_that_is_no_number(stamp: str, box: Box) -> None:
    ann = await box.person()
    await refused(ann.sync(stamp), "bad-request")


BAD_SETS = {
    "max is no number": ("<max>many</max>", ("bad-request",)),
    "negative": ("<max>-1</max>", ("bad-request",)),
    "huge": (f"<max>{'9' * 40}</max>", ("bad-request",)),
    "twice": ("<max>1</max><max>2</max>", ("bad-request",)),
    "a cursor that is none": ("<max>1</max><after>nowhere</after>", ("item-not-found",)),
    "a cursor of 4 kB": (f"<max>1</max><after>{'A' * 4000}</after>", ("item-not-found",)),
    "a cursor that is none, backwards": ("<max>1</max><before>nowhere</before>", ("item-not-found",)),
    "both ways": ("<max>1</max><before/><after/>", ("bad-request",)),
    "by index": ("<max>1</max><index>3</index>", ("feature-not-implemented",)),
}


@pytest.mark.one_server
@pytest.mark.parametrize("what", BAD_SETS)
async def test_malformed_result_sets(what: str, box: Box) -> None:
    ann = await box.person()
    inner, conditions = BAD_SETS[what]
    await refused(ann.sync(inner=f"<set xmlns='{RSM}'>{inner}</set>"), *conditions)


@pytest.mark.one_server
async def test_a_cursor_belongs_to_its_account(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    ann.write(bob.account, "two")
    await bob.ping()
    await ann.ping()
    cursor = (await ann.sync(most=1)).last
    assert cursor
    await refused(bob.sync(most=1, after=cursor), "item-not-found")


# ---- properties ------------------------------------------------------------------------------------------------------

PROPERTIES = {
    "pinned": ({"pinned": "1763600000000"}, lambda item: item.pinned == "1763600000000"),
    "unpinned": ({"pinned": "0"}, lambda item: item.pinned == "0"),
    "muted for ever": ({"mute": "0"}, lambda item: int(item.mute) > 2**33),
    "muted a while": ({"mute": "3600"}, lambda item: item.mute is not None),
    "unmuted": ({"mute": ""}, lambda item: item.mute is None),
    "archived": ({"status": "archived"}, lambda item: item.status == "archived"),
    "several": ({"status": "archived", "pinned": "7"}, lambda item: (item.status, item.pinned) == ("archived", "7")),
}


@pytest.mark.one_server
@pytest.mark.parametrize("what", PROPERTIES)
async def test_a_property_is_set_and_the_other_resource_is_told(what: str, box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    other = await box.person(ann.account, "other")
    asleep = await box.person(ann.account, "asleep", presence=False)
    bob.write(ann.account, "one")
    await bob.ping()
    stamp = (await ann.sync()).stamp
    properties, holds = PROPERTIES[what]
    if what.startswith("un"):
        await ann.set(bob.account, pinned="5", mute="0")
        await other.wait_for(is_set, past=True)
        other.received.clear()
    await ann.set(bob.account, **properties)
    told = await other.wait_for(is_set, past=True)
    assert told.get("from") == ann.account
    (item,) = told[0]
    assert item.get("jid") == bob.account
    delta = await ann.sync(stamp)
    assert holds(delta.items[0])
    assert told[0].get("stamp") == str(delta.stamp)
    assert notices(ann) == notices(asleep) == []


async def test_deleted_is_a_tombstone_in_the_delta_and_comes_back_where_it_was_read(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    last = ""
    for text in ("one", "two"):
        last = bob.write(ann.account, text)
    await bob.ping()
    ann.displayed(bob.account, last)
    await ann.ping()
    read = (await ann.sync()).items[0]
    assert read.unread == 0
    stamp = (await ann.sync()).stamp
    await ann.set(bob.account, status="deleted")
    assert (await ann.sync()).items == []
    delta = await ann.sync(stamp)
    assert [(item.jid, item.status, item.unread) for item in delta.items] == [(bob.account, "deleted", None)]
    await refused(ann.set(bob.account, pinned="1"), "item-not-found")
    bob.write(ann.account, "three")
    await bob.ping()
    (back,) = (await ann.sync(delta.stamp)).items
    assert (back.status, back.unread, back.read_to, back.body) == ("active", 1, read.read_to, "three")


@pytest.mark.one_server
async def test_what_cannot_be_set(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    await ann.sync()
    await refused(ann.set("nobody@localhost", pinned="1"), "item-not-found")
    await refused(ann.set(bob.account), "bad-request")
    for bad in ({"pinned": "-1"}, {"pinned": "x"}, {"mute": "-5"}, {"mute": "9" * 50}, {"status": "gone"}):
        await refused(ann.set(bob.account, **bad), "bad-request")
    # All or nothing.
    await refused(ann.set(bob.account, pinned="5", status="gone"), "bad-request")
    assert (await ann.sync()).items[0].pinned == "0"


# ---- calls and rewrites ----------------------------------------------------------------------------------------------


async def test_a_ringing_call_comes_first_and_goes(box: Box) -> None:
    ann, bob, carl, dora = await box.friends("a", "b", "c", "d")
    bob.call("propose", ann.account, "ring-1")
    await bob.ping()
    for one in (carl, dora):
        one.write(ann.account, "later than the call")
        await one.ping()
    await ann.set(dora.account, pinned="9")
    first = await ann.sync(most=1)
    assert (first.jids, first.calls) == ([bob.account], ["ring-1"])
    bob.call("retract", ann.account, "ring-1")
    await bob.ping()
    delta = await ann.sync(first.stamp)
    assert delta.calls == []
    assert bob.account in delta.jids


async def test_edits_and_retractions_are_told_until_they_are_too_many(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    first, second = bob.write(ann.account, "fisrt"), bob.write(ann.account, "oops")
    await bob.ping()
    before = (await ann.sync()).stamp
    bob.correct(ann.account, first, "first")
    bob.retract(ann.account, second)
    await bob.ping()
    told, version = await ann.rewrites(before)
    assert [name(event) for event in told] == ["replace", "retract-message"]
    assert told[0].findtext(f"{{{REWRITE}#notify}}message/{{{REWRITE}#notify}}body") == "first"
    assert [int(event.get("version", "")) for event in told] == sorted(int(e.get("version", "")) for e in told)
    assert version >= int(told[-1].get("version", ""))
    assert (await ann.rewrites(version))[0] == []
    for nobodys in (1, 2**62):  # before the account began, and of a future that is lost
        told, _ = await ann.rewrites(nobodys)
        assert [(name(event), event.get("conversation")) for event in told] == [("invalidate", bob.account)]
    for number in range(51):
        bob.correct(ann.account, first, f"edit {number}")
    await bob.ping()
    told, _ = await ann.rewrites(version)
    assert [(name(event), event.get("conversation")) for event in told] == [("invalidate", bob.account)]
    item = (await ann.sync()).of(bob.account)
    assert item
    assert (item.retracted, item.unread) == (True, 1)


async def test_rewriting_by_iq_is_not_offered(box: Box) -> None:
    ann = await box.person()
    await refused(
        ann.iq("set", f"<retract-message xmlns='{REWRITE}' id='1' conversation='bob@localhost' type='{CHAT}'/>"),
        "feature-not-implemented",
    )
    await refused(ann.rewrites("x"), "bad-request")  # type: ignore[arg-type]


# ---- only the own account, only what is known ------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["bare", "upper", "host"])
async def test_another_account_cannot_be_asked(address: str, box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "secret")
    await bob.ping()
    addresses = {"bare": ann.account, "upper": ann.account.upper(), "host": "localhost"}
    to = addresses[address]
    for kind, payload in (
        ("get", f"<query xmlns='{SYNC}'/>"),
        ("set", f"<query xmlns='{SYNC}'><conversation jid='{bob.account}' type='{CHAT}' pinned='1'/></query>"),
        ("get", f"<query xmlns='{REWRITE}' version='0'/>"),
        ("set", "<enable xmlns='urn:xmpp:push:0' jid='sync.localhost' node='x'/>"),
    ):
        # The host itself serves none of this, and says so.
        others = () if address != "host" else ("service-unavailable", "feature-not-implemented", "bad-request")
        await refused(bob.iq(kind, payload, to=to), "forbidden", *others)
    assert (await ann.sync()).items[0].pinned == "0"
    mine = await ann.iq("get", f"<query xmlns='{SYNC}'/>", to=ann.account)
    assert "secret" in ET.tostring(mine, encoding="unicode")


async def test_what_nobody_knows_is_refused_clearly(box: Box) -> None:
    ann = await box.person()
    component = box.ready["component"]
    await refused(ann.iq("get", f"<nothing xmlns='{SYNC}'/>"), "service-unavailable", "bad-request")
    await refused(ann.iq("set", "<nothing xmlns='urn:xmpp:push:0'/>"), "service-unavailable", "bad-request")
    await refused(ann.iq("get", "<query xmlns='urn:example:unknown'/>", to=component), "service-unavailable")
    await refused(ann.command("make-coffee", {}, to=component), "bad-request", "item-not-found")
    await refused(ann.iq("get", f"<query xmlns='{SYNC}'/>", to=component), "service-unavailable")


# ---- what nobody should send -----------------------------------------------------------------------------------------

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


# ---- freshness -------------------------------------------------------------------------------------------------------


async def test_what_the_server_has_taken_is_in_the_next_answer(box: Box) -> None:
    ann, bob = await box.friends("a", "b", sm=True)
    stamp: int | None = None
    for number in range(150):
        sent = bob.write(ann.account, f"number {number}")
        assert sent in await bob.acked()
        listing = await ann.sync(stamp if number % 3 else None)
        stamp = listing.stamp
        item = listing.of(bob.account)
        assert item is not None
        assert item.body == f"number {number}"
        assert item.unread == number + 1


async def test_a_component_that_hangs_answers_late_and_misses_nothing(box: Box) -> None:
    ann, bob = await box.friends("a", "b", sm=True)
    for number in range(3):
        box.signal("component", signal.SIGSTOP)
        try:
            for _ in range(20):
                bob.write(ann.account, f"number {number}")
            await bob.acked()
            asked = asyncio.ensure_future(ann.sync())
            await ann.ping()  # the question has reached the server: it is behind what was written
        finally:
            box.signal("component", signal.SIGCONT)
        item = (await asked).of(bob.account)
        assert item is not None
        assert (item.body, item.unread) == (f"number {number}", 20 * (number + 1))


async def test_sync_then_online_then_sync_misses_nothing(box: Box) -> None:
    bob = await box.person(sm=True)
    ann = await box.person()
    await ann.befriend(bob)
    for number in range(15):
        phone = await box.person(ann.account, f"phone{number}", presence=False)
        early = bob.write(ann.account, f"early {number}")
        stamp = (await phone.sync()).stamp
        late = [bob.write(ann.account, f"late {number}")]
        await phone.available()
        late.append(bob.write(ann.account, f"later {number}"))
        assert {early, *late} <= await bob.acked()
        listing = await phone.sync(stamp)
        assert [item.body for item in listing.items] == [f"later {number}"]
        await phone.close()
