"""Every vector again, for what holds whatever happens: a change that a client must hear of has a version of its own.

A client asks for all that is newer than its token, which is a version of the account. So a row that changed at a
version which its account has already given out would never be told.
"""

from typing import Any

import pytest

from tests.contract.fakes_tables import Tables
from tests.contract.readers import shown
from tests.core.rule_vectors import World, load


class Watched(World):
    """A world in which no row changes unnoticed."""

    def __init__(self, **named: Any) -> None:
        self._seen: Tables | None = None
        super().__init__(**named)

    def balance(self, step: str) -> None:
        super().balance(step)
        now, then = self.store.tables, self._seen
        if then is not None:
            assert not (faults := unnoticed(then, now)), f"{step}: {faults}"
        self._seen = now


def unnoticed(then: Tables, now: Tables) -> list[str]:
    """The rows that changed at a version which had been given out, or at one that their account has not reached."""
    told = {jid: account.version for jid, account in then.accounts.items()}
    reached = {jid: account.version for jid, account in now.accounts.items()}
    kept: list[tuple[str, dict[Any, Any], dict[Any, Any]]] = [
        ("conversation", seen(then), seen(now)),
        ("call", then.calls, now.calls),
    ]
    changed = [
        (f"{kind} {key}", key.account, row.version)
        for kind, before, after in kept
        for key, row in after.items()
        if row != before.get(key)
    ]
    changed += [
        (f"change {change.kind}", change.conversation.account, change.version)
        for key, change in now.changes.items()
        if key not in then.changes
    ]
    return [f"{what} at {at}" for what, jid, at in changed if not told.get(jid, 0) < at <= reached[jid]]


def seen(tables: Tables) -> dict[Any, Any]:
    """The conversations as clients see them."""
    return {key: shown(conversation) for key, conversation in tables.conversations.items()}


@pytest.mark.parametrize("vector", load())
def test_what_changes_has_a_version_of_its_own(vector: dict[str, Any]) -> None:
    world = Watched(batched=False, policy=vector.get("policy"))
    for step in vector["steps"]:
        world.do(step)
    world.outcome()
