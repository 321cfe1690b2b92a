"""Records that a device has fetched: it was told everything, so the wake that it was sent has arrived, and what waits
to wake it again is off. Of one that was told a part it is noted that it may need another wake to get to the end. The
answer waits for neither.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

from sync.model.books import Keys
from sync.model.errors import StoreUnavailable
from sync.ports import Observer, Store
from sync.rules.backlog import begun
from sync.rules.devices import fetched
from sync.rules.fold import Policies

log = logging.getLogger(__name__)

MAX_RECORDING = 1000  # fetches that wait to be recorded


class Fetches:
    """What devices have fetched, on its way into the store."""

    def __init__(self, *, store: Store, observer: Observer, policies: Policies | None = None) -> None:
        self._store, self._observer, self._policies = store, observer, policies or Policies()
        self._recording: set[asyncio.Task[None]] = set()

    def record(self, account: str, resource: str, version: int) -> None:
        """The session was told everything up to a version."""
        self._start(self._fetched(account, resource, version))

    def begin(self, account: str, resource: str, version: int) -> None:
        """The session was told a part of what there is up to a version."""
        self._start(self._begun(account, resource, version))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        if len(self._recording) >= MAX_RECORDING:
            work.close()  # the device is woken once more, or not
            return
        task = asyncio.ensure_future(work)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _begun(self, account: str, resource: str, version: int) -> None:
        rule = partial(begun, account, resource, version, policies=self._policies)
        try:
            await self._store.transact(Keys(accounts=frozenset({account}), devices=True), rule)
        except StoreUnavailable:
            log.warning("a fetch was not recorded: the device may be woken once more")

    async def _fetched(self, account: str, resource: str, version: int) -> None:
        keys = Keys(accounts=frozenset({account}), devices=True)
        try:
            delays = await self._store.transact(keys, partial(fetched, account, resource, version))
        except StoreUnavailable:
            log.warning("a fetch was not recorded: the device may be woken once more")
            return
        for seconds in delays:
            self._observer.wake_to_fetch("wake", seconds)
