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

    async def since(self, account: str, told: int, log: int) -> Notice | None:
        """What is new since `told`, with change logs since `log`; None where nothing is."""
        owner = await self._store.account(account)
        if owner is None or owner.version <= told:
            return None
        if told >= owner.floor:
            page = await self._store.delta(account, DeltaQuery(since=told, log=log, limit=live.MAX_CONVERSATIONS))
            if page is not None and told >= page.owner.floor:
                return Notice(account, page.version, live.encode_live(page, now=self._clock.now()))
        # Clients start over: what they lack is not held any more, or this is another database.
        return Notice(account, owner.version, live.encode_more(owner, since=told, log=log, now=self._clock.now()))
