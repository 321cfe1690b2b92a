"""When the vendor calls many tokens dead at once, the fault is ours (PUSH §2): an app configured for the wrong
environment or topic must not cost every device its registration.
"""

from collections import deque
from datetime import datetime, timedelta

WINDOW = timedelta(minutes=5)
MANY = 20  # fewer prove nothing: a family's old phones
KEPT = 1000  # answers looked back at


class DeathWatch:
    """The verdicts of the last minutes for one app. It `storms` once at least 20 tokens, and more than half of all,
    were called dead.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, bool]] = deque()
        self._dead = 0

    def note(self, dead: bool, now: datetime) -> None:
        """One answer."""
        self._seen.append((now, dead))
        self._dead += dead
        self._forget(now)

    def storms(self, now: datetime) -> bool:
        """True while death is no news about a device."""
        self._forget(now)
        return self._dead >= MANY and 2 * self._dead > len(self._seen)

    def _forget(self, now: datetime) -> None:
        while self._seen and (self._seen[0][0] < now - WINDOW or len(self._seen) > KEPT):
            _, was_dead = self._seen.popleft()
            self._dead -= was_dead
