"""What happens because time passes: calls stop ringing and come to an end, abandoned pushes are settled, presence is
asked for anew.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from sync.model.books import Books, Keys, Ruling
from sync.model.call import CallKey
from sync.model.errors import StoreUnavailable
from sync.ports import Clock, Observer, Store
from sync.rules.fold import Policies, Report, expire
from sync.service.pusher import Pusher

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SLOW_EVERY = 10  # ticks between the slower duties
ROUND = 256


class Timers:
    """A tick every second. Every duty is safe to repeat, and to do in several processes at once."""

    def __init__(self, *, store: Store, pusher: Pusher, clock: Clock, observer: Observer, policies: Policies) -> None:
        self._store, self._pusher, self._clock, self._observer = store, pusher, clock, observer
        self._policies = policies

    async def run(self) -> None:
        """Tick until cancelled."""
        ticks = 0
        often = [self.expire_calls, self._pusher.recover, self._pusher.expire]
        while True:
            duties = [*often, self._measure] if ticks % SLOW_EVERY == 0 else often
            up = [await self._done(duty) for duty in duties]
            self._observer.dependency("postgres", all(up))
            ticks += 1
            await self._clock.sleep(TICK_SECONDS)

    async def _done(self, duty: Callable[[], Awaitable[None]]) -> bool:
        """One duty; False when the database is away. A duty that fails is said each time, and keeps no other from its
        turn.
        """
        try:
            await duty()
        except StoreUnavailable as error:
            log.warning("the database is away", extra={"reason": str(error)})
            return False
        except Exception as error:  # noqa: BLE001 - a bad row must not end the process, and not again at each start
            log.error("a timer's duty failed", extra={"error": type(error).__name__})
        return True

    async def _measure(self) -> None:
        await self._pusher.measure(self._clock.now())

    async def expire_calls(self) -> None:
        """Calls that rang out are missed; those that nobody ends are over after a day."""
        calls = await self._store.expired_calls(self._clock.now(), ROUND)
        if calls:
            await self._end(calls)

    async def _end(self, calls: Sequence[CallKey]) -> None:
        """One transaction. What cannot be stored of one call must not keep the others ringing."""
        keys = Keys(
            accounts=frozenset(call.account for call in calls),
            calls=frozenset((call.account, call.sid) for call in calls),
            devices=True,
        )
        try:
            report = await self._store.transact(keys, partial(self._expire, calls))
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if len(calls) == 1:
                log.error("a call cannot be ended", extra={"error": type(error).__name__})
            else:
                for call in calls:
                    await self._end([call])
        else:
            self._pusher.committed(report)

    def _expire(self, calls: Sequence[CallKey], books: Books) -> Ruling[Report]:
        return expire(calls, books, self._policies)
