"""Asks the module for what is in the server's archives, at the pace that the operator allows.

An answer is given out only when everything that the feed had told before it is committed: what is on its way as an
event is known then, and nobody takes it for something of before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from xml.etree.ElementTree import Element

from sync.model.bootstrap import Bootstrap
from sync.model.errors import Refused
from sync.model.event import MessageEvent, Nothing
from sync.model.jid import domain
from sync.ports import Clock, Observer, Wire
from sync.protocol import archive, envelope
from sync.protocol.archive import Names, Page
from sync.protocol.feed import FrameError
from sync.rules import history
from sync.rules.times import instant, microseconds
from sync.service.feed import HostFeed
from sync.service.ingest import Ingest

# What an archive has since so short a time may still be on its way to the feed, in a server whose parts run beside each
# other. It comes by the feed.
MARGIN = timedelta(seconds=2)
STEPS = 40  # of the search for an archive's newest page; each halves the time that is left
SHORT = 1_000_000  # microseconds; archives may tell whole seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much of archives is read, and how fast. `window`: how far back; `messages`: of one account, beyond which only
    the newer half of what is left is read; `room_messages`: of a room at the first contact. `horizon`: how long what
    was deleted is remembered.
    """

    enabled: bool = True
    pages_per_second: float = 10.0
    at_once: int = 2
    window: timedelta = timedelta(days=90)
    messages: int = 10_000
    room_messages: int = 50
    horizon: timedelta = timedelta(days=30)


class Archives:
    """The archives of the hosts' accounts and rooms. Everything raises `Refused`, `FrameError` and, while the feed is
    behind, `Behind`.
    """

    def __init__(
        self,
        *,
        component: str,
        wire: Wire,
        feeds: Mapping[str, HostFeed],
        ingest: Ingest,
        clock: Clock,
        observer: Observer,
        pace: Pace,
    ) -> None:
        self._component, self._wire, self._feeds, self._ingest = component, wire, feeds, ingest
        self._clock, self._observer, self._pace = clock, observer, pace
        self._next_page_at = clock.now()
        self.rooms = frozenset(host for host, feed in feeds.items() if feed.keeps_rooms)

    async def ask(self, host: str, payload: Element) -> Element:
        """One request, at its turn."""
        now, pause = self._clock.now(), timedelta(seconds=1 / self._pace.pages_per_second)
        turn = max(now, self._next_page_at)
        if turn - now > self._pace.at_once * pause:
            turn = now + pause  # nobody has so many ahead: the clock was set back
        self._next_page_at = turn + pause
        if turn > now:
            await self._clock.sleep((turn - now).total_seconds())
        request = envelope.iq("get", sender=self._component, to=host, request_id="archive", payload=payload)
        answer = await self._wire.request(request)
        if not len(answer):
            raise FrameError("The answer is empty.")
        return answer[0]

    async def caught_up(self, account: str) -> None:
        """What came by the feed before the answer is committed: what is in the archive is known, or was lost."""
        await self._feeds[domain(account)].fresh()
        await self._ingest.barrier(account)

    def start(self, row: Bootstrap) -> int:
        """From which archive time on to read."""
        return row.start or max(microseconds(self._clock.now() - self._pace.window), 1)

    async def page(self, row: Bootstrap, until: int, limit: int = archive.MAX_ITEMS) -> tuple[Bootstrap, Page]:
        """The next page, and the row from which it goes on: an item that is not in the archive any more is no place to
        go on from, its time is.
        """
        payload = archive.archive_request(row.account, start=self.start(row), end=until, after=row.after, limit=limit)
        try:
            answer = await self.ask(domain(row.account), payload)
        except Refused as refused:
            if refused.condition != "item-not-found" or row.after is None:
                raise
            row = replace(row, after=None, start=max(history.before(row.rank), self.start(row)))
            return await self.page(row, until, limit)
        page = archive.decode_archive(answer, account=row.account, until=until, muc_hosts=self.rooms)
        if any(item.id == row.after for item in page.items):
            raise FrameError("The page is not behind the item that it is to follow.")
        await self.caught_up(row.account)
        if page.left_out:
            self._observer.ignored("archive-item", page.left_out)
        return row, page

    def until(self) -> int:
        """Up to which archive time."""
        return microseconds(self._clock.now() - MARGIN)

    async def described(self, row: Bootstrap) -> list[MessageEvent]:
        """What an account keeps about its conversations, as events."""
        answer = await self.ask(domain(row.account), archive.account_request(row.account))
        events = archive.decode_account(answer, account=row.account, at=instant(self.start(row)))
        return [event for event in events if not isinstance(event.content, Nothing)]

    async def newest(self, row: Bootstrap) -> Page:
        """The newest page. Archives are read from the old end: where their last page begins is searched for, between an
        instant behind which there is more than a page and one behind which there is nothing.
        """
        until, limit = self.until(), self._pace.room_messages
        row = replace(row, start=self.start(row), after=None)
        _, page = await self.page(row, until, limit)
        much, nothing = row.start, until
        for _ in range(STEPS):
            if page.last or nothing - much < SHORT:
                break
            middle = (max(much, page.items[-1].at) + nothing) // 2
            _, newer = await self.page(replace(row, start=middle), until, limit)
            if newer.items:
                page, much = newer, middle
            else:
                nothing = middle
        while not page.last:
            _, newer = await self.page(replace(row, start=page.items[-1].at, after=page.items[-1].id), until, limit)
            page = newer if newer.items else replace(page, last=True)
        return page

    async def names(self, host: str, after: str | None) -> Names:
        """The next accounts of a host, or its rooms."""
        names = archive.decode_accounts(await self.ask(host, archive.accounts_request(after)), host=host)
        if after is not None and any(name <= after for name in names.jids):
            raise FrameError("The names are not behind the one that they are to follow.")
        return names
