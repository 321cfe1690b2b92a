"""The rounds of housekeeping: when there is one, how soon the next, and what a failure costs."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from sync.model.errors import StoreUnavailable, Uncommittable
from sync.ports import Retention, Trimmed
from sync.service.housekeeping import BREATH_SECONDS, REST_SECONDS, TURNS, Housekeeper
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import SetClock
from tests.contract.samples import NOW

KEEP = Retention(messages=7)
BUSY, IDLE = Trimmed(turns=2, rows={"message": 3, "change": 0}), Trimmed()


class Enough(BaseException):
    """Ends a loop that has no end."""


class Rounds:
    """Plays `Housekeeping`: does as it is told, round by round."""

    def __init__(self, *rounds: Trimmed | Exception) -> None:
        self.rounds, self.asked = list(rounds), list[tuple[datetime, Retention, int]]()

    async def trim(self, now: datetime, retention: Retention, limit: int) -> Trimmed:
        self.asked.append((now, retention, limit))
        if not self.rounds:
            raise Enough
        did = self.rounds.pop(0)
        if isinstance(did, Exception):
            raise did
        return did


def keeper(rounds: Rounds, clock: SetClock, *, leads: bool = True) -> tuple[Housekeeper, RecordingObserver]:
    observer = RecordingObserver()
    housekeeper = Housekeeper(housekeeping=rounds, retention=KEEP, leads=lambda: leads, clock=clock, observer=observer)
    return housekeeper, observer


async def gaps(*did: Trimmed | Exception) -> list[float]:
    """The seconds between the rounds."""
    rounds = Rounds(*did)
    with pytest.raises(Enough):
        await keeper(rounds, SetClock(NOW))[0].run()
    times = [now for now, _, _ in rounds.asked]
    return [(later - now).total_seconds() for now, later in pairwise(times)]


async def test_the_next_round_comes_soon_while_there_is_work() -> None:
    assert await gaps(BUSY, BUSY, IDLE, IDLE) == [BREATH_SECONDS, BREATH_SECONDS, REST_SECONDS, REST_SECONDS]


@pytest.mark.parametrize("error", [StoreUnavailable("x"), Uncommittable("x"), ValueError("x")])
async def test_a_failure_ends_a_round_not_the_rounds(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert await gaps(error, BUSY) == [REST_SECONDS, BREATH_SECONDS]
    assert len(caplog.records) == 1


async def test_what_went_is_counted() -> None:
    rounds = Rounds(BUSY)
    housekeeper, observer = keeper(rounds, SetClock(NOW))
    assert await housekeeper.round()
    assert observer.told("trimmed") == [{"table": "message", "rows": 3}]
    assert rounds.asked == [(NOW, KEEP, TURNS)]


async def test_who_does_not_lead_does_nothing() -> None:
    class Late(SetClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if self.instant > NOW + timedelta(minutes=1):
                raise Enough

    rounds = Rounds()
    with pytest.raises(Enough):
        await keeper(rounds, Late(NOW), leads=False)[0].run()
    assert rounds.asked == []
