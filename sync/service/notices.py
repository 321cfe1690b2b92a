"""What a session is told that knows its account up to some version: one read of the store, however much has changed."""

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sync.model.delta import DeltaQuery
from sync.ports import Clock, Store
from sync.protocol import live


@dataclass(frozen=True, slots=True)
class Notice:
    """For the sessions of an account. Who has it knows everything up to `version`, or that it has to ask."""

    account: str
    version: int
    content: Element

    def to(self, resource: str) -> Element:
        """The stanza for one of them."""
        return live.headline(self.content, account=self.account, resource=resource)


class Notices:
    """Made out of the store."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def since(self, account: str, told: int, log: int, *, sure: bool) -> Notice | None:
        """What is new since `told`, with change logs since `log`; None where nothing is. Whoever is not `sure` that
        there is something pays one read of a primary key to learn it.
        """
        if not sure:
            owner = await self._store.account(account)
            if owner is None or owner.version <= told:
                return None
        page = await self._store.delta(account, DeltaQuery(since=told, log=log, limit=live.MAX_CONVERSATIONS))
        if page is None or page.version <= told:
            return None
        now = self._clock.now()
        if told < page.owner.floor:  # clients start over: what they lack is not held any more
            content = live.encode_more(page.owner, since=told, log=log, now=now)
        else:
            content = live.encode_live(page, now=now)
        return Notice(account, page.version, content)
