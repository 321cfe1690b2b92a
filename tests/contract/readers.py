"""A client that keeps a list and a stamp, as those of PROTOCOLS §2 do, beside the service's checks of its stamp."""

from dataclasses import replace

from sync.model.conversation import Account, Conversation, ConversationKey, Status
from sync.model.query import ConversationPage, Cursor, ListQuery
from tests.contract.fakes_store import sort_key

EVERYTHING = 1  # sync/service/query.py: a stamp that is not valid any more asks for all, tombstones included


class Reader:
    """`ask` for a page, then be `told` it: `list` is what it shows, `stamp` what it will ask from."""

    def __init__(self) -> None:
        self.list: dict[ConversationKey, Conversation] = {}
        self.stamp = 0
        self._query: ListQuery | None = None

    def ask(self, owner: Account, limit: int | None = None) -> ListQuery:
        """The next page of a list that was begun, or the first one of what is new."""
        query = self._query
        if query is None or query.after is None or query.after.newest < owner.floor:
            valid = not self.stamp or owner.floor <= self.stamp <= owner.version
            query = ListQuery(since=self.stamp if valid else EVERYTHING)
            if query.since <= EVERYTHING:
                self.list = {}
        self._query = replace(query, limit=limit)
        return self._query

    def told(self, page: ConversationPage) -> bool:
        """Take a page; True when it was the last one."""
        for item in page.items:
            self._take(item.conversation)
        query, self._query = page.query, None
        if query.limit is None or len(page.items) < query.limit:
            self.stamp = page.newest
            return True
        cursor = Cursor(since=query.since, newest=page.newest, sort=sort_key(page.items[-1].conversation, query))
        self._query = replace(query, after=cursor)
        return False

    def _take(self, conversation: Conversation) -> None:
        if conversation.status is Status.DELETED:
            self.list.pop(conversation.key, None)
        else:
            self.list[conversation.key] = conversation
