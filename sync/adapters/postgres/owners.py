"""Accounts by primary key, for questions: those that are asked for while a read is under way are read together by the
next one, as events are committed in groups. Alone, a question is read at once; a crowd of phones that have nothing new
costs a statement for many of them. A row is as new as a statement that began after it was asked for.
"""

import asyncio

from sync.adapters.postgres import rows
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.statements import sql
from sync.model.conversation import Account

READS = 2  # under way at a time
MOST = 500  # accounts of one statement

Answered = asyncio.Future[Account | None]


class Owners:
    """The rows of accounts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._wanted: dict[str, list[Answered]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, jid: str) -> Account | None:
        """One account; None where there is none."""
        answered: Answered = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(jid, []).append(answered)
        if len(self._reading) < READS:
            self._reading.add(asyncio.ensure_future(self._read()))
        return await answered

    async def _read(self) -> None:
        """Until nobody waits."""
        try:
            while self._wanted:
                await self._together()
        finally:
            # In the same step as the last look: whoever asks from here on finds a reader or is one.
            self._reading.discard(asyncio.current_task())

    async def _together(self) -> None:
        """One statement. A failure is told to those who waited for it."""
        names = list(self._wanted)[:MOST]
        waiting = [(name, one) for name in names for one in self._wanted.pop(name)]
        try:
            async with self._pool.connection() as connection:
                found = await connection.fetch(sql("read_accounts"), names)
            owners = {row["jid"]: rows.account(row) for row in found}
        except Exception as error:  # noqa: BLE001 - theirs who asked
            for _, answered in waiting:
                if not answered.done():
                    answered.set_exception(error)
        else:
            for name, answered in waiting:
                if not answered.done():
                    answered.set_result(owners.get(name))
