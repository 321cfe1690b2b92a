"""Deltas of `urn:convsync:0` over the wire of a whole sandbox: what a client is told that was away, in how much and in
which order. Every answer is held against the schema, and a chain of pages against what it promises.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sync.model.conversation import Status
from sync.model.delta import Filters
from sync.protocol.serialise import serialise
from tests.contract.delta_reader import DeltaReader
from tests.core.convsync_schema import faults
from tests.system.box import REPOSITORY, Box, boxed, eventually
from tests.system.person import JMI, RETRACT, SID, Person
from tests.system.room import Room
from tests.system.test_properties import OWN, one, put
from tests.system.xmpp_client import CLIENT, StanzaError

TOTALS, CALL, CONVERSATION, LAST, CHANGES = (
    f"{{{OWN}}}{name}" for name in ("totals", "call", "conversation", "last", "changes")
)
BODY = f"{LAST}/{CLIENT}message/{CLIENT}body"
LONG = "x" * 60_000


async def asked(person: Person, attributes: str = "") -> ET.Element:
    """The answer to a `sync`."""
    iq = await person.iq("get", f"<sync xmlns='{OWN}' {attributes}/>")
    assert faults(iq) == []
    return iq[0]


class Client:
    """A client that keeps a token, and what it holds."""

    def __init__(self, person: Person, **fields: Any) -> None:
        self.person, self.reader = person, DeltaReader(person.account, **fields)

    async def page(self, attributes: str = "") -> tuple[ET.Element, bool]:
        """One answer, and whether it was the last one."""
        question = serialise(self.reader.ask())
        iq = await self.person.iq("get", question.replace("<sync ", f"<sync {attributes} ", 1))
        assert faults(iq) == []
        return iq[0], self.reader.told(iq[0])

    async def read(self, attributes: str = "") -> list[ET.Element]:
        """All pages."""
        answer, done = await self.page(attributes)
        answers = [answer]
        while not done:
            answer, done = await self.page()
            answers.append(answer)
        return answers

    async def new(self, attributes: str = "") -> ET.Element:
        """What is new, which one page has to hold."""
        [answer] = await self.read(attributes)
        return answer


def rows(*answers: ET.Element) -> list[tuple[str, str | None]]:
    """JIDs and last messages, in their order."""
    return [(str(item.get("jid")), item.findtext(BODY)) for answer in answers for item in answer.iterfind(CONVERSATION)]


def of(answer: ET.Element, jid: str) -> ET.Element:
    return next(item for item in answer.iterfind(CONVERSATION) if item.get("jid") == jid)


def calls(answer: ET.Element) -> list[tuple[str | None, str | None]]:
    return [(call.get("id"), call.get("state")) for call in answer.iterfind(CALL)]


async def say(sender: Person, to: Person, text: str) -> str:
    sent = sender.write(to.account, text)
    await sender.ping()
    return sent


async def test_the_first_time_in_pages_and_then_what_is_new(box: Box) -> None:
    ann, *others = await box.friends("a", "b", "c", "d", "e")
    for number, other in enumerate(others):
        await say(other, ann, f"hello {number}")
    room = await Room.open(box, others[0])
    await room.admit(ann)
    await room.say(others[0], "tea?")
    client = Client(ann)
    pages = await client.read()
    expected = [(other.account, f"hello {number}") for number, other in enumerate(others)]
    assert rows(*pages) == [(room.jid, "tea?"), *reversed(expected)]
    assert [len(page.findall(CONVERSATION)) for page in pages] == [2, 2, 1]
    totals = pages[0].find(TOTALS)
    assert totals is not None
    assert dict(totals.items()) == {"unread": "5", "mentions": "0", "conversations": "5"}
    tea = of(pages[0], room.jid)
    stanza_id = tea.find(f"{LAST}/{CLIENT}message/{{{SID}}}stanza-id")
    assert stanza_id is not None
    assert (tea.get("kind"), stanza_id.get("by")) == ("group", room.jid)
    # Nothing new, then one message.
    version = pages[0].get("version")
    nothing = await client.new()
    assert (nothing.get("version"), [child.tag for child in nothing]) == (version, [TOTALS])
    await say(others[2], ann, "again")
    assert rows(await client.new()) == [(others[2].account, "again")]


async def test_edits_and_retractions_are_told_with_their_conversation(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    first, second = await say(bob, ann, "see you son"), await say(bob, ann, "oops")
    await say(carl, ann, "quiet")
    client = Client(ann)
    await client.read()
    bob.correct(ann.account, first, "see you soon")
    bob.retract(ann.account, second)
    bob.react(ann.account, first, "👍")
    await bob.ping()
    delta = await client.new()
    assert [jid for jid, _ in rows(delta)] == [bob.account]
    log = of(delta, bob.account).find(CHANGES)
    assert log is not None
    assert [change.get("kind") for change in log] == ["corrected", "retracted", "reacted"]
    assert log[0].findtext(f"{CLIENT}message/{CLIENT}body") == "see you soon"
    assert len(log[1]) == 0
    assert log[0].get("id") == log[2].get("id") != log[1].get("id")
    last = of(delta, bob.account).find(f"{LAST}/{CLIENT}message")
    assert last is not None
    assert (last.get("id"), last.find(f"{{{RETRACT}}}retracted") is not None) == (second, True)
    # More than a client should repair by hand.
    for number in range(101):
        bob.correct(ann.account, first, f"edit {number}")
    await bob.ping()
    log = of(await client.new(), bob.account).find(CHANGES)
    assert log is not None
    assert (log.get("reset"), len(log)) == ("true", 0)


async def test_what_rings_comes_first_and_how_it_ended(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    client, filtered = Client(ann), Client(ann, filters=Filters(pinned=True))
    await client.read()
    await filtered.read()
    bob.call("propose", ann.account, "ring1")
    await bob.ping()
    await say(carl, ann, "later than the call")
    answer, done = await client.page()
    assert [child.tag for child in answer] == [TOTALS, CALL, CONVERSATION, CONVERSATION]
    [call] = answer.findall(CALL)
    assert (call.get("id"), call.get("jid"), call.get("from")) == ("ring1", bob.account, bob.jid)
    assert (call.get("state"), call.get("media"), done) == ("ringing", "audio", True)
    assert 50 <= int(call.get("left", "")) + int(call.get("age", "")) <= 60
    assert call.find(f"{CLIENT}message/{{{JMI}}}propose") is not None
    # Whatever the filters, and with the badge alone.
    assert calls((await filtered.page())[0]) == [("ring1", "ringing")]
    badge = await asked(ann, "max='0'")
    assert (calls(badge), rows(badge), badge.get("more")) == ([("ring1", "ringing")], [], "true")
    named = await ann.iq("get", f"<call xmlns='{OWN}' id='ring1'/>")
    assert (faults(named), named[0].get("state")) == ([], "ringing")
    # Another device takes it.
    web = await box.person(ann.account, "web")
    web.call("proceed", bob.account, "ring1")
    await web.ping()
    delta = await client.new()
    [call] = delta.findall(CALL)
    assert (call.get("state"), call.get("by"), call.get("left"), len(call)) == ("answered", "web", None, 0)
    # Two more, with which the answered one is over (XEP-0353 §5.2): one declined, one that nobody took.
    for sid in ("ring2", "ring3"):
        bob.call("propose", ann.account, sid)
    await bob.ping()
    assert calls(await client.new()) == [("ring3", "ringing"), ("ring2", "ringing"), ("ring1", "ended")]
    web.call("reject", bob.account, "ring2")
    await web.ping()
    bob.call("retract", ann.account, "ring3")
    await bob.ping()
    delta = await client.new()
    assert calls(delta) == [("ring3", "missed"), ("ring2", "rejected")]
    log = of(delta, bob.account).find(CHANGES)
    assert log is not None
    assert {(change.get("id"), change.get("detail")) for change in log} == {
        ("ring2", "rejected"),
        ("ring3", "missed"),
    }
    # Bob's own calls are none of his news.
    assert calls(await asked(bob)) == []
    outgoing = await bob.iq("get", f"<call xmlns='{OWN}' id='ring3' jid='{ann.account}'/>")
    assert outgoing[0].get("state") == "ended"
    with pytest.raises(StanzaError) as refused:
        await carl.iq("get", f"<call xmlns='{OWN}' id='ring3'/>")
    assert refused.value.condition == "item-not-found"


async def test_what_leaves_a_filter_is_outside(box: Box) -> None:
    ann, bob, carl, dora = await box.friends("a", "b", "c", "d")
    for other in (bob, carl, dora):
        await say(other, ann, "hello")
    await put(ann, one(carl.account, pinned="5"), one(dora.account, status="archived"))
    active = Client(ann, filters=Filters(status=Status.ACTIVE), limit=1)
    pinned, unread = (Client(ann, filters=filters, limit=9) for filters in (Filters(pinned=True), Filters(unread=True)))
    assert {jid for jid, _ in rows(*await active.read())} == {bob.account, carl.account}
    assert rows(await pinned.new()) == [(carl.account, "hello")]
    await unread.read()
    away = one(dora.account, status="deleted"), one(bob.account, status="archived")
    await put(ann, one(carl.account, pinned="0"), *away)
    ann.displayed(bob.account, await say(bob, ann, "read this"))
    await ann.ping()
    answer = await pinned.new()
    assert {(item.get("jid"), item.get("outside"), item.get("status")) for item in answer.iterfind(CONVERSATION)} == {
        (bob.account, "true", None),
        (carl.account, "true", None),
        (dora.account, None, "deleted"),
    }
    await active.read()
    await unread.read()
    assert ({*active.reader.held}, {*pinned.reader.held}) == ({(carl.account, "chat"), (bob.account, "chat")}, set())
    assert {*unread.reader.held} == {(carl.account, "chat")}
    # A token is of its filters.
    token = pinned.reader.token
    answer = await asked(ann, f"token='{token}'")
    assert (answer.get("reset"), len(rows(answer))) == ("filter", 2)


async def test_pages_and_deltas_are_the_truth_while_everybody_writes(box: Box) -> None:
    ann, *others = await box.friends(*"abcdef")
    for other in others:
        await say(other, ann, "hello")
    client = Client(ann, limit=1)
    await client.read()

    async def talk(number: int) -> None:
        said = await say(others[number], ann, "first")
        for turn in range(8):
            others[number].correct(ann.account, said, f"edit {turn}")
            others[number].write(ann.account, f"{turn}")
            if turn % 4 == number % 4:
                others[number].call("propose", ann.account, f"call-{number}-{turn}")
                others[number].call("retract", ann.account, f"call-{number}-{turn}")
            await others[number].ping()

    talking = asyncio.gather(*map(talk, range(len(others))))
    while not talking.done():
        await client.page()
    await talking
    await client.read()
    await client.read()
    stored = await box.sql("SELECT peer, kind, version FROM conversation WHERE account = $1", ann.account)
    assert client.reader.held == {(row["peer"], row["kind"]): row["version"] for row in stored}
    changes = await box.sql("SELECT peer, kind, version FROM change WHERE account = $1", ann.account)
    made = {((row["peer"], row["kind"]), row["version"]) for row in changes}
    assert {version for _, version in made} >= {version for _, version in client.reader.known}
    missing = {one for one in made - client.reader.known if one[1] > client.reader.all_loaded}
    assert missing == {one for one in missing if one[1] <= client.reader.loaded.get(one[0], 0)}
    assert len(client.reader.known) > 20
    assert client.reader.ringing == set()


async def test_an_answer_is_bounded_whatever_is_sent(box: Box) -> None:
    """A server ends the connection of a component whose stanza is larger than it takes."""
    ann, writers = await box.person(), [await box.person() for _ in range(7)]
    pid = box.pid("component")
    for writer in writers:
        await say(writer, ann, LONG)
    await say(writers[0], ann, "<&>" * 9_000)
    answer = await asked(ann)
    found = {item.get("jid"): item.find(LAST) for item in answer.iterfind(CONVERSATION)}
    assert found.keys() == {writer.account for writer in writers}
    assert all(last is not None and (last.get("left-out") == "true") == (not len(last)) for last in found.values())
    assert 0 < sum(last is not None and bool(len(last)) for last in found.values()) < 7
    assert len(ET.tostring(answer)) < 512 * 1024
    quiet = await asked(ann, "messages='false'")
    assert [item.find(LAST) for item in quiet.iterfind(CONVERSATION)] == [None] * 7
    assert box.pid("component") == pid


async def test_a_token_is_for_its_account_and_nothing_else(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await say(bob, ann, "hello")
    token = (await asked(bob)).get("token")
    for attributes, word in (
        (f"token='{token}'", "token"),
        ("token='AAAA'", "token"),
        ("max='-1'", "max"),
        ("kind=''", "kind"),
        ("since='5'", "since"),
    ):
        with pytest.raises(StanzaError) as refused:
            await asked(ann, attributes)
        assert refused.value.condition == "bad-request"
        assert word in "".join(refused.value.stanza.itertext())
    with pytest.raises(StanzaError) as refused:
        await bob.iq("get", f"<sync xmlns='{OWN}'/>", to=ann.account)
    assert refused.value.condition in ("forbidden", "service-unavailable")
    far = int((await asked(ann)).get("version", "")) + 10**9
    answer = await asked(ann, f"at-least='{far}'")
    assert (answer.get("reset"), len(rows(answer))) == ("future", 1)


async def test_a_phone_that_was_woken_has_fetched_through_whatever_session_names_it(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    account = ann.account
    await ann.close()
    sent = bob.write(account, "wake up")
    await bob.ping()
    [push] = await box.pushed(phone.token)
    app = await box.person(account, "extension", presence=False)
    with pytest.raises(StanzaError) as refused:
        await asked(app, "device='nobody'")
    assert refused.value.condition == "item-not-found"
    answer = await asked(app, f"max='20' at-least='{push['payload']['x']['v']}' device='{phone.node}'")
    assert (answer.get("reset"), rows(answer)) == (None, [(bob.account, "wake up")])
    assert of(answer, bob.account).find(f"{LAST}/{CLIENT}message").get("id") == sent  # type: ignore[union-attr]

    async def look() -> bool:
        [row] = await box.sql("SELECT bound_to, woken_version, fetched_version FROM device WHERE account = $1", account)
        assert row["bound_to"] == "extension"
        return bool(row["fetched_version"] >= row["woken_version"] > 0)

    await eventually(look)


@pytest_asyncio.fixture(loop_scope="session")
async def own_box(server: str) -> AsyncIterator[Box]:
    """A sandbox of the test's own: all clients of it start over."""
    folder = Path(tempfile.mkdtemp(prefix="convsync-delta-"))
    os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
    try:
        async with boxed(folder, 4, server) as box:
            await box.whole()
            yield box
    finally:
        shutil.rmtree(folder)


@pytest.mark.timeout(300)
async def test_after_a_restore_a_client_starts_over_in_the_same_answer(own_box: Box) -> None:
    box = own_box
    ann, bob, carl, dora = await box.friends("a", "b", "c", "d")
    for other in (bob, carl, dora):
        await say(other, ann, "hello")
    idle, amid = Client(ann, limit=50), Client(ann, limit=1)
    await idle.read()
    await amid.page()
    said = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sync", "restored", "--config", str(box.data / "convsync.toml"), "--yes"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await said.communicate())[0]
    assert said.returncode == 0, output
    answer = await idle.new()
    assert (answer.get("reset"), len(rows(answer))) == ("epoch", 3)
    pages = await amid.read()
    assert [page.get("reset") for page in pages][:1] == ["epoch"]
    assert {jid for jid, _ in rows(*pages)} == {other.account for other in (bob, carl, dora)}
    assert amid.reader.held.keys() == idle.reader.held.keys()
    # The token is good again once the archives are read.
    await say(bob, ann, "after the restore")

    async def settled() -> bool:
        return rows(*await idle.read())[:1] != [] and idle.reader.resets == ["epoch"]

    await eventually(settled, 60)
