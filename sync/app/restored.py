"""After a restore of the database from a backup: the component's half of what docs/feed.md §6 says, by hand.

Clients of the accounts start over, and the archives of all accounts and rooms are read again for what the copy lacks. A
running service does the reading; until one runs, the wish waits in the database.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from sync.adapters.postgres.bootstrap import PostgresBootstraps
from sync.adapters.postgres.feed import PostgresFeedMarks
from sync.app.drivers import open_pool
from sync.config import Config


async def restored(config: Config, hosts: Sequence[str]) -> dict[str, int]:
    """Of these hosts, users' and rooms'; how many accounts of each users' host start over. Raises `CannotStart` and
    `StoreUnavailable`.
    """
    async with AsyncExitStack() as stack:
        pool = await open_pool(config, stack)
        marks, now = PostgresFeedMarks(pool), datetime.now(UTC)
        raised = {host: await marks.raise_epochs(host, now) for host in hosts if host in config.component.hosts}
        await PostgresBootstraps(pool).ask(hosts, now)
        return raised
