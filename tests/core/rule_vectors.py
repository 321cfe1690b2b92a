"""Runs vectors of the rules (tests/vectors/rules/*.toml): steps in, rows out, each with the section that demands it.

A step is a line, `verb words… option=value…`; `STEPS` is the list of verbs. Feed events that follow each other go into
one transaction each, or all into one: both must lead to the same rows. Ann is the account, Bob the peer.
"""

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sync.model.books import Books, Keys, LanePosition
from sync.model.call import Call
from sync.model.conversation import Conversation, ConversationKey, Direction, Status
from sync.model.device import JobState, PushJob
from sync.model.errors import RequestError
from sync.model.event import (
    AccountEvent,
    AccountState,
    Body,
    Bounce,
    CallMessage,
    CallStep,
    Content,
    Correction,
    Displayed,
    Event,
    FeedPosition,
    Malformed,
    MessageEvent,
    Nothing,
    Retraction,
    Session,
    SessionState,
)
from sync.model.jid import lane
from sync.model.push import PushOutcome, Verdict
from sync.model.query import Mute, SetProperties, Unmute
from sync.rules.claims import claim, settle
from sync.rules.devices import fetched
from sync.rules.fold import Policies, Report, expire, take
from sync.rules.properties import set_properties
from sync.rules.wakes import WakePolicy
from sync.rules.wanted import keys
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_tables import recount
from tests.contract.samples import ANN, BOB, NOW, after, device, seeing, token

FOLDER = Path(__file__).parent.parent / "vectors" / "rules"
POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
Options = Mapping[str, str]


def load() -> list[Any]:
    """Every vector of every file as a pytest parameter."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        file = tomllib.loads(path.read_text())
        for vector in file["vector"]:
            assert vector.get("cites") or file.get("cites"), f"{vector['name']}: by which section?"
            found.append(pytest.param(vector, id=f"{path.stem}: {vector['name']}"))
    return found


def stanza(text: str) -> str:
    return f'<message xmlns="jabber:client"><body>{text}</body></message>'


def sessions(options: Options) -> tuple[Session, ...]:
    pairs = [pair.partition(":") for pair in options.get("sessions", "").split(",") if pair]
    return tuple(Session(resource, SessionState(state)) for resource, _, state in pairs)


class World:
    """Ann's account on a store in memory, driven by steps."""

    def __init__(self, *, batched: bool) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.ignored: Counter[str] = Counter()
        self.suppressed: Counter[str] = Counter()
        self.errors: list[str] = []
        self.delays: list[float] = []
        self._batched = batched
        self._fed: list[Event] = []
        self._waiting: list[Event] = []
        self.store.apply(Keys(accounts=frozenset({ANN}), create=True), seeing())

    def do(self, line: str) -> None:
        verb, *words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        named = [word for word in words if "=" not in word]
        if verb in FEED:
            self._feed(FEED[verb](self, named, options))
        else:
            self.flush()
            OTHERS[verb](self, named, options)

    # ---- the feed ------------------------------------------------------------------------------------------------

    def position(self) -> FeedPosition:
        return FeedPosition("example.org", "stream", "main", len(self._fed) + 1)

    def _feed(self, event: Event) -> None:
        self._fed.append(event)
        self._waiting.append(event)
        if not self._batched:
            self.flush()

    def flush(self) -> None:
        """Commit the events that wait."""
        if self._waiting:
            self._took(take, self._waiting, keys(self._waiting))
            self._waiting = []

    def _took(self, rule: Callable[..., Any], what: Any, wanted: Keys) -> None:
        report: Report = self.store.apply(wanted, lambda books: rule(what, books, POLICIES))
        self.ignored += report.ignored
        self.suppressed += report.suppressed

    def replayed(self) -> bool:
        """Feed everything again: True when that changes nothing (invariant 3)."""
        before = self.store.tables
        self._took(take, self._fed, keys(self._fed))
        after = self.store.tables
        return all(getattr(before, name) == getattr(after, name) for name in before.__dataclass_fields__)

    def message(self, content: Content, options: Options, *, way: str = "in", name: str | None = None) -> MessageEvent:
        direction = Direction(options.get("dir", way) if options.get("dir", way) != "self" else "out")
        own, peer = direction is Direction.OUT, options.get("peer", BOB)
        return MessageEvent(
            position=self.position(),
            account=ANN,
            at=self.clock.now() - timedelta(seconds=float(options.get("ago", 0))),
            direction=direction,
            peer=ANN if options.get("dir", way) == "self" else peer,
            sender=f"{ANN}/{options.get('res', 'web')}" if own else f"{peer}/phone",
            content=content,
            stanza=stanza(options.get("text", name or "")),
            resource=options.get("res"),
            archive_id=options.get("archive"),
            message_id=name or options.get("id"),
            origin_id=options.get("origin"),
            known=options.get("known", "yes") == "yes",
            to_self=options.get("dir", way) == "self",
            stored=options.get("stored", "yes") == "yes",
            sessions=sessions(options),
        )

    # ---- everything else -----------------------------------------------------------------------------------------

    def wait(self, named: list[str], _: Options) -> None:
        self.clock.instant += timedelta(seconds=float(named[0]))

    def set(self, _: list[str], options: Options) -> None:
        mute: Mute | Unmute | None = None
        if duration := options.get("mute"):
            mute = Unmute() if duration == "no" else Mute(None if duration == "ever" else length(duration))
        peer, pin = options.get("peer", BOB), options.get("pin")
        status = Status(options["status"]) if "status" in options else None
        request = SetProperties(peer=peer, pinned=int(pin) if pin else None, mute=mute, status=status)
        wanted = Keys(accounts=frozenset({ANN}), conversations=frozenset({ConversationKey(ANN, peer)}))
        try:
            changed = self.store.apply(wanted, partial(set_properties, ANN, [request]))
        except RequestError as error:
            self.errors.append(error.condition)
        else:
            self.ignored.update([] if changed else ["as-it-was"])

    def expire(self, _: list[str], __: Options) -> None:
        """Every call is tried, not only those that are due: the rule decides."""
        found = list(self.store.tables.calls)
        sids = frozenset((key.account, key.sid) for key in found)
        self._took(expire, found, Keys(accounts=frozenset({ANN}), calls=sids, devices=True))

    def device(self, named: list[str], options: Options) -> None:
        made = device(
            named[0],
            app=options.get("app", "chat"),
            voip_token=token(f"voip {named[0]}") if options.get("voip") == "yes" else None,
            bound_to=options.get("bound"),
            enabled=options.get("enabled", "yes") == "yes",
            registered_at=self.clock.now(),
        )
        tables = self.store.tables
        tables.devices[ANN, named[0]] = made
        tables.accounts[ANN] = replace(tables.accounts[ANN], devices=len(tables.devices))

    def fetch(self, named: list[str], _: Options) -> None:
        newest = self.store.tables.accounts[ANN].version
        rule = partial(fetched, ANN, named[0], newest)
        self.delays += self.store.apply(Keys(accounts=frozenset({ANN}), devices=True), rule)

    def claim(self, named: list[str], options: Options) -> None:
        """Claim every job of the kinds named, due or not: the rule decides."""
        jobs = [job for job in self.store.tables.jobs.values() if not named or job.kind in named]
        present = {ANN: sessions(options) if "sessions" in options else None}
        rule = lambda books: claim([job.job_id for job in jobs], present, books, POLICIES)  # noqa: E731
        claimed = self.store.apply(self._keys(jobs), rule)
        self.suppressed.update(claimed.suppressed)

    def answer(self, named: list[str], options: Options) -> None:
        """What a push service said of the pushes of a kind that are under way."""
        kind, verdict = named
        since = after(float(options["dead"])) if "dead" in options else None
        outcome = PushOutcome(verdict=Verdict(verdict), reason=options.get("reason"), dead_since_at=since)
        jobs = [j for j in self.store.tables.jobs.values() if j.kind == kind and j.state is JobState.ATTEMPTED]
        for job in jobs:
            rule = partial(settled, job, outcome)
            self.store.apply(self._keys([job]), rule)

    def _keys(self, jobs: list[PushJob]) -> Keys:
        peers = frozenset(ConversationKey(ANN, job.peer) for job in jobs if job.peer)
        sids = frozenset((ANN, job.sid) for job in jobs if job.sid)
        return Keys(accounts=frozenset({ANN}), conversations=peers, calls=sids, devices=True)

    # ---- what came out -------------------------------------------------------------------------------------------

    def outcome(self) -> dict[str, Any]:
        """All rows in a vector's words."""
        tables = self.store.tables
        listed = sorted(tables.conversations.values(), key=lambda c: c.key.peer)
        owner = tables.accounts.get(ANN)
        return {
            "conversations": {c.key.peer.partition("@")[0]: told(c) for c in listed},
            "totals": [owner.unread, owner.unread_conversations, owner.devices] if owner else [],
            "wakes_open": bool(owner and owner.wakes_open),
            "changes": [[c.kind, c.target_id, text_of(c.stanza)] for _, c in sorted(tables.changes.items())],
            "calls": {call.key.sid: state_of(call) for call in tables.calls.values()},
            "jobs": sorted(line(job) for job in tables.jobs.values()),
            "devices": sorted(name + (" voip" if d.voip_token else "") for (_, name), d in tables.devices.items()),
            "ignored": dict(self.ignored),
            "suppressed": dict(self.suppressed),
            "errors": self.errors,
            "delays": self.delays,
            "quarantined": [aside.why for aside in tables.quarantine.values()],
            "reset": bool(owner and owner.epoch > 1 and owner.floor == owner.version),
            "counted": [recount(tables, c.key) == (c.unread, c.mentions) for c in listed],
            "position": tables.positions.get(LanePosition("example.org", "stream", "main", lane(ANN)), 0),
        }


def settled(job: PushJob, outcome: PushOutcome, books: Books) -> Any:
    return settle(job.job_id, ANN, outcome, books, POLICIES)


def length(text: str) -> timedelta:
    return timedelta.max if text == "longest" else timedelta(seconds=float(text))


def text_of(xml: str | None) -> str:
    found = re.search("<body>(.*)</body>", xml or "")
    return found.group(1) if found else ""


def seconds(instant: Any) -> int:
    return round((instant - NOW).total_seconds())


def told(c: Conversation) -> dict[str, Any]:
    return {
        "unread": c.unread,
        "status": c.status.value,
        "pinned": c.pinned,
        "muted": c.muted(NOW),
        "read": c.read.id or "",
        "displayed": c.displayed.id or "",
        "ringing": c.ringing,
        "activity": seconds(c.activity_at),
        "last": text_of(c.last.stanza) if c.last else "none",
        "tombstone": bool(c.last and c.last.retracted),
        "rewritten": c.rewritten > 0,
    }


def state_of(call: Call) -> str:
    return " ".join(filter(None, [call.state.value, call.answered_by]))


def line(job: PushJob) -> str:
    """kind device outcome-or-state seconds, then what is special about it."""
    state = job.outcome if job.state is JobState.DONE else job.state.value
    due = f"{(job.not_before - NOW).total_seconds():g}"
    flags = [name for name, on in (("voip", job.voip), ("silent", job.silent), ("joined", job.peer == "")) if on]
    again = [f"repeat={job.repeat}"] if job.repeat else []
    return " ".join([job.kind, job.device_id, str(state), due, *filter(None, [job.collapse]), *flags, *again])


FEED: dict[str, Callable[[World, list[str], Options], Event]] = {
    "in": lambda w, n, o: w.message(Body(), o, name=n[0] if n else None),
    "out": lambda w, n, o: w.message(Body(), o, way="out", name=n[0] if n else None),
    "self": lambda w, n, o: w.message(Body(), o, way="self", name=n[0]),
    "correct": lambda w, n, o: w.message(Correction(n[0]), o),
    "retract": lambda w, n, o: w.message(Retraction(n[0]), o),
    "displayed": lambda w, n, o: w.message(Displayed(n[0], tuple(n[1:])), o, way="out"),
    "call": lambda w, n, o: w.message(CallMessage(CallStep(n[0]), n[1], ("audio",)), o),
    "bounce": lambda w, n, o: w.message(Bounce(None, n[0] if n else None), o),
    "nothing": lambda w, n, o: w.message(Nothing(n[0]), o),
    "account": lambda w, n, o: AccountEvent(
        position=w.position(), account=ANN, at=w.clock.now(), state=AccountState(n[0])
    ),
    "malformed": lambda w, n, o: Malformed(position=w.position(), account=ANN, why=n[0], xml="<event/>"),
}
OTHERS: dict[str, Callable[[World, list[str], Options], None]] = {
    "wait": World.wait,
    "set": World.set,
    "expire": World.expire,
    "device": World.device,
    "fetch": World.fetch,
    "claim": World.claim,
    "answer": World.answer,
}


def agrees(expected: Any, found: Any) -> bool:
    """Every key that a vector names is as it says; what it does not name is its own affair."""
    if isinstance(expected, dict) and isinstance(found, dict):
        named = all(key in found and agrees(value, found[key]) for key, value in expected.items())
        return named and bool(expected) == bool(found)
    return bool(expected == found)
