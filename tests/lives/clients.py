"""Clients of the world's accounts. Each asks when it likes, all at once or a page at a time, and has to end with what
the server has: `read` and `follow` check it at each answer that is whole.
"""

from tests.contract.readers import Follower, Reader, shown
from tests.lives.world import ACCOUNTS, World, run

READERS = 3


class Clients:
    """Three readers, one of them from behind, and a follower of change logs for each account."""

    def __init__(self, world: World) -> None:
        self._world, self._lives = world, dict.fromkeys(ACCOUNTS, -1)
        self._readers: dict[str, list[Reader]] = {}
        self._followers: dict[str, Follower] = {}

    def _renew(self, account: str) -> None:
        """Somebody else's account has somebody else's clients."""
        if self._lives[account] != self._world.lives[account]:
            self._lives[account] = self._world.lives[account]
            self._readers[account] = [Reader(backwards=number == 0) for number in range(READERS)]
            self._followers[account] = Follower()

    def read(self, account: str, which: int, limit: int | None) -> None:
        """A page of a list, and all that is new after the last one."""
        self._renew(account)
        reader = self._readers[account][which]
        if self._page(account, reader, limit) and self._page(account, reader, None):
            assert reader.list == {key: shown(c) for key, c in self._world.listed(account).items()}

    def _page(self, account: str, reader: Reader, limit: int | None) -> bool:
        owner = self._world.tables.accounts.get(account)
        return owner is not None and reader.told(self._world.store.listed(account, reader.ask(owner, limit)))

    def follow(self, account: str, limit: int) -> None:
        """The change logs. Every change that ever was is known, or is part of what had to be loaded."""
        self._renew(account)
        owner, world, follower = self._world.tables.accounts.get(account), self._world, self._followers[account]
        if owner is None:
            return
        page = world.store.listed(account, follower.since(owner))
        follower.follow(owner, page, lambda key, since: run(world.store.changes(key, since, limit)))
        missed = [change for change in world.history.get(account, ()) if not follower.knows(change)]
        assert not missed, missed

    def finish(self) -> None:
        """Every client asks once more."""
        for account in ACCOUNTS:
            for which in range(READERS):
                self.read(account, which, None)
            self.follow(account, 100)
