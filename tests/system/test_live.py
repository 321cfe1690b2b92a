"""Live notices of `urn:convsync:0` over the wire of a whole sandbox: everything that changes arrives at the session
that asked, in a chain without holes; nobody else gets anything, and nothing of it comes back through the feed.
"""

import asyncio
import itertools
import signal
import xml.etree.ElementTree as ET

import pytest

from tests.system.box import Box, eventually
from tests.system.live_mirror import CALL, CONVERSATION, LIVE, OWN, Mirror, Row, live_of
from tests.system.lively import Circle
from tests.system.person import JMI, MAM, Person
from tests.system.room import Room
from tests.system.test_properties import one, put
from tests.system.xmpp_client import CLIENT, StanzaError


async def listening(box: Box, owner: Person, resource: str = "live") -> Mirror:
    """A further session of the owner's that follows."""
    return await Mirror.begin(await box.person(owner.account, resource))


def body_of(conversation: ET.Element) -> str | None:
    return conversation.findtext(f"{{{OWN}}}last/{CLIENT}message/{CLIENT}body")


def says(jid: str, text: str, kind: str = "chat") -> object:
    return lambda e: e.tag == CONVERSATION and (e.get("jid"), e.get("kind"), body_of(e)) == (jid, kind, text)


def has(jid: str, **values: str) -> object:
    wanted = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda e: e.tag == CONVERSATION and e.get("jid") == jid and wanted.items() <= dict(e.items()).items()


def changed(jid: str, *kinds: str) -> object:
    path = f"{{{OWN}}}changes/{{{OWN}}}change"
    return lambda e: e.get("jid") == jid and {c.get("kind") for c in e.iterfind(path)} >= set(kinds)


def calls(sid: str, state: str) -> object:
    return lambda e: e.tag == CALL and (e.get("id"), e.get("state")) == (sid, state)


def in_a_chain(session: Person) -> bool:
    found = [(notice.get("previous"), notice.get("version")) for notice in live_of(session)]
    return all(before[1] == after[0] for before, after in itertools.pairwise(found))


# ---- what is told ----------------------------------------------------------------------------------------------------


async def test_whatever_changes_arrives(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    live = await listening(box, ann)
    # messages, in and out
    first = bob.write(ann.account, "hello")
    told = await live.until(says(bob.account, "hello"))
    assert (told.get("unread"), told.get("status")) == ("1", "active")
    own = ann.write(bob.account, "hello yourself")
    await live.until(says(bob.account, "hello yourself"))
    # markers, both ways
    ann.displayed(bob.account, first)
    told = await live.until(has(bob.account, unread="0"))
    assert told.find(f"{{{OWN}}}read") is not None
    bob.displayed(ann.account, own)
    await live.until(lambda e: e.find(f"{{{OWN}}}displayed") is not None)
    # what happens to messages
    second = bob.write(ann.account, "see you son")
    await live.until(says(bob.account, "see you son"))
    bob.correct(ann.account, second, "see you soon")
    await live.until(says(bob.account, "see you soon"))
    assert "corrected" in {kind for kind, _ in live.changes.values()}
    bob.retract(ann.account, second)
    await live.until(changed(bob.account, "retracted"))
    # calls, first of all
    bob.call("propose", ann.account, "c1")
    ringing = await live.until(calls("c1", "ringing"))
    assert (ringing.get("jid"), ringing.get("from")) == (bob.account, bob.jid)
    assert int(ringing.get("left", "")) > 0
    assert ringing.find(f"{CLIENT}message/{{{JMI}}}propose") is not None
    bob.call("retract", ann.account, "c1")
    await live.until(calls("c1", "missed"))
    assert (live.ringing, live.ended) == (set(), {"c1": "missed"})
    # properties, by another device and by itself, in our words and in Xabber's
    await put(ann, one(bob.account, pinned="5"))
    await live.until(has(bob.account, pinned="5"))
    await put(live.session, one(bob.account, muted="forever"))
    await live.until(has(bob.account, muted="forever", pinned="5"))
    await ann.set(bob.account, status="archived")
    await live.until(has(bob.account, status="archived"))
    await ann.set(bob.account, status="deleted")
    await live.until(has(bob.account, status="deleted"))
    assert live.rows == {}
    await live.agrees()
    assert in_a_chain(live.session)
    assert live.holes == []


async def test_what_is_said_in_rooms_arrives_at_whoever_is_absent(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    room = await Room.open(box, bob)
    await room.admit(ann)
    live = await listening(box, ann)
    said = await room.say(bob, "tea?")
    told = await live.until(says(room.jid, "tea?", "group"))
    assert told.get("unread") == "1"
    await room.mention(bob, ann.account)
    assert (await live.until(has(room.jid, mentions="1"))).find(f"{{{OWN}}}unread-mention") is not None
    await room.retract(bob, said)
    await live.until(changed(room.jid, "retracted"))
    await live.agrees()
    assert live.holes == []


async def test_nobody_else_hears_of_it_and_nothing_comes_back(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    other = await box.person(ann.account, "other", carbons=True)
    live = await listening(box, ann)
    for person in (ann, bob):
        await person.fresh()
    before = await box.metric("convsync_events_committed_total")
    for number in range(5):
        bob.write(ann.account, f"note {number}")
    await live.until(says(bob.account, "note 4"))
    await live.agrees()
    for person in (ann, bob):
        await person.fresh()
    # Of each message its author's event and its addressee's, and none of a notice.
    assert await box.metric("convsync_events_committed_total") == before + 10
    for session in (ann, other, bob):
        assert live_of(session) == []
        assert not [e for e in session.received if e.find(f".//{LIVE}") is not None]
    archive = await ann.archive()
    assert [message.findtext(f"{CLIENT}body") for _, message in archive] == [f"note {n}" for n in range(5)]
    assert await box.conversation(ann.account, ann.account) is None
    assert (await live.session.iq("set", f"<query xmlns='{MAM}'/>")).find(f"{{{MAM}}}fin") is not None
    for notice in live_of(live.session):
        assert notice.get("token")
    stanza = next(e for e in live.session.received if e.find(LIVE) is not None)
    assert (stanza.get("type"), stanza.get("from"), stanza.get("to")) == ("headline", ann.account, live.session.jid)


async def test_it_is_told_at_once(box: Box) -> None:
    """By the commit, whoever made it; a look every five seconds would take minutes for these."""
    ann, bob = await box.friends("phone", "b")
    room = await Room.open(box, bob)
    await room.admit(ann)
    live = await listening(box, ann)
    async with asyncio.timeout(40):
        for number in range(8):
            bob.write(ann.account, f"note {number}")
            await live.until(says(bob.account, f"note {number}"))
            await room.say(bob, f"room {number}")
            await live.until(says(room.jid, f"room {number}", "group"))
            await put(ann, one(bob.account, pinned=str(number + 1)))
            await live.until(has(bob.account, pinned=str(number + 1)))


# ---- without holes ---------------------------------------------------------------------------------------------------


async def test_two_hundred_messages_are_a_chain(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    for number in range(100):
        bob.write(ann.account, f"b{number}")
        carl.write(ann.account, f"c{number}")
        if number % 10 == 9:
            await bob.ping()
    await live.until(says(bob.account, "b99"))
    await live.until(says(carl.account, "c99"))
    await live.agrees()
    assert live.holes == []
    assert in_a_chain(live.session)
    assert len(live_of(live.session)) <= 200


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_people_do_two_followers_have_the_truth(seed: int, box: Box) -> None:
    """Lists, counters, calls, and every entry of every change log; one reads its list in small pages meanwhile."""
    circle = await Circle.meet(box, seed)
    await circle.live(30)
    first = await listening(box, circle.ann, "first")
    logged = await logs(box, circle.ann)
    session = await box.person(circle.ann.account, "second")
    moving = asyncio.ensure_future(circle.live(120, together=4))
    second = Mirror(session)
    await second.sync("live='true'", most=1)
    await moving
    await circle.settle()
    for mirror in (first, second):
        await mirror.agrees()
        assert mirror.holes == []
    written = {version: entry for version, entry in (await logs(box, circle.ann)).items() if version not in logged}
    # Of a deleted conversation it is told that it is, and nothing else.
    wanted = {
        version: (what, about) for version, (row, what, about) in written.items() if version > first.gone.get(row, 0)
    }
    told = {version: what for version, what in first.changes.items() if version not in logged}
    assert wanted.items() <= told.items()
    assert told.keys() <= written.keys()


async def logs(box: Box, person: Person) -> dict[int, tuple[Row, str, str]]:
    """Version → conversation, what happened, to which message."""
    rows = await box.sql("SELECT * FROM change WHERE account = $1", person.account)
    return {row["version"]: ((row["peer"], row["kind"]), row["what"], row["target_id"]) for row in rows}


async def test_what_changes_while_it_begins_is_not_lost(box: Box) -> None:
    """Sessions begin while somebody writes: each goes on from its own answer."""
    ann, bob = await box.friends("phone", "b")
    sessions = [await box.person(ann.account, f"live{n}") for n in range(8)]
    over = asyncio.Event()

    async def write() -> None:
        number = 0
        while not over.is_set() or number < 60:
            bob.write(ann.account, f"note {number}")
            number += 1
            await bob.ping()

    writing = asyncio.ensure_future(write())
    mirrors = []
    for session in sessions:
        mirrors.append(await Mirror.begin(session))
        began = mirrors[-1].version
        await eventually(lambda s=session: _any(s))
        assert int(live_of(session)[0].get("previous", "")) == began
    over.set()
    await writing
    for mirror in mirrors:
        await mirror.agrees()
        assert mirror.holes == []
        assert in_a_chain(mirror.session)


async def _any(session: Person) -> bool:
    return bool(live_of(session))


async def test_a_list_that_is_read_while_it_changes_lacks_no_change(box: Box) -> None:
    """What is bumped is on no later page; the notice tells its older changes, too."""
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    await live.session.iq("get", f"<sync xmlns='{OWN}' live='false'/>")
    known = bob.write(ann.account, "one")
    bob.correct(ann.account, known, "two")
    await bob.ping()
    carl.write(ann.account, "later")
    await carl.ping()
    await ann.fresh()
    ahead: list[int] = []

    def between() -> None:
        """The first page had Carl; Bob's conversation moves before the second one."""
        ahead.append(1)
        bob.write(ann.account, "three")

    async def ask() -> None:
        await live.sync("live='true'", most=1, between=between)

    before = dict(live.changes)
    await ask()
    assert ahead
    await live.until(says(bob.account, "three"))
    assert {kind for version, (kind, _) in live.changes.items() if version not in before} == {"corrected"}
    await live.agrees()


async def test_a_component_that_is_killed_leaves_nothing_out(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    live = await listening(box, ann)
    halfway = asyncio.Event()

    async def talk() -> None:
        for number in range(120):
            bob.write(ann.account, f"b{number}")
            if number % 3 == 0:
                own = carl.write(ann.account, f"c{number}")
                carl.correct(ann.account, own, f"c{number} corrected")
            await bob.ping()
            if number == 40:
                halfway.set()

    talking = asyncio.ensure_future(talk())
    await halfway.wait()
    await box.killed("component")
    await talking
    for session in (bob, carl):
        await session.ping()
    # Without a word of the client's: it was remembered, and what it missed is told.
    await live.agrees()
    assert live.holes == []
    await live.sync()
    version, rows, _ = await live.truth()
    assert (live.version, live.rows) == (version, rows)


async def test_a_cut_connection_leaves_nothing_out(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    live = await listening(box, ann)
    bob.write(ann.account, "before")
    await live.until(says(bob.account, "before"))
    await box.cut()
    for number in range(10):
        bob.write(ann.account, f"note {number}")
    await bob.ping()
    await box.whole()
    await live.agrees()
    assert live.holes == []


# ---- too much --------------------------------------------------------------------------------------------------------


async def test_more_than_twenty_conversations_are_asked_for(box: Box) -> None:
    ann = await box.person(resource="phone")
    peers = [box.account() for _ in range(25)]
    for peer in peers:
        ann.write(peer, "hello")
    await ann.ping()
    live = await listening(box, ann)
    assert len(live.rows) == 25
    await put(ann, *(one(peer, pinned="5") for peer in peers))
    (notice,) = await eventually(lambda: _to_ask(live))
    assert len(notice) == 0
    assert int(notice.get("previous", "")) == live.version
    live.look()
    assert live.holes
    assert await live.sync() == int(notice.get("version", ""))
    assert all('pinned="5"' in row for row in live.rows.values())
    live.holes.clear()
    await put(ann, one(peers[0], pinned="6"))
    await live.until(has(peers[0], pinned="6"))
    await live.agrees()
    assert live.holes == []


async def _to_ask(live: Mirror) -> list[ET.Element]:
    return [notice for notice in live_of(live.session) if notice.get("more") == "true"]


# ---- who is told -----------------------------------------------------------------------------------------------------


async def watched(box: Box, account: str) -> list[str]:
    rows = await box.sql("SELECT resource FROM watcher WHERE account = $1 ORDER BY resource", account)
    return [row["resource"] for row in rows]


async def test_it_ends_with_a_word_or_with_the_session(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    first, second, third = [await listening(box, ann, name) for name in ("first", "second", "third")]
    assert await watched(box, ann.account) == ["first", "second", "third"]
    await first.session.iq("get", f"<sync xmlns='{OWN}' live='false'/>")
    await second.session.close()
    again = await box.person(ann.account, "second")  # another session of that name has not asked
    bob.write(ann.account, "hello")
    await third.until(says(bob.account, "hello"))
    await ann.fresh()
    bob.write(ann.account, "again")
    await third.until(says(bob.account, "again"))
    assert live_of(first.session) == live_of(again) == []

    async def gone() -> bool:
        assert await watched(box, ann.account) == ["third"]
        return True

    await eventually(gone)
    await third.session.iq("get", f"<sync xmlns='{OWN}'/>")  # as it was
    bob.write(ann.account, "and again")
    await third.until(says(bob.account, "and again"))


async def test_it_ends_while_the_component_is_away(box: Box) -> None:
    """Nobody heard that the session ended: the list of sessions says it."""
    ann, bob = await box.friends("phone", "b")
    first, second = await listening(box, ann, "first"), await listening(box, ann, "second")
    box.signal("component", signal.SIGSTOP)
    try:
        await first.session.close()
    finally:
        box.signal("component", signal.SIGCONT)
    await box.killed("component")
    bob.write(ann.account, "hello")
    await second.until(says(bob.account, "hello"))

    async def gone() -> bool:
        assert await watched(box, ann.account) == ["second"]
        return True

    await eventually(gone)


async def test_a_session_that_takes_the_place_of_another_is_told(box: Box) -> None:
    """The end of the old one must not end the new one's notices."""
    ann, bob = await box.friends("phone", "b")
    old = await listening(box, ann)
    new = await listening(box, ann)  # of the same resource: the server ends the old one, or names the new one anew
    for number in range(5):
        bob.write(ann.account, f"note {number}")
        await new.until(says(bob.account, f"note {number}"))
    await new.agrees()
    assert new.holes == []
    assert old.session.resource != new.session.resource or old.session.closed


async def test_an_inactive_session_is_told_when_it_is_active_again(box: Box) -> None:
    """The server may keep notices back while a client says that nobody looks at it (XEP-0352); none is lost."""
    ann, bob = await box.friends("phone", "b")
    live = await listening(box, ann)
    await live.session.csi("inactive")
    for number in range(5):
        bob.write(ann.account, f"note {number}")
    await bob.ping()
    await ann.fresh()
    await live.session.csi("active")
    await live.until(says(bob.account, "note 4"))
    await live.agrees()
    assert live.holes == []


async def test_a_session_that_hibernates_goes_on_when_it_is_resumed(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    phone = await box.person(ann.account, "phone", sm=True)
    live = await Mirror.begin(phone)
    bob.write(ann.account, "one")
    await live.until(says(bob.account, "one"))
    await phone.cut()
    bob.write(ann.account, "two")
    await bob.ping()
    await ann.fresh()
    bob.write(ann.account, "three")
    await bob.ping()
    await ann.fresh()
    resumed = await box.person(ann.account, "phone", resume=phone)
    live.session, live._taken = resumed, 0
    await live.until(says(bob.account, "three"))
    await live.agrees()
    assert live.holes == []


async def test_a_session_that_reads_nothing_hurts_nobody(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    deaf, live = await listening(box, ann, "deaf"), await listening(box, ann)
    other = await Mirror.begin(await box.person(carl.account, "live"))
    deaf.session._reader._transport.pause_reading()  # type: ignore[attr-defined]
    text = "x" * 20_000
    for number in range(60):
        bob.write(ann.account, f"{number} {text}")
        bob.write(carl.account, f"{number}")
        await bob.ping()
    await live.until(says(bob.account, f"59 {text}"), 20)
    await other.until(says(bob.account, "59"))
    await live.agrees()
    await other.agrees()
    assert live.holes == other.holes == []
    deaf.session._reader._transport.resume_reading()  # type: ignore[attr-defined]
    await deaf.until(says(bob.account, f"59 {text}"), 20)


async def test_only_ones_own_account_can_be_followed(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    for person in (ann, bob):
        with pytest.raises(StanzaError):
            await person.iq("get", f"<sync xmlns='{OWN}' live='true'/>", to=(bob if person is ann else ann).account)
    assert await watched(box, ann.account) == await watched(box, bob.account) == []
