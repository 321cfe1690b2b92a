"""One request over slixmpp: sent, waited for, asked again where the server says `wait`, its failure typed.

A session that ends ends its requests; slixmpp alone would leave them waiting for ever.
"""

import asyncio
import random
from typing import Any
from xml.etree.ElementTree import Element

from slixmpp.exceptions import IqError, IqTimeout

from sync.client.errors import BadAnswer, NoAnswer, NotConnected, NotSupported, RequestFailed, TryLater, failure

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0


def pause_seconds(failures: int, longest: float = LONGEST_PAUSE_SECONDS) -> float:
    """How long to wait after so many failures in a row: twice as long each time, each more or less by half."""
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), longest)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311 - so that clients do not come back all at once


class Requests:
    """The requests of one client. `open` when a session begins, `close` when it ends."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._end: asyncio.Future[None] | None = None
        self._served: set[tuple[str | None, str]] = set()

    def open(self) -> None:
        self.close()
        self._end = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Whoever waits for an answer gets NotConnected."""
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    async def ask(
        self, kind: str, payload: Element, *, to: str | None = None, seconds: float, attempts: int = 1
    ) -> Element:
        """Send an IQ of type `kind` and return its answer's payload, which has the same name. Raises what
        `sync.client.errors` has.
        """
        answer = await self.iq(kind, payload, to=to, seconds=seconds, attempts=attempts)
        found = answer.find(payload.tag)
        if found is None:
            raise BadAnswer("The answer is empty.")
        return found

    async def iq(self, kind: str, payload: Element, *, to: str | None, seconds: float, attempts: int = 1) -> Element:
        """As `ask`; the whole answer."""
        failures = 0
        while True:
            try:
                answer = await self._once(kind, payload, to, seconds)
            except RequestFailed as error:
                failures += 1
                if failures >= attempts or not self._passes(error, to, payload):
                    raise
            else:
                self._served.add((to, payload.tag))
                return answer
            await self.pause(pause_seconds(failures))

    def _passes(self, error: RequestFailed, to: str | None, payload: Element) -> bool:
        """True where asking again helps. While a component is away the server says in its place that there is no such
        service (XEP-0355); whoever was served before knows better.
        """
        if isinstance(error, NotSupported) and error.condition == "service-unavailable":
            return (to, payload.tag) in self._served
        return isinstance(error, TryLater)

    async def _once(self, kind: str, payload: Element, to: str | None, seconds: float) -> Element:
        if self._end is None or self._end.done():
            raise NotConnected("There is no session.")
        iq = self._stream.make_iq(ito=to, itype=kind)
        iq.append(payload)
        answer: asyncio.Future[Any] = iq.send(timeout=seconds)
        try:
            await asyncio.wait((answer, self._end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answer.done():
                answer.cancel()
        if answer.cancelled():
            raise NotConnected("The session ended before the answer.")
        try:
            found: Element = answer.result().xml
        except IqError as error:
            raise failure(error.condition, error.etype, error.text or "") from None
        except IqTimeout:
            raise NoAnswer(f"There was no answer within {seconds:g} s.") from None
        return found

    async def pause(self, seconds: float) -> bool:
        """Wait; False when the session ended meanwhile."""
        if self._end is None or self._end.done():
            return False
        await asyncio.wait((self._end,), timeout=seconds)
        return not self._end.done()
