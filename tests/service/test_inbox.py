"""What the service makes of requests for inboxes: in which order it writes, how far ahead, and what it does when the
session or the module does not take what it writes.
"""

import asyncio
from xml.etree.ElementTree import Element, SubElement

import pytest

from sync.adapters.memory import MemoryPresence
from sync.model.errors import BadRequest, InternalServerError, ItemNotFound, Refused, RequestError, Undelivered
from sync.protocol.names import FEED, INBOX, RSM, clark
from sync.protocol.serialise import parse
from sync.service.inbox import MAX_PAGES, Inboxes
from sync.service.live import MAX_AHEAD, Live
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import ANN, EVE, account, after, conversation, last
from tests.contract.stores import in_memory


class Module:
    """Plays `Wire` and the server behind it: takes what is delivered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Element] = []
        self.open: list[asyncio.Future[Element]] = []
        self.sessions, self.at_once = 1, True
        self.refused: dict[int, str] = {}  # the number of a delivery, and why it is refused

    def request(self, iq: Element) -> asyncio.Future[Element]:
        """Written at once, before anything is awaited, as `Wire` says."""
        answered: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        self.asked.append(iq)
        self.open.append(answered)
        if self.at_once:
            self.answer(len(self.asked) - 1)
        return answered

    def answer(self, number: int) -> None:
        if number in self.refused:
            self.open[number].set_exception(Refused(self.refused[number]))
            return
        iq = Element("iq")
        SubElement(iq, clark(FEED, "delivered"), {"sessions": str(self.sessions)})
        self.open[number].set_result(iq)

    @property
    def told(self) -> list[tuple[str | None, str | None]]:
        """To whom, of whom."""
        delivered = [iq[0] for iq in self.asked]
        return [(one.get("resource"), one[0][0].get("jid")) for one in delivered]

    def send(self, stanza: Element) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def room(self) -> None: ...


class Hall:
    """`Inboxes` over a store in memory, with so many conversations of ann's."""

    def __init__(self) -> None:
        self.stores, self.module = in_memory(), Module()
        live = Live(
            component="sync.example.org",
            wire=self.module,
            presence=MemoryPresence(),
            observer=RecordingObserver(),
        )
        self.inboxes = Inboxes(store=self.stores.store, live=live)

    async def fill(self, number: int, **fields: int) -> None:
        rows = [conversation(n + 1, f"n{n}@example.net", activity_at=after(-n), last=last(1)) for n in range(number)]
        await self.stores.put(accounts=[account(**fields)], conversations=rows)

    async def ask(self, inner: str = "", resource: str | None = "desk", owner: str = ANN) -> Element:
        payload = parse(f"<inbox xmlns='{INBOX}'>{inner}</inbox>")
        return await self.inboxes.answer(owner, resource, payload, kind="get", request_id="i1")


@pytest.fixture
def hall() -> Hall:
    return Hall()


async def turns(number: int = 20) -> None:
    """Let everybody else run until nothing moves."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_entries_go_to_the_session_that_asks_in_order(hall: Hall) -> None:
    await hall.fill(3)
    answer = await hall.ask()
    assert hall.module.told == [("desk", f"n{n}@example.net") for n in range(3)]
    assert {iq[0].get("account") for iq in hall.module.asked} == {ANN}
    assert {iq[0][0].get("from") for iq in hall.module.asked} == {ANN}
    assert answer.get("total") == "3"


async def test_no_more_is_sent_than_the_server_takes(hall: Hall) -> None:
    await hall.fill(MAX_AHEAD + 10)
    hall.module.at_once = False
    asked = asyncio.ensure_future(hall.ask())
    await turns()
    for taken in range(11):
        assert len(hall.module.asked) == min(MAX_AHEAD + taken, MAX_AHEAD + 10)
        hall.module.answer(taken)
        await turns()
    for number in range(11, MAX_AHEAD + 10):
        assert not asked.done()
        hall.module.answer(number)
        await turns()
    assert (await asked).get("total") == str(MAX_AHEAD + 10)


async def test_the_answer_waits_for_the_last_entry(hall: Hall) -> None:
    await hall.fill(2)
    hall.module.at_once = False
    asked = asyncio.ensure_future(hall.ask())
    await turns()
    hall.module.answer(1)
    await turns()
    assert not asked.done()
    hall.module.answer(0)
    await asked


@pytest.mark.parametrize("entries", [1, MAX_AHEAD + 5])
async def test_a_session_that_takes_nothing_is_not_told_that_this_is_all(hall: Hall, entries: int) -> None:
    await hall.fill(entries)
    hall.module.sessions = 0
    with pytest.raises(Undelivered) as caught:
        await hall.ask()
    assert (caught.value.condition, caught.value.type) == ("recipient-unavailable", "wait")


@pytest.mark.parametrize("number", [0, 3, MAX_AHEAD])
async def test_a_module_that_refuses_ends_the_answer(hall: Hall, number: int) -> None:
    await hall.fill(MAX_AHEAD + 5)
    hall.module.refused[number] = "no-answer"
    with pytest.raises(InternalServerError):
        await hall.ask()
    await turns()
    assert all(answer.done() for answer in hall.module.open)


async def test_an_account_that_nobody_knows_has_an_empty_inbox(hall: Hall) -> None:
    answer = await hall.ask(owner=EVE)
    assert answer.get("total") == answer.get("unread") == answer.get("all-unread") == "0"
    assert hall.module.asked == []


async def test_who_is_no_session_cannot_ask(hall: Hall) -> None:
    await hall.fill(1)
    for resource in (None, ""):
        with pytest.raises(BadRequest):
            await hall.ask(resource=resource)
    assert hall.module.asked == []


@pytest.mark.parametrize(("floor", "held"), [(1000, True), (1001, False)])
@pytest.mark.parametrize("direction", ["after", "before"])
async def test_a_place_is_good_for_as_long_as_its_epoch(hall: Hall, floor: int, held: bool, direction: str) -> None:
    await hall.fill(2)
    place = (await hall.ask()).findtext(f".//{clark(RSM, 'last')}")
    await hall.stores.put(accounts=[account(version=1001, floor=floor)])
    asked = hall.ask(f"<set xmlns='{RSM}'><{direction}>{place}</{direction}></set>")
    if held:
        await asked
        return
    with pytest.raises(ItemNotFound):
        await asked


async def test_a_place_of_a_lost_future_names_nothing(hall: Hall) -> None:
    """The database was restored from an older copy: what it will say was never said to whoever comes from there."""
    await hall.fill(2, version=2000)
    place = (await hall.ask()).findtext(f".//{clark(RSM, 'last')}")
    await hall.stores.put(accounts=[account(version=1999)])
    for direction in ("after", "before"):
        with pytest.raises(ItemNotFound):
            await hall.ask(f"<set xmlns='{RSM}'><{direction}>{place}</{direction}></set>")


async def test_an_unknown_account_has_no_places(hall: Hall) -> None:
    await hall.fill(2)
    place = (await hall.ask()).findtext(f".//{clark(RSM, 'last')}")
    hall.stores.store.tables.accounts.clear()  # type: ignore[attr-defined]
    with pytest.raises(ItemNotFound):
        await hall.ask(f"<set xmlns='{RSM}'><after>{place}</after></set>")


async def test_a_sessions_answers_do_not_mix(hall: Hall) -> None:
    await hall.fill(3)
    hall.module.at_once = False
    first, second = (asyncio.ensure_future(hall.ask()) for _ in range(2))
    other = asyncio.ensure_future(hall.ask(resource="phone"))
    await turns()
    assert [resource for resource, _ in hall.module.told] == ["desk"] * 3 + ["phone"] * 3
    for number in range(6):
        hall.module.answer(number)
    await turns()
    assert [done.done() for done in (first, second, other)] == [True, False, True]
    for number in range(6, 9):
        hall.module.answer(number)
    await second


async def test_few_pages_are_under_way_at_a_time(hall: Hall) -> None:
    await hall.fill(1)
    hall.module.at_once = False
    asked = [asyncio.ensure_future(hall.ask(resource=f"r{number}")) for number in range(MAX_PAGES + 3)]
    await turns()
    assert len(hall.module.asked) == MAX_PAGES
    for number in range(MAX_PAGES + 3):
        hall.module.answer(number)
        await turns()
    assert [(await one).get("total") for one in asked] == ["1"] * (MAX_PAGES + 3)


async def test_who_fails_gives_its_turn_back(hall: Hall) -> None:
    await hall.fill(1)
    hall.module.sessions = 0
    for _ in range(MAX_PAGES + 1):
        with pytest.raises(RequestError):
            await hall.ask()
    hall.module.sessions = 1
    await hall.ask()
