"""XEP-0430 over the wire of a whole sandbox: entries before the answer, results of the archive, counts, pages in both
directions while others write, refusals; and that it tells what Client Synchronization and our own dialect tell.
"""

import asyncio
import random
import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.system.asking import refused
from tests.system.box import Box
from tests.system.inbox import INBOX, inbox, whole
from tests.system.person import MAM, RSM, Person
from tests.system.room import Room, people
from tests.system.xmpp_client import CLIENT, StanzaError

DISCO = "http://jabber.org/protocol/disco#info"
OWN = "urn:convsync:0"
RETRACTED = "{urn:xmpp:message-retract:1}retracted"


async def correspondents(box: Box, number: int) -> tuple[Person, list[Person]]:
    """Somebody to whom so many have written, the first one first."""
    ann = await box.person()
    writers = [await box.person() for _ in range(number)]
    for index, writer in enumerate(writers):
        writer.write(ann.account, f"from {index}")
        await writer.ping()
    return ann, writers


async def many(box: Box, owner: Person, number: int, size: int) -> None:
    """So many conversations of which each last message has so many bytes."""
    await owner.fresh()
    body = "x" * size
    await box.sql(
        "INSERT INTO conversation (account, peer, kind, version, activity, status, last_rank, last_stanza, "
        "last_message_id, last_archive_id, last_sent_at) "
        "SELECT $1, 'n' || n || '@example.net', 'chat', a.version - n, a.version - n, 'active', n, "
        "'<message xmlns=\"jabber:client\" type=\"chat\"><body>' || $3::text || '</body></message>', 'm' || n, "
        "'a' || n, now() FROM account a, generate_series(1, $2) n WHERE a.jid = $1",
        owner.account,
        number,
        body,
    )


# ---- what is answered ------------------------------------------------------------------------------------------------


async def test_entries_newest_first_then_the_counts(box: Box) -> None:
    ann, (bob, carl, dora) = await correspondents(box, 3)
    bob.write(ann.account, "again")
    await bob.ping()
    page = await inbox(ann)
    assert [(e.jid, e.unread, e.body) for e in page.entries] == [
        (bob.account, 2, "again"),
        (dora.account, 1, "from 2"),
        (carl.account, 1, "from 1"),
    ]
    assert (page.total, page.unread, page.all_unread, page.count) == (3, 3, 4, 3)
    assert {(e.sender, e.to) for e in page.entries} == {(ann.account, ann.jid)}
    archive = {message.findtext(f"{CLIENT}body"): id_ for id_, message in await ann.archive()}
    for entry in page.entries:
        assert entry.result is not None
        assert entry.id == entry.result.get("id") == archive[entry.body]
        assert entry.stanza_ids == [(ann.account, entry.id)]


async def test_without_messages_and_only_unread(box: Box) -> None:
    ann, (bob, carl) = await correspondents(box, 2)
    read = carl.write(ann.account, "read this")
    await carl.ping()
    ann.displayed(carl.account, read)
    await ann.ping()
    page = await inbox(ann, "messages='false'")
    assert [(e.jid, e.unread, e.result) for e in page.entries] == [(carl.account, 0, None), (bob.account, 1, None)]
    assert all(e.id for e in page.entries)
    page = await inbox(ann, "unread-only='1' messages='0'")
    assert page.jids == [bob.account]
    assert (page.total, page.unread, page.all_unread, page.count) == (2, 1, 1, 1)
    assert (await inbox(ann, "unread-only='false' messages='true'")).entries[0].body == "read this"


async def test_an_account_without_conversations_has_an_empty_inbox(box: Box) -> None:
    ann = await box.person()
    page = await inbox(ann)
    assert (page.entries, page.total, page.unread, page.all_unread, page.count) == ([], 0, 0, 0, 0)
    assert (page.first, page.last) == (None, None)


async def test_only_the_session_that_asks_is_sent_anything(box: Box) -> None:
    ann, _ = await correspondents(box, 2)
    other = await box.person(ann.account, "other")
    asleep = await box.person(ann.account, "asleep", presence=False)
    assert len((await inbox(asleep)).entries) == 2  # before its first presence, as clients do that load a list first
    await inbox(ann)
    for session in (other, asleep):
        await session.ping()
    assert not any(e.find(f"{{{INBOX}}}entry") is not None for e in other.received)
    archived = [ET.tostring(message, encoding="unicode") for _, message in await ann.archive()]
    assert not any(INBOX in text for text in archived)


async def test_the_id_is_a_place_in_the_archive(box: Box) -> None:
    """XEP-0430 §5: the missing messages are those `with` the jid and `after` the id that was known."""
    ann, (bob,) = await correspondents(box, 1)
    sent = bob.write(ann.account, "tihs")
    await bob.ping()
    known = (await inbox(ann)).entries[0]
    bob.correct(ann.account, sent, "this")
    await bob.ping()
    now = (await inbox(ann)).entries[0]
    assert now.id != known.id
    assert now.result is not None
    assert (now.result.get("id"), now.body, now.unread) == (known.id, "this", known.unread)
    form = (
        f"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{MAM}</value></field>"
        f"<field var='with'><value>{bob.account}</value></field></x><set xmlns='{RSM}'><after>{known.id}</after></set>"
    )
    begin = len(ann.received)
    await ann.iq("set", f"<query xmlns='{MAM}'>{form}</query>")
    results = [e.find(f"{{{MAM}}}result") for e in ann.received[begin:]]
    assert [result.get("id") for result in results if result is not None] == [now.id]
    bob.retract(ann.account, sent)
    await bob.ping()
    gone = (await inbox(ann)).entries[0]
    assert gone.last is not None
    assert (gone.body, gone.last.find(RETRACTED) is not None, gone.unread) == (None, True, known.unread - 1)


async def test_a_room_and_a_private_message(box: Box) -> None:
    owner = await box.person()
    bob, carol = await people(box, 2)
    room = await Room.open(box, owner, private=True)
    await room.admit(bob, carol)
    first = await room.say(owner, "dinner is ready")
    page = await inbox(carol)
    (entry,) = page.entries
    assert (entry.jid, entry.unread, entry.body, entry.id) == (room.jid, 1, "dinner is ready", first)
    assert entry.stanza_ids == [(room.jid, first)]
    await room.enter(bob, "Bob")
    owner.write(f"{room.jid}/Bob", "between us")
    await bob.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "between us", past=True)  # by way of the room
    jids = (await inbox(bob)).jids
    assert set(jids) == {room.jid, f"{room.jid}/Owner"}


async def test_the_feature_is_the_accounts(box: Box) -> None:
    ann = await box.person()
    answer = await ann.iq("get", f"<query xmlns='{DISCO}'/>", to=ann.account)
    assert INBOX in {feature.get("var") for feature in answer.iter(f"{{{DISCO}}}feature")}


# ---- one story in three dialects -------------------------------------------------------------------------------------


async def test_three_dialects_tell_the_same(box: Box) -> None:
    ann, (bob, carl, dora, eric) = await correspondents(box, 4)
    room = await Room.open(box, bob)
    await room.admit(ann)
    await room.say(bob, "in the room")
    read = carl.write(ann.account, "read")
    mistake = dora.write(ann.account, "mistkae")
    for writer in (carl, dora):
        await writer.ping()
    ann.displayed(carl.account, read)
    dora.correct(ann.account, mistake, "mistake")
    await dora.ping()
    ann.write(bob.account, "my own")
    await ann.ping()
    await ann.set(eric.account, status="deleted")
    await ann.set(dora.account, status="archived")
    page, listing = await inbox(ann), await ann.sync()
    assert page.jids == listing.jids
    assert [e.seen for e in page.entries] == [
        (i.jid, i.unread, i.body, None if i.last is None else i.last.get("id")) for i in listing.items
    ]
    for entry in page.entries:
        kind = "group" if entry.jid == room.jid else "chat"
        answer = await ann.iq("get", f"<conversation xmlns='{OWN}' jid='{entry.jid}' kind='{kind}'/>")
        assert answer[0].get("unread") == str(entry.unread)
    assert (page.total, page.all_unread) == (listing.count, sum(i.unread or 0 for i in listing.items))
    assert page.unread == sum(1 for i in listing.items if i.unread)
    row = (await box.sql("SELECT unread, unread_conversations FROM account WHERE jid = $1", ann.account))[0]
    assert (row["unread"], row["unread_conversations"]) == (page.all_unread, page.unread)
    await box.sound(ann.account)


# ---- pages -----------------------------------------------------------------------------------------------------------


async def test_pages_in_both_directions(box: Box) -> None:
    ann, writers = await correspondents(box, 5)
    order = [writer.account for writer in reversed(writers)]
    assert (await inbox(ann, most=0)).entries == []
    assert (await inbox(ann, most=0)).count == 5
    for most in (1, 2, 5, 9):
        entries, _ = await whole(ann, most)
        assert [entry.jid for entry in entries] == order
        up, page = [], await inbox(ann, most=most, before="")
        while page.entries:
            up = page.jids + up
            page = await inbox(ann, most=most, before=page.first)
        assert up == order
    assert (await inbox(ann, inner="<after/>")).jids == order


@pytest.mark.parametrize("most", [1, 3])
async def test_pages_are_the_truth_while_somebody_writes(most: int, box: Box) -> None:
    ann, writers = await correspondents(box, 7)
    dice, number = random.Random(most), 0  # noqa: S311

    def write() -> None:
        nonlocal number
        if number < 20:
            number += 1
            dice.choice(writers).write(ann.account, f"note {number}")

    entries, end = await whole(ann, most, between=write)
    for writer in writers:
        await writer.ping()
    rest, _ = await whole(ann, most, after=end)
    entries += rest
    truth = {entry.jid: entry.seen for entry in (await inbox(ann)).entries}
    seen = [entry.seen for entry in entries]
    assert len(truth) == 7
    # Nobody wrote any more before the last page: what was shown last of each is how it is. Nothing came twice.
    assert {entry.jid: entry.seen for entry in entries} == truth
    assert len(seen) == len(set(seen))


async def test_who_goes_on_from_the_end_is_told_what_changed(box: Box) -> None:
    ann, (bob, carl, _) = await correspondents(box, 3)
    end = (await inbox(ann)).last
    assert (await inbox(ann, after=end)).entries == []
    carl.write(ann.account, "new")
    await carl.ping()
    bob.write(ann.account, "newer")
    await bob.ping()
    assert [(e.jid, e.body) for e in (await inbox(ann, after=end)).entries] == [
        (carl.account, "new"),
        (bob.account, "newer"),
    ]


async def test_a_place_belongs_to_its_account_and_its_dialect(box: Box) -> None:
    ann, (bob,) = await correspondents(box, 1)
    ann.write(bob.account, "two")
    await ann.ping()
    last = (await inbox(ann)).last
    cursor = (await ann.sync(most=1)).last
    assert last
    assert cursor
    for asker, place in ((bob, last), (ann, cursor), (ann, last[:-2]), (ann, "x")):
        await refused(inbox(asker, after=place), "item-not-found")
        await refused(inbox(asker, before=place), "item-not-found")
    await refused(ann.sync(most=1, after=last), "item-not-found")


async def test_a_place_of_an_earlier_epoch_is_gone(box: Box) -> None:
    ann, _ = await correspondents(box, 2)
    page = await inbox(ann, most=1)
    await box.sql("UPDATE account SET epoch = epoch + 1, version = version + 1, floor = version + 1 WHERE jid = $1",
                  ann.account)  # fmt: skip
    await refused(inbox(ann, most=1, after=page.last), "item-not-found")
    assert len((await inbox(ann)).entries) == 2


# ---- order and size --------------------------------------------------------------------------


async def test_two_hundred_large_entries_come_before_the_answer(box: Box) -> None:
    ann = await box.person()
    await many(box, ann, 450, 4000)
    entries, page = [], await inbox(ann)
    assert (len(page.entries), page.count, page.total) == (200, 450, 450)
    while page.entries:
        entries += page.entries
        page = await inbox(ann, after=page.last)
    assert len({entry.jid for entry in entries}) == len(entries) == 450


async def test_many_at_once_are_each_in_order(box: Box) -> None:
    ann = await box.person()
    await many(box, ann, 40, 2000)
    pages = await asyncio.gather(*(inbox(ann) for _ in range(25)))
    assert all(len(set(page.jids)) == len(page.entries) == 40 for page in pages)


async def test_messages_that_are_too_large_are_left_out(box: Box) -> None:
    ann, (bob, carl) = await correspondents(box, 2)
    bob.write(ann.account, "x" * 100_000)
    await bob.ping()
    page = await inbox(ann)
    assert [(e.jid, e.unread, e.body) for e in page.entries] == [(bob.account, 2, None), (carl.account, 1, "from 1")]
    assert page.entries[0].id


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["bare", "upper", "host"])
async def test_another_accounts_inbox_cannot_be_asked_for(address: str, box: Box) -> None:
    ann, (bob,) = await correspondents(box, 1)
    addresses = {"bare": ann.account, "upper": ann.account.upper(), "host": box.ready["domain"]}
    # The host itself serves none, and says so.
    others = ("service-unavailable", "feature-not-implemented") if address == "host" else ()
    await refused(bob.iq("get", f"<inbox xmlns='{INBOX}'/>", to=addresses[address]), "forbidden", *others)
    assert not any(e.find(f"{{{INBOX}}}entry") is not None for e in bob.received)
    mine = await ann.iq("get", f"<inbox xmlns='{INBOX}'/>", to=ann.account)
    assert mine.find(f"{{{INBOX}}}fin") is not None


async def test_a_session_is_no_inbox(box: Box) -> None:
    """What is sent to a full JID is answered by that client, whatever it says."""
    ann, (bob,) = await correspondents(box, 1)
    answer = await bob.iq("get", f"<inbox xmlns='{INBOX}'/>", to=ann.jid)
    assert len(answer) == 0
    assert not any(e.find(f"{{{INBOX}}}entry") is not None for e in bob.received)


def page(*inner: str) -> str:
    """A request with result sets."""
    return f"<inbox xmlns='{INBOX}'>" + "".join(f"<set xmlns='{RSM}'>{one}</set>" for one in inner) + "</inbox>"


BAD = {
    "an unread-only that is none": (f"<inbox xmlns='{INBOX}' unread-only='yes'/>", "bad-request"),
    "an empty messages": (f"<inbox xmlns='{INBOX}' messages=''/>", "bad-request"),
    "max is no number": (page("<max>many</max>"), "bad-request"),
    "negative max": (page("<max>-1</max>"), "bad-request"),
    "empty max": (page("<max/>"), "bad-request"),
    "huge max": (page(f"<max>{'9' * 99}</max>"), "bad-request"),
    "both directions": (page("<after/><before/>"), "bad-request"),
    "two sets": (page("", ""), "bad-request"),
    "by index": (page("<index>0</index>"), "feature-not-implemented"),
    "no place": (page("<after>1</after>"), "item-not-found"),
    "another element": (f"<outbox xmlns='{INBOX}'/>", "service-unavailable"),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_refused(what: str, box: Box) -> None:
    ann, _ = await correspondents(box, 1)
    payload, condition = BAD[what]
    await refused(ann.iq("get", payload), condition)
    assert not any(e.find(f"{{{INBOX}}}entry") is not None for e in ann.received)


async def test_an_inbox_cannot_be_set(box: Box) -> None:
    ann = await box.person()
    await refused(ann.iq("set", f"<inbox xmlns='{INBOX}'/>"), "feature-not-implemented")


VALUES = st.sampled_from(["", "0", "1", "true", "false", "-1", "9" * 40, "٣", "x" * 300, "&#10;", "yes", "2"])
ATTRIBUTES = st.dictionaries(st.sampled_from(["unread-only", "messages", "jid", "stamp", "to"]), VALUES, max_size=3)
ELEMENTS = st.lists(st.tuples(st.sampled_from(["max", "after", "before", "index", "first", "x"]), VALUES), max_size=4)
KNOWN = ("bad-request", "item-not-found", "feature-not-implemented", "service-unavailable")


async def test_whatever_is_asked_gets_a_clear_answer_and_nobody_elses_data(box: Box) -> None:
    ann, (bob,) = await correspondents(box, 1)
    bob.write(bob.account, "bob's own")
    await bob.ping()
    pid, loop = box.pid("component"), asyncio.get_running_loop()

    async def ask(attributes: dict[str, str], elements: list[tuple[str, str]], sets: int) -> None:
        given_ = "".join(f" {name}='{value}'" for name, value in attributes.items())
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in elements)
        payload = f"<inbox xmlns='{INBOX}'{given_}>" + f"<set xmlns='{RSM}'>{inner}</set>" * sets + "</inbox>"
        (outcome,) = await asyncio.gather(ann.iq("get", payload), return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, StanzaError), payload
            assert outcome.condition in KNOWN, payload
        else:
            fin = outcome.find(f"{{{INBOX}}}fin")
            assert fin is not None
            assert (fin.get("total"), fin.get("all-unread")) == ("1", "1")
        assert "bob's own" not in " ".join(ET.tostring(e, encoding="unicode") for e in ann.received)
        ann.received.clear()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ATTRIBUTES, ELEMENTS, st.integers(0, 2))
    def fuzz(attributes: dict[str, str], elements: list[tuple[str, str]], sets: int) -> None:
        asyncio.run_coroutine_threadsafe(ask(attributes, elements, sets), loop).result(60)

    await asyncio.to_thread(fuzz)
    assert box.pid("component") == pid
