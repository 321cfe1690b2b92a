"""The archive of a vector: lines `past VERB …` are its items, `keeps ID` is what the account's own storage says of what
is read, `read` ends the run. It does what `sync.service.bootstrap` does, without a server.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.conversation import ConversationKey
from sync.model.event import Displayed, MessageEvent
from sync.rules import history
from sync.rules.fold import Policies
from sync.rules.history import Past, Restored
from tests.contract.fakes_store import MemoryStore


class Archive:
    """One account's archive, on its way into a store."""

    def __init__(self, store: MemoryStore, account: str, policies: Policies) -> None:
        self.store, self.account, self.policies = store, account, policies
        self.items: list[MessageEvent] = []
        self.marked: dict[ConversationKey, str] = {}
        self._several = policies.conduct.several
        self._rank = self.turns = 0
        self._floors: dict[ConversationKey, int] = {}

    def begin(self) -> None:
        """From the beginning."""
        self._rank, self._floors = 0, {}

    @property
    def past(self) -> Past:
        return Past(since=self.store.tables.bootstraps[self.account].since, marked=self.marked)

    def page(self, events: Sequence[MessageEvent]) -> Restored:
        """One page, in one or two transactions."""
        known = self.store.apply(history.known_keys(events, several=self._several), history.known_places)
        taken: frozenset[history.Place] = frozenset()
        step = 1
        while True:
            self.turns += 1
            ranked = history.ranked(events, self._rank, known, self._floors, taken, step=step)
            rest, markers = history.own_markers(ranked, self.policies.conduct)
            restored = self._store(rest)
            if not restored.taken_places:
                break
            taken |= restored.taken_places
            step *= 2
        restored.ignored.update(self._store(markers).ignored)
        self._rank = max((event.rank or 0 for event in ranked), default=self._rank)
        self._floors |= history.highest(ranked, known)
        return restored

    def finish(self, marker: MessageEvent) -> Restored:
        """What is kept in storage, as the markers that it is."""
        return self._store([marker_of(marker, key, target) for key, target in self.marked.items()])

    def _store(self, events: Sequence[MessageEvent]) -> Restored:
        keys: Keys = history.keys_of(events, self.past, self.account, several=self._several)
        return self.store.apply(keys, partial(history.restore, events, self.past, None, policies=self.policies))


def marker_of(like: MessageEvent, key: ConversationKey, target: str) -> MessageEvent:
    marker = Displayed(target, (target,))
    return replace(like, peer=key.peer, content=marker, stanza="", archive_id=None, message_id=None)
