"""How many pushes of each queue may be under way, so that what stands still in one stalls nothing else.

A queue is the way to one app's service (`Device.queue`). In each lane of workers it has so many places, and a breaker
over all lanes. What has no place stays in the store, where `held` keeps it from being claimed.

Whose app servers of other makers users name is their choice, and so is how many of them never answer: together they
have a part of a lane's places only, and what is known of one that nobody is told by any more is let go.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sync.model.device import Route
from sync.model.push import PushOutcome
from sync.ports import Observer
from sync.rules.rung import Spare
from sync.service.breaker import CREDENTIALS, Breaker

log = logging.getLogger(__name__)

QUEUES = 8  # of them may be full at once before a lane is
ABROAD = QUEUES // 2  # of those, app servers of other makers
# There an account may have nodes that are never answered (fpush/src/xmpp/message_loop.rs: silent about more than five
# options). Others with the same app server must not wait for it.
SEVERAL = 3
FORGOTTEN_AFTER = timedelta(minutes=20)  # longer than any pause of a breaker, and any between two attempts
# These concern the key, whatever it is used for; other refusals may be about one app or environment (PUSH §2).
OF_THE_KEY = frozenset({"InvalidProviderToken", "MissingProviderToken"})


@dataclass(frozen=True, slots=True)
class Place:
    """What a push takes up while it is under way."""

    lane: str
    queue: str
    turn: int


class Queues:
    """`each`: places of a queue in a lane. `keys`: which of our keys a queue's pushes are signed with. `reaches`:
    whether this process can send what is in a queue now.
    """

    def __init__(
        self,
        *,
        each: int,
        observer: Observer,
        keys: Mapping[str, str],
        reaches: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._each, self._observer, self._keys, self._reaches = each, observer, keys, reaches
        self._afar: set[str] = set()  # those that were met and are not reached
        self._crowded: dict[str, set[str]] = {}  # by lane, those abroad that were met and found no place
        self._abroad: Counter[str] = Counter()  # of the lane's places, how many those have
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._in_lane: Counter[str] = Counter()
        self._breakers: dict[str, Breaker] = {}

    def room(self, lane: str) -> int:
        """How many more pushes the lane may take."""
        return QUEUES * self._each - self._in_lane[lane]

    def admit(self, lane: str, queue: str, now: datetime) -> Place | None:
        """A place, None where there is none now."""
        if self.room(lane) <= 0 or self._under_way[lane, queue] >= self._each:
            return None
        if not self._reaches(queue):
            self._afar.add(queue)
            return None
        if is_abroad(queue) and self._abroad[lane] >= ABROAD * self._each:
            self._crowded.setdefault(lane, set()).add(queue)
            return None
        breaker = self._breakers.get(queue)
        if breaker is not None and not breaker.admits(now):
            return None
        return self.seat(lane, queue)

    def seat(self, lane: str, queue: str) -> Place:
        """A place for what is claimed already: where others were claimed at the same moment, one more than there is."""
        self._under_way[lane, queue] += 1
        self._in_lane[lane] += 1
        self._abroad[lane] += is_abroad(queue)
        breaker = self._breakers.get(queue)
        return Place(lane, queue, breaker.enter() if breaker is not None else 0)

    def spare(self, lane: str, now: datetime) -> Spare:
        """The lane's places that are free. A queue whose breaker is open tries again by a probe, and not by what is
        claimed with others.
        """
        return Spare(
            places=self.room(lane),
            each=self._each,
            taken={queue: count for (own, queue), count in self._under_way.items() if own == lane},
            held=self.held(lane, now) | {queue for queue, breaker in self._breakers.items() if breaker.is_open},
        )

    def held(self, lane: str, now: datetime) -> frozenset[str]:
        """The queues that have no place in the lane."""
        full = {queue for (own, queue), count in self._under_way.items() if own == lane and count >= self._each}
        self._afar = {queue for queue in self._afar if not self._reaches(queue)}
        if self._abroad[lane] < ABROAD * self._each:
            self._crowded.pop(lane, None)
        return frozenset(full | self._afar | self._crowded.get(lane, set()) | self.stopped(now))

    def stopped(self, now: datetime) -> set[str]:
        """The queues whose breaker is open, but for a probe."""
        return {queue for queue, breaker in self._breakers.items() if not breaker.admits(now)}

    def next_probe_at(self, now: datetime) -> datetime | None:
        """When the next queue that is stopped may try again."""
        return min((at for one in self._breakers.values() if (at := one.again_at) and at > now), default=None)

    def told(self, place: Place, outcome: PushOutcome, now: datetime, account: str = "") -> None:
        """The service has answered a push of that account, or not; the place is kept until `release`."""
        several = SEVERAL if is_abroad(place.queue) else 1
        breaker = self._breakers.setdefault(place.queue, Breaker(several))
        was = breaker.why
        breaker.tell(place.turn, outcome, now, account)
        if was != CREDENTIALS and breaker.why == CREDENTIALS and outcome.reason in OF_THE_KEY:
            self._stop_kin(place.queue, outcome, now)
        self._changed(place.queue, was)
        if was == CREDENTIALS and not breaker.is_open:
            self._free_kin(place.queue)

    def release(self, place: Place) -> None:
        """It is over, or nothing left."""
        self._under_way[place.lane, place.queue] -= 1
        if not self._under_way[place.lane, place.queue]:
            del self._under_way[place.lane, place.queue]
        self._in_lane[place.lane] -= 1
        self._abroad[place.lane] -= is_abroad(place.queue)
        if (breaker := self._breakers.get(place.queue)) is not None:
            breaker.leave(place.turn)

    def forget(self, now: datetime) -> None:
        """Let go of app servers of other makers by which nobody was told of anything for a while."""
        busy = {queue for _, queue in self._under_way}
        for queue, breaker in list(self._breakers.items()):
            if is_abroad(queue) and queue not in busy and breaker.told_at < now - FORGOTTEN_AFTER:
                del self._breakers[queue]
                if breaker.is_open:
                    self._observer.breaker(queue, False)

    def troubles(self) -> dict[str, str]:
        """Why a queue's pushes wait, by queue."""
        return {
            queue: f"pushes wait: {breaker.why}{f' ({breaker.reason})' if breaker.reason else ''}"
            for queue, breaker in sorted(self._breakers.items())
            if breaker.is_open
        }

    def _kin(self, queue: str) -> list[str]:
        """The other queues whose pushes are signed with the same key."""
        return [other for other, key in self._keys.items() if other != queue and key == self._keys.get(queue)]

    def _stop_kin(self, queue: str, outcome: PushOutcome, now: datetime) -> None:
        """They need not be refused, too, before they wait."""
        for other in self._kin(queue):
            breaker = self._breakers.setdefault(other, Breaker())
            if not breaker.is_open:
                breaker.open(CREDENTIALS, outcome.reason, now)
                self._changed(other, None)

    def _free_kin(self, queue: str) -> None:
        """The key is good again."""
        for other in self._kin(queue):
            breaker = self._breakers.get(other)
            if breaker is not None and breaker.why == CREDENTIALS and breaker.reason in OF_THE_KEY:
                breaker.close()
                self._changed(other, CREDENTIALS)

    def _changed(self, queue: str, was: str | None) -> None:
        breaker = self._breakers[queue]
        if breaker.is_clean:
            del self._breakers[queue]
        if was == breaker.why:
            return
        self._observer.breaker(queue, breaker.is_open)
        if breaker.why == CREDENTIALS:
            log.error("the push service refuses our credentials", extra={"queue": queue, "reason": breaker.reason})
        elif breaker.is_open:
            log.warning("the push service takes nothing", extra={"queue": queue, "reason": breaker.reason})
        else:
            log.info("pushes go on", extra={"queue": queue})


def is_abroad(queue: str) -> bool:
    """True for app servers of other makers."""
    return queue.startswith(f"{Route.PUBLISH}:")
