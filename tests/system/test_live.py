"""Live notices of `urn:convsync:0` over the wire of a whole sandbox: everything that changes arrives at the session
that asked, in a chain without holes; nobody else gets anything, and nothing of it comes back through the feed.
"""

import time

import aiohttp

from sync.service.watch import LOOK_SECONDS
from tests.system.box import Box
from tests.system.live_mirror import (
    CALL,
    LIVE,
    OWN,
    has,
    in_a_chain,
    listening,
    live_of,
    says,
)
from tests.system.person import JMI, MAM
from tests.system.room import Room
from tests.system.test_properties import one, put
from tests.system.xmpp_client import CLIENT


def changed(jid: str, *kinds: str) -> object:
    path = f"{{{OWN}}}changes/{{{OWN}}}change"
    return lambda e: e.get("jid") == jid and {c.get("kind") for c in e.iterfind(path)} >= set(kinds)


async def messages(box: Box) -> float:
    """How many messages' events took effect so far; sessions of an earlier test may still end."""
    async with aiohttp.ClientSession() as session, session.get(box.ready["http"]["base"] + "/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith('convsync_events_committed_total{kind="message"}'))


def calls(sid: str, state: str) -> object:
    return lambda e: e.tag == CALL and (e.get("id"), e.get("state")) == (sid, state)


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
    before = await messages(box)
    for number in range(5):
        bob.write(ann.account, f"note {number}")
    await live.until(says(bob.account, "note 4"))
    await live.agrees()
    for person in (ann, bob):
        await person.fresh()
    # Of each message its author's event and its addressee's, and none of a notice.
    assert await messages(box) == before + 10
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
    """By the commit, whoever made it. What only a look finds waits for the next one: the rest of the time between two,
    since the one before was found by a look as well.
    """
    ann, bob = await box.friends("phone", "b")
    room = await Room.open(box, bob)
    await room.admit(ann)
    live = await listening(box, ann)
    waited: dict[str, list[float]] = {"message": [], "room": [], "set": []}

    async def timed(what: str, there: object) -> None:
        began = time.monotonic()
        await live.until(there)  # type: ignore[arg-type]
        waited[what].append(time.monotonic() - began)

    for number in range(8):
        bob.write(ann.account, f"note {number}")
        await timed("message", says(bob.account, f"note {number}"))
        await room.say(bob, f"room {number}")
        await timed("room", says(room.jid, f"room {number}", "group"))
        await put(ann, one(bob.account, pinned=str(number + 1)))
        await timed("set", has(bob.account, pinned=str(number + 1)))
    # Of each kind the quickest but the first, so that a busy machine may take its time.
    assert {what for what, seconds in waited.items() if min(seconds[1:]) > LOOK_SECONDS / 2} == set(), waited
