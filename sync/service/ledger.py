"""Writes down what became of attempts: what comes while one transaction is under way goes into the next one together.

Nothing waits to become a batch, and nothing is given up for want of a database: until it is written down an attempt
counts as uncertain.
"""

import asyncio
import logging
import random
from collections.abc import Sequence

from sync.model.books import Books, Ruling
from sync.model.device import PushJob
from sync.model.errors import StoreUnavailable
from sync.model.push import PushOutcome
from sync.ports import Clock, Observer, Store
from sync.rules.fold import Policies
from sync.rules.outcomes import Answer, settle_all
from sync.service.due import due_of, keys_of

log = logging.getLogger(__name__)

BATCH = 64
AGAIN_SECONDS = 2.0

Entry = tuple[PushJob, PushOutcome, asyncio.Future[None]]


class Ledger:
    """One for each lane of workers, so that calls do not wait for a batch of messages."""

    def __init__(self, *, store: Store, clock: Clock, observer: Observer, policies: Policies) -> None:
        self._store, self._clock, self._observer, self._policies = store, clock, observer, policies
        self._waiting: list[Entry] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, job: PushJob, outcome: PushOutcome) -> None:
        """Returns when it is written down, or cannot be whatever one does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, outcome, done))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
        await done

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._written(batch)
                for _, _, done in batch:
                    if not done.done():
                        done.set_result(None)
        finally:
            self._writing = None

    async def _written(self, batch: Sequence[Entry]) -> None:
        while True:
            try:
                await self._settle(batch)
            except StoreUnavailable:
                await self._clock.sleep(AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001 - one bad job must not keep the outcomes of others
                if len(batch) > 1:
                    for entry in batch:
                        await self._written([entry])
                else:
                    job, reason = batch[0][0].job_id, type(error).__name__
                    log.error("the outcome of a push cannot be recorded", extra={"job": job, "error": reason})
                return
            else:
                return

    async def _settle(self, batch: Sequence[Entry]) -> None:
        answers = [
            Answer(
                account=job.account,
                job_id=job.job_id,
                outcome=outcome,
                attempts=job.attempts,
                spread=random.uniform(0.75, 1.25),  # noqa: S311 - jitter, no secret
            )
            for job, outcome, _ in batch
        ]

        def rule(books: Books) -> Ruling[tuple[Answer, ...]]:
            return settle_all(answers, books, self._policies)

        for answer in await self._store.transact(keys_of([due_of(job) for job, _, _ in batch]), rule):
            self._observer.token_removed(answer.outcome.reason or "unknown")
