"""What happens because time passes: calls stop ringing, abandoned pushes are settled, presence is asked for anew."""

import logging
from collections.abc import Sequence
from functools import partial

from sync.model.books import Books, Keys, Ruling
from sync.model.call import CallKey
from sync.model.conversation import ConversationKey
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
        while True:
            try:
                await self.expire_calls()
                if ticks % SLOW_EVERY == 0:
                    await self._pusher.recover()
                    await self._pusher.measure(self._clock.now())
                self._observer.dependency("postgres", True)
            except StoreUnavailable as error:
                self._observer.dependency("postgres", False)
                log.warning("the database is away", extra={"reason": str(error)})
            ticks += 1
            await self._clock.sleep(TICK_SECONDS)

    async def expire_calls(self) -> None:
        """Calls that rang out are missed."""
        calls = await self._store.expired_calls(self._clock.now(), ROUND)
        if not calls:
            return
        keys = Keys(
            accounts=frozenset(call.account for call in calls),
            conversations=frozenset(ConversationKey(call.account, call.peer) for call in calls),
            calls=frozenset((call.account, call.sid) for call in calls),
            devices=True,
        )
        report = await self._store.transact(keys, partial(self._expire, calls))
        self._pusher.committed(report)

    def _expire(self, calls: Sequence[CallKey], books: Books) -> Ruling[Report]:
        return expire(calls, books, self._policies)
