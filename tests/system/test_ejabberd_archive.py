"""What mod_convsync_feed tells of the time before the component: accounts, rosters, PEP items, archives, under a real
ejabberd (docs/feed.md §8.2).
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.system.ejabberd_server import Ejabberd, ejabberd_of_its_own
from tests.system.prosody_server import DOMAIN, ROOMS
from tests.system.room_client import configure, enter
from tests.system.xmpp_client import StanzaError
from tests.system.xmpp_component import FEED, NS, FeedComponent

pytest_plugins = ("tests.system.ejabberd_feed",)

BOOKMARKS, DISPLAYED = "urn:xmpp:bookmarks:1", "urn:xmpp:mds:displayed:0"
MESSAGE = "{jabber:client}message"
MINUTE = 60_000_000  # microseconds


async def accounts(feed: FeedComponent, **attributes: str) -> tuple[list[str], bool]:
    answer = await feed.ask("get", f"<accounts xmlns='{NS}'{_written(attributes)}/>")
    return [a.get("jid", "") for a in answer.iterfind(FEED + "account")], answer.get("last") == "true"


async def archive(feed: FeedComponent, account: str, **attributes: str) -> tuple[list[ET.Element], bool]:
    answer = await feed.ask("get", f"<archive xmlns='{NS}' account='{account}'{_written(attributes)}/>")
    return answer.findall(FEED + "item"), answer.get("last") == "true"


async def whole(feed: FeedComponent, account: str, size: int) -> list[ET.Element]:
    """All pages, one after the other."""
    items, last = await archive(feed, account, max=str(size))
    while not last:
        page, last = await archive(feed, account, max=str(size), after=items[-1].get("id", ""))
        assert page or last
        items += page
    return items


def _written(attributes: dict[str, str]) -> str:
    return "".join(f" {name.rstrip('_')}='{value}'" for name, value in attributes.items())


def body(item: ET.Element) -> str:
    return item.findtext(f"{MESSAGE}/{{jabber:client}}body") or ""


# ---- accounts ------------------------------------------------------------------------------------------------------


async def test_accounts_come_sorted_and_in_pages(feed: FeedComponent) -> None:
    everybody, last = await accounts(feed, max="1000")
    assert last
    assert len(everybody) >= 200
    assert everybody == sorted(everybody)
    pages, after = [], {}
    for _ in range(10):
        page, last = await accounts(feed, max="70", **after)
        pages.append(page)
        after = {"after": page[-1]}
        if last:
            break
    assert [jid for page in pages for jid in page] == everybody
    assert {len(page) for page in pages[:-1]} == {70}
    for after_ in (everybody[41], everybody[41] + "!"):  # who is gone by now is no obstacle
        assert await accounts(feed, after=after_, max="99999") == (everybody[42:], True)
    assert await accounts(feed, after="zzz") == ([], True)


async def test_an_account_tells_its_contacts_and_items(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    one, friend, stranger = ejabberd.name(), ejabberd.name(), ejabberd.name()
    client, other = await ejabberd.client(f"{one}/a"), await ejabberd.client(f"{friend}/a")
    await client.iq("get", "<query xmlns='jabber:iq:roster'/>")  # else it is not told of its subscriptions
    client.send(f"<presence type='subscribe' to='{friend}'/>")
    await other.wait_for(lambda e: e.get("type") == "subscribe", past=True)
    other.send(f"<presence type='subscribed' to='{one}'/>")
    await client.wait_for(lambda e: e.get("type") == "subscribed", past=True)
    await client.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='{stranger}'/></query>")
    for node, item, payload in (
        (BOOKMARKS, f"tea@{ROOMS}", f"<conference xmlns='{BOOKMARKS}' name='T&amp;a'/>"),
        (DISPLAYED, friend, f"<displayed xmlns='{DISPLAYED}'><stanza-id xmlns='urn:xmpp:sid:0' id='x'/></displayed>"),
        ("urn:other", "1", "<secret xmlns='urn:other'/>"),
    ):
        await client.iq(
            "set",
            f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'>"
            f"<item id='{item}'>{payload}</item></publish></pubsub>",
        )
    told = await feed.ask("get", f"<account xmlns='{NS}' account='{one}'/>")
    assert told.get("jid") == one
    assert [c.get("jid") for c in told.iterfind(FEED + "contact")] == [friend]
    items = {(p.get("node"), p.get("item")): p[0] for p in told.iterfind(FEED + "pep")}
    assert set(items) == {(BOOKMARKS, f"tea@{ROOMS}"), (DISPLAYED, friend)}
    assert items[BOOKMARKS, f"tea@{ROOMS}"].get("name") == "T&a"
    empty = await feed.ask("get", f"<account xmlns='{NS}' account='{stranger}'/>")
    assert (empty.get("jid"), len(empty)) == (stranger, 0)
    await client.close()
    await other.close()


# ---- the archive of an account -------------------------------------------------------------------------------------


@pytest.fixture(params=["sql", "mnesia"])
def storage(request: pytest.FixtureRequest) -> dict[str, dict[str, str]]:
    """Of archives alone; everything else stays where it is."""
    return {"mod_mam": {"db_type": request.param}}


async def test_an_archive_comes_whole_in_pages_of_any_size(tmp_path: Path, storage: dict[str, dict[str, str]]) -> None:
    async with ejabberd_of_its_own(tmp_path, modules=storage) as ejabberd:
        feed = await ejabberd.feed()
        one, other = ejabberd.name(), ejabberd.name()
        client = await ejabberd.client(f"{one}/a")
        for i in range(120):
            client.chat(other, f"m{i}")
        client.chat(one, "to myself")
        await client.ping()
        for size in (7, 50, 99999):
            items = await whole(feed, other, size)
            assert [body(i) for i in items] == [f"m{i}" for i in range(120)]
        first = items[0]
        live = await feed.message("m0")
        assert first.get("id") == live.element.get("archive-id")
        assert abs(int(first.get("at", "")) - int(live.element.get("at", ""))) < MINUTE
        message = first.find(MESSAGE)
        assert message is not None
        assert (message.get("from"), message.get("to")) == (f"{one}/a", other)
        assert first.get("author") is None
        mine = await whole(feed, one, 50)
        assert len({i.get("id") for i in mine}) == len(mine) == 122  # what is said to oneself is there twice
        page, last = await archive(feed, other)
        assert (len(page), last) == (50, False)
        page, last = await archive(feed, other, after=items[-1].get("id", ""))
        assert (page, last) == ([], True)


async def test_what_comes_meanwhile_is_not_missed(tmp_path: Path, storage: dict[str, dict[str, str]]) -> None:
    async with ejabberd_of_its_own(tmp_path, modules=storage) as ejabberd:
        feed = await ejabberd.feed()
        client, other = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
        for i in range(60):
            client.chat(other, f"m{i}")
        await client.ping()
        page, last = await archive(feed, other)
        assert not last
        client.chat(other, "late")
        await client.ping()
        rest, last = await archive(feed, other, after=page[-1].get("id", ""))
        assert last
        assert [body(i) for i in rest] == [f"m{i}" for i in range(50, 60)] + ["late"]


async def test_times_bound_an_archive(tmp_path: Path, storage: dict[str, dict[str, str]]) -> None:
    async with ejabberd_of_its_own(tmp_path, modules=storage) as ejabberd:
        feed = await ejabberd.feed()
        client, other = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
        client.chat(other, "now")
        at = int((await feed.message("now")).element.get("at", ""))
        hour = 3_600_000_000
        for start, end, found in (
            (at - hour, at + hour, 1),
            (at + hour, None, 0),
            (None, at - hour, 0),
            (at - MINUTE, at + MINUTE, 1),
        ):
            bounds = {k: str(v) for k, v in (("start", start), ("end", end)) if v is not None}
            items, last = await archive(feed, other, **bounds)
            assert (len(items), last) == (found, True)


async def test_a_page_ends_at_256_kilobytes_and_has_one_message_at_least(
    ejabberd: Ejabberd, feed: FeedComponent
) -> None:
    client, other = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
    for i in range(20):
        client.chat(other, f"{i}" + "x" * 60_000)
    client.chat(other, "huge" + "x" * 250_000)
    await client.ping()
    page, last = await archive(feed, other)
    assert (len(page), last) == (4, False)
    items = await whole(feed, other, 50)
    assert [body(i).rstrip("x") for i in items] == [*map(str, range(20)), "huge"]
    await client.close()


async def test_a_read_behind_something_that_is_gone_says_so(tmp_path: Path, storage: dict[str, dict[str, str]]) -> None:
    async with ejabberd_of_its_own(tmp_path, modules=storage) as ejabberd:
        feed = await ejabberd.feed()
        client, other = await ejabberd.client(f"{ejabberd.name()}/a"), ejabberd.name()
        client.chat(other, "there")
        await client.ping()
        for account in (other, ejabberd.name()):
            with pytest.raises(StanzaError, match="item-not-found"):
                await archive(feed, account, after="nosuch")
        assert await archive(feed, ejabberd.name()) == ([], True)


# ---- the archive of a room -----------------------------------------------------------------------------------------


async def test_a_room_tells_who_wrote(ejabberd: Ejabberd, rooms: FeedComponent) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    for name, whois in (("open", "anyone"), ("veiled", "moderators")):
        room = f"{name}@{ROOMS}"
        await enter(client, room, "Ann")
        await configure(client, room)
        fields = "".join(
            f"<field var='{k}'><value>{v}</value></field>"
            for k, v in (("FORM_TYPE", "http://jabber.org/protocol/muc#roomconfig"), ("muc#roomconfig_whois", whois))
        )
        await client.iq(
            "set",
            "<query xmlns='http://jabber.org/protocol/muc#owner'>"
            f"<x xmlns='jabber:x:data' type='submit'>{fields}</x></query>",
            to=room,
        )
        client.message(room, f"<body>in {name}</body>", kind="groupchat")
        live = await rooms.event(lambda e, name=name: e.body == f"in {name}")
        items = [i for i in (await archive(rooms, room))[0] if body(i)]
        assert [(i.get("id"), body(i)) for i in items] == [(live.element.get("archive-id"), f"in {name}")]
        message = items[0].find(MESSAGE)
        assert message is not None
        assert (message.get("from"), message.get("to"), message.get("type")) == (f"{room}/Ann", None, "groupchat")
        assert items[0].get("author") == one  # the archive keeps it, whoever may see it in the room
        assert message.find("{http://jabber.org/protocol/muc#user}x") is None
    listed, last = await accounts(rooms)
    assert last
    assert {f"open@{ROOMS}", f"veiled@{ROOMS}"} <= set(listed)
    await client.close()


async def test_rooms_that_nobody_is_in_are_accounts_too(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path) as ejabberd:
        client = await ejabberd.client(f"{ejabberd.name()}/a")
        await enter(client, f"kept@{ROOMS}", "Ann")
        await configure(client, f"kept@{ROOMS}")
        await client.close()
        ejabberd.stop()
        await ejabberd.start()
        rooms = await ejabberd.rooms()
        assert await accounts(rooms) == ([f"kept@{ROOMS}"], True)
        assert (await archive(rooms, f"kept@{ROOMS}"))[1]


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "condition"),
    [
        (f"<accounts xmlns='{NS}' max='0'/>", "bad-request"),
        (f"<accounts xmlns='{NS}' max='-1'/>", "bad-request"),
        (f"<accounts xmlns='{NS}' max='many'/>", "bad-request"),
        (f"<account xmlns='{NS}'/>", "bad-request"),
        (f"<account xmlns='{NS}' account='{DOMAIN}'/>", "bad-request"),
        (f"<account xmlns='{NS}' account='u1@{DOMAIN}/r'/>", "bad-request"),
        (f"<account xmlns='{NS}' account='nobody@{DOMAIN}'/>", "item-not-found"),
        (f"<account xmlns='{NS}' account='u1@elsewhere.example'/>", "item-not-found"),
        (f"<archive xmlns='{NS}'/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='u1@{DOMAIN}' max='0'/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='u1@{DOMAIN}' max='1e3'/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='u1@{DOMAIN}' after=''/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='u1@{DOMAIN}' start='yesterday'/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='u1@{DOMAIN}' end='99999999999999999'/>", "bad-request"),
        (f"<archive xmlns='{NS}' account='nobody@{DOMAIN}'/>", "item-not-found"),
        (f"<archive xmlns='{NS}' account='u1@elsewhere.example'/>", "item-not-found"),
    ],
)
async def test_nonsense_is_refused(feed: FeedComponent, request_: str, condition: str) -> None:
    with pytest.raises(StanzaError) as caught:
        await feed.ask("get", request_)
    assert caught.value.condition == condition


async def test_a_rooms_host_has_no_rosters_and_no_room_that_is_not_there(rooms: FeedComponent) -> None:
    with pytest.raises(StanzaError, match="item-not-found"):
        await archive(rooms, f"nosuch@{ROOMS}")
    with pytest.raises(StanzaError, match="service-unavailable"):
        await rooms.ask("get", f"<account xmlns='{NS}' account='tea@{ROOMS}'/>")


@pytest.mark.parametrize("name", ["accounts", "account", "archive"])
async def test_nobody_but_the_component_may_read(ejabberd: Ejabberd, name: str) -> None:
    one = ejabberd.name()
    client = await ejabberd.client(f"{one}/a")
    with pytest.raises(StanzaError) as caught:
        await client.iq("get", f"<{name} xmlns='{NS}' account='{one}'/>", to=DOMAIN)
    assert caught.value.condition == "forbidden"
    await client.close()


async def test_the_operator_may_keep_the_archive_to_the_server(tmp_path: Path) -> None:
    async with ejabberd_of_its_own(tmp_path, archive=False) as ejabberd:
        feed = await ejabberd.feed()
        for host, names in ((DOMAIN, ("accounts", "account", "archive")), (ROOMS, ("accounts", "archive"))):
            for name in names:
                with pytest.raises(StanzaError) as caught:
                    await feed.iq("get", f"<{name} xmlns='{NS}' account='u1@{host}'/>", to=host)
                assert caught.value.condition == "forbidden"


async def test_a_host_without_an_archive_says_so(ejabberd: Ejabberd, feed: FeedComponent) -> None:
    client = await ejabberd.client(f"{ejabberd.name()}/a")
    try:
        await ejabberd.control(client, "unload", module="mam")
        for host in (DOMAIN, ROOMS):
            feed.host = host
            with pytest.raises(StanzaError, match="feature-not-implemented"):
                await archive(feed, f"u1@{host}")
    finally:
        feed.host = DOMAIN
        await ejabberd.control(client, "load", module="mam")
        await client.close()
