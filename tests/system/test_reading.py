"""A client reads by a set of our own dialect, over the wire of a whole sandbox: what the account's other clients, its
phones and its own storage (XEP-0490) learn of it, and the other way round (docs/protocol.md §5.9, docs/feed.md §8.3).
"""

import aiohttp

from tests.system.box import Box, eventually
from tests.system.displayed_client import DisplayedClient, Marker
from tests.system.live_mirror import has, listening, live_of
from tests.system.person import Person
from tests.system.room import Room
from tests.system.test_conversations import archive_ids, row
from tests.system.test_properties import get, id_of, noticed, one, put, refused
from tests.system.xmpp_client import XmppClient


async def other_client(box: Box, person: Person, resource: str = "other") -> DisplayedClient:
    """Of the same account; knows XEP-0490 and nothing of ours."""
    password = next(a["password"] for a in box.ready["accounts"] if a["jid"] == person.account)
    port = box.ready["c2s"]["port"]
    client = await DisplayedClient.connect(f"{person.account}/{resource}", password, port, presence=False)
    await client.listen()
    return client


async def written(bob: Person, ann: Person, many: int, *sessions: XmppClient) -> list[str]:
    """So many messages; the ids that Ann's archive gave. On ejabberd each of Ann's sessions takes them by itself."""
    sent = [bob.write(ann.account, f"number {number}") for number in range(many)]
    for client in (bob, ann, *sessions):
        await client.ping()
    ids = await archive_ids(ann)
    return [ids[one] for one in sent]


async def echoes(box: Box) -> float:
    """How many published markers have come back so far."""
    async with aiohttp.ClientSession() as session, session.get(box.ready["http"]["base"] + "/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith('convsync_ignored_events_total{why="echo"}'))


async def state(person: Person, peer: str, kind: str = "chat") -> tuple[str | None, str | None, str | None]:
    """Unread, marked as unread, and the pointer, in our own dialect."""
    found = await get(person, peer, kind)
    return found.get("unread"), found.get("marked-unread"), id_of(found, "read")


async def test_a_part_is_read_for_every_client(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    phone, other = await box.person(ann.account, "phone"), await other_client(box, ann)
    ids = await written(bob, ann, 5, phone, other)
    stamp = (await phone.sync()).stamp
    versions = await put(ann, one(bob.account, read=ids[2]))
    assert await state(phone, bob.account) == ("2", "false", ids[2])
    # Client Synchronization, asked and unasked.
    (item,) = (await phone.sync(stamp)).items
    assert (item.jid, item.unread, item.read_to) == (bob.account, 2, ids[2])
    assert stamp < versions[bob.account]
    assert [(told.get("jid"), told[0][0].get("count")) for told in await noticed(phone, 1)] == [(bob.account, "2")]
    # XEP-0490.
    await other.hears((bob.account, ids[2], ann.account))
    assert await other.kept() == {(bob.account, ids[2], ann.account)}
    # A new message counts from there.
    (last,) = await written(bob, ann, 1, phone, other)
    assert await state(ann, bob.account) == ("3", "false", ids[2])
    await put(phone, one(bob.account, read=last))
    await other.hears((bob.account, last, ann.account))
    assert await other.kept() == {(bob.account, last, ann.account)}
    assert await state(ann, bob.account) == ("0", "false", last)
    await box.sound(ann.account)
    await other.close()


async def test_what_comes_back_from_the_own_storage_changes_nothing(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    other = await other_client(box, ann)
    ids = await written(bob, ann, 2, other)
    before = await echoes(box)
    # Put back for later in the same breath: an echo that was taken for a marker would take the flag away.
    versions = await put(ann, one(bob.account, read=ids[0], marked_unread="true"))
    await other.hears((bob.account, ids[0], ann.account))

    async def came_back() -> bool:
        return await echoes(box) > before

    await eventually(came_back)
    assert (await row(box, ann, bob.account))["version"] == versions[bob.account]
    assert await state(ann, bob.account) == ("1", "true", ids[0])
    # Another client's marker for the same message is its owner's word, and takes the flag away.
    await other.read(bob.account, ids[0])
    await other.ping()
    assert await state(ann, bob.account) == ("1", "false", ids[0])
    await other.close()


async def test_who_follows_hears_of_it_and_not_of_what_comes_back(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    live = await listening(box, ann)
    ids = await written(bob, ann, 2, live.session)
    await live.until(has(bob.account, unread="2"))
    before = await echoes(box)
    versions = await put(ann, one(bob.account, read=ids[0]))
    told = await live.until(lambda e: e.get("jid") == bob.account and id_of(e, "read") == ids[0])
    assert told.get("unread") == "1"

    async def came_back() -> bool:
        return await echoes(box) > before

    await eventually(came_back)
    await ann.fresh()
    await live.session.ping()
    assert live_of(live.session)[-1].get("version") == str(versions[bob.account])
    await live.agrees()


async def test_an_older_one_changes_nothing_and_is_not_published(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    ids = await written(bob, ann, 3)
    once = await put(ann, one(bob.account, read=ids[1]))
    assert await put(ann, one(bob.account, read=ids[0])) == once
    assert await put(ann, one(bob.account, read=ids[1])) == once
    assert await state(ann, bob.account) == ("1", "false", ids[1])
    last = await put(ann, one(bob.account, read=ids[2], if_version=str(once[bob.account])))
    assert once[bob.account] < last[bob.account]
    other = await other_client(box, ann)

    async def published() -> bool:
        return await other.kept() == {(bob.account, ids[2], ann.account)}

    await eventually(published)
    await box.sound(ann.account)
    await other.close()


async def test_what_cannot_be_read_keeps_the_rest_as_it_was(box: Box) -> None:
    ann, bob, carl = await box.friends("desk", "b", "c")
    other = await other_client(box, ann)
    ids, theirs = await written(bob, ann, 2, other), await written(carl, ann, 1, other)
    room = await Room.open(box, carl)
    await room.admit(ann)
    said = await room.say(carl, "tea?")
    before = await ann.sync()
    good = one(carl.account, read=theirs[0], pinned="3")
    for bad, condition in (
        (one(bob.account, read="never-heard-of"), "item-not-found"),
        (one(bob.account, read=theirs[0]), "item-not-found"),
        (one(bob.account, read=said), "item-not-found"),
        (one(bob.account, kind="group", read=ids[0]), "item-not-found"),
        (one(room.jid, kind="group", read=ids[0]), "item-not-found"),
        (one(room.jid, read=said), "item-not-found"),
        (one(bob.account, read=ids[1], if_version="1"), "conflict"),
    ):
        await refused(put(ann, good, bad), condition, "cancel")
    await refused(put(ann, good, one(bob.account, read="")), "bad-request", "modify", "'read'")
    await refused(put(bob, one(ann.account, read=ids[0])), "item-not-found", "cancel")  # Bob's archive has another id
    assert [item.seen for item in (await ann.sync()).items] == [item.seen for item in before.items]
    assert (await ann.sync(before.stamp)).items == []
    await put(ann, good, one(bob.account, read=ids[0]), one(room.jid, kind="group", read=said))
    markers: list[Marker] = [
        (carl.account, theirs[0], ann.account),
        (bob.account, ids[0], ann.account),
        (room.jid, said, room.jid),
    ]
    for marker in markers:
        await other.hears(marker)
    assert set(other.heard) == set(markers)  # ejabberd says each twice, whoever publishes
    await box.sound(ann.account, bob.account)
    await other.close()


async def test_a_room_is_read_by_one_member_alone(box: Box) -> None:
    ann, bob, carl = await box.person(), await box.person(), await box.person()
    room = await Room.open(box, ann)
    await room.admit(bob, carl)
    other = await other_client(box, bob)
    ids = [await room.say(ann, f"number {number}") for number in range(3)]
    await put(bob, one(room.jid, kind="group", read=ids[1]))
    assert await state(bob, room.jid, "group") == ("1", "false", ids[1])
    assert await room.told(carl) == (3, "number 2")
    await other.hears((room.jid, ids[1], room.jid))
    await bob.fresh()
    await put(bob, one(room.jid, kind="group", read=ids[2]))
    assert await room.told(bob) == (0, "number 2")
    await refused(put(carl, one(room.jid, kind="group", read="never-heard-of")), "item-not-found", "cancel")
    await box.sound(ann.account, bob.account, carl.account)
    await other.close()


async def test_the_phone_that_was_woken_takes_its_notification_away(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    await ann.close()
    sent = bob.write(ann.account, "read at the desk")
    await box.pushed(phone.token)
    await box.fetched(ann)
    desk = await box.person(ann.account, "desk", presence=False)
    await put(desk, one(bob.account, read=(await archive_ids(desk))[sent]))
    (push,) = await box.pushed(phone.token, kind="read")
    assert push["push_type"] == "alert"


async def test_what_is_read_before_the_phone_is_woken_wakes_nobody(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    await ann.close()
    first = bob.write(ann.account, "wakes")
    await box.pushed(phone.token)
    second = bob.write(ann.account, "waits for its turn")
    await bob.ping()
    desk = await box.person(ann.account, "desk", presence=False)
    ids = await archive_ids(desk)
    await put(desk, one(bob.account, read=ids[second]))
    await desk.fresh()
    jobs = [(job["kind"], job["state"]) for job in await box.jobs(ann.account) if job["kind"] == "message"]
    assert len(jobs) == 2
    await box.sound(ann.account)
    assert first in ids
    assert await state(desk, bob.account) == ("0", "false", ids[second])


async def test_what_a_client_of_xep_0490_reads_is_read_for_ours(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    other = await other_client(box, ann)
    ids = await written(bob, ann, 4, other)
    await other.read(bob.account, ids[1])
    await other.ping()
    assert await state(ann, bob.account) == ("2", "false", ids[1])
    item = (await ann.sync()).of(bob.account)
    assert item is not None
    assert (item.unread, item.read_to) == (2, ids[1])
    # From there on both ways of reading go on.
    await put(ann, one(bob.account, read=ids[2]))
    await other.hears((bob.account, ids[2], ann.account))
    await other.read(bob.account, ids[3])
    await other.ping()
    assert await state(ann, bob.account) == ("0", "false", ids[3])
    await box.sound(ann.account)
    await other.close()
