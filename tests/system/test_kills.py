"""Nothing is lost and nothing doubled, whatever dies while people talk (invariants 1, 3, 4 and 6).

The truth is each account's archive at the server, and what the server acknowledged to those who sent. Afterwards the
conversations, counters and index of each account must say what the archive says; a client that kept its stamp and
took deltas all the while must have arrived at the full list.
"""

from collections.abc import Awaitable, Callable

import pytest

from tests.system.box import Box
from tests.system.company import Company, cut_connection, each, frozen_component, killer

DISTURBANCES: dict[str, Callable[[Box], Awaitable[None]]] = {
    "component": killer("component"),
    "component, again at once": killer("component", "component"),
    "postgres": killer("postgres"),
    "redis": killer("redis"),
    "server": killer("server"),
    "postgres, then component": killer("postgres", "component"),
    "component hangs": frozen_component,
    "connection cut": cut_connection,
}


@pytest.mark.parametrize("what", each(DISTURBANCES))
async def test_nothing_is_lost_nothing_doubled(what: str, box: Box) -> None:
    company = Company(box, what)
    await company.gather()
    await company.talk(lambda: DISTURBANCES[what](box))
    await company.check()
