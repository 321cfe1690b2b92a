"""Time that passes at once, for what the event loop's own clock begins and ends: no test waits for it, and a machine
that is busy meanwhile does not change who is first.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def passes(seconds: float) -> None:
    """The loop's clock is ahead from now on: what was to happen by then happens in one of the next turns."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]


@contextmanager
def standing() -> Iterator[Callable[[float], None]]:
    """The loop's clock stands still, but for the seconds that what is yielded is called with."""
    loop = asyncio.get_running_loop()
    clock, began = loop.time, loop.time()
    ahead = 0.0

    def on(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    loop.time = lambda: began + ahead  # type: ignore[method-assign]
    try:
        yield on
    finally:
        loop.time = lambda: clock() + ahead  # type: ignore[method-assign]
