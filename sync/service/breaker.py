"""When the pushes of one queue stop, and when one tries again.

Refused credentials stop them at the first refusal: every further push would be refused, too (PUSH §2, 403). A service
that takes nothing for a second stops them as well, for less long. After a pause a single push goes as a probe, and its
outcome decides; until then jobs wait where they are, untouched.
"""

from datetime import UTC, datetime, timedelta

from sync.model.push import PushOutcome, Verdict

CREDENTIALS = "credentials"
UNREACHABLE = "unreachable"
# The first pause and the longest; each probe that fails doubles it. A call rings for a minute: it must meet a probe.
PAUSES = {
    CREDENTIALS: (timedelta(seconds=5), timedelta(seconds=60)),
    UNREACHABLE: (timedelta(seconds=0.5), timedelta(seconds=4)),
}
TAKES_NOTHING = frozenset({Verdict.RETRY, Verdict.NOT_SENT, Verdict.UNCERTAIN})
# What the sender says where the service was not asked, or we stumbled: no word about the service.
LATE, FAILED = "late", "failed"
OURS = frozenset({None, "app-not-configured", "sealed"})  # reasons for which nothing left
# One cut connection takes a hundred pushes with it, within a moment: only what lasts is an outage.
FAILURES = 10
LASTING = timedelta(seconds=1)


class Breaker:
    """Closed, open, or half open: after the pause, with one probe under way. `turn` counts how often it opened: what
    left in an earlier turn decides nothing any more. It is an outage only where the pushes of `several` accounts fail.
    """

    def __init__(self, several: int = 1) -> None:
        self._several, self._failing = several, set[str]()
        self.why: str | None = None
        self.reason: str | None = None
        self.turn = 0
        self.again_at: datetime | None = None
        self.probing = False
        self.told_at = datetime.min.replace(tzinfo=UTC)  # when anything was heard
        self._pause = timedelta(0)
        self._failures = 0
        self._failing_since: datetime | None = None

    @property
    def is_open(self) -> bool:
        """False while pushes go as they come."""
        return self.why is not None

    @property
    def is_clean(self) -> bool:
        """True where there is nothing to remember."""
        return self.why is None and self._failures == 0

    def admits(self, now: datetime) -> bool:
        """Whether one more push may leave."""
        return self.again_at is None or (now >= self.again_at and not self.probing)

    def enter(self) -> int:
        """One leaves; the turn that it belongs to."""
        self.probing = self.is_open
        return self.turn

    def leave(self, turn: int) -> None:
        """It did not leave after all, or nobody but ourselves has judged it."""
        if turn == self.turn:
            self.probing = False

    def tell(self, turn: int, outcome: PushOutcome, now: datetime, account: str = "") -> None:
        """What became of a push of that account."""
        self.told_at = now
        if turn != self.turn:
            return
        if outcome.verdict is Verdict.CREDENTIALS:
            self.open(CREDENTIALS, outcome.reason, now)
        elif outcome.verdict in TAKES_NOTHING and outcome.reason not in (LATE, FAILED):
            self._failed(outcome.reason, now, account)
        elif answered(outcome):
            self.close()
        else:
            self.leave(turn)

    def open(self, why: str, reason: str | None, now: datetime) -> None:
        """Stop, for longer than the last time unless that was for another cause."""
        first, longest = PAUSES[why]
        self._pause = min(self._pause * 2, longest) if why == self.why else first
        self.why, self.reason, self.again_at = why, reason, now + self._pause
        self.probing = False
        self.turn += 1

    def _failed(self, reason: str | None, now: datetime, account: str) -> None:
        self._failures += 1
        if len(self._failing) < self._several:
            self._failing.add(account)
        self._failing_since = self._failing_since or now
        lasting = self._failures >= FAILURES and now - self._failing_since >= LASTING
        if self.is_open or (lasting and len(self._failing) >= self._several):
            # A probe that finds nobody tells nothing about credentials.
            self.open(self.why or UNREACHABLE, self.reason if self.why == CREDENTIALS else reason, now)

    def close(self) -> None:
        """Pushes go as they come."""
        self.why = self.reason = self.again_at = self._failing_since = None
        self.probing, self._failures = False, 0
        self._failing.clear()


def answered(outcome: PushOutcome) -> bool:
    """True where the service has spoken: it takes pushes, whatever became of this one. App servers of other makers
    speak without a status. What was decided here says nothing about the service.
    """
    if outcome.status is not None or outcome.verdict in (Verdict.ACCEPTED, Verdict.DEAD_TOKEN, Verdict.THROTTLED):
        return True
    return outcome.verdict is Verdict.REJECTED and outcome.reason not in OURS
