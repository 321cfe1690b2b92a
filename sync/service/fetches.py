"""Records that a device has fetched: it was told everything, so the wake that it was sent has arrived, and what waits
to wake it again is off. The answer does not wait for that.
"""

import asyncio
import logging
from functools import partial

from sync.model.books import Keys
from sync.model.errors import StoreUnavailable
from sync.ports import Observer, Store
from sync.rules.devices import fetched

log = logging.getLogger(__name__)

MAX_RECORDING = 1000  # fetches that wait to be recorded


class Fetches:
    """What devices have fetched, on its way into the store."""

    def __init__(self, *, store: Store, observer: Observer) -> None:
        self._store, self._observer = store, observer
        self._recording: set[asyncio.Task[None]] = set()

    def record(self, account: str, resource: str, version: int) -> None:
        """The session was told everything up to a version."""
        if len(self._recording) >= MAX_RECORDING:
            return  # the device is woken once more
        task = asyncio.ensure_future(self._fetched(account, resource, version))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _fetched(self, account: str, resource: str, version: int) -> None:
        keys = Keys(accounts=frozenset({account}), devices=True)
        try:
            delays = await self._store.transact(keys, partial(fetched, account, resource, version))
        except StoreUnavailable:
            log.warning("a fetch was not recorded: the device may be woken once more")
            return
        for seconds in delays:
            self._observer.wake_to_fetch("wake", seconds)
