"""Versions and instants: the one place that turns one into the other."""

from datetime import UTC, datetime, timedelta

from sync.model.conversation import Account

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOR_EVER = datetime.max.replace(tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """Microseconds since the epoch."""
    return (instant - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """The instant that many microseconds after the epoch."""
    return EPOCH + timedelta(microseconds=value)


def next_version(account: Account, now: datetime) -> int:
    """The version of the account's next change (invariant 1): higher than every one before, whatever the clock does."""
    return max(account.version + 1, microseconds(now))
