"""Sessions of one account that ask the moment they see something: the answer has it, whichever of them the server told
of it first (docs/dialects.md, docs/feed.md §7).
"""

import asyncio

from tests.system.box import Box
from tests.system.person import Person
from tests.system.xmpp_client import CLIENT

ROUNDS = 40


async def test_what_any_session_shows_is_in_the_answer_that_it_gets(box: Box) -> None:
    ann, bob = await box.friends("z", "b")
    sessions = [ann, *[await box.person(ann.account, resource) for resource in ("y", "x", "a")]]

    async def see_and_ask(session: Person, text: str) -> None:
        await session.wait_for(lambda e: e.findtext(f"{CLIENT}body") == text, past=True)
        assert [item.body for item in (await session.sync()).items] == [text], session.resource
        session.received.clear()

    for number in range(ROUNDS):
        bob.write(ann.account, text := f"message {number}")
        await asyncio.gather(*(see_and_ask(session, text) for session in sessions))
