"""Encrypted chats apart from plain ones (`[conversations] encrypted_apart`), over the wire of a whole sandbox with
either server: two conversations with one person, what is done to each, what the dialects say of both, and the option
turned on and off over what is there.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.system.box import Box, boxed, eventually
from tests.system.dialects import OwnCache, Story, SynchronizationCache, delta
from tests.system.inbox import inbox
from tests.system.person import CORRECT, STORE, SYNC, Person
from tests.system.test_conversations import archive_ids
from tests.system.test_properties import get, id_of, noticed, one, put
from tests.system.test_reading import other_client

OMEMO_2, AXOLOTL = "urn:xmpp:omemo:2", "eu.siacs.conversations.axolotl"
EME = "urn:xmpp:eme:0"
ON = "\n[conversations]\nencrypted_apart = true\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def their_box(server: str) -> AsyncIterator[Box]:
    """A sandbox of these tests' own, with the option on."""
    folder = Path(tempfile.mkdtemp(prefix="convsync-apart-"))
    os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
    try:
        async with boxed(folder, 12, server) as box:
            await box.whole()
            await turn(box, on=True)
            yield box
    finally:
        shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="session")
async def own_box(their_box: Box) -> AsyncIterator[Box]:
    """The same, whole, with nobody of an earlier test online."""
    await their_box.whole()
    yield their_box
    await their_box.everybody_leaves()


async def turn(box: Box, *, on: bool) -> None:
    """Set the option, and begin the component anew with it."""
    file = box.data / "convsync.toml"
    text = file.read_text().replace(ON, "")
    file.write_text(text + ON if on else text)
    await box.killed("component")


def seal(sender: Person, to: str, inner: str = "", *, by: str = OMEMO_2) -> str:
    """An encrypted message as clients send it; its id."""
    encrypted = f"<encrypted xmlns='{by}'><header sid='1'/><payload>AA==</payload></encrypted>"
    hint = f"<encryption xmlns='{EME}' namespace='{by}'/><body>This is encrypted.</body>{STORE}"
    return sender.message(to, encrypted + hint + inner)


async def story(asker: Person) -> Story:
    """What the account has, by two dialects that must agree; the third knows people, not conversations."""
    await asker.fresh()
    told, own = SynchronizationCache(asker, 100), OwnCache(asker, 1)
    await told.catch_up()
    await own.catch_up()
    assert told.story.keys() == own.story.keys()
    for name, facts in told.story.items():
        assert {key: own.story[name][key] for key in facts} == facts, name
    page, totals = await inbox(asker), (await delta(asker)).totals
    people = {jid for jid, _ in told.story}
    assert sorted(page.jids) == sorted(people)
    for entry in page.entries:
        assert entry.unread == sum(int(str(f["unread"])) for (jid, _), f in told.story.items() if jid == entry.jid)
    assert (page.total, page.all_unread, totals["unread"]) == (len(people), totals["unread"], page.all_unread)
    assert totals["conversations"] == sum(facts["unread"] != 0 for facts in told.story.values())
    return told.story


def facts(story: Story, *names: str) -> dict[str, list[object]]:
    """Of each kind, these facts."""
    return {kind: [found[name] for name in names] for (_, kind), found in story.items()}


async def test_plain_and_encrypted_are_two_conversations(own_box: Box) -> None:
    box = own_box
    ann, bob = await box.friends("desk", "b")
    plain, sealed = bob.write(ann.account, "plain"), seal(bob, ann.account)
    again, old = seal(bob, ann.account), seal(bob, ann.account, by=AXOLOTL)
    for client in (bob, ann):
        await client.ping()
    ids = await archive_ids(ann)
    assert facts(await story(ann), "unread", "id", "archive") == {
        "chat": [1, plain, ids[plain]],
        "omemo-2": [2, again, ids[again]],
        "axolotl": [1, old, ids[old]],
    }
    # XEP-0333: the conversation that has the message.
    ann.displayed(bob.account, sealed)
    assert facts(await story(ann), "unread", "read") == {
        "chat": [1, None],
        "omemo-2": [1, ids[sealed]],
        "axolotl": [1, None],
    }
    # The sender's view: his are apart as well, and Ann's marker is in the one.
    assert facts(await story(bob), "unread", "displayed")["omemo-2"] == [0, (await archive_ids(bob))[sealed]]
    assert facts(await story(bob), "displayed")["chat"] == [None]
    # XEP-0308, encrypted; XEP-0424; XEP-0444 by the reader.
    version = (await ann.rewrites(0))[1]
    corrected = seal(bob, ann.account, f"<replace xmlns='{CORRECT}' id='{again}'/>")
    bob.retract(ann.account, old)
    for client in (bob, ann):
        await client.ping()
    ann.react(bob.account, again, "👍")
    await ann.ping()
    assert corrected in await archive_ids(ann)
    found = await story(ann)
    assert facts(found, "unread", "id", "retracted") == {
        "chat": [1, plain, False],
        "omemo-2": [1, again, False],
        "axolotl": [0, old, True],
    }
    told, _ = await ann.rewrites(version)
    assert [(one_.tag.rpartition("}")[2], one_.get("type"), one_.get("id")) for one_ in told] == [
        ("replace", OMEMO_2, ids[again]),
        ("retract-message", AXOLOTL, ids[old]),
    ]
    log = await ann.iq("get", f"<changes xmlns='urn:convsync:0' jid='{bob.account}' kind='omemo-2'/>")
    assert [change.get("kind") for change in log[0]] == ["corrected", "reacted"]
    assert {row.get("kind") for row in (await delta(ann, kind="omemo-2")).element if row.get("jid")} == {"omemo-2"}
    await box.sound(ann.account, bob.account)


async def test_properties_and_reading_are_of_one_conversation(own_box: Box) -> None:
    box = own_box
    ann, bob = await box.friends("desk", "b")
    web, other = await box.person(ann.account, "web"), await other_client(box, ann)
    plain, sealed = bob.write(ann.account, "plain"), seal(bob, ann.account)
    for client in (bob, ann, web, other):
        await client.ping()
    ids = await archive_ids(ann)
    await story(ann)
    # A set names its type, and the others are told of that one.
    conversation = f"<conversation jid='{bob.account}' type='{OMEMO_2}' pinned='7' mute='0'/>"
    await ann.iq("set", f"<query xmlns='{SYNC}'>{conversation}</query>")
    assert [(n.get("type"), n.get("pinned")) for n in await noticed(web, 1)] == [(OMEMO_2, "7")]
    found = await story(ann)
    assert facts(found, "pinned")["chat"] == [0]
    assert facts(found, "pinned", "unread")["omemo-2"] == [7, 1]
    # To read the encrypted one says nothing by XEP-0490 while something plain before it is unread.
    await put(ann, one(bob.account, kind="omemo-2", read=ids[sealed]))
    assert facts(await story(ann), "unread") == {"chat": [1], "omemo-2": [0]}
    await put(ann, one(bob.account, read=ids[plain]))
    await other.hears((bob.account, ids[sealed], ann.account))
    assert await other.kept() == {(bob.account, ids[sealed], ann.account)}
    assert id_of(await get(ann, bob.account), "read") == ids[plain]
    # What a client says by XEP-0490 that shows one chat is read in both.
    bob.write(ann.account, "more")
    newest = seal(bob, ann.account)
    for client in (bob, ann, web, other):
        await client.ping()
    ids = await archive_ids(ann)
    assert facts(await story(ann), "unread") == {"chat": [1], "omemo-2": [1]}
    await other.read(bob.account, ids[newest])
    assert facts(await story(ann), "unread", "read") == {"chat": [0, ids[newest]], "omemo-2": [0, ids[newest]]}
    await box.sound(ann.account, bob.account)


async def test_a_mute_keeps_back_the_pushes_of_its_own_conversation(own_box: Box) -> None:
    box = own_box
    ann, bob = await box.friends("desk", "b")
    seal(bob, ann.account)
    await bob.ping()
    await story(ann)
    app = await box.person(ann.account, "phone", presence=False)
    phone = await box.phone(app)
    await put(ann, one(bob.account, kind="omemo-2", muted="forever"))
    await app.close()
    await ann.close()
    seal(bob, ann.account)
    await bob.ping()
    await box.settled(ann.account)
    assert box.pushes(*phone.tokens) == []
    bob.write(ann.account, "plain")
    await box.pushed(*phone.tokens, kind="message")
    assert {(job["kind"], job["about"]) for job in await box.jobs(ann.account)} == {("message", "chat")}


async def test_turned_off_what_is_apart_stays_and_what_comes_is_plain(own_box: Box) -> None:
    box = own_box
    ann, bob = await box.friends("desk", "b")
    first = seal(bob, ann.account)
    await bob.ping()
    assert facts(await story(ann), "unread") == {"omemo-2": [1], "chat": [0]}
    await turn(box, on=False)
    second = seal(bob, ann.account)
    for client in (bob, ann):
        await client.ping()
    assert facts(await story(ann), "unread", "id") == {"omemo-2": [1, first], "chat": [1, second]}
    ann.displayed(bob.account, first)
    seal(bob, ann.account, f"<replace xmlns='{CORRECT}' id='{first}'/>")
    bob.retract(ann.account, second)
    for client in (ann, bob, ann):
        await client.ping()

    async def told() -> bool:
        return facts(await story(ann), "unread", "retracted") == {"omemo-2": [0, False], "chat": [0, True]}

    await eventually(told)
    assert [what for what, _ in await box.changes(ann.account, bob.account)] == ["corrected", "retracted"]
    await turn(box, on=True)
    seal(bob, ann.account)
    await bob.ping()
    assert facts(await story(ann), "unread") == {"omemo-2": [1], "chat": [0]}
    await box.sound(ann.account, bob.account)
