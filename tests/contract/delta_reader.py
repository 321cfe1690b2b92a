"""A client of our own dialect as docs/protocol.md §8 wants it, without a network: it gives the token of its last
answer, takes what is told, and checks what a chain of pages promises.
"""

from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from sync.model.conversation import Change
from sync.model.delta import Filters
from sync.protocol.delta import SYNC
from sync.protocol.names import CONVSYNC, clark

Name = tuple[str, str]
_CONVERSATION, _CALL, _CHANGES = (clark(CONVSYNC, name) for name in ("conversation", "call", "changes"))


@dataclass
class DeltaReader:
    """`held`: the conversations that it shows, with their versions. `known`: changes that it was told of, by
    conversation and version; `loaded`: up to which version it has loaded a conversation's messages anew, `all_loaded`
    those of all. `calls`: the state of each call that it knows of, by peer and session id; `ringing`: those that it
    lets ring.
    """

    account: str
    filters: Filters = field(default_factory=Filters)
    limit: int = 2
    token: str | None = None
    version: int = 0
    held: dict[Name, int] = field(default_factory=dict)
    known: set[tuple[Name, int]] = field(default_factory=set)
    loaded: dict[Name, int] = field(default_factory=dict)
    all_loaded: int = 0
    calls: dict[Name, str] = field(default_factory=dict)
    ringing: set[Name] = field(default_factory=set)
    resets: list[str] = field(default_factory=list)
    _chain: list[int] = field(default_factory=list)
    _names: set[Name] = field(default_factory=set)

    def ask(self) -> Element:
        """The next page, or what is new."""
        asked = {"token": self.token, "max": str(self.limit), "jid": self.filters.peer}
        asked |= {"kind": self.filters.kind, "status": self.filters.status}
        flags = {"unread": self.filters.unread, "pinned": self.filters.pinned}
        asked |= {name: str(flag).lower() for name, flag in flags.items() if flag is not None}
        return Element(SYNC, {name: str(value) for name, value in asked.items() if value is not None})

    def told(self, answer: Element) -> bool:
        """Take an answer; True when nothing is left behind it."""
        version, reset = int(answer.get("version", "")), answer.get("reset")
        begins = self.token is None or reset is not None or not self._chain
        if reset is not None:
            self.resets.append(reset)
        # Who was told of an account that nobody knew then is told everything, too.
        if self.token is None or reset is not None or (begins and self.version == 0):
            self.held, self.calls, self.all_loaded = {}, {}, version
        if begins:
            self._take_calls(answer, nothing_new=reset is None and version == self.version)
            self._chain, self._names, self.version = [], set(), version
        assert version == self.version, "a chain has one version"
        assert begins or answer.find(_CALL) is None, "calls come on the first page"
        for item in answer.findall(_CONVERSATION):
            self._take(item)
        self.token = answer.get("token")
        if answer.get("more") == "true":
            return False
        self._chain = []
        return True

    def _take(self, item: Element) -> None:
        name, version = (item.get("jid", ""), item.get("kind", "")), int(item.get("version", ""))
        assert name not in self._names, "a chain tells nothing twice"
        assert version <= self.version
        assert not self._chain or version < self._chain[-1], "newest first"
        self._names.add(name)
        self._chain.append(version)
        assert self.held.get(name, 0) < version or name not in self.held, "what was told changes with its version"
        if item.get("outside") == "true" or item.get("status") == "deleted":
            self.held.pop(name, None)
            return
        log = item.find(_CHANGES)
        if name not in self.held or (log is not None and log.get("reset")):
            self.loaded[name] = version
        self.known |= {(name, int(change.get("version", ""))) for change in (log if log is not None else ())}
        self.held[name] = version

    def _take_calls(self, answer: Element, *, nothing_new: bool) -> None:
        listed = {(call.get("jid", ""), call.get("id", "")): call.get("state", "") for call in answer.findall(_CALL)}
        assert len(listed) == len(answer.findall(_CALL))
        self.calls |= listed
        if not nothing_new:  # else what rang rings
            self.ringing = {name for name, state in listed.items() if state == "ringing"}

    def knows(self, change: Change) -> bool:
        """True where it was told of the change, or to load what has it, or shows nothing of the kind."""
        name = (change.conversation.peer, change.conversation.kind.value)
        told = max(self.all_loaded, self.loaded.get(name, 0))
        return name not in self.held or (name, change.version) in self.known or change.version <= told
