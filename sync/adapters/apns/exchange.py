"""One push on its way: what of it has left, what of its answer has come, and the verdict if nothing more does.

It knows no connection; a connection moves it on.
"""

import asyncio
from collections.abc import Callable

from sync.model.push import PushOutcome, Verdict
from sync.protocol.apns import ANSWER_LIMIT_BYTES, outcome, unprocessed


class Exchange:
    """`future` gets exactly one outcome and never an exception; whoever awaits it may be cancelled without harm."""

    __slots__ = ("_answer", "future", "give_up", "headers", "left", "rest", "status", "timer")

    def __init__(self, headers: list[tuple[str, str]], body: bytes, future: asyncio.Future[PushOutcome]) -> None:
        self.headers = headers
        self.rest = memoryview(body)  # what of the body is still to be sent
        self.left = False  # the whole request was handed to the transport: from here on it may have been taken
        self.status: int | None = None
        self.future = future
        self.timer: asyncio.TimerHandle | None = None
        self.give_up: Callable[[Exchange], None] | None = None  # set once it has a stream: how to end that
        self._answer = bytearray()

    @property
    def done(self) -> bool:
        """Nobody waits any more."""
        return self.future.done()

    def receive(self, data: bytes) -> bool:
        """A piece of the answer's body, of which APNs needs less than 100 bytes; False: it is no answer of APNs."""
        if len(self._answer) <= ANSWER_LIMIT_BYTES:
            self._answer.extend(data)
        return len(self._answer) <= ANSWER_LIMIT_BYTES

    def accepted(self) -> None:
        """Tell the caller of a 200. The clock runs until the stream has ended: one that never ends is a leak."""
        if not self.future.done():
            self.future.set_result(outcome(200, b""))

    def answered(self) -> PushOutcome:
        """Settle by the answer, of which at least the status has come."""
        assert self.status is not None  # noqa: S101 - a connection calls this after the status only
        return self.settle(outcome(self.status, bytes(self._answer)))

    def refused(self, reason: str | None = None) -> PushOutcome:
        """Settle: the service has told that it did not process this, and perhaps why."""
        return self.answered() if self.status is not None else self.settle(unprocessed(reason))

    def cut(self) -> PushOutcome:
        """Settle: nothing more will come.

        Without its last DATA frame a request is not complete and no server may act on it; after that nobody knows.
        """
        if self.status is not None:
            return self.answered()
        return self.settle(PushOutcome(verdict=Verdict.UNCERTAIN if self.left else Verdict.NOT_SENT))

    def settle(self, result: PushOutcome) -> PushOutcome:
        """Tell the caller, if there still is one, and stop the clock."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.future.done():
            self.future.set_result(result)
        return result
