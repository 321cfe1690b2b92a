"""What a token is worth: which page comes next, or why everything comes anew."""

from typing import Any

import pytest

from sync.model.delta import DeltaQuery, DeltaToken, Filters, Reset, SyncRequest
from sync.rules.delta import begun, knows_all
from tests.contract.samples import account

OWNER = account(version=100, floor=30, epoch=2)
UNREAD = Filters(unread=True)
DELTA = {"epoch": 2, "since": 50, "log": 40}
CHAIN = {"epoch": 2, "since": 50, "log": 40, "newest": 90, "low": 70}
WHOLE = {"epoch": 2, "newest": 90, "low": 70}  # a page of a list of everything


def asked(token: dict[str, Any] | None, **fields: Any) -> SyncRequest:
    return SyncRequest(token=None if token is None else DeltaToken(**token), **fields)


@pytest.mark.parametrize(
    ("token", "query"),
    [
        (None, {}),
        ({"epoch": 2}, {}),
        ({"epoch": 1}, {}),  # shown nothing in whatever epoch, with whatever filters
        ({"epoch": 2, "filters": UNREAD.digest}, {}),
        (DELTA, {"since": 50, "log": 40}),
        (DELTA | {"since": 30}, {"since": 30, "log": 40}),
        (DELTA | {"since": 100}, {"since": 100, "log": 40}),
        (CHAIN, {"since": 50, "log": 40, "below": 70, "newest": 90}),
        (CHAIN | {"newest": 100}, {"since": 50, "log": 40, "below": 70, "newest": 100}),
        (WHOLE, {"below": 70, "newest": 90}),
        (WHOLE | {"newest": 30, "low": 20}, {"below": 20, "newest": 30}),
    ],
)
def test_a_good_token_goes_on(token: dict[str, Any] | None, query: dict[str, Any]) -> None:
    assert begun(asked(token, limit=7, messages=False), OWNER) == (DeltaQuery(limit=7, messages=False, **query), None)
    assert begun(asked(token, changes=False), OWNER) == (DeltaQuery(limit=100, changes=False, **query), None)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (DELTA | {"epoch": 1}, Reset.EPOCH),
        (DELTA | {"epoch": 3}, Reset.EPOCH),
        (CHAIN | {"epoch": 1}, Reset.EPOCH),
        (WHOLE | {"epoch": 1}, Reset.EPOCH),
        (DELTA | {"since": 29}, Reset.EXPIRED),
        (CHAIN | {"since": 29}, Reset.EXPIRED),
        (WHOLE | {"newest": 29, "low": 20}, Reset.EXPIRED),
        (DELTA | {"since": 101}, Reset.FUTURE),
        (CHAIN | {"newest": 101}, Reset.FUTURE),
        (WHOLE | {"newest": 101}, Reset.FUTURE),
        (DELTA | {"filters": UNREAD.digest}, Reset.FILTER),
        (CHAIN | {"filters": UNREAD.digest}, Reset.FILTER),
        (WHOLE | {"filters": UNREAD.digest}, Reset.FILTER),
        (DELTA | {"epoch": 1, "filters": UNREAD.digest, "since": 101}, Reset.EPOCH),
        (DELTA | {"filters": UNREAD.digest, "since": 101}, Reset.FILTER),
    ],
)
def test_a_token_that_is_of_no_use_starts_over(token: dict[str, Any], why: Reset) -> None:
    assert begun(asked(token), OWNER) == (DeltaQuery(limit=100), why)


def test_filters_go_with_their_token() -> None:
    token = DELTA | {"filters": UNREAD.digest}
    query, reset = begun(asked(token, filters=UNREAD), OWNER)
    assert (query.filters, query.since, reset) == (UNREAD, 50, None)
    assert begun(asked(DELTA, filters=UNREAD), OWNER)[1] is Reset.FILTER
    assert begun(asked(token, filters=Filters(unread=False)), OWNER)[1] is Reset.FILTER


@pytest.mark.parametrize(
    ("token", "at_least", "reset"),
    [
        (None, 100, None),
        (None, 101, Reset.FUTURE),
        ({"epoch": 2}, 101, Reset.FUTURE),
        (DELTA, 100, None),
        (DELTA, 101, Reset.FUTURE),
        (DELTA | {"epoch": 1}, 101, Reset.EPOCH),
        # A chain was begun before whatever its reader has heard of since: else it would begin anew for ever.
        (CHAIN, 101, None),
        (WHOLE, 101, None),
    ],
)
def test_a_version_that_was_not_reached(token: dict[str, Any] | None, at_least: int, reset: Reset | None) -> None:
    query, why = begun(asked(token, at_least=at_least), OWNER)
    assert why is reset
    assert reset is None or query == DeltaQuery(limit=100)


@pytest.mark.parametrize(
    ("query", "version", "knows"),
    [
        ({"since": 100}, 100, True),
        ({"since": 99}, 100, False),
        ({}, 100, False),
        ({}, 0, False),
        ({"since": 1}, 1, True),
        ({"since": 100, "below": 100, "newest": 100}, 100, False),
    ],
)
def test_who_knows_everything(query: dict[str, int], version: int, knows: bool) -> None:
    assert knows_all(DeltaQuery(limit=5, **query), account(version=version)) is knows
