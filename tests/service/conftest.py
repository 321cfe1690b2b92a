"""Fixtures of the service tests."""

from collections.abc import AsyncIterator

import pytest

from sync.service import watch
from tests.contract.samples import ANN, EVE
from tests.service.post import Post


@pytest.fixture
async def post(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Post]:
    """Two accounts with watchers; everything of theirs comes in several statements."""
    monkeypatch.setattr(watch, "ROWS", 1)
    post = Post()
    post.bump(100)
    post.bump(100, owner=EVE)
    await post.online(f"{ANN}/web", f"{ANN}/phone", f"{EVE}/web")
    async with post.at_work():
        yield post
