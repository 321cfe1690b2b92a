"""Live notices follow sessions: who ends, is killed, replaced, inactive or hibernating, and who reads nothing."""

import signal

import pytest

from tests.system.box import Box, eventually
from tests.system.live_mirror import OWN, Mirror, listening, live_of, says
from tests.system.xmpp_client import StanzaError


async def watched(box: Box, account: str) -> list[str]:
    rows = await box.sql("SELECT resource FROM watcher WHERE account = $1 ORDER BY resource", account)
    return [row["resource"] for row in rows]


async def test_it_ends_with_a_word_or_with_the_session(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    first, second, third = [await listening(box, ann, name) for name in ("first", "second", "third")]
    assert await watched(box, ann.account) == ["first", "second", "third"]
    await first.session.iq("get", f"<sync xmlns='{OWN}' live='false'/>")
    await second.session.close()
    again = await box.person(ann.account, "second")  # another session of that name has not asked
    bob.write(ann.account, "hello")
    await third.until(says(bob.account, "hello"))
    await ann.fresh()
    bob.write(ann.account, "again")
    await third.until(says(bob.account, "again"))
    assert live_of(first.session) == live_of(again) == []

    async def gone() -> bool:
        assert await watched(box, ann.account) == ["third"]
        return True

    await eventually(gone)
    await third.session.iq("get", f"<sync xmlns='{OWN}'/>")  # as it was
    bob.write(ann.account, "and again")
    await third.until(says(bob.account, "and again"))


async def test_it_ends_while_the_component_is_away(box: Box) -> None:
    """Nobody heard that the session ended: the list of sessions says it."""
    ann, bob = await box.friends("phone", "b")
    first, second = await listening(box, ann, "first"), await listening(box, ann, "second")
    box.signal("component", signal.SIGSTOP)
    try:
        await first.session.close()
    finally:
        box.signal("component", signal.SIGCONT)
    await box.killed("component")
    bob.write(ann.account, "hello")
    await second.until(says(bob.account, "hello"))

    async def gone() -> bool:
        assert await watched(box, ann.account) == ["second"]
        return True

    await eventually(gone)


async def test_a_session_that_takes_the_place_of_another_is_told(box: Box) -> None:
    """The end of the old one must not end the new one's notices."""
    ann, bob = await box.friends("phone", "b")
    old = await listening(box, ann)
    new = await listening(box, ann)  # of the same resource: the server ends the old one, or names the new one anew
    for number in range(5):
        bob.write(ann.account, f"note {number}")
        await new.until(says(bob.account, f"note {number}"))
    await new.agrees()
    assert new.holes == []
    assert old.session.resource != new.session.resource or old.session.closed


async def test_an_inactive_session_is_told_when_it_is_active_again(box: Box) -> None:
    """The server may keep notices back while a client says that nobody looks at it (XEP-0352); none is lost."""
    ann, bob = await box.friends("phone", "b")
    live = await listening(box, ann)
    await live.session.csi("inactive")
    for number in range(5):
        bob.write(ann.account, f"note {number}")
    await bob.ping()
    await ann.fresh()
    await live.session.csi("active")
    await live.until(says(bob.account, "note 4"))
    await live.agrees()
    assert live.holes == []


async def test_a_session_that_hibernates_goes_on_when_it_is_resumed(box: Box) -> None:
    ann, bob = await box.friends("desk", "b")
    phone = await box.person(ann.account, "phone", sm=True)
    live = await Mirror.begin(phone)
    bob.write(ann.account, "one")
    await live.until(says(bob.account, "one"))
    await phone.cut()
    bob.write(ann.account, "two")
    await bob.ping()
    await ann.fresh()
    bob.write(ann.account, "three")
    await bob.ping()
    await ann.fresh()
    resumed = await box.person(ann.account, "phone", resume=phone)
    live.session, live._taken = resumed, 0
    await live.until(says(bob.account, "three"))
    await live.agrees()
    assert live.holes == []


async def test_a_session_that_reads_nothing_hurts_nobody(box: Box) -> None:
    ann, bob, carl = await box.friends("phone", "b", "c")
    deaf, live = await listening(box, ann, "deaf"), await listening(box, ann)
    other = await Mirror.begin(await box.person(carl.account, "live"))
    deaf.session._reader._transport.pause_reading()  # type: ignore[attr-defined]
    text = "x" * 20_000
    for number in range(60):
        bob.write(ann.account, f"{number} {text}")
        bob.write(carl.account, f"{number}")
        await bob.ping()
    await live.until(says(bob.account, f"59 {text}"))
    await other.until(says(bob.account, "59"))
    await live.agrees()
    await other.agrees()
    assert live.holes == other.holes == []
    deaf.session._reader._transport.resume_reading()  # type: ignore[attr-defined]
    await deaf.until(says(bob.account, f"59 {text}"))


async def test_only_ones_own_account_can_be_followed(box: Box) -> None:
    ann, bob = await box.friends("phone", "b")
    for person in (ann, bob):
        with pytest.raises(StanzaError):
            await person.iq("get", f"<sync xmlns='{OWN}' live='true'/>", to=(bob if person is ann else ann).account)
    assert await watched(box, ann.account) == await watched(box, bob.account) == []
