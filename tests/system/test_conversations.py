"""What people do in one-to-one chats, from one real client to the other's list, rows and phone (PROTOCOLS §5)."""

import pytest

from tests.system.box import Box, Row, eventually
from tests.system.person import JMI, STORE, Person
from tests.system.xmpp_client import CLIENT

AXOLOTL = "eu.siacs.conversations.axolotl"
CHATSTATES = "http://jabber.org/protocol/chatstates"
INVITES = "urn:xmpp:call-invites:0"


async def row(box: Box, owner: Person, peer: str) -> Row:
    """The owner's conversation, after everything that was sent before."""
    await owner.fresh()
    found = await box.conversation(owner.account, peer)
    assert found is not None, peer
    return found


async def archive_ids(person: Person) -> dict[str, str]:
    """Message id → the id that the person's own archive gave."""
    return {message.get("id", ""): archive_id for archive_id, message in await person.archive()}


async def counts(owner: Person, peer: str) -> tuple[int | None, str | None]:
    """Unread, and the text of the last message, as the owner's client is told."""
    item = (await owner.sync()).of(peer)
    assert item is not None, peer
    return item.unread, item.body


# ---- what is said about messages -------------------------------------------------------------------------------------


async def test_a_reaction_is_told_and_neither_counts_nor_shows(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    said = bob.write(ann.account, "lunch?")
    await bob.ping()
    stamp = (await bob.sync()).stamp
    ann.react(bob.account, said, "👍", "🎉")
    await ann.ping()
    (changed,) = (await bob.sync(stamp)).items
    assert (changed.unread, changed.body) == (0, "lunch?")
    assert await counts(ann, bob.account) == (1, "lunch?")
    for one, other in ((ann, bob), (bob, ann)):
        named = (await archive_ids(one))[said]
        assert await box.changes(one.account, other.account) == [("reacted", named)]


async def test_a_receipt_moves_the_delivered_pointer_and_a_marker_both(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    first, second = (bob.write(ann.account, text) for text in ("one", "two"))
    await bob.ping()
    ids = await archive_ids(bob)
    ann.received_it(bob.account, first)
    await ann.ping()
    pointers = await row(box, bob, ann.account)
    assert (pointers["delivered_id"], pointers["displayed_id"]) == (ids[first], None)
    ann.displayed(bob.account, second)
    ann.received_it(bob.account, first)
    await ann.ping()
    pointers = await row(box, bob, ann.account)
    assert (pointers["delivered_id"], pointers["displayed_id"]) == (ids[second], ids[second])
    assert (await counts(ann, bob.account), await counts(bob, ann.account)) == ((0, "two"), (0, "two"))


async def test_corrections_that_name_the_correction_before_them_correct_the_message(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    first = bob.write(ann.account, "se you")
    second = bob.correct(ann.account, first, "see yuo")
    bob.correct(ann.account, second, "see you")
    await bob.ping()
    assert await counts(ann, bob.account) == (1, "see you")
    named = (await archive_ids(ann))[first]
    assert await box.changes(ann.account, bob.account) == [("corrected", named)] * 2


async def test_a_message_that_is_taken_back_is_not_unread(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    stays, goes = (bob.write(ann.account, text) for text in ("stays", "goes"))
    bob.retract(ann.account, goes)
    ann.retract(bob.account, stays)  # it is not hers
    await bob.ping()
    await ann.ping()
    item = (await ann.sync()).of(bob.account)
    assert item is not None
    assert (item.unread, item.retracted, item.body) == (1, True, None)
    assert await box.changes(ann.account, bob.account) == [("retracted", (await archive_ids(ann))[goes])]
    await box.sound(ann.account, bob.account)


async def test_what_could_not_be_delivered_is_noted_as_failed(box: Box) -> None:
    ann, nobody = await box.person(), "nobody@localhost"
    sent = ann.write(nobody, "is anybody there?")
    await ann.wait_for(lambda e: e.get("type") == "error" and e.get("id") == sent, past=True)
    assert await counts(ann, nobody) == (0, "is anybody there?")
    assert await box.changes(ann.account, nobody) == [("failed", (await archive_ids(ann))[sent])]


# ---- how far it is read ----------------------------------------------------------------------------------------------


async def test_read_in_part_and_then_on_another_device(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    phone = await box.person(ann.account, "phone")
    sent = [bob.write(ann.account, f"number {number}") for number in range(5)]
    for one in (ann, phone):  # with ejabberd one of the sessions archives what both are shown
        await one.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "number 4", past=True)
    ids = await archive_ids(ann)
    ann.displayed(bob.account, sent[1])
    await ann.ping()
    assert await counts(phone, bob.account) == (3, "number 4")
    await phone.read(bob.account, ids[sent[3]])
    await phone.ping()
    item = (await ann.sync()).of(bob.account)
    assert item is not None
    assert (item.unread, item.read_to) == (1, ids[sent[3]])
    await phone.read(bob.account, ids[sent[0]])  # back is no way
    await phone.read(bob.account, "never-heard-of")
    await phone.ping()
    assert await counts(ann, bob.account) == (1, "number 4")
    await box.sound(ann.account)


async def test_reading_elsewhere_is_told_to_the_phone_that_was_woken(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    await ann.close()
    sent = bob.write(ann.account, "read at the desk")
    await box.pushed(phone.token)
    await box.fetched(ann)
    desk = await box.person(ann.account, "desk", presence=False)
    await desk.read(bob.account, (await archive_ids(desk))[sent])
    (push,) = await box.pushed(phone.token, kind="read")
    assert (push["push_type"], (await row(box, desk, bob.account))["unread"]) == ("alert", 0)


# ---- one account, several sessions -----------------------------------------------------------------------------------


async def test_what_another_device_sent_is_in_the_delta_and_counts_nowhere(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    desk = await box.person(ann.account, "desk", carbons=True)
    stamp = (await ann.sync()).stamp
    desk.write(bob.account, "from my desk")
    await desk.ping()
    delta = await ann.sync(stamp)
    assert [(item.jid, item.unread, item.body) for item in delta.items] == [(bob.account, 0, "from my desk")]
    assert await counts(bob, ann.account) == (1, "from my desk")


async def test_a_message_to_several_resources_with_carbons_counts_once(box: Box) -> None:
    ann, bob = await box.friends("one", "b", carbons=True)
    others = [await box.person(ann.account, resource, carbons=True) for resource in ("two", "three")]
    bob.write(ann.account, "to all")
    to_one = bob.write(ann.jid, "to one")
    for other in others:
        await other.wait_for(lambda e: any(m.get("id") == to_one for m in e.iter(f"{CLIENT}message")), past=True)
    assert await counts(ann, bob.account) == (2, "to one")
    await box.sound(ann.account, bob.account)


async def test_a_note_to_oneself_is_one_message_and_not_unread(box: Box) -> None:
    ann = await box.person()
    two = await box.person(ann.account, "two", carbons=True)
    note = ann.write(ann.account, "buy milk")
    for one in (ann, two):  # in either's session it may have been taken down
        await one.wait_for(lambda e: any(m.get("id") == note for m in e.iter(f"{CLIENT}message")), past=True)
        await one.ping()
    assert await counts(ann, ann.account) == (0, "buy milk")
    assert len(await box.sql("SELECT 1 FROM message WHERE account = $1", ann.account)) == 1


async def test_what_is_resent_when_a_stream_is_resumed_counts_once(box: Box) -> None:
    ann, bob = await box.friends("phone", "b", sm=True)
    ann.forgetful = True
    bob.write(ann.account, "before")
    await bob.acked()
    await ann.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "before", past=True)
    await ann.cut()
    bob.write(ann.account, "meanwhile")
    await bob.acked()
    again = await box.person(ann.account, "phone", resume=ann)
    for text in ("before", "meanwhile"):
        await again.wait_for(lambda e, text=text: e.findtext(f"{CLIENT}body") == text, past=True)  # type: ignore[misc]
    assert await counts(again, bob.account) == (2, "meanwhile")


async def test_offline_messages_that_are_handed_out_count_once(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await ann.close()
    bob.write(ann.account, "while away")
    await bob.ping()
    back = await box.person(ann.account, "a")
    await back.wait_for(lambda e: e.findtext(f"{CLIENT}body") == "while away", past=True)
    assert await counts(back, bob.account) == (1, "while away")


# ---- what is no message ----------------------------------------------------------------------------------------------


async def test_a_key_transport_does_not_count_and_an_encrypted_message_does(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    stamp = (await ann.sync()).stamp
    header = "<header sid='1'><key rid='2'>AAAA</key><iv>AAAA</iv></header>"
    bob.message(ann.account, f"<encrypted xmlns='{AXOLOTL}'>{header}</encrypted>{STORE}")
    await bob.ping()
    assert (await ann.sync(stamp)).items == []
    hint = f"<body>I sent you an OMEMO message</body>{STORE}"
    bob.message(ann.account, f"<encrypted xmlns='{AXOLOTL}'>{header}<payload>BBBB</payload></encrypted>{hint}")
    await bob.ping()
    assert (await row(box, ann, bob.account))["unread"] == 1


@pytest.mark.parametrize("state", ["composing", "paused", "active", "gone"])
async def test_chat_states_do_nothing(state: str, box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    bob.write(ann.account, "one")
    await bob.ping()
    stamp = (await ann.sync()).stamp
    bob.message(ann.account, f"<{state} xmlns='{CHATSTATES}'/>")
    await bob.ping()
    assert (await ann.sync(stamp)).items == []


# ---- strangers -------------------------------------------------------------------------------------------------------


async def test_a_request_to_see_presence_waits_and_is_pushed_once_a_day(box: Box) -> None:
    ann, eve = await box.person(resource="phone"), await box.person()
    phone = await box.phone(ann)
    await ann.close()
    desk = await box.person(ann.account, "desk", presence=False)

    async def asks(kind: str) -> bool:
        eve.send(f"<presence to='{ann.account}' type='{kind}'/>")
        await eve.ping()
        found = await row(box, desk, eve.account)
        return bool(found["requests_presence"])

    assert await asks("subscribe")
    await box.pushed(phone.token, kind="subscription")
    assert (await desk.sync()).jids == [eve.account]
    assert not await asks("unsubscribe")
    assert await asks("subscribe")
    await box.settled(ann.account)
    assert len(await box.jobs(ann.account)) == len(box.pushes(phone.token, status=None)) == 1
    desk.send(f"<presence to='{eve.account}' type='subscribed'/>")
    await desk.ping()
    assert not (await row(box, desk, eve.account))["requests_presence"]


async def test_who_is_blocked_leaves_no_trace(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    eve = await box.person()
    phone = await box.phone(ann)
    await ann.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{eve.account}'/></block>")
    await ann.close()
    eve.write(ann.account, "let me in")
    eve.call("propose", ann.account, "blocked-call")
    eve.send(f"<presence to='{ann.account}' type='subscribe'/>")
    await eve.ping()
    bob.write(ann.account, "hello")
    await box.pushed(phone.token)
    desk = await box.person(ann.account, "desk", presence=False)
    assert (await desk.sync()).jids == [bob.account]
    await box.settled(ann.account)
    assert [push["payload"]["x"]["k"] for push in box.pushes(*phone.tokens, status=None)] == ["message"]


async def test_what_waited_to_be_pushed_for_somebody_who_is_blocked_now_is_not(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    desk = await box.person(ann.account, "desk")
    await ann.close()
    bob.write(ann.account, "one")
    await box.pushed(phone.token)
    bob.write(ann.account, "two")  # waits for its turn: the first wake is not fetched
    await bob.ping()
    await desk.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{bob.account}'/></block>")
    await desk.fresh()

    async def over() -> bool:
        waiting = [job for job in await box.jobs(ann.account) if job["state"] == "queued" and not job["repeat"]]
        return waiting == []

    await eventually(over)
    assert len(box.pushes(phone.token, status=None)) == 1


# ---- calls, from both ends -------------------------------------------------------------------------------------------


async def calls(box: Box, owner: Person) -> dict[str, tuple[str, str | None]]:
    """The account's calls by session id: how they stand, and which resource took them."""
    rows = await box.sql("SELECT session_id, state, answered_by FROM call WHERE account = $1", owner.account)
    return {row["session_id"]: (row["state"], row["answered_by"]) for row in rows}


async def stand(box: Box, owner: Person, **wanted: str | tuple[str, str]) -> None:
    """Until the account's calls stand so."""
    expected = {sid: how if isinstance(how, tuple) else (how, None) for sid, how in wanted.items()}

    async def look() -> bool:
        found = await calls(box, owner)
        assert found == expected
        return True

    await eventually(look)


def gives_way(who: Person, step: str, to: str, sid: str) -> None:
    """XEP-0353 §5.1: the words for the call that the other one overrules."""
    reason = "<reason xmlns='urn:xmpp:jingle:1'><expired/></reason>"
    who.message(to, f"<{step} xmlns='{JMI}' id='{sid}'>{reason}<tie-break/></{step}>{STORE}")


async def test_of_two_that_call_each_other_the_lower_id_goes_on_and_rings_once(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    pocket = await box.person(ann.account, "pocket")
    phone = await box.phone(pocket)
    await pocket.close()
    ann.call("propose", bob.account, "higher")
    bob.call("propose", ann.account, "even-lower")
    await stand(box, ann, **{"higher": "closed", "even-lower": "ringing"})
    await stand(box, bob, **{"higher": "closed", "even-lower": "outgoing"})
    await box.pushed(str(phone.voip))
    gives_way(ann, "retract", bob.account, "higher")
    gives_way(bob, "reject", ann.account, "higher")
    ann.call("proceed", bob.jid, "even-lower")
    for one in (ann, bob):
        await stand(box, one, **{"higher": "closed", "even-lower": ("answered", "desk")})
    await box.settled(ann.account)
    assert len(box.pushes(str(phone.voip), status=None)) == 1
    assert await box.changes(ann.account, bob.account) == [("call-ended", "higher")]
    await box.sound(ann.account, bob.account)


async def test_a_call_answered_elsewhere_rings_nowhere_and_goes_on_from_another_device(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    desk = await box.person(ann.account, "desk")
    await ann.close()
    bob.call("propose", ann.account, "first")
    (rung,) = await box.pushed(str(phone.voip))
    assert (await desk.sync()).calls == ["first"]
    desk.call("proceed", bob.jid, "first")
    for one in (desk, bob):  # both know on which of Ann's devices
        await stand(box, one, first=("answered", "desk"))
    await box.pushed(phone.token, kind="callend")
    assert (await desk.sync()).calls == []
    tablet = await box.person(bob.account, "tablet")
    tablet.call("propose", ann.account, "second")
    *_, again = await box.pushed(str(phone.voip), many=2)
    assert again["payload"]["x"]["p"] == rung["payload"]["x"]["c"] != again["payload"]["x"]["c"]
    await stand(box, desk, first=("ended", "desk"), second="ringing")
    desk.message(bob.account, f"<finish xmlns='{JMI}' id='first'><migrated to='second'/></finish>{STORE}")
    desk.call("proceed", tablet.jid, "second")
    for one in (desk, bob):
        await stand(box, one, first=("ended", "desk"), second=("answered", "desk"))
    found = await box.sql(
        "SELECT DISTINCT continues FROM call WHERE session_id = 'second' AND account = $1", bob.account
    )
    assert [row["continues"] for row in found] == ["first"]  # by Ann's finish, which names it
    await box.sound(ann.account, bob.account)


async def test_an_invite_to_a_call_rings_and_is_retracted(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    phone = await box.phone(ann)
    await ann.close()
    invite = bob.message(ann.account, f"<invite xmlns='{INVITES}' video='true'><jingle sid='j1'/></invite>{STORE}")
    (push,) = await box.pushed(str(phone.voip))
    assert push["payload"]["x"]["m"] == "audio video"
    bob.message(ann.account, f"<retract xmlns='{INVITES}' id='{invite}'/>{STORE}")
    await box.pushed(phone.token, kind="missed")
    await stand(box, ann, **{invite: "missed"})
    await stand(box, bob, **{invite: "ended"})
