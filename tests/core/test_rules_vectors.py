"""Every vector of the rules, with its events one by one and in one transaction."""

from typing import Any

import pytest

from tests.core.rule_outcome import agrees
from tests.core.rule_vectors import World, load


@pytest.mark.parametrize("batched", [False, True], ids=["one by one", "batched"])
@pytest.mark.parametrize("vector", load())
def test_vector(vector: dict[str, Any], batched: bool) -> None:
    world = World(batched=batched, policy=vector.get("policy"))
    for step in vector["steps"]:
        world.do(step)
    found = world.outcome()
    wrong = {key: found[key] for key, value in vector["expect"].items() if not agrees(value, found[key])}
    assert not wrong, f"expected {vector['expect']}"
    assert world.replayed()
    if world.archive.items:
        assert world.reread()
