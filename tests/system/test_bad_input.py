"""Bad input through real servers: every request in changed forms (tests/service/wild.py) gets an answer in time, with a
condition that is specified; and clients that do not answer what they are sent, or answer anything, hurt nobody.
"""

import asyncio
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.model.conversation import Kind
from sync.model.delta import DeltaToken
from sync.model.query import Cursor, InboxPlace, SortKey
from sync.protocol.cursor import encode_cursor, encode_place
from sync.protocol.names import CONVSYNC, INBOX, RSM
from sync.protocol.serialise import parse, serialise
from sync.protocol.token import encode_token
from tests.service.wild import REQUESTS, each_changed, payloads
from tests.system.asking import is_set
from tests.system.box import Box, eventually
from tests.system.person import SYNC, Person, name
from tests.system.xmpp_client import CLIENT, StanzaError

SPECIFIED = {
    *("bad-request", "item-not-found", "forbidden", "feature-not-implemented", "service-unavailable"),
    *("policy-violation", "conflict"),
}
SECRET = "nobody else's business"
AT_ONCE = 40


class Asker:
    """Ann asks; what she knows of Bob are his address and his cursors."""

    def __init__(self, box: Box, ann: Person, bob: Person, pool: list[str]) -> None:
        self.box, self.ann, self.bob, self.pool = box, ann, bob, pool
        self.component: str = box.ready["component"]

    @classmethod
    async def come(cls, box: Box) -> "Asker":
        ann, bob = await box.friends("web", "web")
        carl = await box.person()
        for one, text in ((bob, "one"), (carl, "two")):
            one.write(ann.account, text)
            await one.ping()
        for to in (bob, carl):
            bob.write(to.account, SECRET)
        await bob.ping()

        async def archives_are_read() -> bool:
            waiting = "SELECT 1 FROM bootstrap WHERE state = 'waiting' AND account = ANY ($1)"
            return not await box.sql(waiting, [one.account for one in (ann, bob, carl)])

        await eventually(archives_are_read)
        cursors = [page.last or "" for one in (ann, bob) for page in (await one.sync(most=1), await one.sync(most=2))]
        assert all(cursors)
        stamps = [str((await one.sync()).stamp) for one in (ann, bob)]
        tokens = [(await one.iq("get", f"<sync xmlns='{CONVSYNC}'/>"))[0].get("token", "") for one in (ann, bob)]
        assert all(tokens)
        return cls(box, ann, bob, [*cursors, *stamps, *tokens, ann.account, bob.account, carl.account])

    def xml(self, payload: ET.Element) -> str:
        mine = {"bob@example.net": self.bob.account, "sync.example.org": self.component}
        text = serialise(payload)
        for theirs, ours in mine.items():
            text = text.replace(theirs, ours)
        return text

    async def ask(self, asked: str, payload: ET.Element, to: str | None = None, kind: str | None = None) -> str:
        """`result`, or the condition."""
        request, xml = REQUESTS[asked], self.xml(payload)
        try:
            await self.ann.iq(kind or request.kind, xml, to=self.component if request.component else to)
        except StanzaError as error:
            told = str(error.condition)
        else:
            return "result"
        assert told in SPECIFIED, (told, xml)
        return told

    async def check(self) -> None:
        """Nobody learnt anything, and nothing of Bob's is different."""
        seen = " ".join(ET.tostring(element, encoding="unicode") for element in self.ann.received)
        assert SECRET not in seen
        self.ann.received.clear()


async def test_whatever_is_asked_gets_a_specified_answer(box: Box) -> None:
    asker = await Asker.come(box)
    pid, loop = box.pid("component"), asyncio.get_running_loop()
    before = [item.seen for item in (await asker.bob.sync()).items]
    others = {"own": asker.ann.account, "another": asker.bob.account, "host": asker.ann.domain}

    async def one(asked: str, payload: ET.Element, to: str | None, kind: str) -> None:
        told = await asker.ask(asked, payload, others.get(to or ""), kind)
        assert told != "result" or to != "another" or REQUESTS[asked].component
        await asker.check()

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        asked = data.draw(st.sampled_from(list(REQUESTS)))
        payload = data.draw(payloads(asker.pool, asked))
        to = data.draw(st.sampled_from([None, None, "own", "own", "another", "host"]))
        kind = data.draw(st.sampled_from([REQUESTS[asked].kind] * 4 + ["get", "set"]))
        asyncio.run_coroutine_threadsafe(one(asked, payload, to, kind), loop).result(60)

    await asyncio.to_thread(fuzz)
    assert box.pid("component") == pid
    assert [item.seen for item in (await asker.bob.sync()).items] == before
    await box.sound(asker.ann.account, asker.bob.account)


async def test_every_attribute_and_text_of_every_request(box: Box) -> None:
    """A third of the service's test, in which numbers meet a real database's columns."""
    asker = await Asker.come(box)
    pid = box.pid("component")
    outcomes = set()
    for asked in REQUESTS:
        third = islice(each_changed(asked, asker.pool), len(asked) % 3, None, 3)
        while some := list(islice(third, AT_ONCE)):
            outcomes |= set(await asyncio.gather(*(asker.ask(asked, payload) for payload in some)))
            await asker.check()
    assert {"result", "bad-request", "item-not-found"} <= outcomes
    assert box.pid("component") == pid
    await box.sound(asker.ann.account, asker.bob.account)


LONG_IDS = ("i" * 1000, "i" * 1025, "i" * 60_000, "\u00e9" * 600)


@pytest.mark.parametrize(
    "payload", [f"<sync xmlns='{CONVSYNC}'/>", f"<query xmlns='{SYNC}'/>", f"<inbox xmlns='{INBOX}'/>"]
)
async def test_a_request_is_answered_whatever_its_id(payload: str, box: Box) -> None:
    ann = await box.person()
    for identifier in ("", *LONG_IDS):
        asked = asyncio.ensure_future(
            ann.wait_for(lambda e, i=identifier: name(e) == "iq" and e.get("id") == i)  # type: ignore[misc]
        )
        await asyncio.sleep(0)
        ann.send(f"<iq type='get' id='{identifier}'>{payload}</iq>")
        answer = await asked
        good = identifier == LONG_IDS[0]
        assert answer.get("type") == ("result" if good else "error")
        assert good or StanzaError(answer).condition == "bad-request"


# ---- more questions than answers fit through -------------------------------------------------------------------------

TOO_MANY, MEGABYTES = 300, 40


def resident_megabytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) // 1024


async def test_who_asks_without_end_fills_no_memory_and_keeps_nobody_waiting(box: Box) -> None:
    """Each answer has a quarter of a megabyte; all of them were made at once, and waited for the server in memory."""
    ann, bob = await box.friends("a", "b")
    for writer in [await box.person() for _ in range(4)]:
        writer.write(ann.account, "x" * 60_000)
        await writer.ping()
    answer = await ann.iq("get", f"<sync xmlns='{CONVSYNC}'/>")
    assert len(ET.tostring(answer)) > 240_000
    pid = box.pid("component")
    before = resident_megabytes(pid)
    ann.send("".join(f"<iq type='get' id='many{n}'><sync xmlns='{CONVSYNC}'/></iq>" for n in range(TOO_MANY)))

    async def some_came() -> bool:
        return len([e for e in ann.received if e.get("id", "").startswith("many") and e.get("type") == "result"]) > 3

    await eventually(some_came)
    async with asyncio.timeout(20):
        for _ in range(3):
            await bob.sync()
    assert resident_megabytes(pid) - before < MEGABYTES

    async def all_came() -> bool:
        told = {e.get("id"): e for e in ann.received if e.get("id", "").startswith("many")}
        assert len(told) == TOO_MANY
        errors = [StanzaError(e) for e in told.values() if e.get("type") == "error"]
        assert {(one.condition, one.type) for one in errors} <= {("resource-constraint", "wait")}
        return True

    await eventually(all_came, seconds=40)
    assert (resident_megabytes(pid) - before < MEGABYTES, box.pid("component")) == (True, pid)
    assert len((await ann.sync()).items) >= 4


# ---- cursors and tokens that somebody made up ------------------------------------------------------------------------

EDGES = (0, 1, 2**62, 2**63 - 1, -1, -(2**63))
SORT = SortKey(ringing=False, pinned=1, activity=1, peer="bob@localhost", kind=Kind.CHAT)
PLACE = InboxPlace(newest=2**62, version=1, activity=1, peer="bob@localhost", kind=Kind.CHAT)


def forged(account: str) -> Iterator[tuple[str, str]]:
    """Requests with cursors, places and tokens whose check is right (it is no secret), and numbers of nobody's list."""
    for number in EDGES:
        sorts = [replace(SORT, pinned=number), replace(SORT, activity=number)]
        cursors = [Cursor(since=0, newest=2**62, sort=sort, pinned_first=True) for sort in sorts]
        cursors += [Cursor(since=number, newest=2**62, sort=SORT), Cursor(since=0, newest=number, sort=SORT)]
        places = [replace(PLACE, **{name: number}) for name in ("newest", "version", "activity")]  # type: ignore[arg-type]
        for way in ("after", "before"):
            for cursor in cursors:
                page = f"<set xmlns='{RSM}'><{way}>{encode_cursor(cursor, account=account)}</{way}></set>"
                yield "list", f"<query xmlns='{SYNC}'>{page}</query>"
            for place in places:
                page = f"<set xmlns='{RSM}'><{way}>{encode_place(place, account=account)}</{way}></set>"
                yield "inbox", f"<inbox xmlns='{INBOX}'>{page}</inbox>"
        for token in (
            DeltaToken(epoch=1, since=number, log=max(number, 0)),
            DeltaToken(epoch=2**32 - 1, since=max(number, 0), log=0),
            DeltaToken(epoch=1, since=0, newest=number, low=number),
            DeltaToken(epoch=1, filters=bytes(8), since=0, newest=2**63 - 1, low=max(number, 1)),
        ):
            yield "sync", f"<sync xmlns='{CONVSYNC}' token='{encode_token(token, account=account)}'/>"


async def test_forged_places_get_a_specified_answer(box: Box) -> None:
    asker = await Asker.come(box)
    pid, told = box.pid("component"), set()
    for asked, xml in forged(asker.ann.account):
        told.add((asked, await asker.ask(asked, parse(xml))))
        await asker.check()
    assert {
        ("list", "item-not-found"),
        ("inbox", "item-not-found"),
        ("sync", "bad-request"),
        ("sync", "result"),
    } <= told
    assert box.pid("component") == pid


# ---- clients that do not answer --------------------------------------------------------------------------------------


def rudely(answer: ET.Element) -> list[str]:
    """Answers that no client should give to a live IQ: errors of any kind, twice, results that say something else."""
    asked = answer.get("id", "")
    error = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    return [
        f"<iq type='error' id='{asked}' to='{answer.get('from')}'>{error}</iq>",
        f"<iq type='error' id='{asked}'>{error}</iq>",
        f"<iq type='error' id='{asked}' to='{answer.get('from')}'><query xmlns='{SYNC}' stamp='1'/></iq>",
        f"<iq type='result' id='{asked}' to='{answer.get('from')}'><query xmlns='{SYNC}' stamp='9'/></iq>",
        f"<iq type='result' id='never-asked' to='{answer.get('from')}'/>",
    ]


class Rude(Person):
    """A session that answers every live notice, wrongly."""

    def on_element(self, element: ET.Element) -> None:
        super().on_element(element)
        if name(element) == "iq" and is_set(element):
            for answer in rudely(element):
                self.send(answer)


async def test_clients_that_never_answer_or_answer_with_errors_hurt_nobody(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    silent, polite = await box.person(ann.account, "silent"), await box.person(ann.account, "polite")
    password = next(a["password"] for a in box.ready["accounts"] if a["jid"] == ann.account)
    rude = await Rude.connect(f"{ann.account}/rude", password, box.ready["c2s"]["port"])
    bob.write(ann.account, "one")
    await bob.ping()
    stamp = (await ann.sync()).stamp
    pid, times = box.pid("component"), 120
    for number in range(1, times + 1):
        await ann.set(bob.account, pinned=str(number))
    for session in (silent, polite, rude):

        async def all_told(session: Person = session) -> bool:
            told = [element[0][0].get("pinned") for element in session.received if is_set(element)]
            assert told == [str(number) for number in range(1, times + 1)]
            return True

        await eventually(all_told)
    # The rude one is served as before, and everybody sees the same.
    for session in (ann, silent, polite, rude):
        await session.ping()
        assert [item.seen for item in (await session.sync()).items] == [item.seen for item in (await ann.sync()).items]
    assert [(item.jid, item.pinned) for item in (await rude.sync(stamp)).items] == [(bob.account, str(times))]
    bob.write(ann.account, "two")
    await bob.ping()
    assert (await rude.sync()).items[0].body == "two"
    assert box.pid("component") == pid
    errors = [e for e in bob.received if name(e) == "iq" and e.get("type") == "error"]
    assert errors == []
    await box.sound(ann.account, bob.account)
    assert not any(e.tag == f"{CLIENT}message" and e.get("type") == "error" for e in ann.received)
    await rude.close()
