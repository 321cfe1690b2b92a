"""Our own dialect and the widened Client Synchronization over the wire of a whole sandbox: properties in batches, what
the other resources are told, change logs, one conversation as it stands, rooms (docs/dialects.md).
"""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest

from tests.system.box import Box, eventually
from tests.system.person import CHAT, CORRECT, REWRITE, SYNC, Person, name
from tests.system.room import Room
from tests.system.xmpp_client import CLIENT, StanzaError

OWN = "urn:convsync:0"
MUC = "http://jabber.org/protocol/muc"
DISCO = "http://jabber.org/protocol/disco#info"


async def refused(asked: object, condition: str, kind: str, text: str = "") -> None:
    with pytest.raises(StanzaError) as caught:
        await asked  # type: ignore[misc]
    assert (caught.value.condition, caught.value.type) == (condition, kind)
    assert text in "".join(caught.value.stanza.itertext())


def one(jid: str, **properties: str) -> str:
    attributes = "".join(f" {key.replace('_', '-')}='{value}'" for key, value in properties.items())
    return f"<conversation jid='{jid}'{attributes}/>"


async def put(person: Person, *conversations: str) -> dict[str, int]:
    """Sets; the versions that the answer names."""
    answer = await person.iq("set", f"<set xmlns='{OWN}'>{''.join(conversations)}</set>")
    found = answer.find(f"{{{OWN}}}set")
    assert found is not None
    return {item.get("jid", ""): int(item.get("version", "")) for item in found}


async def get(person: Person, jid: str, kind: str = "chat") -> ET.Element:
    answer = await person.iq("get", f"<conversation xmlns='{OWN}' jid='{jid}' kind='{kind}'/>")
    return answer[0]


async def log(person: Person, jid: str, since: int = 0, more: str = "", kind: str = "chat") -> ET.Element:
    answer = await person.iq("get", f"<changes xmlns='{OWN}' jid='{jid}' kind='{kind}' since='{since}' {more}/>")
    return answer[0]


def id_of(conversation: ET.Element, pointer: str) -> str | None:
    found = conversation.find(f"{{{OWN}}}{pointer}")
    return None if found is None else found.get("id")


def is_notice(element: ET.Element) -> bool:
    return name(element) == "iq" and element.get("type") == "set" and element[0].tag == f"{{{SYNC}}}query"


async def noticed(person: Person, many: int) -> list[ET.Element]:
    """The conversations of so many live notices, in the order in which they came."""

    async def look() -> list[ET.Element]:
        found = [element[0][0] for element in person.received if is_notice(element)]
        assert len(found) >= many, found
        return found

    return await eventually(look)


def jid_and_type(element: ET.Element) -> tuple[str | None, str | None]:
    return element.get("jid"), element.get("type")


async def written(person: Person, *others: Person) -> None:
    """Everybody has written to the person, who knows it."""
    for other in others:
        other.write(person.account, f"from {other.account}")
        await other.ping()
    assert len((await person.sync()).items) == len(others)


# ---- set -------------------------------------------------------------------------------------------------------------


async def test_several_properties_of_several_conversations_at_once(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    other, asleep = await box.person(ann.account, "other"), await box.person(ann.account, "asleep", presence=False)
    await written(ann, bob, carl)
    stamp = (await ann.sync()).stamp
    until = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    versions = await put(
        ann,
        one(bob.account, kind="chat", pinned="5", muted="forever", status="archived", notify="never"),
        one(carl.account, muted_until=until.strftime("%Y-%m-%dT%H:%M:%SZ"), marked_unread="true", notify="on-mention"),
    )
    assert list(versions) == [bob.account, carl.account]
    assert stamp < versions[bob.account] < versions[carl.account]
    told = await noticed(other, 2)
    assert [(item.get("jid"), item.get("status"), item.get("pinned")) for item in told] == [
        (bob.account, "archived", "5"),
        (carl.account, "active", "0"),
    ]
    assert told[1].get("mute") == str(int(until.timestamp()))
    # Where presence is not known just then, Ann hears it herself (`Live.notices`); who is not available never does.
    assert [element for element in asleep.received if is_notice(element)] == []
    assert (await ann.sync(stamp)).stamp == versions[carl.account]
    first, second = await get(ann, bob.account), await get(other, carl.account)
    shown = ("version", "status", "pinned", "muted", "muted-until", "marked-unread", "notify", "unread")
    assert [first.get(key) for key in shown] == [
        *(str(versions[bob.account]), "archived", "5", "forever", None, "false", "never", "1"),
    ]
    assert [second.get(key) for key in shown] == [
        *(str(versions[carl.account]), "active", "0", None, f"{until:%Y-%m-%dT%H:%M:%S}.000000Z", "true"),
        *("on-mention", "1"),
    ]
    # And back again.
    await put(ann, one(bob.account, muted="no", notify="default", status="active", pinned="0"))
    again = await get(ann, bob.account)
    assert [again.get(key) for key in ("muted", "notify", "status", "pinned")] == [None, "default", "active", "0"]


@pytest.mark.one_server
async def test_what_stays_as_it_was_keeps_its_version_and_tells_nobody(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    other = await box.person(ann.account, "other")
    await written(ann, bob)
    once = await put(ann, one(bob.account, pinned="5"))
    assert await put(ann, one(bob.account, pinned="5")) == once
    await other.ping()
    assert len(await noticed(other, 1)) == 1


@pytest.mark.one_server
async def test_a_conflict_changes_nothing_and_tells_nobody(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    other = await box.person(ann.account, "other")
    await written(ann, bob, carl)
    seen = (await get(ann, bob.account)).get("version", "")
    bob.write(ann.account, "something new")
    await bob.ping()
    before = await ann.sync()
    await refused(
        put(ann, one(carl.account, pinned="1"), one(bob.account, status="deleted", if_version=seen)),
        *("conflict", "cancel"),
    )
    await other.ping()
    assert [item.seen for item in (await ann.sync()).items] == [item.seen for item in before.items]
    assert (await ann.sync(before.stamp)).items == []
    assert [e for e in other.received if is_notice(e)] == []
    now = (await get(ann, bob.account)).get("version", "")
    versions = await put(ann, one(carl.account, pinned="1"), one(bob.account, status="archived", if_version=now))
    assert int(now) < versions[bob.account]


@pytest.mark.one_server
async def test_what_cannot_be_set(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    before = await ann.sync()
    good = one(bob.account, pinned="9")
    for bad, text in (
        (one(bob.account), "nothing"),
        (one(bob.account, colour="red", pinned="1"), "'colour'"),
        (one(bob.account, kind="group ", pinned="1"), "'kind'"),
        (one(bob.account, kind="group", pinned="-1"), "'pinned'"),
        (one(bob.account, kind="group", muted="soon"), "'muted'"),
        (one(bob.account, kind="group", muted_until="soon"), "'muted-until'"),
        (one(bob.account, kind="group", status="gone"), "'status'"),
        (one(bob.account, kind="group", notify="often"), "'notify'"),
        (one(bob.account, kind="group", marked_unread=""), "'marked-unread'"),
        (one(bob.account, kind="group", pinned="1", if_version="x"), "'if-version'"),
    ):
        await refused(put(ann, good, bad), "bad-request", "modify", text)
    await refused(put(ann), "bad-request", "modify", "'conversation'")
    for unknown in (one("nobody@localhost", pinned="1"), one(bob.account, kind="group", pinned="1")):
        await refused(put(ann, good, unknown), "item-not-found", "cancel")
    many = [one(f"user{number}@localhost", pinned="1") for number in range(101)]
    await refused(put(ann, *many), "policy-violation", "modify", "100")
    assert [item.seen for item in (await ann.sync()).items] == [item.seen for item in before.items]
    assert (await ann.sync(before.stamp)).items == []


async def test_another_account_cannot_be_asked_or_set(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    for kind, payload in (
        ("set", f"<set xmlns='{OWN}'>{one(bob.account, pinned='1')}</set>"),
        ("get", f"<conversation xmlns='{OWN}' jid='{bob.account}'/>"),
        ("get", f"<changes xmlns='{OWN}' jid='{bob.account}'/>"),
    ):
        await refused(bob.iq(kind, payload, to=ann.account), "forbidden", "auth")
    assert (await get(ann, bob.account)).get("pinned") == "0"


async def test_the_account_says_that_it_has_this(box: Box) -> None:
    ann = await box.person()
    answer = await ann.iq("get", f"<query xmlns='{DISCO}'/>", to=ann.account)
    features = {feature.get("var") for feature in answer.iter(f"{{{DISCO}}}feature")}
    assert {OWN, SYNC, REWRITE} <= features


# ---- changes and one conversation ------------------------------------------------------------------------------------


async def test_what_happened_in_a_conversation_since_a_version(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    first, second = bob.write(ann.account, "fisrt"), bob.write(ann.account, "oops")
    await bob.ping()
    since = int((await get(ann, bob.account)).get("version", ""))
    bob.correct(ann.account, first, "first")
    bob.retract(ann.account, second)
    bob.react(ann.account, first, "🎉")
    bob.call("propose", ann.account, "ring-1")
    bob.call("retract", ann.account, "ring-1")
    await bob.ping()
    answer = await log(ann, bob.account, since)
    ids = {message.get("id"): archive_id for archive_id, message in await ann.archive()}
    assert [(item.get("kind"), item.get("id")) for item in answer] == [
        ("corrected", ids[first]),
        ("retracted", ids[second]),
        ("reacted", ids[first]),
        ("call-ended", "ring-1"),
    ]
    corrected, _, reacted, ended = answer
    assert corrected.findtext(f"{CLIENT}message/{CLIENT}body") == "first"
    assert corrected.find(f"{CLIENT}message/{{{CORRECT}}}replace") is not None
    assert (reacted.get("by"), ended.get("detail")) == (bob.jid, "missed")
    versions = [int(item.get("version", "")) for item in answer]
    assert versions == sorted(versions)
    assert (answer.get("version"), answer.get("reset")) == ((await get(ann, bob.account)).get("version"), None)
    assert len(await log(ann, bob.account, versions[1])) == 2
    assert len(await log(ann, bob.account, versions[-1])) == 0
    short = await log(ann, bob.account, since, "max='3'")
    assert (short.get("reset"), len(short)) == ("true", 0)
    assert (await log(ann, bob.account, 1)).get("reset") == "true"


@pytest.mark.one_server
async def test_logs_that_nobody_has(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    await refused(log(ann, "nobody@localhost"), "item-not-found", "cancel")
    await refused(log(ann, bob.account, kind="group"), "item-not-found", "cancel")
    await refused(get(ann, "nobody@localhost"), "item-not-found", "cancel")
    await refused(log(ann, bob.account, more="until='3'"), "bad-request", "modify", "'until'")
    await refused(log(ann, bob.account, more="max='all'"), "bad-request", "modify", "'max'")


async def test_one_conversation_has_its_counters_and_pointers(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    mine = [ann.write(bob.account, text) for text in ("one", "two")]
    yours = [bob.write(ann.account, text) for text in ("three", "four", "five")]
    await ann.ping()
    await bob.ping()
    bob.displayed(ann.account, mine[0])
    bob.received_it(ann.account, mine[1])
    await bob.ping()
    ann.displayed(bob.account, yours[0])
    await ann.ping()
    ids = {message.get("id"): archive_id for archive_id, message in await ann.archive()}
    found = await get(ann, bob.account)
    assert (found.get("unread"), found.get("mentions")) == ("2", "0")
    pointers = {pointer: id_of(found, pointer) for pointer in ("read", "displayed", "delivered", "unread-mention")}
    assert pointers == {
        "read": ids[yours[0]], "displayed": ids[mine[0]], "delivered": ids[mine[1]], "unread-mention": None,
    }  # fmt: skip
    listed = await ann.iq("get", f"<query xmlns='{SYNC}'/>")
    told = {name(e): e.get("id") for e in listed.iter() if name(e) in ("displayed", "delivered")}
    assert told == {"displayed": ids[mine[0]], "delivered": ids[mine[1]]}


@pytest.mark.one_server
async def test_a_deleted_conversation_says_so(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    versions = await put(ann, one(bob.account, status="deleted"))
    gone = await get(ann, bob.account)
    assert (gone.get("status"), gone.get("version"), gone.get("unread")) == (
        *("deleted", str(versions[bob.account]), None),
    )
    await refused(put(ann, one(bob.account, pinned="1")), "item-not-found", "cancel")


async def test_who_asks_for_a_subscription_is_shown_until_answered(box: Box) -> None:
    ann, eve = await box.person(), await box.person()
    eve.send(f"<presence to='{ann.account}' type='subscribe'/>")
    await eve.ping()

    async def asks() -> list[tuple[str | None, str | None]]:
        answer = await ann.iq("get", f"<query xmlns='{SYNC}'/>")
        return [(e.get("type"), e.get("from")) for e in answer.iter(f"{CLIENT}presence")]

    assert await asks() == [("subscribe", eve.account)]
    assert (await get(ann, eve.account)).get("requests-presence") == "true"
    ann.send(f"<presence to='{eve.account}' type='subscribed'/>")
    await ann.ping()
    assert await asks() == []
    assert (await get(ann, eve.account)).get("requests-presence") is None


# ---- rooms -----------------------------------------------------------------------------------------------------------


async def test_a_room_is_listed_set_and_logged_like_any_conversation(box: Box) -> None:
    ann, bob = await box.person(), await box.person()
    room = await Room.open(box, ann)
    await room.admit(bob)
    said = await room.say(ann, "tea?")
    mention = await room.mention(ann, bob.account)
    await ann.ping()
    answer = await bob.iq("get", f"<query xmlns='{SYNC}'/>")
    (listed,) = answer.iter(f"{{{SYNC}}}conversation")
    assert jid_and_type(listed) == (room.jid, MUC)
    told = {name(e): e.get("id") for e in listed.iter() if name(e) in ("unread-mention", "stanza-id")}
    assert told == {"unread-mention": mention, "stanza-id": mention}
    stamp = int(answer[0].get("stamp", ""))
    for kind, pinned in ((MUC, "5"), (CHAT, "6")):
        payload = f"<conversation jid='{room.jid}' type='{kind}' pinned='{pinned}' mute='60'/>"
        await bob.iq("set", f"<query xmlns='{SYNC}'>{payload}</query>")
    found = await get(bob, room.jid, "group")
    assert [found.get(key) for key in ("unread", "mentions", "pinned")] == ["2", "1", "6"]
    assert id_of(found, "unread-mention") == mention
    await room.retract(ann, said)
    await ann.ping()
    (change,) = await log(bob, room.jid, stamp, kind="group")
    assert (change.get("kind"), change.get("id")) == ("retracted", said)
    (event,), _ = await bob.rewrites(stamp)
    assert (name(event), event.get("id"), event.get("by"), event.get("conversation"), event.get("type")) == (
        *("retract-message", said, room.jid, room.jid, MUC),
    )


@pytest.mark.without("ejabberd", "23.01 knows no moderation (XEP-0425)")
async def test_a_moderated_message_says_who_did_it(box: Box) -> None:
    ann, bob = await box.person(), await box.person()
    room = await Room.open(box, ann)
    await room.enter(bob, "Bob")
    rude = await room.say(bob, "rude")
    await bob.ping()
    stamp = (await bob.sync()).stamp
    moderate = "<moderate xmlns='urn:xmpp:message-moderate:0'><retract xmlns='urn:xmpp:message-retract:0'/></moderate>"
    await ann.iq("set", f"<apply-to xmlns='urn:xmpp:fasten:0' id='{rude}'>{moderate}</apply-to>", to=room.jid)
    (change,) = await log(bob, room.jid, stamp, kind="group")
    (event,), _ = await bob.rewrites(stamp)
    assert (change.get("kind"), change.get("id"), event.get("id")) == ("moderated", rude, rude)
    assert change.get("by") == event.get("by") == f"{room.jid}/Owner"


async def test_an_invitation_is_an_empty_room(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    room = await Room.open(box, ann)
    ann.message(bob.account, f"<x xmlns='jabber:x:conference' jid='{room.jid}'/>")
    await ann.ping()
    found = await get(bob, room.jid, "group")
    assert (found.get("invited-by"), found.get("unread")) == (ann.account, "0")
    item = (await bob.sync()).of(room.jid)
    assert item is not None
    assert (item.unread, item.last, item.status) == (0, None, "active")
