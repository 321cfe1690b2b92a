"""VoIP discipline of one device: a VoIP push has to ring, else iOS ends the app, and in the end stops waking it.

A push is good when its call rings: told of (`POST /calls`) or reported by the app, before the push or within the grace
time after it. A push for a call that was told to have ended, or that names none, is bad at once. Each bad one is a
strike; with the third the device gets no VoIP pushes any more. It decides by what it is told and reads no clock.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

STRIKES = 3  # PUSH §7; Apple says "repeatedly" and gives no number


class CallState(StrEnum):
    """What can be said of a call by `POST /calls`."""

    RINGING = "ringing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Owed:
    """A call that nobody has said to ring, and the time by which somebody must (epoch seconds)."""

    call: str
    due: float


class Ringer:
    """`grace`: seconds within which a ringing call must be told or reported."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._owed: list[Owed] = []
        self._pushed: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self.strikes = 0

    @property
    def banned(self) -> bool:
        """Whether VoIP pushes are not delivered any more."""
        return self.strikes >= STRIKES

    @property
    def waiting(self) -> list[str]:
        """Calls that must still be told or reported to ring."""
        return [owed.call for owed in self._owed]

    @property
    def calls(self) -> dict[str, int]:
        """How often each call rang. A push and the report of the same ringing are one."""
        return {call: max(self._pushed[call], self._reported[call]) for call in self._pushed | self._reported}

    @property
    def rung_twice(self) -> int:
        """Rings of calls that had rung before: each of them is a failure of the sender or of the app."""
        return sum(times - 1 for times in self.calls.values())

    def pushed(self, call: str | None, told: CallState | None, now: float) -> None:
        """A VoIP push was delivered; `told`: what is known of its call. Not to be called when banned."""
        if call is None:
            self.strikes += 1
            return
        self._pushed[call] += 1
        if told is CallState.ENDED:
            self.strikes += 1
        elif told is None and not self._reported[call]:
            self._owed.append(Owed(call, now + self._grace))

    def rings(self, call: str) -> None:
        """It was told that this call rings."""
        self._owed = [owed for owed in self._owed if owed.call != call]

    def reported(self, call: str) -> None:
        """The app says that it rang."""
        self._reported[call] += 1
        self.rings(call)

    def advance(self, now: float) -> int:
        """What was not said in time becomes a strike; returns how many did."""
        late = [owed for owed in self._owed if owed.due <= now]
        self._owed = [owed for owed in self._owed if owed.due > now]
        self.strikes += len(late)
        return len(late)
