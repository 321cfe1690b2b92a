"""An account that wants to be left alone, and a phone that wants to hear nothing of somebody: on the wire, in the
ledger, and at the simulator (issue 6, point 5).
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

from tests.system.box import Box, eventually
from tests.system.live_mirror import in_a_chain, listening, live_of
from tests.system.person import PUSH, Person, form
from tests.system.test_push_explained import said
from tests.system.xmpp_client import StanzaError

OURS = "urn:convsync:0"


async def set_quiet(one: Person, attributes: str = "") -> dict[str, str]:
    answer = await one.iq("set", f"<set xmlns='{OURS}'><quiet {attributes}/></set>")
    found = answer.find(f".//{{{OURS}}}quiet")
    return {} if found is None else dict(found.attrib)


async def told_quiet(one: Person) -> dict[str, str]:
    answer = await one.iq("get", f"<sync xmlns='{OURS}' max='0'/>")
    found = answer.find(f".//{{{OURS}}}quiet")
    return {} if found is None else dict(found.attrib)


async def ledger(box: Box, account: str, many: int) -> list[Any]:
    async def look() -> bool:
        return len(await box.jobs(account)) >= many

    await eventually(look)
    return sorted((job["kind"], job["outcome"] or job["reason"]) for job in await box.jobs(account))


async def test_do_not_disturb_keeps_a_message_and_lets_no_call_ring_until_it_is_ended(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    assert await set_quiet(ann, "until='forever'") == {"until": "forever"}
    assert await told_quiet(ann) == {"until": "forever"}
    await ann.close()
    bob.write(ann.account, "are you asleep?")
    bob.call("propose", ann.account, "night")
    bob.write(ann.account, "well then")
    assert await ledger(box, ann.account, 2) == [("call", "suppressed:quiet"), ("message", "quiet")]
    (device,) = (await said(box, "explain", ann.account))["devices"]
    words = " ".join(word for push in device["pushes"] for word in (*push["made"], *push["became"]))
    assert "kept for the end of the account's quiet hours" in words
    assert "no push: quiet hours or do-not-disturb of the account" in words
    assert box.pushes(phone.token, phone.voip, status=None) == []
    web = await box.person(ann.account, "web", presence=False)
    assert await set_quiet(web) == {}
    (wake,) = await box.pushed(phone.token, kind="message")
    assert wake["push_type"] == "alert"
    assert await told_quiet(web) == {}
    assert box.pushes(phone.voip, status=None) == []


@pytest.mark.one_server
async def test_hours_hold_by_the_clock_of_their_zone_and_calls_ring_by_choice(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    now = datetime.now(UTC)
    end = (now + timedelta(hours=2)).replace(minute=30, second=0, microsecond=0)
    # Tokyo has no summer time: nine hours ahead the whole year.
    begin, until = (f"{one + timedelta(hours=9):%H:%M}" for one in (end - timedelta(hours=6), end))
    wish = {"from": begin, "to": until, "zone": "Asia/Tokyo", "calls": "true"}
    assert await set_quiet(ann, " ".join(f"{name}={quoteattr(value)}" for name, value in wish.items())) == wish
    await ann.close()
    bob.write(ann.account, "later will do")
    assert await ledger(box, ann.account, 1) == [("message", "quiet")]
    (kept,) = await box.jobs(ann.account)
    assert kept["not_before"] == end
    bob.call("propose", ann.account, "urgent")
    await box.pushed(phone.voip)
    bob.call("retract", ann.account, "urgent")
    (gone,) = await box.pushed(phone.token, kind="missed")
    assert gone["push_type"] == "alert"
    told = [push["payload"]["x"]["k"] for push in box.pushes(phone.token)]
    assert [kind for kind in told if kind != "call"] == ["missed"]  # a call that nobody fetches may be told once more


@pytest.mark.one_server
async def test_other_clients_are_told_at_once(box: Box) -> None:
    (ann,) = await box.friends("phone")
    live = await listening(box, ann)
    quiet = f"{{{OURS}}}quiet"
    await set_quiet(ann, "until='forever'")
    assert dict((await live.until(lambda e: e.tag == quiet)).attrib) == {"until": "forever"}
    await set_quiet(ann)

    async def look() -> bool:
        return live_of(live.session)[-1].find(quiet) is None

    await eventually(look)
    assert in_a_chain(live.session)


@pytest.mark.one_server
async def test_what_is_no_wish_is_refused_by_name(box: Box) -> None:
    (ann,) = await box.friends("phone")
    for attributes, named in (
        ("from='22:00' to='07:00' zone='Europe/Atlantis'", "zone"),
        ("from='22:00' to='07:00'", "zone"),
        ("from='22:00' to='25:00' zone='UTC'", "to"),
        ("until='tomorrow'", "until"),
        ("days='mon'", "days"),
    ):
        with pytest.raises(StanzaError) as caught:
            await set_quiet(ann, attributes)
        assert caught.value.condition == "bad-request"
        assert f"'{named}'" in "".join(caught.value.stanza.itertext())
    assert await told_quiet(ann) == {}


async def test_a_phone_hears_nothing_of_whom_it_has_muted_and_everything_else(box: Box) -> None:
    """`tigase:push:filter:muted:0`, as Siskin sends it."""
    ann, bob, cat = await box.friends("phone", "desk", "desk")
    component = box.ready["component"]
    phone = await ann.register(component=component, app=box.ready["apns"]["app"])
    options = {"FORM_TYPE": "http://jabber.org/protocol/pubsub#publish-options", "secret": phone.secret}
    muted = f"<muted xmlns='tigase:push:filter:muted:0'><item jid={quoteattr(bob.account)}/></muted>"
    await ann.iq(
        "set", f"<enable xmlns='{PUSH}' jid='{component}' node={quoteattr(phone.node)}>{form(options)}{muted}</enable>"
    )
    await ann.close()
    bob.write(ann.account, "psst")
    bob.call("propose", ann.account, "psst")
    cat.write(ann.account, "hello")
    (wake,) = await box.pushed(phone.token, kind="message")
    await box.settled(ann.account)
    assert [(job["kind"], job["outcome"]) for job in await box.jobs(ann.account) if job["kind"] == "call"] == [
        ("call", "suppressed:device-muted")
    ]
    assert box.pushes(phone.token, phone.voip, status=None) == [wake]
    (told,) = await box.sql("SELECT DISTINCT peer FROM push_job WHERE account = $1 AND kind = 'message'", ann.account)
    assert told["peer"] == cat.account
