"""The message index within one transaction: what was loaded and what its events added, found by id; and what is unread
behind a message, without the messages in between ever being loaded.

The store counts once, as it loads (`Books.behind`); from then on every message that begins or ceases to count is
tallied here, so that each event sees what the ones before it did.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sync.model.books import Books
from sync.model.conversation import Behind, ConversationKey, IndexedMessage
from sync.rules.view import NOTHING_BEHIND, Tally
from sync.rules.wanted import indexes

Place = tuple[ConversationKey, int]


class Shelf:
    """The messages of a transaction's conversations."""

    def __init__(self, books: Books) -> None:
        self._messages: dict[Place, IndexedMessage] = {}
        self._by_id: dict[tuple[ConversationKey, str], set[int]] = defaultdict(set)
        self._behind = books.behind
        self._tallies: dict[ConversationKey, list[Tally]] = defaultdict(list)
        self._changed: set[Place] = set()
        for messages in books.messages.values():
            for message in messages:
                self._put(message)
        self._loaded = set(self._messages)

    def find(self, key: ConversationKey, ids: Iterable[str]) -> tuple[IndexedMessage, ...]:
        """The messages that bear one of the ids, and those that they are about, by rank."""
        found: dict[int, IndexedMessage] = {}
        for index in indexes(key):
            for identifier in ids:
                for rank in self._by_id.get((index, identifier), ()):
                    message = found[rank] = self._messages[index, rank]
                    about = self._messages.get((index, message.about)) if message.about is not None else None
                    if about is not None:
                        found[about.rank] = about
        return tuple(found[rank] for rank in sorted(found))

    def behind(self, key: ConversationKey, ranks: Iterable[int]) -> Mapping[int, Behind]:
        """What is unread behind each of these messages now, for those of which it is known."""
        return {rank: self._behind_now(key, rank) for rank in ranks if self._is_known(key, rank)}

    def _is_known(self, key: ConversationKey, rank: int) -> bool:
        """True where the store has counted, or where nothing of before is behind it: it came with this transaction."""
        return (key, rank) in self._behind or not any((index, rank) in self._loaded for index in indexes(key))

    def _behind_now(self, key: ConversationKey, rank: int) -> Behind:
        then = self._behind.get((key, rank), NOTHING_BEHIND)
        tallies = self._tallies.get(key, ())
        later = [tally for tally in tallies if tally.rank > rank]
        firsts = [tally.rank for tally in tallies if tally.unread > 0 and tally.rank <= rank]
        return Behind(
            then.unread + sum(tally.unread for tally in later),
            then.mentions + sum(tally.mentions for tally in later),
            then.first if then.first is not None else min(firsts, default=None),
        )

    def take(self, messages: Sequence[IndexedMessage], key: ConversationKey, tallies: Sequence[Tally]) -> None:
        """Messages that are new or changed, and what that counts in the conversation `key`."""
        for message in messages:
            self._put(message)
            self._changed.add((message.conversation, message.rank))
        if tallies:
            self._tallies[key].extend(tallies)

    def changed(self) -> list[IndexedMessage]:
        """The rows to store."""
        return [self._messages[place] for place in self._changed]

    def _put(self, message: IndexedMessage) -> None:
        key = message.conversation
        self._messages[key, message.rank] = message
        for identifier in (message.message_key, message.origin_key, message.archive_key):
            if identifier is not None:
                self._by_id[key, identifier].add(message.rank)
