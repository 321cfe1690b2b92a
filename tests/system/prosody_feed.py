"""What the tests of mod_convsync_feed begin with: a Prosody for each test file, and its feed for each test.

A test file takes them with `pytest_plugins`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.system.prosody_server import Prosody
from tests.system.xmpp_component import FeedComponent


@pytest_asyncio.fixture(scope="module")
async def prosody(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prosody]:
    prosody = Prosody(tmp_path_factory.mktemp("prosody"))
    await prosody.start()
    yield prosody
    prosody.stop()


@pytest_asyncio.fixture
async def feed(prosody: Prosody) -> AsyncIterator[FeedComponent]:
    """The users' host."""
    component = await prosody.feed()
    yield component
    if not component.closed:
        prosody.told |= component.ack_all()
        await component.caught_up()
        await component.cut()


@pytest_asyncio.fixture
async def rooms(prosody: Prosody) -> AsyncIterator[FeedComponent]:
    """The host of rooms."""
    component = await prosody.rooms()
    yield component
    if not component.closed:
        prosody.told_of_rooms |= component.ack_all()
        await component.caught_up()
        await component.cut()
