"""A server of `urn:convsync:0` in its smallest form, to try a client's reducer on: an account's rows, answers to
`sync`, live notices. Written from the specification, not from the service, and as values, not as XML.
"""

from copy import copy
from dataclasses import dataclass, field, replace
from math import inf

from sync.client.values import Call, CallKey, Change, Conversation, Key, Notice, Page, Quiet, Removed, Row, Totals

MANY = 3  # more conversations than this in a notice: ask


@dataclass(frozen=True)
class Token:
    """What a token stands for; `low` and `newest` of one that continues a list; `log`: since when changes are owed."""

    epoch: int
    since: int
    log: int
    newest: int | None = None
    low: int | None = None


@dataclass
class Watch:
    """The session is told what is newer than `told`, with changes since `log`, which stays behind until `settles`."""

    epoch: int
    told: int
    log: int
    settles: float

    def settle(self) -> None:
        if self.told >= self.settles:
            self.log, self.settles = self.told, 0


@dataclass
class Server:
    """One account. `epoch` goes up when the database is restored; versions never go down within one."""

    version: int = 0
    epoch: int = 1
    floor: int = 0
    watch: "Watch | None" = None
    rows: dict[Key, Conversation] = field(default_factory=dict)
    tombs: dict[Key, int] = field(default_factory=dict)
    calls: dict[CallKey, Call] = field(default_factory=dict)
    log: dict[Key, list[Change]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    quiet: Quiet | None = None

    # ---- what happens ----------------------------------------------------------------------------------------------

    def bump(self) -> int:
        self.version += 1
        return self.version

    def write(self, key: Key) -> None:
        row = self.rows.get(key) or Conversation(jid=key.jid, kind=key.kind)
        self.rows[key] = replace(row, version=self.bump(), unread=row.unread + 1)
        self.tombs.pop(key, None)

    def read(self, key: Key) -> None:
        if key in self.rows:
            self.rows[key] = replace(self.rows[key], version=self.bump(), unread=0)

    def correct(self, key: Key) -> None:
        if key in self.rows:
            self.rows[key] = replace(self.rows[key], version=self.bump())
            self.log.setdefault(key, []).append(Change(kind="corrected", id="m", version=self.version))

    def delete(self, key: Key) -> None:
        if self.rows.pop(key, None):
            self.tombs[key] = self.bump()
            self.log.pop(key, None)

    def call(self, key: CallKey, state: str) -> None:
        known = self.calls.get(key)
        if known and (not known.rings or state == "ringing"):
            return
        if not known and state != "ringing":
            return
        self.calls[key] = Call(id=key.id, jid=key.jid, state=state, version=self.bump())
        self.write(Key(key.jid))

    def hush(self, quiet: Quiet | None) -> None:
        if quiet != self.quiet:
            self.quiet = quiet
            self.bump()

    def expire(self) -> None:
        """Tombstones are dropped; who is older than them starts over."""
        self.floor, self.tombs = self.version, {}

    def restore(self, backup: "Server") -> None:
        """The database is put back to an earlier copy, and the operator said so: versions go on above all others."""
        newest = self.version
        self.rows, self.tombs, self.calls = dict(backup.rows), dict(backup.tombs), dict(backup.calls)
        self.quiet = backup.quiet
        self.log = {key: list(log) for key, log in backup.log.items()}
        self.watch = copy(backup.watch)
        self.epoch, self.version = self.epoch + 1, newest + 1
        self.floor = self.version

    # ---- what it says ----------------------------------------------------------------------------------------------

    def sync(self, text: str | None, *, most: int, live: bool) -> Page:
        token = None if text is None else self.tokens[text]
        reset = self._reset(token)
        start = token if token is not None and reset is None else Token(self.epoch, 0, 0)
        newest = self.version if start.newest is None else start.newest
        low = newest + 1 if start.low is None else start.low
        items = self._items(start.since, low, log=start.log, whole=start.since == 0)
        shown, first = items[:most], start.low is None
        if len(shown) == len(items):
            skipped = start.since > 0 and self.version > newest
            new = Token(self.epoch, newest, start.log if skipped else newest)
        elif shown or not first:
            new = Token(self.epoch, start.since, start.log, newest, _version(shown[-1]) if shown else low)
        else:
            new = Token(self.epoch, start.since, start.log)
        self._answered(new, newest, whole=len(shown) == len(items), live=live and first)
        news = start.since != self.version
        return Page(
            asked=text,
            continued=token is not None and token.low is not None,
            token=self._text(new),
            version=newest,
            more=len(shown) < len(items),
            reset=reset,
            totals=self.totals,
            quiet=self.quiet,
            calls=tuple(self._calls(start.since)) if first and news else (),
            rows=tuple(shown),
        )

    def _answered(self, token: Token, newest: int, *, whole: bool, live: bool) -> None:
        log, settles = token.log if token.since else newest, self.version if whole else inf
        if live:
            self.watch = Watch(self.epoch, newest, log, settles)
        elif self.watch:
            self.watch.log, self.watch.settles = min(self.watch.log, log), settles
            self.watch.settle()

    def notice(self) -> Notice | None:
        """What a watcher has not been told yet."""
        watch = self.watch
        if watch is None or (watch.told >= self.version and watch.epoch == self.epoch):
            return None
        previous, log = watch.told, watch.log if watch.log < watch.told else self.version
        token = self._text(Token(self.epoch, self.version, log))
        items = self._items(previous, self.version + 1, log=watch.log, whole=False)
        stale = watch.epoch != self.epoch or previous < self.floor
        watch.epoch, watch.told = self.epoch, self.version
        watch.settle()
        if stale or len(items) > MANY:
            return Notice(previous=previous, version=self.version, token=token, more=True)
        return Notice(
            previous=previous,
            version=self.version,
            token=token,
            totals=self.totals,
            quiet=self.quiet,
            calls=tuple(self._calls(previous)),
            rows=tuple(items),
        )

    @property
    def totals(self) -> Totals:
        return Totals(
            unread=sum(row.unread for row in self.rows.values()),
            conversations=sum(row.unread > 0 for row in self.rows.values()),
        )

    @property
    def ringing(self) -> set[CallKey]:
        return {key for key, call in self.calls.items() if call.rings}

    def _reset(self, token: Token | None) -> str | None:
        if token is None or (token.since == 0 and token.low is None):
            return None
        if token.epoch != self.epoch:
            return "epoch"
        return "expired" if (token.since or token.newest or 0) < self.floor else None

    def _items(self, since: int, low: int, *, log: int, whole: bool) -> list[Row | Removed]:
        found: list[Row | Removed] = []
        for key, row in self.rows.items():
            if since < row.version < low:
                news = () if whole else tuple(c for c in self.log.get(key, []) if c.version > log)
                found.append(Row(conversation=row, changes=news))
        for key, at in self.tombs.items():
            if since < at < low and not whole:
                found.append(Removed(jid=key.jid, kind=key.kind, version=at))
        return sorted(found, key=_version, reverse=True)

    def _calls(self, since: int) -> list[Call]:
        found = [call for call in self.calls.values() if call.rings or (since and call.version > since)]
        return sorted(found, key=lambda call: call.version, reverse=True)

    def _text(self, token: Token) -> str:
        text = f"t{len(self.tokens)}"
        self.tokens[text] = token
        return text


def _version(item: Row | Removed) -> int:
    return item.version if isinstance(item, Removed) else item.conversation.version
