"""Many events, one transaction: the rule folded over a batch, each event seeing what the ones before it did.

Views are cut out of the books, decisions go back into them, and what changed comes out as rows to store. Events at or
below their lane's position were committed before: they are passed over, which makes the feed's repetition harmless
(invariant 3). A room's entries are folded over its members in the same way.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from sync.model.books import Books, LanePosition, LostHost, Quarantined, Ruling, Writes
from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import Account, Change, Conversation, ConversationKey, Kind
from sync.model.copies import replace
from sync.model.device import Device, JobState, PushJob
from sync.model.event import (
    AccountEvent,
    AccountState,
    BlocklistEvent,
    Bounce,
    Displayed,
    Event,
    GapEvent,
    GapReason,
    Malformed,
    MessageEvent,
    Nothing,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
    SessionEvent,
)
from sync.model.jid import bare, domain, lane
from sync.model.room import EntryKind, RoomEntry, RoomMember
from sync.rules.apart import placed, read_everywhere
from sync.rules.calls import expired
from sync.rules.contacts import answered
from sync.rules.decide import decide
from sync.rules.groups import concerns, deliver
from sync.rules.jobs import Case, Phone, ended, is_first_ring
from sync.rules.lines import calls_of, calls_told, lines_of
from sync.rules.lobby import Lobby
from sync.rules.markers import read_to
from sync.rules.publish_budget import PublishPolicy
from sync.rules.quiet import hush
from sync.rules.reasons import Why
from sync.rules.shelf import Shelf
from sync.rules.times import microseconds
from sync.rules.view import After, CallPolicy, Conduct, Decision, View, reset
from sync.rules.wakes import plan
from sync.rules.wanted import wanted_ids
from sync.rules.wishes import WakePolicy

Rule = Callable[[View, MessageEvent], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Everything that an operator may set about the rules."""

    conduct: Conduct = field(default_factory=Conduct)
    wakes: WakePolicy = field(default_factory=WakePolicy)
    publish: PublishPolicy = field(default_factory=PublishPolicy)

    @property
    def calls(self) -> CallPolicy:
        """How calls ring."""
        return self.conduct.calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """A call's push as it was decided, with all that sending it takes: the account as it is after the batch, and the
    device's `jobs`.
    """

    job: PushJob
    device: Device
    account: Account
    call: Call
    jobs: Sequence[PushJob] = field(default=(), compare=False)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a batch did, told after its commit. `rooms`: those that have, or may have, entries to fan out. `farewells`:
    accounts that were removed, with the devices that they had. `strangers`: members of a room without an account.
    """

    taken: int = 0
    repeated: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)
    coalesced: Counter[str] = field(default_factory=Counter)
    jobs: list[PushJob] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    rooms: set[str] = field(default_factory=set)
    farewells: list[tuple[Account, Sequence[Device]]] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)


def take(events: Sequence[Event], books: Books, policies: Policies) -> Ruling[Report]:
    """The rule for a batch of one or more lanes, in the order of the feed."""
    fold = Fold(books, policies)
    for event in events:
        fold.take(event)
    return Ruling(writes=fold.writes(), value=fold.report)


def expire(calls: Sequence[CallKey], books: Books, policies: Policies) -> Ruling[Report]:
    """The rule for calls whose ring deadline has passed."""
    fold = Fold(books, policies)
    for key in calls:
        fold.expire(key)
    return Ruling(writes=fold.writes(), value=fold.report)


def fan_out(
    entries: Sequence[RoomEntry], members: Sequence[RoomMember], books: Books, policies: Policies
) -> Ruling[Report]:
    """The rule for entries of one room, in the order of their ranks, and some of its members."""
    fold = Fold(books, policies)
    for member in members:
        for entry in entries:
            if concerns(member, entry):
                fold.deliver(member, entry)
    return Ruling(writes=fold.writes(), value=fold.report)


class Fold:
    """The working state of one transaction."""

    def __init__(self, books: Books, policies: Policies) -> None:
        self.report = Report()
        self._now: datetime = books.now
        self._policies = policies
        self._accounts = dict(books.accounts)
        self._conversations = dict(books.conversations)
        self._calls = dict(books.calls)
        self._positions = dict(books.positions)
        self._devices: Mapping[str, list[Device]] = books.devices
        self._jobs: dict[str, dict[str, PushJob]] = {
            account: {job.job_id: job for job in jobs} for account, jobs in books.jobs.items()
        }
        self._shelf = Shelf(books)
        self._lobby = Lobby(books, self._shelf)
        self._changes: list[Change] = []
        self._out = Writes()
        self._dirty_accounts: set[str] = set()
        self._dirty_conversations: set[ConversationKey] = set()
        self._dirty_calls: set[CallKey] = set()
        self._dirty_jobs: set[tuple[str, str]] = set()

    # ---- one event -----------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """One event of the feed, once."""
        position = LanePosition.of(event.position, lane(event.account))
        if event.position.n <= self._positions.get(position, 0):
            self.report.repeated += 1
            if isinstance(event, RoomMessageEvent | RoomMembersEvent | RoomDestroyedEvent):
                # Its commit stood, and perhaps nobody was told so: the room may owe.
                self.report.rooms.add(event.account)
            return
        self._positions[position] = self._out.positions[position] = event.position.n
        self.report.taken += 1
        match event:
            case MessageEvent():
                self._message(event)
            case RoomMessageEvent() | RoomMembersEvent() | RoomDestroyedEvent():
                if (why := self._lobby.take(event)) is not None:
                    self.report.ignored[why] += 1
                if isinstance(event, RoomMembersEvent):
                    self._came(event)
            case AccountEvent():
                self._account(event)
            case BlocklistEvent():
                self._blocklist(event)
            case SessionEvent():
                pass  # who is online is no state; the service tells `Presence` after the commit
            case GapEvent():
                self._gap(event)
            case Malformed():
                self._quarantine(event)
            case _:
                assert_never(event)

    def expire(self, key: CallKey) -> None:
        """A call nobody answered in time."""
        call = self._calls.get(key)
        if call is not None and key.account in self._accounts:
            self._apply(expired(self._view(call.conversation), call, self._policies.calls, self._now))

    def deliver(self, member: RoomMember, entry: RoomEntry) -> None:
        """An entry of a room, to one member."""
        if member.account not in self._accounts:
            self.report.strangers.add(member.account)
            return
        key = ConversationKey(member.account, entry.room, Kind.GROUP)
        view = self._view(key, calls=calls_told(member, entry, self._calls))
        if entry.kind is EntryKind.DISPLAYED and entry.target_rank is not None:
            view = replace(view, behind=self._shelf.behind(view.key, [entry.target_rank]))
        self._apply(deliver(view, member, entry, self._policies.conduct, self._now))

    def recall(self, event: MessageEvent, ids: Sequence[str], since: int, rule: Rule) -> None:
        """Something out of an archive: it changes what it changes, and no phone hears of it."""
        event = self._placed(event, ids)
        key = ConversationKey(event.account, event.peer, event.kind)
        view = self._view(key, ids=ids)
        ranks = [since, *(message.rank for message in view.found)]
        beside = (message for one in key.alike if one != key for message in self._shelf.find(one, ids))
        view = replace(view, behind=self._shelf.behind(key, ranks), beside=tuple(beside))
        self._apply(replace(rule(view, event), effects=()))
        self._read_everywhere(event, view, silent=True)

    def settle(self, key: ConversationKey, ids: Sequence[str], rule: Callable[[View], Decision]) -> Conversation | None:
        """Something that the owner asks for; the conversation where it is not as it was."""
        view = self._view(key, ids=ids)
        view = replace(view, behind=self._shelf.behind(key, [message.rank for message in view.found]))
        self._apply(decision := rule(view))
        return decision.after.conversation if decision.after is not None else None

    def recall_room(self, event: RoomMessageEvent) -> None:
        """Something out of a room's archive."""
        if (why := self._lobby.take(event)) is not None:
            self.report.ignored[why] += 1

    def _message(self, event: MessageEvent) -> None:
        if isinstance(event.content, Nothing):  # most traffic of some clients: no rows were loaded for it
            self.report.ignored[event.content.why] += 1
            return
        calls = calls_of(event, self._calls)
        event = self._placed(event, wanted_ids(event)) if self._policies.conduct.several else event
        key = ConversationKey(event.account, event.peer, event.kind)
        if event.to_self:
            # A step told to oneself is about a call with somebody else (rules/calls.py: named_call).
            ringing = next((call for call in calls if call.state is CallState.RINGING), None)
            key = ringing.conversation if ringing else key
        if isinstance(event.content, Bounce) and key not in self._conversations:
            key = replace(key, kind=Kind.GROUP)  # an error of a room reads like a peer's
        view = replace(self._view(key, ids=wanted_ids(event), calls=calls), lines=lines_of(event, self._calls))
        if isinstance(event.content, Displayed):
            view = replace(view, behind=self._shelf.behind(key, [message.rank for message in view.found]))
        self._apply(decide(view, event, self._policies.conduct, self._now))
        self._read_everywhere(event, view)

    def _placed(self, event: MessageEvent, ids: Sequence[str]) -> MessageEvent:
        """The event in the conversation that it belongs to, where the peer may have several."""
        key, conduct = ConversationKey(event.account, event.peer, event.kind), self._policies.conduct
        if not conduct.several or event.kind is Kind.GROUP:
            return event
        return placed(event, [self._view(one, ids=ids) for one in key.alike], conduct)

    def _read_everywhere(self, event: MessageEvent, view: View, *, silent: bool = False) -> None:
        """The peer's other conversations, where an event reads them as well."""
        for key, pointer in read_everywhere(event, view) if self._policies.conduct.several else ():
            beside = replace(self._view(key), behind=self._shelf.behind(key, [pointer.rank]))
            decision = read_to(beside, pointer, event.resource, self._now)
            if decision.after is not None:
                self._apply(replace(decision, effects=() if silent else decision.effects))

    def _came(self, event: RoomMembersEvent) -> None:
        """Those who are in the room now, members though they may have been before."""
        for member in event.members:
            key = ConversationKey(member.account, event.account, Kind.GROUP)
            if member.present and key in self._conversations and member.account in self._accounts:
                self._apply(answered(self._view(key), self._now))

    def _account(self, event: AccountEvent) -> None:
        """A deleted account takes everything along. The caller ends a batch with such an event: what follows is
        another account.
        """
        if event.state is AccountState.DELETED:
            self._out.deleted_accounts.append(event.account)
            owner, devices = self._accounts.pop(event.account, None), self._devices.get(event.account)
            if owner is not None and devices:
                self.report.farewells.append((owner, devices))

    def _blocklist(self, event: BlocklistEvent) -> None:
        """XEP-0191: what waits to be pushed for somebody who is blocked now is not pushed any more. The server itself
        lets nothing more of theirs through.
        """
        for job in list(self._jobs.get(event.account, {}).values()):
            named = {job.peer, bare(job.peer), domain(job.peer)}
            if named & set(event.blocked) and job.state is JobState.QUEUED:
                self._keep_job(ended(job, Why.BLOCKED, self._now))
                self.report.suppressed[Why.BLOCKED] += 1

    def _gap(self, event: GapEvent) -> None:
        """The host has lost events: nobody knows whose, so all of its clients start over (docs/feed.md §6)."""
        keep = event.position.stream if event.reason is GapReason.FULL else None
        self._out.lost_hosts.append(LostHost(host=event.account, version=microseconds(self._now), keep=keep))

    def _quarantine(self, event: Malformed) -> None:
        """Kept aside; the account's clients start over, since what it would have changed is unknown (docs/feed.md
        §7).
        """
        kept = Quarantined(position=event.position, account=event.account, why=event.why, event=event.xml)
        self._out.quarantined.append(kept)
        if event.room:
            self._lobby.lose(event.account)
            self._out.lost_hosts.append(LostHost(host=event.account, version=microseconds(self._now)))
        if (account := self._accounts.get(event.account)) is not None:
            self._accounts[event.account] = reset(account, self._now)
            self._dirty_accounts.add(event.account)

    # ---- views out of the books, decisions into them --------------------------------------------------------------

    def _view(self, key: ConversationKey, *, ids: Sequence[str] = (), calls: tuple[Call, ...] = ()) -> View:
        return View(
            account=self._accounts[key.account],
            key=key,
            conversation=self._conversations.get(key),
            found=self._shelf.find(key, ids) if ids else (),
            calls=calls,
        )

    def _apply(self, decision: Decision) -> None:
        after = decision.after
        if after is None:
            self.report.ignored[decision.ignored or "nothing"] += 1
            return
        self._accounts[after.account.jid] = after.account
        self._dirty_accounts.add(after.account.jid)
        for call in after.calls:
            self._calls[call.key] = call
            self._dirty_calls.add(call.key)
        if after.conversation is None:
            return
        self._keep(after, after.conversation)
        phones = self._phones(after.account.jid) if decision.effects else ()
        for effect in decision.effects:
            made = plan(effect, phones, self._case(after.account, after.conversation))
            self.report.suppressed.update(made.suppressed)
            jobs = self._jobs.get(after.account.jid, {})
            for job in made.jobs:
                self.report.coalesced[job.kind] += job.job_id in jobs and job.state is JobState.QUEUED
                self._keep_job(job)

    def _keep(self, after: After, conversation: Conversation) -> None:
        key = conversation.key
        self._conversations[key] = conversation
        self._dirty_conversations.add(key)
        self._shelf.take(after.messages, key, after.tallies)
        self._changes.extend(after.changes)
        for rank in after.erased:
            self._out.erased.append((key, rank))
            self._changes = [
                replace(c, stanza=None) if (c.conversation, c.target_rank) == (key, rank) else c for c in self._changes
            ]

    def _keep_job(self, job: PushJob) -> None:
        self._jobs.setdefault(job.account, {})[job.job_id] = job
        self._dirty_jobs.add((job.account, job.job_id))

    def _case(self, owner: Account, conversation: Conversation) -> Case:
        policy = self._policies.wakes
        return Case(conversation, policy, self._now, hush(owner.quiet, policy.zones, self._now))

    def _phones(self, account: str) -> list[Phone]:
        devices = [device for device in self._devices.get(account, ()) if device.enabled]
        jobs = tuple(self._jobs.get(account, {}).values()) if devices else ()
        return [
            Phone(
                device=device,
                filtering=device.app in self._policies.wakes.filtering_apps,
                jobs=tuple(job for job in jobs if job.device_id == device.device_id),
            )
            for device in devices
        ]

    # ---- the rows that changed ------------------------------------------------------------------------------------

    def writes(self) -> Writes:
        """The rows that changed. Of deleted accounts nothing is written."""
        out, gone = self._out, set(self._out.deleted_accounts)
        out.accounts = [self._accounts[jid] for jid in self._dirty_accounts - gone]
        out.conversations = [self._conversations[k] for k in self._dirty_conversations if k.account not in gone]
        out.messages = [m for m in self._shelf.changed() if m.conversation.account not in gone]
        out.changes = [change for change in self._changes if change.conversation.account not in gone]
        out.calls = [self._calls[k] for k in self._dirty_calls if k.account not in gone]
        out.jobs = [self._jobs[account][job_id] for account, job_id in self._dirty_jobs if account not in gone]
        self._lobby.leave(out)
        self.report.rooms |= {entry.room for entry in out.entries}
        self.report.jobs = out.jobs
        self.report.rings = [ring for job in out.jobs if (ring := self._ring(job)) is not None]
        return out

    def _ring(self, job: PushJob) -> Ring | None:
        """What it takes to send a call's push right after the commit."""
        account = self._accounts.get(job.account)
        device = next((d for d in self._devices.get(job.account, ()) if d.device_id == job.device_id), None)
        call = self._calls.get(CallKey(job.account, job.peer, job.sid)) if job.sid is not None else None
        if account is None or device is None or call is None or not is_first_ring(job, self._now):
            return None
        jobs = [one for one in self._jobs[job.account].values() if one.device_id == job.device_id]
        return Ring(job=job, device=device, account=account, call=call, jobs=jobs)
