"""The smallest rules: what a session's change makes of it, whose turn it is, and instants as versions."""

from datetime import timedelta

import pytest

from sync.model.event import FeedPosition, Session, SessionChange, SessionEvent, SessionState
from sync.rules.presence import becomes
from sync.rules.retention import next_turn
from sync.rules.times import instant, microseconds, next_version
from tests.contract.samples import ANN, BOB, EVE, NOW, account

MICROSECONDS = 1767323045000000
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (SessionChange.BOUND, SessionState.BOUND),
        (SessionChange.AVAILABLE, SessionState.ACTIVE),
        (SessionChange.UNAVAILABLE, SessionState.BOUND),
        (SessionChange.ACTIVE, SessionState.ACTIVE),
        (SessionChange.INACTIVE, SessionState.INACTIVE),
        (SessionChange.HIBERNATED, SessionState.HIBERNATED),
        (SessionChange.RESUMED, SessionState.ACTIVE),
        (SessionChange.UNBOUND, None),
    ],
)
def test_what_a_change_makes_of_a_session(change: SessionChange, state: SessionState | None) -> None:
    position = FeedPosition("example.org", "stream", "main", 1)
    event = SessionEvent(position=position, account=ANN, at=NOW, resource="phone", change=change, acked_at=NOW)
    # Only of a session that is away is it told how far it got (docs/feed.md).
    acked = NOW if state is SessionState.HIBERNATED else None
    assert becomes(event) == (Session("phone", state, acked) if state else None)


@pytest.mark.parametrize("jid", [ANN, EVE, BOB])
def test_turns_are_a_period_apart_whenever_one_asks(jid: str) -> None:
    first = next_turn(jid, NOW, DAY)
    assert NOW < first <= NOW + DAY
    assert next_turn(jid, first - timedelta(microseconds=1), DAY) == first
    assert next_turn(jid, first, DAY) == first + DAY
    assert next_turn(jid, NOW + 300 * DAY, DAY) == first + 300 * DAY


def test_turns_stay_where_they_are_when_everything_starts_anew() -> None:
    """Written down once: whoever changes the formula moves everybody's turn."""
    assert [next_turn(jid, NOW, DAY) - NOW for jid in (ANN, EVE, BOB)] == [
        timedelta(seconds=11752, microseconds=464175),
        timedelta(seconds=8512, microseconds=453347),
        timedelta(seconds=67154, microseconds=428912),
    ]


def test_turns_spread_evenly() -> None:
    quarters = [(next_turn(f"user{n}@example.org", NOW, DAY) - NOW) // (DAY / 4) for n in range(400)]
    assert all(80 <= quarters.count(quarter) <= 120 for quarter in range(4))


def test_an_instant_there_and_back() -> None:
    assert microseconds(NOW) == MICROSECONDS
    assert instant(MICROSECONDS) == NOW
    assert instant(MICROSECONDS + 1) == NOW + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("last", "version"),
    [
        (0, MICROSECONDS),
        (MICROSECONDS - 1, MICROSECONDS),
        (MICROSECONDS, MICROSECONDS + 1),
        (MICROSECONDS + 99, MICROSECONDS + 100),
    ],
)
def test_versions_rise_whatever_the_clock_does(last: int, version: int) -> None:
    assert next_version(account(version=last), NOW) == version
