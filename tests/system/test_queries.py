"""What clients ask and set, over the wire of a whole sandbox: lists, deltas, pages, properties, notices, refusals.

What must hold against everybody: a query sees what came before it (invariant 11), a user reaches only the own account
(invariant 8), and nothing that a client can send stops the component.
"""

import random
import xml.etree.ElementTree as ET

import pytest

from tests.system.asking import refused
from tests.system.box import Box, eventually
from tests.system.person import CHAT, REWRITE, RSM, SYNC, Person, name

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
    for own in (ann.account, ann.account.upper()):
        mine = await ann.iq("get", f"<query xmlns='{SYNC}'/>", to=own)
        assert "secret" in ET.tostring(mine, encoding="unicode")


async def test_what_nobody_knows_is_refused_clearly(box: Box) -> None:
    ann = await box.person()
    component = box.ready["component"]
    await refused(ann.iq("get", f"<nothing xmlns='{SYNC}'/>"), "service-unavailable", "bad-request")
    await refused(ann.iq("set", "<nothing xmlns='urn:xmpp:push:0'/>"), "service-unavailable", "bad-request")
    await refused(ann.iq("get", "<query xmlns='urn:example:unknown'/>", to=component), "service-unavailable")
    await refused(ann.command("make-coffee", {}, to=component), "bad-request", "item-not-found")
    await refused(ann.iq("get", f"<query xmlns='{SYNC}'/>", to=component), "service-unavailable")
