"""Keeps the house: what need not be held any longer goes in the background, a few accounts at a time.

Only the process that speaks for the component does it; several would do no harm, and nothing faster.
"""

import logging
from collections.abc import Callable

from sync.model.errors import StoreUnavailable
from sync.ports import Clock, Housekeeping, Observer, Retention

log = logging.getLogger(__name__)

TURNS = 20  # of a round
BREATH_SECONDS = 0.05  # between rounds while there is work: what users wait for comes first
REST_SECONDS = 5.0


class Housekeeper:
    """Rounds through the accounts and rooms whose turn it is."""

    def __init__(
        self,
        *,
        housekeeping: Housekeeping,
        retention: Retention,
        leads: Callable[[], bool],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._housekeeping, self._retention = housekeeping, retention
        self._leads, self._clock, self._observer = leads, clock, observer

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            busy = self._leads() and await self.round()
            await self._clock.sleep(BREATH_SECONDS if busy else REST_SECONDS)

    async def round(self) -> bool:
        """One round; True when somebody had a turn. A failure is said, and ends the round, not the rounds."""
        try:
            trimmed = await self._housekeeping.trim(self._clock.now(), self._retention, TURNS)
        except StoreUnavailable as error:
            log.warning("the database is away; what is old is dropped later", extra={"reason": str(error)})
            return False
        except Exception as error:  # noqa: BLE001 - a bad row must not end the process
            log.error("old rows of an account were not dropped", extra={"error": type(error).__name__})
            return False
        for table, rows in trimmed.rows.items():
            if rows:
                self._observer.trimmed(table, rows)
        return trimmed.turns > 0
