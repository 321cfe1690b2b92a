"""Random archives and live traffic (tests/core/test_history_property.py), repeated on Postgres transaction by
transaction: the rows are the same.
"""

from datetime import datetime
from random import Random
from typing import Any

import pytest

from sync.model.books import Keys
from tests.adapters.recounts import wrong_rows
from tests.contract.fakes_store import MemoryStore
from tests.contract.houses import in_house
from tests.contract.stores import Bench
from tests.core.test_history_property import lived

Act = tuple[datetime, Keys, Any]


@pytest.mark.parametrize("seed", range(12))
async def test_the_same_rows(postgres: Bench, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    acts: list[Act] = []
    apply = MemoryStore.apply

    def remembered(self: MemoryStore, keys: Keys, rule: Any) -> Any:
        acts.append((self.clock.now(), keys, rule))
        return apply(self, keys, rule)

    monkeypatch.setattr(MemoryStore, "apply", remembered)
    life = lived(Random(seed), 40)  # noqa: S311 - a test
    for at, keys, rule in acts:
        postgres.clock.instant = at
        await postgres.store.transact(keys, rule)
    found = await in_house(postgres).tables()
    assert found.conversations == life.store.tables.conversations
    assert found.messages == life.store.tables.messages
    assert found.accounts == life.store.tables.accounts
    assert postgres.pool is not None
    async with postgres.pool.connection() as connection:
        assert await wrong_rows(connection) == []
