"""A question that was under way when the component gave its connection up is answered all the same: the database stands
still, so the lease runs out, and another process may speak from then on. Prosody has no limit of its own for what it
has handed over, and a client would wait for ever.
"""

import asyncio
import signal
from contextlib import suppress

from tests.chaos.faults import children, send
from tests.system.box import Box, eventually
from tests.system.xmpp_client import StanzaError

ANSWER_SECONDS = 25  # the lease is trusted for 3; after 30 Prosody's module answers by itself


async def answer(question: "asyncio.Task[object]") -> str:
    """The condition of the error, "" for a result."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await question
    except StanzaError as error:
        return error.condition
    return ""


async def test_who_asks_while_the_database_stands_still_is_told_to_wait(box: Box) -> None:
    ann = await box.person()
    await ann.sync()
    ann.patient = False
    postgres = box.pid("postgres")
    stopped = [postgres, *children(postgres)]
    send(stopped, signal.SIGSTOP)
    try:
        questions = [asyncio.ensure_future(ann.sync()) for _ in range(5)]
        told = [await answer(question) for question in questions]
    finally:
        send(stopped, signal.SIGCONT)
    assert set(told) <= {"resource-constraint", "internal-server-error"}

    async def answered() -> bool:
        """The lease may run out in this very moment, too."""
        with suppress(StanzaError):
            await ann.sync()
            return True
        return False

    await box.whole()
    await eventually(answered, 60)
