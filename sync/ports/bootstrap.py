"""The role that remembers which archives are still to be read. What is read of them is stored by `Store.transact`,
together with the cursor (`Writes.bootstraps`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from sync.model.bootstrap import Bootstrap


class Bootstraps(Protocol):
    """The rows of `sync.model.bootstrap`. Everything raises `StoreUnavailable` when the database does not answer."""

    async def due(self, now: datetime, hosts: Sequence[str], limit: int) -> Sequence[Bootstrap]:
        """Rows of these hosts that wait and are due, or not within an hour (the clock was set back), the longest
        due first; not locked.
        """
        ...

    async def meet(self, accounts: Sequence[str], now: datetime) -> int:
        """Make those of these accounts that are not known yet; how many those were. They are due at once."""
        ...

    async def ask(self, names: Sequence[str], now: datetime) -> Sequence[str]:
        """Read the archives of these accounts, rooms or hosts (anew) from the beginning. A host is made a row;
        of accounts and rooms those that are known are returned.
        """
        ...

    async def enrol(self, host: Bootstrap, accounts: Sequence[str], now: datetime, *, make: bool) -> None:
        """A page of a host's list of accounts, or rooms: `make` those that are not known, ask for the archives of all,
        and store the host's row, in one transaction.
        """
        ...

    async def store(self, row: Bootstrap) -> None:
        """Store a row, unless it was asked for anew meanwhile."""
        ...

    async def counts(self, hosts: Sequence[str]) -> Mapping[str, int]:
        """How many archives of accounts and rooms of these hosts there are in each state."""
        ...
