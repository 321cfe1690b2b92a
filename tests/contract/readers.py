"""Clients, without a network: one that keeps a list and a stamp, as those of PROTOCOLS §2 do, beside the service's
checks of its stamp; and one that follows the change logs of its conversations.
"""

from collections.abc import Callable
from dataclasses import replace

from sync.model.conversation import Account, Base, Change, Conversation, ConversationKey, Status
from sync.model.query import EVERYTHING, ChangesPage, ConversationPage, Cursor, ListQuery
from tests.contract.fakes_store import sort_key


def shown(conversation: Conversation) -> Conversation:
    """A conversation as clients see it: what trimming moves about is none of their business, and bumps no version."""
    return replace(conversation, base=Base(), log_from=0)


class Reader:
    """`ask` for a page, then be `told` it: `list` is what it shows, `stamp` what it will ask from. `backwards`: from
    the last page of each list to its first.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self.list: dict[ConversationKey, Conversation] = {}
        self.stamp = 0
        self._query: ListQuery | None = None
        self._shown: set[ConversationKey] = set()  # on the pages of this list

    def ask(self, owner: Account, limit: int | None = None) -> ListQuery:
        """The next page of a list that was begun, or the first one of what is new."""
        query = self._query
        if query is None or query.place is None or query.whole_since < owner.floor:
            valid = not self.stamp or owner.floor <= self.stamp <= owner.version
            query = ListQuery(since=self.stamp if valid else EVERYTHING, at_end=self._backwards)
            self._shown = set()
            if query.since <= EVERYTHING:
                self.list = {}
        self._query = replace(query, limit=limit)
        return self._query

    def told(self, page: ConversationPage) -> bool:
        """Take a page; True when it was the last one. One whose stamp became too old after it was asked for is no
        answer: the client starts over.
        """
        query, self._query = page.query, None
        if 0 < query.whole_since < page.floor:
            return False
        for item in page.items:
            assert item.conversation.key not in self._shown
            self._shown.add(item.conversation.key)
            self._take(item.conversation)
        if query.limit is None or len(page.items) < query.limit:
            self.stamp = page.newest
            return True
        next_to = page.items[0 if self._backwards else -1].conversation
        cursor = Cursor(since=query.since, newest=page.newest, sort=sort_key(next_to, query))
        before, after = (cursor, None) if self._backwards else (None, cursor)
        self._query = replace(query, before=before, after=after, at_end=False)
        return False

    def _take(self, conversation: Conversation) -> None:
        if conversation.status is Status.DELETED:
            self.list.pop(conversation.key, None)
        else:
            self.list[conversation.key] = shown(conversation)


Place = tuple[ConversationKey, int]
Log = Callable[[ConversationKey, int], ChangesPage]


class Follower:
    """A client that asks for the change log of each conversation that is new to it, since its stamp. `known`: where
    it knows of a change; `loaded`: up to where it had to load a conversation anew.
    """

    def __init__(self) -> None:
        self.known: dict[Place, Change] = {}
        self.loaded: dict[ConversationKey, int] = {}
        self.all_loaded = 0
        self._stamp = 0

    def follow(self, owner: Account, page: ConversationPage, log: Log) -> None:
        """Take what is new: `page` is everything since `since(owner)`."""
        if page.query.since <= EVERYTHING or page.query.since < page.floor:
            self.all_loaded = page.newest
        else:
            for item in page.items:
                found = log(item.conversation.key, self._stamp)
                if found.reset:
                    self.loaded[item.conversation.key] = item.conversation.version
                self.known |= {(change.conversation, change.version): change for change in found.changes}
        self._stamp = page.newest

    def since(self, owner: Account) -> ListQuery:
        """What it asks for."""
        valid = owner.floor <= self._stamp <= owner.version
        return ListQuery(since=self._stamp if valid and self._stamp else EVERYTHING)

    def knows(self, change: Change) -> bool:
        """True where it was told of the change, or to load what has it."""
        key = change.conversation
        return (key, change.version) in self.known or change.version <= max(self.all_loaded, self.loaded.get(key, 0))
