"""What the service makes of requests: who is told of what was set, from when on a change log can be believed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest
import pytest_asyncio

from sync.adapters.memory import MemoryPresence
from sync.adapters.zones import zone
from sync.model.conversation import ChangeKind, Kind, Status
from sync.model.errors import BadRequest, Conflict, ItemNotFound, StoreUnavailable
from sync.model.event import Session, SessionState
from sync.protocol.names import CONVSYNC, DATA, FEED, JMI, MUC, REWRITE, RSM, SYNC, XABBER_CHAT, clark, local
from sync.protocol.serialise import parse
from sync.rules.fold import Policies
from sync.rules.wishes import WakePolicy
from sync.service.bridge import Bridge
from sync.service.live import Live
from sync.service.notices import Notices
from sync.service.query import Queries
from sync.service.watch import Watchers
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, BOB, CAT, NOW, TEA, account, call, change, conversation, membership, message
from tests.contract.stores import Bench, in_memory

HOST = "example.org"


class Lines:
    """Plays `Wire`: keeps what is handed over for sessions, and lets the server agree."""

    def __init__(self) -> None:
        self.handed: list[tuple[str | None, Element]] = []

    async def request(self, iq: Element) -> Element:
        deliver = iq.find(clark(FEED, "deliver"))
        assert deliver is not None
        self.handed.append((deliver.get("resource"), deliver[0]))
        answer = Element("iq")
        SubElement(answer, clark(FEED, "delivered"), {"sessions": "1"})
        return answer

    def send(self, stanza: Element) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def room(self) -> None: ...


class Desk:
    """`Queries` over a store in memory. Of ann, `desk` asks, `phone` and `tablet` are online too, `tv` only bound."""

    def __init__(self, stores: Bench, lines: Lines | None = None) -> None:
        self.stores, self.lines, self.presence = stores, lines or Lines(), MemoryPresence()
        observer = RecordingObserver()
        live = Live(component="sync.example.org", wire=self.lines, presence=self.presence, observer=observer)
        bridge = Bridge(component="sync.example.org", wire=self.lines, feeds={}, clock=stores.clock, observer=observer)
        self.watchers = Watchers(
            {HOST},
            watches=stores.watches,
            notices=Notices(store=stores.store, clock=stores.clock),
            presence=self.presence,
            live=live,
            clock=stores.clock,
            observer=observer,
        )
        self.queries = Queries(
            store=stores.store,
            live=live,
            watchers=self.watchers,
            bridge=bridge,
            clock=stores.clock,
            observer=observer,
            policies=Policies(wakes=WakePolicy(zones=zone)),
            due=lambda _: None,
        )

    async def ask(self, xml: str, kind: str = "get") -> Element:
        return await self.queries.convsync(ANN, "desk", parse(xml), kind)

    async def set(self, *conversations: str) -> Element:
        return await self.ask(f"<set xmlns='{CONVSYNC}'>{''.join(conversations)}</set>", "set")

    async def told(self) -> list[tuple[str | None, str, str]]:
        """Who was told, of whom, with which stamp."""
        await asyncio.sleep(0)
        return [
            (resource, query[0].get("jid", ""), query.get("stamp", ""))
            for resource, stanza in self.lines.handed
            if (query := stanza.find(clark(SYNC, "query"))) is not None
        ]


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk(in_memory())
    states = {"desk": "active", "phone": "active", "tablet": "inactive", "tv": "bound"}
    sessions = [Session(resource, SessionState(state)) for resource, state in states.items()]
    await desk.presence.reset(HOST, {ANN: sessions})
    await desk.stores.put(
        accounts=[account(floor=10)],
        conversations=[conversation(20), conversation(30, CAT, pinned=7), membership(40)],
    )
    yield desk


def one(attributes: str, jid: str = BOB) -> str:
    return f"<conversation jid='{jid}' {attributes}/>"


# ---- set -------------------------------------------------------------------------------------------------------------


async def test_everybody_else_is_told_of_each_conversation_that_changed(desk: Desk) -> None:
    answer = await desk.set(one("pinned='5'"), one("pinned='7'", CAT), one("kind='group' notify='never'", TEA))
    named = [(item.get("jid"), item.get("kind"), int(item.get("version", ""))) for item in answer]
    assert [name[:2] for name in named] == [(BOB, "chat"), (CAT, "chat"), (TEA, "group")]
    first, same, last = (name[2] for name in named)
    assert same == 30 < first < last
    both = ("phone", "tablet")
    expected = [(resource, jid, str(v)) for jid, v in ((BOB, first), (TEA, last)) for resource in both]
    assert await desk.told() == expected


async def test_versions_that_agree_and_those_that_do_not(desk: Desk) -> None:
    with pytest.raises(Conflict):
        await desk.set(one("pinned='1' if-version='20'"), one("pinned='1' if-version='29'", CAT))
    assert await desk.told() == []
    answer = await desk.set(one("pinned='1' if-version='20'"), one("pinned='1' if-version='30'", CAT))
    await desk.set(one(f"pinned='2' if-version='{answer[0].get('version')}'"))
    with pytest.raises(Conflict):
        await desk.set(one(f"pinned='3' if-version='{answer[0].get('version')}'"))


@pytest.mark.parametrize("attributes", ["kind='group' pinned='1'", "pinned='1' if-version='20'"])
async def test_unknown_and_deleted_conversations_are_not_found(desk: Desk, attributes: str) -> None:
    await desk.stores.put(conversations=[conversation(20, status=Status.DELETED)])
    for jid in (BOB, "nobody@example.net"):
        with pytest.raises(ItemNotFound):
            await desk.set(one(attributes, jid), one("pinned='1'", CAT))
    assert await desk.told() == []


async def test_a_notice_has_the_calls_that_ring_and_the_unread_mention(desk: Desk) -> None:
    await desk.stores.put(
        conversations=[conversation(21, ringing=1, unread=1, mentions=1)],
        calls=[call(stanza=f"<message xmlns='jabber:client'><propose xmlns='{JMI}' id='s1'/></message>")],
        messages=[message(5, mention=True, message_key="m5")],
    )
    await desk.set(one("marked-unread='true'"))
    await asyncio.sleep(0)
    _, stanza = desk.lines.handed[0]
    assert stanza.find(f".//{clark(SYNC, 'unread-mention')}") is not None
    assert stanza.find(f".//{clark(SYNC, 'call')}") is not None


async def test_who_cannot_be_told_is_no_reason_not_to_set(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(_: object) -> Any:
        raise StoreUnavailable

    await desk.stores.put(conversations=[conversation(21, ringing=1)])
    monkeypatch.setattr(desk.stores.store, "conversations", down)
    assert len(await desk.set(one("pinned='5'"))) == 1
    assert await desk.told() == []


async def _pin(desk: Desk, kind: str, jid: str = TEA) -> None:
    payload = f"<query xmlns='{SYNC}'><conversation jid='{jid}' type='{kind}' pinned='5'/></query>"
    await desk.queries.set(ANN, "desk", parse(payload))


@pytest.mark.parametrize("kind", [MUC, XABBER_CHAT])
async def test_a_room_may_be_named_as_the_plain_chat_that_some_clients_take_it_for(desk: Desk, kind: str) -> None:
    await _pin(desk, kind)
    assert [jid for _, jid, _ in await desk.told()] == [TEA, TEA]


async def test_a_plain_chat_is_no_room(desk: Desk) -> None:
    for kind, jid in ((MUC, BOB), (XABBER_CHAT, "nobody@example.net")):
        with pytest.raises(ItemNotFound):
            await _pin(desk, kind, jid)


# ---- changes ---------------------------------------------------------------------------------------------------------


def _changes(since: int | str, more: str = "") -> str:
    return f"<changes xmlns='{CONVSYNC}' jid='{BOB}' since='{since}' {more}/>"


@pytest.mark.parametrize(
    ("since", "more", "told"),
    [
        (0, "", [15, 20]),
        (10, "", [15, 20]),
        (15, "", [20]),
        (20, "", []),
        (1000, "", []),  # the account's newest: a client that asks by the stamp of its list
        (10, "max='1'", None),
        (9, "", None),  # before the epoch began
        (1001, "", None),  # of a database that is no more
    ],
)
async def test_a_log_since_a_version(desk: Desk, since: int, more: str, told: list[int] | None) -> None:
    log = [change(15), change(20, kind=ChangeKind.RETRACTED, stanza=None)]
    await desk.stores.put(conversations=[conversation(20)], changes=log)
    answer = await desk.ask(_changes(since, more))
    assert (answer.get("version"), answer.get("reset")) == ("20", "true" if told is None else None)
    assert [int(item.get("version", "")) for item in answer] == (told or [])


async def test_a_log_that_was_trimmed_starts_over(desk: Desk) -> None:
    await desk.stores.put(conversations=[conversation(20, log_from=15)])
    assert (await desk.ask(_changes(0))).get("reset") == "true"
    assert (await desk.ask(_changes(15))).get("reset") is None


async def test_the_log_of_nobody_is_not_found(desk: Desk) -> None:
    with pytest.raises(ItemNotFound):
        await desk.ask(f"<changes xmlns='{CONVSYNC}' jid='{BOB}' kind='group'/>")
    with pytest.raises(ItemNotFound):
        await desk.queries.convsync("new@example.org", "desk", parse(_changes(0)), "get")


# ---- live notices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("live", "kept"), [("live='true'", [1000]), ("live='false'", []), ("", [])])
async def test_a_session_that_wishes_is_told_from_its_answer_on(desk: Desk, live: str, kept: list[int]) -> None:
    answer = await desk.ask(f"<sync xmlns='{CONVSYNC}' {live}/>")
    assert answer.get("version") == "1000"
    assert [row.told for row in await desk.stores.watches.after(None, 10)] == kept


async def test_only_a_session_can_be_told(desk: Desk) -> None:
    with pytest.raises(BadRequest):
        await desk.queries.convsync(ANN, None, parse(f"<sync xmlns='{CONVSYNC}' live='true'/>"), "get")
    assert (await desk.queries.convsync(ANN, None, parse(f"<sync xmlns='{CONVSYNC}'/>"), "get")).get("version")


# ---- one conversation ------------------------------------------------------------------------------------------------


async def test_one_conversation_as_it_stands(desk: Desk) -> None:
    answer = await desk.ask(f"<conversation xmlns='{CONVSYNC}' jid='{TEA}' kind='{Kind.GROUP}'/>")
    assert (answer.get("jid"), answer.get("kind"), answer.get("version")) == (TEA, "group", "40")
    for asked in (f"jid='{TEA}'", "jid='nobody@example.net'"):
        with pytest.raises(ItemNotFound):
            await desk.ask(f"<conversation xmlns='{CONVSYNC}' {asked}/>")


async def test_a_mute_ends_by_itself(desk: Desk) -> None:
    await desk.set(one("muted='60'"))
    ask = f"<conversation xmlns='{CONVSYNC}' jid='{BOB}'/>"
    assert (await desk.ask(ask)).get("muted-until") == NOW.replace(minute=NOW.minute + 1).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
    await desk.stores.clock.sleep(60)
    assert (await desk.ask(ask)).get("muted-until") is None


# ---- pages -----------------------------------------------------------------------------------------------------------


async def test_a_delta_goes_on_only_while_nothing_was_dropped_since_its_stamp(desk: Desk) -> None:
    """The tombstone of whom the client still lists may have stood on the page to come (XEP-0059 §2.2)."""

    async def page(attributes: str, after: str = "") -> tuple[list[str | None], str]:
        rsm = f"<set xmlns='{RSM}'><max>1</max>{after}</set>"
        answer = await desk.queries.conversations(
            ANN, "desk", parse(f"<query xmlns='{SYNC}' {attributes}>{rsm}</query>")
        )
        last = answer.findtext(f"{clark(RSM, 'set')}/{clark(RSM, 'last')}")
        return [item.get("jid") for item in answer.findall(clark(SYNC, "conversation"))], f"<after>{last}</after>"

    jids, delta = await page("stamp='15'")
    _, everything = await page("")
    await desk.stores.put(accounts=[account(floor=15)])
    goes_on, _ = await page("", delta)
    assert len({*jids, *goes_on}) == 2
    await desk.stores.put(accounts=[account(floor=16)])
    with pytest.raises(ItemNotFound):
        await page("", delta)
    assert len((await page("", everything))[0]) == 1


async def _asked(desk: Desk, attributes: str = "", paging: str = "", form: str = "", owner: str = ANN) -> Element:
    payload = f"<query xmlns='{SYNC}' {attributes}>{form}<set xmlns='{RSM}'>{paging}</set></query>"
    return await desk.queries.conversations(owner, "desk", parse(payload))


def _place(answer: Element, end: str) -> str:
    place = answer.findtext(f"{clark(RSM, 'set')}/{clark(RSM, end)}")
    assert place
    return place


def _form(**flags: str) -> str:
    fields = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in flags.items())
    return f"<x xmlns='{DATA}' type='submit'>{fields}</x>"


def _jids(answer: Element) -> list[str | None]:
    return [item.get("jid") for item in answer.findall(clark(SYNC, "conversation"))]


@pytest.mark.parametrize("direction", ["after", "before"])
async def test_a_place_of_a_lost_future_or_of_nobody_names_nothing(desk: Desk, direction: str) -> None:
    place = _place(await _asked(desk, paging="<max>1</max>"), "last")
    asked = f"<{direction}>{place}</{direction}>"
    await desk.stores.put(accounts=[account(version=999)])
    with pytest.raises(ItemNotFound):
        await _asked(desk, paging=asked)
    desk.stores.store.tables.accounts.clear()  # type: ignore[attr-defined]
    with pytest.raises(ItemNotFound):
        await _asked(desk, paging=asked)


async def test_backwards_every_page_has_the_stamp_of_the_first_and_what_changes_waits(desk: Desk) -> None:
    whole = _jids(await _asked(desk))
    page = await _asked(desk, paging="<max>1</max><before/>")
    stamp, found = page.get("stamp"), _jids(page)
    assert found == whole[-1:]
    await desk.set(one("pinned='5'", str(whole[0]) if whole[0] != TEA else BOB))
    changed = [whole[0] if whole[0] != TEA else BOB]
    while len(page) > 1:
        # A client that drops its stamp on later pages.
        page = await _asked(desk, paging=f"<max>1</max><before>{_place(page, 'first')}</before>")
        assert page.get("stamp") == stamp
        found[:0] = _jids(page)
    assert found == [jid for jid in whole if jid not in changed]
    assert _jids(await _asked(desk, f"stamp='{stamp}'")) == changed


async def test_a_continued_list_keeps_its_filters(desk: Desk) -> None:
    pinned = await _asked(desk, paging="<max>1</max>", form=_form(filter_pinned="true", pinned_first="true"))
    assert _jids(pinned) == [CAT]
    rest = f"<after>{_place(pinned, 'last')}</after>"
    assert _jids(await _asked(desk, paging=rest)) == []
    assert _jids(await _asked(desk, paging=rest, form=_form(filter_pinned="1"))) == []
    for other in ({"filter_pinned": "false"}, {"pinned_first": "false"}, {"filter_archived": "false"}):
        with pytest.raises(ItemNotFound, match="filters"):
            await _asked(desk, paging=rest, form=_form(**other))


async def test_who_came_from_behind_has_not_been_told_everything(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have begun anywhere: only a list that is whole proves that a woken phone knows why."""
    told: list[int] = []
    monkeypatch.setattr(desk.queries._fetches, "record", lambda account, resource, version: told.append(version))
    await desk.stores.put(accounts=[account(wakes_open=True)])
    place = _place(await _asked(desk, paging="<max>2</max>"), "last")
    for paging in (f"<before>{place}</before>", f"<max>9</max><before>{place}</before>", "<max>3</max><before/>"):
        await _asked(desk, paging=paging)
    assert told == []
    for paging in ("<before/>", "<max>9</max><before/>", "", f"<after>{place}</after>"):
        await _asked(desk, paging=paging)
    assert len(told) == 4


# ---- rewrites --------------------------------------------------------------------------------------------------------


async def _rewrites(desk: Desk, version: int, owner: str = ANN) -> tuple[list[tuple[str, str | None]], str | None]:
    """What was told, of whom; and the version to ask from next time."""
    answer = await desk.queries.rewrites(owner, "desk", parse(f"<query xmlns='{REWRITE}' version='{version}'/>"), "get")
    told = [(local(stanza[0].tag), stanza[0].get("conversation")) for _, stanza in desk.lines.handed]
    desk.lines.handed.clear()
    return told, answer.get("version")


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (0, ["replace", "retract-message"]),
        (10, ["replace", "retract-message"]),
        (15, ["retract-message"]),
        (20, []),
        (1000, []),
        (9, ["invalidate"]),  # before the epoch began
        (1001, ["invalidate"]),  # of a database that is no more
        (2**63 - 1, ["invalidate"]),
    ],
)
async def test_what_was_rewritten_since_a_version(desk: Desk, version: int, told: list[str]) -> None:
    log = [change(15), change(20, kind=ChangeKind.RETRACTED, stanza=None)]
    await desk.stores.put(conversations=[conversation(20, rewritten=20)], changes=log)
    assert await _rewrites(desk, version) == ([(what, BOB) for what in told], "1000")


async def test_an_unknown_account_begins_at_the_beginning(desk: Desk) -> None:
    """Else it would never be told anything: a version that it makes up may be of the far future."""
    assert await _rewrites(desk, 2**62, "new@example.org") == ([], "0")
