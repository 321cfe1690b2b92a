"""What the tests of the ejabberd module begin with: an ejabberd for each test file, and its feed for each test.

A test file takes them with `pytest_plugins`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.system.ejabberd_server import Ejabberd
from tests.system.xmpp_component import FeedComponent


@pytest_asyncio.fixture(scope="module")
async def ejabberd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ejabberd]:
    server = Ejabberd(tmp_path_factory.mktemp("ejabberd"))
    await server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def feed(ejabberd: Ejabberd) -> AsyncIterator[FeedComponent]:
    """The users' host. It ends in order: ejabberd may send the answers of the next one to a connection that was cut."""
    component = await ejabberd.feed()
    yield component
    if not component.closed:
        ejabberd.told |= component.ack_all()
        await component.caught_up()
        await component.close()


@pytest_asyncio.fixture
async def rooms(ejabberd: Ejabberd) -> AsyncIterator[FeedComponent]:
    """The host of rooms."""
    component = await ejabberd.rooms()
    yield component
    if not component.closed:
        ejabberd.told_of_rooms |= component.ack_all()
        await component.caught_up()
        await component.close()
