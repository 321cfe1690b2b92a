"""Every vector of the rules, with its events one by one and in one transaction."""

from typing import Any

import pytest

from tests.core.rule_vectors import World, agrees, load


@pytest.mark.parametrize("batched", [False, True], ids=["one by one", "batched"])
@pytest.mark.parametrize("vector", load())
def test_vector(vector: dict[str, Any], batched: bool) -> None:
    world = World(batched=batched)
    for step in vector["steps"]:
        world.do(step)
    world.flush()
    found = world.outcome()
    wrong = {key: found[key] for key, value in vector["expect"].items() if not agrees(value, found[key])}
    assert not wrong, f"expected {vector['expect']}"
    assert all(found["counted"])
    assert world.replayed()
