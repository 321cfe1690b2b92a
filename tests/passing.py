"""Time that passes at once, for what the event loop's own clock begins and ends: no test waits for it, and a machine
that is busy meanwhile does not change who is first.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """A loop's clock that may be set ahead and may stand still; one for each loop, however many tests share it."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self.ahead = 0.0
        self.stands_at: float | None = None

    def __call__(self) -> float:
        return self.ahead + (self._real() if self.stands_at is None else self.stands_at)

    def stand(self) -> None:
        self.stands_at = self._real()

    @classmethod
    def of_the_loop(cls) -> "Clock":
        loop = asyncio.get_running_loop()
        if not isinstance(loop.time, cls):
            loop.time = cls(loop.time)  # type: ignore[method-assign]
        found = loop.time
        assert isinstance(found, cls)
        return found


def passes(seconds: float) -> None:
    """The loop's clock is ahead from now on: what was to happen by then happens in one of the next turns."""
    Clock.of_the_loop().ahead += seconds


@contextmanager
def standing() -> Iterator[Callable[[float], None]]:
    """The loop's clock stands still, but for the seconds that what is yielded is called with."""
    clock = Clock.of_the_loop()
    clock.stand()
    try:
        yield passes
    finally:
        clock.stands_at = None
