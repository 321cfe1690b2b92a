"""What the edge cases of the rules are asked with."""

from sync.rules.times import microseconds
from tests.contract.samples import (
    NOW,
)
from tests.core.rule_vectors import World

AT = microseconds(NOW)


def ran(*steps: str) -> World:
    world = World(batched=False)
    for step in steps:
        world.do(step)
    world.flush()
    return world
