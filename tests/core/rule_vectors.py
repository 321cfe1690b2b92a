"""Runs vectors of the rules (tests/vectors/rules/*.toml): steps in, rows out, each with the section that demands it.

A step is a line, `verb words… option=value…`: feed events (`rule_feed.VERBS`) and what else happens (`OTHERS`). Feed
events that follow each other go into one transaction each, or all into one: both must lead to the same rows, and after
each transaction all counters must be what a recount says. A vector's `policy` is what its operator has set.
"""

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sync.adapters.zones import zone
from sync.model.books import Books, Keys, LanePosition
from sync.model.conversation import ConversationKey, Kind, Notify, Status
from sync.model.device import JobState, PushJob
from sync.model.errors import RequestError
from sync.model.event import Event, MessageEvent, Nothing
from sync.model.jid import lane
from sync.model.push import PushOutcome, Verdict
from sync.model.query import Mute, SetNotify, SetProperties, Unmute
from sync.ports import Retention
from sync.rules.claims import claim
from sync.rules.devices import fetched
from sync.rules.fold import Policies, Report, expire, fan_out, take
from sync.rules.outcomes import settle
from sync.rules.properties import keys_of as keys_of_set
from sync.rules.properties import set_properties
from sync.rules.view import CallPolicy, Conduct
from sync.rules.wanted import keys
from sync.rules.wishes import WakePolicy
from sync.service.fanout import keys_of
from tests.contract.fakes_housekeeping import MemoryHousekeeping
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, BOB, NOW, after, device, seeing, token
from tests.core.rule_feed import LONG, VERBS, Feed, Options, far, near, own, sessions, yes
from tests.core.rule_history import Archive
from tests.core.rule_outcome import rows, short, wrong
from tests.core.rule_wishes import part, quiet, wishes

T = TypeVar("T")

FOLDER = Path(__file__).parent.parent / "vectors" / "rules"
SECTION = re.compile(r"§|docs/|issue \d|tigase:")  # of a specification, a page or an issue
EVERYBODY = 10_000
ACCOUNTS = frozenset({ANN, *(f"{name}@example.org" for name in ("bob", "carol", "cat", "dan", "eve"))})


def load() -> list[Any]:
    """Every vector of every file as a pytest parameter."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        file = tomllib.loads(path.read_text())
        for vector in file["vector"]:
            cites = vector.get("cites") or file.get("cites", "")
            assert SECTION.search(cites), f"{vector['name']}: by which section?"
            assert vector["expect"], f"{vector['name']}: what is expected?"
            found.append(pytest.param(vector, id=f"{path.stem}: {vector['name']}"))
    return found


def policies(named: dict[str, bool]) -> Policies:
    """What an operator has set, by the names of the settings."""
    of = lambda kind: {f.name: named[f.name] for f in fields(kind) if f.name in named}  # noqa: E731
    conduct = Conduct(calls=CallPolicy(**of(CallPolicy)), **of(Conduct))
    wakes = WakePolicy(filtering_apps=frozenset({"chat"}), zones=zone, **of(WakePolicy))
    return Policies(conduct=conduct, wakes=wakes)


class World:
    """Ann's account, and those of others, on a store in memory, driven by steps."""

    def __init__(self, *, batched: bool, policy: dict[str, bool] | None = None) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.keeping = MemoryHousekeeping(self.store)
        self.policies = policies(policy or {})
        self.ignored: Counter[str] = Counter()
        self.suppressed: Counter[str] = Counter()
        self.errors: list[str] = []
        self.said: list[str] = []
        self.delays: list[float] = []
        self._batched = batched
        self._feed = Feed(self.clock.now)
        self._waiting: list[Event] = []
        self.archive = Archive(self.store, ANN, self.policies)
        self._past: list[MessageEvent] = []
        self._items = Feed(self.clock.now)
        self.store.apply(Keys(accounts=ACCOUNTS, create=True), seeing())

    def do(self, line: str) -> None:
        verb, *words = [word.replace("~", LONG) for word in shlex.split(line)]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        named = [word for word in words if "=" not in word]
        if verb in VERBS:
            self._waiting.append(self._feed.event(verb, named, options))
            if not self._batched:
                self.flush()
        else:
            self.flush()
            OTHERS[verb](self, named, options)
            self.balance(line)

    # ---- the feed ------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Commit the events that wait."""
        if self._waiting:
            self._took(take, self._waiting, keys(self._waiting, several=self.policies.conduct.several))
            self._waiting = []
            self.balance("the feed")

    def balance(self, step: str) -> None:
        assert not (faults := wrong(self.store.tables)), f"{step}: {faults}"

    def _took(self, rule: Callable[..., Any], what: Any, wanted: Keys) -> None:
        report: Report = self.store.apply(wanted, lambda books: rule(what, books, self.policies))
        self.ignored += report.ignored
        self.suppressed += report.suppressed

    def replayed(self) -> bool:
        """Feed everything again: True when that changes nothing (invariant 3)."""
        before = self.store.tables
        wanted = keys(self._feed.events, several=self.policies.conduct.several)
        self._took(take, self._feed.events, replace(wanted, create=False))  # who was deleted stays so
        after = self.store.tables
        return all(getattr(before, name) == getattr(after, name) for name in before.__dataclass_fields__)

    def reread(self) -> bool:
        """Read the archive again: True when that changes nothing but versions."""
        before = self.store.tables
        self.read(["again"], {})
        after = self.store.tables
        rows = [[replace(c, version=0) for c in tables.conversations.values()] for tables in (before, after)]
        same = ("messages", "changes", "calls", "jobs", "devices", "rooms")
        return rows[0] == rows[1] and all(getattr(before, name) == getattr(after, name) for name in same)

    # ---- the archive ---------------------------------------------------------------------------------------------

    def past(self, named: list[str], options: Options) -> None:
        """An item of Ann's archive; each is a page of its own, or all of them one."""
        event = self._items.event(named[0], named[1:], options)
        assert isinstance(event, MessageEvent)
        self.archive.items.append(event)
        self._past.append(event)
        if not self._batched:
            self._page()

    def keeps(self, named: list[str], options: Options) -> None:
        """What Ann's own storage says she has read (XEP-0490)."""
        self.archive.marked[ConversationKey(ANN, options.get("peer", BOB))] = named[0]

    def drops(self, _: list[str], __: Options) -> None:
        """Ann's own storage says nothing any more."""
        self.archive.marked.clear()

    def read(self, named: list[str], _: Options) -> None:
        """The end of the archive; `again`: all of it from the beginning."""
        if "again" in named:
            self._past = list(self.archive.items)
            self.archive.begin()
        self._page()
        self.ignored += self.archive.finish(self._items.message(Nothing(""), {}, way="out")).ignored

    def _page(self) -> None:
        self.ignored += self.archive.page(self._past).ignored
        self._past = []

    def fan(self, named: list[str], options: Options) -> None:
        """Everything that rooms owe, to all members, in chunks of `chunk`; `twice`: each chunk comes again, as after
        a crash; `half`: only the first chunk, and the room goes on owing.
        """
        for room in sorted(self.store.tables.rooms):
            entries = at_once(self.store.entries(room, 0, EVERYBODY))
            behind = ""
            while members := at_once(self.store.members(room, behind, int(options.get("chunk", EVERYBODY)))):
                for _ in range(2 if "twice" in named else 1):
                    rule = lambda books: fan_out(entries, members, books, self.policies)  # noqa: B023, E731
                    report = self.store.apply(keys_of(entries, members), rule)
                    self.suppressed += report.suppressed
                    self.balance("fan")
                behind = members[-1].account
                if "half" in named:
                    break
            if entries and "half" not in named:
                at_once(self.store.fanned(room, entries[-1].rank))

    # ---- everything else -----------------------------------------------------------------------------------------

    def wait(self, named: list[str], _: Options) -> None:
        self.clock.instant += timedelta(seconds=float(named[0]))

    def set(self, _: list[str], options: Options) -> None:
        """One request; `and=` a JID sets the same of a second conversation."""
        peer, kind = options.get("peer", BOB), Kind.CHAT
        if "room" in options or "at" in options:
            peer, kind = far(options) if "room" in options else near(options), Kind.GROUP
        elif "kind" in options:
            kind = Kind(options["kind"])
        key = ConversationKey(own(options), peer, kind)
        known = self.store.tables.conversations.get(key)
        expected = {"now": known.version if known else 0, "old": 1}.get(options.get("if", ""))
        requests = [replace(properties(options), peer=peer, kind=kind, if_version=expected)]
        if "and" in options:
            requests.append(replace(requests[0], peer=options["and"], if_version=None))
        rule = partial(set_properties, key.account, requests, resource=options.get("resource"), policies=self.policies)
        try:
            several = self.policies.conduct.several
            done = self.store.apply(keys_of_set(key.account, requests, several=several), rule)
        except RequestError as error:
            self.errors.append(error.condition)
        else:
            self.said += [f"{short(one.read.id)} {one.key.kind}" for one in done.read]
            self.ignored.update([] if done.changed else ["as-it-was"])
            self.suppressed += done.report.suppressed
            self.balance("set")

    def apart(self, named: list[str], options: Options) -> None:
        """A message that was taken while the option was the other: it is in the conversation of that kind."""
        kind, policies = Kind(named[0]), self.policies
        conduct = replace(policies.conduct, encrypted_apart=kind is not Kind.CHAT)
        self.policies = replace(policies, conduct=conduct)
        self._waiting.append(self._feed.event("in", named[1:], {**options, "sealed": "omemo-2"}))
        self.flush()
        self.policies = policies

    def expire(self, _: list[str], __: Options) -> None:
        """Every call is tried, not only those that are due: the rule decides."""
        found = list(self.store.tables.calls)
        sids = frozenset((key.account, key.sid) for key in found)
        self._took(expire, found, Keys(accounts=frozenset({ANN}), calls=sids, devices=True))

    def trim(self, _: list[str], __: Options) -> None:
        """Ann's turn of the housekeeping, with the defaults."""
        self.keeping.trim_at = {ANN: self.clock.now()}
        self.keeping.tidy(self.clock.now(), Retention(), 1)

    def device(self, named: list[str], options: Options) -> None:
        owner = own(options)
        self.store.apply(Keys(accounts=frozenset({owner}), create=True), seeing())
        made = device(
            named[0],
            owner=owner,
            app=options.get("app", "chat"),
            voip_token=token(f"voip {named[0]}") if yes(options, "voip") else None,
            bound_to=options.get("bound"),
            enabled=yes(options, "enabled", "yes"),
            wishes=wishes(options),
            registered_at=self.clock.now(),
        )
        tables = self.store.tables
        tables.devices[owner, named[0]] = made
        mine = sum(account == owner for account, _ in tables.devices)
        tables.accounts[owner] = replace(tables.accounts[owner], devices=mine)

    def fetch(self, named: list[str], options: Options) -> None:
        owner = own(options)
        newest = self.store.tables.accounts[owner].version
        rule = partial(fetched, owner, named[0], newest)
        self.delays += self.store.apply(Keys(accounts=frozenset({owner}), devices=True), rule)

    def claim(self, named: list[str], options: Options) -> None:
        """Claim every job of the kinds named, due or not: the rule decides."""
        jobs = [job for job in self.store.tables.jobs.values() if not named or job.kind in named]
        present = {ANN: sessions(options) if "sessions" in options else None}
        rule = lambda books: claim([job.job_id for job in jobs], present, books, self.policies)  # noqa: E731
        claimed = self.store.apply(job_keys(jobs), rule)
        self.suppressed.update(claimed.suppressed)

    def answer(self, named: list[str], options: Options) -> None:
        """What a push service said of the pushes of a kind that are under way."""
        kind, verdict = named
        since = after(float(options["dead"])) if "dead" in options else None
        outcome = PushOutcome(verdict=Verdict(verdict), reason=options.get("reason"), dead_since_at=since)
        jobs = [j for j in self.store.tables.jobs.values() if j.kind == kind and j.state is JobState.ATTEMPTED]
        for job in jobs:
            self.store.apply(job_keys([job]), partial(settled, job, outcome, self.policies))

    # ---- what came out -------------------------------------------------------------------------------------------

    def outcome(self) -> dict[str, Any]:
        """All rows, and what was told of them, in a vector's words."""
        self.flush()
        tables = self.store.tables
        return rows(tables) | {
            "ignored": dict(self.ignored),
            "suppressed": dict(self.suppressed),
            "errors": self.errors,
            "said": self.said,
            "delays": self.delays,
            "position": tables.positions.get(LanePosition("example.org", "stream", "main", lane(ANN)), 0),
        }


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def job_keys(jobs: list[PushJob]) -> Keys:
    return Keys(
        accounts=frozenset({ANN, *(job.account for job in jobs)}),
        conversations=frozenset(job.conversation for job in jobs if job.conversation),
        calls=frozenset((job.account, job.sid) for job in jobs if job.sid),
        devices=True,
    )


def settled(job: PushJob, outcome: PushOutcome, chosen: Policies, books: Books) -> Any:
    return settle(job.job_id, job.account, outcome, books, chosen)


def properties(options: Options) -> SetProperties:
    mute: Mute | Unmute | None = None
    if duration := options.get("mute"):
        mute = Unmute() if duration == "no" else Mute(None if duration == "ever" else length(duration))
    notify = options.get("notify")
    return SetProperties(
        peer="",
        pinned=int(options["pin"]) if "pin" in options else None,
        mute=mute,
        status=Status(options["status"]) if "status" in options else None,
        marked_unread=yes(options, "marked") if "marked" in options else None,
        notify=SetNotify(Notify(notify) if notify != "default" else None) if notify else None,
        read=options.get("read"),
    )


def length(text: str) -> timedelta:
    return timedelta.max if text == "longest" else timedelta(seconds=float(text))


OTHERS: dict[str, Callable[[World, list[str], Options], None]] = {
    "fan": World.fan,
    "wait": World.wait,
    "set": World.set,
    "apart": World.apart,
    "expire": World.expire,
    "trim": World.trim,
    "past": World.past,
    "keeps": World.keeps,
    "drops": World.drops,
    "read": World.read,
    "device": World.device,
    "fetch": World.fetch,
    "part": part,
    "quiet": quiet,
    "claim": World.claim,
    "answer": World.answer,
}
