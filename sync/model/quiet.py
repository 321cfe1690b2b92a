"""When an account wants to be left alone: hours of every day, and do-not-disturb until an instant."""

from dataclasses import dataclass
from datetime import UTC, datetime, time

FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Hours:
    """From one time of the day to another, by the clock on the wall of a zone (an IANA name); over midnight where the
    end is not later than the beginning. The two differ.
    """

    begin: time
    end: time
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """`until`: do-not-disturb up to an instant, `FOR_EVER` = until it is ended; None = no such thing. `hours`: quiet
    every day. `calls`: calls ring all the same.
    """

    until: datetime | None = None
    hours: Hours | None = None
    calls: bool = False
